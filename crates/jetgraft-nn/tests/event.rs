//! The networks on events and the operations they are made of: kernels against their plain bodies, finite differences,
//! thread counts, instruction paths, and what every backbone promises.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::sync::{Mutex, PoisonError};

use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData};
use common::{bits, difference, distance, gradients, host, matrix, vector};
use jetgraft_nn::contract::{Backbone, GraphBatch, Mode, NormMode, RaggedGraph, Rows};
use jetgraft_nn::models::event_gat::{EventGat, EventGatConfig};
use jetgraft_nn::models::event_gnn::EventGnnConfig;
use jetgraft_nn::ops::complete::{self, LayerParameters, Pending};
use jetgraft_nn::ops::{Moments, Norm, Path};
use jetgraft_nn::registry::{AnyBackbone, BackboneConfig};
use jetgraft_nn::state::{Role, State, load_state, parameter_ids, state};
use proptest::prelude::*;

/// Graphs that meet every case: single nodes, the usual ones, many graphs in a tile, several tiles.
const SIZES: [usize; 20] = [1, 2, 3, 1, 6, 6, 6, 5, 8, 25, 40, 1, 9, 40, 33, 40, 6, 7, 40, 30];

fn offsets(sizes: &[usize]) -> Vec<u32> {
    let mut offsets = vec![0];
    for &size in sizes {
        offsets.push(offsets[offsets.len() - 1] + size as u32);
    }
    offsets
}

/// A layer behind a norm, or on raw rows: rows, scale and shift of the norm, weight, heads' vectors, residual's weight, in
/// this order; what it lacks is empty.
#[derive(Clone, Debug)]
struct Block {
    sizes: Vec<usize>,
    inputs: usize,
    outputs: usize,
    /// 0 takes the mean.
    heads: usize,
    /// `None`: raw rows; else whether running statistics are used.
    norm: Option<bool>,
    values: [Vec<f32>; 6],
}

impl Block {
    fn new(sizes: &[usize], inputs: usize, outputs: usize, heads: usize, norm: Option<bool>) -> Self {
        let nodes: usize = sizes.iter().sum();
        let (normed, mixed) = (if norm.is_some() { inputs } else { 0 }, inputs * outputs);
        let attention = if heads > 0 { outputs } else { 0 };
        let residual = if inputs == outputs { 0 } else { mixed };
        let lengths = [nodes * inputs, normed, normed, mixed, attention, residual];
        let mut values = [0, 1, 2, 3, 4, 5].map(|at| vector(at as u64 + 1, lengths[at]));
        for scale in &mut values[1] {
            *scale = scale.signum() * (0.5 + scale.abs());
        }
        Self { sizes: sizes.to_vec(), inputs, outputs, heads, norm, values }
    }

    fn shape(&self, at: usize) -> [usize; 2] {
        match at {
            0 => [self.sizes.iter().sum(), self.inputs],
            1 | 2 => [1, self.inputs],
            4 => [self.heads, self.outputs / self.heads],
            _ => [self.inputs, self.outputs],
        }
    }

    fn graph(&self, device: &Device) -> RaggedGraph {
        RaggedGraph::new(&offsets(&self.sizes), device).unwrap()
    }

    fn tensors(&self, device: &Device) -> [Option<Tensor<2>>; 6] {
        [0, 1, 2, 3, 4, 5].map(|at| {
            let values = self.values[at].clone();
            (!values.is_empty()).then(|| {
                let [rows, columns] = self.shape(at);
                let tensor = matrix(values, rows, columns, device);
                if device.is_autodiff() { tensor.require_grad() } else { tensor }
            })
        })
    }

