//! Loops of the layers on complete graphs, over the graphs of one tile, compiled per instruction path.
//!
//! Sums along a row are kept in sixteen lanes that are added up in a fixed tree, the same on every path.

use super::NEGATIVE_SLOPE;
use super::cpu::Ready;
use crate::ops::cpu::{Affine, kernels, relu};

/// Lanes of a sum along a row.
const LANES: usize = 16;

type Lanes = [f32; LANES];

/// Pairs of nodes of a graph, from its offsets.
pub fn pairs(range: &[i32]) -> usize {
    let size = (range[1] - range[0]) as usize;
    size * size
}

#[inline(always)]
fn lanes(values: &[f32], at: usize) -> &Lanes {
    match values[at..at + LANES].try_into() {
        Ok(lanes) => lanes,
        Err(_) => unreachable!("cut to length"),
    }
}

#[inline(always)]
fn add_up(mut sums: Lanes) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

/// `sum a LeakyReLU(x + y)`.
#[inline(always)]
fn score(x: &[f32], y: &[f32], a: &[f32]) -> f32 {
    let width = a.len();
    let (x, y) = (&x[..width], &y[..width]);
    let mut sums = [0f32; LANES];
    let whole = width / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let (x, y, a) = (lanes(x, at), lanes(y, at), lanes(a, at));
        for lane in 0..LANES {
            sums[lane] += a[lane] * leaky(x[lane] + y[lane]);
        }
    }
    for at in whole..width {
        sums[at - whole] += a[at] * leaky(x[at] + y[at]);
    }
    add_up(sums)
}

/// `sum x y`.
#[inline(always)]
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let width = x.len();
    let y = &y[..width];
    let mut sums = [0f32; LANES];
    let whole = width / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let (x, y) = (lanes(x, at), lanes(y, at));
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    for at in whole..width {
        sums[at - whole] += x[at] * y[at];
    }
    add_up(sums)
}

#[inline(always)]
fn leaky(x: f32) -> f32 {
    let low = NEGATIVE_SLOPE * x;
    if x > 0.0 { x } else { low }
}

/// `exp(x)` for `x <= 0`, to 2e-7 relative; below -87 it stays at `exp(-87)`, about 2e-38. A NaN stays one.
///
/// `exp(x) = 2^k exp(r)` with `|r| <= ln 2 / 2`, and the Taylor series to the seventh power, whose rest is 5e-9.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding it rounds to a whole number, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: the first has few bits, so that its product with k is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = x - k * LN_2_HIGH - k * LN_2_LOW;
    let mut series = 1.0 / 5040.0;
    series = series * r + 1.0 / 720.0;
    series = series * r + 1.0 / 120.0;
    series = series * r + 1.0 / 24.0;
    series = series * r + 1.0 / 6.0;
    series = series * r + 0.5;
    series = series * r + 1.0;
    series = series * r + 1.0;
    let power = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32).wrapping_add(127);
    series * f32::from_bits((power << 23) as u32)
}

/// Scores of one graph's heads to weights: softmax over the senders of each receiver, `n` in a row.
#[inline(always)]
fn softmax(scores: &mut [f32], n: usize) {
    for row in scores.chunks_exact_mut(n) {
        let mut largest = row[0];
        for &score in &row[1..] {
            largest = if score > largest { score } else { largest };
        }
        for score in row {
            *score -= largest;
        }
    }
    for score in scores.iter_mut() {
        *score = exp(*score);
    }
    for row in scores.chunks_exact_mut(n) {
        let mut sum = 0.0;
        for &value in row.iter() {
            sum += value;
        }
        let share = 1.0 / sum;
        for value in row {
            *value *= share;
        }
    }
}

/// `out = start + sum_j weights_j rows_j` over columns of a head; rows and output begin at the head's first column.
#[inline(always)]
fn combine(weights: &[f32], rows: &[f32], stride: usize, start: &[f32], out: &mut [f32]) {
    let width = out.len();
    let start = &start[..width];
    let whole = width / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let mut sums = *lanes(start, at);
        for (row, &weight) in weights.iter().enumerate() {
            let row = lanes(rows, row * stride + at);
            for lane in 0..LANES {
                sums[lane] += weight * row[lane];
            }
        }
        out[at..at + LANES].copy_from_slice(&sums);
    }
    for at in whole..width {
        let mut sum = start[at];
        for (row, &weight) in weights.iter().enumerate() {
            sum += weight * rows[row * stride + at];
        }
        out[at] = sum;
    }
}

/// What a head's backward reads: `n` nodes, columns of one head in rows `stride` apart.
struct HeadBackward<'a> {
    n: usize,
    stride: usize,
    /// `u`, from the head's first column.
    u: &'a [f32],
    /// Gradient of the messages.
    d: &'a [f32],
    /// `[n, n]`: weight that receiver i gives to sender j, at `j n + i`.
    weights: &'a [f32],
    /// `[n, n]`, symmetric: gradients of the scores of (i, j) and (j, i), added.
    scores: &'a [f32],
    /// The same times the negative slope.
    low: &'a [f32],
}

