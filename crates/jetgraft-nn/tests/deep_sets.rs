//! Deep sets and the network on high-level variables against their formulas, and what their shapes promise.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use common::{bits, difference, distance, gradients, host, matrix, vector};
use jetgraft_nn::contract::{Backbone, GraphBatch, Mode, RaggedGraph, Rows};
use jetgraft_nn::import::ForeignTensor;
use jetgraft_nn::models::deep_sets::{self, DeepSets, DeepSetsConfig, Flow};
use jetgraft_nn::models::mlp::{self, Mlp, MlpConfig};
use jetgraft_nn::ops::jet_sum;
use jetgraft_nn::state::{Role, State, load_state, parameter_ids, state};

/// Jets of particles with features and kinematics.
#[derive(Clone)]
struct Jets {
    sizes: Vec<usize>,
    features: Vec<f32>,
    columns: usize,
    kinematics: Vec<f32>,
}

impl Jets {
    fn new(sizes: &[usize], columns: usize, seed: u64) -> Self {
        let nodes: usize = sizes.iter().sum();
        let mut kinematics = vector(seed + 1, 4 * nodes);
        for particle in kinematics.chunks_mut(4) {
            particle[0] = 10.0 + 9.0 * particle[0];
            particle[3] = 0.0;
        }
        Self { sizes: sizes.to_vec(), features: vector(seed, nodes * columns), columns, kinematics }
    }

    fn batch(&self, device: &Device) -> GraphBatch {
        let mut offsets = vec![0u32];
        for &size in &self.sizes {
            offsets.push(offsets[offsets.len() - 1] + size as u32);
        }
        let nodes = self.sizes.iter().sum();
        let graph = RaggedGraph::new(&offsets, device).unwrap().with_kinematics(&self.kinematics).unwrap();
        GraphBatch { features: matrix(self.features.clone(), nodes, self.columns, device), graph }
    }
}

fn small(flow: Flow) -> DeepSetsConfig {
    DeepSetsConfig { flow, input_features: 3, phi: vec![8, 6], f: vec![5], dropout: 0.0, classes: 3 }
}

fn evaluate<B: Backbone>(network: &B, jets: &Jets) -> Vec<f32> {
    let device = network.devices()[0].clone();
    host(network.forward(&jets.batch(&device), &Mode::evaluate(network.stages().len())))
}

fn count(state: &State) -> usize {
    state.values().filter(|tensor| tensor.role == Role::Parameter).map(|tensor| tensor.values.len()).sum()
}

/// `x W + b` in double precision, with or without ReLU.
fn layer(x: &[f64], state: &State, name: &str, relu: bool) -> Vec<f64> {
    let (weight, bias) = (&state[&format!("{name}.weight")], &state[&format!("{name}.bias")]);
    let outputs = bias.values.len();
    (0..outputs)
        .map(|o| {
            let sum: f64 = (x.iter().enumerate())
                .map(|(i, x)| x * f64::from(weight.values[i * outputs + o]))
                .sum::<f64>()
                + f64::from(bias.values[o]);
            if relu { sum.max(0.0) } else { sum }
        })
        .collect()
}

#[test]
fn a_deep_set_is_its_formula() {
    let jets = Jets::new(&[1, 4, 30, 2], 3, 5);
    for flow in [Flow::Particle, Flow::Energy] {
        let network = DeepSets::new(&small(flow), 3, &Device::flex()).unwrap();
        let state = state(&network);
        let mut expected = Vec::new();
        let mut first = 0;
        for &size in &jets.sizes {
            let total: f64 = (first..first + size).map(|node| f64::from(jets.kinematics[4 * node])).sum();
            let mut sum = vec![0f64; 6];
            for node in first..first + size {
                let x: Vec<f64> = jets.features[3 * node..][..3].iter().map(|&x| f64::from(x)).collect();
                let share = match flow {
                    Flow::Particle => 1.0,
                    Flow::Energy => f64::from(jets.kinematics[4 * node]) / total,
                };
                let x = layer(&layer(&x, &state, "phi.0", true), &state, "phi.1", true);
                sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += share * x);
            }
            let x = layer(&layer(&sum, &state, "f.0", true), &state, "head", false);
            expected.extend(x.iter().map(|&x| x as f32));
            first += size;
        }
        assert!(difference(&evaluate(&network, &jets), &expected) < 2e-6, "{flow:?}");
    }
}

