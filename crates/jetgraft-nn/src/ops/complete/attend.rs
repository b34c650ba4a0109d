//! Loops of the attention over the graphs of one tile.
//!
//! Sums along a head's columns are kept in sixteen lanes, stored, and added up in a fixed tree, the same on every path.

use super::NEGATIVE_SLOPE;
use super::cpu::Ready;
use super::wide::{LANES, Lanes, Wide, lanes, lanes_mut, leaky, wide};
use crate::ops::math::exp;

/// Numbers of scratch memory that a graph of `n` nodes needs.
pub fn scratch(n: usize) -> usize {
    n * n * (LANES + 3) + n
}

#[inline(always)]
fn add_up(sums: &Lanes) -> f32 {
    let mut sums = *sums;
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

/// `sum a LeakyReLU(x + y)`, in lanes.
#[inline(always)]
fn score<W: Wide>(x: &[f32], y: &[f32], a: &[f32], out: &mut Lanes) {
    let width = a.len();
    let (x, y) = (&x[..width], &y[..width]);
    let whole = width / LANES * LANES;
    let mut sums = W::splat(0.0);
    for at in (0..whole).step_by(LANES) {
        let sum = W::load(lanes(x, at)).add(W::load(lanes(y, at)));
        sums = sums.add(W::load(lanes(a, at)).mul(sum.leaky()));
    }
    sums.store(out);
    for at in whole..width {
        out[at - whole] += a[at] * leaky(x[at] + y[at]);
    }
}

/// `sum x y`, in lanes.
#[inline(always)]
fn dot<W: Wide>(x: &[f32], y: &[f32], out: &mut Lanes) {
    let width = x.len();
    let y = &y[..width];
    let whole = width / LANES * LANES;
    let mut sums = W::splat(0.0);
    for at in (0..whole).step_by(LANES) {
        sums = sums.add(W::load(lanes(x, at)).mul(W::load(lanes(y, at))));
    }
    sums.store(out);
    for at in whole..width {
        out[at - whole] += x[at] * y[at];
    }
}

/// Scores to weights: softmax over the senders of each receiver, `n` in a row.
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

/// `out = start + sum_j weights_j rows_j` over columns of a head; rows begin at the head's first column.
#[inline(always)]
fn combine<W: Wide>(weights: &[f32], rows: &[f32], stride: usize, start: &[f32], out: &mut [f32]) {
    let width = out.len();
    let start = &start[..width];
    let whole = width / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let mut sums = W::load(lanes(start, at));
        for (row, &weight) in weights.iter().enumerate() {
            sums = sums.add(W::splat(weight).mul(W::load(lanes(rows, row * stride + at))));
        }
        sums.store(lanes_mut(out, at));
    }
    for at in whole..width {
        let mut sum = start[at];
        for (row, &weight) in weights.iter().enumerate() {
            sum += weight * rows[row * stride + at];
        }
        out[at] = sum;
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn attend_with<W: Wide>(
    u: &[f32],
    attention: &[f32],
    heads: usize,
    offsets: &[i32],
    residual: Ready<'_>,
    local: &mut [f32],
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
            let columns = head * width..head * width + width;
            let a = &attention[columns.clone()];
            // A score is the same both ways.
            let mut sums = local.chunks_exact_mut(LANES);
            for i in 0..n {
                let x = &u[i * c..i * c + c][columns.clone()];
                for (j, sums) in (i..n).zip(&mut sums) {
                    score::<W>(x, &u[j * c..j * c + c][columns.clone()], a, lanes_mut(sums, 0));
                }
            }
            let scores = &mut weights[head * n * n..(head + 1) * n * n];
            let mut sums = local.chunks_exact(LANES);
            for i in 0..n {
                for (j, sums) in (i..n).zip(&mut sums) {
                    let value = add_up(lanes(sums, 0));
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
                combine::<W>(weights, &u[columns.start..], c, &start[columns.clone()], &mut out[columns]);
            }
        }
    }
}

/// One head of one graph in the backward: `n` nodes, rows `stride` apart that begin at the head's first column.
struct Head<'a> {
    n: usize,
    stride: usize,
    width: usize,
    u: &'a [f32],
    /// Gradient of the messages.
    d: &'a [f32],
    /// `[n, n]`: what receiver i takes from sender j, at `i n + j`.
    weights: &'a [f32],
}

/// Scratch memory of a head's backward.
struct Scratch<'a> {
    /// `[n, n]` in lanes.
    sums: &'a mut [f32],
    /// `[n, n]`: gradients of the scores.
    gradients: &'a mut [f32],
    /// `[n, n]`: those of (i, j) and (j, i) added, times 1 minus the slope.
    scores: &'a mut [f32],
    /// `[n, n]`: the weights by sender.
    turned: &'a mut [f32],
    /// `[n]`: sum over j of the gradients of (i, j) and (j, i), times the slope.
    low: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    #[inline(always)]
    fn new(local: &'a mut [f32], n: usize) -> Self {
        let (sums, rest) = local.split_at_mut(n * n * LANES);
        let (gradients, rest) = rest.split_at_mut(n * n);
        let (scores, rest) = rest.split_at_mut(n * n);
        let (turned, rest) = rest.split_at_mut(n * n);
        Self { sums, gradients, scores, turned, low: &mut rest[..n] }
    }
}

