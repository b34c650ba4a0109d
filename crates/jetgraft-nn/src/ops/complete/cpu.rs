//! Forward kernel of layers on complete graphs: one pass over tiles of whole graphs.
//!
//! A tile goes through the norm and ReLU that wait for it, the product and the messages while it is in cache; what is
//! written is the layer's output and, for a backward, what cannot be computed again cheaply.

use burn::backend::flex::FlexTensor;

use super::{attend, kernels};
use crate::ops::bridge::{integers, rows, slice};
use crate::ops::cpu::{
    Affine, Buffer, Matrix, Path, Statistics, Sums, Tiles, column_sums, in_turn, product, split, unset,
};

/// The norm that waits for rows.
#[derive(Clone, Debug)]
pub struct SourceNorm {
    weight: FlexTensor,
    bias: FlexTensor,
    /// The batch's or running ones.
    pub statistics: Statistics,
    scale: Vec<f32>,
}

impl SourceNorm {
    /// Contiguous parameters and the statistics to use.
    pub fn new(weight: FlexTensor, bias: FlexTensor, statistics: Statistics) -> Self {
        let scale = statistics.scale(slice(&weight));
        Self { weight, bias, statistics, scale }
    }

    /// Its scale parameter.
    pub fn weight(&self) -> &[f32] {
        slice(&self.weight)
    }

    /// What it does to a row.
    pub fn affine(&self) -> Affine<'_> {
        Affine { mean: &self.statistics.mean, scale: &self.scale, bias: slice(&self.bias) }
    }
}

/// Rows, and what they have yet to go through.
#[derive(Clone, Debug)]
pub struct Source {
    /// `[N, I]`: whole rows, contiguous where a norm waits.
    pub rows: FlexTensor,
    /// Followed by a ReLU.
    pub norm: Option<SourceNorm>,
}

/// Some rows that are ready: data from their first element, and the distance of rows.
#[derive(Clone, Copy, Debug)]
pub struct Ready<'a> {
    /// From the first element on.
    pub data: &'a [f32],
    /// Distance of rows.
    pub stride: usize,
}

impl Source {
    /// Columns.
    pub fn columns(&self) -> usize {
        self.rows.layout().shape()[1]
    }

    /// Rows of a tile after norm and ReLU, computed into `local` where there is something to do.
    pub fn tile<'a>(&'a self, nodes: std::ops::Range<usize>, local: &'a mut Buffer, path: Path) -> Ready<'a> {
        let columns = self.columns();
        match &self.norm {
            Some(norm) => {
                let out = local.at_least(nodes.len() * columns);
                kernels::normed(path, self.contiguous(&nodes), norm.affine(), out);
                Ready { data: out, stride: columns }
            }
            None => {
                let (data, stride) = rows(&self.rows);
                Ready { data: &data[(nodes.start * stride).min(data.len())..], stride }
            }
        }
    }

    /// Rows before the norm that waits for them.
    pub fn contiguous(&self, nodes: &std::ops::Range<usize>) -> &[f32] {
        &slice(&self.rows)[nodes.start * self.columns()..nodes.end * self.columns()]
    }
}

/// Everything that a layer reads.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// `[N, I]`.
    pub source: Source,
    /// `[I, C]`.
    pub weight: FlexTensor,
    /// `[heads, C / heads]`.
    pub attention: Option<FlexTensor>,
    /// `[I, C]`.
    pub residual: Option<FlexTensor>,
    /// `[B + 1]`.
    pub jet_offsets: FlexTensor,
}

impl Inputs {
    /// Input width.
    pub fn inputs(&self) -> usize {
        self.source.columns()
    }

    /// Output width.
    pub fn outputs(&self) -> usize {
        self.weight.layout().shape()[1]
    }

    /// Number of heads; 1 for a mean.
    pub fn heads(&self) -> usize {
        self.attention.as_ref().map_or(1, |attention| attention.layout().shape()[0])
    }

    /// Number of graphs, B.
    pub fn graphs(&self) -> usize {
        integers(&self.jet_offsets).len() - 1
    }

    /// The tiles of the batch.
    pub fn tiles(&self) -> Tiles {
        Tiles::new(integers(&self.jet_offsets))
    }

    /// Offsets of the graphs of a tile.
    pub fn offsets(&self, tiles: &Tiles, tile: usize) -> &[i32] {
        &integers(&self.jet_offsets)[tiles.jets[tile]..=tiles.jets[tile + 1]]
    }

    /// Attention weights of each tile; 0 for a mean.
    pub fn weight_lengths(&self, tiles: &Tiles) -> Vec<usize> {
        let heads = self.heads();
        let pairs = |tile| self.offsets(tiles, tile).windows(2).map(kernels::pairs).sum::<usize>();
        match self.attention {
            Some(_) => (0..tiles.count()).map(|tile| pairs(tile) * heads).collect(),
            None => vec![0; tiles.count()],
        }
    }

    /// Scratch memory of the attention in the largest graph.
    pub fn scratch(&self) -> usize {
        let size = |range: &[i32]| (range[1] - range[0]) as usize;
        attend::scratch(integers(&self.jet_offsets).windows(2).map(size).max().unwrap_or(0))
    }

