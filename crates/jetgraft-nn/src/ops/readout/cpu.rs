//! Kernels of the readout: one pass forward, one pass backward.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use crate::ops::bridge::{integers, row_range, slice};
use crate::ops::cpu::{
    Buffer, CpuNorm, Matrix, NormGradient, Path, Statistics, Sums, Tiles, add_up, column_sums, kernels,
    product, relu, unset,
};

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

    /// Rows of the weight that act on each piece.
    fn blocks(&self) -> Vec<(&FlexTensor, Matrix<'_>, usize)> {
        let c = self.outputs();
        let weight = slice(&self.weight);
        let mut start = 0;
        (self.pieces.iter())
            .map(|piece| {
                let columns = piece.layout().shape()[1];
                start += columns;
                let block = &weight[(start - columns) * c..start * c];
                (piece, Matrix::rows(block, columns, c, c), start - columns)
            })
            .collect()
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
    let blocks = inputs.blocks();
    let bias = slice(&inputs.bias);
    let batch = inputs.norm.running.is_none();
    let mut r = Buffer::take(if keep { tiles.rows() * c } else { 0 });
    let mut means = unset(inputs.jets() * c);
    let pieces: Vec<&mut [f32]> =
        if keep { tiles.split(&mut r, c) } else { (0..tiles.count()).map(|_| Default::default()).collect() };
    let jets = (0..tiles.count()).map(|tile| (tiles.jets[tile + 1] - tiles.jets[tile]) * c);
    let jets = crate::ops::cpu::split(&mut means, jets);
    let sums: Vec<Sums> = pieces
        .into_par_iter()
        .zip(jets)
        .enumerate()
        .map_init(Buffer::default, |local, (tile, (kept, means))| {
            let nodes = tiles.range(tile);
            let r = if keep { kept } else { local.at_least(nodes.len() * c) };
            for (at, (piece, weight, _)) in blocks.iter().enumerate() {
                product(r, c, at > 0, row_range(piece, nodes.clone()), *weight);
            }
            add_relu(path, bias, r);
            jet_means(path, r, inputs.offsets(&tiles, tile), c, means);
            let mut sums = Sums::new(c);
            if batch {
                column_sums(path, r, c, nodes.len(), &mut sums);
            }
            sums
        })
        .collect();
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
    let blocks = inputs.blocks();
    let joined: usize = blocks.iter().map(|(piece, ..)| piece.layout().shape()[1]).sum();
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
        let pieces = vec![Vec::new(); blocks.len()];
        return Gradients { pieces, weight: Vec::new(), bias: Vec::new(), norm: (norm.weight, norm.bias) };
    }

    let mut dx: Vec<Vec<f32>> = (blocks.iter().zip(want_pieces))
        .map(|((piece, ..), &want)| unset(if want { tiles.rows() * piece.layout().shape()[1] } else { 0 }))
        .collect();
    // For each tile the rows of every piece's gradient.
    let mut rows: Vec<Vec<&mut [f32]>> = (0..tiles.count()).map(|_| Vec::new()).collect();
    for ((gradient, (piece, ..)), &want) in dx.iter_mut().zip(&blocks).zip(want_pieces) {
        let columns = if want { piece.layout().shape()[1] } else { 0 };
        for (rows, part) in rows.iter_mut().zip(tiles.split(gradient, columns)) {
            rows.push(part);
        }
    }
    let mut rows = rows.into_iter();
    let chunks: Vec<_> = (tiles.chunks().into_iter())
        .map(|chunk| (chunk.clone(), rows.by_ref().take(chunk.len()).collect::<Vec<_>>()))
        .collect();
    let done: Vec<(Buffer, Buffer)> = chunks
        .into_par_iter()
        .map_init(Buffer::default, |dz, (chunk, rows)| {
            let mut weight = Buffer::take(if want_weight { joined * c } else { 0 });
            let mut bias = Buffer::take(c);
            weight.fill(0.0);
            bias.fill(0.0);
            for (tile, rows) in chunk.zip(rows) {
                let nodes = tiles.range(tile);
                let dz = dz.at_least(nodes.len() * c);
                let dy = &dy[tiles.jets[tile] * c..tiles.jets[tile + 1] * c];
                let r = &passed.r[nodes.start * c..nodes.end * c];
                let mean = &passed.statistics.mean;
                node_gradient(path, dy, r, inputs.offsets(&tiles, tile), mean, &norm, dz, &mut bias);
                let gradient = Matrix::rows(dz, nodes.len(), c, c);
                for ((piece, block, start), dx) in blocks.iter().zip(rows) {
                    let x = row_range(piece, nodes.clone());
                    let columns = piece.layout().shape()[1];
                    if want_weight {
                        let part = &mut weight[start * c..(start + columns) * c];
                        product(part, c, true, x.transposed(), gradient);
                    }
                    if !dx.is_empty() {
                        product(dx, columns, false, gradient, block.transposed());
                    }
                }
            }
            (weight, bias)
        })
        .collect();
    let (weights, biases) = done.into_iter().unzip();
    let mut bias = add_up(biases);
    bias.resize(c, 0.0);
    Gradients { pieces: dx, weight: add_up(weights), bias, norm: (norm.weight, norm.bias) }
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
