//! Class attention in stock operations: graphs are padded to the largest one.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

use crate::contract::RaggedGraph;
use crate::ops::attention::plain::{indices, padded, sizes};
use crate::ops::plain::like;
use crate::ops::rows::plain::layer_norm;

/// See [`super::class_attention`].
pub fn class_attention(
    tokens: Tensor<2>,
    nodes: Tensor<2>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    queries: Tensor<2>,
    graph: &RaggedGraph,
) -> Tensor<2> {
    let [graphs, width] = tokens.dims();
    if graphs == 0 {
        return queries;
    }
    let heads = queries.dims()[1] / width;
    let device = nodes.device();
    // The token of a graph stands before its nodes.
    let (mut order, mut first) = (Vec::new(), 0);
    let mut sizes = sizes(graph);
    for (graph, size) in sizes.iter_mut().enumerate() {
        order.push(graph as i32);
        order.extend((first..first + *size).map(|node| (graphs + node) as i32));
        first += *size;
        *size += 1;
    }
    let rows = Tensor::cat(vec![tokens, nodes], 0).select(0, indices(order, &device));
    let (rows_of_slots, _, mask) = padded(&sizes, &device);
    let most = sizes.iter().copied().max().unwrap_or(0);
    let normed = layer_norm(rows, weight, bias).select(0, rows_of_slots).reshape([graphs, most, width]);
    let queries = queries.reshape([graphs, heads, width]);
    let mask = like(mask, &normed).reshape([graphs, 1, most]);
    let weights = softmax(queries.matmul(normed.clone().swap_dims(1, 2)) + mask, 2);
    weights.matmul(normed).reshape([graphs, heads * width])
}
