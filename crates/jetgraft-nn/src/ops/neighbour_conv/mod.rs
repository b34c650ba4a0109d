//! EdgeConv on nearest neighbours, as ParticleNet defines it (arXiv:1902.08570, section III.A; EdgeConv:
//! arXiv:1801.07829).
//!
//! For each node `i` and each of its neighbours `j`, `e_1 = [x_i, x_j - x_i]` and
//! `e_{l+1} = ReLU(BN_l(e_l W_l))` for L linear maps, then `y_i = ReLU(mean over j of e_{L+1} + S(x_i))`, with `S` the
//! identity or `BN_S(x W_S)`. A node without a neighbour has mean 0. Statistics run over all edges of the batch, and
//! for the shortcut over all nodes; without any edge the edge norms have no statistics and do not move.

mod backward;
mod cpu;
mod kernels;
pub mod plain;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::bridge;
use super::cpu::{CpuNorm, Path, in_pool};
use super::knn::Neighbours;
use super::{Moments, Norm};
use crate::contract::RaggedGraph;

/// The most linear maps that one block takes.
pub const MAX_LAYERS: usize = 5;

/// Parameters of one block of I inputs and `C_L` outputs.
#[derive(Clone, Debug)]
pub struct NeighbourConvParameters {
    /// Linear map and normalisation of the messages, in order: `[2 I, C_1]` (its first I rows act on the receiver, the
    /// others on sender minus receiver), `[C_1, C_2]` and on.
    pub layers: Vec<(Tensor<2>, Norm)>,
    /// Linear map `[I, C_L]` and normalisation of the shortcut; `None` is the identity and needs `I = C_L`.
    pub shortcut: Option<(Tensor<2>, Norm)>,
}

/// What one block gives.
#[derive(Clone, Debug)]
pub struct NeighbourConvOutput {
    /// `[N, C_L]`.
    pub nodes: Tensor<2>,
    /// Batch statistics of each edge norm, where it used the batch's.
    pub moments: Vec<Option<Moments>>,
    /// Of the shortcut.
    pub moments_shortcut: Option<Moments>,
}

/// One block.
///
/// # Shapes
/// `x: [N, I]` to `[N, C_L]`.
///
/// # Panics
/// If shapes do not agree, or the layers are none or more than [`MAX_LAYERS`].
pub fn neighbour_conv(
    x: Tensor<2>,
    graph: &RaggedGraph,
    neighbours: &Neighbours,
    parameters: NeighbourConvParameters,
) -> NeighbourConvOutput {
    let [rows, inputs] = x.dims();
    assert_eq!(rows, graph.nodes, "rows of the features and nodes of the graph");
    let count = parameters.layers.len();
    assert!((1..=MAX_LAYERS).contains(&count), "{count} layers");
    let mut width = 2 * inputs;
    for (layer, (weight, _)) in parameters.layers.iter().enumerate() {
        let [rows, columns] = weight.dims();
        assert_eq!(rows, width, "rows of layer {layer}");
        width = columns;
    }
    match &parameters.shortcut {
        Some((weight, _)) => assert_eq!(weight.dims(), [inputs, width], "shortcut"),
        None => assert_eq!(inputs, width, "an identity shortcut keeps the width"),
    }
    if bridge::takes(&x) && bridge::takes(&parameters.layers[0].0) {
        on_cpu(x, graph, neighbours, parameters)
    } else {
        plain::neighbour_conv(x, graph, neighbours, parameters)
    }
}

