//! Layers of networks on complete graphs with self-loops: every node of a graph hears every node, itself included.
//!
//! A layer is `s_i = m_i + R x_i`, with `R` the identity where the widths agree, and a message `m_i` that is
//! - the mean over the nodes of the graph, `m_i = mean_j x_j W`, the same for every node: one product a graph; or
//! - GATv2 (S. Brody, U. Alon, E. Yahav, arXiv:2105.14491, eq. 7) with one `W` for both ends: per head `h`, with `u = x W`,
//!   `e_ij = a_h . LeakyReLU_0.2(u_i + u_j)`, `w_ij = softmax over j of e_ij`, `m_i = sum_j w_ij u_j`.
//!
//! `e` is the same for (i, j) and (j, i), so half of it is computed; `w` is not. The norm and the ReLU that follow a layer
//! need the whole batch; they wait in [`Pending`] and are done where the next layer reads its rows.

mod attend;
mod backward;
mod cpu;
mod kernels;
pub mod plain;
mod pool;
mod wide;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::bridge;
use super::cpu::{Path, Statistics, in_pool};
use super::{Moments, Norm};
use crate::contract::RaggedGraph;

/// Slope of the LeakyReLU for negative arguments.
pub const NEGATIVE_SLOPE: f32 = 0.2;

/// Node rows with what they have yet to go through: nothing, or a norm and then a ReLU.
#[derive(Clone, Debug)]
pub struct Pending {
    /// `[N, I]`.
    pub rows: Tensor<2>,
    /// The norm.
    pub norm: Option<Norm>,
    /// The rows' own statistics, for a norm that uses them; without rows there are none.
    pub moments: Option<Moments>,
}

impl Pending {
    /// Rows that are ready.
    pub fn ready(rows: Tensor<2>) -> Self {
        Self { rows, norm: None, moments: None }
    }
}

/// Parameters of one layer of I inputs and C outputs.
#[derive(Clone, Debug)]
pub struct LayerParameters {
    /// `W`, `[I, C]`.
    pub weight: Tensor<2>,
    /// The heads' vectors `a`, `[heads, C / heads]`; `None` takes the mean over the nodes.
    pub attention: Option<Tensor<2>>,
    /// `R`, `[I, C]`; `None` is the identity and needs I = C.
    pub residual: Option<Tensor<2>>,
}

impl LayerParameters {
    fn check(&self, input: &Pending, graph: &RaggedGraph) {
        let [rows, inputs] = input.rows.dims();
        let [_, outputs] = self.weight.dims();
        assert_eq!(rows, graph.nodes, "rows of the features and nodes of the graph");
        assert_eq!(self.weight.dims()[0], inputs, "inputs of the weight");
        match &self.residual {
            Some(residual) => assert_eq!(residual.dims(), [inputs, outputs], "residual"),
            None => assert_eq!(inputs, outputs, "an identity residual keeps the width"),
        }
        if let Some(attention) = &self.attention {
            let [heads, width] = attention.dims();
            assert_eq!(heads * width, outputs, "{heads} heads of {width}");
        }
    }
}

/// One layer, without the norm and ReLU that follow it; with `observe`, also the statistics of its output.
///
/// # Shapes
/// `[N, I]` to `[N, C]`.
///
/// # Panics
/// If shapes do not agree.
pub fn layer(
    input: Pending,
    graph: &RaggedGraph,
    parameters: LayerParameters,
    observe: bool,
) -> (Tensor<2>, Option<Moments>) {
    parameters.check(&input, graph);
    if !bridge::takes(&input.rows) || !bridge::takes(&parameters.weight) {
        return plain::layer(input, graph, parameters, observe);
    }
    let lifted = input.rows.is_autodiff() || parameters.weight.is_autodiff();
    let (inputs, parents) = on_cpu(input, graph, parameters);
    let path = Path::current();
    let shape = [inputs.tiles().rows(), inputs.outputs()];
    let tracked = Tensor::from_primitive::<Autodiff<Flex>>;
    let moments = |statistics: Option<Statistics>| statistics.as_ref().and_then(bridge::moments);
    match LayerBackward.prepare::<NoCheckpointing>(parents).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let (sums, passed, statistics) = in_pool(|| cpu::forward(&inputs, true, observe, path));
            let sums = prepared.finish(Arc::new((inputs, passed)), bridge::tensor(sums, shape));
            (tracked(sums), moments(statistics))
        }
        OpsKind::UnTracked(prepared) => {
            let (sums, _, statistics) = in_pool(|| cpu::forward(&inputs, false, observe, path));
            let sums = bridge::tensor(sums, shape);
            let sums =
                if lifted { tracked(prepared.finish(sums)) } else { Tensor::from_primitive::<Flex>(sums) };
            (sums, moments(statistics))
        }
    }
}

