//! Optimisers, schedules, clipping, losses and averaged weights against PyTorch's numbers
//! (`validation/pytorch-optimisers`).

#![allow(clippy::unwrap_used)] // Also in helpers, where the workspace's rule for tests does not reach.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use jetgraft_learn::average::{Average, Ema};
use jetgraft_learn::clip::clip_factor;
use jetgraft_learn::objective::classify::{LossOptions, cross_entropy, total_weight};
use jetgraft_learn::optimiser::{Optimiser, OptimiserOptions};
use jetgraft_learn::schedule::ScheduleOptions;
use jetgraft_learn::step::{Gradients, arm};
use jetgraft_nn::layers::Buffer;
use jetgraft_nn::state::{parameter_id, state};
use serde::Deserialize;

type Named = BTreeMap<String, Vec<f64>>;

#[derive(Deserialize)]
struct Expected {
    rate: f64,
    rates: BTreeMap<String, f64>,
    start: Named,
    gradients: Vec<Named>,
    optimisers: Vec<Trajectory>,
    schedules: Vec<Factors>,
    scheduled: Scheduled,
    clip: Vec<Clip>,
    losses: Vec<LossCase>,
    averages: Vec<AverageCase>,
}

#[derive(Deserialize)]
struct Trajectory {
    options: OptimiserOptions,
    f32: Vec<Named>,
    f64: Vec<Named>,
}

#[derive(Deserialize)]
struct Factors {
    options: ScheduleOptions,
    steps_per_epoch: u64,
    total_steps: u64,
    factors: Vec<f64>,
}

#[derive(Deserialize)]
struct Scheduled {
    optimiser: OptimiserOptions,
    schedule: ScheduleOptions,
    steps_per_epoch: u64,
    f32: Vec<Named>,
    f64: Vec<Named>,
}

#[derive(Deserialize)]
struct AverageCase {
    options: Ema,
    steps: Vec<Named>,
}

#[derive(Deserialize)]
struct Clip {
    limit: f64,
    norm: f64,
    gradients: Named,
}

#[derive(Deserialize)]
struct LossCase {
    options: LossOptions,
    logits: Vec<Vec<f64>>,
    labels: Vec<u32>,
    weights: Option<Vec<f32>>,
    loss: f64,
    gradient: Vec<Vec<f64>>,
}

fn expected() -> Expected {
    let text = include_str!("../../../validation/pytorch-optimisers/expected.json");
    serde_json::from_str(text).unwrap()
}

/// Two parameters, called as in the file.
#[derive(Module, Debug)]
struct Pair {
    a: Weight,
    b: Bias,
}

#[derive(Module, Debug)]
struct Weight {
    weight: Param<Tensor<2>>,
}

#[derive(Module, Debug)]
struct Bias {
    bias: Param<Tensor<1>>,
}

fn pair(start: &Named, device: &Device) -> Pair {
    let values = |name: &str| start[name].iter().map(|&value| value as f32).collect::<Vec<f32>>();
    let (a, b) = (values("a.weight"), values("b.bias"));
    let weight = Tensor::from_data(TensorData::new(a, [1, 5]), device);
    let bias = Tensor::from_data(TensorData::new(b, [3]), device);
    Pair {
        a: Weight { weight: Param::initialized(parameter_id("a.weight"), weight) },
        b: Bias { bias: Param::initialized(parameter_id("b.bias"), bias) },
    }
}

fn gradients(values: &Named, device: &Device) -> Gradients {
    let entries = values
        .iter()
        .map(|(name, values)| (name.clone(), values.iter().map(|&value| value as f32).collect()));
    Gradients::from_host(entries.collect(), device)
}

#[test]
fn optimisers_follow_pytorch() {
    let expected = expected();
    let device = Device::flex();
    let rates: BTreeMap<String, f64> =
        expected.rates.iter().map(|(name, rate)| (name.clone(), rate * expected.rate)).collect();
    for Trajectory { options, f32: single, f64: double } in &expected.optimisers {
        follow(&expected, options, |_| rates.clone(), single, double, &device);
    }
}

/// Momentum with a cosine that moves after each epoch, as the event networks are trained.
#[test]
fn a_schedule_and_an_optimiser_together_follow_pytorch() {
    let expected = expected();
    let Scheduled { optimiser, schedule, steps_per_epoch, f32: single, f64: double } = &expected.scheduled;
    let steps = single.len() as u64;
    let rates = |step: usize| {
        let rate = expected.rate * schedule.factor(step as u64, *steps_per_epoch, steps);
        expected.rates.iter().map(|(name, factor)| (name.clone(), factor * rate)).collect()
    };
    follow(&expected, optimiser, rates, single, double, &Device::flex());
}

