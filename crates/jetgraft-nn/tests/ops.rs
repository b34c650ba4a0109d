//! Kernels against their plain bodies, finite differences, thread counts and instruction paths.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};
use common::{Trees, bits, distance, host, matrix, vector};
use jetgraft_nn::contract::RaggedGraph;
use jetgraft_nn::ops::edge_conv::{self, EdgeConvOutput, EdgeConvParameters};
use jetgraft_nn::ops::{Moments, Norm, Path, readout};
use proptest::prelude::*;

/// Graphs that meet every case: single nodes, a chain, many jets in a tile, one jet that fills several.
const SIZES: [usize; 12] = [1, 2, 3, 1, 7, 25, 60, 1, 700, 40, 300, 5];

/// Inputs of one block: `x`, theta, phi, linear, four norm vectors, and three for a shortcut; in this order.
#[derive(Clone)]
struct Block {
    inputs: usize,
    outputs: usize,
    running: bool,
    values: Vec<Vec<f32>>,
}

impl Block {
    fn new(nodes: usize, inputs: usize, outputs: usize, running: bool) -> Self {
        let (i, c) = (inputs, outputs);
        let mut lengths = vec![nodes * i, i * c, i * c, c * c, c, c, c, c];
        if i != c {
            lengths.extend([i * c, c, c]);
        }
        let mut values: Vec<Vec<f32>> =
            lengths.iter().enumerate().map(|(at, &length)| vector(at as u64 + 1, length)).collect();
        // Scales of norms of either sign but not near 0.
        for at in [4, 6, 9] {
            if let Some(scales) = values.get_mut(at) {
                scales.iter_mut().for_each(|scale| *scale = scale.signum() * (0.5 + scale.abs()));
            }
        }
        Self { inputs, outputs, running, values }
    }

    fn shape(&self, at: usize) -> (usize, usize) {
        let (i, c) = (self.inputs, self.outputs);
        match at {
            0 => (self.values[0].len() / i, i),
            1 | 2 | 8 => (i, c),
            3 => (c, c),
            _ => (1, c),
        }
    }

    fn tensors(&self, device: &Device) -> Vec<Tensor<2>> {
        self.values
            .iter()
            .enumerate()
            .map(|(at, values)| {
                let (rows, columns) = self.shape(at);
                let tensor = matrix(values.clone(), rows, columns, device);
                if device.is_autodiff() { tensor.require_grad() } else { tensor }
            })
            .collect()
    }

    fn parameters(&self, tensors: &[Tensor<2>]) -> EdgeConvParameters {
        let c = self.outputs;
        let flat = |at: usize| tensors[at].clone().reshape([c]);
        let device = tensors[0].device().inner();
        let fixed = |seed: u64, base: f32| {
            let values = vector(seed, c).iter().map(|value| base + 0.4 * value).collect::<Vec<_>>();
            Tensor::<1>::from_data(TensorData::new(values, [c]), &device)
        };
        let norm = |weight: usize, bias: usize| Norm {
            weight: flat(weight),
            bias: flat(bias),
            running: self.running.then(|| (fixed(weight as u64, 0.0), fixed(bias as u64, 1.0))),
        };
        EdgeConvParameters {
            theta: tensors[1].clone(),
            phi: tensors[2].clone(),
            linear: tensors[3].clone(),
            norm_1: norm(4, 5),
            norm_2: norm(6, 7),
            shortcut: (tensors.len() > 8).then(|| (tensors[8].clone(), norm(9, 10))),
        }
    }
}

type Body = fn(Tensor<2>, &RaggedGraph, EdgeConvParameters) -> EdgeConvOutput;

fn moments(moments: &Option<Moments>) -> Vec<f32> {
    moments.as_ref().map_or_else(Vec::new, |moments| {
        let mut values = host(moments.mean.clone());
        values.extend(host(moments.variance.clone()));
        values.push(moments.rows as f32);
        values
    })
}

/// Output, the three moments, and all gradients of a fixed weighting of the output.
fn run(block: &Block, trees: &Trees, body: Body) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let tensors = block.tensors(&device);
    let output = body(tensors[0].clone(), &trees.graph(&device), block.parameters(&tensors));
    let [rows, columns] = output.nodes.dims();
    let weights = matrix(vector(99, rows * columns), rows, columns, &device);
    let found = (output.nodes.clone() * weights).sum().backward();
    let mut results = vec![host(output.nodes)];
    results.extend([output.moments_1, output.moments_2, output.moments_shortcut].iter().map(moments));
    results.extend(tensors.iter().map(|tensor| {
        let length = tensor.dims().iter().product();
        tensor.grad(&found).map_or_else(|| vec![0.0; length], host)
    }));
    results
}

