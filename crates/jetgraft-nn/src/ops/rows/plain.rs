//! Chains in stock operations.

use burn::tensor::activation::{gelu, relu};
use burn::tensor::{Tensor, TensorData};

use super::{Activation, Step};
use crate::layers::NORM_EPSILON;
use crate::ops::dropout::Dropout;
use crate::ops::plain::like;

/// Layer normalisation of rows.
pub fn layer_norm(x: Tensor<2>, weight: Tensor<1>, bias: Tensor<1>) -> Tensor<2> {
    let mean = x.clone().mean_dim(1);
    let centred = x - mean;
    let variance = centred.clone().powi_scalar(2).mean_dim(1);
    centred / (variance + NORM_EPSILON).sqrt() * weight.unsqueeze::<2>() + bias.unsqueeze::<2>()
}

/// See [`super::chain`].
pub fn chain(x: Tensor<2>, steps: Vec<Step>) -> Tensor<2> {
    steps.into_iter().fold(x, |x, step| match step {
        Step::Norm { weight, bias } => layer_norm(x, weight, bias),
        Step::Linear { weight, bias, activation } => {
            let y = x.matmul(weight) + bias.unsqueeze::<2>();
            match activation {
                Activation::None => y,
                Activation::Relu => relu(y),
                Activation::Gelu => gelu(y),
            }
        }
        Step::Scale(scale) => x * scale.unsqueeze::<2>(),
        Step::Dropout { rate, seed } => {
            let [rows, columns] = x.dims();
            let mask = Dropout::new(rate, seed).matrix(rows, columns);
            let device = x.device().inner();
            let mask = Tensor::from_data(TensorData::new(mask, [rows, columns]), &device);
            let mask = like(mask, &x);
            x * mask
        }
        Step::Add { rows, scale: None } => x + rows,
        Step::Add { rows, scale: Some(scale) } => x + rows * scale.unsqueeze::<2>(),
    })
}
