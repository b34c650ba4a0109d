//! Forward kernel of EdgeConv.
//!
//! The first linear maps act on nodes: `(x_r - x_s) Theta + x_s Phi = x_r Theta + x_s (Phi - Theta)`. One product
//! per tile gives each node's row `u = [P | Q | S]` (receiver part, sender part, shortcut). With batch statistics
//! there are three passes over the tiles, parted by the sums over the whole batch; with running statistics that
//! need no gradient, all norms are folded into the weights and one pass does everything.

use burn::backend::flex::FlexTensor;

use super::kernels::{self, Edges};
use crate::ops::bridge::{integers, row_range, rows, slice};
use crate::ops::cpu::{
    Affine, Buffer, CpuNorm, Matrix, Path, Statistics, Sums, Tiles, column_sums, in_turn, product, unset,
};

/// Everything that a block reads.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// `[N, I]` with whole rows.
    pub x: FlexTensor,
    /// `[I, C]`.
    pub theta: FlexTensor,
    /// `[I, C]`.
    pub phi: FlexTensor,
    /// `[C, C]`.
    pub linear: FlexTensor,
    /// First norm of the messages.
    pub norm_1: CpuNorm,
    /// Second norm of the messages.
    pub norm_2: CpuNorm,
    /// Weight `[I, C]` and norm of the shortcut.
    pub shortcut: Option<(FlexTensor, CpuNorm)>,
    /// `[B + 1]`.
    pub jet_offsets: FlexTensor,
    /// `[N + 1]`.
    pub in_offsets: FlexTensor,
    /// `[E]`.
    pub senders: FlexTensor,
}

impl Inputs {
    /// Input width.
    pub fn inputs(&self) -> usize {
        self.x.layout().shape()[1]
    }

    /// Output width.
    pub fn outputs(&self) -> usize {
        self.theta.layout().shape()[1]
    }

    /// Length of a row of `u`.
    pub fn stride(&self) -> usize {
        self.outputs() * if self.shortcut.is_some() { 3 } else { 2 }
    }

    /// Number of edges.
    pub fn edges(&self) -> usize {
        integers(&self.senders).len()
    }

    /// The tiles of the batch.
    pub fn tiles(&self) -> Tiles {
        Tiles::new(integers(&self.jet_offsets))
    }

    /// Edges that end in a tile.
    pub fn edges_of(&self, tiles: &Tiles, tile: usize) -> Edges<'_> {
        let nodes = tiles.range(tile);
        let offsets = &integers(&self.in_offsets)[nodes.start..=nodes.end];
        let edges = offsets[0] as usize..offsets[offsets.len() - 1] as usize;
        Edges { first: nodes.start, offsets, senders: &integers(&self.senders)[edges] }
    }

    /// `[Theta | Phi - Theta | W_S]`, `[I, stride]`, each part scaled by column where a scale is given.
    pub fn node_weights(&self, scale: Option<&[f32]>, side_scale: Option<&[f32]>) -> Vec<f32> {
        let c = self.outputs();
        let (theta, phi) = (slice(&self.theta), slice(&self.phi));
        let factor = |scale: Option<&[f32]>, j: usize| scale.map_or(1.0, |scale| scale[j]);
        let mut weights = Vec::with_capacity(self.inputs() * self.stride());
        for row in 0..self.inputs() {
            let (theta, phi) = (&theta[row * c..][..c], &phi[row * c..][..c]);
            weights.extend((0..c).map(|j| theta[j] * factor(scale, j)));
            weights.extend((0..c).map(|j| (phi[j] - theta[j]) * factor(scale, j)));
            if let Some((side, _)) = &self.shortcut {
                let side = &slice(side)[row * c..][..c];
                weights.extend((0..c).map(|j| side[j] * factor(side_scale, j)));
            }
        }
        weights
    }

    /// Edges of each tile times `columns`: lengths of its rows in a buffer of edges.
    pub fn edge_lengths(&self, tiles: &Tiles, columns: usize) -> Vec<usize> {
        (0..tiles.count()).map(|tile| self.edges_of(tiles, tile).senders.len() * columns).collect()
    }
}

