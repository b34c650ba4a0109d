//! Elementwise loops of linear maps and sublayers.

use crate::layers::NORM_EPSILON;
use crate::ops::cpu::{kernels, relu};
use crate::ops::dropout::Dropout;

/// Independent sums along a row: their number is part of the result's definition, not of the instruction path.
const LANES: usize = 16;

/// Sum over a row of what `value` gives, in a fixed order: lane by lane, then the lanes in pairs.
#[inline(always)]
fn row_sum(columns: usize, value: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let whole = columns - columns % LANES;
    let mut at = 0;
    while at < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += value(at + lane);
        }
        at += LANES;
    }
    for (lane, at) in (whole..columns).enumerate() {
        lanes[lane] += value(at);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

kernels! {
    /// `x = dropout(relu(x + bias))`; the first row is number `first` of the mask.
    fn bias_activation(
        x: &mut [f32],
        bias: &[f32],
        rectify: bool,
        dropout: Option<Dropout>,
        first: usize,
    ) {
        let c = bias.len();
        for (row, x) in x.chunks_exact_mut(c.max(1)).enumerate() {
            match (rectify, dropout) {
                (false, None) => {
                    for j in 0..c {
                        x[j] += bias[j];
                    }
                }
                (true, None) => {
                    for j in 0..c {
                        x[j] = relu(x[j] + bias[j]);
                    }
                }
                (rectify, Some(dropout)) => {
                    let mask = dropout.row(first + row);
                    for j in 0..c {
                        let value = x[j] + bias[j];
                        x[j] = if rectify { relu(value) } else { value } * mask.factor(j);
                    }
                }
            }
        }
    }

    /// `x = LayerNorm(residual + dropout(x + bias))`; what is normalised before scale and shift goes to `normalised`
    /// unless that is empty, and `1 / sqrt(variance + eps)` to `inverse`.
    fn add_norm(
        x: &mut [f32],
        bias: &[f32],
        dropout: Option<Dropout>,
        first: usize,
        residual: &[f32],
        stride: usize,
        scale: &[f32],
        shift: &[f32],
        normalised: &mut [f32],
        inverse: &mut [f32],
    ) {
        let c = bias.len();
        let (scale, shift) = (&scale[..c], &shift[..c]);
        let share = 1.0 / c.max(1) as f32;
        for (row, x) in x.chunks_exact_mut(c.max(1)).enumerate() {
            let residual = &residual[row * stride..][..c];
            match dropout {
                None => {
                    for j in 0..c {
                        x[j] = residual[j] + (x[j] + bias[j]);
                    }
                }
                Some(dropout) => {
                    let mask = dropout.row(first + row);
                    for j in 0..c {
                        x[j] = residual[j] + (x[j] + bias[j]) * mask.factor(j);
                    }
                }
            }
            let mean = row_sum(c, |j| x[j]) * share;
            for value in &mut *x {
                *value -= mean;
            }
            let variance = row_sum(c, |j| x[j] * x[j]) * share;
            let root = 1.0 / (variance + NORM_EPSILON as f32).sqrt();
            inverse[row] = root;
            if normalised.is_empty() {
                for j in 0..c {
                    x[j] = x[j] * root * scale[j] + shift[j];
                }
            } else {
                let normalised = &mut normalised[row * c..][..c];
                for j in 0..c {
                    normalised[j] = x[j] * root;
                    x[j] = normalised[j] * scale[j] + shift[j];
                }
            }
        }
    }

    /// Backward of a layer norm: the gradient before it goes to `out`; gradients of scale and shift are added up.
    fn norm_gradient(
        dy: &[f32],
        normalised: &[f32],
        inverse: &[f32],
        scale: &[f32],
        out: &mut [f32],
        scale_sum: &mut [f32],
        shift_sum: &mut [f32],
    ) {
        let c = scale.len();
        let share = 1.0 / c.max(1) as f32;
        let (scale_sum, shift_sum) = (&mut scale_sum[..c], &mut shift_sum[..c]);
        for (row, out) in out.chunks_exact_mut(c.max(1)).enumerate() {
            let (dy, normalised) = (&dy[row * c..][..c], &normalised[row * c..][..c]);
            let root = inverse[row];
            for j in 0..c {
                out[j] = dy[j] * scale[j];
                scale_sum[j] += dy[j] * normalised[j];
                shift_sum[j] += dy[j];
            }
            let mean = row_sum(c, |j| out[j]) * share;
            let slope = row_sum(c, |j| out[j] * normalised[j]) * share;
            for j in 0..c {
                out[j] = (out[j] - mean - normalised[j] * slope) * root;
            }
        }
    }

    /// Gradient before bias, ReLU and dropout: `out = d` where the output `y` (empty without a ReLU) is positive, times
    /// the mask. The sum over rows is added to `sum`.
    fn activation_gradient(
        d: &[f32],
        y: &[f32],
        dropout: Option<Dropout>,
        first: usize,
        out: &mut [f32],
        sum: &mut [f32],
    ) {
        let c = sum.len();
        let keep = dropout.map_or(1.0, |dropout| dropout.keep());
        for (row, out) in out.chunks_exact_mut(c.max(1)).enumerate() {
            let d = &d[row * c..][..c];
            match dropout {
                // What dropout set to 0 is not positive either.
                _ if !y.is_empty() => {
                    let y = &y[row * c..][..c];
                    for j in 0..c {
                        let value = if y[j] > 0.0 { d[j] * keep } else { 0.0 };
                        out[j] = value;
                        sum[j] += value;
                    }
                }
                None => {
                    out[..c].copy_from_slice(&d[..c]);
                    for j in 0..c {
                        sum[j] += d[j];
                    }
                }
                Some(dropout) => {
                    let mask = dropout.row(first + row);
                    for j in 0..c {
                        let value = d[j] * mask.factor(j);
                        out[j] = value;
                        sum[j] += value;
                    }
                }
            }
        }
    }

    /// As `activation_gradient` of a ReLU, in place.
    fn hidden_gradient(d: &mut [f32], y: &[f32], keep: f32, sum: &mut [f32]) {
        let c = sum.len();
        for (d, y) in d.chunks_exact_mut(c.max(1)).zip(y.chunks_exact(c.max(1))) {
            for j in 0..c {
                let value = if y[j] > 0.0 { d[j] * keep } else { 0.0 };
                d[j] = value;
                sum[j] += value;
            }
        }
    }

    /// Adds the rows up.
    fn add_rows(x: &[f32], sum: &mut [f32]) {
        let c = sum.len();
        for x in x.chunks_exact(c.max(1)) {
            for j in 0..c {
                sum[j] += x[j];
            }
        }
    }
}
