//! EdgeConv on ragged graphs, as LundNet defines it (arXiv:2012.08526; EdgeConv: arXiv:1801.07829).
//!
//! For each directed edge `s -> r`:
//! `e = ReLU(BN2(ReLU(BN1((x_r - x_s) Theta + x_s Phi)) W))`, then for each node
//! `y = ReLU(mean over incoming e + S(x))`, with `S` the identity where the widths agree and else
//! `BN_S(x W_S)`. A node without an incoming edge has mean 0. Statistics run over all edges of the batch, and
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
use super::{Moments, Norm};
use crate::contract::RaggedGraph;

/// Parameters of one EdgeConv block of I inputs and C outputs.
#[derive(Clone, Debug)]
pub struct EdgeConvParameters {
    /// Acts on receiver minus sender, `[I, C]`.
    pub theta: Tensor<2>,
    /// Acts on the sender, `[I, C]`.
    pub phi: Tensor<2>,
    /// First normalisation of the messages.
    pub norm_1: Norm,
    /// Second linear map of the messages, `[C, C]`.
    pub linear: Tensor<2>,
    /// Second normalisation of the messages.
    pub norm_2: Norm,
    /// Linear map `[I, C]` and normalisation of the shortcut; `None` is the identity and needs I = C.
    pub shortcut: Option<(Tensor<2>, Norm)>,
}

/// What one block gives.
#[derive(Clone, Debug)]
pub struct EdgeConvOutput {
    /// `[N, C]`.
    pub nodes: Tensor<2>,
    /// Batch statistics of the first edge norm, where it used the batch's.
    pub moments_1: Option<Moments>,
    /// Of the second edge norm.
    pub moments_2: Option<Moments>,
    /// Of the shortcut.
    pub moments_shortcut: Option<Moments>,
}

/// One EdgeConv block.
///
/// # Shapes
/// `x: [N, I]` to `[N, C]`.
///
/// # Panics
/// If shapes do not agree.
pub fn edge_conv(x: Tensor<2>, graph: &RaggedGraph, parameters: EdgeConvParameters) -> EdgeConvOutput {
    let [rows, inputs] = x.dims();
    let [_, outputs] = parameters.theta.dims();
    assert_eq!(rows, graph.nodes, "rows of the features and nodes of the graph");
    assert_eq!(parameters.theta.dims(), [inputs, outputs], "theta");
    assert_eq!(parameters.phi.dims(), [inputs, outputs], "phi");
    assert_eq!(parameters.linear.dims(), [outputs, outputs], "linear");
    match &parameters.shortcut {
        Some((weight, _)) => assert_eq!(weight.dims(), [inputs, outputs], "shortcut"),
        None => assert_eq!(inputs, outputs, "an identity shortcut keeps the width"),
    }
    if bridge::takes(&x) && bridge::takes(&parameters.theta) {
        on_cpu(x, graph, parameters)
    } else {
        plain::edge_conv(x, graph, parameters)
    }
}

/// Places of the parents in the autodiff graph; a shortcut adds three.
const PARENTS: usize = 8;
const PARENTS_WITH_SHORTCUT: usize = PARENTS + 3;

fn on_cpu(x: Tensor<2>, graph: &RaggedGraph, parameters: EdgeConvParameters) -> EdgeConvOutput {
    let tracked = x.is_autodiff() || parameters.theta.is_autodiff();
    let mut parents = Vec::with_capacity(PARENTS_WITH_SHORTCUT);
    fn part<const D: usize>(tensor: Tensor<D>, parents: &mut Vec<NodeGuard>) -> FlexTensor {
        let (buffer, parent) = bridge::parts(tensor);
        parents.push(parent);
        buffer
    }
    let x = bridge::with_whole_rows(part(x, &mut parents));
    let theta = part(parameters.theta, &mut parents).to_contiguous();
    let phi = part(parameters.phi, &mut parents).to_contiguous();
    let linear = part(parameters.linear, &mut parents).to_contiguous();
    let norm = |norm: Norm, parents: &mut Vec<NodeGuard>| CpuNorm {
        weight: part(norm.weight, parents).to_contiguous(),
        bias: part(norm.bias, parents).to_contiguous(),
        running: norm.running.map(|(mean, variance)| {
            (bridge::buffer(mean).to_contiguous(), bridge::buffer(variance).to_contiguous())
        }),
    };
    let norm_1 = norm(parameters.norm_1, &mut parents);
    let norm_2 = norm(parameters.norm_2, &mut parents);
    let shortcut = parameters.shortcut.map(|(weight, side)| {
        let weight = part(weight, &mut parents).to_contiguous();
        (weight, norm(side, &mut parents))
    });
    let inputs = cpu::Inputs {
        x,
        theta,
        phi,
        linear,
        norm_1,
        norm_2,
        shortcut,
        jet_offsets: bridge::indices(&graph.jet_offsets),
        in_offsets: bridge::indices(&graph.edges().in_offsets),
        senders: bridge::indices(&graph.edges().senders),
    };
    match <[NodeGuard; PARENTS]>::try_from(parents) {
        Ok(parents) => run(inputs, parents, tracked),
        Err(parents) => match <[NodeGuard; PARENTS_WITH_SHORTCUT]>::try_from(parents) {
            Ok(parents) => run(inputs, parents, tracked),
            Err(parents) => unreachable!("{} parents", parents.len()),
        },
    }
}

