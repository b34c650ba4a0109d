//! EdgeConv on neighbours in stock operations, edge by edge as the definition reads.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use super::{NeighbourConvOutput, NeighbourConvParameters};
use crate::contract::RaggedGraph;
use crate::ops::knn::Neighbours;
use crate::ops::plain::{batch_norm, row_mean, rows_of};

/// See [`super::neighbour_conv`].
pub fn neighbour_conv(
    x: Tensor<2>,
    graph: &RaggedGraph,
    neighbours: &Neighbours,
    parameters: NeighbourConvParameters,
) -> NeighbourConvOutput {
    let NeighbourConvParameters { layers, shortcut } = parameters;
    let (side, moments_shortcut) = match shortcut {
        Some((weight, norm)) => batch_norm(x.clone().matmul(weight), &norm),
        None => (x.clone(), None),
    };
    if neighbours.count == 0 {
        let moments = vec![None; layers.len()];
        return NeighbourConvOutput { nodes: relu(side), moments, moments_shortcut };
    }
    let receivers = rows_of(&neighbours.in_offsets, graph.nodes, neighbours.count);
    let sender = x.clone().select(0, neighbours.senders.clone());
    let receiver = x.select(0, receivers);
    let mut message = Tensor::cat(vec![receiver.clone(), sender - receiver], 1);
    let mut moments = Vec::with_capacity(layers.len());
    for (weight, norm) in layers {
        let (normed, of_batch) = batch_norm(message.matmul(weight), &norm);
        message = relu(normed);
        moments.push(of_batch);
    }
    let mean = row_mean(message, &neighbours.in_offsets, graph.nodes);
    NeighbourConvOutput { nodes: relu(mean + side), moments, moments_shortcut }
}
