//! Backward kernel of EdgeConv: three passes over the tiles, parted by the sums that the norms need.
//!
//! The messages before and after the first norm are computed again from `u`; only `u`, the messages before the
//! second norm and the output were kept.

use super::cpu::{Inputs, Passed};
use super::kernels;
use crate::ops::bridge::{row_range, slice};
use crate::ops::cpu::{
    Affine, Buffer, Matrix, NormGradient, Path, Statistics, Tiles, add_up, in_turn, product, split, unset,
};

/// Which gradients someone waits for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Of the input.
    pub x: bool,
    /// Of `Theta`, `Phi` or the shortcut's weight.
    pub node_weights: bool,
    /// Of the second product's weight.
    pub linear: bool,
    /// Of the first norm's parameters.
    pub norm_1: bool,
}

/// Gradients of a block; a vector that nobody waits for is empty.
#[derive(Debug, Default)]
pub struct Gradients {
    /// `[N, I]`.
    pub x: Vec<f32>,
    /// `[I, C]`.
    pub theta: Vec<f32>,
    /// `[I, C]`.
    pub phi: Vec<f32>,
    /// `[C, C]`.
    pub linear: Vec<f32>,
    /// Scale and shift of the first norm.
    pub norm_1: (Vec<f32>, Vec<f32>),
    /// Of the second norm.
    pub norm_2: (Vec<f32>, Vec<f32>),
    /// `[I, C]`.
    pub shortcut: Vec<f32>,
    /// Of the shortcut's norm.
    pub shortcut_norm: (Vec<f32>, Vec<f32>),
}

/// Sums of a gradient and of its product with a centred value, per tile.
type Pairs = Vec<(Vec<f32>, Vec<f32>)>;

fn pairs(sums: &Pairs) -> impl Iterator<Item = (&[f32], &[f32])> {
    sums.iter().map(|(first, second)| (&first[..], &second[..]))
}

/// Gradients from that of the output, `dy: [N, C]`, and the output `y`, both contiguous.
pub fn backward(
    inputs: &Inputs,
    passed: &Passed,
    y: &[f32],
    dy: &[f32],
    wanted: Wanted,
    path: Path,
) -> Gradients {
    let tiles = inputs.tiles();
    let c = inputs.outputs();
    let mut gradients = Gradients::default();

    let (d, second_sums, side_sums) = output_pass(inputs, &tiles, passed, y, dy, path);
    let side =
        inputs.shortcut.as_ref().zip(passed.statistics_side.as_ref()).map(|((_, norm), statistics)| {
            NormGradient::new(pairs(&side_sums), statistics, slice(&norm.weight))
        });
    let mut messages = Buffer::default();
    let mut first = None;
    match (&passed.statistics_1, &passed.statistics_2) {
        (Some(statistics_1), Some(statistics_2)) => {
            let second = NormGradient::new(pairs(&second_sums), statistics_2, slice(&inputs.norm_2.weight));
            if wanted.x || wanted.node_weights || wanted.linear || wanted.norm_1 {
                let pass = Messages { inputs, tiles: &tiles, passed, statistics_1, statistics_2, path };
                let (dz, first_sums, linear) = pass.run(&d, &second, wanted.linear);
                (messages, gradients.linear) = (dz, linear);
                let norm = NormGradient::new(pairs(&first_sums), statistics_1, slice(&inputs.norm_1.weight));
                gradients.norm_1 = (norm.weight.clone(), norm.bias.clone());
                first = Some((norm, statistics_1));
            }
            gradients.norm_2 = (second.weight, second.bias);
        }
        _ => {
            gradients.linear = vec![0.0; c * c];
            gradients.norm_1 = (vec![0.0; c], vec![0.0; c]);
            gradients.norm_2 = (vec![0.0; c], vec![0.0; c]);
        }
    }
    if wanted.x || wanted.node_weights {
        let pass = Nodes { inputs, tiles: &tiles, passed, side: side.as_ref(), first: first.as_ref(), path };
        let (x, weights) = pass.run(&d, &messages, wanted);
        gradients.x = x;
        if wanted.node_weights {
            pass.part(&weights, &mut gradients);
        }
    }
    if let Some(side) = side {
        gradients.shortcut_norm = (side.weight, side.bias);
    }
    gradients
}