    /// The product's weight.
    pub fn weights(&self) -> Matrix<'_> {
        Matrix::rows(slice(&self.weight), self.inputs(), self.outputs(), self.outputs())
    }
}

/// What the forward pass leaves for the backward.
#[derive(Debug)]
pub struct Passed {
    /// `u = x W`, `[N, C]`, with attention.
    pub u: Buffer,
    /// Attention weights: graph by graph, head by head, receiver by receiver.
    pub weights: Buffer,
    /// Means of the rows of each graph, `[B, I]`, without attention.
    pub means: Buffer,
}

/// Hands out pieces of a buffer that is kept, or of nothing.
fn pieces<'a>(buffer: &'a mut Buffer, lengths: &[usize]) -> Vec<&'a mut [f32]> {
    if buffer.is_empty() {
        return lengths.iter().map(|_| Default::default()).collect();
    }
    split(buffer, lengths.iter().copied())
}

/// The output `[N, C]`, what a backward needs if there will be one, and the statistics of the output if asked for.
pub fn forward(
    inputs: &Inputs,
    keep: bool,
    observe: bool,
    path: Path,
) -> (Vec<f32>, Passed, Option<Statistics>) {
    let (i, c) = (inputs.inputs(), inputs.outputs());
    let tiles = inputs.tiles();
    let attends = inputs.attention.is_some();
    let nodes: Vec<usize> = (0..tiles.count()).map(|tile| tiles.range(tile).len() * c).collect();
    let graphs: Vec<usize> =
        (0..tiles.count()).map(|tile| (tiles.jets[tile + 1] - tiles.jets[tile]) * i).collect();
    let pairs = inputs.weight_lengths(&tiles);
    let largest = inputs.scratch();
    let mut passed = Passed {
        u: Buffer::take(if keep && attends { tiles.rows() * c } else { 0 }),
        weights: Buffer::take(if keep { pairs.iter().sum() } else { 0 }),
        means: Buffer::take(if keep && !attends { inputs.graphs() * i } else { 0 }),
    };
    let mut out = unset(tiles.rows() * c);
    let mut kept = pieces(&mut passed.u, &nodes);
    if !attends {
        kept = pieces(&mut passed.means, &graphs);
    }
    let tasks: Vec<_> = (tiles.split(&mut out, c).into_iter().zip(kept))
        .zip(pieces(&mut passed.weights, &pairs))
        .enumerate()
        .collect();
    let sums: Vec<Sums> = in_turn(
        tasks,
        <[Buffer; 5]>::default,
        |[x, other, u, weights, scratch], (tile, ((out, kept), kept_weights))| {
            let nodes = tiles.range(tile);
            let offsets = inputs.offsets(&tiles, tile);
            let x = inputs.source.tile(nodes.clone(), x, path);
            let rows = Matrix::rows(x.data, nodes.len(), i, x.stride);
            let residual = match &inputs.residual {
                Some(weight) => {
                    let other = other.at_least(nodes.len() * c);
                    product(other, c, false, rows, Matrix::rows(slice(weight), i, c, c));
                    Ready { data: other, stride: c }
                }
                None => x,
            };
            match &inputs.attention {
                Some(attention) => {
                    let u = if keep { kept } else { u.at_least(nodes.len() * c) };
                    let weights = if keep { kept_weights } else { weights.at_least(pairs[tile]) };
                    product(u, c, false, rows, inputs.weights());
                    let scratch = scratch.at_least(largest);
                    attend::attend(
                        path,
                        u,
                        slice(attention),
                        inputs.heads(),
                        offsets,
                        residual,
                        scratch,
                        weights,
                        out,
                    );
                }
                None => {
                    let graphs = offsets.len() - 1;
                    let means = if keep { kept } else { weights.at_least(graphs * i) };
                    kernels::means(path, x, i, offsets, means);
                    let messages = u.at_least(graphs * c);
                    product(messages, c, false, Matrix::rows(means, graphs, i, i), inputs.weights());
                    kernels::spread(path, messages, residual, c, offsets, out);
                }
            }
            let mut sums = Sums::default();
            if observe {
                sums = Sums::new(c);
                column_sums(path, out, c, nodes.len(), &mut sums);
            }
            sums
        },
    );
    let statistics = observe.then(|| Statistics::join(sums.iter(), c));
    (out, passed, statistics)
}

/// Attention weights `[pairs, heads]`, graph by graph, source by source, from the kernel's order.
pub fn by_source(inputs: &Inputs, weights: &[f32]) -> Vec<f32> {
    let heads = inputs.heads();
    let mut out = Vec::with_capacity(weights.len());
    let mut start = 0;
    for range in integers(&inputs.jet_offsets).windows(2) {
        let n = (range[1] - range[0]) as usize;
        let here = &weights[start..start + n * n * heads];
        for source in 0..n {
            for receiver in 0..n {
                out.extend((0..heads).map(|head| here[(head * n + receiver) * n + source]));
            }
        }
        start += n * n * heads;
    }
    out
}
