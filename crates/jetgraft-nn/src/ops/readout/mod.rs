//! From node features to one row per jet: `mean over nodes of BN(ReLU(sum_i x_i W_i + b))`, where the `x_i` are
//! columns of one wide input that need not be joined.

pub mod plain;

use burn::tensor::Tensor;

use super::{Moments, Norm};
use crate::contract::RaggedGraph;

/// The most pieces that one readout takes.
pub const MAX_PIECES: usize = 16;

/// Linear map, ReLU, normalisation over nodes, mean over the nodes of each jet.
///
/// # Shapes
/// `pieces: [N, I_i]`, `weight: [sum of I_i, C]`, `bias: [C]` to `[B, C]`.
pub fn readout(
    pieces: Vec<Tensor<2>>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    norm: Norm,
    graph: &RaggedGraph,
) -> (Tensor<2>, Option<Moments>) {
    plain::readout(pieces, weight, bias, norm, graph)
}
