//! The readout in stock operations.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use crate::contract::RaggedGraph;
use crate::ops::plain::{batch_norm, jet_mean};
use crate::ops::{Moments, Norm};

/// See [`super::readout`].
pub fn readout(
    pieces: Vec<Tensor<2>>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    norm: Norm,
    graph: &RaggedGraph,
) -> (Tensor<2>, Option<Moments>) {
    let joined = Tensor::cat(pieces, 1).matmul(weight) + bias.unsqueeze::<2>();
    let (normalised, moments) = batch_norm(relu(joined), &norm);
    (jet_mean(normalised, graph), moments)
}
