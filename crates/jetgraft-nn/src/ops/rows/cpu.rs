//! Chains on the CPU: tiles of rows, each taken through all steps while it is in cache.
//!
//! The values between steps lie in slots of scratch: a norm or a linear map fills a new slot, the other steps change
//! the last one in place. What the backward cannot compute again cheaply, the results of linear maps, is kept; it
//! then goes through the tile's steps once more, without the products, to have their inputs.

use super::{Activation, kernels};
use crate::ops::bridge::slice;
use crate::ops::cpu::{Buffer, Matrix, Path, add_up, in_turn, product, runs, split, unset};
use crate::ops::dropout::Dropout;
use burn::backend::flex::FlexTensor;

/// See [`super::Step`].
#[derive(Debug)]
pub enum Step {
    Norm { weight: FlexTensor, bias: FlexTensor },
    Linear { weight: FlexTensor, bias: FlexTensor, activation: Activation },
    Scale(FlexTensor),
    Dropout(Dropout),
    Add { rows: FlexTensor, scale: Option<FlexTensor> },
}

impl Step {
    /// Fills a new slot.
    fn is_new(&self) -> bool {
        matches!(self, Self::Norm { .. } | Self::Linear { .. })
    }

    /// Its backward reads its input (a scale reads what the linear map before it kept).
    fn reads_input(&self) -> bool {
        self.is_new() || matches!(self, Self::Scale(_))
    }

    fn parents(&self) -> usize {
        match self {
            Self::Norm { .. } | Self::Linear { .. } | Self::Add { scale: Some(_), .. } => 2,
            Self::Scale(_) | Self::Add { scale: None, .. } => 1,
            Self::Dropout(_) => 0,
        }
    }
}

/// Steps and their input.
#[derive(Debug)]
pub struct Chain {
    x: FlexTensor,
    steps: Vec<Step>,
    /// Columns before each step, and after the last.
    widths: Vec<usize>,
    /// Slot that holds the result of each step; the first step always has a new one.
    slots: Vec<usize>,
    /// Columns of each slot.
    slot_widths: Vec<usize>,
    /// Whether the result of a step (a linear map before its activation) is kept for the backward.
    keeps: Vec<bool>,
    /// Position of each step's first tensor among the parents.
    parents: Vec<usize>,
}

/// Elements of the widest value of a tile: a few of them fit in a second-level cache.
const TILE_ELEMENTS: usize = 1 << 17;

impl Chain {
    pub fn new(x: FlexTensor, steps: Vec<Step>) -> Self {
        let mut width = x.layout().shape()[1];
        let (mut widths, mut slots, mut slot_widths) = (vec![width], Vec::new(), Vec::<usize>::new());
        let (mut parents, mut count) = (Vec::new(), 1);
        for (at, step) in steps.iter().enumerate() {
            if let Step::Linear { bias, .. } = step {
                width = bias.layout().shape()[0];
            }
            if at == 0 || step.is_new() {
                slot_widths.push(width);
            }
            slots.push(slot_widths.len() - 1);
            widths.push(width);
            parents.push(count);
            count += step.parents();
        }
        let keeps = (0..steps.len())
            .map(|at| match &steps[at] {
                Step::Linear { activation, .. } => {
                    *activation != Activation::None || steps[at + 1..].iter().any(Step::reads_input)
                }
                _ => false,
            })
            .collect();
        Self { x, steps, widths, slots, slot_widths, keeps, parents }
    }

    pub fn rows(&self) -> usize {
        self.x.layout().shape()[0]
    }

    pub fn outputs(&self) -> usize {
        self.widths[self.steps.len()]
    }

    fn inputs(&self) -> usize {
        self.widths[0]
    }

    /// Rows of a tile but for the last one; fixed by the widths.
    fn tile_rows(&self) -> usize {
        let widest = self.widths.iter().copied().max().unwrap_or(1).max(1);
        (TILE_ELEMENTS / widest).clamp(32, 256).min(self.rows().max(1))
    }

    fn tiles(&self) -> usize {
        self.rows().div_ceil(self.tile_rows())
    }

    fn tile(&self, tile: usize) -> std::ops::Range<usize> {
        let rows = self.tile_rows();
        tile * rows..((tile + 1) * rows).min(self.rows())
    }