impl HeadBackward<'_> {
    /// Gradient of `u` in `LANES` columns for sender j, and the part of it through the scores before the head's vector.
    #[inline(always)]
    fn lanes(&self, j: usize, at: usize) -> (Lanes, Lanes) {
        let n = self.n;
        let (mut sums, mut through) = ([0f32; LANES], [0f32; LANES]);
        let here = lanes(self.u, j * self.stride + at);
        let row = j * n..j * n + n;
        let (weights, scores, low) = (&self.weights[row.clone()], &self.scores[row.clone()], &self.low[row]);
        for i in 0..n {
            let there = lanes(self.u, i * self.stride + at);
            let d = lanes(self.d, i * self.stride + at);
            let (weight, score, low) = (weights[i], scores[i], low[i]);
            for lane in 0..LANES {
                sums[lane] += weight * d[lane];
                through[lane] += if here[lane] + there[lane] > 0.0 { score } else { low };
            }
        }
        (sums, through)
    }

    /// The same for one column.
    #[inline(always)]
    fn column(&self, j: usize, at: usize) -> (f32, f32) {
        let n = self.n;
        let (mut sum, mut through) = (0f32, 0f32);
        let here = self.u[j * self.stride + at];
        for i in 0..n {
            sum += self.weights[j * n + i] * self.d[i * self.stride + at];
            let there = self.u[i * self.stride + at];
            through += if here + there > 0.0 { self.scores[j * n + i] } else { self.low[j * n + i] };
        }
        (sum, through)
    }
}

/// Gradients of the scores of one head, `(i, j)` and `(j, i)` added; the same times the slope; the weights transposed.
#[inline(always)]
fn score_gradients(
    n: usize,
    stride: usize,
    width: usize,
    u: &[f32],
    d: &[f32],
    weights: &[f32],
    scores: &mut [f32],
    low: &mut [f32],
    turned: &mut [f32],
) {
    for i in 0..n {
        let weights = &weights[i * n..i * n + n];
        let row = &mut low[i * n..i * n + n];
        let d = &d[i * stride..i * stride + width];
        let mut mean = 0.0;
        for j in 0..n {
            row[j] = dot(d, &u[j * stride..j * stride + width]);
            mean += weights[j] * row[j];
        }
        for j in 0..n {
            row[j] = weights[j] * (row[j] - mean);
            turned[j * n + i] = weights[j];
        }
    }
    for i in 0..n {
        for j in 0..n {
            scores[i * n + j] = low[i * n + j] + low[j * n + i];
        }
    }
    for (low, score) in low.iter_mut().zip(scores) {
        *low = NEGATIVE_SLOPE * *score;
    }
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

    /// Attention weights of a tile, and residual plus messages.
    fn attend(
        u: &[f32],
        attention: &[f32],
        heads: usize,
        offsets: &[i32],
        residual: Ready<'_>,
        weights: &mut [f32],
        out: &mut [f32],
    ) {
        let c = attention.len();
        let width = c / heads;
        let mut rest = weights;
        for range in offsets.windows(2) {
            let n = (range[1] - range[0]) as usize;
            let first = (range[0] - offsets[0]) as usize;
            let (weights, after) = std::mem::take(&mut rest).split_at_mut(n * n * heads);
            rest = after;
            let u = &u[first * c..(first + n) * c];
            for head in 0..heads {
                let a = &attention[head * width..head * width + width];
                let scores = &mut weights[head * n * n..(head + 1) * n * n];
                for i in 0..n {
                    for j in i..n {
                        let value = score(&u[i * c + head * width..], &u[j * c + head * width..], a);
                        scores[i * n + j] = value;
                        scores[j * n + i] = value;
                    }
                }
            }
            softmax(weights, n);
            for i in 0..n {
                let start = &residual.data[(first + i) * residual.stride..][..c];
                let out = &mut out[(first + i) * c..(first + i + 1) * c];
                for head in 0..heads {
                    let columns = head * width..head * width + width;
                    let weights = &weights[(head * n + i) * n..(head * n + i + 1) * n];
                    combine(weights, &u[columns.start..], c, &start[columns.clone()], &mut out[columns]);
                }
            }
        }
    }

    /// Gradient of `u` from that of the output, and of the heads' vectors (added). `local` has three times the pairs of the
    /// largest graph.
    fn attend_backward(
        u: &[f32],
        attention: &[f32],
        heads: usize,
        offsets: &[i32],
        weights: &[f32],
        d: &[f32],
        local: &mut [f32],
        du: &mut [f32],
        da: &mut [f32],
    ) {
        let c = attention.len();
        let width = c / heads;
        let whole = width / LANES * LANES;
        let mut start = 0;
        for range in offsets.windows(2) {
            let n = (range[1] - range[0]) as usize;
            let nodes = (range[0] - offsets[0]) as usize * c..(range[1] - offsets[0]) as usize * c;
            let (u, d, du) = (&u[nodes.clone()], &d[nodes.clone()], &mut du[nodes]);
            let (scores, rest) = local.split_at_mut(n * n);
            let (low, rest) = rest.split_at_mut(n * n);
            let turned = &mut rest[..n * n];
            for head in 0..heads {
                let first = head * width;
                let weights = &weights[start + head * n * n..start + (head + 1) * n * n];
                let (u, d) = (&u[first..], &d[first..]);
                score_gradients(n, c, width, u, d, weights, scores, low, turned);
                let a = &attention[first..first + width];
                let da = &mut da[first..first + width];
                let head = HeadBackward { n, stride: c, u, d, weights: turned, scores, low };
                for j in 0..n {
                    let du = &mut du[j * c + first..j * c + first + width];
                    let u = &u[j * c..j * c + width];
                    for at in (0..whole).step_by(LANES) {
                        let (sums, through) = head.lanes(j, at);
                        let (a, u) = (lanes(a, at), lanes(u, at));
                        let (du, da) = (&mut du[at..at + LANES], &mut da[at..at + LANES]);
                        for lane in 0..LANES {
                            du[lane] = sums[lane] + a[lane] * through[lane];
                            da[lane] += u[lane] * through[lane];
                        }
                    }
                    for at in whole..width {
                        let (sum, through) = head.column(j, at);
                        du[at] = sum + a[at] * through;
                        da[at] += u[at] * through;
                    }
                }
            }
            start += n * n * heads;
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
