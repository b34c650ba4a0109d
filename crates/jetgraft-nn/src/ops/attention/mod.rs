//! Multi-head attention within each graph of a packed batch (A. Vaswani et al., arXiv:1706.03762, section 3.2), with
//! an additive bias of pairs (Particle Transformer: arXiv:2202.03772, equation 5), an additive bias of keys, and
//! dropout of the weights.
//!
//! For query `i` and key `j` of one graph and head `h` of width `d = D / H`:
//! `w_ij = softmax over j (q_i . k_j / sqrt(d) + pair_ij + key_j)`, `y_i = sum over j of mask_ij w_ij v_j`. Nothing is
//! padded: a graph of n nodes costs n^2.

mod cpu;
pub(crate) mod kernels;
pub mod plain;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::bridge;
use super::cpu::Path;
use super::dropout::Dropout;
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
    if bridge::takes(&joined) {
        on_cpu(joined, graph, options)
    } else {
        plain::attention(joined, graph, options)
    }
}

fn on_cpu(joined: Tensor<2>, graph: &RaggedGraph, options: Options) -> Tensor<2> {
    let Options { heads, pairs, keys, dropout } = options;
    let mut lifted = joined.is_autodiff();
    let (joined, parent) = bridge::parts(joined);
    let (pairs, pairs_parent) = match pairs {
        Some(PairBias(pairs)) => {
            lifted |= pairs.is_autodiff();
            let (pairs, parent) = bridge::parts(pairs);
            (Some(pairs.to_contiguous()), Some(parent))
        }
        None => (None, None),
    };
    let inputs = cpu::Inputs {
        joined: joined.to_contiguous(),
        pairs,
        keys: keys.map(|keys| bridge::buffer(keys).to_contiguous()),
        offsets: bridge::indices(&graph.jet_offsets),
        heads,
        dropout: dropout.map(|(rate, seed)| Dropout::new(rate, seed)),
    };
    match pairs_parent {
        Some(pairs) => run(inputs, [parent, pairs], lifted),
        None => run(inputs, [parent], lifted),
    }
}

fn run<const N: usize>(inputs: cpu::Inputs, parents: [NodeGuard; N], lifted: bool) -> Tensor<2> {
    let y = cpu::forward(&inputs, Path::current());
    let width = inputs.width();
    let y = bridge::tensor(y, [inputs.joined.layout().shape()[0], width]);
    match AttentionBackward.prepare::<NoCheckpointing>(parents).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            Tensor::from_primitive::<Autodiff<Flex>>(prepared.finish(Arc::new(inputs), y))
        }
        OpsKind::UnTracked(prepared) if lifted => {
            Tensor::from_primitive::<Autodiff<Flex>>(prepared.finish(y))
        }
        OpsKind::UnTracked(_) => Tensor::from_primitive::<Flex>(y),
    }
}

#[derive(Debug)]
struct AttentionBackward;

impl<const N: usize> Backward<Flex, N> for AttentionBackward {
    type State = Arc<cpu::Inputs>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let inputs = &*ops.state;
        let waits = |parent: usize| ops.parents.get(parent).is_some_and(Option::is_some);
        let (joined, pairs) = cpu::backward(inputs, bridge::slice(&dy), waits(1), Path::current());
        let shape = inputs.joined.layout().shape();
        let length = pairs.len();
        let mut parents = ops.parents.iter();
        if let Some(Some(parent)) = parents.next() {
            grads.register::<Flex>(parent.id, bridge::tensor(joined, [shape[0], shape[1]]));
        }
        if let Some(Some(parent)) = parents.next() {
            grads.register::<Flex>(parent.id, bridge::tensor(pairs, [length]));
        }
    }
}