    fn input(&self, tensors: &[Option<Tensor<2>>; 6]) -> Pending {
        let rows = tensors[0].clone().unwrap();
        let Some(running) = self.norm else { return Pending::ready(rows) };
        let columns = self.inputs;
        let flat = |at: usize| tensors[at].clone().unwrap().reshape([columns]);
        let device = rows.device().inner();
        let fixed = |seed: u64, base: f32| {
            let values = vector(seed, columns).iter().map(|value| base + 0.4 * value).collect::<Vec<_>>();
            Tensor::<1>::from_data(TensorData::new(values, [columns]), &device)
        };
        let norm = Norm {
            weight: flat(1),
            bias: flat(2),
            running: running.then(|| (fixed(11, 0.0), fixed(12, 1.0))),
        };
        let plain = rows.clone().without_autodiff();
        let mean = plain.clone().mean_dim(0);
        let variance = (plain - mean.clone()).powi_scalar(2).mean_dim(0);
        let moments = (!running).then(|| Moments {
            mean: mean.reshape([columns]),
            variance: variance.reshape([columns]),
            rows: rows.dims()[0],
        });
        Pending { rows, norm: Some(norm), moments }
    }

    fn parameters(&self, tensors: &[Option<Tensor<2>>; 6]) -> LayerParameters {
        let [_, _, _, weight, attention, residual] = tensors.clone();
        LayerParameters { weight: weight.unwrap(), attention, residual }
    }

    /// The three operations on this block.
    fn apply(&self, what: What, plain: bool, tensors: &[Option<Tensor<2>>; 6]) -> (Tensor<2>, Vec<f32>) {
        let graph = self.graph(&tensors[0].clone().unwrap().device());
        let input = self.input(tensors);
        match what {
            What::Layer => {
                let body = if plain { complete::plain::layer } else { complete::layer };
                let (sums, moments) = body(input, &graph, self.parameters(tensors), true);
                let moments = moments.unwrap();
                let mut values = host(moments.mean);
                values.extend(host(moments.variance));
                (sums, values)
            }
            What::Finish if plain => (complete::plain::rows(input), Vec::new()),
            What::Finish => (complete::finish(input), Vec::new()),
            What::Mean if plain => {
                (jetgraft_nn::ops::plain::jet_mean(complete::plain::rows(input), &graph), Vec::new())
            }
            What::Mean => (complete::mean(input, &graph), Vec::new()),
        }
    }

    /// Output, moments, and all gradients of a fixed weighting of the output.
    fn run(&self, what: What, plain: bool) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let tensors = self.tensors(&device);
        let (output, moments) = self.apply(what, plain, &tensors);
        let [rows, columns] = output.dims();
        let weights = matrix(vector(99, rows * columns), rows, columns, &device);
        let found = (output.clone() * weights).sum().backward();
        let mut results = vec![host(output), moments];
        results.extend(tensors.iter().flatten().filter_map(|tensor| tensor.grad(&found)).map(host));
        results
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Layer,
    Finish,
    Mean,
}

const ALL: [What; 3] = [What::Layer, What::Finish, What::Mean];

fn blocks(sizes: &[usize]) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (inputs, outputs, heads) in
        [(5, 32, 4), (32, 32, 4), (64, 64, 2), (12, 12, 4), (7, 21, 1), (40, 40, 2), (5, 32, 0), (24, 24, 0)]
    {
        for norm in [None, Some(false), Some(true)] {
            blocks.push(Block::new(sizes, inputs, outputs, heads, norm));
        }
    }
    blocks
}

#[test]
fn kernels_are_the_plain_bodies() {
    let mut worst = 0f64;
    // The last one has a graph that is larger than a tile.
    for block in blocks(&SIZES).into_iter().chain([Block::new(&[2, 270], 5, 16, 2, Some(false))]) {
        for what in ALL {
            let (kernel, plain) = (block.run(what, false), block.run(what, true));
            assert_eq!(kernel.len(), plain.len());
            assert!(what != What::Layer || kernel.len() >= 4);
            for (at, (kernel, plain)) in kernel.iter().zip(&plain).enumerate() {
                let distance = distance(kernel, plain);
                worst = worst.max(distance);
                // f32 sums in another order: 2.9e-6 measured.
                assert!(
                    distance < 1e-5,
                    "{} to {}, {} heads, norm {:?}, {what:?}, tensor {at}: {distance:.1e}",
                    block.inputs,
                    block.outputs,
                    block.heads,
                    block.norm
                );
            }
        }
    }
    println!("worst: {worst:.1e}");
}