/// The weights `w` of a layer's attention, for looking at them: outside the autodiff graph.
///
/// # Shapes
/// `[sum over graphs of n^2, heads]`: graph by graph, in a graph of n nodes row `j n + i` is what node `i` takes from
/// node `j` (source first), so that for each `i` the sum over `j` is 1.
///
/// # Panics
/// If shapes do not agree, or the layer has no attention.
pub fn attention_weights(input: Pending, graph: &RaggedGraph, parameters: LayerParameters) -> Tensor<2> {
    parameters.check(&input, graph);
    assert!(parameters.attention.is_some(), "a layer with attention");
    if !bridge::takes(&input.rows) || !bridge::takes(&parameters.weight) {
        return plain::attention_weights(input, graph, &parameters).without_autodiff();
    }
    let (inputs, _) = on_cpu(input, graph, parameters);
    let heads = inputs.heads();
    let (_, passed, _) = cpu::forward(&inputs, true, false, Path::current());
    let weights = cpu::by_source(&inputs, &passed.weights);
    let pairs = weights.len() / heads;
    Tensor::from_primitive::<Flex>(bridge::tensor(weights, [pairs, heads]))
}

/// Does what rows have yet to go through.
///
/// # Shapes
/// `[N, C]` to `[N, C]`.
pub fn finish(input: Pending) -> Tensor<2> {
    let Some(norm) = &input.norm else { return input.rows };
    if !bridge::takes(&input.rows) || !bridge::takes(&norm.weight) {
        return plain::rows(input);
    }
    pool::finish(input, None)
}

/// Does what rows have yet to go through, and takes the mean over the nodes of each graph.
///
/// # Shapes
/// `[N, C]` to `[B, C]`.
///
/// # Panics
/// If rows and graphs do not agree.
pub fn mean(input: Pending, graph: &RaggedGraph) -> Tensor<2> {
    assert_eq!(input.rows.dims()[0], graph.nodes, "rows of the features and nodes of the graph");
    if !bridge::takes(&input.rows) || !input.norm.as_ref().is_none_or(|norm| bridge::takes(&norm.weight)) {
        return super::plain::jet_mean(plain::rows(input), graph);
    }
    pool::finish(input, Some(graph))
}

/// Places of the parents in the autodiff graph; one that a layer lacks is a number outside it.
const ROWS: usize = 0;
const NORM_WEIGHT: usize = 1;
const NORM_BIAS: usize = 2;
const WEIGHT: usize = 3;
const ATTENTION: usize = 4;
const RESIDUAL: usize = 5;
const PARENTS: usize = 6;

