//! Nearest neighbours and EdgeConv on them: kernels against their plain bodies, finite differences,
//! thread counts and instruction paths.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};
use common::{bits, distance, host, matrix, vector};
use jetgraft_nn::contract::RaggedGraph;
use jetgraft_nn::ops::knn::{self, Neighbours};
use jetgraft_nn::ops::neighbour_conv::{self, NeighbourConvOutput, NeighbourConvParameters};
use jetgraft_nn::ops::{Moments, Norm, Path};
use proptest::prelude::*;

/// Jets that meet every case: single nodes, fewer nodes than neighbours, many jets in a tile, one that fills several.
const SIZES: [usize; 12] = [1, 2, 3, 1, 7, 25, 60, 1, 400, 40, 130, 5];

fn graph(sizes: &[usize], device: &Device) -> RaggedGraph {
    let mut offsets = vec![0u32];
    for &size in sizes {
        offsets.push(offsets[offsets.len() - 1] + size as u32);
    }
    RaggedGraph::new(&offsets, device).unwrap()
}

fn integers(neighbours: &Neighbours) -> (Vec<i32>, Vec<i32>) {
    let read = |tensor: &Tensor<1, burn::tensor::Int>| tensor.clone().into_data().iter::<i32>().collect();
    (read(&neighbours.in_offsets), read(&neighbours.senders))
}

/// All distances of a node, sorted.
fn obvious(points: &[f32], columns: usize, sizes: &[usize], k: usize) -> (Vec<i32>, Vec<i32>) {
    let (mut offsets, mut senders, mut first) = (vec![0], Vec::new(), 0);
    for &size in sizes {
        for node in first..first + size {
            let mut others: Vec<(f32, usize)> = (first..first + size)
                .filter(|&other| other != node)
                .map(|other| {
                    let steps = (0..columns)
                        .map(|column| points[other * columns + column] - points[node * columns + column]);
                    let sum = steps.fold(0f32, |sum, step| sum + step * step);
                    (if sum <= f32::MAX { sum } else { f32::MAX }, other)
                })
                .collect();
            others.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
            senders.extend(others.iter().take(k).map(|&(_, other)| other as i32));
            offsets.push(senders.len() as i32);
        }
        first += size;
    }
    (offsets, senders)
}

#[test]
fn neighbours_are_the_nearest_for_both_bodies() {
    let device = Device::flex();
    let nodes: usize = SIZES.iter().sum();
    for (columns, k, coarse) in
        [(2, 16, false), (2, 7, true), (64, 16, false), (3, 40, true), (130, 5, false)]
    {
        let mut values = vector(3, nodes * columns);
        if coarse {
            // Many equal places and distances.
            values.iter_mut().for_each(|value| *value = (*value * 2.0).round());
        }
        values[5 * columns] = f32::NAN;
        values[9 * columns] = 1e30;
        let points = matrix(values.clone(), nodes, columns, &device);
        let graph = graph(&SIZES, &device);
        let expected = obvious(&values, columns, &SIZES, k);
        assert_eq!(integers(&knn::knn(points.clone(), &graph, k)), expected, "{columns} columns");
        assert_eq!(
            integers(&knn::plain::knn(points.clone(), &graph, k)),
            expected,
            "plain, {columns} columns"
        );
        for path in [Path::Portable, Path::Avx2] {
            assert_eq!(forced(path, || integers(&knn::knn(points.clone(), &graph, k))), expected, "{path:?}");
        }
        for threads in [1, 4] {
            let again = pool(threads).install(|| integers(&knn::knn(points.clone(), &graph, k)));
            assert_eq!(again, expected, "{threads} threads");
        }
        // Columns of a wider matrix.
        let wide = Tensor::cat(vec![points.clone(), points], 1).slice([0..nodes, columns..2 * columns]);
        assert_eq!(integers(&knn::knn(wide, &graph, k)), expected);
    }
}

/// Inputs of one block: `x`, then weight, scale and shift of each layer and of the shortcut.
#[derive(Clone)]
struct Block {
    inputs: usize,
    widths: Vec<usize>,
    running: bool,
    values: Vec<(Vec<f32>, usize)>,
}

