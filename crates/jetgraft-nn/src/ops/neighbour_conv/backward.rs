//! Backward kernel of EdgeConv on neighbours: one pass over the tiles for each linear map, from the last to the first,
//! parted by the sums that the norms need.
//!
//! Messages after a norm are computed again from those before it. The sums of the last norm follow from `[M | S]`, and
//! those of the first from sums over each node's edges, so that neither the first nor the last gradient of the messages
//! is ever stored.

use super::cpu::{Inputs, Layer, Passed, hidden, rows_of_group, tile_rows};
use super::kernels;
use crate::ops::bridge::{row_range, slice};
use crate::ops::cpu::{
    Buffer, Matrix, NormGradient, Path, Tiles, add_up, in_turn, product, split, transposed, unset,
};

/// Values of a gradient, and its columns if it is a matrix. A gradient that nobody waits for is empty.
type Gradient = (Vec<f32>, Option<usize>);

/// Sums of a gradient and of its product with a centred value, per tile.
type Pairs = Vec<(Vec<f32>, Vec<f32>)>;

fn pairs(sums: &Pairs) -> impl Iterator<Item = (&[f32], &[f32])> {
    sums.iter().map(|(first, second)| (&first[..], &second[..]))
}

/// Gradients of the parents in their order: `x`; weight, scale and shift of each layer; those of the shortcut.
/// `waits` says who waits for which. From the gradient of the output, `dy: [N, C_L]`, and the output `y`.
pub fn backward(
    inputs: &Inputs,
    passed: &Passed,
    y: &[f32],
    dy: &[f32],
    waits: &[bool],
    path: Path,
) -> Vec<Gradient> {
    let tiles = inputs.tiles();
    let layers = inputs.layers.len();
    let work = Work { inputs, tiles: &tiles, passed, path };
    let mut found: Vec<Gradient> = waits.iter().map(|_| (Vec::new(), None)).collect();
    // Parents of layer `l` are 1 + 3 l and on; those of the shortcut come behind the layers.
    let side_at = 1 + 3 * layers;
    let side_waits = inputs.shortcut.is_some() && waits[side_at];
    // The earliest layer whose messages' gradient someone needs.
    let earliest =
        (0..layers).find(|&layer| waits[1 + 3 * layer..4 + 3 * layer].contains(&true)).unwrap_or(layers - 1);
    let earliest = if waits[0] { 0 } else { earliest };

    let (d, last_sums, side_sums) = work.output_pass(y, dy);
    let side = inputs.shortcut.as_ref().zip(passed.statistics_side.as_ref());
    let side = side
        .map(|(side, statistics)| NormGradient::new(pairs(&side_sums), statistics, slice(&side.norm.weight)));
    let norm_of = |layer: usize, sums: &Pairs| {
        let weight = slice(&inputs.layers[layer].norm.weight);
        NormGradient::new(pairs(sums), &passed.statistics[layer], weight)
    };
    let mut norm = norm_of(layers - 1, &last_sums);
    let mut gradient = Buffer::default();
    let mut nodes = Buffer::default();
    for layer in (1..layers).rev() {
        (found[2 + 3 * layer].0, found[3 + 3 * layer].0) = (norm.weight.clone(), norm.bias.clone());
        if earliest > layer || (earliest == layer && !waits[1 + 3 * layer]) {
            break;
        }
        let (next, sums, weight) = work.layer_pass(layer, &d, gradient, &norm, waits[1 + 3 * layer]);
        found[1 + 3 * layer] = (weight, Some(inputs.width(layer)));
        norm = norm_of(layer - 1, &sums);
        gradient = Buffer::default();
        if layer == 1 { nodes = next } else { gradient = next }
    }
    if earliest == 0 {
        if layers == 1 {
            let sums;
            (nodes, sums) = work.only_layer(&d);
            norm = norm_of(0, &sums);
        }
        (found[2].0, found[3].0) = (norm.weight.clone(), norm.bias.clone());
    }
    let first = (earliest == 0).then_some((&norm, &nodes[..]));
    let node_weights = waits[1] || side_waits;
    if waits[0] || node_weights {
        let (x, joined) = work.node_pass(&d, first, side.as_ref(), waits[0], node_weights);
        found[0] = (x, Some(inputs.inputs()));
        if node_weights {
            let (first, shortcut) = work.part(&joined);
            found[1] = (first, Some(inputs.width(0)));
            if inputs.shortcut.is_some() {
                found[side_at] = (shortcut, Some(inputs.outputs()));
            }
        }
    }
    if let Some(side) = side {
        (found[side_at + 1].0, found[side_at + 2].0) = (side.weight, side.bias);
    }
    found
}

