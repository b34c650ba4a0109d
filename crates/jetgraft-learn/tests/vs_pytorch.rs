//! Optimisers, schedules, clipping and cross-entropy against PyTorch's numbers (`validation/pytorch-optimisers`).

#![allow(clippy::unwrap_used)] // Also in helpers, where the workspace's rule for tests does not reach.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use jetgraft_learn::clip::clip_factor;
use jetgraft_learn::objective::classify::cross_entropy;
use jetgraft_learn::optimiser::{Optimiser, OptimiserOptions};
use jetgraft_learn::schedule::ScheduleOptions;
use jetgraft_learn::step::{Gradients, arm};
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
    steps_per_epoch: u64,
    total_steps: u64,
    schedules: Vec<Factors>,
    clip: Vec<Clip>,
    cross_entropy: Vec<Entropy>,
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
    factors: Vec<f64>,
}

#[derive(Deserialize)]
struct Clip {
    limit: f64,
    norm: f64,
    gradients: Named,
}

#[derive(Deserialize)]
struct Entropy {
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
    let rates = expected.rates.iter().map(|(name, rate)| (name.clone(), rate * expected.rate)).collect();
    for Trajectory { options, f32: single, f64: double } in &expected.optimisers {
        options.check().unwrap();
        let mut optimiser = Optimiser::new(options);
        let mut model = arm(pair(&expected.start, &device), |_| true);
        for (step, values) in expected.gradients.iter().enumerate() {
            if step == 7 {
                // A restart changes nothing.
                let (tensors, steps) = optimiser.to_state();
                optimiser = Optimiser::from_state(options, &tensors, &steps, &device).unwrap();
            }
            model = optimiser.step(model, gradients(values, &device), &rates);
            for (name, tensor) in state(&model) {
                for (at, &ours) in tensor.values.iter().enumerate() {
                    let (truth, theirs) = (double[step][&name][at], single[step][&name][at]);
                    // PyTorch's own rounding, times 4, plus a unit in the last place for each step.
                    let allowed =
                        4.0 * (theirs - truth).abs() + (step + 1) as f64 * 6e-8 * truth.abs().max(0.05);
                    assert!(
                        (f64::from(ours) - truth).abs() <= allowed,
                        "{options:?} step {step} {name}[{at}]: {ours}, PyTorch {theirs} (f64 {truth})"
                    );
                }
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
    for Factors { options, factors } in &expected.schedules {
        options.check().unwrap();
        for (step, &theirs) in factors.iter().enumerate() {
            let ours = options.factor(step as u64, expected.steps_per_epoch, expected.total_steps);
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
fn cross_entropy_follows_pytorch() {
    let device = Device::flex().autodiff();
    for case in expected().cross_entropy {
        let classes = case.logits[0].len();
        let values: Vec<f32> = case.logits.iter().flatten().map(|&value| value as f32).collect();
        let data = TensorData::new(values, [case.logits.len(), classes]);
        let logits = Tensor::<2>::from_data(data, &device).require_grad();
        let loss = cross_entropy(logits.clone(), &case.labels, case.weights.as_deref(), &device);
        let value: f64 = loss.to_data().iter::<f64>().sum();
        assert!((value / case.loss - 1.0).abs() < 1e-6, "{value} {}", case.loss);
        let gradient: Vec<f64> = logits.grad(&loss.backward()).unwrap().into_data().iter::<f64>().collect();
        for (ours, theirs) in gradient.iter().zip(case.gradient.iter().flatten()) {
            assert!((ours - theirs).abs() < 1e-7, "{ours} {theirs}");
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
        r#"{"kind": "constant", "warmup": {"steps": 0}}"#,
        r#"{"kind": "constant", "warmup": {"steps": 4, "start": 0}}"#,
    ] {
        assert!(serde_json::from_str::<ScheduleOptions>(text).unwrap().check().is_err(), "{text}");
    }
    assert!(serde_json::from_str::<ScheduleOptions>(r#"{"kind": "constant", "warmpu": null}"#).is_err());
}