fn follow(
    expected: &Expected,
    options: &OptimiserOptions,
    rates: impl Fn(usize) -> BTreeMap<String, f64>,
    single: &[Named],
    double: &[Named],
    device: &Device,
) {
    options.check().unwrap();
    let mut optimiser = Optimiser::new(options);
    let mut model = arm(pair(&expected.start, device), |_| true);
    for (step, values) in expected.gradients.iter().enumerate() {
        if step == 7 {
            // A restart changes nothing.
            let (tensors, steps) = optimiser.to_state();
            optimiser = Optimiser::from_state(options, &tensors, &steps, device).unwrap();
        }
        model = optimiser.step(model, gradients(values, device), &rates(step));
        for (name, tensor) in state(&model) {
            for (at, &ours) in tensor.values.iter().enumerate() {
                let (truth, theirs) = (double[step][&name][at], single[step][&name][at]);
                // PyTorch's own rounding, times 4, plus a unit in the last place for each step.
                let allowed = 4.0 * (theirs - truth).abs() + (step + 1) as f64 * 6e-8 * truth.abs().max(0.05);
                assert!(
                    (f64::from(ours) - truth).abs() <= allowed,
                    "{options:?} step {step} {name}[{at}]: {ours}, PyTorch {theirs} (f64 {truth})"
                );
            }
        }
    }
}

#[test]
fn a_parameter_without_rate_or_gradient_stays() {
    let expected = expected();
    let device = Device::flex();
    let model = arm(pair(&expected.start, &device), |_| true);
    let before = state(&model);
    let rates = BTreeMap::from([("a.weight".to_owned(), 0.1)]);
    let model = Optimiser::new(&OptimiserOptions::default()).step(
        model,
        gradients(&expected.gradients[1], &device),
        &rates,
    );
    let after = state(&model);
    assert_eq!(after["b.bias"], before["b.bias"]);
    assert_ne!(after["a.weight"], before["a.weight"]);
}

#[test]
fn schedules_follow_pytorch() {
    let expected = expected();
    for Factors { options, steps_per_epoch, total_steps, factors } in &expected.schedules {
        options.check().unwrap();
        for (step, &theirs) in factors.iter().enumerate() {
            let ours = options.factor(step as u64, *steps_per_epoch, *total_steps);
            assert!((ours - theirs).abs() < 1e-12, "{options:?} step {step}: {ours}, PyTorch {theirs}");
        }
    }
}

#[test]
fn clipping_follows_pytorch() {
    let expected = expected();
    let device = Device::flex();
    for Clip { limit, norm, gradients: clipped } in &expected.clip {
        let mut ours = gradients(&expected.gradients[3], &device);
        assert!((ours.norm() / norm - 1.0).abs() < 1e-6);
        if let Some(factor) = clip_factor(ours.norm(), *limit) {
            ours.scale(factor);
        }
        for (name, values) in clipped {
            let found: Vec<f64> = ours.take(name).unwrap().into_data().iter::<f64>().collect();
            for (ours, theirs) in found.iter().zip(values) {
                assert!((ours - theirs).abs() <= 1e-6 * theirs.abs(), "{name}: {ours} {theirs}");
            }
        }
    }
}

#[test]
fn losses_follow_pytorch() {
    let device = Device::flex().autodiff();
    for case in expected().losses {
        let classes = case.logits[0].len();
        let values: Vec<f32> = case.logits.iter().flatten().map(|&value| value as f32).collect();
        let data = TensorData::new(values, [case.logits.len(), classes]);
        let logits = Tensor::<2>::from_data(data, &device).require_grad();
        let weights = case.weights.as_deref();
        let loss = case.options.resolve(classes, case.weights.clone()).unwrap();
        let total = total_weight(&case.labels, weights);
        let loss = loss.part(logits.clone(), &case.labels, total, &device);
        let value: f64 = loss.to_data().iter::<f64>().sum();
        assert!((value / case.loss - 1.0).abs() < 1e-6, "{:?}: {value} {}", case.options, case.loss);
        if case.options == LossOptions::default() {
            let same = cross_entropy(logits.clone(), &case.labels, weights, &device);
            assert_eq!(same.to_data().iter::<f64>().sum::<f64>(), value);
        }
        let gradient: Vec<f64> = logits.grad(&loss.backward()).unwrap().into_data().iter::<f64>().collect();
        for (row, (ours, theirs)) in gradient.chunks(classes).zip(&case.gradient).enumerate() {
            // The slope of the focal factor multiplies ln p, whose size is that of the spread of the logits.
            let spread = case.logits[row].iter().fold(0f64, |top, value| top.max(value.abs()));
            let allowed = match case.options {
                LossOptions::CrossEntropy { .. } => 1e-7,
                LossOptions::Focal { .. } => 1e-7 * spread.max(1.0),
            };
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert!((ours - theirs).abs() < allowed, "{:?} row {row}: {ours} {theirs}", case.options);
            }
        }
    }
}

