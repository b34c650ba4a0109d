//! Ranger, `flat+decay` and the groups of weight decay against weaver's numbers (`validation/weaver-optimiser`).

#![allow(clippy::unwrap_used)] // Also in helpers, where the workspace's rule for tests does not reach.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use jetgraft_learn::objective::classify::cross_entropy;
use jetgraft_learn::optimiser::{Decayed, Optimiser, OptimiserOptions};
use jetgraft_learn::schedule::ScheduleOptions;
use jetgraft_learn::step::{Gradients, arm};
use jetgraft_nn::layers::Dense;
use jetgraft_nn::state::{parameter_id, state};
use serde::Deserialize;

type Named = BTreeMap<String, Vec<f64>>;

#[derive(Deserialize)]
struct Expected {
    rate: f64,
    start: Named,
    gradients: Vec<Named>,
    rangers: Vec<Trajectory>,
    fit: Fit,
    flat_decay: Vec<FlatDecay>,
    decayed: Vec<Decay>,
}

#[derive(Deserialize)]
struct Trajectory {
    options: OptimiserOptions,
    head_multiplier: f64,
    f32: Vec<Named>,
    f64: Vec<Named>,
}

#[derive(Deserialize)]
struct Fit {
    inputs: Vec<Vec<f64>>,
    labels: Vec<u32>,
    rate: f64,
    multipliers: BTreeMap<String, f64>,
    weight_decay: f64,
    f32: Fitted,
    f64: Fitted,
}

#[derive(Deserialize)]
struct Fitted {
    start: Named,
    losses: Vec<f64>,
    weights: Vec<Named>,
}

#[derive(Deserialize)]
struct FlatDecay {
    epochs: u64,
    multiplier: Option<f64>,
    rates: Named,
}

#[derive(Deserialize)]
struct Decay {
    name: String,
    shape: Vec<usize>,
    decays: bool,
}

fn expected() -> Expected {
    let text = include_str!("../../../validation/weaver-optimiser/expected.json");
    serde_json::from_str(text).unwrap()
}

