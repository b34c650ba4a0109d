//! Pieces of the plain bodies, in stock Burn operations.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use super::{Moments, Norm};
use crate::contract::RaggedGraph;
use crate::layers::NORM_EPSILON;

/// `(x - mean) / sqrt(variance + eps) * weight + bias` over rows, and the batch's moments where they were used.
///
/// A batch without rows has no statistics and comes back as it is.
pub fn batch_norm(x: Tensor<2>, norm: &Norm) -> (Tensor<2>, Option<Moments>) {
    let [rows, columns] = x.dims();
    if rows == 0 {
        return (x, None);
    }
    let (mean, variance, moments) = match &norm.running {
        Some((mean, variance)) => {
            let lift = |value: &Tensor<1>| like(value.clone(), &x).reshape([1, columns]);
            (lift(mean), lift(variance), None)
        }
        None => {
            let mean = x.clone().mean_dim(0);
            let variance = (x.clone() - mean.clone()).powi_scalar(2).mean_dim(0);
            let flat = |value: &Tensor<2>| value.clone().without_autodiff().reshape([columns]);
            let moments = Moments { mean: flat(&mean), variance: flat(&variance), rows };
            (mean, variance, Some(moments))
        }
    };
    let scale = norm.weight.clone().reshape([1, columns]) / (variance + NORM_EPSILON).sqrt();
    ((x - mean) * scale + norm.bias.clone().reshape([1, columns]), moments)
}

/// Brings a plain tensor into the autodiff context of `other`, where it has one.
pub fn like<const D: usize, const E: usize>(value: Tensor<D>, other: &Tensor<E>) -> Tensor<D> {
    if other.is_autodiff() && !value.is_autodiff() { Tensor::from_inner(value) } else { value }
}

/// The row of each entry of compressed rows: `[0, 2, 3]` gives `[0, 0, 1]`.
pub fn rows_of(offsets: &Tensor<1, Int>, rows: usize, entries: usize) -> Tensor<1, Int> {
    // A one where each row but the first begins, summed up.
    let device = offsets.device();
    let begins = offsets.clone().slice(1..rows);
    let ones = Tensor::<1, Int>::ones([rows - 1], &device);
    let marks = Tensor::<1, Int>::zeros([entries + 1], &device);
    let marks = if rows > 1 { marks.select_assign(0, begins, ones, IndexingUpdateOp::Add) } else { marks };
    marks.cumsum(0).slice(0..entries)
}

/// Mean over the entries of each compressed row, 0 for an empty row.
///
/// # Shapes
/// `values: [entries, C]` to `[rows, C]`.
pub fn row_mean(values: Tensor<2>, offsets: &Tensor<1, Int>, rows: usize) -> Tensor<2> {
    let [entries, columns] = values.dims();
    let device = values.device();
    let zeros = Tensor::zeros([rows, columns], &device);
    if entries == 0 {
        return zeros;
    }
    let counts = offsets.clone().slice(1..rows + 1) - offsets.clone().slice(0..rows);
    let counts = like(counts.float().clamp_min(1.0), &values).reshape([rows, 1]);
    let sums = zeros.select_assign(0, rows_of(offsets, rows, entries), values, IndexingUpdateOp::Add);
    sums / counts
}

/// Mean over the nodes of each jet.
///
/// # Shapes
/// `[N, C]` to `[B, C]`.
pub fn jet_mean(values: Tensor<2>, graph: &RaggedGraph) -> Tensor<2> {
    row_mean(values, &graph.jet_offsets, graph.jets)
}