#[test]
fn edge_conv_kernel_is_the_plain_body() {
    for (inputs, outputs) in [(5, 32), (32, 32), (7, 13), (48, 64), (1, 3)] {
        for running in [false, true] {
            let trees = Trees::new(&SIZES, inputs, 5);
            let block = Block::new(trees.nodes(), inputs, outputs, running);
            let kernel = run(&block, &trees, edge_conv::edge_conv);
            let plain = run(&block, &trees, edge_conv::plain::edge_conv);
            for (at, (kernel, plain)) in kernel.iter().zip(&plain).enumerate() {
                let distance = distance(kernel, plain);
                println!("{inputs} to {outputs}, running {running}: tensor {at}: {distance:.1e}");
                // f32 sums of up to 2300 terms in another order: 4e-6 measured.
                assert!(distance < 1e-5, "{inputs} to {outputs}, running {running}: tensor {at}");
            }
        }
    }
}

#[test]
fn folded_evaluation_is_the_plain_body() {
    let device = Device::flex();
    for (inputs, outputs) in [(5, 32), (32, 32), (7, 13)] {
        let trees = Trees::new(&SIZES, inputs, 5);
        let block = Block::new(trees.nodes(), inputs, outputs, true);
        let tensors = block.tensors(&device);
        let run = |body: Body| {
            host(body(tensors[0].clone(), &trees.graph(&device), block.parameters(&tensors)).nodes)
        };
        assert!(distance(&run(edge_conv::edge_conv), &run(edge_conv::plain::edge_conv)) < 5e-6);
    }
}

#[test]
fn a_batch_without_edges_has_no_messages() {
    for (inputs, outputs) in [(5, 8), (8, 8)] {
        for running in [false, true] {
            let trees = Trees::new(&[1, 1, 1], inputs, 3);
            let block = Block::new(3, inputs, outputs, running);
            let kernel = run(&block, &trees, edge_conv::edge_conv);
            let plain = run(&block, &trees, edge_conv::plain::edge_conv);
            assert!(kernel[1].is_empty() && kernel[2].is_empty(), "no statistics without an edge");
            for (kernel, plain) in kernel.iter().zip(&plain) {
                assert!(distance(kernel, plain) < 1e-5);
            }
        }
    }
}

