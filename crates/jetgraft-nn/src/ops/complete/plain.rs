//! Layers on complete graphs in stock operations.

use burn::tensor::activation::{leaky_relu, relu, softmax};
use burn::tensor::{DType, Int, Tensor, TensorData};

use super::{LayerParameters, NEGATIVE_SLOPE, Pending};
use crate::contract::RaggedGraph;
use crate::ops::Moments;
use crate::ops::plain::{batch_norm, jet_mean, like, rows_of};

/// The rows after what they have yet to go through.
pub fn rows(input: Pending) -> Tensor<2> {
    match &input.norm {
        Some(norm) => relu(batch_norm(input.rows, norm).0),
        None => input.rows,
    }
}

/// See [`super::layer`].
pub fn layer(
    input: Pending,
    graph: &RaggedGraph,
    parameters: LayerParameters,
    observe: bool,
) -> (Tensor<2>, Option<Moments>) {
    let x = rows(input);
    let u = x.clone().matmul(parameters.weight);
    let messages = match parameters.attention {
        Some(attention) => Padded::new(graph).attend(u, attention).0,
        None => {
            let jets = rows_of(&graph.jet_offsets, graph.jets, graph.nodes);
            jet_mean(u, graph).select(0, jets)
        }
    };
    let sums = messages
        + match parameters.residual {
            Some(residual) => x.matmul(residual),
            None => x,
        };
    let moments = (observe && graph.nodes > 0).then(|| moments(sums.clone().without_autodiff()));
    (sums, moments)
}

fn moments(x: Tensor<2>) -> Moments {
    let [rows, columns] = x.dims();
    let mean = x.clone().mean_dim(0);
    let variance = (x - mean.clone()).powi_scalar(2).mean_dim(0);
    Moments { mean: mean.reshape([columns]), variance: variance.reshape([columns]), rows }
}

/// See [`super::attention_weights`].
pub fn attention_weights(input: Pending, graph: &RaggedGraph, parameters: &LayerParameters) -> Tensor<2> {
    let u = rows(input).matmul(parameters.weight.clone());
    let Some(attention) = parameters.attention.clone() else { panic!("a layer with attention") };
    let heads = attention.dims()[0];
    let padded = Padded::new(graph);
    let device = u.device();
    let weights = padded.attend(u, attention).1;
    let n = padded.size;
    let by_source: Tensor<4> = weights.permute([0, 3, 2, 1]);
    let pairs: Vec<i32> = (padded.offsets.windows(2).enumerate())
        .flat_map(|(graph, nodes)| {
            let size = (nodes[1] - nodes[0]) as usize;
            (0..size * size).map(move |pair| ((graph * n + pair / size) * n + pair % size) as i32)
        })
        .collect();
    let count = pairs.len();
    let pairs = Tensor::<1, Int>::from_data(TensorData::new(pairs, [count]), (&device, DType::I32));
    by_source.reshape([graph.jets * n * n, heads]).select(0, pairs)
}

/// Graphs side by side, each with as many slots as the largest has nodes.
struct Padded {
    offsets: Vec<i32>,
    /// Slots per graph.
    size: usize,
    /// `[B * size]`: the node of each slot; 0 for an empty one.
    nodes: Tensor<1, Int>,
    /// `[N]`: the slot of each node.
    slots: Tensor<1, Int>,
    /// `[B, 1, 1, size]`: 0 for a node, a large negative number for an empty slot.
    empty: Tensor<4>,
}

impl Padded {
    fn new(graph: &RaggedGraph) -> Self {
        let device = graph.jet_offsets.device();
        let offsets: Vec<i32> = graph.jet_offsets.clone().into_data().iter::<i32>().collect();
        let size = offsets.windows(2).map(|nodes| (nodes[1] - nodes[0]) as usize).max().unwrap_or(0);
        let (mut nodes, mut slots, mut empty) = (Vec::new(), Vec::new(), Vec::new());
        for (at, range) in offsets.windows(2).enumerate() {
            let count = (range[1] - range[0]) as usize;
            nodes.extend((0..size).map(|slot| if slot < count { range[0] + slot as i32 } else { 0 }));
            slots.extend((0..count).map(|slot| (at * size + slot) as i32));
            empty.extend((0..size).map(|slot| if slot < count { 0f32 } else { -1e30 }));
        }
        let index = |values: Vec<i32>| {
            let count = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [count]), (&device, DType::I32))
        };
        let empty = Tensor::from_data(TensorData::new(empty, [graph.jets, 1, 1, size]), &device);
        Self { size, nodes: index(nodes), slots: index(slots), empty, offsets }
    }

    /// Messages `[N, C]` and weights `[B, heads, receiver, sender]`.
    fn attend(&self, u: Tensor<2>, attention: Tensor<2>) -> (Tensor<2>, Tensor<4>) {
        let (jets, n) = (self.offsets.len() - 1, self.size);
        let [heads, width] = attention.dims();
        let device = u.device();
        if jets == 0 {
            return (u, Tensor::zeros([0, heads, 0, 0], &device));
        }
        let u = u.select(0, self.nodes.clone()).reshape([jets, n, heads, width]);
        let receivers = u.clone().reshape([jets, n, 1, heads, width]);
        let senders = u.clone().reshape([jets, 1, n, heads, width]);
        let active = leaky_relu(receivers + senders, NEGATIVE_SLOPE.into());
        let scores: Tensor<5> = (active * attention.reshape([1, 1, 1, heads, width])).sum_dim(4);
        let scores: Tensor<4> = scores.reshape([jets, n, n, heads]).permute([0, 3, 1, 2]);
        let weights = softmax(scores.clone() + like(self.empty.clone(), &scores), 3);
        let messages: Tensor<4> = weights.clone().matmul(u.permute([0, 2, 1, 3]));
        let messages = messages.permute([0, 2, 1, 3]).reshape([jets * n, heads * width]);
        (messages.select(0, self.slots.clone()), weights)
    }
}