impl Block {
    fn new(nodes: usize, inputs: usize, widths: &[usize], running: bool) -> Self {
        let mut shapes = vec![(nodes, inputs)];
        let mut from = 2 * inputs;
        for &width in widths {
            shapes.extend([(from, width), (1, width), (1, width)]);
            from = width;
        }
        if from != inputs {
            shapes.extend([(inputs, from), (1, from), (1, from)]);
        }
        let values = shapes.iter().enumerate().map(|(at, &(rows, columns))| {
            let mut values = vector(at as u64 + 1, rows * columns);
            if at > 0 && at % 3 == 2 {
                // Scales of norms of either sign but not near 0.
                values.iter_mut().for_each(|scale| *scale = scale.signum() * (0.5 + scale.abs()));
            }
            (values, columns)
        });
        Self { inputs, widths: widths.to_vec(), running, values: values.collect() }
    }

    fn tensors(&self, device: &Device) -> Vec<Tensor<2>> {
        let tensor = |(values, columns): &(Vec<f32>, usize)| {
            let tensor = matrix(values.clone(), values.len() / columns, *columns, device);
            if device.is_autodiff() { tensor.require_grad() } else { tensor }
        };
        self.values.iter().map(tensor).collect()
    }

    fn parameters(&self, tensors: &[Tensor<2>]) -> NeighbourConvParameters {
        let device = tensors[0].device().inner();
        let fixed = |seed: u64, base: f32, c: usize| {
            let values = vector(seed, c).iter().map(|value| base + 0.4 * value).collect::<Vec<_>>();
            Tensor::<1>::from_data(TensorData::new(values, [c]), &device)
        };
        let mut layers: Vec<(Tensor<2>, Norm)> = (1..tensors.len())
            .step_by(3)
            .map(|at| {
                let c = tensors[at].dims()[1];
                let flat = |at: usize| tensors[at].clone().reshape([c]);
                let running = self.running.then(|| (fixed(at as u64, 0.0, c), fixed(at as u64 + 50, 1.0, c)));
                (tensors[at].clone(), Norm { weight: flat(at + 1), bias: flat(at + 2), running })
            })
            .collect();
        let shortcut = (self.widths.last() != Some(&self.inputs)).then(|| layers.pop().unwrap());
        NeighbourConvParameters { layers, shortcut }
    }
}

type Body = fn(Tensor<2>, &RaggedGraph, &Neighbours, NeighbourConvParameters) -> NeighbourConvOutput;

fn moments(moments: &Option<Moments>) -> Vec<f32> {
    moments.as_ref().map_or_else(Vec::new, |moments| {
        let mut values = host(moments.mean.clone());
        values.extend(host(moments.variance.clone()));
        values.push(moments.rows as f32);
        values
    })
}

/// Output, moments, and all gradients of a fixed weighting of the output.
fn run(block: &Block, sizes: &[usize], k: usize, body: Body) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let graph = graph(sizes, &device);
    let tensors = block.tensors(&device);
    // Places of their own: the neighbours do not follow a change of `x`.
    let points = matrix(vector(77, graph.nodes * 2), graph.nodes, 2, &device);
    let neighbours = knn::knn(points, &graph, k);
    let output = body(tensors[0].clone(), &graph, &neighbours, block.parameters(&tensors));
    let [rows, columns] = output.nodes.dims();
    let weights = matrix(vector(99, rows * columns), rows, columns, &device);
    let found = (output.nodes.clone() * weights).sum().backward();
    let mut results = vec![host(output.nodes)];
    results.extend(output.moments.iter().chain([&output.moments_shortcut]).map(moments));
    results.extend(tensors.iter().map(|tensor| {
        let length = tensor.dims().iter().product();
        tensor.grad(&found).map_or_else(|| vec![0.0; length], host)
    }));
    results
}

const WIDTHS: [(usize, &[usize]); 6] = [
    (7, &[64, 64, 64]),
    (32, &[32, 32, 32]),
    (5, &[13, 9, 20]),
    (6, &[6]),
    (3, &[40]),
    (24, &[32, 8, 33, 48]),
];

