//! Kernels of the readout: one pass forward, one pass backward.

use std::ops::Range;

use crate::ops::bridge::{integers, rows, slice};
use crate::ops::cpu::{
    Buffer, CpuNorm, Matrix, NormGradient, Path, Statistics, Sums, Tiles, add_up, column_sums, in_turn,
    kernels, product, relu, unset,
};
use burn::backend::flex::FlexTensor;

/// Everything that the readout reads.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// `[N, I_i]` each, with whole rows.
    pub pieces: Vec<FlexTensor>,
    /// `[sum of I_i, C]`.
    pub weight: FlexTensor,
    /// `[C]`.
    pub bias: FlexTensor,
    /// The norm over nodes.
    pub norm: CpuNorm,
    /// `[B + 1]`.
    pub jet_offsets: FlexTensor,
}

impl Inputs {
    /// Number of jets, B.
    pub fn jets(&self) -> usize {
        integers(&self.jet_offsets).len() - 1
    }

    /// Width of the output, C.
    pub fn outputs(&self) -> usize {
        self.weight.layout().shape()[1]
    }

    /// The tiles of the batch.
    pub fn tiles(&self) -> Tiles {
        Tiles::new(integers(&self.jet_offsets))
    }

    /// Width of all pieces side by side.
    fn joined(&self) -> usize {
        self.weight.layout().shape()[0]
    }

    /// Rows `nodes` of all pieces side by side, into `out`: one product of the joined rows is faster than one a piece,
    /// each of which would go through the result again.
    fn join(&self, nodes: Range<usize>, out: &mut [f32]) {
        let width = self.joined();
        let mut start = 0;
        for piece in &self.pieces {
            let columns = piece.layout().shape()[1];
            let (data, stride) = rows(piece);
            for (out, node) in out.chunks_exact_mut(width).zip(nodes.clone()) {
                out[start..start + columns].copy_from_slice(&data[node * stride..node * stride + columns]);
            }
            start += columns;
        }
    }

    /// Offsets of the jets of a tile.
    fn offsets(&self, tiles: &Tiles, tile: usize) -> &[i32] {
        &integers(&self.jet_offsets)[tiles.jets[tile]..=tiles.jets[tile + 1]]
    }
}

/// What the forward pass leaves for the backward.
#[derive(Debug)]
pub struct Passed {
    /// After the ReLU, `[N, C]`; empty where no gradient is needed.
    pub r: Buffer,
    /// Mean of `r` over the nodes of each jet, `[B, C]`.
    pub means: Vec<f32>,
    /// Of the norm.
    pub statistics: Statistics,
}

/// The output `[B, C]`; `keep` says whether there will be a backward.
pub fn forward(inputs: &Inputs, keep: bool, path: Path) -> (Vec<f32>, Passed) {
    let c = inputs.outputs();
    let tiles = inputs.tiles();
    let width = inputs.joined();
    let weight = Matrix::rows(slice(&inputs.weight), width, c, c);
    let bias = slice(&inputs.bias);
    let batch = inputs.norm.running.is_none();
    let mut r = Buffer::take(if keep { tiles.rows() * c } else { 0 });
    let mut means = unset(inputs.jets() * c);
    let pieces: Vec<&mut [f32]> =
        if keep { tiles.split(&mut r, c) } else { (0..tiles.count()).map(|_| Default::default()).collect() };
    let jets = (0..tiles.count()).map(|tile| (tiles.jets[tile + 1] - tiles.jets[tile]) * c);
    let jets = crate::ops::cpu::split(&mut means, jets);
    let tasks = pieces.into_iter().zip(jets).enumerate().collect();
    let sums: Vec<Sums> = in_turn(tasks, <(Buffer, Buffer)>::default, |(local, x), (tile, (kept, means))| {
        let nodes = tiles.range(tile);
        let r = if keep { kept } else { local.at_least(nodes.len() * c) };
        let x = x.at_least(nodes.len() * width);
        inputs.join(nodes.clone(), x);
        product(r, c, false, Matrix::rows(x, nodes.len(), width, width), weight);
        add_relu(path, bias, r);
        jet_means(path, r, inputs.offsets(&tiles, tile), c, means);
        let mut sums = Sums::new(c);
        if batch {
            column_sums(path, r, c, nodes.len(), &mut sums);
        }
        sums
    });
    let statistics = inputs.norm.statistics().unwrap_or_else(|| Statistics::join(sums.iter(), c));
    let scale = statistics.scale(slice(&inputs.norm.weight));
    let shift = slice(&inputs.norm.bias);
    let out = (means.iter().enumerate())
        .map(|(at, mean)| (mean - statistics.mean[at % c]) * scale[at % c] + shift[at % c])
        .collect();
    (out, Passed { r, means, statistics })
}