/// Buffers and places of rows and norm.
fn source(input: Pending) -> (cpu::Source, [NodeGuard; 3]) {
    let (rows, row_parent) = bridge::parts(input.rows);
    let rows = bridge::with_whole_rows(rows);
    match input.norm {
        None => (cpu::Source { rows, norm: None }, [row_parent, absent(), absent()]),
        Some(norm) => {
            let (weight, weight_parent) = bridge::parts(norm.weight);
            let (bias, bias_parent) = bridge::parts(norm.bias);
            let vector = |tensor| bridge::slice(&bridge::buffer(tensor).to_contiguous()).to_vec();
            let statistics = match (norm.running, input.moments) {
                (Some((mean, variance)), _) => Statistics::running(&vector(mean), &vector(variance)),
                (None, Some(Moments { mean, variance, rows })) => {
                    Statistics { rows, ..Statistics::running(&vector(mean), &vector(variance)) }
                }
                // No rows, so nothing to normalise.
                (None, None) => {
                    assert_eq!(rows.layout().shape()[0], 0, "rows to normalise come with their statistics");
                    let columns = rows.layout().shape()[1];
                    Statistics::running(&vec![0.0; columns], &vec![1.0; columns])
                }
            };
            let norm = cpu::SourceNorm::new(weight.to_contiguous(), bias.to_contiguous(), statistics);
            let source = cpu::Source { rows: rows.to_contiguous(), norm: Some(norm) };
            (source, [row_parent, weight_parent, bias_parent])
        }
    }
}

/// A place without gradient, for a parent that is not there.
fn absent() -> NodeGuard {
    bridge::parts(bridge::vector(vec![0.0])).1
}

fn on_cpu(
    input: Pending,
    graph: &RaggedGraph,
    parameters: LayerParameters,
) -> (cpu::Inputs, [NodeGuard; PARENTS]) {
    fn part(tensor: Tensor<2>) -> (FlexTensor, NodeGuard) {
        let (buffer, parent) = bridge::parts(tensor);
        (buffer.to_contiguous(), parent)
    }
    fn optional(tensor: Option<Tensor<2>>) -> (Option<FlexTensor>, NodeGuard) {
        match tensor.map(part) {
            Some((buffer, parent)) => (Some(buffer), parent),
            None => (None, absent()),
        }
    }
    let (source, [rows_parent, norm_weight_parent, norm_bias_parent]) = source(input);
    let (weight, weight_parent) = part(parameters.weight);
    let (attention, attention_parent) = optional(parameters.attention);
    let (residual, residual_parent) = optional(parameters.residual);
    let jet_offsets = bridge::indices(&graph.jet_offsets);
    let inputs = cpu::Inputs { source, weight, attention, residual, jet_offsets };
    let parents =
        [rows_parent, norm_weight_parent, norm_bias_parent, weight_parent, attention_parent, residual_parent];
    (inputs, parents)
}

#[derive(Debug)]
struct LayerBackward;

impl Backward<Flex, PARENTS> for LayerBackward {
    type State = Arc<(cpu::Inputs, cpu::Passed)>;

    fn backward(self, ops: Ops<Self::State, PARENTS>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ds = grads.consume::<Flex>(&ops.node).to_contiguous();
        let (inputs, passed) = &*ops.state;
        let waits = |parent: usize| ops.parents[parent].is_some();
        let wanted = backward::Wanted {
            rows: waits(ROWS) || waits(NORM_WEIGHT) || waits(NORM_BIAS),
            weight: waits(WEIGHT),
            attention: waits(ATTENTION),
            residual: waits(RESIDUAL),
        };
        let (ds, path) = (bridge::slice(&ds), Path::current());
        let found = in_pool(|| backward::backward(inputs, passed, ds, wanted, path));
        let (i, c, heads) = (inputs.inputs(), inputs.outputs(), inputs.heads());
        let nodes = inputs.tiles().rows();
        let matrices = [
            (ROWS, found.rows, [nodes, i]),
            (WEIGHT, found.weight, [i, c]),
            (ATTENTION, found.attention, [heads, c / heads]),
            (RESIDUAL, found.residual, [i, c]),
        ];
        for (place, values, shape) in matrices {
            if let Some(parent) = &ops.parents[place] {
                grads.register::<Flex>(parent.id, bridge::tensor(values, shape));
            }
        }
        for (place, values) in [(NORM_WEIGHT, found.norm.0), (NORM_BIAS, found.norm.1)] {
            if let Some(parent) = &ops.parents[place] {
                grads.register::<Flex>(parent.id, bridge::tensor(values, [i]));
            }
        }
    }
}