#[test]
fn kernel_is_the_plain_body() {
    let nodes = SIZES.iter().sum();
    for (inputs, widths) in WIDTHS {
        for running in [false, true] {
            let block = Block::new(nodes, inputs, widths, running);
            let kernel = run(&block, &SIZES, 16, neighbour_conv::neighbour_conv);
            let plain = run(&block, &SIZES, 16, neighbour_conv::plain::neighbour_conv);
            for (at, (kernel, plain)) in kernel.iter().zip(&plain).enumerate() {
                let distance = distance(kernel, plain);
                println!("{inputs} to {widths:?}, running {running}: tensor {at}: {distance:.1e}");
                // f32 sums of up to 10000 terms in another order. In gradients, one of a million messages that lies on
                // the other side of a ReLU's kink already makes 1e-3.
                let bound = if at <= widths.len() + 1 { 1e-5 } else { 3e-3 };
                assert!(distance < bound, "{inputs} to {widths:?}, running {running}: tensor {at}");
            }
            // Without gradients running norms are folded into the weights.
            let device = Device::flex();
            let graph = graph(&SIZES, &device);
            let tensors = block.tensors(&device);
            let points = matrix(vector(77, graph.nodes * 2), graph.nodes, 2, &device);
            let neighbours = knn::knn(points, &graph, 16);
            let parameters = block.parameters(&tensors);
            let folded = neighbour_conv::neighbour_conv(tensors[0].clone(), &graph, &neighbours, parameters);
            assert!(distance(&host(folded.nodes), &plain[0]) < 1e-5);
        }
    }
}

/// So few messages that none lies near a kink: gradients agree to rounding.
#[test]
fn small_batches_agree_to_rounding() {
    let sizes = [1, 2, 9, 20, 5];
    for (inputs, widths) in WIDTHS {
        for running in [false, true] {
            let block = Block::new(37, inputs, widths, running);
            let kernel = run(&block, &sizes, 6, neighbour_conv::neighbour_conv);
            let plain = run(&block, &sizes, 6, neighbour_conv::plain::neighbour_conv);
            for (at, (kernel, plain)) in kernel.iter().zip(&plain).enumerate() {
                let distance = distance(kernel, plain);
                assert!(
                    distance < 3e-5,
                    "{inputs} to {widths:?}, running {running}: tensor {at}: {distance:.1e}"
                );
            }
        }
    }
}

#[test]
fn jets_without_any_neighbour_are_only_their_shortcut() {
    for (inputs, widths) in WIDTHS {
        let block = Block::new(3, inputs, widths, false);
        let kernel = run(&block, &[1, 1, 1], 16, neighbour_conv::neighbour_conv);
        let plain = run(&block, &[1, 1, 1], 16, neighbour_conv::plain::neighbour_conv);
        for (kernel, plain) in kernel.iter().zip(&plain) {
            assert!(distance(kernel, plain) < 1e-4);
        }
    }
}

/// Gradients that nobody waits for are left out, and the others stay as they are.
#[test]
fn any_part_can_be_frozen() {
    let sizes = [5, 40, 1];
    let device = Device::flex().autodiff();
    let graph = graph(&sizes, &device);
    let points = matrix(vector(77, graph.nodes * 2), graph.nodes, 2, &device);
    let neighbours = knn::knn(points, &graph, 6);
    for (inputs, widths) in WIDTHS {
        let block = Block::new(graph.nodes, inputs, widths, false);
        let values = block.tensors(&device.clone().inner());
        let run = |wanted: &dyn Fn(usize) -> bool| -> Vec<Option<Vec<f32>>> {
            let tensors: Vec<Tensor<2>> = (values.iter().enumerate())
                .map(|(at, value)| {
                    let tensor = Tensor::from_inner(value.clone());
                    if wanted(at) { tensor.require_grad() } else { tensor }
                })
                .collect();
            let parameters = block.parameters(&tensors);
            let nodes =
                neighbour_conv::neighbour_conv(tensors[0].clone(), &graph, &neighbours, parameters).nodes;
            let found = nodes.powi_scalar(2).sum().backward();
            tensors.iter().map(|tensor| tensor.grad(&found).map(host)).collect()
        };
        let all = run(&|_| true);
        for from in 0..values.len() {
            for wanted in [&(move |at| at == from) as &dyn Fn(usize) -> bool, &(move |at| at >= from)] {
                for (at, gradient) in run(wanted).iter().enumerate() {
                    let expected = all[at].as_ref().filter(|_| wanted(at));
                    assert_eq!(
                        gradient.as_deref().map(bits),
                        expected.map(|all| bits(all)),
                        "{at} of {from}"
                    );
                }
            }
        }
    }
}

