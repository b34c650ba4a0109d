//! Operations with two bodies: `plain` in stock Burn operations, which is the truth and runs on every device, and
//! a fused kernel for the CPU with a hand-written backward, chosen where the tensors live on Burn's `flex`.

use burn::tensor::Tensor;

pub mod attention;
mod bridge;
pub mod class_attention;
pub mod complete;
pub mod contrastive;
mod cpu;
pub mod dense;
pub mod dropout;
pub mod edge_conv;
pub mod jet_sum;
pub mod knn;
pub mod math;
pub mod neighbour_conv;
pub mod pair_embedding;
pub mod plain;
pub mod readout;
pub mod rows;

#[doc(hidden)]
pub use bridge::prefer_plain;
#[doc(hidden)]
pub use cpu::Path;

/// Parameters of one batch normalisation inside an operation.
#[derive(Clone, Debug)]
pub struct Norm {
    /// Scale, `[C]`.
    pub weight: Tensor<1>,
    /// Shift, `[C]`.
    pub bias: Tensor<1>,
    /// Running mean and variance without autodiff; `None` normalises with the batch's own statistics.
    pub running: Option<(Tensor<1>, Tensor<1>)>,
}

/// Statistics of a batch over its rows, without autodiff.
#[derive(Clone, Debug)]
pub struct Moments {
    /// `[C]`.
    pub mean: Tensor<1>,
    /// `[C]`, biased.
    pub variance: Tensor<1>,
    /// Number of rows they were taken over.
    pub rows: usize,
}