/// What the forward pass leaves for the backward.
#[derive(Debug)]
pub struct Passed {
    /// `[N, C]`.
    pub y: Vec<f32>,
    /// `[N, stride]`.
    pub u: Buffer,
    /// Messages before the second norm, `[E, C]`.
    pub z: Buffer,
    /// Of the first norm; `None` without an edge.
    pub statistics_1: Option<Statistics>,
    /// Of the second norm; `None` without an edge.
    pub statistics_2: Option<Statistics>,
    /// Of the shortcut's norm.
    pub statistics_side: Option<Statistics>,
}

/// All passes, keeping what the backward needs.
pub fn forward(inputs: &Inputs, path: Path) -> Passed {
    let (c, stride) = (inputs.outputs(), inputs.stride());
    let tiles = inputs.tiles();
    let weights = inputs.node_weights(None, None);
    let weights = Matrix::rows(&weights, inputs.inputs(), stride, stride);

    let mut u = Buffer::take(tiles.rows() * stride);
    let tasks = tiles.split(&mut u, stride).into_iter().enumerate().collect();
    let sums: Vec<(Sums, Sums)> = in_turn(
        tasks,
        || (),
        |(), (tile, u)| {
            product(u, stride, false, row_range(&inputs.x, tiles.range(tile)), weights);
            let (mut messages, mut side) = (Sums::new(c), Sums::new(c));
            if inputs.norm_1.running.is_none() {
                kernels::message_sums(path, u, stride, inputs.edges_of(&tiles, tile), &mut messages);
            }
            if inputs.shortcut.as_ref().is_some_and(|(_, norm)| norm.running.is_none()) && !u.is_empty() {
                column_sums(path, &u[2 * c..], stride, tiles.range(tile).len(), &mut side);
            }
            (messages, side)
        },
    );
    let statistics_side = inputs.shortcut.as_ref().map(|(_, norm)| {
        norm.statistics().unwrap_or_else(|| Statistics::join(sums.iter().map(|(_, side)| side), c))
    });
    let mut passed = Passed {
        y: Vec::new(),
        u,
        z: Buffer::default(),
        statistics_1: None,
        statistics_2: None,
        statistics_side,
    };
    if inputs.edges() > 0 {
        let first = inputs.norm_1.statistics();
        let first = first.unwrap_or_else(|| Statistics::join(sums.iter().map(|(messages, _)| messages), c));
        (passed.z, passed.statistics_2) = second_pass(inputs, &tiles, &passed.u, &first, path);
        passed.statistics_1 = Some(first);
    }
    passed.y = last_pass(inputs, &tiles, &passed, path);
    passed
}

/// First norm, ReLU, second product, and its statistics.
fn second_pass(
    inputs: &Inputs,
    tiles: &Tiles,
    u: &[f32],
    statistics: &Statistics,
    path: Path,
) -> (Buffer, Option<Statistics>) {
    let (c, stride) = (inputs.outputs(), inputs.stride());
    let scale = statistics.scale(slice(&inputs.norm_1.weight));
    let norm = Affine { mean: &statistics.mean, scale: &scale, bias: slice(&inputs.norm_1.bias) };
    let linear = Matrix::rows(slice(&inputs.linear), c, c, c);
    let mut z = Buffer::take(inputs.edges() * c);
    let lengths = inputs.edge_lengths(tiles, c);
    let tasks = crate::ops::cpu::split(&mut z, lengths.into_iter()).into_iter().enumerate().collect();
    let sums: Vec<Sums> = in_turn(tasks, Buffer::default, |h, (tile, z)| {
        let edges = inputs.edges_of(tiles, tile);
        let h = h.at_least(z.len());
        let u = &u[tiles.range(tile).start * stride..tiles.range(tile).end * stride];
        kernels::messages(path, u, stride, edges, norm, h);
        let count = edges.senders.len();
        product(z, c, false, Matrix::rows(h, count, c, c), linear);
        let mut sums = Sums::new(c);
        if inputs.norm_2.running.is_none() {
            column_sums(path, z, c, count, &mut sums);
        }
        sums
    });
    let second = inputs.norm_2.statistics().unwrap_or_else(|| Statistics::join(sums.iter(), c));
    (z, Some(second))
}

