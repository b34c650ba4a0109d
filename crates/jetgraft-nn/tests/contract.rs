//! What every backbone promises, over the whole registry.
//!
//! A new backbone needs a line in [`small`] and a list of names, `names/<kind>.txt`: the tests fail without.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod common;

use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::Device;
use common::{Trees, bits, difference, gradients, host};
use jetgraft_nn::contract::{Backbone, Mode, NormMode, RaggedGraph, Rows};
use jetgraft_nn::models::deep_sets::DeepSetsConfig;
use jetgraft_nn::models::event_gat::EventGatConfig;
use jetgraft_nn::models::event_gnn::EventGnnConfig;
use jetgraft_nn::models::jetclr::JetClrConfig;
use jetgraft_nn::models::lundnet::LundNetConfig;
use jetgraft_nn::models::mlp::MlpConfig;
use jetgraft_nn::models::particle_transformer::ParticleTransformerConfig;
use jetgraft_nn::models::particlenet::{BlockConfig, ParticleNetConfig};
use jetgraft_nn::registry::{AnyBackbone, BackboneConfig};
use jetgraft_nn::state::{Role, State, load_state, parameter_ids, state};
use jetgraft_nn::weights::{Metadata, from_bytes, to_bytes};

/// A case: a small network of a kind, and the sizes of graphs that it takes.
struct Case {
    config: BackboneConfig,
    /// One node a graph is all that the network takes.
    single: bool,
}

/// Features of the small networks.
const FEATURES: usize = 5;
/// Classes of the small networks.
const CLASSES: usize = 3;

fn small(kind: &str) -> Case {
    let config = match kind {
        "lundnet" => BackboneConfig::LundNet(LundNetConfig {
            widths: vec![8, 8, 16],
            fusion: 24,
            head_hidden: 12,
            ..LundNetConfig::default()
        }),
        "particlenet" => BackboneConfig::ParticleNet(ParticleNetConfig {
            blocks: vec![
                BlockConfig { neighbours: 5, widths: vec![8, 8, 8] },
                BlockConfig { neighbours: 4, widths: vec![8, 12] },
            ],
            head: vec![12],
            ..ParticleNetConfig::particlenet()
        }),
        "deep-sets" => BackboneConfig::DeepSets(DeepSetsConfig {
            phi: vec![12, 16],
            f: vec![12],
            dropout: 0.1,
            ..DeepSetsConfig::particle_flow()
        }),
        "jetclr" => BackboneConfig::JetClr(JetClrConfig {
            width: 24,
            heads: 4,
            feed_forward: 40,
            layers: 2,
            projection: vec![20, 20],
            ..JetClrConfig::jetclr()
        }),
        "mlp" => BackboneConfig::Mlp(MlpConfig { hidden: vec![12, 8], dropout: 0.1, ..MlpConfig::default() }),
        "particle-transformer" => BackboneConfig::ParticleTransformer(ParticleTransformerConfig {
            embed: vec![12, 20, 16],
            pair: vec![8, 6],
            heads: 4,
            blocks: 2,
            class_blocks: 2,
            hidden: 24,
            ..ParticleTransformerConfig::default()
        }),
        "event-gnn" => BackboneConfig::EventGnn(EventGnnConfig {
            layers: 3,
            width: 16,
            head_hidden: vec![12],
            dropout: 0.1,
            ..EventGnnConfig::default()
        }),
        "event-gat" => BackboneConfig::EventGat(EventGatConfig {
            layers: 3,
            width: 16,
            heads: 2,
            head_hidden: vec![12],
            dropout: 0.1,
            ..EventGatConfig::default()
        }),
        other => panic!("no small `{other}` in the contract tests"),
    };
    Case { config: config.with_ends(FEATURES, CLASSES), single: kind == "mlp" }
}

fn each(check: impl Fn(&Case)) {
    for kind in BackboneConfig::KINDS {
        println!("{kind}");
        let case = small(kind);
        assert_eq!(case.config.kind(), *kind);
        check(&case);
    }
}

