//! The networks on events against reference numbers: small networks with random weights on graphs of 1, 5, 6 and 8 nodes,
//! evaluated by PyTorch in double precision. The files lie beside the repository and are not part of it.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{Device, Tensor, TensorData, activation::log_softmax};
use common::{gradients, host};
use jetgraft_nn::contract::{Backbone, GraphBatch, Mode, RaggedGraph};
use jetgraft_nn::import::{ForeignTensor, read_file};
use jetgraft_nn::models::event_gat;
use jetgraft_nn::models::event_gat::EventGat;
use jetgraft_nn::registry::{AnyBackbone, BackboneConfig};
use jetgraft_nn::state::{load_state, state};

type Tensors = BTreeMap<String, ForeignTensor>;

fn load(name: &str) -> Option<Tensors> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden"))
        .join(format!("{name}.safetensors"));
    if !path.exists() {
        eprintln!("skipped: {} not found", path.display());
        return None;
    }
    Some(read_file(&path).unwrap().tensors)
}

fn parameters(golden: &Tensors) -> Tensors {
    let named = |(name, tensor): (&String, &ForeignTensor)| {
        Some((name.strip_prefix("param.")?.to_owned(), tensor.clone()))
    };
    golden.iter().filter_map(named).collect()
}

fn network(kind: &str, golden: &Tensors, device: &Device) -> AnyBackbone {
    let imported = BackboneConfig::from_foreign(kind, &parameters(golden)).unwrap();
    load_state(imported.config.build(0, device).unwrap(), &imported.state).unwrap()
}

fn batch(golden: &Tensors, device: &Device) -> GraphBatch {
    let events: Vec<u32> = golden["in.event"].values.iter().map(|&value| value as u32).collect();
    let offsets: Vec<u32> = (0..=events[events.len() - 1] + 1)
        .map(|event| events.iter().filter(|&&of| of < event).count() as u32)
        .collect();
    let features = &golden["in.features"];
    let data = TensorData::new(features.values.clone(), features.shape.clone());
    GraphBatch {
        features: Tensor::from_data(data, device),
        graph: RaggedGraph::new(&offsets, device).unwrap(),
    }
}

/// Mean cross-entropy.
fn loss(logits: Tensor<2>, labels: &[f32]) -> Tensor<1> {
    let [rows, classes] = logits.dims();
    let mut chosen = vec![0f32; rows * classes];
    for (row, &label) in labels.iter().enumerate() {
        chosen[row * classes + label as usize] = -1.0 / rows as f32;
    }
    let chosen = Tensor::from_data(TensorData::new(chosen, [rows, classes]), &logits.device());
    (log_softmax(logits, 1) * chosen).sum()
}

/// Largest difference, relative to the root mean square of the expected tensor.
fn difference(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let pairs = || found.iter().zip(expected).map(|(&f, &e)| (f64::from(f), f64::from(e)));
    let square = pairs().map(|(_, e)| e * e).sum::<f64>() / found.len() as f64;
    let worst = pairs().map(|(f, e)| (f - e).abs()).fold(0.0, f64::max);
    if worst.is_nan() { f64::INFINITY } else { worst / square.sqrt() }
}

/// Bounds on the largest difference of a tensor, relative to its root mean square. Measured with f32 sums in any order
/// against the double-precision reference; each bound is about three times the worst measured.
const EVALUATION_LOGITS: f64 = 2e-6;
const TRAINING_LOGITS: f64 = 5e-6;
const LOSS: f64 = 1e-6;
const RUNNING: f64 = 1e-6;
const GRADIENT: f64 = 3e-5;
const ATTENTION: f64 = 1.5e-6;

