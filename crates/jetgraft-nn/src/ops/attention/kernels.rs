//! Loops of attention over one head of one graph, compiled per instruction path.
//!
//! Matrices in scratch have rows of whole vectors: columns beyond the real ones hold zeros (weights, gradients) or what
//! is multiplied by them.

use crate::ops::cpu::kernels;
use crate::ops::dropout::Dropout;
use crate::ops::math::exp;

/// Columns of a tile of a product.
pub const LANES: usize = 16;

/// Rows of a tile of a product.
const ROWS: usize = 8;

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

/// `n` up to whole vectors.
#[inline(always)]
pub fn padded(n: usize) -> usize {
    n.div_ceil(LANES) * LANES
}

/// A matrix whose entries are read one by one.
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub column: usize,
}

/// `R` rows and `LANES` columns of a product.
#[inline(always)]
fn tile<const R: usize>(
    left: Left<'_>,
    first: usize,
    depth: usize,
    right: &[f32],
    stride: usize,
) -> [[f32; LANES]; R] {
    let mut sums = [[0f32; LANES]; R];
    let last = (first + R - 1) * left.row + (depth - 1) * left.column;
    assert!(last < left.data.len() && (depth - 1) * stride + LANES <= right.len());
    for k in 0..depth {
        // SAFETY: both positions are at most those that were checked above.
        let vector = unsafe { &*right.as_ptr().add(k * stride).cast::<[f32; LANES]>() };
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as above.
            let factor = unsafe { *left.data.get_unchecked((first + r) * left.row + k * left.column) };
            for lane in 0..LANES {
                sums[lane] += factor * vector[lane];
            }
        }
    }
    sums
}