impl Case {
    fn trees(&self, sizes: &[usize], seed: u64) -> Trees {
        let sizes: Vec<usize> = sizes.iter().map(|&size| if self.single { 1 } else { size }).collect();
        Trees::new(&sizes, FEATURES, seed)
    }

    /// A network whose running statistics are not the starting ones.
    fn network(&self, device: &Device) -> AnyBackbone {
        let network = self.config.build(3, device).unwrap();
        let train = Mode::train(network.stages().len(), 1);
        network.forward(&self.trees(&[9, 30, 14, 5, 5], 77).batch(device), &train);
        network
    }
}

fn bits_of(state: &State) -> Vec<(String, Vec<u32>)> {
    state.iter().map(|(name, tensor)| (name.clone(), bits(&tensor.values))).collect()
}

fn evaluate(network: &AnyBackbone, trees: &Trees) -> Vec<f32> {
    let device = network.devices()[0].clone();
    host(network.forward(&trees.batch(&device), &Mode::evaluate(network.stages().len())))
}

/// The same bits; says where the first differ.
fn same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let differ = (0..found.len()).find(|&at| found[at].to_bits() != expected[at].to_bits());
    if let Some(at) = differ {
        let worst = difference(found, expected);
        panic!(
            "{what}: value {at} is {}, expected {}; largest difference {worst:e}",
            found[at], expected[at]
        );
    }
}

/// Sizes of a batch with a single constituent, two, and many.
const MIXED: [usize; 6] = [1, 12, 128, 7, 2, 61];

#[test]
fn names_and_shapes_are_a_format() {
    for kind in BackboneConfig::KINDS {
        let published =
            serde_json::from_value::<BackboneConfig>(serde_json::json!({ "kind": kind })).unwrap();
        let network = published.build(0, &Device::flex()).unwrap();
        let listed: String =
            state(&network).iter().map(|(name, tensor)| format!("{name} {:?}\n", tensor.shape)).collect();
        let path = format!("{}/tests/names/{kind}.txt", env!("CARGO_MANIFEST_DIR"));
        let known = std::fs::read_to_string(&path).unwrap_or_default();
        if std::env::var_os("JETGRAFT_WRITE_NAMES").is_some() {
            std::fs::write(&path, &listed).unwrap();
            continue;
        }
        assert!(
            listed == known,
            "{kind}: names and shapes are in every saved file; {path} has\n{known}\nnow\n{listed}"
        );
        let identities = parameter_ids(&network);
        for (name, tensor) in state(&network) {
            let stages: Vec<_> = network
                .stages()
                .into_iter()
                .filter(|stage| name == stage.prefix || name.starts_with(&format!("{}.", stage.prefix)))
                .collect();
            assert_eq!(stages.len(), 1, "{kind}: {name} belongs to one stage");
            assert_eq!(identities.contains_key(&name), tensor.role == Role::Parameter, "{kind}: {name}");
        }
        assert_eq!(network.stages().last().unwrap().name, "head", "{kind}");
        assert_eq!(identities, parameter_ids(&published.build(9, &Device::flex()).unwrap()), "{kind}");
        assert_eq!(network.config(), published, "{kind}");
    }
}

#[test]
fn the_start_depends_on_the_seed_only() {
    each(|case| {
        let new = |seed| bits_of(&state(&case.config.build(seed, &Device::flex()).unwrap()));
        assert_eq!(new(1), new(1));
        assert_ne!(new(1), new(2));
    });
}

#[test]
fn impossible_sizes_are_errors() {
    each(|case| {
        for (inputs, classes) in [(0, CLASSES), (FEATURES, 0)] {
            let config = case.config.clone().with_ends(inputs, classes);
            assert!(config.build(0, &Device::flex()).is_err(), "{config:?}");
        }
    });
}

