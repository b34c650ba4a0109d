//! EdgeConv in stock operations, edge by edge as the definition reads.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use super::{EdgeConvOutput, EdgeConvParameters};
use crate::contract::RaggedGraph;
use crate::ops::plain::{batch_norm, row_mean, rows_of};

/// See [`super::edge_conv`].
pub fn edge_conv(x: Tensor<2>, graph: &RaggedGraph, parameters: EdgeConvParameters) -> EdgeConvOutput {
    let EdgeConvParameters { theta, phi, norm_1, linear, norm_2, shortcut } = parameters;
    let (side, moments_shortcut) = match shortcut {
        Some((weight, norm)) => batch_norm(x.clone().matmul(weight), &norm),
        None => (x.clone(), None),
    };
    let edges = graph.edges();
    if edges.count == 0 {
        return EdgeConvOutput { nodes: relu(side), moments_1: None, moments_2: None, moments_shortcut };
    }
    let receivers = rows_of(&edges.in_offsets, graph.nodes, edges.count);
    let at_sender = x.clone().select(0, edges.senders.clone());
    let at_receiver = x.select(0, receivers);
    let message = (at_receiver - at_sender.clone()).matmul(theta) + at_sender.matmul(phi);
    let (message, moments_1) = batch_norm(message, &norm_1);
    let (message, moments_2) = batch_norm(relu(message).matmul(linear), &norm_2);
    let mean = row_mean(relu(message), &edges.in_offsets, graph.nodes);
    EdgeConvOutput { nodes: relu(mean + side), moments_1, moments_2, moments_shortcut }
}