/// Through the last ReLU: gradient of its argument, and the sums for the second norm and the shortcut's.
fn output_pass(
    inputs: &Inputs,
    tiles: &Tiles,
    passed: &Passed,
    y: &[f32],
    dy: &[f32],
    path: Path,
) -> (Buffer, Pairs, Pairs) {
    let (c, stride) = (inputs.outputs(), inputs.stride());
    let second = passed.statistics_2.as_ref().map(|statistics| {
        (statistics, statistics.scale(slice(&inputs.norm_2.weight)), slice(&inputs.norm_2.bias))
    });
    let mut d = Buffer::take(tiles.rows() * c);
    let tasks = tiles.split(&mut d, c).into_iter().enumerate().collect();
    let sums = in_turn(
        tasks,
        || (),
        |(), (tile, d): (usize, &mut [f32])| {
            let nodes = tiles.range(tile);
            let here = nodes.start * c..nodes.end * c;
            kernels::where_positive(path, &dy[here.clone()], &y[here], d);
            let mut edge_sums = (vec![0f32; c], vec![0f32; c]);
            if let Some((statistics, scale, bias)) = &second {
                let edges = inputs.edges_of(tiles, tile);
                let start = edges.offsets[0] as usize;
                let z = &passed.z[start * c..(start + edges.senders.len()) * c];
                let norm = Affine { mean: &statistics.mean, scale, bias };
                kernels::second_sums(path, d, z, edges, norm, &mut edge_sums.0, &mut edge_sums.1);
            }
            let mut side_sums = (Vec::new(), Vec::new());
            if let Some(statistics) = &passed.statistics_side {
                side_sums = (vec![0f32; c], vec![0f32; c]);
                let s = &passed.u[nodes.start * stride + 2 * c..];
                let (first, second) = (&mut side_sums.0, &mut side_sums.1);
                kernels::side_sums(path, d, s, stride, &statistics.mean, first, second);
            }
            (edge_sums, side_sums)
        },
    );
    let (second, side) = sums.into_iter().unzip();
    (d, second, side)
}

/// From the output's gradient to that of the messages after the first norm.
struct Messages<'a> {
    inputs: &'a Inputs,
    tiles: &'a Tiles,
    passed: &'a Passed,
    statistics_1: &'a Statistics,
    statistics_2: &'a Statistics,
    path: Path,
}

impl Messages<'_> {
    /// Gradients `[E, C]` of the first norm's output, their sums, and the gradient of the product's weight.
    fn run(&self, d: &[f32], second: &NormGradient, want_weight: bool) -> (Buffer, Pairs, Vec<f32>) {
        let Self { inputs, tiles, passed, statistics_1, statistics_2, path } = *self;
        let (c, stride) = (inputs.outputs(), inputs.stride());
        let scale_1 = statistics_1.scale(slice(&inputs.norm_1.weight));
        let norm_1 = Affine { mean: &statistics_1.mean, scale: &scale_1, bias: slice(&inputs.norm_1.bias) };
        let norm_2 = Affine { mean: &statistics_2.mean, scale: &second.k0, bias: slice(&inputs.norm_2.bias) };
        let linear = Matrix::rows(slice(&inputs.linear), c, c, c).transposed();
        let mut out = Buffer::take(inputs.edges() * c);
        let mut pieces = split(&mut out, inputs.edge_lengths(tiles, c).into_iter()).into_iter();
        let runs: Vec<_> = tiles
            .runs()
            .into_iter()
            .map(|run| (run.clone(), pieces.by_ref().take(run.len()).collect::<Vec<_>>()))
            .collect();
        let done: Vec<(Pairs, Buffer)> =
            in_turn(runs, <(Buffer, Buffer)>::default, |(h, dz), (run, pieces)| {
                let mut weight = Buffer::take(if want_weight { c * c } else { 0 });
                weight.fill(0.0);
                let mut sums = Pairs::with_capacity(run.len());
                for (tile, out) in run.zip(pieces) {
                    let nodes = tiles.range(tile);
                    let edges = inputs.edges_of(tiles, tile);
                    let (start, count) = (edges.offsets[0] as usize, edges.senders.len());
                    let u = &passed.u[nodes.start * stride..nodes.end * stride];
                    let z = &passed.z[start * c..(start + count) * c];
                    let (h, dz) = (h.at_least(count * c), dz.at_least(count * c));
                    kernels::messages(path, u, stride, edges, norm_1, h);
                    let d = &d[nodes.start * c..nodes.end * c];
                    kernels::second_gradient(path, d, z, edges, norm_2, &second.k1, &second.k2, dz);
                    let gradient = Matrix::rows(dz, count, c, c);
                    if want_weight {
                        let h = Matrix::rows(h, count, c, c).transposed();
                        product(&mut weight, c, true, h, gradient);
                    }
                    product(out, c, false, gradient, linear);
                    let mut sum = (vec![0f32; c], vec![0f32; c]);
                    let mean = &statistics_1.mean;
                    kernels::first_sums(path, out, h, u, stride, edges, mean, &mut sum.0, &mut sum.1);
                    sums.push(sum);
                }
                (sums, weight)
            });
        let (sums, weights): (Vec<Pairs>, Vec<Buffer>) = done.into_iter().unzip();
        (out, sums.into_iter().flatten().collect(), add_up(weights))
    }
}