fn on_cpu(
    x: Tensor<2>,
    graph: &RaggedGraph,
    neighbours: &Neighbours,
    parameters: NeighbourConvParameters,
) -> NeighbourConvOutput {
    let tracked = x.is_autodiff() || parameters.layers[0].0.is_autodiff();
    let mut parents = Vec::with_capacity(4 + 3 * MAX_LAYERS);
    fn part<const D: usize>(tensor: Tensor<D>, parents: &mut Vec<NodeGuard>) -> FlexTensor {
        let (buffer, parent) = bridge::parts(tensor);
        parents.push(parent);
        buffer
    }
    let layer = |(weight, norm): (Tensor<2>, Norm), parents: &mut Vec<NodeGuard>| cpu::Layer {
        weight: part(weight, parents).to_contiguous(),
        norm: CpuNorm {
            weight: part(norm.weight, parents).to_contiguous(),
            bias: part(norm.bias, parents).to_contiguous(),
            running: norm.running.map(|(mean, variance)| {
                (bridge::buffer(mean).to_contiguous(), bridge::buffer(variance).to_contiguous())
            }),
        },
    };
    let x = bridge::with_whole_rows(part(x, &mut parents));
    let layers: Vec<_> =
        parameters.layers.into_iter().map(|parameters| layer(parameters, &mut parents)).collect();
    let shortcut = parameters.shortcut.map(|parameters| layer(parameters, &mut parents));
    let inputs = cpu::Inputs {
        x,
        layers,
        shortcut,
        jet_offsets: bridge::indices(&graph.jet_offsets),
        in_offsets: bridge::indices(&neighbours.in_offsets),
        senders: bridge::indices(&neighbours.senders),
    };
    // One parent for `x`, three for each linear map with its norm.
    match parents.len() {
        4 => run::<4>(inputs, parents, tracked),
        7 => run::<7>(inputs, parents, tracked),
        10 => run::<10>(inputs, parents, tracked),
        13 => run::<13>(inputs, parents, tracked),
        16 => run::<16>(inputs, parents, tracked),
        19 => run::<19>(inputs, parents, tracked),
        other => unreachable!("{other} parents"),
    }
}

fn run<const N: usize>(inputs: cpu::Inputs, parents: Vec<NodeGuard>, lifted: bool) -> NeighbourConvOutput {
    let Ok(parents) = <[NodeGuard; N]>::try_from(parents) else { unreachable!("counted before") };
    let path = Path::current();
    let shape = [inputs.tiles().rows(), inputs.outputs()];
    let plain = Tensor::from_primitive::<Flex>;
    let graph = Tensor::from_primitive::<Autodiff<Flex>>;
    match NeighbourConvBackward.prepare::<NoCheckpointing>(parents).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let mut passed = in_pool(|| cpu::forward(&inputs, path));
            // The output is shared with the next layer; the backward reads it from there.
            let y = bridge::tensor(std::mem::take(&mut passed.y), shape);
            let (moments, moments_shortcut) = batch_moments(&passed);
            let saved = Saved { inputs, passed, y: y.clone() };
            let nodes = graph(prepared.finish(Arc::new(saved), y));
            NeighbourConvOutput { nodes, moments, moments_shortcut }
        }
        OpsKind::UnTracked(prepared) => {
            let (values, (moments, moments_shortcut)) = match in_pool(|| cpu::forward_folded(&inputs, path)) {
                Some(values) => (values, (vec![None; inputs.layers.len()], None)),
                None => {
                    let mut passed = in_pool(|| cpu::forward(&inputs, path));
                    (std::mem::take(&mut passed.y), batch_moments(&passed))
                }
            };
            let nodes = bridge::tensor(values, shape);
            let nodes = if lifted { graph(prepared.finish(nodes)) } else { plain(nodes) };
            NeighbourConvOutput { nodes, moments, moments_shortcut }
        }
    }
}

fn batch_moments(passed: &cpu::Passed) -> (Vec<Option<Moments>>, Option<Moments>) {
    let edges = passed.statistics.iter().map(bridge::moments).collect();
    (edges, passed.statistics_side.as_ref().and_then(bridge::moments))
}

/// What the backward keeps.
#[derive(Debug)]
struct Saved {
    inputs: cpu::Inputs,
    passed: cpu::Passed,
    y: FlexTensor,
}

#[derive(Debug)]
struct NeighbourConvBackward;

impl<const N: usize> Backward<Flex, N> for NeighbourConvBackward {
    type State = Arc<Saved>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let Saved { inputs, passed, y } = &*ops.state;
        let waits: Vec<bool> = ops.parents.iter().map(Option::is_some).collect();
        let (dy, y) = (bridge::slice(&dy), bridge::slice(y));
        let path = Path::current();
        let found = in_pool(|| backward::backward(inputs, passed, y, dy, &waits, path));
        for ((values, columns), parent) in found.into_iter().zip(&ops.parents) {
            let Some(parent) = parent else { continue };
            let length = values.len();
            let gradient = match columns {
                Some(columns) => bridge::tensor(values, [length / columns, columns]),
                None => bridge::tensor(values, [length]),
            };
            grads.register::<Flex>(parent.id, gradient);
        }
    }
}
