//! Linear maps and sublayers in stock operations.

use burn::tensor::activation::relu as rectified;
use burn::tensor::{Tensor, TensorData};

use super::{LayerNorm, Linear};
use crate::layers::NORM_EPSILON;
use crate::ops::dropout::Dropout;

fn linear(x: Tensor<2>, map: Linear) -> Tensor<2> {
    x.matmul(map.weight) + map.bias.unsqueeze::<2>()
}

fn dropped(x: Tensor<2>, dropout: Option<Dropout>) -> Tensor<2> {
    let Some(dropout) = dropout else { return x };
    let [rows, columns] = x.dims();
    let mask = TensorData::new(dropout.matrix(rows, columns), [rows, columns]);
    let mask = Tensor::from_data(mask, &x.device());
    x * mask
}

/// Normalises rows; see [`LayerNorm`].
pub fn layer_norm(x: Tensor<2>, norm: LayerNorm) -> Tensor<2> {
    let centred = x.clone() - x.mean_dim(1);
    let variance = centred.clone().powi_scalar(2).mean_dim(1);
    let normalised = centred / (variance + NORM_EPSILON).sqrt();
    normalised * norm.weight.unsqueeze::<2>() + norm.bias.unsqueeze::<2>()
}

/// See [`super::dense`].
pub fn dense(x: Tensor<2>, map: Linear, relu: bool, dropout: Option<Dropout>) -> Tensor<2> {
    let y = linear(x, map);
    dropped(if relu { rectified(y) } else { y }, dropout)
}

/// See [`super::dense_add_norm`].
pub fn dense_add_norm(
    x: Tensor<2>,
    map: Linear,
    dropout: Option<Dropout>,
    residual: Tensor<2>,
    norm: LayerNorm,
) -> Tensor<2> {
    layer_norm(residual + dropped(linear(x, map), dropout), norm)
}

/// See [`super::feed_forward_add_norm`].
pub fn feed_forward_add_norm(
    x: Tensor<2>,
    hidden: Linear,
    hidden_dropout: Option<Dropout>,
    map: Linear,
    dropout: Option<Dropout>,
    norm: LayerNorm,
) -> Tensor<2> {
    let h = dense(x.clone(), hidden, true, hidden_dropout);
    dense_add_norm(h, map, dropout, x, norm)
}
