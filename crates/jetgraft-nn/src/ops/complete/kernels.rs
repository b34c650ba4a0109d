//! Loops of the layers on complete graphs, over the graphs of one tile, compiled per instruction path.

use super::cpu::Ready;
use crate::ops::cpu::{Affine, kernels, relu};

/// Pairs of nodes of a graph, from its offsets.
pub fn pairs(range: &[i32]) -> usize {
    let size = (range[1] - range[0]) as usize;
    size * size
}

kernels! {
    /// Norm and ReLU.
    fn normed(x: &[f32], norm: Affine<'_>, out: &mut [f32]) {
        let c = norm.mean.len();
        let (mean, scale, bias) = (&norm.mean[..c], &norm.scale[..c], &norm.bias[..c]);
        for (x, out) in x.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
            for j in 0..c {
                out[j] = relu((x[j] - mean[j]) * scale[j] + bias[j]);
            }
        }
    }

    /// Mean over the rows of each graph.
    fn means(x: Ready<'_>, c: usize, offsets: &[i32], out: &mut [f32]) {
        for (range, out) in offsets.windows(2).zip(out.chunks_exact_mut(c)) {
            out.fill(0.0);
            for row in range[0] - offsets[0]..range[1] - offsets[0] {
                let x = &x.data[row as usize * x.stride..][..c];
                for j in 0..c {
                    out[j] += x[j];
                }
            }
            let share = 1.0 / (range[1] - range[0]) as f32;
            for value in out {
                *value *= share;
            }
        }
    }

    /// Residual plus the message of each row's graph.
    fn spread(messages: &[f32], residual: Ready<'_>, c: usize, offsets: &[i32], out: &mut [f32]) {
        for (range, message) in offsets.windows(2).zip(messages.chunks_exact(c)) {
            for row in range[0] - offsets[0]..range[1] - offsets[0] {
                let x = &residual.data[row as usize * residual.stride..][..c];
                let out = &mut out[row as usize * c..][..c];
                for j in 0..c {
                    out[j] = message[j] + x[j];
                }
            }
        }
    }

    /// Sum over the rows of each graph.
    fn sums(d: &[f32], c: usize, offsets: &[i32], out: &mut [f32]) {
        for (range, out) in offsets.windows(2).zip(out.chunks_exact_mut(c)) {
            out.fill(0.0);
            for row in range[0] - offsets[0]..range[1] - offsets[0] {
                let d = &d[row as usize * c..][..c];
                for j in 0..c {
                    out[j] += d[j];
                }
            }
        }
    }

    /// `out += d`.
    fn add(d: &[f32], out: &mut [f32]) {
        for (out, d) in out.iter_mut().zip(d) {
            *out += d;
        }
    }

    /// Through the ReLU, and the sums over rows for the norm: `d = 0` where the normed value is not above 0; sums of `d`
    /// and of `d (x - mean)`.
    fn relu_backward(x: &[f32], norm: Affine<'_>, d: &mut [f32], first: &mut [f32], second: &mut [f32]) {
        let c = norm.mean.len();
        let (mean, scale, bias) = (&norm.mean[..c], &norm.scale[..c], &norm.bias[..c]);
        let (first, second) = (&mut first[..c], &mut second[..c]);
        for (x, d) in x.chunks_exact(c).zip(d.chunks_exact_mut(c)) {
            for j in 0..c {
                let centred = x[j] - mean[j];
                let value = if centred * scale[j] + bias[j] > 0.0 { d[j] } else { 0.0 };
                d[j] = value;
                first[j] += value;
                second[j] += value * centred;
            }
        }
    }

    /// Through the norm: `d = k0 d + k1 (x - mean) + k2`.
    fn norm_backward(x: &[f32], mean: &[f32], k0: &[f32], k1: &[f32], k2: &[f32], d: &mut [f32]) {
        let c = mean.len();
        let (k0, k1, k2) = (&k0[..c], &k1[..c], &k2[..c]);
        for (x, d) in x.chunks_exact(c).zip(d.chunks_exact_mut(c)) {
            for j in 0..c {
                d[j] = k0[j] * d[j] + k1[j] * (x[j] - mean[j]) + k2[j];
            }
        }
    }

    /// Mean over each graph's rows after norm and ReLU.
    fn normed_means(x: &[f32], norm: Affine<'_>, offsets: &[i32], out: &mut [f32]) {
        let c = norm.mean.len();
        let (mean, scale, bias) = (&norm.mean[..c], &norm.scale[..c], &norm.bias[..c]);
        for (range, out) in offsets.windows(2).zip(out.chunks_exact_mut(c)) {
            out.fill(0.0);
            for row in range[0] - offsets[0]..range[1] - offsets[0] {
                let x = &x[row as usize * c..][..c];
                for j in 0..c {
                    out[j] += relu((x[j] - mean[j]) * scale[j] + bias[j]);
                }
            }
            let share = 1.0 / (range[1] - range[0]) as f32;
            for value in out {
                *value *= share;
            }
        }
    }

    /// Each row's share of its graph's gradient.
    fn shares(d: &[f32], c: usize, offsets: &[i32], out: &mut [f32]) {
        for (range, d) in offsets.windows(2).zip(d.chunks_exact(c)) {
            let share = 1.0 / (range[1] - range[0]) as f32;
            for row in range[0] - offsets[0]..range[1] - offsets[0] {
                let out = &mut out[row as usize * c..][..c];
                for j in 0..c {
                    out[j] = d[j] * share;
                }
            }
        }
    }
}
