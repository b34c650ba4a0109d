//! Attention of one token per graph to itself and the graph's nodes (H. Touvron et al., arXiv:2103.17239, section 3;
//! Particle Transformer: arXiv:2202.03772), with keys and values that are linear in normalised rows.
//!
//! With `u` the layer normalisation of a row, a key is `W_k u + b_k`: its product with a query `q` is
//! `(W_k^T q) . u` and a term that is the same for all keys, which the softmax takes out. So is the sum of values
//! `W_v (sum of w u) + b_v`. What is left to do per node, and is done here, needs no product of matrices with the width
//! of the network on both sides: `w_k = softmax over k (r_h . u_k)`, `y_h = sum over k of w_k u_k`.

pub mod plain;

use burn::tensor::Tensor;

use crate::contract::RaggedGraph;

/// Weighted means of normalised rows, one per graph and head.
///
/// # Shapes
/// `tokens: [B, D]`, `nodes: [N, D]`, `weight` and `bias` of the layer normalisation `[D]`,
/// `queries: [B, H D]` (`r`, scale included); to `[B, H D]`.
///
/// # Panics
/// If shapes do not agree.
pub fn class_attention(
    tokens: Tensor<2>,
    nodes: Tensor<2>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    queries: Tensor<2>,
    graph: &RaggedGraph,
) -> Tensor<2> {
    let [rows, width] = nodes.dims();
    assert_eq!((rows, tokens.dims()), (graph.nodes, [graph.jets, width]), "tokens and nodes");
    assert_eq!((weight.dims(), bias.dims()), ([width], [width]), "norm");
    assert_eq!((queries.dims()[0], queries.dims()[1] % width), (graph.jets, 0), "queries");
    plain::class_attention(tokens, nodes, weight, bias, queries, graph)
}
