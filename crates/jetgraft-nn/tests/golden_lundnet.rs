//! LundNet against reference numbers: the published weights on graphs of 1 to more than 60 nodes, evaluated by
//! PyTorch in double precision. The files lie beside the repository and are not part of it.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{Device, Tensor, TensorData, activation::log_softmax};
use jetgraft_nn::contract::{Backbone, GraphBatch, Mode, RaggedGraph};
use jetgraft_nn::import::{ForeignTensor, read_file};
use jetgraft_nn::models::lundnet::{LundNet, from_foreign, to_foreign};
use jetgraft_nn::state::{NamedTensor, Role, State, load_state, parameter_ids, state};

const NETWORKS: [(&str, &str); 4] = [
    ("lundnet5_w", "W_QCD_500GeV_LundNet5"),
    ("lundnet5_top", "Top_QCD_500GeV_LundNet5"),
    ("lundnet3_w", "W_QCD_500GeV_LundNet3"),
    ("lundnet3_top", "Top_QCD_500GeV_LundNet3"),
];

type Tensors = BTreeMap<String, ForeignTensor>;

fn shared(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")).join(path);
    if !path.exists() {
        eprintln!("skipped: {} not found", path.display());
        return None;
    }
    Some(path)
}

fn load(golden: &str, published: &str) -> Option<(Tensors, Tensors)> {
    let golden = shared(&format!("golden/{golden}.safetensors"))?;
    let published = shared(&format!("published/lundnet/{published}_state.pt"))?;
    Some((read_file(&golden).unwrap().tensors, read_file(&published).unwrap().tensors))
}

fn network(published: &Tensors, device: &Device) -> LundNet {
    let imported = from_foreign(published).unwrap();
    let network = LundNet::new(&imported.config, 0, device).unwrap();
    load_state(network, &imported.state).unwrap()
}

fn indices(tensors: &Tensors, name: &str) -> Vec<u32> {
    tensors[name].values.iter().map(|&value| value as u32).collect()
}

/// The reference's edge list as compressed rows.
fn batch(golden: &Tensors, device: &Device) -> GraphBatch {
    let features = &golden["in.features"];
    let (from, to) = (indices(golden, "in.src"), indices(golden, "in.dst"));
    let jets = indices(golden, "in.jet");
    pack(&features.values, features.shape[1], &from, &to, &jets, device)
}

fn pack(
    features: &[f32],
    columns: usize,
    from: &[u32],
    to: &[u32],
    jets: &[u32],
    device: &Device,
) -> GraphBatch {
    let nodes = jets.len();
    let mut order: Vec<usize> = (0..to.len()).collect();
    order.sort_by_key(|&edge| to[edge]);
    let senders: Vec<u32> = order.iter().map(|&edge| from[edge]).collect();
    let count = |keys: &[u32], rows: usize| {
        (0..=rows as u32).map(|row| keys.iter().filter(|&&key| key < row).count() as u32).collect::<Vec<_>>()
    };
    let offsets = count(to, nodes);
    let jet_offsets = count(jets, *jets.last().unwrap() as usize + 1);
    let graph = RaggedGraph::from_csr(&jet_offsets, &offsets, &senders, device).unwrap();
    let features = Tensor::from_data(TensorData::new(features.to_vec(), [nodes, columns]), device);
    GraphBatch { features, graph }
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
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
fn loss(logits: Tensor<2>, labels: &[u32]) -> Tensor<1> {
    let [rows, classes] = logits.dims();
    let mut one_hot = vec![0f32; rows * classes];
    for (row, &label) in labels.iter().enumerate() {
        one_hot[row * classes + label as usize] = -1.0 / rows as f32;
    }
    let one_hot = Tensor::from_data(TensorData::new(one_hot, [rows, classes]), &logits.device());
    (log_softmax(logits, 1) * one_hot).sum()
}

struct Gradients<'a> {
    found: &'a burn::tensor::Gradients,
    path: Vec<String>,
    gradients: State,
}

impl burn::module::ModuleVisitor for Gradients<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
        let name = self.path.join(".");
        if Role::of(&name) == Role::Parameter {
            let gradient = param.val().grad(self.found).unwrap_or_else(|| panic!("no gradient of {name}"));
            let shape = gradient.dims().to_vec();
            let tensor = NamedTensor { shape, values: host(gradient), role: Role::Parameter };
            self.gradients.insert(name, tensor);
        }
    }
}

/// Bounds on the largest difference of a tensor, relative to its root mean square. Measured with f32 sums in any
/// order against the double-precision reference; each bound is about three times the worst measured.
const EVALUATION_LOGITS: f64 = 6e-6;
const TRAINING_LOGITS: f64 = 4e-5;
const LOSS: f64 = 2e-6;
const RUNNING: f64 = 3e-6;
const GRADIENT: f64 = 3e-5;