/// A weight and a running mean, called as in the file but for the role.
#[derive(Module, Debug)]
struct Running {
    weight: Param<Tensor<1>>,
    running_mean: Buffer,
}

#[test]
fn averages_follow_pytorch() {
    let expected = expected();
    let device = Device::flex();
    for AverageCase { options, steps } in &expected.averages {
        options.check().unwrap();
        let mut average = Average::new(*options);
        for (step, (given, theirs)) in expected.gradients.iter().zip(steps).enumerate() {
            let tensor = |name: &str| {
                let values: Vec<f32> = given[name].iter().map(|&value| value as f32).collect();
                Tensor::<1>::from_data(TensorData::new(values.clone(), [values.len()]), &device)
            };
            let network = Running {
                weight: Param::initialized(parameter_id("weight"), tensor("a.weight")),
                running_mean: Buffer::full("running_mean", 3, 0.0, &device),
            };
            network.running_mean.set(tensor("b.bias"));
            if step == 7 {
                // A restart changes nothing.
                average = Average::from_state(*options, &average.to_state(), &device);
            }
            average.update(&network, |_| true);
            let found = state(&average.applied(network));
            for (ours, theirs) in [("weight", "a.weight"), ("running_mean", "b.bias")]
                .map(|(ours, name)| (&found[ours].values, &theirs[name]))
            {
                for (ours, theirs) in ours.iter().zip(theirs) {
                    let difference = (f64::from(*ours) - theirs).abs();
                    assert!(
                        difference <= 1e-6 * theirs.abs().max(1e-3),
                        "{options:?} step {step}: {ours} {theirs}"
                    );
                }
            }
        }
    }
}

#[test]
fn schedules_outside_their_range_keep_their_last_value() {
    for text in [
        r#"{"kind": "cosine"}"#,
        r#"{"kind": "one-cycle"}"#,
        r#"{"kind": "one-cycle", "warmup_share": 0.01}"#,
        r#"{"kind": "cosine", "per": "epoch", "warmup": {"steps": 3}}"#,
        r#"{"kind": "multi-step", "milestones": [1]}"#,
        r#"{"kind": "step", "every": 3, "warmup": {"steps": 3}}"#,
        r#"{"kind": "flat-decay"}"#,
        r#"{"kind": "flat-decay", "decay_share": 1, "per": "step", "warmup": {"steps": 3}}"#,
        r#"{"kind": "cosine", "period": 2}"#,
        r#"{"kind": "cosine-restarts", "first": 1}"#,
        r#"{"kind": "cosine-restarts", "first": 1, "growth": 2, "per": "step", "warmup": {"steps": 3}}"#,
    ] {
        let options: ScheduleOptions = serde_json::from_str(text).unwrap();
        for total in 1..12 {
            for step in 0..30 {
                let factor = options.factor(step, 2, total);
                assert!((0.0..=1.0 + 1e-12).contains(&factor), "{text}: {factor} at {step} of {total}");
            }
        }
    }
    for text in [
        r#"{"kind": "multi-step", "milestones": [3, 2]}"#,
        r#"{"kind": "multi-step", "milestones": [2], "factor": 0}"#,
        r#"{"kind": "cosine", "last": 2}"#,
        r#"{"kind": "one-cycle", "warmup_share": 1}"#,
        r#"{"kind": "cosine", "period": 0}"#,
        r#"{"kind": "cosine-restarts", "first": 0}"#,
        r#"{"kind": "cosine-restarts", "first": 2, "growth": 0}"#,
        r#"{"kind": "cosine-restarts", "first": 2, "last": -1}"#,
        r#"{"kind": "step", "every": 0}"#,
        r#"{"kind": "step", "every": 2, "factor": 0}"#,
        r#"{"kind": "flat-decay", "decay_share": 0}"#,
        r#"{"kind": "flat-decay", "last": 0}"#,
        r#"{"kind": "flat-decay", "last": 0.1, "warmup": {"steps": 0}}"#,
        r#"{"kind": "constant", "warmup": {"steps": 0}}"#,
        r#"{"kind": "constant", "warmup": {"steps": 4, "start": 0}}"#,
    ] {
        assert!(serde_json::from_str::<ScheduleOptions>(text).unwrap().check().is_err(), "{text}");
    }
    assert!(serde_json::from_str::<ScheduleOptions>(r#"{"kind": "constant", "warmpu": null}"#).is_err());
}