#[test]
fn an_empty_graph_and_what_a_network_needs_are_errors_with_words() {
    let device = Device::flex();
    let error = RaggedGraph::new(&[0, 3, 3], &device).unwrap_err().to_string();
    assert!(error.contains("jet_offsets") && error.contains("position 2"), "{error}");
    each(|case| {
        let network = case.network(&device);
        let bare = RaggedGraph::new(&[0, 3], &device).unwrap();
        let needs = network.needs();
        assert_eq!(needs.check(&bare).is_err(), needs.edges || needs.kinematics);
        needs.check(&case.trees(&[3], 1).graph(&device)).unwrap();
    });
}

#[test]
fn stage_by_stage_is_the_whole_bit_for_bit() {
    each(|case| {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let network = case.network(&device);
            let stages = network.stages().len();
            let batch = case.trees(&MIXED, 2).batch(&device);
            for mode in [Mode::evaluate(stages), Mode::train(stages, 5)] {
                let whole = host(network.forward(&batch, &mode));
                for cut in 0..=stages {
                    let first = network.forward_stages(0..cut, batch.features.clone(), &batch.graph, &mode);
                    let rows = match network.rows_at(cut) {
                        Rows::Nodes => batch.graph.nodes,
                        Rows::Jets => batch.graph.jets,
                    };
                    assert_eq!(first.dims(), [rows, network.width_at(cut)], "cut {cut}");
                    let second = network.forward_stages(cut..stages, first, &batch.graph, &mode);
                    same(&host(second), &whole, &format!("cut {cut}"));
                }
                let mut activation = batch.features.clone();
                for stage in 0..stages {
                    activation = network.forward_stages(stage..stage + 1, activation, &batch.graph, &mode);
                }
                same(&host(activation), &whole, "stage by stage");
                let encoded = host(network.encode(&batch, &mode));
                let to_head =
                    network.forward_stages(0..stages - 1, batch.features.clone(), &batch.graph, &mode);
                same(&encoded, &host(to_head), "encoding");
            }
        }
    });
}

#[test]
fn evaluation_does_not_see_the_order_or_the_company() {
    each(|case| {
        let network = case.network(&Device::flex());
        let trees = case.trees(&MIXED, 2);
        let logits = evaluate(&network, &trees);
        assert!(logits.iter().all(|value| value.is_finite()));
        assert!(difference(&evaluate(&network, &trees.reversed()), &logits) < 1e-5, "order of nodes");
        let jets: Vec<Trees> = (0..trees.jets()).map(|jet| trees.jet(jet)).collect();
        let alone: Vec<f32> = jets.iter().flat_map(|jet| evaluate(&network, jet)).collect();
        assert!(difference(&alone, &logits) < 1e-5, "company");
        let turned: Vec<Trees> = jets.iter().rev().cloned().collect();
        let turned: Vec<f32> =
            evaluate(&network, &Trees::join(&turned)).chunks(CLASSES).rev().flatten().copied().collect();
        assert!(difference(&turned, &logits) < 1e-5, "order of jets");
        let before = bits_of(&state(&network));
        evaluate(&network, &trees);
        assert_eq!(bits_of(&state(&network)), before, "evaluation leaves the network alone");
    });
}

/// One training step; gives everything that it computed.
fn step(network: &AnyBackbone, trees: &Trees, seed: u64) -> (Vec<f32>, State) {
    let device = Device::flex().autodiff();
    let logits = network.forward(&trees.batch(&device), &Mode::train(network.stages().len(), seed));
    let [rows, columns] = logits.dims();
    let weights = common::matrix(common::vector(4, rows * columns), rows, columns, &device);
    let found = (logits.clone() * weights).sum().backward();
    (host(logits), gradients(network, &found))
}

#[test]
fn gradients_are_finite_for_all_kinds_of_batches() {
    each(|case| {
        for sizes in [&[1, 12, 128, 7, 2][..], &[1, 1, 1], &[1], &[2]] {
            let network = case.network(&Device::flex().autodiff());
            let (logits, gradients) = step(&network, &case.trees(sizes, 2), 1);
            assert!(logits.iter().all(|value| value.is_finite()), "{sizes:?}");
            let missing: Vec<String> =
                parameter_ids(&network).into_keys().filter(|name| !gradients.contains_key(name)).collect();
            assert!(missing.is_empty(), "{sizes:?}: no gradient for {missing:?}");
            let values = gradients
                .iter()
                .chain(&state(&network))
                .map(|(n, t)| (n.clone(), t.clone()))
                .collect::<Vec<_>>();
            for (name, tensor) in values {
                assert!(tensor.values.iter().all(|value| value.is_finite()), "{sizes:?}: {name}");
            }
        }
    });
}

