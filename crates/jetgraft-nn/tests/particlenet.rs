//! ParticleNet: against reference numbers (PyTorch in double precision with the published weights; the files lie beside
//! the repository and are not part of it), sizes, short jets, weaver's padding, weights in and out.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{Device, Tensor, TensorData, activation::log_softmax};
use common::{bits, difference, gradients, host, matrix, vector};
use jetgraft_nn::contract::{Backbone, GraphBatch, Mode, RaggedGraph, Rows};
use jetgraft_nn::import::{ForeignTensor, read_file};
use jetgraft_nn::models::particlenet::{
    BlockConfig, Padding, ParticleNet, ParticleNetConfig, from_foreign, to_foreign,
};
use jetgraft_nn::state::{Role, load_state, parameter_ids, state};

type Tensors = BTreeMap<String, ForeignTensor>;

fn shared(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")).join(path);
    if !path.exists() {
        eprintln!("skipped: {} not found", path.display());
        return None;
    }
    Some(path)
}

fn published(name: &str) -> Option<Tensors> {
    Some(read_file(&shared(&format!("published/particlenet/ParticleNet_{name}.pt"))?).unwrap().tensors)
}

/// Jets of the given sizes with random features; the last two place the particles.
fn jets(sizes: &[usize], columns: usize, seed: u64, device: &Device) -> GraphBatch {
    let mut offsets = vec![0u32];
    offsets.extend(sizes.iter().scan(0, |end, &size| {
        *end += size as u32;
        Some(*end)
    }));
    let nodes = *offsets.last().unwrap() as usize;
    GraphBatch {
        features: matrix(vector(seed, nodes * columns), nodes, columns, device),
        graph: RaggedGraph::new(&offsets, device).unwrap(),
    }
}

/// Mean cross-entropy.
fn loss(logits: Tensor<2>, labels: &[u32]) -> Tensor<1> {
    let [rows, classes] = logits.dims();
    let mut one_hot = vec![0f32; rows * classes];
    for (row, &label) in labels.iter().enumerate() {
        one_hot[row * classes + label as usize] = -1.0 / rows as f32;
    }
    let one_hot = Tensor::from_data(TensorData::new(one_hot, [rows, classes]), &logits.device());
    (log_softmax(logits, 1) * one_hot).sum()
}