/// Directional derivatives by central differences in f32, with the sum in f64.
#[test]
fn gradients_are_slopes() {
    let device = Device::flex();
    for mut block in blocks(&[1, 6, 6, 5, 9, 2, 12]) {
        for what in ALL {
            if what != What::Layer && block.norm.is_none() {
                continue;
            }
            let gradients = block.run(what, false).split_off(2);
            // Without autodiff, the statistics follow the rows as they move.
            let value = |block: &Block| {
                let values = host(block.apply(what, false, &block.tensors(&device)).0);
                let weights = vector(99, values.len());
                values.iter().zip(weights).map(|(&y, w)| f64::from(y) * f64::from(w)).sum::<f64>()
            };
            let present: Vec<usize> = (0..6).filter(|&at| !block.values[at].is_empty()).collect();
            let present: Vec<usize> =
                present.into_iter().filter(|&at| what == What::Layer || at < 3).collect();
            assert_eq!(gradients.len(), present.len());
            for (&at, gradient) in present.iter().zip(&gradients) {
                let size = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
                let length = (gradient.len() as f64).sqrt();
                for mask in 0..3u64 {
                    let masks = vector(1000 * mask + at as u64, gradient.len());
                    let direction: Vec<f64> = (gradient.iter().zip(masks))
                        .map(|(&g, m)| if mask == 0 || m > 0.0 { f64::from(g) / size * length } else { 0.0 })
                        .collect();
                    let slope: f64 = gradient.iter().zip(&direction).map(|(&g, &d)| f64::from(g) * d).sum();
                    let step = 5e-4;
                    let mut moved = |sign: f64| {
                        let kept = block.values[at].clone();
                        for (value, d) in block.values[at].iter_mut().zip(&direction) {
                            *value = (f64::from(*value) + sign * step * d) as f32;
                        }
                        let value = value(&block);
                        block.values[at] = kept;
                        value
                    };
                    let found = (moved(1.0) - moved(-1.0)) / (2.0 * step);
                    // Curvature, and kinks within the step.
                    let allowed = 0.02 * size * length;
                    assert!(
                        (found - slope).abs() < allowed,
                        "{} to {}, {} heads, norm {:?}, {what:?}, input {at}: {found} against {slope}",
                        block.inputs,
                        block.outputs,
                        block.heads,
                        block.norm
                    );
                }
            }
        }
    }
}