fn singles(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

/// Two parameters, called as in the file.
#[derive(Module, Debug)]
struct Pair {
    a: Weight,
    head: Bias,
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
    let weight = Tensor::from_data(TensorData::new(singles(&start["a.weight"]), [1, 5]), device);
    let bias = Tensor::from_data(TensorData::new(singles(&start["head.bias"]), [3]), device);
    Pair {
        a: Weight { weight: Param::initialized(parameter_id("a.weight"), weight) },
        head: Bias { bias: Param::initialized(parameter_id("head.bias"), bias) },
    }
}

/// The same state on the disk and back.
fn restarted(optimiser: Optimiser, options: &OptimiserOptions, device: &Device) -> Optimiser {
    let (tensors, steps) = optimiser.to_state();
    Optimiser::from_state(options, &tensors, &steps, device).unwrap().decaying(Decayed::Matrices)
}

/// Momentum in the first five steps, six looks back (four in the third case: every fourth step), two groups of rates,
/// decay of matrices only.
#[test]
fn ranger_follows_weaver() {
    let expected = expected();
    let device = Device::flex();
    for Trajectory { options, head_multiplier, f32: single, f64: double } in &expected.rangers {
        options.check().unwrap();
        let rates = BTreeMap::from([
            ("a.weight".to_owned(), expected.rate),
            ("head.bias".to_owned(), expected.rate * head_multiplier),
        ]);
        let mut optimiser = Optimiser::new(options).decaying(Decayed::Matrices);
        let mut model = arm(pair(&expected.start, &device), |_| true);
        for (step, gradients) in expected.gradients.iter().enumerate() {
            if [4, 6, 14].contains(&step) {
                optimiser = restarted(optimiser, options, &device);
            }
            let gradients = gradients.iter().map(|(name, values)| (name.clone(), singles(values)));
            model = optimiser.step(model, Gradients::from_host(gradients.collect(), &device), &rates);
            for (name, tensor) in state(&model) {
                for (at, &ours) in tensor.values.iter().enumerate() {
                    let (truth, theirs) = (double[step][&name][at], single[step][&name][at]);
                    // Weaver's own rounding, times 4, plus a unit in the last place for each step.
                    let allowed =
                        4.0 * (theirs - truth).abs() + (step + 1) as f64 * 6e-8 * truth.abs().max(0.05);
                    assert!(
                        (f64::from(ours) - truth).abs() <= allowed,
                        "{options:?} step {step} {name}[{at}]: {ours}, weaver {theirs} (f64 {truth})"
                    );
                }
            }
        }
    }
}

/// One hidden layer.
#[derive(Module, Debug)]
struct Network {
    body: Dense,
    head: Dense,
}

fn dense(name: &str, sizes: [usize; 2], start: &Named, device: &Device) -> Dense {
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    let matrix = Tensor::from_data(TensorData::new(singles(&start[&weight]), sizes), device);
    let vector = Tensor::from_data(TensorData::new(singles(&start[&bias]), [sizes[1]]), device);
    Dense {
        weight: Param::initialized(parameter_id(&weight), matrix),
        bias: Some(Param::initialized(parameter_id(&bias), vector)),
    }
}

/// A network whose gradients follow from its weights: differences would grow.
#[test]
fn a_network_fitted_with_ranger_follows_weaver() {
    let Fit { inputs, labels, rate, multipliers, weight_decay, f32: single, f64: double } = expected().fit;
    let device = Device::flex();
    let autodiff = device.clone().autodiff();
    let options: OptimiserOptions =
        serde_json::from_str(&format!(r#"{{"kind": "ranger", "weight_decay": {weight_decay}}}"#)).unwrap();
    let [features, hidden, classes] = [inputs[0].len(), single.start["body.bias"].len(), 2];
    let network = Network {
        body: dense("body", [features, hidden], &single.start, &device),
        head: dense("head", [hidden, classes], &single.start, &device),
    };
    let mut model = arm(network, |_| true);
    let factor = |name: &str| multipliers[name.split('.').next().unwrap()];
    let rates = state(&model).into_keys().map(|name| (name.clone(), rate * factor(&name))).collect();
    let data = TensorData::new(singles(&inputs.concat()), [inputs.len(), features]);
    let inputs = Tensor::<2>::from_data(data, &autodiff);
    let mut optimiser = Optimiser::new(&options).decaying(Decayed::Matrices);
    for (step, weights) in double.weights.iter().enumerate() {
        if step == 9 {
            optimiser = restarted(optimiser, &options, &device);
        }
        let logits = model.head.forward(model.body.forward(inputs.clone()).tanh());
        let loss = cross_entropy(logits, &labels, None, &autodiff);
        let value: f64 = loss.to_data().iter::<f64>().sum();
        assert!((value - double.losses[step]).abs() < 2e-7, "step {step}: {value} {}", double.losses[step]);
        let gradients = Gradients::of(&loss, &model);
        model = optimiser.step(model, gradients, &rates);
        // The largest rounding that weaver itself shows up to here, times 4, and a floor.
        let theirs = single.weights[..=step].iter().zip(&double.weights);
        let theirs = theirs.flat_map(|(single, double)| {
            double
                .iter()
                .flat_map(|(name, double)| double.iter().zip(&single[name]).map(|(a, b)| (a - b).abs()))
        });
        let allowed = 4.0 * theirs.fold(6e-8, f64::max);
        for (name, tensor) in state(&model) {
            for (&ours, truth) in tensor.values.iter().zip(&weights[&name]) {
                let difference = (f64::from(ours) - truth).abs();
                assert!(difference <= allowed, "step {step} {name}: {ours}, weaver {truth}");
            }
        }
    }
}

#[test]
fn flat_decay_follows_weaver() {
    let options = |groups: &str| -> ScheduleOptions {
        serde_json::from_str(&format!(r#"{{"kind": "flat-decay", "groups": "{groups}"}}"#)).unwrap()
    };
    // Any number of steps makes an epoch.
    for per_epoch in [1, 7] {
        for FlatDecay { epochs, multiplier, rates } in expected().flat_decay {
            let total = epochs * per_epoch - (per_epoch - 1) / 2;
            for (name, factor) in [("a.weight", 1.0), ("head.weight", multiplier.unwrap_or(1.0))] {
                for (epoch, theirs) in rates[name].iter().enumerate() {
                    let step = epoch as u64 * per_epoch;
                    let of = |groups: &str| {
                        options(groups).factor_of(factor, multiplier.is_some(), step, per_epoch, total)
                    };
                    let ours = factor * of("weaver");
                    assert!(
                        (ours - theirs).abs() < 1e-12 * factor,
                        "{epochs} epochs, {multiplier:?}, {name}, epoch {epoch}: {ours}, weaver {theirs}"
                    );
                    // By default every group falls as those of weaver that do.
                    let multiplied = rates["head.weight"][epoch] / multiplier.unwrap_or(1.0);
                    assert!((of("all") - multiplied).abs() < 1e-12);
                }
            }
        }
    }
    // Published settings, epochs from 0: 50 epochs fall over 15 by 0.735642 each, 20 over 6 by 0.464159.
    for (epochs, first, gamma) in [(50, 35, 0.735642), (20, 14, 0.464159)] {
        assert_eq!(options("all").factor(first - 1, 1, epochs), 1.0);
        assert!((options("all").factor(first, 1, epochs) - gamma).abs() < 1e-6);
        assert!((options("all").factor(epochs - 1, 1, epochs) - 0.01).abs() < 1e-12);
    }
}

#[test]
fn the_same_parameters_decay_as_in_weaver() {
    for Decay { name, shape, decays } in expected().decayed {
        assert_eq!(Decayed::Matrices.includes(&name, &shape), decays, "{name} {shape:?}");
        assert!(Decayed::All.includes(&name, &shape));
    }
    for (name, shape) in [("head.class_token", [1, 8]), ("attention.in_bias", [3, 8])] {
        assert!(!Decayed::Matrices.includes(name, &shape), "{name}");
    }
}