#[test]
fn a_nan_is_not_swallowed() {
    each(|case| {
        let network = case.network(&Device::flex());
        let mut trees = case.trees(&[5, 6], 2);
        trees.features[3] = f32::NAN;
        let logits = evaluate(&network, &trees);
        assert!(logits[..CLASSES].iter().all(|value| value.is_nan()), "the jet with the NaN: {logits:?}");
        assert!(logits[CLASSES..].iter().all(|value| value.is_finite()), "the other jet");
    });
}

#[test]
fn threads_do_not_change_a_bit() {
    each(|case| {
        let trees = case.trees(&[30; 60], 6);
        let run = |threads: usize| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let device = Device::flex().autodiff();
                let mut network = case.config.build(3, &device).unwrap();
                let mut optimiser = AdamConfig::new().init();
                for seed in 0..3 {
                    let mode = Mode::train(network.stages().len(), seed);
                    let loss = network.forward(&trees.batch(&device), &mode).powi_scalar(2).mean();
                    let found = GradientsParams::from_grads(loss.backward(), &network);
                    network = optimiser.step(1e-3, network, found);
                }
                bits_of(&state(&network))
            })
        };
        let one = run(1);
        assert_eq!(one, run(2));
        assert_eq!(one, run(4));
    });
}

#[test]
fn dropout_is_named_by_its_seed() {
    each(|case| {
        let network = case.network(&Device::flex().autodiff());
        let trees = case.trees(&[5, 6, 30], 2);
        let run = |seed| bits(&step(&network.clone(), &trees, seed).0);
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    });
}

#[test]
fn saved_and_loaded_bit_for_bit() {
    each(|case| {
        let network = case.network(&Device::flex());
        let saved = state(&network);
        let metadata: Metadata = [("kind".to_owned(), network.kind().to_owned())].into();
        let (read, read_metadata) = from_bytes(&to_bytes(&saved, &metadata)).unwrap();
        assert_eq!((&read, &read_metadata), (&saved, &metadata));
        let other = case.config.build(99, &Device::flex()).unwrap();
        let other = load_state(other, &read).unwrap();
        assert_eq!(bits_of(&state(&other)), bits_of(&saved));
        let trees = case.trees(&[1, 12, 7], 2);
        assert_eq!(bits(&evaluate(&other, &trees)), bits(&evaluate(&network, &trees)));

        let name = saved.keys().find(|name| name.ends_with(".bias")).unwrap().clone();
        let mut wrong = saved.clone();
        let tensor = wrong.remove(&name).unwrap();
        assert!(load_state(other.clone(), &wrong).is_err(), "a missing tensor");
        wrong.insert("head.no_such_tensor".to_owned(), tensor);
        assert!(load_state(other.clone(), &wrong).is_err(), "a strange tensor");
        let mut wrong = saved.clone();
        wrong.get_mut(&name).unwrap().shape.insert(0, 1);
        assert!(load_state(other.clone(), &wrong).is_err(), "another shape");
        let mut wrong = saved;
        wrong.get_mut(&name).unwrap().values.pop();
        assert!(load_state(other, &wrong).is_err(), "too few values");
    });
}

