//! Particle Transformer against reference numbers: a small network with random weights on jets of 1 to 64 particles,
//! evaluated by PyTorch (weaver 0.5) in double precision. The file lies beside the repository and is not part of it.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{Device, Tensor, TensorData, activation::log_softmax};
use common::host;
use jetgraft_nn::contract::{Backbone, GraphBatch, Mode, RaggedGraph};
use jetgraft_nn::import::{ForeignTensor, read_file};
use jetgraft_nn::models::particle_transformer::{
    Padding, ParticleTransformer, ParticleTransformerConfig, from_foreign, to_foreign,
};
use jetgraft_nn::ops::pair_embedding::plain::features;
use jetgraft_nn::state::{Role, load_state, state};

type Tensors = BTreeMap<String, ForeignTensor>;

fn golden() -> Option<Tensors> {
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/golden/particle_transformer_small.safetensors"
    ));
    if !path.exists() {
        eprintln!("skipped: {} not found", path.display());
        return None;
    }
    Some(read_file(&path).unwrap().tensors)
}

fn network(golden: &Tensors, device: &Device) -> ParticleTransformer {
    let weights = golden
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("param.")?.to_owned(), tensor.clone())));
    let imported = from_foreign(&weights.collect()).unwrap();
    let config = ParticleTransformerConfig { padding: Padding::Weaver, ..imported.config };
    let network = ParticleTransformer::new(&config, 0, device).unwrap();
    load_state(network, &imported.state).unwrap()
}

/// pt, rapidity, azimuth and mass from px, py, pz, E, in double precision.
fn kinematics(p: [f64; 4]) -> [f32; 4] {
    let [px, py, pz, energy] = p;
    let pt = px.hypot(py);
    let mass_2 = (energy - (pt * pt + pz * pz).sqrt()) * (energy + (pt * pt + pz * pz).sqrt());
    let mt = (mass_2 + pt * pt).sqrt();
    let y = ((energy + pz.abs()) / mt).ln() * pz.signum();
    [pt, y, py.atan2(px), mass_2.abs().sqrt() * mass_2.signum()].map(|value| value as f32)
}

/// The real particles of the reference's slots.
fn batch(golden: &Tensors, device: &Device) -> GraphBatch {
    let (features, vectors) = (&golden["in.features"], &golden["in.vectors"]);
    let mask = &golden["in.mask"].values;
    let &[jets, columns, slots] = &features.shape[..] else { panic!("features") };
    let (mut rows, mut kinematic, mut offsets) = (Vec::new(), Vec::new(), vec![0u32]);
    for jet in 0..jets {
        for slot in (0..slots).filter(|slot| mask[jet * slots + slot] > 0.0) {
            rows.extend((0..columns).map(|column| features.values[(jet * columns + column) * slots + slot]));
            let p = [0, 1, 2, 3].map(|column| f64::from(vectors.values[(jet * 4 + column) * slots + slot]));
            kinematic.extend(kinematics(p));
        }
        offsets.push((rows.len() / columns) as u32);
    }
    let graph = RaggedGraph::new(&offsets, device).unwrap().with_kinematics(&kinematic).unwrap();
    let count = rows.len() / columns;
    GraphBatch { features: Tensor::from_data(TensorData::new(rows, [count, columns]), device), graph }
}

