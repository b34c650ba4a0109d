//! Operations of transformers: kernels against their plain bodies, finite differences, threads, instruction paths.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};
use common::{bits, distance, host, vector};
use jetgraft_nn::contract::RaggedGraph;
use jetgraft_nn::ops::attention::{self, Options, PairBias};
use jetgraft_nn::ops::rows::{self, Activation, Step};
use jetgraft_nn::ops::{Norm, Path, class_attention, pair_embedding};

/// Graphs that meet every case: single nodes, sizes around whole vectors, one that fills a tile.
const SIZES: [usize; 10] = [1, 2, 16, 1, 17, 15, 33, 130, 64, 5];

/// Named inputs of an operation: values and shapes.
#[derive(Clone)]
struct Case {
    sizes: Vec<usize>,
    inputs: Vec<(Vec<f32>, Vec<usize>)>,
}

impl Case {
    fn new(sizes: &[usize]) -> Self {
        Self { sizes: sizes.to_vec(), inputs: Vec::new() }
    }

    fn nodes(&self) -> usize {
        self.sizes.iter().sum()
    }

    fn with(mut self, shape: &[usize], scale: f32) -> Self {
        let seed = self.inputs.len() as u64 + 1;
        let values = vector(seed, shape.iter().product()).iter().map(|value| value * scale).collect();
        self.inputs.push((values, shape.to_vec()));
        self
    }

    fn graph(&self, device: &Device) -> RaggedGraph {
        let mut offsets = vec![0u32];
        offsets.extend(self.sizes.iter().scan(0, |sum, &size| {
            *sum += size as u32;
            Some(*sum)
        }));
        let kinematics = kinematics(self.nodes());
        RaggedGraph::new(&offsets, device).unwrap().with_kinematics(&kinematics).unwrap()
    }

    fn rows(&self, at: usize, device: &Device) -> Tensor<2> {
        let (values, shape) = &self.inputs[at];
        tracked(Tensor::from_data(TensorData::new(values.clone(), shape.clone()), device))
    }

    fn row(&self, at: usize, device: &Device) -> Tensor<1> {
        let (values, shape) = &self.inputs[at];
        tracked(Tensor::from_data(TensorData::new(values.clone(), shape.clone()), device))
    }
}

/// Particles as in jets: falling momenta, small masses, some without.
fn kinematics(nodes: usize) -> Vec<f32> {
    let draws = vector(77, 4 * nodes);
    (draws.chunks(4))
        .enumerate()
        .flat_map(|(at, draw)| {
            let mass = if at % 3 == 0 { 0.0 } else { 0.1396 };
            [(3.0 * draw[0] + 2.0).exp(), 0.4 * draw[1], 0.4 * draw[2], mass]
        })
        .collect()
}

fn tracked<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.device().is_autodiff() { tensor.require_grad() } else { tensor }
}

/// An operation on a case, with kernels or plain; gives its result, and other values that have no gradient.
type Body<'a> = &'a dyn Fn(&Case, &Device, &mut Leaves, bool) -> (Tensor<2>, Vec<f32>);

/// Tensors whose gradients are asked for.
#[derive(Default)]
struct Leaves(Vec<Leaf>);

enum Leaf {
    Rows(Tensor<2>),
    Row(Tensor<1>),
}

impl Leaves {
    fn rows(&mut self, case: &Case, device: &Device) -> Tensor<2> {
        let tensor = case.rows(self.0.len(), device);
        self.0.push(Leaf::Rows(tensor.clone()));
        tensor
    }

    fn row(&mut self, case: &Case, device: &Device) -> Tensor<1> {
        let tensor = case.row(self.0.len(), device);
        self.0.push(Leaf::Row(tensor.clone()));
        tensor
    }
}