/// What every pass reads.
#[derive(Clone, Copy)]
struct Work<'a> {
    inputs: &'a Inputs,
    tiles: &'a Tiles,
    passed: &'a Passed,
    path: Path,
}

impl Work<'_> {
    /// Through the last ReLU: gradient of its argument, and the sums for the last norm and the shortcut's.
    fn output_pass(self, y: &[f32], dy: &[f32]) -> (Buffer, Pairs, Pairs) {
        let Self { inputs, tiles, passed, path } = self;
        let (c, stride) = (inputs.outputs(), inputs.stride());
        let mut d = Buffer::take(tiles.rows() * c);
        let pieces = tiles.split(&mut d, c).into_iter().enumerate().collect();
        let (last, side) = in_turn(
            pieces,
            || (),
            |_, (tile, d): (usize, &mut [f32])| {
                let nodes = tiles.range(tile);
                let here = nodes.start * c..nodes.end * c;
                let sums = &passed.last[2 * here.start..2 * here.end];
                let edges = inputs.edges_of(nodes.start, nodes.clone());
                let mut last = (vec![0f32; c], vec![0f32; c]);
                let (dy, y) = (&dy[here.clone()], &y[here]);
                kernels::output_gradient(path, dy, y, sums, edges, d, &mut last.0, &mut last.1);
                let mut side = (Vec::new(), Vec::new());
                if let Some(statistics) = &passed.statistics_side {
                    side = (vec![0f32; c], vec![0f32; c]);
                    let s = &passed.u[nodes.start * stride + 2 * inputs.width(0)..];
                    kernels::side_sums(path, d, s, stride, &statistics.mean, &mut side.0, &mut side.1);
                }
                (last, side)
            },
        )
        .into_iter()
        .unzip();
        (d, last, side)
    }

    /// From the gradient of the output of the norm of `layer` to that of the layer before, with its sums and the
    /// gradient of the layer's weight. The gradient is `d` by nodes for the last layer, and else `gradient` by edges.
    /// What comes out is by edges too, or for the first layer by nodes; see [`kernels::to_nodes`].
    fn layer_pass(
        self,
        layer: usize,
        d: &[f32],
        gradient: Buffer,
        norm: &NormGradient,
        want_weight: bool,
    ) -> (Buffer, Pairs, Vec<f32>) {
        let Self { inputs, tiles, passed, path } = self;
        let (before, here) = (&inputs.layers[layer - 1], &inputs.layers[layer]);
        let (from, to, stride) = (before.columns(), here.columns(), inputs.stride());
        let last = layer + 1 == inputs.layers.len();
        let statistics = &passed.statistics[layer];
        let affine = here.affine(statistics, &norm.k0);
        let statistics_before = &passed.statistics[layer - 1];
        let scale_before = before.scale(statistics_before);
        let affine_before = before.affine(statistics_before, &scale_before);
        let turned = transposed(slice(&here.weight), from, to);
        let turned = Matrix::rows(&turned, to, from, from);
        let z = &passed.z[layer - 1];

        let nodes_out = layer == 1;
        let rows = if nodes_out { 2 * tiles.rows() } else { inputs.edges() };
        let mut out = Buffer::take(rows * from);
        let lengths = match nodes_out {
            true => (0..tiles.count()).map(|tile| 2 * tiles.range(tile).len() * from).collect(),
            false => inputs.edge_lengths(tiles, from),
        };
        let mut pieces = split(&mut out, lengths.into_iter()).into_iter();
        let runs: Vec<_> = (tiles.runs().into_iter())
            .map(|run| (run.clone(), pieces.by_ref().take(run.len()).collect::<Vec<_>>()))
            .collect();
        let done: Vec<(Pairs, Buffer)> =
            in_turn(runs, <(Buffer, Buffer, Buffer)>::default, |(h, dz, dh), (run, pieces)| {
                let mut weight = Buffer::take(if want_weight { from * to } else { 0 });
                weight.fill(0.0);
                let mut sums = Pairs::with_capacity(run.len());
                for (tile, out) in run.zip(pieces) {
                    let nodes = tiles.range(tile);
                    let u = tile_rows(&passed.u, &nodes, stride);
                    let start = inputs.edge(nodes.start);
                    let mut sum = (vec![0f32; from], vec![0f32; from]);
                    if nodes_out {
                        out.fill(0.0);
                    }
                    for group in inputs.groups(nodes.clone(), from.max(to)) {
                        let edges = inputs.edges_of(nodes.start, group.clone());
                        let count = edges.senders.len();
                        let (h, dz) = (h.at_least(count * from), dz.at_least(count * to));
                        let z = rows_of_group(z, edges, to);
                        if last {
                            let d = &d[group.start * to..group.end * to];
                            kernels::last_gradient(path, d, z, edges, affine, &norm.k1, &norm.k2, dz);
                        } else {
                            dz.copy_from_slice(rows_of_group(&gradient, edges, to));
                            let NormGradient { k0, k1, k2, .. } = norm;
                            kernels::inner_gradient(path, dz, z, affine.mean, k0, k1, k2);
                        }
                        hidden(inputs, passed, layer - 1, affine_before, u, edges, h, path);
                        let matrix = Matrix::rows(dz, count, to, to);
                        if want_weight {
                            let h = Matrix::rows(h, count, from, from).transposed();
                            product(&mut weight, to, true, h, matrix);
                        }
                        if nodes_out {
                            let dh = dh.at_least(count * from);
                            product(dh, from, false, matrix, turned);
                            kernels::to_nodes(path, dh, h, edges, from, out);
                        } else {
                            let at = edges.offsets[0] as usize - start;
                            let dh = &mut out[at * from..(at + count) * from];
                            product(dh, from, false, matrix, turned);
                            let z = rows_of_group(&passed.z[layer - 2], edges, from);
                            let mean = &statistics_before.mean;
                            kernels::inner_sums(path, dh, h, z, mean, &mut sum.0, &mut sum.1);
                        }
                    }
                    if nodes_out {
                        self.node_sums(out, u, &mut sum);
                    }
                    sums.push(sum);
                }
                (sums, weight)
            });
        let (sums, weights): (Vec<Pairs>, Vec<Buffer>) = done.into_iter().unzip();
        (out, sums.into_iter().flatten().collect(), add_up(weights))
    }

    /// Sums for the first norm from those of the tile's nodes.
    fn node_sums(self, sums: &[f32], u: &[f32], out: &mut (Vec<f32>, Vec<f32>)) {
        let (c, stride) = (self.inputs.width(0), self.inputs.stride());
        let mut centre = vec![0f32; c];
        for row in u.chunks_exact(stride) {
            centre.iter_mut().zip(&row[c..2 * c]).for_each(|(centre, q)| *centre += q);
        }
        let share = 1.0 / (u.len() / stride).max(1) as f32;
        centre.iter_mut().for_each(|centre| *centre *= share);
        let mean = &self.passed.statistics[0].mean;
        kernels::node_sums(self.path, sums, u, stride, mean, &centre, &mut out.0, &mut out.1);
    }

    /// The gradient of the only norm of the messages by nodes, with its sums.
    fn only_layer(self, d: &[f32]) -> (Buffer, Pairs) {
        let Self { inputs, tiles, passed, path } = self;
        let (c, stride) = (inputs.outputs(), inputs.stride());
        let layer: &Layer = &inputs.layers[0];
        let scale = layer.scale(&passed.statistics[0]);
        let norm = layer.affine(&passed.statistics[0], &scale);
        let mut out = Buffer::take(2 * tiles.rows() * c);
        let pieces = tiles.split(&mut out, 2 * c).into_iter().enumerate().collect();
        let sums =
            in_turn(pieces, <(Buffer, Buffer)>::default, |(h, dh), (tile, out): (usize, &mut [f32])| {
                let nodes = tiles.range(tile);
                let u = tile_rows(&passed.u, &nodes, stride);
                out.fill(0.0);
                for group in inputs.groups(nodes.clone(), c) {
                    let edges = inputs.edges_of(nodes.start, group.clone());
                    let length = edges.senders.len() * c;
                    let (h, dh) = (h.at_least(length), dh.at_least(length));
                    kernels::messages(path, u, stride, edges, norm, h);
                    kernels::share_out(path, &d[group.start * c..group.end * c], edges, c, dh);
                    kernels::to_nodes(path, dh, h, edges, c, out);
                }
                let mut sum = (vec![0f32; c], vec![0f32; c]);
                self.node_sums(out, u, &mut sum);
                sum
            });
        (out, sums)
    }

    /// Gradients of the input and of the joined weights `[I, stride]`; `first` is the first norm with the gradient of
    /// its output by nodes.
    fn node_pass(
        self,
        d: &[f32],
        first: Option<(&NormGradient, &[f32])>,
        side: Option<&NormGradient>,
        want_x: bool,
        want_weights: bool,
    ) -> (Vec<f32>, Vec<f32>) {
        let Self { inputs, tiles, passed, path } = self;
        let (width, c, outputs, stride) =
            (inputs.inputs(), inputs.width(0), inputs.outputs(), inputs.stride());
        let turned = transposed(&inputs.node_weights(None, None), width, stride);
        let turned = Matrix::rows(&turned, stride, width, width);
        let mut dx = unset(if want_x { tiles.rows() * width } else { 0 });
        let mut pieces: Vec<&mut [f32]> = match want_x {
            true => tiles.split(&mut dx, width),
            false => (0..tiles.count()).map(|_| Default::default()).collect(),
        };
        let mut pieces = pieces.drain(..);
        let runs: Vec<_> = (tiles.runs().into_iter())
            .map(|run| (run.clone(), pieces.by_ref().take(run.len()).collect::<Vec<_>>()))
            .collect();
        let weights: Vec<Buffer> =
            in_turn(runs, <(Buffer, Buffer, Buffer)>::default, |(du, received, counts), (run, pieces)| {
                let mut weight = Buffer::take(if want_weights { width * stride } else { 0 });
                weight.fill(0.0);
                for (tile, dx) in run.zip(pieces) {
                    let nodes = tiles.range(tile);
                    let u = tile_rows(&passed.u, &nodes, stride);
                    let d = &d[nodes.start * outputs..nodes.end * outputs];
                    let du = du.at_least(nodes.len() * stride);
                    match first {
                        Some((norm, sums)) => {
                            let edges = inputs.edges_of(nodes.start, nodes.clone());
                            let received = received.at_least(nodes.len() * c);
                            let counts = counts.at_least(nodes.len());
                            received.fill(0.0);
                            counts.fill(0.0);
                            let NormGradient { k0, k1, k2, .. } = norm;
                            if passed.statistics[0].rows > 0 {
                                kernels::receivers(path, u, stride, edges, c, received, counts);
                            }
                            let sums = &sums[2 * nodes.start * c..2 * nodes.end * c];
                            let sent = &passed.senders[nodes.start * c..nodes.end * c];
                            let mean = &passed.statistics[0].mean;
                            kernels::node_gradient(
                                path, sums, u, stride, edges, sent, received, counts, mean, k0, k1, k2, du,
                            );
                        }
                        None => du.chunks_mut(stride).for_each(|row| row[..2 * c].fill(0.0)),
                    }
                    if let (Some(norm), Some(statistics)) = (side, &passed.statistics_side) {
                        let (s, out) = (&u[2 * c..], &mut du[2 * c..]);
                        let NormGradient { k0, k1, k2, .. } = norm;
                        kernels::side_gradient(path, d, s, stride, &statistics.mean, k0, k1, k2, out);
                    }
                    let gradient = Matrix::rows(du, nodes.len(), stride, stride);
                    if want_weights {
                        let x = row_range(&inputs.x, nodes.clone()).transposed();
                        product(&mut weight, stride, true, x, gradient);
                    }
                    if want_x {
                        product(dx, width, false, gradient, turned);
                        if inputs.shortcut.is_none() {
                            kernels::add(path, d, dx);
                        }
                    }
                }
                weight
            });
        drop(pieces);
        (dx, add_up(weights))
    }

    /// Takes the joined gradient `[dP | dQ | dS]` apart: `u` holds `x (W_a - W_b)` and `x W_b`.
    fn part(self, joined: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (c, stride) = (self.inputs.width(0), self.inputs.stride());
        let rows = joined.chunks_exact(stride);
        let mut first: Vec<f32> = rows.clone().flat_map(|row| row[..c].iter().copied()).collect();
        first.extend(rows.clone().flat_map(|row| (0..c).map(|j| row[c + j] - row[j])));
        (first, rows.flat_map(|row| row[2 * c..].iter().copied()).collect())
    }
}