#[test]
fn a_peer_gets_and_gives_back_every_number() {
    each(|case| {
        let saved = state(&case.network(&Device::flex()));
        let foreign = case.config.to_foreign(&saved).unwrap();
        let back = BackboneConfig::from_foreign(case.config.kind(), &foreign).unwrap();
        assert_eq!(bits_of(&back.state), bits_of(&saved));
        // What no tensor shows, such as dropout, comes back as published; every size comes back.
        let rebuilt = back.config.build(0, &Device::flex()).unwrap();
        assert_eq!(parameter_ids(&rebuilt).len(), parameter_ids(&case.network(&Device::flex())).len());

        let mut strange = foreign.clone();
        let first = foreign.keys().next().unwrap().clone();
        strange.insert("no_such_module.weight".into(), foreign[&first].clone());
        assert!(BackboneConfig::from_foreign(case.config.kind(), &strange).is_err(), "a strange tensor");
        let mut short = foreign.clone();
        let weight = foreign.keys().find(|name| name.ends_with(".weight")).unwrap();
        short.remove(weight);
        assert!(BackboneConfig::from_foreign(case.config.kind(), &short).is_err(), "{weight} is missing");
    });
}

#[test]
fn a_new_head_keeps_the_rest() {
    each(|case| {
        let network = case.network(&Device::flex().autodiff());
        let before = state(&network);
        let swapped = network.clone().replace_head(5, 8);
        assert_eq!((swapped.classes(), swapped.width_at(swapped.stages().len())), (5, 5));
        let after = state(&swapped);
        for (name, tensor) in &after {
            if !name.starts_with("head.") {
                assert_eq!(bits(&tensor.values), bits(&before[name].values), "{name}");
            }
        }
        assert_eq!(bits_of(&state(&network.clone().replace_head(5, 8))), bits_of(&after));
        assert_ne!(bits_of(&state(&network.clone().replace_head(5, 9))), bits_of(&after));
        let (logits, gradients) = step(&swapped, &case.trees(&[5, 6], 2), 1);
        assert_eq!((logits.len(), gradients.len()), (10, parameter_ids(&swapped).len()));
    });
}

#[test]
fn clones_have_their_own_running_statistics() {
    each(|case| {
        let network = case.network(&Device::flex().autodiff());
        let before = bits_of(&state(&network));
        let copy = network.clone();
        step(&copy, &case.trees(&[5, 6, 30], 2), 1);
        assert_eq!(bits_of(&state(&network)), before);
        let buffers = state(&network).values().any(|tensor| tensor.role == Role::Buffer);
        assert_eq!(bits_of(&state(&copy)) != before, buffers);
        // The copy for validation and its way back carry them too.
        assert_eq!(bits_of(&state(&copy.valid())), bits_of(&state(&copy)));
        assert_eq!(bits_of(&state(&copy.valid().train())), bits_of(&state(&copy)));
    });
}

#[test]
fn a_frozen_prefix_leaves_no_trace() {
    each(|case| {
        let device = Device::flex().autodiff();
        let mut network = case.network(&device);
        let names = network.stages();
        let stages = names.len();
        let cut = (stages - 1).min(2);
        for stage in &names[..cut] {
            let group = burn::module::ParamGroup::from_predicate(&stage.prefix);
            network = network.set_require_grad_group(group, false);
        }
        let before = state(&network);
        let frozen = |name: &str| {
            names[..cut]
                .iter()
                .any(|stage| name == stage.prefix || name.starts_with(&format!("{}.", stage.prefix)))
        };
        let mut mode = Mode::train(stages, 1);
        mode.norms[..cut].fill(NormMode::Running);
        // Dropout of frozen stages is off, as in training with a cached prefix.
        mode.dropout_seed = None;
        let batch = case.trees(&[5, 6, 30], 2).batch(&device);
        let prefix = network.forward_stages(0..cut, batch.features.clone(), &batch.graph, &mode);
        assert!(!prefix.is_tracked(), "the prefix is outside the graph");
        let found = network.forward(&batch, &mode).powi_scalar(2).sum().backward();
        let found = gradients(&network, &found);
        let after = state(&network);
        for (name, tensor) in &before {
            if tensor.role == Role::Parameter {
                assert_eq!(found.contains_key(name), !frozen(name), "{name}");
            } else if frozen(name) {
                assert_eq!(bits(&after[name].values), bits(&tensor.values), "{name}");
            }
        }
        // A cached prefix gives what the whole gives.
        let network = network.valid();
        let batch = case.trees(&[5, 6, 30], 2).batch(&Device::flex());
        let cached = network.forward_stages(0..cut, batch.features.clone(), &batch.graph, &mode);
        same(&host(cached.clone()), &host::<2>(prefix), "cached prefix");
        let mode = Mode::evaluate(stages);
        let whole = network.forward(&batch, &mode);
        let rest = network.forward_stages(cut..stages, cached, &batch.graph, &mode);
        same(&host(rest), &host(whole), "the rest after a cached prefix");
    });
}

