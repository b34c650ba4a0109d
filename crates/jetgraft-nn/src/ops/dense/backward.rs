//! Backward kernel of linear maps and sublayers: one pass over blocks of rows. Weight gradients add up per run of
//! blocks, and the runs in order.

use rayon::prelude::*;

use super::forward::{Blocks, Passed};
use super::{CpuLinear, Inputs, kernels};
use crate::ops::bridge::{row_range, slice};
use crate::ops::cpu::{Buffer, Matrix, Path, add_up, product, unset};

/// Which gradients someone waits for; those of biases and norms come along.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Of the input.
    pub x: bool,
    /// Of the residual, where it is not the input.
    pub residual: bool,
    /// Of the first of two weights.
    pub hidden: bool,
    /// Of the weight that gives the output.
    pub map: bool,
}

/// Gradients; empty where not wanted.
#[derive(Debug)]
pub struct Found {
    /// `[N, I]`.
    pub x: Vec<f32>,
    /// `[N, C]`.
    pub residual: Vec<f32>,
    /// Weight and bias.
    pub hidden: (Vec<f32>, Vec<f32>),
    /// Weight and bias.
    pub map: (Vec<f32>, Vec<f32>),
    /// Scale and shift.
    pub norm: (Vec<f32>, Vec<f32>),
}

/// Sums over a run of blocks.
#[derive(Default)]
struct Sums {
    hidden: Buffer,
    hidden_bias: Buffer,
    map: Buffer,
    map_bias: Buffer,
    scale: Buffer,
    shift: Buffer,
}

fn zeros(length: usize) -> Buffer {
    let mut buffer = Buffer::take(length);
    buffer.fill(0.0);
    buffer
}