/// From the messages' gradient to those of the nodes and of the maps that act on them.
struct Nodes<'a> {
    inputs: &'a Inputs,
    tiles: &'a Tiles,
    passed: &'a Passed,
    side: Option<&'a NormGradient>,
    first: Option<&'a (NormGradient, &'a Statistics)>,
    path: Path,
}

impl Nodes<'_> {
    /// Gradients of the input and of the joined weights `[I, stride]`.
    fn run(&self, d: &[f32], messages: &[f32], wanted: Wanted) -> (Vec<f32>, Vec<f32>) {
        let Self { inputs, tiles, passed, .. } = *self;
        let (width, c, stride) = (inputs.inputs(), inputs.outputs(), inputs.stride());
        let joined = inputs.node_weights(None, None);
        let joined = Matrix::rows(&joined, width, stride, stride).transposed();
        let mut dx = unset(if wanted.x { tiles.rows() * width } else { 0 });
        let mut pieces: Vec<&mut [f32]> = if wanted.x {
            tiles.split(&mut dx, width)
        } else {
            (0..tiles.count()).map(|_| Default::default()).collect()
        };
        let mut pieces = pieces.drain(..);
        let runs: Vec<_> = tiles
            .runs()
            .into_iter()
            .map(|run| (run.clone(), pieces.by_ref().take(run.len()).collect::<Vec<_>>()))
            .collect();
        let weights: Vec<Buffer> = in_turn(runs, Buffer::default, |du, (run, pieces)| {
            let mut weight = Buffer::take(if wanted.node_weights { width * stride } else { 0 });
            weight.fill(0.0);
            for (tile, dx) in run.zip(pieces) {
                let nodes = tiles.range(tile);
                let u = &passed.u[nodes.start * stride..nodes.end * stride];
                let d = &d[nodes.start * c..nodes.end * c];
                let du = du.at_least(nodes.len() * stride);
                self.node_gradient(tile, d, messages, u, du);
                let gradient = Matrix::rows(du, nodes.len(), stride, stride);
                if wanted.node_weights {
                    let x = row_range(&inputs.x, nodes.clone()).transposed();
                    product(&mut weight, stride, true, x, gradient);
                }
                if wanted.x {
                    product(dx, width, false, gradient, joined);
                    if inputs.shortcut.is_none() {
                        kernels::add(self.path, d, dx);
                    }
                }
            }
            weight
        });
        drop(pieces);
        (dx, add_up(weights))
    }

    /// Gradient of the tile's rows of `u`.
    fn node_gradient(&self, tile: usize, d: &[f32], messages: &[f32], u: &[f32], du: &mut [f32]) {
        let (c, stride) = (self.inputs.outputs(), self.inputs.stride());
        match self.first {
            Some((norm, statistics)) => {
                let edges = self.inputs.edges_of(self.tiles, tile);
                let start = edges.offsets[0] as usize;
                let messages = &messages[start * c..(start + edges.senders.len()) * c];
                let mean = &statistics.mean;
                let NormGradient { k0, k1, k2, .. } = norm;
                kernels::to_nodes(self.path, messages, u, stride, edges, mean, k0, k1, k2, du);
            }
            None => du.chunks_mut(stride).for_each(|row| row[..2 * c].fill(0.0)),
        }
        if let (Some(norm), Some(statistics)) = (self.side, &self.passed.statistics_side)
            && !du.is_empty()
        {
            let (s, out) = (&u[2 * c..], &mut du[2 * c..]);
            let NormGradient { k0, k1, k2, .. } = norm;
            kernels::side_gradient(self.path, d, s, stride, &statistics.mean, k0, k1, k2, out);
        }
    }

    /// Takes the joined gradient `[dA | dB | dS]` apart: `u` holds `x Theta` and `x (Phi - Theta)`.
    fn part(&self, joined: &[f32], gradients: &mut Gradients) {
        let (c, stride) = (self.inputs.outputs(), self.inputs.stride());
        for row in joined.chunks_exact(stride) {
            let (receiver, rest) = row.split_at(c);
            let (sender, side) = rest.split_at(c);
            gradients.theta.extend(receiver.iter().zip(sender).map(|(receiver, sender)| receiver - sender));
            gradients.phi.extend_from_slice(sender);
            gradients.shortcut.extend_from_slice(side);
        }
    }
}