/// Root mean square.
fn size(values: &[f32]) -> f64 {
    (values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

/// Largest difference, relative to the root mean square of the expected tensor or to `floor`.
fn worst(found: &[f32], expected: &[f32], floor: f64) -> f64 {
    assert_eq!(found.len(), expected.len());
    let worst =
        found.iter().zip(expected).map(|(&f, &e)| (f64::from(f) - f64::from(e)).abs()).fold(0.0, f64::max);
    if worst.is_nan() { f64::INFINITY } else { worst / size(expected).max(floor) }
}

/// The reference's jets, packed: it has 64 slots a jet, the particles first.
fn golden_batch(golden: &Tensors, device: &Device) -> GraphBatch {
    let (features, mask) = (&golden["in.features"], &golden["in.mask"].values);
    let &[jets, columns, slots] = &features.shape[..] else { panic!("{:?}", features.shape) };
    let mut values = Vec::new();
    let mut offsets = vec![0u32];
    for jet in 0..jets {
        for slot in (0..slots).filter(|slot| mask[jet * slots + slot] > 0.0) {
            values
                .extend((0..columns).map(|column| features.values[(jet * columns + column) * slots + slot]));
        }
        offsets.push((values.len() / columns) as u32);
    }
    let nodes = values.len() / columns;
    GraphBatch {
        features: matrix(values, nodes, columns, device),
        graph: RaggedGraph::new(&offsets, device).unwrap(),
    }
}

/// Bounds on the largest difference of a tensor from the reference in double precision, relative to its root mean
/// square; each is about three times what was measured. Jets of fewer than 17 particles meet weaver's padding rule.
///
/// The first linear map of a message acts on nodes: near neighbours' `x_j W_b - x_i W_b` then cancels after the
/// rounding, not before. PyTorch in 32-bit floats shows 4e-7 (running statistics) to 8e-6 (gradients) edge by edge, and
/// 2e-5 to 6e-4 with the map on nodes, more than is measured here.
const EVALUATION_LOGITS: f64 = 4e-6;
const TRAINING_LOGITS: f64 = 1e-4;
const LOSS: f64 = 1.6e-5;
const RUNNING: f64 = 4e-5;
const GRADIENT: f64 = 4.5e-4;

#[test]
fn weaver_padding_gives_weavers_numbers() {
    let Some(path) = shared("golden/particlenet_jetclass_kin.safetensors") else { return };
    let Some(weights) = published("kin") else { return };
    let golden = read_file(&path).unwrap().tensors;
    let imported = from_foreign(&weights).unwrap();
    let config = ParticleNetConfig { padding: Padding::Weaver, slots: 64, ..imported.config };
    let device = Device::flex().autodiff();
    let network = load_state(ParticleNet::new(&config, 0, &device).unwrap(), &imported.state).unwrap();
    let batch = golden_batch(&golden, &device);
    let stages = network.stages().len();
    let mut groups: BTreeMap<String, f64> = BTreeMap::new();
    // A shift in front of a norm has no gradient but rounding, which is measured against the scale's.
    let floor = size(&golden["grad.bn_fts.weight"].values);
    let mut note = |group: &str, found: &[f32], expected: &str| {
        let difference = worst(found, &golden[expected].values, floor);
        let entry = groups.entry(group.to_owned()).or_default();
        *entry = entry.max(difference);
    };
    note("evaluation logits", &host(network.forward(&batch, &Mode::evaluate(stages))), "out.eval_logits");
    // Without gradients the norms are folded into the weights.
    let plain = load_state(ParticleNet::new(&config, 0, &Device::flex()).unwrap(), &imported.state).unwrap();
    let folded = plain.forward(&golden_batch(&golden, &Device::flex()), &Mode::evaluate(stages));
    note("evaluation logits", &host(folded), "out.eval_logits");

    let logits = network.forward(&batch, &Mode { dropout_seed: None, ..Mode::train(stages, 0) });
    note("training logits", &host(logits.clone()), "out.train_logits");
    let labels: Vec<u32> = golden["in.label"].values.iter().map(|&label| label as u32).collect();
    let loss = loss(logits, &labels);
    note("loss", &host(loss.clone()), "out.train_loss");
    let found = to_foreign(&config, &gradients(&network, &loss.backward())).unwrap();
    assert_eq!(found.len(), golden.keys().filter(|name| name.starts_with("grad.")).count());
    for (name, gradient) in found {
        let name = name.strip_prefix("mod.").unwrap();
        assert_eq!(gradient.shape, golden[&format!("grad.{name}")].shape, "{name}");
        note(&format!("gradient of {name}"), &gradient.values, &format!("grad.{name}"));
    }
    for (name, tensor) in to_foreign(&config, &state(&network)).unwrap() {
        let name = name.strip_prefix("mod.").unwrap();
        if name.contains("running_") {
            note("running statistics", &tensor.values, &format!("after.{name}"));
        }
    }
    let mut failed = false;
    for (group, &difference) in &groups {
        println!("{difference:9.2e}  {group}");
        let bound = match group.as_str() {
            "evaluation logits" => EVALUATION_LOGITS,
            "training logits" => TRAINING_LOGITS,
            "loss" => LOSS,
            "running statistics" => RUNNING,
            _ => GRADIENT,
        };
        failed |= difference > bound;
    }
    assert!(!failed, "above the bound");
}

/// Without padding, jets of more than k particles have weaver's logits too; shorter ones do not.
#[test]
fn real_neighbours_agree_with_weaver_on_long_jets() {
    let Some(path) = shared("golden/particlenet_jetclass_kin.safetensors") else { return };
    let Some(weights) = published("kin") else { return };
    let golden = read_file(&path).unwrap().tensors;
    let imported = from_foreign(&weights).unwrap();
    assert_eq!(imported.config, ParticleNetConfig::jetclass_kin());
    let device = Device::flex();
    let network = ParticleNet::new(&imported.config, 0, &device).unwrap();
    let network = load_state(network, &imported.state).unwrap();
    let batch = golden_batch(&golden, &device);
    let logits = host(network.forward(&batch, &Mode::evaluate(network.stages().len())));
    let expected = &golden["out.eval_logits"].values;
    let offsets: Vec<i32> = batch.graph.jet_offsets.into_data().iter::<i32>().collect();
    for (jet, nodes) in offsets.windows(2).enumerate() {
        let here = jet * 10..jet * 10 + 10;
        let difference = worst(&logits[here.clone()], &expected[here], 0.0);
        let size = nodes[1] - nodes[0];
        println!("{size} particles: {difference:.1e}");
        assert_eq!(size > 16, difference < EVALUATION_LOGITS, "{size} particles: {difference:.1e}");
    }
}

#[test]
fn published_weights_go_in_and_come_back() {
    for (name, config, count) in [
        ("kin", ParticleNetConfig::jetclass_kin(), 368_216),
        ("kinpid", ParticleNetConfig::jetclass_kinpid(), 369_380),
        ("full", ParticleNetConfig::jetclass_full(), 370_156),
    ] {
        let Some(weights) = published(name) else { return };
        let imported = from_foreign(&weights).unwrap();
        assert_eq!(imported.config, config);
        assert_eq!(imported.ignored.len(), 13);
        let network = ParticleNet::new(&config, 0, &Device::flex()).unwrap();
        let network = load_state(network, &imported.state).unwrap();
        assert_eq!(parameters(&config), count);
        // Their counters of batches are the only thing that does not come back.
        let mut back = to_foreign(&config, &state(&network)).unwrap();
        for (name, tensor) in &weights {
            let mut returned = back.remove(name).unwrap_or_else(|| panic!("{name} is lost"));
            if name.ends_with("num_batches_tracked") {
                returned.values.clone_from(&tensor.values);
            }
            assert_eq!(returned.shape, tensor.shape, "{name}");
            assert_eq!(bits(&returned.values), bits(&tensor.values), "{name}");
        }
        assert!(back.is_empty(), "{:?}", back.keys());
    }
}

fn parameters(config: &ParticleNetConfig) -> usize {
    let state = state(&ParticleNet::new(config, 0, &Device::flex()).unwrap());
    let parameters = state.values().filter(|tensor| tensor.role == Role::Parameter);
    parameters.map(|tensor| tensor.values.len()).sum()
}

#[test]
fn sizes_are_those_of_the_papers() {
    let (full, lite) = (ParticleNetConfig::particlenet(), ParticleNetConfig::particlenet_lite());
    assert_eq!(parameters(&full), 366_160);
    assert_eq!(parameters(&full.clone().with_fusion()), 571_728);
    assert_eq!(parameters(&lite), 26_416);
    assert_eq!(parameters(&lite.clone().with_fusion()), 47_152);
    assert_eq!(full, ParticleNetConfig::default());
}

fn small() -> ParticleNetConfig {
    ParticleNetConfig {
        input_features: 4,
        blocks: vec![
            BlockConfig { neighbours: 3, widths: vec![8, 8, 8] },
            BlockConfig { neighbours: 5, widths: vec![8, 12] },
        ],
        head: vec![12, 6],
        classes: 3,
        ..ParticleNetConfig::particlenet()
    }
}

/// The small network in all shapes: with and without fusion, with either padding, with an identity shortcut.
fn shapes() -> Vec<ParticleNetConfig> {
    let weaver = ParticleNetConfig { padding: Padding::Weaver, slots: 24, ..small() };
    let plain_head = ParticleNetConfig { head: vec![], ..small() };
    let one = ParticleNetConfig {
        blocks: vec![BlockConfig { neighbours: 4, widths: vec![4] }],
        fusion: Some(6),
        ..small()
    };
    vec![small(), small().with_fusion(), weaver.clone(), weaver.with_fusion(), plain_head, one]
}

#[test]
fn stage_by_stage_is_the_whole_bit_for_bit() {
    for config in shapes() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let network = ParticleNet::new(&config, 3, &device).unwrap();
            let stages = network.stages().len();
            let batch = jets(&[1, 12, 30, 2, 7], 4, 2, &device);
            for mode in [Mode::evaluate(stages), Mode::train(stages, 5)] {
                let whole = host(network.forward(&batch, &mode));
                for cut in 0..=stages {
                    let first = network.forward_stages(0..cut, batch.features.clone(), &batch.graph, &mode);
                    let rows = if network.rows_at(cut) == Rows::Nodes { 52 } else { 5 };
                    assert_eq!(first.dims(), [rows, network.width_at(cut)], "cut {cut} of {config:?}");
                    let second = network.forward_stages(cut..stages, first, &batch.graph, &mode);
                    assert_eq!(bits(&host(second)), bits(&whole), "cut {cut} of {config:?}");
                }
            }
        }
    }
}

