//! Multi-head attention within each graph of a packed batch (A. Vaswani et al., arXiv:1706.03762, section 3.2), with
//! an additive bias of pairs (Particle Transformer: arXiv:2202.03772, equation 5), an additive bias of keys, and
//! dropout of the weights.
//!
//! For query `i` and key `j` of one graph and head `h` of width `d = D / H`:
//! `w_ij = softmax over j (q_i . k_j / sqrt(d) + pair_ij + key_j)`, `y_i = sum over j of mask_ij w_ij v_j`. Nothing is
//! padded: a graph of n nodes costs n^2.

pub mod plain;

use burn::tensor::Tensor;

use crate::contract::RaggedGraph;

/// What is added to the logits of a pair of nodes, the same for both orders, per head.
///
/// # Shapes
/// `[H * P]` with `P` the sum of `n (n + 1) / 2` over the graphs. The graphs follow each other; a graph of n nodes
/// holds H triangles after one another; in a triangle, entry `i (i + 1) / 2 + j` belongs to the nodes `i >= j`.
#[derive(Clone, Debug)]
pub struct PairBias(pub Tensor<1>);

/// How [`attention`] is done.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of heads, H.
    pub heads: usize,
    /// Added to the logits of pairs.
    pub pairs: Option<PairBias>,
    /// Added to the logits of each key, `[N]`; may be minus infinity where a graph keeps a key that has more. It
    /// gets no gradient.
    pub keys: Option<Tensor<1>>,
    /// Probability in `[0, 1)` that a weight is set to 0 (others grow by `1 / (1 - rate)`), and the seed of the mask.
    pub dropout: Option<(f64, u64)>,
}

/// Attention of packed rows, each graph within itself.
///
/// # Shapes
/// `joined: [N, 3 D]`, the columns being queries, keys, values, each with its heads side by side; to `[N, D]`.
///
/// # Panics
/// If shapes do not agree.
pub fn attention(joined: Tensor<2>, graph: &RaggedGraph, options: Options) -> Tensor<2> {
    let [rows, columns] = joined.dims();
    assert_eq!(rows, graph.nodes, "rows of the queries and nodes of the graph");
    assert_eq!(columns % (3 * options.heads), 0, "{columns} columns for {} heads", options.heads);
    if let Some(keys) = &options.keys {
        assert_eq!(keys.dims(), [rows], "bias of the keys");
    }
    plain::attention(joined, graph, options)
}