/// What only LundNet promises.
mod lundnet {
    use super::*;
    use jetgraft_nn::models::lundnet::LundNet;

    #[test]
    fn published_sizes() {
        let count = |config: &LundNetConfig| {
            let state = state(&LundNet::new(config, 0, &Device::flex()).unwrap());
            let parameters = state.values().filter(|tensor| tensor.role == Role::Parameter);
            parameters.map(|tensor| tensor.values.len()).sum::<usize>()
        };
        assert_eq!(count(&LundNetConfig::lundnet_5()), 391_724);
        assert_eq!(count(&LundNetConfig::lundnet_3()), 391_528);
    }

    #[test]
    fn a_larger_network_starts_the_same_in_what_it_shares() {
        let small = LundNetConfig { widths: vec![8, 8, 16], ..LundNetConfig::default() };
        let larger = LundNetConfig { widths: vec![8, 8, 16, 16], ..LundNetConfig::default() };
        let new = |config: &LundNetConfig| state(&LundNet::new(config, 1, &Device::flex()).unwrap());
        assert_eq!(new(&small)["edge_conv.2.theta.weight"], new(&larger)["edge_conv.2.theta.weight"]);
        let weight = &new(&small)["head.hidden.weight"];
        assert!(weight.values.iter().all(|value| value.abs() <= 384f32.powf(-0.5)));
    }

    #[test]
    fn other_impossible_sizes() {
        let small = LundNetConfig::default();
        for config in [
            LundNetConfig { widths: vec![], ..small.clone() },
            LundNetConfig { widths: vec![8; 17], ..small.clone() },
            LundNetConfig { widths: vec![8, 0], ..small.clone() },
            LundNetConfig { dropout: 1.0, ..small.clone() },
            LundNetConfig { dropout: f64::NAN, ..small },
        ] {
            assert!(LundNet::new(&config, 0, &Device::flex()).is_err(), "{config:?}");
        }
    }

    #[test]
    fn running_statistics_move_as_in_pytorch() {
        let device = Device::flex().autodiff();
        let network = small("lundnet").config.build(3, &device).unwrap();
        let trees = Trees::new(&[4, 3], FEATURES, 2);
        step(&network, &trees, 1);
        let after = state(&network);
        for column in 0..FEATURES {
            let values: Vec<f64> =
                (0..7).map(|node| f64::from(trees.features[node * FEATURES + column])).collect();
            let mean = values.iter().sum::<f64>() / 7.0;
            let unbiased = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 6.0;
            let found = |name: &str| f64::from(after[name].values[column]);
            assert!((found("input.running_mean") - 0.1 * mean).abs() < 1e-6);
            assert!((found("input.running_var") - (0.9 + 0.1 * unbiased)).abs() < 1e-6);
        }
    }
}

#[test]
fn every_preset_is_a_network_and_every_kind_a_preset() {
    for name in BackboneConfig::PRESETS {
        let config = BackboneConfig::preset(name).unwrap();
        assert_eq!(config.build(0, &Device::flex()).unwrap().config(), config, "{name}");
    }
    for kind in BackboneConfig::KINDS {
        let has = |name: &&&str| BackboneConfig::preset(name).unwrap().kind() == *kind;
        assert!(BackboneConfig::PRESETS.iter().any(|name| has(&name)), "{kind}");
    }
    assert_eq!(BackboneConfig::preset("no such network"), None);
}