kernels! {
    /// `out = left right`: `rows` by `columns` (whole vectors), rows of `right` and `out` by strides.
    fn small_product(
        rows: usize,
        depth: usize,
        columns: usize,
        left: Left<'_>,
        right: &[f32],
        right_stride: usize,
        out: &mut [f32],
        out_stride: usize,
    ) {
        let whole = rows / ROWS * ROWS;
        for column in (0..columns).step_by(LANES) {
            let right = &right[column..];
            let mut first = 0;
            while first < whole {
                let sums = tile::<ROWS>(left, first, depth, right, right_stride);
                for (r, sums) in sums.iter().enumerate() {
                    let at = (first + r) * out_stride + column;
                    out[at..at + LANES].copy_from_slice(sums);
                }
                first += ROWS;
            }
            while first < rows {
                let [sums] = tile::<1>(left, first, depth, right, right_stride);
                let at = first * out_stride + column;
                out[at..at + LANES].copy_from_slice(&sums);
                first += 1;
            }
        }
    }

    /// Columns `start..start + width` of rows `stride` apart, times `factor`, as rows of whole vectors.
    fn gather(x: &[f32], stride: usize, start: usize, width: usize, factor: f32, out: &mut [f32]) {
        let whole = padded(width);
        for (x, out) in x.chunks_exact(stride).zip(out.chunks_exact_mut(whole)) {
            for (out, x) in out.iter_mut().zip(&x[start..start + width]) {
                *out = *x * factor;
            }
            out[width..].fill(0.0);
        }
    }

    /// The same with rows and columns exchanged: `width` rows of `columns` entries, a multiple of a vector.
    fn gather_transposed(
        x: &[f32],
        stride: usize,
        start: usize,
        width: usize,
        factor: f32,
        rows: usize,
        columns: usize,
        out: &mut [f32],
    ) {
        for block in (0..rows).step_by(LANES) {
            let end = (block + LANES).min(rows);
            for k in 0..width {
                let out = &mut out[k * columns + block..k * columns + block + LANES];
                for (lane, row) in (block..end).enumerate() {
                    out[lane] = x[row * stride + start + k] * factor;
                }
                out[end - block..].fill(0.0);
            }
        }
    }

    /// Adds the triangle of pairs to logits, rows of `columns`.
    fn add_pairs(pairs: &[f32], n: usize, columns: usize, logits: &mut [f32]) {
        let mut start = 0;
        for i in 0..n {
            let pairs = &pairs[start..start + i + 1];
            start += i + 1;
            let (before, row) = logits.split_at_mut(i * columns);
            for (j, (logit, pair)) in row.iter_mut().zip(pairs).enumerate() {
                *logit += *pair;
                if j < i {
                    before[j * columns + i] += *pair;
                }
            }
        }
    }

    /// Gradients of the triangle of pairs from those of logits.
    fn pairs_gradient(d: &[f32], n: usize, columns: usize, pairs: &mut [f32]) {
        let mut start = 0;
        for i in 0..n {
            let pairs = &mut pairs[start..start + i + 1];
            start += i + 1;
            pairs.copy_from_slice(&d[i * columns..i * columns + i + 1]);
            for (j, pair) in pairs[..i].iter_mut().enumerate() {
                *pair += d[j * columns + i];
            }
        }
    }

    /// Rows of logits become weights that add up to 1; columns from `n` on become 0.
    fn softmax(n: usize, columns: usize, keys: &[f32], logits: &mut [f32]) {
        for row in logits.chunks_exact_mut(columns) {
            row[n..].fill(f32::NEG_INFINITY);
            for (logit, key) in row.iter_mut().zip(keys) {
                *logit += *key;
            }
            let row = row.as_chunks_mut::<LANES>().0;
            let mut largest = [f32::NEG_INFINITY; LANES];
            for part in &*row {
                for lane in 0..LANES {
                    largest[lane] = if part[lane] > largest[lane] { part[lane] } else { largest[lane] };
                }
            }
            let largest = largest.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
            let mut sums = [0f32; LANES];
            for part in &mut *row {
                for lane in 0..LANES {
                    part[lane] = exp(part[lane] - largest);
                    sums[lane] += part[lane];
                }
            }
            let share = 1.0 / total(sums);
            for part in row {
                for lane in 0..LANES {
                    part[lane] *= share;
                }
            }
        }
    }

    /// `out = weights * mask` for the rows of `head` of nodes from `first` on.
    fn dropped(
        weights: &[f32],
        mask: Dropout,
        first: usize,
        heads: usize,
        head: usize,
        columns: usize,
        out: &mut [f32],
    ) {
        for (i, (weights, out)) in
            weights.chunks_exact(columns).zip(out.chunks_exact_mut(columns)).enumerate()
        {
            let row = mask.row((first + i) * heads + head);
            for (j, (weight, out)) in weights.iter().zip(out).enumerate() {
                *out = *weight * row.factor(j);
            }
        }
    }

    /// The same in place.
    fn dropped_here(mask: Dropout, first: usize, heads: usize, head: usize, columns: usize, d: &mut [f32]) {
        for (i, d) in d.chunks_exact_mut(columns).enumerate() {
            let row = mask.row((first + i) * heads + head);
            for (j, d) in d.iter_mut().enumerate() {
                *d *= row.factor(j);
            }
        }
    }

    /// Gradient of the logits from that of the weights, in place.
    fn softmax_gradient(weights: &[f32], columns: usize, d: &mut [f32]) {
        for (weights, d) in weights.chunks_exact(columns).zip(d.chunks_exact_mut(columns)) {
            let (weights, d) = (weights.as_chunks::<LANES>().0, d.as_chunks_mut::<LANES>().0);
            let mut sums = [0f32; LANES];
            for (weights, d) in weights.iter().zip(&*d) {
                for lane in 0..LANES {
                    sums[lane] += weights[lane] * d[lane];
                }
            }
            let mean = total(sums);
            for (weights, d) in weights.iter().zip(d) {
                for lane in 0..LANES {
                    d[lane] = weights[lane] * (d[lane] - mean);
                }
            }
        }
    }

    /// Writes rows of whole vectors into columns `start..start + width` of rows `stride` apart, times `factor`.
    fn scatter(x: &[f32], width: usize, factor: f32, out: &mut [f32], stride: usize, start: usize) {
        let whole = padded(width);
        for (x, out) in x.chunks_exact(whole).zip(out.chunks_exact_mut(stride)) {
            for (out, x) in out[start..start + width].iter_mut().zip(x) {
                *out = *x * factor;
            }
        }
    }
}
