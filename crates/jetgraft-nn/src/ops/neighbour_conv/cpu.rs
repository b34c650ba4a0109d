//! Forward kernel of EdgeConv on neighbours.
//!
//! The first linear map acts on nodes: `x_i W_a + (x_j - x_i) W_b = x_i (W_a - W_b) + x_j W_b`. One product per tile
//! gives each node's row `u = [P | Q | S]` (receiver part, sender part, shortcut). With batch statistics there is one
//! pass over the tiles for each norm, parted by the sums over the whole batch; inside a tile, work goes through groups
//! of nodes whose messages stay in a second-level cache. With running statistics that need no gradient, all norms are
//! folded into the weights, one pass does everything and no message leaves the cache.

use std::ops::Range;

use burn::backend::flex::FlexTensor;

use super::kernels::{self, Edges};
use crate::ops::bridge::{integers, row_range, rows, slice};
use crate::ops::cpu::{
    Affine, Buffer, CpuNorm, Matrix, Path, Statistics, Sums, Tiles, column_sums, in_turn, product, split,
    unset,
};
use crate::ops::packed::Packed;

/// Elements of one layer's messages that a group of nodes has, about: a few such blocks and a weight stay in cache.
const GROUP: usize = 1 << 16;

/// A linear map and its norm.
#[derive(Clone, Debug)]
pub struct Layer {
    /// `[rows, columns]`.
    pub weight: FlexTensor,
    /// Over the columns.
    pub norm: CpuNorm,
}

impl Layer {
    /// Columns of the weight.
    pub fn columns(&self) -> usize {
        self.weight.layout().shape()[1]
    }

    /// The norm with these statistics; `scale` is [`Statistics::scale`] of its weight.
    pub fn affine<'a>(&'a self, statistics: &'a Statistics, scale: &'a [f32]) -> Affine<'a> {
        Affine { mean: &statistics.mean, scale, bias: slice(&self.norm.bias) }
    }

    /// Scale of the norm with these statistics.
    pub fn scale(&self, statistics: &Statistics) -> Vec<f32> {
        statistics.scale(slice(&self.norm.weight))
    }
}

/// Everything that a block reads.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// `[N, I]` with whole rows.
    pub x: FlexTensor,
    /// Linear maps of the messages.
    pub layers: Vec<Layer>,
    /// Linear map of the shortcut.
    pub shortcut: Option<Layer>,
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

    /// Width of the messages after a layer.
    pub fn width(&self, layer: usize) -> usize {
        self.layers[layer].columns()
    }

    /// Output width.
    pub fn outputs(&self) -> usize {
        self.width(self.layers.len() - 1)
    }

    /// Length of a row of `u`.
    pub fn stride(&self) -> usize {
        2 * self.width(0) + self.shortcut.as_ref().map_or(0, Layer::columns)
    }

    /// Number of edges.
    pub fn edges(&self) -> usize {
        integers(&self.senders).len()
    }

    /// The tiles of the batch.
    pub fn tiles(&self) -> Tiles {
        Tiles::new(integers(&self.jet_offsets))
    }

    /// Edges that end in a run of nodes of the batch, which belong to a tile that starts at node `tile`.
    pub fn edges_of(&self, tile: usize, nodes: Range<usize>) -> Edges<'_> {
        let offsets = &integers(&self.in_offsets)[nodes.start..=nodes.end];
        let edges = offsets[0] as usize..offsets[offsets.len() - 1] as usize;
        Edges { tile, first: nodes.start - tile, offsets, senders: &integers(&self.senders)[edges] }
    }

    /// Runs of a tile's nodes whose messages of `width` columns fit in a cache; fixed by the batch alone.
    pub fn groups(&self, nodes: Range<usize>, width: usize) -> Vec<Range<usize>> {
        let offsets = integers(&self.in_offsets);
        let most = (GROUP / width.max(1)).max(1) as i32;
        let mut groups = Vec::new();
        let mut start = nodes.start;
        for node in nodes.clone() {
            if offsets[node + 1] - offsets[start] > most && node > start {
                groups.push(start..node);
                start = node;
            }
        }
        groups.push(start..nodes.end);
        groups
    }

    /// Edges of each tile times `columns`: lengths of its rows in a buffer of edges.
    pub fn edge_lengths(&self, tiles: &Tiles, columns: usize) -> Vec<usize> {
        let offsets = integers(&self.in_offsets);
        let edges = |nodes: Range<usize>| (offsets[nodes.end] - offsets[nodes.start]) as usize;
        (0..tiles.count()).map(|tile| edges(tiles.range(tile)) * columns).collect()
    }

    /// First edge of a node.
    pub fn edge(&self, node: usize) -> usize {
        integers(&self.in_offsets)[node] as usize
    }

    /// `[W_a - W_b | W_b | W_S]`, `[I, stride]`, each part scaled by column where a scale is given.
    pub fn node_weights(&self, scale: Option<&[f32]>, side_scale: Option<&[f32]>) -> Vec<f32> {
        let (inputs, c) = (self.inputs(), self.width(0));
        let (receiver, sender) = slice(&self.layers[0].weight).split_at(inputs * c);
        let factor = |scale: Option<&[f32]>, j: usize| scale.map_or(1.0, |scale| scale[j]);
        let mut weights = Vec::with_capacity(inputs * self.stride());
        for row in 0..inputs {
            let (receiver, sender) = (&receiver[row * c..][..c], &sender[row * c..][..c]);
            weights.extend((0..c).map(|j| (receiver[j] - sender[j]) * factor(scale, j)));
            weights.extend((0..c).map(|j| sender[j] * factor(scale, j)));
            if let Some(side) = &self.shortcut {
                let columns = side.columns();
                let side = &slice(&side.weight)[row * columns..][..columns];
                weights.extend((0..columns).map(|j| side[j] * factor(side_scale, j)));
            }
        }
        weights
    }
}