#[test]
fn logits_loss_gradients_and_running_statistics() {
    let mut worst: BTreeMap<String, f64> = BTreeMap::new();
    for (golden, published) in NETWORKS {
        let Some((golden, published)) = load(golden, published) else { return };
        let device = Device::flex().autodiff();
        let network = network(&published, &device);
        let batch = batch(&golden, &device);
        let stages = network.stages().len();
        // The shift of the input norm has no gradient: the next norms take it out again. What is left there is
        // rounding, measured against the gradient of the scale.
        let floor = size(&golden["grad.bn_fts.weight"].values);
        let mut note = |group: &str, found: &[f32], expected: &str| {
            let difference = difference(found, &golden[expected].values, floor);
            let entry = worst.entry(group.to_owned()).or_default();
            *entry = entry.max(difference);
        };

        let logits = network.forward(&batch, &Mode::evaluate(stages));
        note("evaluation logits", &host(logits), "out.eval_logits");
        let mut mode = Mode::train(stages, 0);
        mode.dropout_seed = None;
        let logits = network.forward(&batch, &mode);
        note("training logits", &host(logits.clone()), "out.train_logits");
        let loss = loss(logits, &indices(&golden, "in.label"));
        note("loss", &host(loss.clone()), "out.train_loss");

        let found = loss.backward();
        let mut visitor = Gradients { found: &found, path: Vec::new(), gradients: State::new() };
        burn::module::Module::visit(&network, &mut visitor);
        let gradients = to_foreign(network.config(), &visitor.gradients).unwrap();
        assert_eq!(gradients.len(), golden.keys().filter(|name| name.starts_with("grad.")).count());
        for (name, gradient) in gradients {
            assert_eq!(gradient.shape, golden[&format!("grad.{name}")].shape, "{name}");
            note(&format!("gradient of {name}"), &gradient.values, &format!("grad.{name}"));
        }
        for (name, tensor) in to_foreign(network.config(), &state(&network)).unwrap() {
            if name.contains("running_") {
                note("running statistics", &tensor.values, &format!("after.{name}"));
            }
        }
    }
    let mut failed = false;
    for (group, &difference) in &worst {
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

#[test]
fn parameter_counts_and_round_trip_of_the_published_weights() {
    for (_, name) in NETWORKS {
        let Some(path) = shared(&format!("published/lundnet/{name}_state.pt")) else { return };
        let published = read_file(&path).unwrap().tensors;
        let network = network(&published, &Device::flex());
        let count = if name.ends_with('3') { 391_528 } else { 391_724 };
        let state = state(&network);
        let parameters = state.values().filter(|tensor| tensor.role == Role::Parameter);
        assert_eq!(parameters.map(|tensor| tensor.values.len()).sum::<usize>(), count);
        assert_eq!(parameter_ids(&network).len() + 34, state.len());
        // Their counters of batches are the only thing that does not come back.
        let mut back = to_foreign(network.config(), &state).unwrap();
        for (name, tensor) in &published {
            let mut returned = back.remove(name).unwrap_or_else(|| panic!("{name} is lost"));
            if name.ends_with("num_batches_tracked") {
                returned.values.clone_from(&tensor.values);
            }
            assert_eq!(&returned, tensor, "{name}");
        }
        assert!(back.is_empty(), "{:?}", back.keys());
    }
}

/// Four nodes, edges 0-1, 0-2, 1-3: logits from an independent double-precision evaluation.
#[test]
fn known_jet_with_the_published_weights() {
    let features = [
        [-1.0, -0.5, 0.3, 4.0, 4.5],
        [-2.0, -1.2, -0.7, 2.5, 3.0],
        [-0.8, -1.0, 1.1, 1.0, 1.5],
        [-3.0, -2.5, 0.0, 0.2, -0.5],
    ];
    for (name, expected) in [
        ("Top_QCD_500GeV_LundNet5", [2.847_854, -3.591_28]),
        ("W_QCD_500GeV_LundNet5", [-0.230_808, 2.645_084]),
        ("Top_QCD_500GeV_LundNet3", [-18.681_938, 16.328_419]),
        ("W_QCD_500GeV_LundNet3", [1.055_805, 0.945_532]),
    ] {
        let Some(path) = shared(&format!("published/lundnet/{name}_state.pt")) else { return };
        let device = Device::flex();
        let network = network(&read_file(&path).unwrap().tensors, &device);
        let columns: &[usize] = if name.ends_with('3') { &[0, 1, 4] } else { &[0, 1, 2, 3, 4] };
        let values: Vec<f32> =
            features.iter().flat_map(|row| columns.iter().map(|&column| row[column])).collect();
        let batch =
            pack(&values, columns.len(), &[0, 1, 0, 2, 1, 3], &[1, 0, 2, 0, 3, 1], &[0, 0, 0, 0], &device);
        let logits = host(network.forward(&batch, &Mode::evaluate(network.stages().len())));
        for (found, expected) in logits.iter().zip(expected) {
            // The reference has six decimals; f32 adds about 1e-6 of the larger logit.
            assert!((found - expected).abs() < 2e-5f32.max(2e-6 * expected.abs()), "{name}: {logits:?}");
        }
    }
}