#[test]
fn logits_loss_gradients_and_running_statistics() {
    let mut failed = false;
    for (kind, file) in [("event-gnn", "event_gnn_small"), ("event-gat", "event_gat_small")] {
        let Some(golden) = load(file) else { return };
        let device = Device::flex().autodiff();
        let network = network(kind, &golden, &device);
        let batch = batch(&golden, &device);
        let mut note = |bound: f64, found: &[f32], expected: &str| {
            let difference = difference(found, &golden[expected].values);
            println!("{difference:9.2e} (bound {bound:.0e})  {kind}: {expected}");
            failed |= difference > bound;
        };

        let stages = network.stages().len();
        let logits = network.forward(&batch, &Mode::evaluate(stages));
        note(EVALUATION_LOGITS, &host(logits), "out.eval_logits");
        let mut mode = Mode::train(stages, 0);
        mode.dropout_seed = None;
        let logits = network.forward(&batch, &mode);
        note(TRAINING_LOGITS, &host(logits.clone()), "out.train_logits");
        let loss = loss(logits, &golden["in.label"].values);
        note(LOSS, &host(loss.clone()), "out.train_loss");

        let found = gradients(&network, &loss.backward());
        let found = network.config().to_foreign(&found).unwrap();
        assert_eq!(found.len(), golden.keys().filter(|name| name.starts_with("grad.")).count());
        for (name, gradient) in found {
            let expected = format!("grad.{name}");
            assert_eq!(gradient.shape, golden[&expected].shape, "{name}");
            note(GRADIENT, &gradient.values, &expected);
        }
        for (name, tensor) in network.config().to_foreign(&state(&network)).unwrap() {
            if name.contains("running_") {
                note(RUNNING, &tensor.values, &format!("after.{name}"));
            }
        }
    }
    assert!(!failed, "above the bound");
}

#[test]
fn attention_weights_in_evaluation() {
    let Some(golden) = load("event_gat_small") else { return };
    let imported = event_gat::from_foreign(&parameters(&golden)).unwrap();
    let device = Device::flex();
    let network = EventGat::new(&imported.config, 0, &device).unwrap();
    let network = load_state(network, &imported.state).unwrap();
    let found = network.attention_weights(&batch(&golden, &device));
    assert_eq!(found.len(), 3);
    for (layer, weights) in found.into_iter().enumerate() {
        let expected = &golden[&format!("out.attention_{layer}")];
        assert_eq!(weights.dims().to_vec(), expected.shape);
        let difference = difference(&host(weights), &expected.values);
        println!("{difference:9.2e}  layer {layer}");
        assert!(difference < ATTENTION, "layer {layer}");
    }
}

#[test]
fn the_key_map_goes_round() {
    for (kind, file) in [("event-gnn", "event_gnn_small"), ("event-gat", "event_gat_small")] {
        let Some(golden) = load(file) else { return };
        let theirs = parameters(&golden);
        let imported = BackboneConfig::from_foreign(kind, &theirs).unwrap();
        assert!(imported.ignored.is_empty());
        let mut back = imported.config.to_foreign(&imported.state).unwrap();
        back.retain(|name, _| !name.ends_with("num_batches_tracked"));
        assert_eq!(back, theirs);

        // As DGL stores it: the shared weight twice, counters, and in the GNN attention vectors without use.
        let mut stored = theirs.clone();
        for layer in 0..3 {
            let shared = stored[&format!("convs.{layer}.fc_src.weight")].clone();
            stored.insert(format!("convs.{layer}.fc_dst.weight"), shared);
            let counter = ForeignTensor { shape: Vec::new(), values: vec![7.0], dtype: "i64" };
            stored.insert(format!("bns.{layer}.num_batches_tracked"), counter);
            if kind == "event-gnn" {
                let idle = ForeignTensor { shape: vec![1, 4, 8], values: vec![0.5; 32], dtype: "f32" };
                stored.insert(format!("convs.{layer}.attn"), idle);
            }
        }
        let again = BackboneConfig::from_foreign(kind, &stored).unwrap();
        assert_eq!((&again.state, &again.config), (&imported.state, &imported.config));
        assert_eq!(again.ignored.len(), if kind == "event-gnn" { 9 } else { 6 });
        stored.get_mut("convs.1.fc_dst.weight").unwrap().values[3] += 1.0;
        let error = BackboneConfig::from_foreign(kind, &stored).unwrap_err().to_string();
        assert!(error.contains("convs.1.fc_dst.weight"), "{error}");
        let mut short = theirs.clone();
        short.remove("convs.1.fc_src.weight");
        assert!(BackboneConfig::from_foreign(kind, &short).is_err());
        let mut strange = theirs;
        strange.insert(
            "convs.0.bias".to_owned(),
            ForeignTensor { shape: vec![32], values: vec![0.0; 32], dtype: "f32" },
        );
        assert!(BackboneConfig::from_foreign(kind, &strange).is_err());
    }
}