/// Root mean square.
fn size(values: &[f32]) -> f64 {
    (values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

/// Largest difference, relative to the root mean square of the expected tensor or to `floor`.
fn difference(found: &[f32], expected: &[f32], floor: f64) -> f64 {
    assert_eq!(found.len(), expected.len());
    let worst =
        found.iter().zip(expected).map(|(&f, &e)| (f64::from(f) - f64::from(e)).abs()).fold(0.0, f64::max);
    if worst.is_nan() { f64::INFINITY } else { worst / size(expected).max(floor) }
}

/// Mean cross-entropy.
fn loss(logits: Tensor<2>, labels: &[f32]) -> Tensor<1> {
    let [rows, classes] = logits.dims();
    let mut one_hot = vec![0f32; rows * classes];
    for (row, &label) in labels.iter().enumerate() {
        one_hot[row * classes + label as usize] = -1.0 / rows as f32;
    }
    let one_hot = Tensor::from_data(TensorData::new(one_hot, [rows, classes]), &logits.device());
    (log_softmax(logits, 1) * one_hot).sum()
}

/// Bounds on the largest difference of a tensor, relative to its root mean square.
fn bound(group: &str) -> f64 {
    match group {
        "pair features" => 1e-6,
        "evaluation logits" | "training logits" => 2e-6,
        "loss" => 1e-6,
        "running statistics" => 8e-6,
        // The weights of a softmax add up to 1 whatever is added to all logits: what the pairs' parameters get are
        // small differences of large sums.
        _ if group.contains("pair_embed") => 6e-3,
        _ => 2e-5,
    }
}

#[test]
fn features_logits_loss_gradients_and_running_statistics() {
    let Some(golden) = golden() else { return };
    let device = Device::flex().autodiff();
    let network = network(&golden, &device);
    let batch = batch(&golden, &device);
    let stages = network.stages().len();
    let mut worst: BTreeMap<String, f64> = BTreeMap::new();
    let mut note = |group: &str, found: &[f32], expected: &ForeignTensor, floor: f64| {
        let difference = difference(found, &expected.values, floor);
        let entry = worst.entry(group.to_owned()).or_default();
        *entry = entry.max(difference);
    };

    // Jet 4 has 16 particles; jets 0 to 3 have 1, 2, 5, 15.
    let pairs = host(features(batch.graph.kinematics(), &batch.graph));
    let before = 1 + 3 + 15 + 120;
    let expected = &golden["out.pair_features_of_jet_4"].values;
    let (mut found, mut wanted) = (Vec::new(), Vec::new());
    for i in 0..16 {
        for j in 0..=i {
            let row = before + i * (i + 1) / 2 + j;
            for feature in 0..4 {
                // With itself, a particle has four times its squared mass: nothing but rounding in the reference's
                // difference of squares.
                if feature < 3 || i != j {
                    found.push(pairs[row * 4 + feature]);
                    wanted.push(expected[(feature * 16 + i) * 16 + j]);
                }
            }
        }
    }
    let wanted = ForeignTensor { shape: vec![wanted.len()], values: wanted, dtype: "f64" };
    note("pair features", &found, &wanted, 0.0);

    let logits = network.forward(&batch, &Mode::evaluate(stages));
    note("evaluation logits", &host(logits), &golden["out.eval_logits"], 0.0);
    let mut mode = Mode::train(stages, 0);
    mode.dropout_seed = None;
    let logits = network.forward(&batch, &mode);
    note("training logits", &host(logits.clone()), &golden["out.train_logits"], 0.0);
    let loss = loss(logits, &golden["in.label"].values);
    note("loss", &host(loss.clone()), &golden["out.train_loss"], 0.0);

    let found = common::gradients(&network, &loss.backward());
    let gradients = to_foreign(network.config(), &found).unwrap();
    assert_eq!(gradients.len(), golden.keys().filter(|name| name.starts_with("grad.")).count());
    let reference = |name: &str| {
        let name = name.strip_prefix("mod.").unwrap().replace("in_proj_", "in_proj.");
        golden[&format!("grad.{name}")].clone()
    };
    // A bias before a batch norm has no gradient, nor has the bias of a key; what is left there is rounding, measured
    // against the gradient of a bias that has one.
    let floor = size(&golden["grad.pair_embed.embed.5.bias"].values);
    for (name, gradient) in gradients {
        let expected = reference(&name);
        assert_eq!(gradient.shape, expected.shape, "{name}");
        note(&format!("gradient of {name}"), &gradient.values, &expected, floor);
    }
    for (name, tensor) in to_foreign(network.config(), &state(&network)).unwrap() {
        if name.contains("running_") {
            let expected = &golden[&format!("after.{}", name.strip_prefix("mod.").unwrap())];
            note("running statistics", &tensor.values, expected, 0.0);
        }
    }
    let mut failed = false;
    for (group, &difference) in &worst {
        println!("{difference:9.2e}  {group}");
        failed |= difference > bound(group);
    }
    assert!(!failed, "above the bound");
}

#[test]
fn parameter_counts_are_the_published_ones() {
    for (config, classes, count) in [
        (ParticleTransformerConfig::kin(), 2, 2_141_134),
        (ParticleTransformerConfig::kin(), 10, 2_142_166),
        (ParticleTransformerConfig::kinpid(), 10, 2_142_958),
        (ParticleTransformerConfig::full(), 10, 2_143_486),
    ] {
        let features = config.input_features;
        let network =
            ParticleTransformer::new(&config.with_ends(features, classes), 0, &Device::flex()).unwrap();
        let state = state(&network);
        let parameters = state.values().filter(|tensor| tensor.role == Role::Parameter);
        assert_eq!(parameters.map(|tensor| tensor.values.len()).sum::<usize>(), count);
        // Names and layout go to weaver's and back, with its prefix.
        let foreign = to_foreign(network.config(), &state).unwrap();
        assert_eq!(foreign["mod.blocks.7.attn.in_proj_weight"].shape, [384, 128]);
        assert_eq!(foreign["mod.pair_embed.embed.10.weight"].shape, [8, 64, 1]);
        assert_eq!(foreign["mod.cls_token"].shape, [1, 1, 128]);
        let back = from_foreign(&foreign).unwrap();
        assert_eq!((back.state, &back.config), (state, network.config()));
    }
}
