//! Forward kernel of linear maps and sublayers: one pass over blocks of rows.

use std::ops::Range;

use rayon::prelude::*;

use super::{CpuLinear, Inputs, kernels};
use crate::ops::bridge::{row_range, rows, slice};
use crate::ops::cpu::{Buffer, Matrix, Path, product, split, unset};

/// Rows of a block, about: the block and what becomes of it stay in a second- and third-level cache, and a product
/// of a block with a weight matrix is long enough for its overhead not to count.
const BLOCK_ROWS: usize = 384;

/// Partial sums of weight gradients that are kept apart, at most.
const CHUNKS: usize = 8;

/// Rows cut into blocks by their number alone.
#[derive(Clone, Debug)]
pub struct Blocks {
    starts: Vec<usize>,
}

impl Blocks {
    /// An even number of blocks of nearly equal size, so that two threads have the same to do.
    pub fn new(rows: usize) -> Self {
        let count = match rows.div_ceil(BLOCK_ROWS) {
            0 | 1 => 1,
            many => many.next_multiple_of(2),
        };
        Self { starts: (0..=count).map(|block| block * rows / count).collect() }
    }

    /// Number of blocks.
    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// Rows of a block.
    pub fn range(&self, block: usize) -> Range<usize> {
        self.starts[block]..self.starts[block + 1]
    }

    /// Runs of blocks whose weight gradients share an accumulator.
    pub fn chunks(&self) -> Vec<Range<usize>> {
        let count = self.count().min(CHUNKS);
        (0..count).map(|chunk| chunk * self.count() / count..(chunk + 1) * self.count() / count).collect()
    }

    /// Cuts a row-major buffer (or an empty one) into the blocks' rows.
    pub fn split<'a>(&self, buffer: &'a mut [f32], columns: usize) -> Vec<&'a mut [f32]> {
        let columns = if buffer.is_empty() { 0 } else { columns };
        split(buffer, (0..self.count()).map(|block| self.range(block).len() * columns))
    }
}

/// What the forward pass leaves for the backward; empty where there is no such thing.
#[derive(Debug, Default)]
pub struct Passed {
    /// Hidden rows after ReLU and dropout, `[N, H]`.
    pub hidden: Buffer,
    /// Normalised rows before scale and shift, `[N, C]`.
    pub normalised: Buffer,
    /// `1 / sqrt(variance + eps)` of each row.
    pub inverse: Vec<f32>,
}

/// The matrix of a map.
pub fn matrix(map: &CpuLinear) -> Matrix<'_> {
    Matrix::rows(slice(&map.weight), map.inputs(), map.outputs(), map.outputs())
}

/// The output `[N, C]`, and what the backward needs if `keep`.
pub fn forward(inputs: &Inputs, keep: bool, path: Path) -> (Vec<f32>, Passed) {
    let (n, c) = (inputs.rows(), inputs.map.outputs());
    let h = inputs.hidden.as_ref().map_or(0, |(map, _)| map.outputs());
    let blocks = Blocks::new(n);
    let mut y = unset(n * c);
    let mut passed = Passed::default();
    if keep {
        passed.hidden = Buffer::take(n * h);
        if inputs.norm.is_some() {
            passed.normalised = Buffer::take(n * c);
            passed.inverse = vec![0.0; n];
        }
    }
    let work: Vec<_> = blocks
        .split(&mut y, c)
        .into_iter()
        .zip(blocks.split(&mut passed.hidden, h))
        .zip(blocks.split(&mut passed.normalised, c))
        .zip(blocks.split(&mut passed.inverse, 1))
        .enumerate()
        .collect();
    work.into_par_iter().for_each_init(
        || (Buffer::default(), Vec::new()),
        |(scratch, spare), (block, (((y, hidden), normalised), inverse))| {
            let range = blocks.range(block);
            let x = row_range(&inputs.x, range.clone());
            match &inputs.hidden {
                None => product(y, c, false, x, matrix(&inputs.map)),
                Some((map, dropout)) => {
                    let hidden = if hidden.is_empty() { scratch.at_least(range.len() * h) } else { hidden };
                    product(hidden, h, false, x, matrix(map));
                    kernels::bias_activation(path, hidden, slice(&map.bias), true, *dropout, range.start);
                    let rows = Matrix::rows(hidden, range.len(), h, h);
                    product(y, c, false, rows, matrix(&inputs.map));
                }
            }
            let bias = slice(&inputs.map.bias);
            let Some(norm) = &inputs.norm else {
                kernels::bias_activation(path, y, bias, inputs.relu, inputs.dropout, range.start);
                return;
            };
            let (residual, stride) = rows(inputs.residual.as_ref().unwrap_or(&inputs.x));
            let residual = &residual[(range.start * stride).min(residual.len())..];
            let inverse = if inverse.is_empty() {
                spare.resize(range.len(), 0.0);
                &mut spare[..]
            } else {
                inverse
            };
            kernels::add_norm(
                path,
                y,
                bias,
                inputs.dropout,
                range.start,
                residual,
                stride,
                slice(&norm.weight),
                slice(&norm.bias),
                normalised,
                inverse,
            );
        },
    );
    (y, passed)
}
