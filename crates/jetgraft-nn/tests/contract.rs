//! What every backbone promises, on LundNet.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod common;

use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Tensor};
use common::{Trees, bits, difference, gradients, host};
use jetgraft_nn::contract::{Backbone, Mode, NormMode, Rows};
use jetgraft_nn::models::lundnet::{LundNet, LundNetConfig};
use jetgraft_nn::state::{Role, State, load_state, parameter_ids, state};
use jetgraft_nn::weights::{Metadata, from_bytes, to_bytes};

fn small() -> LundNetConfig {
    LundNetConfig {
        widths: vec![8, 8, 16],
        fusion: 24,
        head_hidden: 12,
        classes: 3,
        ..LundNetConfig::lundnet_5()
    }
}

fn network(device: &Device) -> LundNet {
    let network = LundNet::new(&small(), 3, device).unwrap();
    // Running statistics that are not the starting ones.
    let train = Mode::train(network.stages().len(), 1);
    network.forward(&Trees::new(&[9, 30, 14], 5, 77).batch(device), &train);
    network
}

fn bits_of(state: &State) -> Vec<(String, Vec<u32>)> {
    state.iter().map(|(name, tensor)| (name.clone(), bits(&tensor.values))).collect()
}

fn evaluate(network: &LundNet, trees: &Trees) -> Vec<f32> {
    let device = network.devices()[0].clone();
    host(network.forward(&trees.batch(&device), &Mode::evaluate(network.stages().len())))
}

#[test]
fn names_and_shapes_are_a_format() {
    let network = LundNet::new(&LundNetConfig::lundnet_5(), 0, &Device::flex()).unwrap();
    let listed: String =
        state(&network).iter().map(|(name, tensor)| format!("{name} {:?}\n", tensor.shape)).collect();
    assert_eq!(listed, include_str!("lundnet_names.txt"), "names and shapes are in every saved file");
    let count = |config: &LundNetConfig| {
        let state = state(&LundNet::new(config, 0, &Device::flex()).unwrap());
        let parameters = state.values().filter(|tensor| tensor.role == Role::Parameter);
        parameters.map(|tensor| tensor.values.len()).sum::<usize>()
    };
    assert_eq!(count(&LundNetConfig::lundnet_5()), 391_724);
    assert_eq!(count(&LundNetConfig::lundnet_3()), 391_528);
    for (name, tensor) in state(&network) {
        let stages: Vec<_> = network
            .stages()
            .into_iter()
            .filter(|stage| name.starts_with(&format!("{}.", stage.prefix)))
            .collect();
        assert_eq!(stages.len(), 1, "{name} belongs to one stage");
        assert_eq!(parameter_ids(&network).contains_key(&name), tensor.role == Role::Parameter);
    }
    assert_eq!(
        parameter_ids(&network),
        parameter_ids(&LundNet::new(&LundNetConfig::lundnet_5(), 9, &Device::flex()).unwrap())
    );
}

#[test]
fn the_start_depends_on_seed_and_name_only() {
    let device = Device::flex();
    let new = |config: &LundNetConfig, seed| state(&LundNet::new(config, seed, &device).unwrap());
    assert_eq!(bits_of(&new(&small(), 1)), bits_of(&new(&small(), 1)));
    assert_ne!(bits_of(&new(&small(), 1)), bits_of(&new(&small(), 2)));
    // A network with one block more starts the same in the blocks that it shares.
    let larger = LundNetConfig { widths: vec![8, 8, 16, 16], ..small() };
    assert_eq!(new(&small(), 1)["edge_conv.2.theta.weight"], new(&larger, 1)["edge_conv.2.theta.weight"]);
    let weight = &new(&small(), 1)["head.hidden.weight"];
    assert!(weight.values.iter().all(|value| value.abs() <= 24f32.powf(-0.5)));
}

#[test]
fn impossible_sizes_are_errors() {
    for config in [
        LundNetConfig { widths: vec![], ..small() },
        LundNetConfig { widths: vec![8; 17], ..small() },
        LundNetConfig { widths: vec![8, 0], ..small() },
        LundNetConfig { classes: 0, ..small() },
        LundNetConfig { dropout: 1.0, ..small() },
        LundNetConfig { dropout: f64::NAN, ..small() },
    ] {
        assert!(LundNet::new(&config, 0, &Device::flex()).is_err(), "{config:?}");
    }
}

#[test]
fn stage_by_stage_is_the_whole_bit_for_bit() {
    for device in [Device::flex(), Device::flex().autodiff()] {
        let network = network(&device);
        let stages = network.stages().len();
        let batch = Trees::new(&[1, 12, 300, 7, 2, 61], 5, 2).batch(&device);
        for mode in [Mode::evaluate(stages), Mode::train(stages, 5)] {
            let whole = host(network.forward(&batch, &mode));
            for cut in 0..=stages {
                let first = network.forward_stages(0..cut, batch.features.clone(), &batch.graph, &mode);
                let rows =
                    if network.rows_at(cut) == Rows::Nodes { batch.graph.nodes } else { batch.graph.jets };
                assert_eq!(first.dims(), [rows, network.width_at(cut)]);
                let second = network.forward_stages(cut..stages, first, &batch.graph, &mode);
                assert_eq!(bits(&host(second)), bits(&whole), "cut {cut}");
            }
            let mut activation = batch.features.clone();
            for stage in 0..stages {
                activation = network.forward_stages(stage..stage + 1, activation, &batch.graph, &mode);
            }
            assert_eq!(bits(&host(activation)), bits(&whole));
            let encoded = host(network.encode(&batch, &mode));
            let to_head = network.forward_stages(0..stages - 1, batch.features.clone(), &batch.graph, &mode);
            assert_eq!(bits(&encoded), bits(&host(to_head)));
        }
    }
}

