//! EdgeConv on ragged graphs, as LundNet defines it (arXiv:2012.08526; EdgeConv: arXiv:1801.07829).
//!
//! For each directed edge `s -> r`:
//! `e = ReLU(BN2(ReLU(BN1((x_r - x_s) Theta + x_s Phi)) W))`, then for each node
//! `y = ReLU(mean over incoming e + S(x))`, with `S` the identity where the widths agree and else
//! `BN_S(x W_S)`. A node without an incoming edge has mean 0. Statistics run over all edges of the batch, and
//! for the shortcut over all nodes; without any edge the edge norms have no statistics and do not move.

pub mod plain;

use burn::tensor::Tensor;

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
pub fn edge_conv(x: Tensor<2>, graph: &RaggedGraph, parameters: EdgeConvParameters) -> EdgeConvOutput {
    plain::edge_conv(x, graph, parameters)
}