/// Gradients; a vector that nobody waits for is empty.
#[derive(Debug)]
pub struct Gradients {
    /// `[N, I_i]` each.
    pub pieces: Vec<Vec<f32>>,
    /// `[sum of I_i, C]`.
    pub weight: Vec<f32>,
    /// `[C]`.
    pub bias: Vec<f32>,
    /// Scale and shift of the norm.
    pub norm: (Vec<f32>, Vec<f32>),
}

/// Gradients from that of the output, `dy: [B, C]`.
pub fn backward(
    inputs: &Inputs,
    passed: &Passed,
    dy: &[f32],
    want_pieces: &[bool],
    want_weight: bool,
    want_bias: bool,
    path: Path,
) -> Gradients {
    let c = inputs.outputs();
    let tiles = inputs.tiles();
    let width = inputs.joined();
    let columns: Vec<usize> = inputs.pieces.iter().map(|piece| piece.layout().shape()[1]).collect();
    // A jet's gradient is shared by its nodes in equal parts, so sums over nodes are sums over jets.
    let centred: Vec<(Vec<f32>, Vec<f32>)> = (dy.chunks_exact(c).zip(passed.means.chunks_exact(c)))
        .map(|(dy, mean)| {
            let product = (dy.iter().zip(mean).zip(&passed.statistics.mean))
                .map(|((dy, mean), centre)| dy * (mean - centre))
                .collect();
            (dy.to_vec(), product)
        })
        .collect();
    let sums = centred.iter().map(|(first, second)| (&first[..], &second[..]));
    let norm = NormGradient::new(sums, &passed.statistics, slice(&inputs.norm.weight));

    if !want_weight && !want_bias && !want_pieces.contains(&true) {
        let pieces = vec![Vec::new(); columns.len()];
        return Gradients { pieces, weight: Vec::new(), bias: Vec::new(), norm: (norm.weight, norm.bias) };
    }

    let mut dx: Vec<Vec<f32>> = (columns.iter().zip(want_pieces))
        .map(|(columns, &want)| unset(if want { tiles.rows() * columns } else { 0 }))
        .collect();
    // For each tile the rows of every piece's gradient.
    let mut rows: Vec<Vec<&mut [f32]>> = (0..tiles.count()).map(|_| Vec::new()).collect();
    for ((gradient, &columns), &want) in dx.iter_mut().zip(&columns).zip(want_pieces) {
        for (rows, part) in rows.iter_mut().zip(tiles.split(gradient, if want { columns } else { 0 })) {
            rows.push(part);
        }
    }
    let mut rows = rows.into_iter();
    let runs: Vec<_> = (tiles.runs().into_iter())
        .map(|run| (run.clone(), rows.by_ref().take(run.len()).collect::<Vec<_>>()))
        .collect();
    // Pieces of frozen stages come first and wait for nothing.
    let idle = want_pieces.iter().take_while(|want| !**want).count();
    let skip: usize = columns[..idle].iter().sum();
    let transposed = Matrix::rows(&slice(&inputs.weight)[skip * c..], width - skip, c, c).transposed();
    let done: Vec<(Buffer, Buffer)> = in_turn(runs, <(Buffer, Buffer)>::default, |(dz, x), (run, rows)| {
        let mut weight = Buffer::take(if want_weight { width * c } else { 0 });
        let mut bias = Buffer::take(c);
        weight.fill(0.0);
        bias.fill(0.0);
        for (tile, mut rows) in run.zip(rows) {
            let nodes = tiles.range(tile);
            let dz = dz.at_least(nodes.len() * c);
            let x = x.at_least(nodes.len() * width);
            let dy = &dy[tiles.jets[tile] * c..tiles.jets[tile + 1] * c];
            let r = &passed.r[nodes.start * c..nodes.end * c];
            let mean = &passed.statistics.mean;
            node_gradient(path, dy, r, inputs.offsets(&tiles, tile), mean, &norm, dz, &mut bias);
            let gradient = Matrix::rows(dz, nodes.len(), c, c);
            if want_weight {
                inputs.join(nodes.clone(), x);
                let x = Matrix::rows(x, nodes.len(), width, width).transposed();
                product(&mut weight, c, true, x, gradient);
            }
            if skip < width {
                let x = &mut x[..nodes.len() * (width - skip)];
                product(x, width - skip, false, gradient, transposed);
                part(x, &columns[idle..], &mut rows[idle..]);
            }
        }
        (weight, bias)
    });
    let (weights, biases) = done.into_iter().unzip();
    let mut bias = add_up(biases);
    bias.resize(c, 0.0);
    Gradients { pieces: dx, weight: add_up(weights), bias, norm: (norm.weight, norm.bias) }
}