#[test]
fn evaluation_does_not_see_the_order_or_the_company() {
    let network = network(&Device::flex());
    let trees = Trees::new(&[1, 12, 300, 7, 2, 61], 5, 2);
    let logits = evaluate(&network, &trees);
    assert!(difference(&evaluate(&network, &trees.reversed()), &logits) < 1e-5, "order of nodes");
    let jets: Vec<Trees> = (0..trees.jets()).map(|jet| trees.jet(jet)).collect();
    let alone: Vec<f32> = jets.iter().flat_map(|jet| evaluate(&network, jet)).collect();
    assert!(difference(&alone, &logits) < 1e-5, "company");
    let turned: Vec<Trees> = jets.iter().rev().cloned().collect();
    let turned: Vec<f32> =
        evaluate(&network, &Trees::join(&turned)).chunks(3).rev().flatten().copied().collect();
    assert!(difference(&turned, &logits) < 1e-5, "order of jets");
    let before = bits_of(&state(&network));
    evaluate(&network, &trees);
    assert_eq!(bits_of(&state(&network)), before, "evaluation leaves the network alone");
}

/// One training step; gives everything that it computed.
fn step(network: &LundNet, trees: &Trees, seed: u64) -> (Vec<f32>, State) {
    let device = Device::flex().autodiff();
    let logits = network.forward(&trees.batch(&device), &Mode::train(network.stages().len(), seed));
    let [rows, columns] = logits.dims();
    let weights = common::matrix(common::vector(4, rows * columns), rows, columns, &device);
    let found = (logits.clone() * weights).sum().backward();
    (host(logits), gradients(network, &found))
}

#[test]
fn gradients_are_finite_for_all_kinds_of_batches() {
    for sizes in [&[1, 12, 300, 7, 2][..], &[1, 1, 1], &[1], &[2]] {
        let network = network(&Device::flex().autodiff());
        let (logits, gradients) = step(&network, &Trees::new(sizes, 5, 2), 1);
        assert!(logits.iter().all(|value| value.is_finite()), "{sizes:?}");
        assert_eq!(gradients.len(), parameter_ids(&network).len());
        let values = gradients.values().chain(state(&network).values()).cloned().collect::<Vec<_>>();
        assert!(values.iter().flat_map(|tensor| &tensor.values).all(|value| value.is_finite()), "{sizes:?}");
    }
}

#[test]
fn a_nan_is_not_swallowed() {
    let network = network(&Device::flex());
    let mut trees = Trees::new(&[5, 6], 5, 2);
    trees.features[3] = f32::NAN;
    let logits = evaluate(&network, &trees);
    assert!(logits[..3].iter().all(|value| value.is_nan()), "the jet with the NaN");
    assert!(logits[3..].iter().all(|value| value.is_finite()), "the other jet");
}

#[test]
fn threads_do_not_change_a_bit() {
    let trees = Trees::new(&[30; 120], 5, 6);
    // The published size: its head is large enough for the stock product to use threads.
    let run = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let device = Device::flex().autodiff();
            let mut network = LundNet::new(&LundNetConfig::lundnet_5(), 3, &device).unwrap();
            let mut optimiser = AdamConfig::new().init();
            let mode = |seed| Mode::train(network.stages().len(), seed);
            let modes: Vec<Mode> = (0..3).map(mode).collect();
            for mode in &modes {
                let loss = network.forward(&trees.batch(&device), mode).powi_scalar(2).mean();
                let found = GradientsParams::from_grads(loss.backward(), &network);
                network = optimiser.step(1e-3, network, found);
            }
            bits_of(&state(&network))
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(4));
}