/// Second norm, ReLU, mean over edges, shortcut, ReLU.
fn last_pass(inputs: &Inputs, tiles: &Tiles, passed: &Passed, path: Path) -> Vec<f32> {
    let (c, stride) = (inputs.outputs(), inputs.stride());
    let second = passed.statistics_2.as_ref().map(|statistics| {
        (statistics, statistics.scale(slice(&inputs.norm_2.weight)), slice(&inputs.norm_2.bias))
    });
    let side =
        inputs.shortcut.as_ref().zip(passed.statistics_side.as_ref()).map(|((_, norm), statistics)| {
            (statistics, statistics.scale(slice(&norm.weight)), slice(&norm.bias))
        });
    let mut y = unset(tiles.rows() * c);
    let tasks = tiles.split(&mut y, c).into_iter().enumerate().collect();
    in_turn(
        tasks,
        || (),
        |(), (tile, y): (usize, &mut [f32])| {
            let nodes = tiles.range(tile);
            match &second {
                Some((statistics, scale, bias)) => {
                    let edges = inputs.edges_of(tiles, tile);
                    let start = edges.offsets[0] as usize;
                    let z = &passed.z[start * c..(start + edges.senders.len()) * c];
                    kernels::node_means(path, z, edges, Affine { mean: &statistics.mean, scale, bias }, y);
                }
                None => y.fill(0.0),
            }
            match &side {
                Some((statistics, scale, bias)) => {
                    let s = &passed.u[nodes.start * stride + 2 * c..];
                    kernels::add_normed(path, s, stride, Affine { mean: &statistics.mean, scale, bias }, y);
                }
                None => {
                    let (x, x_stride) = rows(&inputs.x);
                    kernels::add_plain(path, &x[nodes.start * x_stride..], x_stride, c, y);
                }
            }
        },
    );
    y
}

/// One pass with every norm folded into the weights; `None` if a norm uses the batch's statistics.
pub fn forward_folded(inputs: &Inputs, path: Path) -> Option<Vec<f32>> {
    let (c, stride) = (inputs.outputs(), inputs.stride());
    let (scale_1, shift_1) = inputs.norm_1.folded()?;
    let (scale_2, shift_2) = inputs.norm_2.folded()?;
    let side = match &inputs.shortcut {
        Some((_, norm)) => Some(norm.folded()?),
        None => None,
    };
    let tiles = inputs.tiles();
    let weights = inputs.node_weights(Some(&scale_1), side.as_ref().map(|(scale, _)| &scale[..]));
    let weights = Matrix::rows(&weights, inputs.inputs(), stride, stride);
    let linear: Vec<f32> =
        slice(&inputs.linear).iter().enumerate().map(|(at, value)| value * scale_2[at % c]).collect();
    let linear = Matrix::rows(&linear, c, c, c);
    let (zeros, ones) = (vec![0f32; c], vec![1f32; c]);
    let mut y = unset(tiles.rows() * c);
    let tasks = tiles.split(&mut y, c).into_iter().enumerate().collect();
    in_turn(tasks, <(Buffer, Buffer, Buffer)>::default, |(u, h, z), (tile, y): (usize, &mut [f32])| {
        let nodes = tiles.range(tile);
        let edges = inputs.edges_of(&tiles, tile);
        let count = edges.senders.len();
        let (u, h, z) = (u.at_least(nodes.len() * stride), h.at_least(count * c), z.at_least(count * c));
        product(u, stride, false, row_range(&inputs.x, nodes.clone()), weights);
        kernels::folded_messages(path, u, stride, edges, &shift_1, h);
        product(z, c, false, Matrix::rows(h, count, c, c), linear);
        let norm = Affine { mean: &zeros, scale: &ones, bias: &shift_2 };
        kernels::node_means(path, z, edges, norm, y);
        match &side {
            Some((_, shift)) => {
                let norm = Affine { mean: &zeros, scale: &ones, bias: shift };
                kernels::add_normed(path, &u[2 * c..], stride, norm, y);
            }
            None => {
                let (x, x_stride) = rows(&inputs.x);
                kernels::add_plain(path, &x[nodes.start * x_stride..], x_stride, c, y);
            }
        }
    });
    Some(y)
}