#[test]
fn an_energy_flow_network_is_infrared_and_collinear_safe() {
    let network = DeepSets::new(&small(Flow::Energy), 3, &Device::flex()).unwrap();
    assert!(network.needs().kinematics);
    let jets = Jets::new(&[5], 3, 5);
    let logits = evaluate(&network, &jets);
    let mut split = jets.clone();
    split.sizes[0] += 2;
    // The first particle in two of one direction, and one more of hardly any momentum.
    split.features.extend_from_slice(&jets.features[..3]);
    split.kinematics.extend_from_slice(&jets.kinematics[..4]);
    split.kinematics[0] *= 0.3;
    split.kinematics[4 * 5] *= 0.7;
    split.features.extend([0.5, -0.5, 0.1]);
    split.kinematics.extend([1e-9, 0.5, -0.5, 0.0]);
    assert!(difference(&evaluate(&network, &split), &logits) < 2e-6);
    let particle = DeepSets::new(&small(Flow::Particle), 3, &Device::flex()).unwrap();
    assert!(!particle.needs().kinematics);
    assert!(difference(&evaluate(&particle, &split), &evaluate(&particle, &jets)) > 1e-3);
}

#[test]
fn the_mean_stands_in_for_several_nodes() {
    let network = Mlp::new(&MlpConfig::default(), 3, &Device::flex()).unwrap();
    let several = Jets::new(&[1, 3], 5, 8);
    let mut one = several.clone();
    one.sizes = vec![1, 1];
    let mean: Vec<f32> = (0..5)
        .map(|column| (1..4).map(|node| several.features[5 * node + column]).sum::<f32>() / 3.0)
        .collect();
    one.features.truncate(5);
    one.features.extend(mean);
    one.kinematics.truncate(8);
    assert!(difference(&evaluate(&network, &several), &evaluate(&network, &one)) < 1e-6);
}

#[test]
fn the_input_norm_standardises_whatever_the_units() {
    let device = Device::flex();
    let config = MlpConfig { dropout: 0.2, ..MlpConfig::default() };
    let network = Mlp::new(&config, 3, &device).unwrap();
    let mut jets = Jets::new(&[1; 200], 5, 8);
    let mut mode = Mode::train(network.stages().len(), 4);
    mode.dropout_seed = None;
    let first = host(network.forward(&jets.batch(&device), &mode));
    jets.features.iter_mut().for_each(|x| *x = 300.0 + 80.0 * *x);
    assert!(difference(&host(network.forward(&jets.batch(&device), &mode)), &first) < 1e-3);
    let dropped = |seed| {
        mode.dropout_seed = Some(seed);
        host(network.forward(&jets.batch(&device), &mode))
    };
    let mut dropped = dropped;
    assert_eq!(bits(&dropped(1)), bits(&dropped(1)));
    assert_ne!(bits(&dropped(1)), bits(&dropped(2)));
}

#[test]
fn names_counts_and_stages() {
    let device = Device::flex();
    for (config, expected) in
        [(DeepSetsConfig::particle_flow(), 57_130), (DeepSetsConfig::energy_flow(), 56_630)]
    {
        let network = DeepSets::new(&config, 0, &device).unwrap();
        assert_eq!(count(&state(&network)), expected);
        check_stages(&network, &Jets::new(&[1, 12, 3], config.input_features, 1));
    }
    let network = Mlp::new(&MlpConfig::default(), 0, &device).unwrap();
    // 2 x 5 of the norm, 5 x 64 + 64, 64 x 64 + 64, 64 x 2 + 2.
    assert_eq!(count(&state(&network)), 10 + 384 + 4160 + 130);
    check_stages(&network, &Jets::new(&[1, 1, 3], 5, 1));
}

fn check_stages<B: Backbone>(network: &B, jets: &Jets) {
    let stages = network.stages();
    for name in state(network).keys() {
        let owners = stages.iter().filter(|stage| name.starts_with(&format!("{}.", stage.prefix)));
        assert_eq!(owners.count(), 1, "{name} belongs to one stage");
    }
    let device = network.devices()[0].clone();
    let batch = jets.batch(&device);
    let mode = Mode::evaluate(stages.len());
    let whole = host(network.forward(&batch, &mode));
    for cut in 0..=stages.len() {
        let first = network.forward_stages(0..cut, batch.features.clone(), &batch.graph, &mode);
        let rows = if network.rows_at(cut) == Rows::Nodes { batch.graph.nodes } else { batch.graph.jets };
        assert_eq!(first.dims(), [rows, network.width_at(cut)]);
        let second = network.forward_stages(cut..stages.len(), first, &batch.graph, &mode);
        assert_eq!(bits(&host(second)), bits(&whole), "cut {cut}");
    }
}