/// Runs with an instruction path forced on the whole process; results do not depend on it, so other tests may run.
fn forced<T>(path: Path, run: impl FnOnce() -> T) -> T {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    Path::force(Some(path));
    assert!(Path::current() == path || Path::best() != Path::Avx512);
    let result = run();
    Path::force(None);
    result
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

#[test]
fn threads_and_instruction_paths_do_not_change_a_bit() {
    let sizes: Vec<usize> = (0..600).map(|at| 1 + at * 7 % 9).collect();
    for (inputs, outputs, heads) in [(5, 64, 4), (64, 64, 4), (36, 36, 2), (64, 64, 0), (5, 48, 0)] {
        for what in ALL {
            let block = Block::new(&sizes, inputs, outputs, heads, Some(false));
            let run = || block.run(what, false);
            let reference = pool(1).install(run);
            let same = |again: Vec<Vec<f32>>, name: &str| {
                for (again, reference) in again.iter().zip(&reference) {
                    assert_eq!(bits(again), bits(reference), "{what:?}, {heads} heads, {name}");
                }
            };
            for threads in [2, 4] {
                same(pool(threads).install(run), &format!("{threads} threads"));
            }
            for path in [Path::Portable, Path::Avx2, Path::Avx512] {
                same(forced(path, run), &format!("{path:?}"));
            }
        }
    }
}

#[test]
fn a_batch_without_events_and_large_scores_are_no_trouble() {
    let device = Device::flex().autodiff();
    for heads in [0, 4] {
        let block = Block::new(&[3], 16, 16, heads, None);
        let graph = RaggedGraph::new(&[0], &device).unwrap();
        let tensors = block.tensors(&device);
        let empty = Pending::ready(matrix(Vec::new(), 0, 16, &device));
        let (sums, moments) = complete::layer(empty, &graph, block.parameters(&tensors), true);
        assert_eq!(sums.dims(), [0, 16]);
        assert!(moments.is_none());
        assert_eq!(complete::mean(Pending::ready(sums), &graph).dims(), [0, 16]);
    }
    // Scores of several thousand: one weight is 1, nothing overflows.
    let mut block = Block::new(&[6, 2, 30], 16, 16, 4, None);
    block.values[0].iter_mut().for_each(|value| *value *= 1000.0);
    let (kernel, plain) = (block.run(What::Layer, false), block.run(What::Layer, true));
    for (kernel, plain) in kernel.iter().zip(&plain) {
        assert!(distance(kernel, plain) < 1e-4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Any graphs, any widths: the kernels' outputs are the plain bodies'.
    #[test]
    fn any_batch_gives_the_plain_output(
        sizes in proptest::collection::vec(1usize..14, 1..30),
        inputs in 1usize..40,
        width in 1usize..24,
        heads in 0usize..5,
        norm: Option<bool>,
    ) {
        let block = Block::new(&sizes, inputs, width * heads.max(1), heads, norm);
        let tensors = block.tensors(&Device::flex());
        for what in ALL {
            let (kernel, plain) = (block.apply(what, false, &tensors), block.apply(what, true, &tensors));
            prop_assert!(distance(&host(kernel.0), &host(plain.0)) < 1e-4);
        }
    }
}

#[test]
fn attention_weights_are_shares_in_the_order_of_edges() {
    let block = Block::new(&SIZES, 12, 24, 3, Some(true));
    let device = Device::flex();
    let tensors = block.tensors(&device);
    let graph = block.graph(&device);
    let kernel = complete::attention_weights(block.input(&tensors), &graph, block.parameters(&tensors));
    let plain =
        complete::plain::attention_weights(block.input(&tensors), &graph, &block.parameters(&tensors));
    let pairs: usize = SIZES.iter().map(|size| size * size).sum();
    assert_eq!((kernel.dims(), plain.dims()), ([pairs, 3], [pairs, 3]));
    let (kernel, plain) = (host(kernel), host(plain));
    assert!(distance(&kernel, &plain) < 1e-6);
    let mut start = 0;
    for n in SIZES {
        for receiver in 0..n {
            for head in 0..3 {
                let sum: f32 = (0..n).map(|source| kernel[(start + source * n + receiver) * 3 + head]).sum();
                assert!((sum - 1.0).abs() < 1e-5, "graph of {n}, receiver {receiver}: {sum}");
            }
        }
        start += n * n;
    }
}

fn small() -> [BackboneConfig; 2] {
    [
        BackboneConfig::EventGnn(EventGnnConfig {
            layers: 3,
            width: 16,
            head_hidden: vec![12],
            dropout: 0.2,
            classes: 3,
            ..EventGnnConfig::default()
        }),
        BackboneConfig::EventGat(EventGatConfig {
            layers: 3,
            width: 16,
            heads: 2,
            head_hidden: vec![12],
            dropout: 0.2,
            classes: 3,
            ..EventGatConfig::default()
        }),
    ]
}

fn batch(sizes: &[usize], seed: u64, device: &Device) -> GraphBatch {
    let graph = RaggedGraph::new(&offsets(sizes), device).unwrap();
    let values = vector(seed, graph.nodes * 5).into_iter().map(|value| 2.0 * value).collect();
    GraphBatch { features: matrix(values, graph.nodes, 5, device), graph }
}

fn network(config: &BackboneConfig, device: &Device) -> AnyBackbone {
    let network = config.build(3, device).unwrap();
    // Running statistics that are not the starting ones.
    network.forward(&batch(&[9, 30, 14], 77, device), &Mode::train(network.stages().len(), 1));
    network
}

fn bits_of(state: &State) -> Vec<(String, Vec<u32>)> {
    state.iter().map(|(name, tensor)| (name.clone(), bits(&tensor.values))).collect()
}

#[test]
fn names_shapes_and_counts() {
    let device = Device::flex();
    for (config, names, count) in [
        (BackboneConfig::EventGnn(EventGnnConfig::default()), include_str!("names/event-gnn.txt"), 333_312),
        (BackboneConfig::EventGat(EventGatConfig::default()), include_str!("names/event-gat.txt"), 334_848),
    ] {
        let network = config.build(0, &device).unwrap();
        let state = state(&network);
        let listed: String =
            state.iter().map(|(name, tensor)| format!("{name} {:?}\n", tensor.shape)).collect();
        assert_eq!(listed, names, "names and shapes are in every saved file");
        let size = |head: bool| {
            let parameters = state
                .iter()
                .filter(|(name, tensor)| tensor.role == Role::Parameter && name.starts_with("head.") == head);
            parameters.map(|(_, tensor)| tensor.values.len()).sum::<usize>()
        };
        assert_eq!((size(false), size(true)), (count, 514));
        for name in state.keys() {
            let stages = network.stages();
            let stages = stages.iter().filter(|stage| name.starts_with(&format!("{}.", stage.prefix)));
            assert_eq!(stages.count(), 1, "{name} belongs to one stage");
        }
        // The work's start: standard deviations of 0.1238, 0.0884 and 0.1118, and uniform within 1/16.
        for (name, expected) in [
            ("layer.0.linear.weight", 0.1238),
            ("layer.0.residual.weight", 0.1238),
            ("layer.3.linear.weight", 0.0884),
            ("layer.0.attn", 0.1118),
        ] {
            let Some(tensor) = state.get(name) else { continue };
            let square =
                tensor.values.iter().map(|value| value * value).sum::<f32>() / tensor.values.len() as f32;
            let error = 5.0 / (2.0 * tensor.values.len() as f32).sqrt();
            assert!((square.sqrt() / expected - 1.0).abs() < error, "{name}: {}", square.sqrt());
        }
        let head = &state["head.output.weight"].values;
        assert!(
            head.iter().all(|value| value.abs() <= 1.0 / 16.0) && head.iter().any(|value| value.abs() > 0.06)
        );
    }
}

#[test]
fn impossible_sizes_are_errors() {
    let gat = EventGatConfig::default;
    let gnn = EventGnnConfig::default;
    for config in [
        BackboneConfig::EventGat(EventGatConfig { heads: 3, ..gat() }),
        BackboneConfig::EventGat(EventGatConfig { heads: 0, ..gat() }),
        BackboneConfig::EventGat(EventGatConfig { layers: 0, ..gat() }),
        BackboneConfig::EventGat(EventGatConfig { dropout: f64::NAN, ..gat() }),
        BackboneConfig::EventGnn(EventGnnConfig { width: 0, ..gnn() }),
        BackboneConfig::EventGnn(EventGnnConfig { layers: 65, ..gnn() }),
        BackboneConfig::EventGnn(EventGnnConfig { head_hidden: vec![4, 0], ..gnn() }),
        BackboneConfig::EventGnn(EventGnnConfig { classes: 0, ..gnn() }),
        BackboneConfig::EventGnn(EventGnnConfig { dropout: 1.0, ..gnn() }),
    ] {
        assert!(config.build(0, &Device::flex()).is_err(), "{config:?}");
    }
}

#[test]
fn stage_by_stage_is_the_whole_bit_for_bit() {
    for config in small() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let network = network(&config, &device);
            let stages = network.stages().len();
            let batch = batch(&[1, 12, 300, 7, 2, 61], 2, &device);
            for mode in [Mode::evaluate(stages), Mode::train(stages, 5)] {
                let whole = host(network.forward(&batch, &mode));
                for cut in 0..=stages {
                    let first = network.forward_stages(0..cut, batch.features.clone(), &batch.graph, &mode);
                    let rows = if network.rows_at(cut) == Rows::Nodes {
                        batch.graph.nodes
                    } else {
                        batch.graph.jets
                    };
                    assert_eq!(first.dims(), [rows, network.width_at(cut)]);
                    let second = network.forward_stages(cut..stages, first, &batch.graph, &mode);
                    assert_eq!(bits(&host(second)), bits(&whole), "cut {cut}");
                }
            }
        }
    }
}

#[test]
fn evaluation_does_not_see_the_order_or_the_company() {
    let device = Device::flex();
    for config in small() {
        let network = network(&config, &device);
        let evaluate = |sizes: &[usize], features: Vec<f32>| {
            let graph = RaggedGraph::new(&offsets(sizes), &device).unwrap();
            let features = matrix(features, graph.nodes, 5, &device);
            host(network.forward(&GraphBatch { features, graph }, &Mode::evaluate(4)))
        };
        let sizes = [1, 12, 300, 7, 2, 61];
        let features = vector(8, sizes.iter().sum::<usize>() * 5);
        let logits = evaluate(&sizes, features.clone());
        let (mut reversed, mut alone) = (Vec::new(), Vec::new());
        let mut start = 0;
        for size in sizes {
            let rows = &features[start * 5..(start + size) * 5];
            reversed.extend(rows.chunks(5).rev().flatten().copied());
            alone.extend(evaluate(&[size], rows.to_vec()));
            start += size;
        }
        assert!(difference(&evaluate(&sizes, reversed), &logits) < 1e-5, "order of nodes");
        assert!(difference(&alone, &logits) < 1e-5, "company");
        let mut broken = features;
        broken[7] = f32::NAN;
        let logits = evaluate(&sizes, broken);
        assert!(logits[3..6].iter().all(|value| value.is_nan()), "the event with the NaN");
        assert!(logits[..3].iter().chain(&logits[6..]).all(|value| value.is_finite()), "the others");
    }
}

/// One training step; gives everything that it computed.
fn step(network: &AnyBackbone, batch: &GraphBatch, seed: u64) -> (Vec<f32>, State) {
    let logits = network.forward(batch, &Mode::train(network.stages().len(), seed));
    let [rows, columns] = logits.dims();
    let weights = matrix(vector(4, rows * columns), rows, columns, &logits.device());
    let found = (logits.clone() * weights).sum().backward();
    (host(logits), gradients(network, &found))
}

#[test]
fn gradients_are_finite_for_all_kinds_of_batches() {
    let device = Device::flex().autodiff();
    for config in small() {
        for sizes in [&[1, 12, 300, 7, 2][..], &[6; 50], &[1, 1, 1], &[1], &[2]] {
            let network = network(&config, &device);
            let (logits, found) = step(&network, &batch(sizes, 2, &device), 1);
            assert!(logits.iter().all(|value| value.is_finite()), "{sizes:?}");
            assert_eq!(found.len(), parameter_ids(&network).len());
            let values = found.values().chain(state(&network).values()).cloned().collect::<Vec<_>>();
            assert!(values.iter().flat_map(|tensor| &tensor.values).all(|value| value.is_finite()));
        }
    }
}

#[test]
fn threads_do_not_change_a_bit_of_a_training() {
    for config in [
        BackboneConfig::EventGnn(EventGnnConfig::default()),
        BackboneConfig::EventGat(EventGatConfig::default()),
    ] {
        let run = |threads: usize| {
            pool(threads).install(|| {
                let device = Device::flex().autodiff();
                let mut network = config.build(3, &device).unwrap();
                let mut optimiser = AdamConfig::new().init();
                let batch = batch(&[6; 200], 6, &device);
                for seed in 0..2 {
                    let mode = Mode::train(network.stages().len(), seed);
                    let loss = network.forward(&batch, &mode).powi_scalar(2).mean();
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
}

#[test]
fn dropout_head_and_saved_state() {
    let device = Device::flex().autodiff();
    for config in small() {
        let network = network(&config, &device);
        let batch = batch(&[5, 6, 30], 2, &device);
        let run = |seed| bits(&step(&network.clone(), &batch, seed).0);
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));

        let before = state(&network);
        let swapped = network.clone().replace_head(5, 8);
        assert_eq!((swapped.classes(), swapped.width_at(4)), (5, 5));
        for (name, tensor) in state(&swapped) {
            assert!(name.starts_with("head.") || tensor == before[&name], "{name}");
        }
        let other = load_state(config.build(99, &device).unwrap(), &before).unwrap();
        let evaluate = |network: &AnyBackbone| bits(&host(network.forward(&batch, &Mode::evaluate(4))));
        assert_eq!(evaluate(&other), evaluate(&network));
        let theirs = config.to_foreign(&before).unwrap();
        let back = BackboneConfig::from_foreign(config.kind(), &theirs).unwrap();
        assert_eq!(back.state, before);
        // No tensor shows the rate of dropout.
        assert_eq!(back.config.build(0, &device).unwrap().stages(), network.stages());
    }
}

#[test]
fn a_frozen_prefix_leaves_no_trace() {
    let device = Device::flex().autodiff();
    for config in small() {
        let network = network(&config, &device);
        let before = state(&network);
        let frozen = burn::module::ParamGroup::from_predicate("layer.0");
        let network = network.set_require_grad_group(frozen, false);
        let mut mode = Mode::train(4, 1);
        mode.norms[0] = NormMode::Running;
        let batch = batch(&[5, 6, 30], 2, &device);
        let prefix = network.forward_stages(0..1, batch.features.clone(), &batch.graph, &mode);
        assert!(!prefix.is_tracked(), "the prefix is outside the graph");
        let found = network.forward(&batch, &mode).powi_scalar(2).sum().backward();
        let found = gradients(&network, &found);
        let after = state(&network);
        for (name, tensor) in &before {
            let part = name.starts_with("layer.0.");
            if tensor.role == Role::Parameter {
                assert_eq!(found.contains_key(name), !part, "{name}");
            } else {
                assert_eq!(bits(&after[name].values) == bits(&tensor.values), part, "{name}");
            }
        }
        // The rest learns from a cached prefix what it learns from the whole.
        let cached =
            network.forward_stages(1..4, prefix, &batch.graph, &mode).powi_scalar(2).sum().backward();
        let cached = gradients(&network, &cached);
        assert_eq!(bits_of(&cached), bits_of(&found));
    }
}

#[test]
fn attention_of_the_network() {
    let device = Device::flex();
    let config = EventGatConfig { layers: 2, width: 16, heads: 2, ..EventGatConfig::default() };
    let network = EventGat::new(&config, 1, &device).unwrap();
    let weights = network.attention_weights(&batch(&[1, 6, 5], 3, &device));
    assert_eq!(weights.len(), 2);
    for weights in weights {
        assert_eq!(weights.dims(), [1 + 36 + 25, 2]);
        let weights = host(weights);
        assert_eq!(weights[..2], [1.0, 1.0], "one object looks at itself");
        for receiver in 0..6 {
            let sum: f32 = (0..6).map(|source| weights[(1 + source * 6 + receiver) * 2]).sum();
            assert!((sum - 1.0).abs() < 1e-5);
        }
    }
}