#[test]
fn short_jets_and_single_particles_train() {
    let device = Device::flex().autodiff();
    for config in shapes() {
        for sizes in [&[1, 12, 30, 2, 7][..], &[1], &[1, 1], &[2], &[40]] {
            let network = ParticleNet::new(&config, 3, &device).unwrap();
            let stages = network.stages().len();
            let logits = network.forward(&jets(sizes, 4, 2, &device), &Mode::train(stages, 1));
            assert!(host(logits.clone()).iter().all(|value| value.is_finite()), "{sizes:?}");
            let found = gradients(&network, &logits.powi_scalar(2).sum().backward());
            assert_eq!(found.len(), parameter_ids(&network).len());
            let state = state(&network);
            let mut values = found.values().chain(state.values()).flat_map(|tensor| &tensor.values);
            assert!(values.all(|value| value.is_finite()), "{sizes:?} of {config:?}");
        }
    }
}

#[test]
fn evaluation_does_not_see_company_or_slots() {
    let device = Device::flex();
    for config in shapes() {
        let network = ParticleNet::new(&config, 3, &device).unwrap();
        let evaluate = |network: &ParticleNet, sizes: &[usize], seed| {
            host(network.forward(&jets(sizes, 4, seed, &device), &Mode::evaluate(network.stages().len())))
        };
        let alone = evaluate(&network, &[30], 2);
        // The first jet of a batch has the same features whatever follows.
        let company = evaluate(&network, &[30, 4, 60, 1], 2);
        assert!(difference(&company[..3], &alone) < 1e-5);
        let more = ParticleNetConfig { slots: 50, ..config.clone() };
        let more = load_state(ParticleNet::new(&more, 9, &device).unwrap(), &state(&network)).unwrap();
        assert!(difference(&evaluate(&more, &[30], 2), &alone) < 1e-5, "slots");
    }
}