#[test]
fn foreign_names_go_both_ways() {
    let device = Device::flex();
    let network = DeepSets::new(&small(Flow::Particle), 3, &device).unwrap();
    let ours = state(&network);
    let mut theirs = deep_sets::to_foreign(network.config(), &ours).unwrap();
    assert_eq!(theirs["fc.1.weight"].shape, [3, 5]);
    // Convolutions of kernel 1 are linear maps too.
    for (name, tensor) in &mut theirs {
        if name.starts_with("phi.") && tensor.shape.len() == 2 {
            tensor.shape.push(1);
        }
    }
    let back = deep_sets::from_foreign(&theirs).unwrap();
    assert_eq!((&back.config, &back.state), (network.config(), &ours));
    theirs.remove("fc.1.bias");
    assert!(deep_sets::from_foreign(&theirs).is_err());
    theirs.insert("phi.0.1.weight".to_owned(), theirs["fc.1.weight"].clone());
    assert!(deep_sets::from_foreign(&theirs).is_err());

    let network = Mlp::new(&MlpConfig { hidden: vec![7, 6], ..MlpConfig::default() }, 3, &device).unwrap();
    let ours = state(&network);
    let theirs = mlp::to_foreign(network.config(), &ours).unwrap();
    assert_eq!(theirs["layers.0.weight"].shape, [7, 5]);
    let back = mlp::from_foreign(&theirs).unwrap();
    assert_eq!((&back.config, &back.state), (network.config(), &ours));
    assert_eq!(back.ignored, ["norm.num_batches_tracked"]);
    load_state(network, &back.state).unwrap();
    assert!(mlp::from_foreign(&BTreeMap::<String, ForeignTensor>::new()).is_err());
}

#[test]
fn impossible_sizes_are_errors_and_new_heads_keep_the_rest() {
    let device = Device::flex();
    for config in [
        DeepSetsConfig { phi: vec![], ..small(Flow::Particle) },
        DeepSetsConfig { f: vec![4, 0], ..small(Flow::Particle) },
        DeepSetsConfig { classes: 0, ..small(Flow::Particle) },
    ] {
        assert!(DeepSets::new(&config, 0, &device).is_err(), "{config:?}");
    }
    for config in [
        MlpConfig { hidden: vec![], ..MlpConfig::default() },
        MlpConfig { dropout: 1.0, ..MlpConfig::default() },
        MlpConfig { input_features: 0, ..MlpConfig::default() },
    ] {
        assert!(Mlp::new(&config, 0, &device).is_err(), "{config:?}");
    }
    let network = DeepSets::new(&small(Flow::Particle), 3, &device).unwrap();
    let before = state(&network);
    let swapped = network.replace_head(5, 8);
    assert_eq!(swapped.width_at(swapped.stages().len()), 5);
    for (name, tensor) in state(&swapped) {
        assert!(name.starts_with("head.") || tensor == before[&name], "{name}");
    }
}

#[test]
fn every_parameter_has_a_finite_gradient_for_any_threads() {
    let run = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let device = Device::flex().autodiff();
            let network = DeepSets::new(&DeepSetsConfig::energy_flow(), 3, &device).unwrap();
            let batch = Jets::new(&[30; 100], 2, 4).batch(&device);
            let mode = Mode::train(network.stages().len(), 1);
            let found = network.forward(&batch, &mode).powi_scalar(2).mean().backward();
            let found = gradients(&network, &found);
            assert_eq!(found.len(), parameter_ids(&network).len());
            assert!(found.values().flat_map(|tensor| &tensor.values).all(|value| value.is_finite()));
            found.into_values().map(|tensor| bits(&tensor.values)).collect::<Vec<_>>()
        })
    };
    assert_eq!(run(1), run(2));
}

#[test]
fn sums_over_jets_are_the_plain_body() {
    for device in [Device::flex(), Device::flex().autodiff()] {
        for weighted in [false, true] {
            let jets = Jets::new(&[1, 2, 70, 3], 9, 2);
            let run = |body: fn(Tensor<2>, Option<Tensor<1>>, &RaggedGraph) -> Tensor<2>| {
                let batch = jets.batch(&device);
                let x = batch.features.clone();
                let x = if device.is_autodiff() { x.require_grad() } else { x };
                let weights =
                    weighted.then(|| batch.graph.kinematics().clone().slice([0..76, 0..1]).reshape([76]));
                let sums = body(x.clone(), weights, &batch.graph);
                let mut results = vec![host(sums.clone())];
                if device.is_autodiff() {
                    let found = (sums * matrix(vector(7, 36), 4, 9, &device)).sum().backward();
                    results.push(host(x.grad(&found).unwrap()));
                }
                results
            };
            for (kernel, plain) in run(jet_sum::jet_sum).iter().zip(run(jet_sum::plain::jet_sum)) {
                assert!(distance(kernel, &plain) < 1e-6);
            }
        }
    }
}