/// What the forward pass leaves for the backward.
#[derive(Debug)]
pub struct Passed {
    /// `[N, C_L]`.
    pub y: Vec<f32>,
    /// `[N, stride]`.
    pub u: Buffer,
    /// Sum of the senders' `Q` of each node, `[N, C_1]`.
    pub senders: Buffer,
    /// Messages before the norms of all layers but the first, `[E, C_l]`.
    pub z: Vec<Buffer>,
    /// `[M | S]` of each node, `[N, 2 C_L]`; see [`kernels::last_sums`].
    pub last: Buffer,
    /// Of each norm of the messages.
    pub statistics: Vec<Statistics>,
    /// Of the shortcut's norm.
    pub statistics_side: Option<Statistics>,
}

/// All passes, keeping what the backward needs.
pub fn forward(inputs: &Inputs, path: Path) -> Passed {
    let tiles = inputs.tiles();
    let mut passed = node_pass(inputs, &tiles, path);
    for layer in 1..inputs.layers.len() {
        let (z, statistics) = layer_pass(inputs, &tiles, &passed, layer, path);
        passed.z.push(z);
        passed.statistics.push(statistics);
    }
    last_pass(inputs, &tiles, &mut passed, path);
    passed
}

/// The node product, and the statistics of the first norm and of the shortcut's.
fn node_pass(inputs: &Inputs, tiles: &Tiles, path: Path) -> Passed {
    let (c, stride) = (inputs.width(0), inputs.stride());
    let weights = inputs.node_weights(None, None);
    let weights = Matrix::rows(&weights, inputs.inputs(), stride, stride);
    let mut u = Buffer::take(tiles.rows() * stride);
    let mut senders = Buffer::take(tiles.rows() * c);
    let pieces = tiles.split(&mut u, stride).into_iter().zip(tiles.split(&mut senders, c));
    let sums: Vec<(Sums, Sums)> = in_turn(
        pieces.enumerate().collect(),
        || (),
        |_, (tile, (u, senders))| {
            let nodes = tiles.range(tile);
            product(u, stride, false, row_range(&inputs.x, nodes.clone()), weights);
            let mut messages = Sums::new(c);
            let edges = inputs.edges_of(nodes.start, nodes.clone());
            kernels::message_sums(path, u, stride, edges, &mut messages, senders);
            let mut side = Sums::default();
            if let Some(shortcut) = &inputs.shortcut
                && shortcut.norm.running.is_none()
            {
                side = Sums::new(shortcut.columns());
                column_sums(path, &u[2 * c..], stride, nodes.len(), &mut side);
            }
            (messages, side)
        },
    );
    let first = inputs.layers[0].norm.statistics();
    let first = first.unwrap_or_else(|| Statistics::join(sums.iter().map(|(messages, _)| messages), c));
    let statistics_side = inputs.shortcut.as_ref().map(|shortcut| {
        let sums = sums.iter().map(|(_, side)| side);
        shortcut.norm.statistics().unwrap_or_else(|| Statistics::join(sums, shortcut.columns()))
    });
    Passed {
        y: Vec::new(),
        u,
        senders,
        z: Vec::new(),
        last: Buffer::default(),
        statistics: vec![first],
        statistics_side,
    }
}