    fn split<'a>(&self, buffer: &'a mut [f32], columns: usize) -> Vec<&'a mut [f32]> {
        split(buffer, (0..self.tiles()).map(|tile| self.tile(tile).len() * columns))
    }

    /// The input's rows.
    fn input(&self, rows: &std::ops::Range<usize>) -> &[f32] {
        &slice(&self.x)[rows.start * self.inputs()..rows.end * self.inputs()]
    }

    /// Does steps `0..end` on a tile; slots hold at least the tile's rows.
    fn run(
        &self,
        end: usize,
        rows: std::ops::Range<usize>,
        slots: &mut [&mut [f32]],
        kept: &mut Kept<'_>,
        path: Path,
    ) {
        let count = rows.len();
        for (at, step) in self.steps[..end].iter().enumerate() {
            let slot = self.slots[at];
            let (inputs, outputs) = (self.widths[at], self.widths[at + 1]);
            let (before, after) = slots.split_at_mut(slot);
            let out = &mut after[0][..count * outputs];
            let input = match before.last() {
                Some(input) if step.is_new() => &input[..count * inputs],
                Some(_) => &[],
                None => self.input(&rows),
            };
            if at == 0 && !step.is_new() {
                out.copy_from_slice(input);
            }
            match step {
                Step::Norm { weight, bias } => kernels::norm(path, input, slice(weight), slice(bias), out),
                Step::Linear { weight, bias, activation } => {
                    let weight = Matrix::rows(slice(weight), inputs, outputs, outputs);
                    let input = Matrix::rows(input, count, inputs, inputs);
                    let linear = |z: &mut [f32]| {
                        kernels::repeat(path, slice(bias), z);
                        product(z, outputs, true, input, weight);
                    };
                    let z: &[f32] = match kept {
                        Kept::Write(kept) if self.keeps[at] => {
                            let z = &mut *kept[at];
                            linear(z);
                            z
                        }
                        Kept::Read(kept) => &kept[at][rows.start * outputs..rows.end * outputs],
                        _ => {
                            linear(out);
                            match activation {
                                Activation::None => {}
                                Activation::Relu => kernels::relu_here(path, out),
                                Activation::Gelu => kernels::gelu_here(path, out),
                            }
                            continue;
                        }
                    };
                    match activation {
                        Activation::None => out.copy_from_slice(z),
                        Activation::Relu => kernels::relu_of(path, z, out),
                        Activation::Gelu => kernels::gelu_of(path, z, out),
                    }
                }
                Step::Scale(scale) => kernels::scale_here(path, slice(scale), out),
                Step::Dropout(mask) => kernels::dropout(path, *mask, rows.start, outputs, out),
                Step::Add { rows: other, scale } => {
                    let other = &slice(other)[rows.start * outputs..rows.end * outputs];
                    match scale {
                        Some(scale) => kernels::add_scaled(path, other, slice(scale), out),
                        None => kernels::add(path, other, out),
                    }
                }
            }
        }
    }
}