fn run<const N: usize>(inputs: cpu::Inputs, parents: [NodeGuard; N], lifted: bool) -> EdgeConvOutput {
    let path = Path::current();
    let shape = [inputs.tiles().rows(), inputs.outputs()];
    let plain = Tensor::from_primitive::<Flex>;
    let graph = Tensor::from_primitive::<Autodiff<Flex>>;
    match EdgeConvBackward.prepare::<NoCheckpointing>(parents).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let mut passed = in_pool(|| cpu::forward(&inputs, path));
            // The output is shared with the next layer; the backward reads it from there.
            let y = bridge::tensor(std::mem::take(&mut passed.y), shape);
            let moments = batch_moments(&passed);
            let saved = Saved { inputs, passed, y: y.clone() };
            output(graph(prepared.finish(Arc::new(saved), y)), moments)
        }
        OpsKind::UnTracked(prepared) => {
            let (values, moments) = match in_pool(|| cpu::forward_folded(&inputs, path)) {
                Some(values) => (values, [None, None, None]),
                None => {
                    let mut passed = in_pool(|| cpu::forward(&inputs, path));
                    (std::mem::take(&mut passed.y), batch_moments(&passed))
                }
            };
            let nodes = bridge::tensor(values, shape);
            output(if lifted { graph(prepared.finish(nodes)) } else { plain(nodes) }, moments)
        }
    }
}

fn output(
    nodes: Tensor<2>,
    [moments_1, moments_2, moments_shortcut]: [Option<Moments>; 3],
) -> EdgeConvOutput {
    EdgeConvOutput { nodes, moments_1, moments_2, moments_shortcut }
}

fn batch_moments(passed: &cpu::Passed) -> [Option<Moments>; 3] {
    [&passed.statistics_1, &passed.statistics_2, &passed.statistics_side]
        .map(|statistics| bridge::moments(statistics.as_ref()?))
}

/// What the backward keeps.
#[derive(Debug)]
struct Saved {
    inputs: cpu::Inputs,
    passed: cpu::Passed,
    y: FlexTensor,
}

#[derive(Debug)]
struct EdgeConvBackward;

impl<const N: usize> Backward<Flex, N> for EdgeConvBackward {
    type State = Arc<Saved>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let Saved { inputs, passed, y } = &*ops.state;
        let waits = |parent: usize| ops.parents.get(parent).is_some_and(Option::is_some);
        let wanted = backward::Wanted {
            x: waits(0),
            node_weights: waits(1) || waits(2) || waits(PARENTS),
            linear: waits(3),
            norm_1: waits(4) || waits(5),
        };
        let (dy, y) = (bridge::slice(&dy), bridge::slice(y));
        let path = Path::current();
        let found = in_pool(|| backward::backward(inputs, passed, y, dy, wanted, path));
        let (i, c) = (inputs.inputs(), inputs.outputs());
        let rows = y.len() / c.max(1);
        let ordered: [(Vec<f32>, &[usize]); PARENTS_WITH_SHORTCUT] = [
            (found.x, &[rows, i]),
            (found.theta, &[i, c]),
            (found.phi, &[i, c]),
            (found.linear, &[c, c]),
            (found.norm_1.0, &[c]),
            (found.norm_1.1, &[c]),
            (found.norm_2.0, &[c]),
            (found.norm_2.1, &[c]),
            (found.shortcut, &[i, c]),
            (found.shortcut_norm.0, &[c]),
            (found.shortcut_norm.1, &[c]),
        ];
        for ((values, shape), parent) in ordered.into_iter().zip(&ops.parents) {
            let Some(parent) = parent else { continue };
            let gradient = match *shape {
                [rows, columns] => bridge::tensor(values, [rows, columns]),
                _ => bridge::tensor(values, [c]),
            };
            grads.register::<Flex>(parent.id, gradient);
        }
    }
}