#[test]
fn weights_of_all_shapes_go_out_and_come_back() {
    for config in shapes() {
        let network = ParticleNet::new(&config, 5, &Device::flex()).unwrap();
        let tensors = to_foreign(&config, &state(&network)).unwrap();
        let strip = |tensors: &Tensors| -> Tensors {
            tensors.iter().map(|(name, tensor)| (name["mod.".len()..].to_owned(), tensor.clone())).collect()
        };
        for tensors in [tensors.clone(), strip(&tensors)] {
            let imported = from_foreign(&tensors).unwrap();
            assert_eq!(imported.state, state(&network));
            assert_eq!(imported.config.head, config.head);
            assert_eq!(imported.config.fusion, config.fusion);
        }
        for name in ["mod.bn_fts.weight", "mod.edge_convs.0.convs.0.weight", "mod.edge_convs.0.bns.0.bias"] {
            let mut damaged = tensors.clone();
            damaged.remove(name);
            assert!(from_foreign(&damaged).is_err(), "without {name}");
            let mut damaged = tensors.clone();
            damaged.get_mut(name).unwrap().shape.insert(0, 1);
            assert!(from_foreign(&damaged).is_err(), "another shape of {name}");
        }
        let mut strange = tensors.clone();
        strange.insert("mod.decoder.weight".to_owned(), tensors["mod.bn_fts.weight"].clone());
        assert!(from_foreign(&strange).unwrap_err().to_string().contains("decoder.weight"));
    }
    let lite = ParticleNetConfig::particlenet_lite().with_fusion();
    let network = ParticleNet::new(&lite, 5, &Device::flex()).unwrap();
    let imported = from_foreign(&to_foreign(&lite, &state(&network)).unwrap()).unwrap();
    assert_eq!(imported.config, lite, "Lite is known by its widths");
}

#[test]
fn impossible_sizes_are_errors() {
    let block = |neighbours, widths: &[usize]| vec![BlockConfig { neighbours, widths: widths.to_vec() }];
    for config in [
        ParticleNetConfig { blocks: vec![], ..small() },
        ParticleNetConfig { blocks: block(0, &[8]), ..small() },
        ParticleNetConfig { blocks: block(3, &[]), ..small() },
        ParticleNetConfig { blocks: block(3, &[8; 6]), ..small() },
        ParticleNetConfig { blocks: block(3, &[8, 0]), ..small() },
        ParticleNetConfig { head: vec![0], ..small() },
        ParticleNetConfig { fusion: Some(0), ..small() },
        ParticleNetConfig { classes: 0, ..small() },
        ParticleNetConfig { slots: 0, ..small() },
        ParticleNetConfig { dropout: 1.0, ..small() },
        ParticleNetConfig { points: Some([0, 4]), ..small() },
        ParticleNetConfig { input_features: 1, ..small() },
    ] {
        assert!(ParticleNet::new(&config, 0, &Device::flex()).is_err(), "{config:?}");
    }
    let read = |text: &str| serde_json::from_str::<ParticleNetConfig>(text);
    assert_eq!(read(r#"{"padding": "weaver", "slots": 64}"#).unwrap().padding, Padding::Weaver);
    assert!(read(r#"{"neighbours": 3}"#).is_err(), "unknown keys are refused");
}

#[test]
fn a_nan_stays_in_its_jet() {
    let device = Device::flex();
    for config in shapes() {
        let network = ParticleNet::new(&config, 3, &device).unwrap();
        let batch = jets(&[9, 8], 4, 2, &device);
        let mut values = host(batch.features);
        values[3] = f32::NAN;
        let batch = GraphBatch { features: matrix(values, 17, 4, &device), graph: batch.graph };
        let logits = host(network.forward(&batch, &Mode::evaluate(network.stages().len())));
        assert!(logits[..3].iter().all(|value| value.is_nan()), "the jet with the NaN");
        assert!(logits[3..].iter().all(|value| value.is_finite()), "the other jet");
    }
}