/// What linear maps gave, per step: a tile's rows to write, or all rows to read.
enum Kept<'a> {
    Write(Vec<&'a mut [f32]>),
    Read(&'a [Buffer]),
    Nothing,
}

/// Scratch slots of a thread.
fn scratch(buffers: &mut Vec<Buffer>, sizes: impl Iterator<Item = usize>) -> Vec<&mut [f32]> {
    let sizes: Vec<usize> = sizes.collect();
    buffers.resize_with(sizes.len().max(buffers.len()), Buffer::default);
    buffers.iter_mut().zip(sizes).map(|(buffer, size)| buffer.at_least(size)).collect()
}

/// The result, and what the backward needs where it is asked for.
pub fn forward(chain: &Chain, keep: bool, path: Path) -> (Vec<f32>, Vec<Buffer>) {
    let (steps, rows) = (chain.steps.len(), chain.rows());
    let mut y = unset(rows * chain.outputs());
    let mut kept: Vec<Buffer> = (0..steps)
        .map(|at| Buffer::take(if keep && chain.keeps[at] { rows * chain.widths[at + 1] } else { 0 }))
        .collect();
    let mut pieces: Vec<Vec<&mut [f32]>> = (0..chain.tiles()).map(|_| Vec::new()).collect();
    for (at, kept) in kept.iter_mut().enumerate() {
        let width = if keep && chain.keeps[at] { chain.widths[at + 1] } else { 0 };
        for (pieces, piece) in pieces.iter_mut().zip(chain.split(kept, width)) {
            pieces.push(piece);
        }
    }
    let most = chain.tile_rows();
    let last = chain.slot_widths.len() - 1;
    let tasks = chain.split(&mut y, chain.outputs()).into_iter().zip(pieces).enumerate().collect();
    in_turn(tasks, Vec::new, |buffers, (tile, (y, pieces))| {
        let mut slots = scratch(buffers, chain.slot_widths[..last].iter().map(|width| width * most));
        slots.push(y);
        let mut kept = if keep { Kept::Write(pieces) } else { Kept::Nothing };
        chain.run(steps, chain.tile(tile), &mut slots, &mut kept, path);
    });
    (y, kept)
}

/// Gradients of the parents with their shapes, in order: the input, then the steps' tensors. A vector that nobody
/// waits for is empty.
pub fn backward(
    chain: &Chain,
    kept: &[Buffer],
    dy: &[f32],
    wanted: &[bool],
    path: Path,
) -> Vec<(Vec<f32>, Vec<usize>)> {
    let rows = chain.rows();
    let wants = |at: usize, tensor: usize| wanted.get(chain.parents[at] + tensor).is_some_and(|&wants| wants);
    // Sums over rows, and gradients that have the rows themselves (the input and added rows).
    let mut shapes: Vec<Vec<usize>> = vec![vec![rows, chain.inputs()]];
    let mut by_row = vec![true];
    for (at, step) in chain.steps.iter().enumerate() {
        let (inputs, outputs) = (chain.widths[at], chain.widths[at + 1]);
        match step {
            Step::Norm { .. } => shapes.extend([vec![outputs], vec![outputs]]),
            Step::Linear { .. } => shapes.extend([vec![inputs, outputs], vec![outputs]]),
            Step::Scale(_) => shapes.push(vec![outputs]),
            Step::Dropout(_) => {}
            Step::Add { scale, .. } => {
                shapes.push(vec![rows, outputs]);
                shapes.extend(scale.iter().map(|_| vec![outputs]));
            }
        }
        by_row.resize(shapes.len(), false);
        if matches!(step, Step::Add { .. }) {
            by_row[chain.parents[at]] = true;
        }
    }
    let wanted_at = |parent: usize| wanted.get(parent).is_some_and(|&wants| wants);
    let mut found: Vec<Vec<f32>> = (shapes.iter().enumerate())
        .map(
            |(parent, shape)| {
                if by_row[parent] && wanted_at(parent) { unset(shape.iter().product()) } else { Vec::new() }
            },
        )
        .collect();
    // The first step that anyone waits for anything of; before it nothing is done.
    let first = if wanted_at(0) {
        0
    } else {
        (0..chain.steps.len())
            .find(|&at| (0..chain.steps[at].parents()).any(|tensor| wants(at, tensor)))
            .unwrap_or(chain.steps.len())
    };
    // Inputs of steps are needed up to the last one that reads its input.
    let end = chain.steps.iter().rposition(Step::reads_input).unwrap_or(0);

    let pieces = {
        let mut pieces: Vec<Vec<&mut [f32]>> = (0..chain.tiles()).map(|_| Vec::new()).collect();
        for (parent, values) in found.iter_mut().enumerate() {
            let columns = if values.is_empty() { 0 } else { shapes[parent][1] };
            for (pieces, piece) in pieces.iter_mut().zip(chain.split(values, columns)) {
                pieces.push(piece);
            }
        }
        let mut pieces = pieces.into_iter();
        let cut = |chunk: std::ops::Range<usize>| {
            let pieces = pieces.by_ref().take(chunk.len()).collect::<Vec<_>>();
            (chunk, pieces)
        };
        runs(chain.tiles()).into_iter().map(cut).collect::<Vec<_>>()
    };
    let widest = chain.widths.iter().copied().max().unwrap_or(0);
    let most = chain.tile_rows();
    let sums: Vec<Vec<Buffer>> =
        in_turn(pieces, <(Vec<Buffer>, Vec<Buffer>)>::default, |(buffers, gradients), (chunk, pieces)| {
            let mut sums: Vec<Buffer> = (shapes.iter().enumerate())
                .map(|(parent, shape)| {
                    let needed = !by_row[parent] && wanted_at(parent);
                    let mut sums = Buffer::take(if needed { shape.iter().product() } else { 0 });
                    sums.fill(0.0);
                    sums
                })
                .collect();
            for (tile, mut pieces) in chunk.zip(pieces) {
                let mut slots = scratch(buffers, chain.slot_widths.iter().map(|width| width * most));
                let rows = chain.tile(tile);
                chain.run(end, rows.clone(), &mut slots, &mut Kept::Read(kept), path);
                let [from, to] = &mut scratch(gradients, [widest * most; 2].into_iter())[..] else {
                    unreachable!("two were asked for")
                };
                let pass = Pass { chain, kept, rows, first, wanted, path };
                pass.run(dy, &slots, from, to, &mut pieces, &mut sums);
            }
            sums
        });
    let mut parts: Vec<Vec<Buffer>> = (0..shapes.len()).map(|_| Vec::new()).collect();
    for chunk in sums {
        for (parent, sum) in chunk.into_iter().enumerate() {
            parts[parent].push(sum);
        }
    }
    for (parent, parts) in parts.into_iter().enumerate() {
        if !by_row[parent] && wanted_at(parent) {
            found[parent] = add_up(parts);
            // No rows, no chunk.
            found[parent].resize(shapes[parent].iter().product(), 0.0);
        }
    }
    found.into_iter().zip(shapes).collect()
}

/// The backward of one tile.
struct Pass<'a> {
    chain: &'a Chain,
    kept: &'a [Buffer],
    rows: std::ops::Range<usize>,
    first: usize,
    wanted: &'a [bool],
    path: Path,
}