/// Takes rows of all pieces side by side apart; an empty piece is not wanted.
fn part(joined: &[f32], columns: &[usize], pieces: &mut [&mut [f32]]) {
    let width: usize = columns.iter().sum();
    let mut start = 0;
    for (&columns, piece) in columns.iter().zip(pieces) {
        for (row, out) in joined.chunks_exact(width).zip(piece.chunks_exact_mut(columns)) {
            out.copy_from_slice(&row[start..start + columns]);
        }
        start += columns;
    }
}

kernels! {
    /// `x = ReLU(x + bias)`.
    fn add_relu(bias: &[f32], x: &mut [f32]) {
        let c = bias.len();
        for row in x.chunks_exact_mut(c) {
            for j in 0..c {
                row[j] = relu(row[j] + bias[j]);
            }
        }
    }

    /// Mean over the rows of each jet.
    fn jet_means(x: &[f32], offsets: &[i32], c: usize, means: &mut [f32]) {
        for (jet, mean) in means.chunks_exact_mut(c).enumerate() {
            mean.fill(0.0);
            let start = (offsets[jet] - offsets[0]) as usize;
            let end = (offsets[jet + 1] - offsets[0]) as usize;
            for row in x[start * c..end * c].chunks_exact(c) {
                for j in 0..c {
                    mean[j] += row[j];
                }
            }
            let share = 1.0 / (end - start).max(1) as f32;
            for value in mean {
                *value *= share;
            }
        }
    }

    /// Gradient before the ReLU, and its sum over rows.
    fn node_gradient(
        dy: &[f32],
        r: &[f32],
        offsets: &[i32],
        mean: &[f32],
        norm: &NormGradient,
        out: &mut [f32],
        sum: &mut [f32],
    ) {
        let c = mean.len();
        let (k0, k1, k2) = (&norm.k0[..c], &norm.k1[..c], &norm.k2[..c]);
        let sum = &mut sum[..c];
        for (jet, dy) in dy.chunks_exact(c).enumerate() {
            let start = (offsets[jet] - offsets[0]) as usize;
            let end = (offsets[jet + 1] - offsets[0]) as usize;
            let share = 1.0 / (end - start).max(1) as f32;
            for (out, r) in out[start * c..end * c].chunks_exact_mut(c).zip(r[start * c..].chunks_exact(c)) {
                for j in 0..c {
                    let value = k0[j] * (dy[j] * share) + k1[j] * (r[j] - mean[j]) + k2[j];
                    let value = if r[j] > 0.0 { value } else { 0.0 };
                    out[j] = value;
                    sum[j] += value;
                }
            }
        }
    }
}
