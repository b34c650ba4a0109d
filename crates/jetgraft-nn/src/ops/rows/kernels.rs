//! Loops over the rows of one tile, compiled per instruction path.

use crate::layers::NORM_EPSILON;
use crate::ops::cpu::{kernels, relu};
use crate::ops::dropout::Dropout;
use crate::ops::math::{gelu, gelu_slope};

/// Partial sums of a row: always as many, so that every instruction path adds in the same order.
const LANES: usize = 16;

/// Adds up partial sums, always in the same order.
#[inline(always)]
fn total(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// Sum of `of(x)` over a row.
#[inline(always)]
fn sum(x: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for lane in 0..LANES {
            lanes[lane] += of(x[lane]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += of(*x);
    }
    total(lanes)
}

/// Sums of `first` and `second` of three rows' entries.
#[inline(always)]
fn sums(
    [x, y, z]: [&[f32]; 3],
    first: impl Fn(f32, f32, f32) -> f32,
    second: impl Fn(f32, f32, f32) -> f32,
) -> (f32, f32) {
    let (mut a, mut b) = ([0f32; LANES], [0f32; LANES]);
    let ((x, x_rest), (y, y_rest), (z, z_rest)) =
        (x.as_chunks::<LANES>(), y.as_chunks::<LANES>(), z.as_chunks::<LANES>());
    for ((x, y), z) in x.iter().zip(y).zip(z) {
        for lane in 0..LANES {
            a[lane] += first(x[lane], y[lane], z[lane]);
            b[lane] += second(x[lane], y[lane], z[lane]);
        }
    }
    for (lane, ((x, y), z)) in x_rest.iter().zip(y_rest).zip(z_rest).enumerate() {
        a[lane] += first(*x, *y, *z);
        b[lane] += second(*x, *y, *z);
    }
    (total(a), total(b))
}

/// Mean and `1 / sqrt(variance + eps)` of a row.
#[inline(always)]
pub fn row_moments(x: &[f32]) -> (f32, f32) {
    let share = 1.0 / x.len() as f32;
    let mean = sum(x, |x| x) * share;
    let variance = sum(x, |x| (x - mean) * (x - mean)) * share;
    (mean, 1.0 / (variance + NORM_EPSILON as f32).sqrt())
}

kernels! {
    /// Layer normalisation.
    fn norm(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
        let c = weight.len();
        let bias = &bias[..c];
        for (x, out) in x.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
            let (mean, inverse) = row_moments(x);
            for j in 0..c {
                out[j] = (x[j] - mean) * inverse * weight[j] + bias[j];
            }
        }
    }

    /// Gradient of layer normalisation at `x`, into `out`; adds to the gradients of its parameters.
    fn norm_gradient(
        d: &[f32],
        x: &[f32],
        weight: &[f32],
        out: &mut [f32],
        d_weight: &mut [f32],
        d_bias: &mut [f32],
    ) {
        let c = weight.len();
        let (d_weight, d_bias) = (&mut d_weight[..c], &mut d_bias[..c]);
        let share = 1.0 / c as f32;
        for ((d, x), out) in d.chunks_exact(c).zip(x.chunks_exact(c)).zip(out.chunks_exact_mut(c)) {
            let (mean, inverse) = row_moments(x);
            let (first, second) =
                sums([d, weight, x], |d, w, _| d * w, |d, w, x| d * w * ((x - mean) * inverse));
            let (first, second) = (first * share, second * share);
            for j in 0..c {
                let normed = (x[j] - mean) * inverse;
                out[j] = (d[j] * weight[j] - first - normed * second) * inverse;
                d_weight[j] += d[j] * normed;
                d_bias[j] += d[j];
            }
        }
    }

    /// Every row becomes `bias`.
    fn repeat(bias: &[f32], out: &mut [f32]) {
        for out in out.chunks_exact_mut(bias.len()) {
            out.copy_from_slice(bias);
        }
    }

    /// `out = gelu(z)`.
    fn gelu_of(z: &[f32], out: &mut [f32]) {
        for (out, z) in out.iter_mut().zip(z) {
            *out = gelu(*z);
        }
    }

    /// `z = gelu(z)`.
    fn gelu_here(z: &mut [f32]) {
        for z in z {
            *z = gelu(*z);
        }
    }

    /// `out = relu(z)`.
    fn relu_of(z: &[f32], out: &mut [f32]) {
        for (out, z) in out.iter_mut().zip(z) {
            *out = relu(*z);
        }
    }

    /// `z = relu(z)`.
    fn relu_here(z: &mut [f32]) {
        for z in z {
            *z = relu(*z);
        }
    }

    /// `d *= gelu'(z)`.
    fn gelu_gradient(z: &[f32], d: &mut [f32]) {
        for (d, z) in d.iter_mut().zip(z) {
            *d *= gelu_slope(*z);
        }
    }

    /// `d = 0` where `z` is not positive.
    fn relu_gradient(z: &[f32], d: &mut [f32]) {
        for (d, z) in d.iter_mut().zip(z) {
            *d = if *z > 0.0 { *d } else { 0.0 };
        }
    }

    /// `sums += d` over rows.
    fn add_rows(d: &[f32], sums: &mut [f32]) {
        let c = sums.len();
        for d in d.chunks_exact(c) {
            for j in 0..c {
                sums[j] += d[j];
            }
        }
    }

    /// `sums += d * x` over rows.
    fn add_products(d: &[f32], x: &[f32], sums: &mut [f32]) {
        let c = sums.len();
        for (d, x) in d.chunks_exact(c).zip(x.chunks_exact(c)) {
            for j in 0..c {
                sums[j] += d[j] * x[j];
            }
        }
    }

    /// `out = d * scale`.
    fn scale(d: &[f32], scale: &[f32], out: &mut [f32]) {
        let c = scale.len();
        for (d, out) in d.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
            for j in 0..c {
                out[j] = d[j] * scale[j];
            }
        }
    }

    /// `d *= scale`.
    fn scale_here(scale: &[f32], d: &mut [f32]) {
        let c = scale.len();
        for d in d.chunks_exact_mut(c) {
            for j in 0..c {
                d[j] *= scale[j];
            }
        }
    }

    /// Multiplies rows from number `first` on by their mask.
    fn dropout(mask: Dropout, first: usize, c: usize, d: &mut [f32]) {
        for (row, d) in d.chunks_exact_mut(c).enumerate() {
            let row = mask.row(first + row);
            for (j, d) in d.iter_mut().enumerate() {
                *d *= row.factor(j);
            }
        }
    }

    /// `out += x`.
    fn add(x: &[f32], out: &mut [f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out += *x;
        }
    }

    /// `out += x * scale`.
    fn add_scaled(x: &[f32], scale: &[f32], out: &mut [f32]) {
        let c = scale.len();
        for (x, out) in x.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
            for j in 0..c {
                out[j] += x[j] * scale[j];
            }
        }
    }
}