/// Rows of `u` of a tile.
pub fn tile_rows<'a>(u: &'a [f32], nodes: &Range<usize>, stride: usize) -> &'a [f32] {
    &u[nodes.start * stride..nodes.end * stride]
}

/// Messages of a group after the norm and ReLU of `layer`.
#[allow(clippy::too_many_arguments)]
pub fn hidden(
    inputs: &Inputs,
    passed: &Passed,
    layer: usize,
    norm: Affine<'_>,
    u: &[f32],
    edges: Edges<'_>,
    out: &mut [f32],
    path: Path,
) {
    match layer {
        0 => kernels::messages(path, u, inputs.stride(), edges, norm, out),
        _ => {
            kernels::normed_relu(path, rows_of_group(&passed.z[layer - 1], edges, norm.mean.len()), norm, out)
        }
    }
}

/// Rows of a group in a buffer of edges.
pub fn rows_of_group<'a>(z: &'a [f32], edges: Edges<'_>, columns: usize) -> &'a [f32] {
    let start = edges.offsets[0] as usize * columns;
    &z[start..start + edges.senders.len() * columns]
}

/// Norm, ReLU, product of one layer, and its statistics.
fn layer_pass(
    inputs: &Inputs,
    tiles: &Tiles,
    passed: &Passed,
    layer: usize,
    path: Path,
) -> (Buffer, Statistics) {
    let (before, here) = (&inputs.layers[layer - 1], &inputs.layers[layer]);
    let (from, to) = (before.columns(), here.columns());
    let statistics = &passed.statistics[layer - 1];
    let scale = before.scale(statistics);
    let norm = before.affine(statistics, &scale);
    let weight = Packed::new(slice(&here.weight), from, to);
    let batch = here.norm.running.is_none();
    let mut z = Buffer::take(inputs.edges() * to);
    let pieces = split(&mut z, inputs.edge_lengths(tiles, to).into_iter()).into_iter().enumerate().collect();
    let sums: Vec<Vec<Sums>> = in_turn(pieces, Buffer::default, |h, (tile, z): (usize, &mut [f32])| {
        let nodes = tiles.range(tile);
        let u = tile_rows(&passed.u, &nodes, inputs.stride());
        let start = inputs.edge(nodes.start);
        let mut sums: Vec<Sums> = Vec::new();
        for group in inputs.groups(nodes.clone(), from.max(to)) {
            let edges = inputs.edges_of(nodes.start, group);
            let count = edges.senders.len();
            let h = h.at_least(count * from);
            let at = edges.offsets[0] as usize - start;
            let z = &mut z[at * to..(at + count) * to];
            hidden(inputs, passed, layer - 1, norm, u, edges, h, path);
            weight.after(h, count, z);
            if batch && count > 0 {
                let mut sum = Sums::new(to);
                match sums.first() {
                    // The first group's mean is near enough for the others of the tile.
                    Some(first) => {
                        sum.shift.clone_from(&first.shift);
                        kernels::shifted_sums(path, z, count, &mut sum);
                    }
                    None => column_sums(path, z, to, count, &mut sum),
                }
                sums.push(sum);
            }
        }
        sums
    });
    let statistics = here.norm.statistics().unwrap_or_else(|| Statistics::join(sums.iter().flatten(), to));
    (z, statistics)
}