#[test]
fn gradients_are_slopes() {
    let sizes = [1, 3, 9, 40, 60, 60, 60];
    let device = Device::flex();
    for (inputs, widths) in [(4, &[8, 8, 8][..]), (5, &[7, 5]), (6, &[6])] {
        for running in [false, true] {
            let block = Block::new(233, inputs, widths, running);
            let tensors = block.values.len();
            let all = run(&block, &sizes, 6, neighbour_conv::neighbour_conv);
            let gradients = &all[all.len() - tensors..];
            let graph = graph(&sizes, &device);
            let neighbours = knn::knn(matrix(vector(77, 466), 233, 2, &device), &graph, 6);
            let value = |block: &Block| {
                let tensors = block.tensors(&device);
                let parameters = block.parameters(&tensors);
                let nodes =
                    neighbour_conv::neighbour_conv(tensors[0].clone(), &graph, &neighbours, parameters);
                let nodes = host(nodes.nodes);
                let weights = vector(99, nodes.len());
                nodes.iter().zip(weights).map(|(&y, w)| f64::from(y) * f64::from(w)).sum::<f64>()
            };
            for (at, gradient) in gradients.iter().enumerate() {
                let size = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
                let length = (gradient.len() as f64).sqrt();
                // Along the gradient, and along random halves of it: a wrong part cannot hide behind a right one.
                for mask in 0..3u64 {
                    let masks = vector(1000 * mask + at as u64, gradient.len());
                    let direction: Vec<f64> = (gradient.iter().zip(masks))
                        .map(|(&g, m)| if mask == 0 || m > 0.0 { f64::from(g) / size * length } else { 0.0 })
                        .collect();
                    let slope: f64 = gradient.iter().zip(&direction).map(|(&g, &d)| f64::from(g) * d).sum();
                    let step = 3e-4;
                    let moved = |sign: f64| {
                        let mut block = block.clone();
                        for (value, d) in block.values[at].0.iter_mut().zip(&direction) {
                            *value = (f64::from(*value) + sign * step * d) as f32;
                        }
                        value(&block)
                    };
                    let found = (moved(1.0) - moved(-1.0)) / (2.0 * step);
                    println!("{inputs} to {widths:?}, running {running}, input {at}: {found:.4} {slope:.4}");
                    // Curvature, and kinks of ReLUs within the step.
                    let allowed = 0.05 * size * length;
                    assert!((found - slope).abs() < allowed, "input {at}: {found} against {slope}");
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
    let result = run();
    Path::force(None);
    result
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

#[test]
fn threads_and_instruction_paths_do_not_change_a_bit() {
    let sizes = [60; 40];
    for widths in [&[64, 64, 64][..], &[20, 33]] {
        let block = Block::new(2400, 24, widths, false);
        let reference = pool(1).install(|| run(&block, &sizes, 16, neighbour_conv::neighbour_conv));
        let check = |again: Vec<Vec<f32>>, what: &str| {
            for (again, reference) in again.iter().zip(&reference) {
                assert_eq!(bits(again), bits(reference), "{what}");
            }
        };
        for threads in [2, 4] {
            let again = pool(threads).install(|| run(&block, &sizes, 16, neighbour_conv::neighbour_conv));
            check(again, &format!("{threads} threads"));
        }
        for path in [Path::Portable, Path::Avx2, Path::Avx512] {
            check(
                forced(path, || run(&block, &sizes, 16, neighbour_conv::neighbour_conv)),
                &format!("{path:?}"),
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Any jets, any widths, any number of neighbours.
    #[test]
    fn any_batch_gives_the_plain_output(
        sizes in proptest::collection::vec(1usize..40, 1..20),
        inputs in 1usize..20,
        widths in proptest::collection::vec(1usize..50, 1..5),
        k in 1usize..20,
        running: bool,
    ) {
        let device = Device::flex();
        let graph = graph(&sizes, &device);
        let block = Block::new(graph.nodes, inputs, &widths, running);
        let points = vector(8, graph.nodes * inputs);
        let neighbours = knn::knn(matrix(points.clone(), graph.nodes, inputs, &device), &graph, k);
        prop_assert_eq!(integers(&neighbours), obvious(&points, inputs, &sizes, k));
        let tensors = block.tensors(&device);
        let run = |body: Body| {
            let output = body(tensors[0].clone(), &graph, &neighbours, block.parameters(&tensors));
            let mut values = host(output.nodes);
            for moment in output.moments.iter().chain([&output.moments_shortcut]) {
                values.extend(moments(moment));
            }
            values
        };
        let (kernel, plain) = (run(neighbour_conv::neighbour_conv), run(neighbour_conv::plain::neighbour_conv));
        // A column that hardly varies in a tiny batch is all rounding: a few rows divide it by its own spread.
        prop_assert!(distance(&kernel, &plain) < 1e-3);
    }
}