#[test]
fn dropout_is_named_by_its_seed() {
    let network = network(&Device::flex().autodiff());
    let trees = Trees::new(&[5, 6, 30], 5, 2);
    let run = |seed| bits(&step(&network.clone(), &trees, seed).0);
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn saved_and_loaded_bit_for_bit() {
    let network = network(&Device::flex());
    let saved = state(&network);
    let metadata: Metadata = [("kind".to_owned(), network.kind().to_owned())].into();
    let (read, read_metadata) = from_bytes(&to_bytes(&saved, &metadata)).unwrap();
    assert_eq!((&read, &read_metadata), (&saved, &metadata));
    let other = LundNet::new(&small(), 99, &Device::flex()).unwrap();
    let other = load_state(other, &read).unwrap();
    assert_eq!(bits_of(&state(&other)), bits_of(&saved));
    let trees = Trees::new(&[1, 12, 7], 5, 2);
    assert_eq!(bits(&evaluate(&other, &trees)), bits(&evaluate(&network, &trees)));

    let mut wrong = saved.clone();
    let tensor = wrong.remove("head.output.bias").unwrap();
    assert!(load_state(other.clone(), &wrong).is_err(), "a missing tensor");
    wrong.insert("head.output.offset".to_owned(), tensor);
    assert!(load_state(other.clone(), &wrong).is_err(), "a strange tensor");
    let mut wrong = saved.clone();
    wrong.get_mut("head.output.bias").unwrap().shape = vec![1, 3];
    assert!(load_state(other.clone(), &wrong).is_err(), "another shape");
    let mut wrong = saved;
    wrong.get_mut("head.output.bias").unwrap().values.pop();
    assert!(load_state(other, &wrong).is_err(), "too few values");
}

#[test]
fn a_new_head_keeps_the_rest() {
    let network = network(&Device::flex().autodiff());
    let before = state(&network);
    let swapped = network.clone().replace_head(5, 8);
    assert_eq!((swapped.classes(), swapped.width_at(swapped.stages().len())), (5, 5));
    let after = state(&swapped);
    for (name, tensor) in &after {
        if name.starts_with("head.") {
            assert!(name != "head.output.weight" || tensor.shape == [12, 5]);
        } else {
            assert_eq!(bits(&tensor.values), bits(&before[name].values), "{name}");
        }
    }
    assert_eq!(bits_of(&state(&network.clone().replace_head(5, 8))), bits_of(&after));
    assert_ne!(after["head.hidden.weight"], before["head.hidden.weight"]);
    let (logits, gradients) = step(&swapped, &Trees::new(&[5, 6], 5, 2), 1);
    assert_eq!((logits.len(), gradients.len()), (10, parameter_ids(&swapped).len()));
}

#[test]
fn clones_have_their_own_running_statistics() {
    let network = network(&Device::flex().autodiff());
    let before = bits_of(&state(&network));
    let copy = network.clone();
    step(&copy, &Trees::new(&[5, 6, 30], 5, 2), 1);
    assert_eq!(bits_of(&state(&network)), before);
    assert_ne!(bits_of(&state(&copy)), before);
    // The copy for validation and its way back carry them too.
    assert_eq!(bits_of(&state(&copy.valid())), bits_of(&state(&copy)));
    assert_eq!(bits_of(&state(&copy.valid().train())), bits_of(&state(&copy)));
}

#[test]
fn running_statistics_move_as_in_pytorch() {
    let device = Device::flex().autodiff();
    let network = LundNet::new(&small(), 3, &device).unwrap();
    let trees = Trees::new(&[4, 3], 5, 2);
    step(&network, &trees, 1);
    let after = state(&network);
    for column in 0..5 {
        let values: Vec<f64> = (0..7).map(|node| f64::from(trees.features[node * 5 + column])).collect();
        let mean = values.iter().sum::<f64>() / 7.0;
        let unbiased = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 6.0;
        let found = |name: &str| f64::from(after[name].values[column]);
        assert!((found("input.running_mean") - 0.1 * mean).abs() < 1e-6);
        assert!((found("input.running_var") - (0.9 + 0.1 * unbiased)).abs() < 1e-6);
    }
}

#[test]
fn a_frozen_prefix_leaves_no_trace() {
    let device = Device::flex().autodiff();
    let network = network(&device);
    let before = state(&network);
    let frozen = burn::module::ParamGroup::from_predicate("edge_conv.0");
    let input = burn::module::ParamGroup::from_predicate("input");
    let network = network.set_require_grad_group(frozen, false).set_require_grad_group(input, false);
    let stages = network.stages().len();
    let mut mode = Mode::train(stages, 1);
    mode.norms[0] = NormMode::Running;
    mode.norms[1] = NormMode::Running;
    let batch = Trees::new(&[5, 6, 30], 5, 2).batch(&device);
    let prefix = network.forward_stages(0..2, batch.features.clone(), &batch.graph, &mode);
    assert!(!prefix.is_tracked(), "the prefix is outside the graph");
    let found = network.forward(&batch, &mode).powi_scalar(2).sum().backward();
    let found = gradients(&network, &found);
    let after = state(&network);
    for (name, tensor) in &before {
        let part = name.starts_with("input.") || name.starts_with("edge_conv.0.");
        if tensor.role == Role::Parameter {
            assert_eq!(found.contains_key(name), !part, "{name}");
        } else {
            assert_eq!(bits(&after[name].values) == bits(&tensor.values), part, "{name}");
        }
    }
    // A cached prefix gives what the whole gives.
    let network = network.valid();
    let batch = Trees::new(&[5, 6, 30], 5, 2).batch(&Device::flex());
    let cached = network.forward_stages(0..2, batch.features.clone(), &batch.graph, &mode);
    assert_eq!(bits(&host(cached)), bits(&host::<2>(prefix)));
    let _: Tensor<2> = network.forward(&batch, &Mode::evaluate(stages));
}