/// Last norm, ReLU, mean over edges, shortcut, ReLU.
fn last_pass(inputs: &Inputs, tiles: &Tiles, passed: &mut Passed, path: Path) {
    let layers = inputs.layers.len();
    let (c, stride) = (inputs.outputs(), inputs.stride());
    let last = &inputs.layers[layers - 1];
    let scale = last.scale(&passed.statistics[layers - 1]);
    let norm = last.affine(&passed.statistics[layers - 1], &scale);
    let side = inputs.shortcut.as_ref().zip(passed.statistics_side.as_ref());
    let side = side.map(|(side, statistics)| (side, statistics, side.scale(statistics)));
    let mut y = unset(tiles.rows() * c);
    let mut sums = Buffer::take(tiles.rows() * 2 * c);
    let pieces = tiles.split(&mut y, c).into_iter().zip(tiles.split(&mut sums, 2 * c));
    in_turn(pieces.enumerate().collect(), Buffer::default, |gathered, (tile, (y, sums))| {
        let nodes = tiles.range(tile);
        let u = tile_rows(&passed.u, &nodes, stride);
        if layers == 1 {
            for group in inputs.groups(nodes.clone(), c) {
                let edges = inputs.edges_of(nodes.start, group.clone());
                let z = gathered.at_least(edges.senders.len() * c);
                kernels::gather(path, u, stride, edges, c, z);
                let rows = (group.start - nodes.start) * 2 * c..(group.end - nodes.start) * 2 * c;
                kernels::last_sums(path, z, edges, norm, &mut sums[rows]);
            }
        } else {
            let edges = inputs.edges_of(nodes.start, nodes.clone());
            let z = rows_of_group(&passed.z[layers - 2], edges, c);
            kernels::last_sums(path, z, edges, norm, sums);
        }
        let edges = inputs.edges_of(nodes.start, nodes.clone());
        kernels::node_means(path, sums, edges, norm.scale, norm.bias, y);
        match &side {
            Some((side, statistics, scale)) => {
                let s = &u[2 * inputs.width(0)..];
                kernels::add_normed(path, s, stride, side.affine(statistics, scale), y);
            }
            None => {
                let (x, x_stride) = rows(&inputs.x);
                kernels::add_plain(path, &x[nodes.start * x_stride..], x_stride, c, y);
            }
        }
    });
    passed.y = y;
    passed.last = sums;
}

/// One pass with every norm folded into the weights; `None` if a norm uses the batch's statistics.
pub fn forward_folded(inputs: &Inputs, path: Path) -> Option<Vec<f32>> {
    let stride = inputs.stride();
    let folded: Vec<_> = inputs.layers.iter().map(|layer| layer.norm.folded()).collect::<Option<_>>()?;
    let side = match &inputs.shortcut {
        Some(side) => Some(side.norm.folded()?),
        None => None,
    };
    let tiles = inputs.tiles();
    let nodes_weight = inputs.node_weights(Some(&folded[0].0), side.as_ref().map(|(scale, _)| &scale[..]));
    let nodes_weight = Matrix::rows(&nodes_weight, inputs.inputs(), stride, stride);
    let weights: Vec<Packed> = (inputs.layers.iter().zip(&folded).skip(1))
        .map(|(layer, (scale, _))| {
            let values = slice(&layer.weight);
            let c = scale.len();
            let values: Vec<f32> =
                values.iter().enumerate().map(|(at, value)| value * scale[at % c]).collect();
            Packed::new(&values, values.len() / c, c)
        })
        .collect();
    let widest = (0..inputs.layers.len()).map(|layer| inputs.width(layer)).max().unwrap_or(1);
    let c = inputs.outputs();
    let mut y = unset(tiles.rows() * c);
    in_turn(
        tiles.split(&mut y, c).into_iter().enumerate().collect(),
        <(Buffer, Buffer, Buffer)>::default,
        |(u, one, other), (tile, y): (usize, &mut [f32])| {
            let nodes = tiles.range(tile);
            let u = u.at_least(nodes.len() * stride);
            product(u, stride, false, row_range(&inputs.x, nodes.clone()), nodes_weight);
            for group in inputs.groups(nodes.clone(), widest) {
                let edges = inputs.edges_of(nodes.start, group.clone());
                let count = edges.senders.len();
                let y = &mut y[(group.start - nodes.start) * c..(group.end - nodes.start) * c];
                let (mut h, mut z) = (one.at_least(count * widest), other.at_least(count * widest));
                let width = inputs.width(0);
                match weights.len() {
                    0 => {
                        kernels::gather(path, u, stride, edges, width, &mut h[..count * width]);
                    }
                    _ => kernels::folded_messages(path, u, stride, edges, &folded[0].1, h),
                }
                for (layer, weight) in weights.iter().enumerate() {
                    let to = inputs.width(layer + 1);
                    weight.after(h, count, z);
                    if layer + 1 < weights.len() {
                        kernels::add_relu(path, &mut z[..count * to], &folded[layer + 1].1);
                    }
                    std::mem::swap(&mut h, &mut z);
                }
                kernels::folded_means(path, h, edges, &folded[weights.len()].1, y);
            }
            match &side {
                Some((_, shift)) => {
                    let (zeros, ones) = (vec![0f32; c], vec![1f32; c]);
                    let norm = Affine { mean: &zeros, scale: &ones, bias: shift };
                    kernels::add_normed(path, &u[2 * inputs.width(0)..], stride, norm, y);
                }
                None => {
                    let (x, x_stride) = rows(&inputs.x);
                    kernels::add_plain(path, &x[nodes.start * x_stride..], x_stride, c, y);
                }
            }
        },
    );
    Some(y)
}