impl Pass<'_> {
    /// From the gradient of the result to those of the input and of added rows (`pieces`) and of parameters (`sums`).
    fn run<'s>(
        &self,
        dy: &[f32],
        slots: &[&mut [f32]],
        from: &mut &'s mut [f32],
        to: &mut &'s mut [f32],
        pieces: &mut [&mut [f32]],
        sums: &mut [Buffer],
    ) {
        let Self { chain, path, first, .. } = *self;
        let (rows, count) = (self.rows.clone(), self.rows.len());
        let here = |columns: usize| rows.start * columns..rows.end * columns;
        let steps = chain.steps.len();
        from[..count * chain.outputs()].copy_from_slice(&dy[here(chain.outputs())]);
        for at in (first..steps).rev() {
            let (inputs, outputs) = (chain.widths[at], chain.widths[at + 1]);
            let parent = chain.parents[at];
            let wants = |tensor: usize| self.wanted[parent + tensor];
            // The input of the whole chain gets its gradient directly where a step makes a new one.
            let more = at > first || self.wanted[0];
            let d = &mut from[..count * outputs];
            let input = || match chain.slots[at].checked_sub(1) {
                Some(slot) => &slots[slot][..count * inputs],
                None => chain.input(&rows),
            };
            let z = |at: usize| &chain_kept(self.kept, at)[here(chain.widths[at + 1])];
            match &chain.steps[at] {
                Step::Add { rows: other, scale } => {
                    if wants(0) {
                        match scale {
                            Some(scale) => kernels::scale(path, d, slice(scale), pieces[parent]),
                            None => pieces[parent].copy_from_slice(d),
                        }
                    }
                    if scale.is_some() && wants(1) {
                        let other = &slice(other)[here(outputs)];
                        kernels::add_products(path, d, other, &mut sums[parent + 1]);
                    }
                }
                Step::Dropout(mask) => kernels::dropout(path, *mask, rows.start, outputs, d),
                Step::Scale(scale) => {
                    if wants(0) {
                        kernels::add_products(path, d, z(at - 1), &mut sums[parent]);
                    }
                    kernels::scale_here(path, slice(scale), d);
                }
                Step::Norm { weight, .. } => {
                    let mut unused = (Buffer::default(), Buffer::default());
                    let (d_weight, d_bias) = match &mut sums[parent..] {
                        [weight, bias, ..] if wants(0) && wants(1) => (weight, bias),
                        [weight, bias, ..] => {
                            // Whichever is not waited for goes nowhere.
                            let pair = (&mut unused.0, &mut unused.1);
                            pair.0.at_least(outputs);
                            pair.1.at_least(outputs);
                            (if wants(0) { weight } else { pair.0 }, if wants(1) { bias } else { pair.1 })
                        }
                        _ => unreachable!("a norm has two parents"),
                    };
                    let out =
                        if at == 0 && self.wanted[0] { &mut *pieces[0] } else { &mut to[..count * inputs] };
                    kernels::norm_gradient(path, d, input(), slice(weight), out, d_weight, d_bias);
                    if at > 0 {
                        std::mem::swap(from, to);
                    }
                }
                Step::Linear { weight, activation, .. } => {
                    match activation {
                        Activation::None => {}
                        Activation::Relu => kernels::relu_gradient(path, z(at), d),
                        Activation::Gelu => kernels::gelu_gradient(path, z(at), d),
                    }
                    let gradient = Matrix::rows(d, count, outputs, outputs);
                    if wants(0) {
                        let input = Matrix::rows(input(), count, inputs, inputs).transposed();
                        product(&mut sums[parent], outputs, true, input, gradient);
                    }
                    if wants(1) {
                        kernels::add_rows(path, d, &mut sums[parent + 1]);
                    }
                    if more {
                        let out = if at == 0 { &mut *pieces[0] } else { &mut to[..count * inputs] };
                        let weight = Matrix::rows(slice(weight), inputs, outputs, outputs).transposed();
                        product(out, inputs, false, gradient, weight);
                        if at > 0 {
                            std::mem::swap(from, to);
                        }
                    }
                }
            }
            if at == 0 && self.wanted[0] && !chain.steps[0].is_new() {
                pieces[0].copy_from_slice(&from[..count * inputs]);
            }
        }
    }
}

fn chain_kept(kept: &[Buffer], at: usize) -> &[f32] {
    &kept[at]
}