impl Head<'_> {
    /// Gradients of the scores, in the forms that the rows need.
    #[inline(always)]
    fn scores<W: Wide>(&self, scratch: &mut Scratch<'_>) {
        let Self { n, stride, width, u, d, weights } = *self;
        let Scratch { sums, gradients, scores, turned, low } = scratch;
        let mut rest = sums.chunks_exact_mut(LANES);
        for i in 0..n {
            let d = &d[i * stride..i * stride + width];
            for (j, sums) in (0..n).zip(&mut rest) {
                dot::<W>(d, &u[j * stride..j * stride + width], lanes_mut(sums, 0));
            }
        }
        for (gradient, sums) in gradients.iter_mut().zip(sums.chunks_exact(LANES)) {
            *gradient = add_up(lanes(sums, 0));
        }
        for i in 0..n {
            let weights = &weights[i * n..i * n + n];
            let gradients = &mut gradients[i * n..i * n + n];
            let mut mean = 0.0;
            for j in 0..n {
                mean += weights[j] * gradients[j];
            }
            for j in 0..n {
                gradients[j] = weights[j] * (gradients[j] - mean);
                turned[j * n + i] = weights[j];
            }
        }
        for i in 0..n {
            let mut sum = 0.0;
            for j in 0..n {
                let both = gradients[i * n + j] + gradients[j * n + i];
                sum += NEGATIVE_SLOPE * both;
                scores[i * n + j] = (1.0 - NEGATIVE_SLOPE) * both;
            }
            low[i] = sum;
        }
    }

    /// Gradient of `u_j`, and of the head's vector (added): through the scores goes `a` times the sum over i of the scores'
    /// gradients, times 1 where `u_i + u_j > 0` and times the slope elsewhere.
    #[inline(always)]
    fn row<W: Wide>(&self, j: usize, scratch: &Scratch<'_>, a: &[f32], du: &mut [f32], da: &mut [f32]) {
        let Self { n, stride, width, u, d, .. } = *self;
        let weights = &scratch.turned[j * n..j * n + n];
        let scores = &scratch.scores[j * n..j * n + n];
        let low = scratch.low[j];
        let own = &u[j * stride..j * stride + width];
        let whole = width / LANES * LANES;
        for at in (0..whole).step_by(LANES) {
            let here = W::load(lanes(own, at));
            let threshold = here.neg();
            let (mut sums, mut through) = (W::splat(0.0), W::splat(low));
            for ((i, &weight), &score) in weights.iter().enumerate().zip(scores) {
                let there = W::load(lanes(u, i * stride + at));
                sums = sums.add(W::splat(weight).mul(W::load(lanes(d, i * stride + at))));
                through = through.add_where_above(there, threshold, W::splat(score));
            }
            sums.add(W::load(lanes(a, at)).mul(through)).store(lanes_mut(du, at));
            W::load(lanes(da, at)).add(here.mul(through)).store(lanes_mut(da, at));
        }
        for at in whole..width {
            let (mut sum, mut through) = (0.0, low);
            for ((i, &weight), &score) in weights.iter().enumerate().zip(scores) {
                sum += weight * d[i * stride + at];
                through += if u[i * stride + at] > -own[at] { score } else { 0.0 };
            }
            du[at] = sum + a[at] * through;
            da[at] += own[at] * through;
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn attend_backward_with<W: Wide>(
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
    let mut start = 0;
    for range in offsets.windows(2) {
        let n = (range[1] - range[0]) as usize;
        let nodes = (range[0] - offsets[0]) as usize * c..(range[1] - offsets[0]) as usize * c;
        let (u, d, du) = (&u[nodes.clone()], &d[nodes.clone()], &mut du[nodes]);
        let mut scratch = Scratch::new(local, n);
        for head in 0..heads {
            let first = head * width;
            let weights = &weights[start + head * n * n..start + (head + 1) * n * n];
            let head = Head { n, stride: c, width, u: &u[first..], d: &d[first..], weights };
            head.scores::<W>(&mut scratch);
            let a = &attention[first..first + width];
            let da = &mut da[first..first + width];
            for j in 0..n {
                head.row::<W>(j, &scratch, a, &mut du[j * c + first..j * c + first + width], da);
            }
        }
        start += n * n * heads;
    }
}

wide! {
    /// Attention weights of a tile, and residual plus messages. `local` has the [`scratch`] of the largest graph.
    fn attend(
        u: &[f32],
        attention: &[f32],
        heads: usize,
        offsets: &[i32],
        residual: Ready<'_>,
        local: &mut [f32],
        weights: &mut [f32],
        out: &mut [f32],
    ) = attend_with;

    /// Gradient of `u` from that of the output, and of the heads' vectors (added). `local` has the [`scratch`] of the
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
    ) = attend_backward_with;
}