/// Directional derivatives by central differences in f32, with the sum in f64.
#[test]
fn edge_conv_gradients_are_slopes() {
    let device = Device::flex();
    for (inputs, outputs) in [(6, 16), (16, 16)] {
        for running in [false, true] {
            let trees = Trees::new(&[1, 2, 30, 45, 60, 200], inputs, 8);
            let block = Block::new(trees.nodes(), inputs, outputs, running);
            let gradients = run(&block, &trees, edge_conv::edge_conv).split_off(4);
            let value = |block: &Block| {
                let tensors = block.tensors(&device);
                let nodes = edge_conv::edge_conv(
                    tensors[0].clone(),
                    &trees.graph(&device),
                    // Not tracked, but never folded either in batch mode.
                    block.parameters(&tensors),
                )
                .nodes;
                let nodes = host(nodes);
                let weights = vector(99, nodes.len());
                nodes.iter().zip(weights).map(|(&y, w)| f64::from(y) * f64::from(w)).sum::<f64>()
            };
            for (at, gradient) in gradients.iter().enumerate() {
                let size = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
                let length = (block.values[at].len() as f64).sqrt();
                // Along the gradient, and along random halves of it: a wrong part cannot hide behind a right one.
                for mask in 0..3u64 {
                    let masks = vector(1000 * mask + at as u64, block.values[at].len());
                    let direction: Vec<f64> = (gradient.iter().zip(masks))
                        .map(|(&g, m)| if mask == 0 || m > 0.0 { f64::from(g) / size * length } else { 0.0 })
                        .collect();
                    let slope: f64 = gradient.iter().zip(&direction).map(|(&g, &d)| f64::from(g) * d).sum();
                    let step = 5e-4;
                    let moved = |sign: f64| {
                        let mut block = block.clone();
                        for (value, d) in block.values[at].iter_mut().zip(&direction) {
                            *value = (f64::from(*value) + sign * step * d) as f32;
                        }
                        value(&block)
                    };
                    let found = (moved(1.0) - moved(-1.0)) / (2.0 * step);
                    println!("{inputs} to {outputs}, running {running}, input {at}: {found:.4} {slope:.4}");
                    // Curvature, and kinks of ReLUs within the step.
                    let allowed = 0.02 * size * length;
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
    let trees = Trees::new(&[60; 60], 24, 4);
    let block = Block::new(trees.nodes(), 24, 64, false);
    let reference = pool(1).install(|| run(&block, &trees, edge_conv::edge_conv));
    for threads in [2, 4] {
        let again = pool(threads).install(|| run(&block, &trees, edge_conv::edge_conv));
        for (again, reference) in again.iter().zip(&reference) {
            assert_eq!(bits(again), bits(reference), "{threads} threads");
        }
    }
    println!("best path here: {:?}", Path::best());
    for path in [Path::Portable, Path::Avx2, Path::Avx512] {
        let again = forced(path, || run(&block, &trees, edge_conv::edge_conv));
        for (again, reference) in again.iter().zip(&reference) {
            assert_eq!(bits(again), bits(reference), "{path:?}");
        }
    }
}

/// Output, moments and gradients of a readout of three pieces.
fn run_readout(trees: &Trees, running: bool, plain: bool) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let c = 24;
    let tensor =
        |seed, rows, columns| matrix(vector(seed, rows * columns), rows, columns, &device).require_grad();
    let pieces: Vec<Tensor<2>> = [3, 16, 9].iter().map(|&w| tensor(w as u64, trees.nodes(), w)).collect();
    let others = [tensor(31, 28, c), tensor(32, 1, c), tensor(33, 1, c), tensor(34, 1, c)];
    let flat = |at: usize| others[at].clone().reshape([c]);
    let fixed = |base: f32| Tensor::<1>::ones([c], &device.clone().inner()) * base;
    let norm = Norm { weight: flat(2), bias: flat(3), running: running.then(|| (fixed(0.3), fixed(0.7))) };
    let body = if plain { readout::plain::readout } else { readout::readout };
    let (jets, statistics) = body(pieces.clone(), others[0].clone(), flat(1), norm, &trees.graph(&device));
    let [rows, columns] = jets.dims();
    let found = (jets.clone() * matrix(vector(99, rows * columns), rows, columns, &device)).sum().backward();
    let mut results = vec![host(jets), moments(&statistics)];
    results.extend(pieces.iter().chain(&others).map(|tensor| host(tensor.grad(&found).unwrap())));
    results
}

#[test]
fn readout_kernel_is_the_plain_body_for_any_threads_and_path() {
    for running in [false, true] {
        let trees = Trees::new(&SIZES, 1, 5);
        let kernel = pool(1).install(|| run_readout(&trees, running, false));
        let plain = run_readout(&trees, running, true);
        for (at, (kernel, plain)) in kernel.iter().zip(&plain).enumerate() {
            let distance = distance(kernel, plain);
            println!("running {running}, tensor {at}: {distance:.1e}");
            // The bias has little gradient: the norm takes most of it out, and the rest is a difference.
            assert!(distance < 2e-4, "running {running}, tensor {at}");
        }
        for threads in [2, 4] {
            let again = pool(threads).install(|| run_readout(&trees, running, false));
            assert!(again.iter().zip(&kernel).all(|(again, first)| bits(again) == bits(first)));
        }
        for path in [Path::Portable, Path::Avx2] {
            let again = forced(path, || run_readout(&trees, running, false));
            assert!(again.iter().zip(&kernel).all(|(again, first)| bits(again) == bits(first)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Any jets, any widths: the kernel's output is the plain body's. (Gradients of random small batches may meet a
    /// ReLU at its kink, where both sides are right.)
    #[test]
    fn any_batch_gives_the_plain_output(
        sizes in proptest::collection::vec(1usize..40, 1..30),
        inputs in 1usize..40,
        outputs in 1usize..70,
        running: bool,
    ) {
        let device = Device::flex();
        let trees = Trees::new(&sizes, inputs, 5);
        let block = Block::new(trees.nodes(), inputs, outputs, running);
        let tensors = block.tensors(&device);
        let run = |body: Body| {
            let output = body(tensors[0].clone(), &trees.graph(&device), block.parameters(&tensors));
            let mut values = host(output.nodes);
            for moment in [output.moments_1, output.moments_2, output.moments_shortcut] {
                values.extend(moments(&moment));
            }
            values
        };
        let (kernel, plain) = (run(edge_conv::edge_conv), run(edge_conv::plain::edge_conv));
        // A column that hardly varies in a tiny batch is all rounding: a few rows divide it by its own spread.
        prop_assert!(distance(&kernel, &plain) < 1e-3);
    }
}