/// The transposed weight as rows of its own: a product with it then packs nothing.
fn transposed(map: &CpuLinear) -> Buffer {
    const TILE: usize = 16;
    let (rows, columns) = (map.inputs(), map.outputs());
    let values = slice(&map.weight);
    let mut turned = Buffer::take(rows * columns);
    for first_row in (0..rows).step_by(TILE) {
        for first in (0..columns).step_by(TILE) {
            for row in first_row..(first_row + TILE).min(rows) {
                for column in first..(first + TILE).min(columns) {
                    turned[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    turned
}

/// All gradients for the gradient `dy` of the output `y` (which is looked at for a ReLU only).
pub fn backward(
    inputs: &Inputs,
    passed: &Passed,
    y: &[f32],
    dy: &[f32],
    wanted: Wanted,
    path: Path,
) -> Found {
    let (n, i, c) = (inputs.rows(), inputs.x.layout().shape()[1], inputs.map.outputs());
    let h = inputs.hidden.as_ref().map_or(0, |(map, _)| map.outputs());
    let blocks = Blocks::new(n);
    // The input of a sublayer with a feed-forward network is its residual too.
    let own_residual = inputs.norm.is_some() && inputs.residual.is_none();
    let into_hidden = h > 0 && (wanted.x || wanted.hidden);
    let through_map = if h > 0 { into_hidden } else { wanted.x };
    let map_turned = if through_map { transposed(&inputs.map) } else { Buffer::default() };
    let hidden_turned = match &inputs.hidden {
        Some((map, _)) if wanted.x => transposed(map),
        _ => Buffer::default(),
    };
    let mut dx = unset(if wanted.x { n * i } else { 0 });
    let mut residual = unset(if wanted.residual { n * c } else { 0 });
    let (dx_blocks, residual_blocks) = (blocks.split(&mut dx, i), blocks.split(&mut residual, c));
    let mut outputs: Vec<_> = dx_blocks.into_iter().zip(residual_blocks).collect();
    let mut chunks = Vec::new();
    for chunk in blocks.chunks() {
        let rest = outputs.split_off(chunk.len());
        chunks.push((chunk, std::mem::replace(&mut outputs, rest)));
    }
    let parts: Vec<Sums> = chunks
        .into_par_iter()
        .map_init(
            || (Buffer::default(), Buffer::default(), Buffer::default()),
            |(before_norm, before_map, before_hidden), (chunk, outputs)| {
                let mut sums = Sums {
                    hidden: Buffer::take(if wanted.hidden { i * h } else { 0 }),
                    hidden_bias: zeros(h),
                    map: Buffer::take(if wanted.map { inputs.map.inputs() * c } else { 0 }),
                    map_bias: zeros(c),
                    scale: zeros(if inputs.norm.is_some() { c } else { 0 }),
                    shift: zeros(if inputs.norm.is_some() { c } else { 0 }),
                };
                let first_block = chunk.start;
                for (block, (dx, residual)) in chunk.zip(outputs) {
                    // The first product of a run of blocks sets the accumulator.
                    let add = block != first_block;
                    let range = blocks.range(block);
                    let m = range.len();
                    let x = row_range(&inputs.x, range.clone());
                    let of_block = |values: &[f32], columns: usize| -> std::ops::Range<usize> {
                        if values.is_empty() { 0..0 } else { range.start * columns..range.end * columns }
                    };
                    let dy = &dy[range.start * c..range.end * c];
                    let norm_gradient = |out: &mut [f32], scale: &mut [f32], shift: &mut [f32]| {
                        let Some(norm) = &inputs.norm else { return };
                        let normalised = &passed.normalised[of_block(&passed.normalised, c)];
                        let inverse = &passed.inverse[range.clone()];
                        let weight = slice(&norm.weight);
                        kernels::norm_gradient(path, dy, normalised, inverse, weight, out, scale, shift);
                    };
                    let y = &y[of_block(y, c)];
                    // Gradient of the output of the last map; before it comes that of the residual.
                    let (sum, dropout) = (&mut sums.map_bias, inputs.dropout);
                    let dz = if own_residual {
                        let d = if dx.is_empty() { before_norm.at_least(m * c) } else { &mut *dx };
                        norm_gradient(d, &mut sums.scale, &mut sums.shift);
                        let out = before_map.at_least(m * c);
                        kernels::activation_gradient(path, d, y, dropout, range.start, out, sum);
                        &*out
                    } else {
                        let d = if inputs.norm.is_none() {
                            dy
                        } else {
                            let wanted = !residual.is_empty();
                            let d = if wanted { residual } else { before_norm.at_least(m * c) };
                            norm_gradient(d, &mut sums.scale, &mut sums.shift);
                            &*d
                        };
                        if inputs.relu || dropout.is_some() {
                            let out = before_map.at_least(m * c);
                            kernels::activation_gradient(path, d, y, dropout, range.start, out, sum);
                            &*out
                        } else {
                            kernels::add_rows(path, d, sum);
                            d
                        }
                    };
                    let dz = Matrix::rows(dz, m, c, c);
                    let Some((_, dropout)) = &inputs.hidden else {
                        if wanted.map {
                            product(&mut sums.map, c, add, x.transposed(), dz);
                        }
                        if wanted.x {
                            product(dx, i, own_residual, dz, Matrix::rows(&map_turned, c, i, i));
                        }
                        continue;
                    };
                    let hidden = &passed.hidden[of_block(&passed.hidden, h)];
                    if wanted.map {
                        product(&mut sums.map, c, add, Matrix::rows(hidden, m, h, h).transposed(), dz);
                    }
                    if !into_hidden {
                        continue;
                    }
                    let dh = before_hidden.at_least(m * h);
                    product(dh, h, false, dz, Matrix::rows(&map_turned, c, h, h));
                    let keep = dropout.map_or(1.0, |dropout| dropout.keep());
                    kernels::hidden_gradient(path, dh, hidden, keep, &mut sums.hidden_bias);
                    let dh = Matrix::rows(dh, m, h, h);
                    if wanted.hidden {
                        product(&mut sums.hidden, h, add, x.transposed(), dh);
                    }
                    if wanted.x {
                        product(dx, i, own_residual, dh, Matrix::rows(&hidden_turned, h, i, i));
                    }
                }
                sums
            },
        )
        .collect();
    let mut columns: [Vec<Buffer>; 6] = Default::default();
    for part in parts {
        let Sums { hidden, hidden_bias, map, map_bias, scale, shift } = part;
        for (column, value) in columns.iter_mut().zip([hidden, hidden_bias, map, map_bias, scale, shift]) {
            column.push(value);
        }
    }
    let [hidden, hidden_bias, map, map_bias, scale, shift] = columns.map(add_up);
    Found { x: dx, residual, hidden: (hidden, hidden_bias), map: (map, map_bias), norm: (scale, shift) }
}
