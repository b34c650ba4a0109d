//! Attention of one token per graph to itself and the graph's nodes (H. Touvron et al., arXiv:2103.17239, section 3;
//! Particle Transformer: arXiv:2202.03772), with keys and values that are linear in normalised rows.
//!
//! With `u` the layer normalisation of a row, a key is `W_k u + b_k`: its product with a query `q` is
//! `(W_k^T q) . u` and a term that is the same for all keys, which the softmax takes out. So is the sum of values
//! `W_v (sum of w u) + b_v`. What is left to do per node, and is done here, needs no product of matrices with the width
//! of the network on both sides: `w_k = softmax over k (r_h . u_k)`, `y_h = sum over k of w_k u_k`.

mod cpu;
pub mod plain;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::bridge;
use super::cpu::Path;
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
    if !bridge::takes(&nodes) || !bridge::takes(&queries) {
        return plain::class_attention(tokens, nodes, weight, bias, queries, graph);
    }
    let mut lifted = false;
    fn part<const D: usize>(tensor: Tensor<D>, lifted: &mut bool) -> (FlexTensor, NodeGuard) {
        *lifted |= tensor.is_autodiff();
        let (buffer, parent) = bridge::parts(tensor);
        (buffer.to_contiguous(), parent)
    }
    let (tokens, tokens_parent) = part(tokens, &mut lifted);
    let (nodes, nodes_parent) = part(nodes, &mut lifted);
    let (weight, weight_parent) = part(weight, &mut lifted);
    let (bias, bias_parent) = part(bias, &mut lifted);
    let (queries, queries_parent) = part(queries, &mut lifted);
    let offsets = bridge::indices(&graph.jet_offsets);
    let inputs = cpu::Inputs { tokens, nodes, weight, bias, queries, offsets };
    let y = bridge::tensor(cpu::forward(&inputs, Path::current()), [graph.jets, inputs.queries_width()]);
    let parents = [tokens_parent, nodes_parent, weight_parent, bias_parent, queries_parent];
    match ClassBackward.prepare::<NoCheckpointing>(parents).compute_bound().stateful() {
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
struct ClassBackward;

impl Backward<Flex, 5> for ClassBackward {
    type State = Arc<cpu::Inputs>;

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let inputs = &*ops.state;
        let found = cpu::backward(inputs, bridge::slice(&dy), Path::current());
        let (c, width) = (inputs.width(), inputs.queries_width());
        let [tokens, nodes, weight, bias, queries] = ops.parents;
        for (parent, values, columns) in
            [(tokens, found.tokens, c), (nodes, found.nodes, c), (queries, found.queries, width)]
        {
            let rows = values.len() / columns;
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, bridge::tensor(values, [rows, columns]));
            }
        }
        for (parent, values) in [(weight, found.weight), (bias, found.bias)] {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, bridge::tensor(values, [c]));
            }
        }
    }
}