/// Result, other values, and gradients of a fixed weighting of the result.
fn run(case: &Case, body: Body<'_>, plain: bool) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let mut leaves = Leaves::default();
    let (result, other) = body(case, &device, &mut leaves, plain);
    let [rows, columns] = result.dims();
    let weights = common::matrix(vector(99, rows * columns), rows, columns, &device);
    let found = (result.clone() * weights).sum().backward();
    let mut results = vec![host(result), other];
    results.extend(leaves.0.iter().map(|leaf| match leaf {
        Leaf::Rows(tensor) => host(tensor.grad(&found).unwrap()),
        Leaf::Row(tensor) => host(tensor.grad(&found).unwrap()),
    }));
    results
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

fn forced<T>(path: Path, run: impl FnOnce() -> T) -> T {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    Path::force(Some(path));
    let result = run();
    Path::force(None);
    result
}

/// The kernel is the plain body within `allowed`, and its bits depend neither on threads nor on the instruction path.
fn check(name: &str, case: &Case, body: Body<'_>, allowed: f64) {
    let plain = run(case, body, true);
    let kernel = run(case, body, false);
    for (at, (kernel, plain)) in kernel.iter().zip(&plain).enumerate() {
        let distance = distance(kernel, plain);
        println!("{name}: tensor {at}: {distance:.1e}");
        assert!(distance < allowed, "{name}: tensor {at}: {distance:.1e}");
    }
    let same = |again: &[Vec<f32>], what: &str| {
        for (at, (again, first)) in again.iter().zip(&kernel).enumerate() {
            assert_eq!(bits(again), bits(first), "{name}: tensor {at}: {what}");
        }
    };
    for path in [Path::Portable, Path::Avx2, Path::Avx512] {
        same(&forced(path, || run(case, body, false)), &format!("{path:?}"));
    }
}

/// Central differences along the gradient of each input and along random halves of it.
fn slopes(name: &str, case: &Case, body: Body<'_>) {
    let gradients = run(case, body, false).split_off(2);
    let device = Device::flex();
    let value = |case: &Case| {
        let result = host(body(case, &device, &mut Leaves::default(), false).0);
        let weights = vector(99, result.len());
        result.iter().zip(weights).map(|(&y, w)| f64::from(y) * f64::from(w)).sum::<f64>()
    };
    for (at, gradient) in gradients.iter().enumerate() {
        let size = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let length = (gradient.len() as f64).sqrt();
        for mask in 0..3u64 {
            let masks = vector(1000 * mask + at as u64, gradient.len());
            let direction: Vec<f64> = (gradient.iter().zip(masks))
                .map(|(&g, m)| if mask == 0 || m > 0.0 { f64::from(g) / size * length } else { 0.0 })
                .collect();
            let slope: f64 = gradient.iter().zip(&direction).map(|(&g, &d)| f64::from(g) * d).sum();
            let step = 2e-3;
            let moved = |sign: f64| {
                let mut case = case.clone();
                for (value, d) in case.inputs[at].0.iter_mut().zip(&direction) {
                    *value = (f64::from(*value) + sign * step * d) as f32;
                }
                value(&case)
            };
            let found = (moved(1.0) - moved(-1.0)) / (2.0 * step);
            println!("{name}: input {at}: {found:.5} {slope:.5}");
            assert!((found - slope).abs() < 0.02 * size * length, "{name}: input {at}: {found} {slope}");
        }
    }
}

fn triangles(sizes: &[usize]) -> usize {
    sizes.iter().map(|size| size * (size + 1) / 2).sum()
}

fn attend(
    case: &Case,
    device: &Device,
    leaves: &mut Leaves,
    plain: bool,
    heads: usize,
    keys: bool,
    dropout: Option<(f64, u64)>,
) -> (Tensor<2>, Vec<f32>) {
    let graph = case.graph(device);
    let joined = leaves.rows(case, device);
    let pairs = (case.inputs.len() > 1).then(|| PairBias(leaves.row(case, device)));
    let keys = keys.then(|| {
        // Some keys count for nothing, but never the first of a graph.
        let mut values = vector(5, case.nodes());
        let mut first = 0;
        for size in &case.sizes {
            for (at, value) in values[first..first + size].iter_mut().enumerate() {
                if at % 4 == 3 {
                    *value = f32::NEG_INFINITY;
                }
            }
            first += size;
        }
        let length = values.len();
        Tensor::<1>::from_data(TensorData::new(values, [length]), &device.clone().inner())
    });
    let options = Options { heads, pairs, keys, dropout };
    let body = if plain { attention::plain::attention } else { attention::attention };
    (body(joined, &graph, options), Vec::new())
}

#[test]
fn attention_kernel_is_the_plain_body() {
    for (heads, each) in [(2, 16), (4, 5), (1, 33)] {
        for (pairs, keys, dropout) in
            [(true, false, None), (false, true, None), (true, true, Some((0.3, 4))), (false, false, None)]
        {
            let mut case = Case::new(&SIZES);
            case = case.clone().with(&[case.nodes(), 3 * heads * each], 2.0);
            if pairs {
                case = case.with(&[heads * triangles(&SIZES)], 1.0);
            }
            let body = |case: &Case, device: &Device, leaves: &mut Leaves, plain: bool| {
                attend(case, device, leaves, plain, heads, keys, dropout)
            };
            // f32 sums of up to 130 terms in another order.
            check(&format!("{heads} heads of {each}"), &case, &body, 3e-6);
        }
    }
}

#[test]
fn attention_gradients_are_slopes() {
    let sizes = [1, 3, 20];
    let case = Case::new(&sizes).with(&[24, 36], 1.0).with(&[2 * triangles(&sizes)], 1.0);
    let body = |case: &Case, device: &Device, leaves: &mut Leaves, plain: bool| {
        attend(case, device, leaves, plain, 2, false, Some((0.2, 9)))
    };
    slopes("attention", &case, &body);
}

fn chains(
    case: &Case,
    device: &Device,
    leaves: &mut Leaves,
    plain: bool,
    kind: usize,
) -> (Tensor<2>, Vec<f32>) {
    let x = leaves.rows(case, device);
    let body = if plain { rows::plain::chain } else { rows::chain };
    let norm =
        |leaves: &mut Leaves| Step::Norm { weight: leaves.row(case, device), bias: leaves.row(case, device) };
    let linear = |leaves: &mut Leaves, activation| Step::Linear {
        weight: leaves.rows(case, device),
        bias: leaves.row(case, device),
        activation,
    };
    let steps = match kind {
        // A feed-forward network with a norm inside.
        0 => vec![
            norm(leaves),
            linear(leaves, Activation::Gelu),
            Step::Dropout { rate: 0.2, seed: 3 },
            norm(leaves),
            linear(leaves, Activation::None),
            Step::Dropout { rate: 0.2, seed: 4 },
            Step::Add { rows: leaves.rows(case, device), scale: Some(leaves.row(case, device)) },
        ],
        // What follows the heads of an attention.
        1 => vec![
            linear(leaves, Activation::None),
            Step::Scale(leaves.row(case, device)),
            norm(leaves),
            Step::Add { rows: leaves.rows(case, device), scale: None },
            norm(leaves),
        ],
        2 => vec![Step::Dropout { rate: 0.5, seed: 1 }, linear(leaves, Activation::Relu)],
        _ => vec![norm(leaves)],
    };
    (body(x, steps), Vec::new())
}

/// Inputs of the chains above for rows of `c` columns and a hidden layer of `h`.
fn chain_case(kind: usize, rows: usize, c: usize, h: usize) -> Case {
    let case = Case::new(&[rows]).with(&[rows, c], 1.0);
    match kind {
        0 => {
            let case = case.with(&[c], 1.0).with(&[c], 1.0).with(&[c, h], 0.5).with(&[h], 0.5);
            let case = case.with(&[h], 1.0).with(&[h], 1.0).with(&[h, c], 0.5).with(&[c], 1.0);
            case.with(&[rows, c], 1.0).with(&[c], 1.0)
        }
        1 => {
            let case = case.with(&[c, h], 0.5).with(&[h], 0.5).with(&[h], 1.0).with(&[h], 1.0);
            case.with(&[h], 1.0).with(&[rows, h], 1.0).with(&[h], 1.0).with(&[h], 1.0)
        }
        2 => case.with(&[c, h], 0.5).with(&[h], 0.5),
        _ => case.with(&[c], 1.0).with(&[c], 1.0),
    }
}

#[test]
fn chains_are_the_plain_body() {
    for kind in 0..4 {
        for (rows, c, h) in [(1, 16, 32), (300, 24, 40), (700, 128, 512), (33, 5, 7)] {
            let case = chain_case(kind, rows, c, h);
            let body = move |case: &Case, device: &Device, leaves: &mut Leaves, plain: bool| {
                chains(case, device, leaves, plain, kind)
            };
            check(&format!("chain {kind} of {rows} x {c}"), &case, &body, 2e-5);
        }
    }
}

#[test]
fn chain_gradients_are_slopes() {
    for kind in [0, 1, 3] {
        let case = chain_case(kind, 20, 12, 16);
        let body = move |case: &Case, device: &Device, leaves: &mut Leaves, plain: bool| {
            chains(case, device, leaves, plain, kind)
        };
        slopes(&format!("chain {kind}"), &case, &body);
    }
}

fn embed_pairs(
    case: &Case,
    device: &Device,
    leaves: &mut Leaves,
    plain: bool,
    running: bool,
) -> (Tensor<2>, Vec<f32>) {
    let graph = case.graph(device);
    let norm = |leaves: &mut Leaves, seed: u64| {
        let weight = leaves.row(case, device);
        let bias = leaves.row(case, device);
        let [columns] = weight.dims();
        let fixed = |seed, base: f32| {
            let values: Vec<f32> = vector(seed, columns).iter().map(|value| base + 0.4 * value).collect();
            Tensor::<1>::from_data(TensorData::new(values, [columns]), &device.clone().inner())
        };
        Norm { weight, bias, running: running.then(|| (fixed(seed, 0.0), fixed(seed + 1, 1.0))) }
    };
    let input = norm(leaves, 30);
    let layers = (0..(case.inputs.len() - 2) / 4)
        .map(|layer| pair_embedding::Layer {
            weight: leaves.rows(case, device),
            bias: leaves.row(case, device),
            norm: norm(leaves, 40 + layer as u64),
        })
        .collect();
    let body = if plain { pair_embedding::plain::pair_embedding } else { pair_embedding::pair_embedding };
    let pairs = body(&graph, input, layers);
    let mut other = Vec::new();
    for moments in pairs.moments.into_iter().flatten() {
        other.extend(host(moments.mean));
        other.extend(host(moments.variance));
        other.push(moments.rows as f32);
    }
    (pairs.bias.0.unsqueeze::<2>(), other)
}

fn pair_case(sizes: &[usize], widths: &[usize]) -> Case {
    let mut case = Case::new(sizes).with(&[4], 1.0).with(&[4], 0.5);
    let mut inputs = 4;
    for &width in widths {
        case = case.with(&[inputs, width], 1.0).with(&[width], 0.5).with(&[width], 1.0).with(&[width], 0.5);
        inputs = width;
    }
    case
}

#[test]
fn pair_embedding_kernel_is_the_plain_body() {
    for widths in [&[64, 64, 64, 8][..], &[8, 12, 3], &[5]] {
        for running in [false, true] {
            let case = pair_case(&SIZES, widths);
            let body = move |case: &Case, device: &Device, leaves: &mut Leaves, plain: bool| {
                embed_pairs(case, device, leaves, plain, running)
            };
            // Biases before batch norms have no gradient: what is there is rounding, against a floor of 1e-6.
            let plain = run(&case, &body, true);
            let kernel = run(&case, &body, false);
            for (at, (kernel, plain)) in kernel.iter().zip(&plain).enumerate() {
                let is_bias = !running && (at == 3 || at >= 4 && (at - 4) % 4 == 1);
                let found = distance(kernel, plain);
                println!("{widths:?}, running {running}: tensor {at}: {found:.1e}");
                assert!(is_bias || found < 3e-4, "{widths:?}, running {running}: tensor {at}: {found:.1e}");
            }
            for path in [Path::Portable, Path::Avx2] {
                let again = forced(path, || run(&case, &body, false));
                assert!(
                    again.iter().zip(&kernel).all(|(again, first)| bits(again) == bits(first)),
                    "{path:?}"
                );
            }
        }
    }
}

#[test]
fn pair_embedding_gradients_are_slopes() {
    for running in [false, true] {
        let case = pair_case(&[1, 4, 12], &[6, 5, 3]);
        let body = move |case: &Case, device: &Device, leaves: &mut Leaves, plain: bool| {
            embed_pairs(case, device, leaves, plain, running)
        };
        if running {
            slopes("pair embedding", &case, &body);
        } else {
            // Without the biases, which have no slope.
            let gradients = run(&case, &body, false).split_off(2);
            assert!(gradients.iter().flatten().all(|value| value.is_finite()));
        }
    }
}

fn ask(case: &Case, device: &Device, leaves: &mut Leaves, plain: bool) -> (Tensor<2>, Vec<f32>) {
    let graph = case.graph(device);
    let (tokens, nodes) = (leaves.rows(case, device), leaves.rows(case, device));
    let (weight, bias) = (leaves.row(case, device), leaves.row(case, device));
    let queries = leaves.rows(case, device);
    let body = if plain { class_attention::plain::class_attention } else { class_attention::class_attention };
    (body(tokens, nodes, weight, bias, queries, &graph), Vec::new())
}

fn ask_case(sizes: &[usize], c: usize, heads: usize) -> Case {
    let (jets, nodes) = (sizes.len(), sizes.iter().sum());
    let case = Case::new(sizes).with(&[jets, c], 1.0).with(&[nodes, c], 1.0).with(&[c], 1.0);
    case.with(&[c], 1.0).with(&[jets, heads * c], 0.5)
}

#[test]
fn class_attention_kernel_is_the_plain_body() {
    for (c, heads) in [(16, 2), (20, 4), (128, 8)] {
        check("class attention", &ask_case(&SIZES, c, heads), &ask, 5e-6);
    }
    slopes("class attention", &ask_case(&[1, 4, 12], 16, 2), &ask);
}

#[test]
fn threads_do_not_change_a_bit() {
    let sizes = [64; 20];
    let whole = || {
        let mut all = Vec::new();
        let case = Case::new(&sizes).with(&[1280, 96], 1.0).with(&[2 * triangles(&sizes)], 1.0);
        let body = |case: &Case, device: &Device, leaves: &mut Leaves, plain: bool| {
            attend(case, device, leaves, plain, 2, true, Some((0.2, 9)))
        };
        all.extend(run(&case, &body, false));
        let body = |case: &Case, device: &Device, leaves: &mut Leaves, plain: bool| {
            chains(case, device, leaves, plain, 0)
        };
        all.extend(run(&chain_case(0, 1280, 64, 128), &body, false));
        let body = |case: &Case, device: &Device, leaves: &mut Leaves, plain: bool| {
            embed_pairs(case, device, leaves, plain, false)
        };
        all.extend(run(&pair_case(&sizes, &[64, 64, 8]), &body, false));
        all.extend(run(&ask_case(&sizes, 64, 4), &ask, false));
        all
    };
    let reference = pool(1).install(whole);
    for threads in [2, 4] {
        for (again, reference) in pool(threads).install(whole).iter().zip(&reference) {
            assert_eq!(bits(again), bits(reference), "{threads} threads");
        }
    }
}
