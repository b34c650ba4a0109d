//! Backward kernel of layers on complete graphs: one pass over the tiles, and a second one for the norm that the rows
//! went through, whose sums run over the whole batch. The normed rows are computed again.

use super::cpu::{Inputs, Passed, Source};
use super::{attend, kernels};
use crate::ops::bridge::slice;
use crate::ops::cpu::{Buffer, Matrix, NormGradient, Path, Tiles, add_up, in_turn, product, unset};

/// Which gradients someone waits for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Of the rows, or of the parameters of the norm that they went through.
    pub rows: bool,
    /// Of the product's weight.
    pub weight: bool,
    /// Of the heads' vectors.
    pub attention: bool,
    /// Of the residual's weight.
    pub residual: bool,
}

/// Gradients of a layer; a vector that nobody waits for is empty.
#[derive(Debug, Default)]
pub struct Gradients {
    /// `[N, I]`.
    pub rows: Vec<f32>,
    /// Scale and shift of the norm.
    pub norm: (Vec<f32>, Vec<f32>),
    /// `[I, C]`.
    pub weight: Vec<f32>,
    /// `[heads, C / heads]`.
    pub attention: Vec<f32>,
    /// `[I, C]`.
    pub residual: Vec<f32>,
}

/// Sums of a gradient and of its product with a centred value.
pub type Pair = (Vec<f32>, Vec<f32>);

/// Finishes the gradient of rows that went through a norm: `d` is that behind the norm.
pub fn through_norm(source: &Source, tiles: &Tiles, sums: &[Pair], d: &mut [f32], path: Path) -> Pair {
    let Some(norm) = &source.norm else { return Pair::default() };
    let pairs = sums.iter().map(|(first, second)| (&first[..], &second[..]));
    let found = NormGradient::new(pairs, &norm.statistics, norm.weight());
    let NormGradient { k0, k1, k2, .. } = &found;
    let tasks = tiles.split(d, source.columns()).into_iter().enumerate().collect();
    in_turn(
        tasks,
        || (),
        |(), (tile, d): (usize, &mut [f32])| {
            kernels::norm_backward(
                path,
                source.contiguous(&tiles.range(tile)),
                &norm.statistics.mean,
                k0,
                k1,
                k2,
                d,
            );
        },
    );
    (found.weight, found.bias)
}

/// Through the ReLU of rows that go through a norm, and its sums.
pub fn through_relu(source: &Source, nodes: std::ops::Range<usize>, d: &mut [f32], path: Path) -> Pair {
    let Some(norm) = &source.norm else { return Pair::default() };
    let mut sums = (vec![0f32; source.columns()], vec![0f32; source.columns()]);
    kernels::relu_backward(path, source.contiguous(&nodes), norm.affine(), d, &mut sums.0, &mut sums.1);
    sums
}

/// Accumulators of a run of tiles.
struct Weights {
    weight: Buffer,
    attention: Buffer,
    residual: Buffer,
}

fn zeros(length: usize) -> Buffer {
    let mut buffer = Buffer::take(length);
    buffer.fill(0.0);
    buffer
}

/// Memory of a thread.
#[derive(Default)]
struct Local {
    x: Buffer,
    du: Buffer,
    pairs: Buffer,
}

/// Gradients from that of the output, `ds: [N, C]`, contiguous.
pub fn backward(inputs: &Inputs, passed: &Passed, ds: &[f32], wanted: Wanted, path: Path) -> Gradients {
    let (i, c) = (inputs.inputs(), inputs.outputs());
    let tiles = inputs.tiles();
    let attends = inputs.attention.is_some();
    let pass = Pass::new(inputs, &tiles, passed, ds, wanted, path);
    let mut rows = unset(if wanted.rows { tiles.rows() * i } else { 0 });
    let mut graphs = Buffer::take(if attends || !wanted.weight { 0 } else { inputs.graphs() * c });
    let mut row_pieces: Vec<&mut [f32]> = if wanted.rows {
        tiles.split(&mut rows, i)
    } else {
        (0..tiles.count()).map(|_| Default::default()).collect()
    };
    let graph_lengths = (0..tiles.count()).map(|tile| match graphs.is_empty() {
        true => 0,
        false => (tiles.jets[tile + 1] - tiles.jets[tile]) * c,
    });
    let graph_lengths: Vec<usize> = graph_lengths.collect();
    let graph_pieces = crate::ops::cpu::split(&mut graphs, graph_lengths.into_iter());
    let mut pieces = row_pieces.drain(..).zip(graph_pieces);
    let runs: Vec<_> = tiles
        .runs()
        .into_iter()
        .map(|run| (run.clone(), pieces.by_ref().take(run.len()).collect::<Vec<_>>()))
        .collect();
    let done: Vec<(Vec<Pair>, Weights)> = in_turn(runs, Local::default, |local, (run, pieces)| {
        let mut weights = Weights {
            weight: zeros(if wanted.weight && attends { i * c } else { 0 }),
            attention: zeros(if attends { c } else { 0 }),
            residual: zeros(if wanted.residual { i * c } else { 0 }),
        };
        let mut sums = Vec::with_capacity(run.len());
        for (tile, (rows, graphs)) in run.zip(pieces) {
            sums.push(pass.tile(tile, rows, graphs, &mut weights, local));
        }
        (sums, weights)
    });
    drop(pieces);
    drop(row_pieces);
    let (sums, weights): (Vec<Vec<Pair>>, Vec<Weights>) = done.into_iter().unzip();
    let sums: Vec<Pair> = sums.into_iter().flatten().collect();
    let (mut weight, mut attention, mut residual) = (Vec::new(), Vec::new(), Vec::new());
    for part in weights {
        weight.push(part.weight);
        attention.push(part.attention);
        residual.push(part.residual);
    }
    let filled = |parts: Vec<Buffer>, length: usize| {
        let mut total = add_up(parts);
        // A batch without nodes has no tiles.
        total.resize(length, 0.0);
        total
    };
    let norm = match wanted.rows {
        true => through_norm(&inputs.source, &tiles, &sums, &mut rows, path),
        false => Pair::default(),
    };
    let weight = match (wanted.weight, attends) {
        (false, _) => Vec::new(),
        (true, true) => filled(weight, i * c),
        (true, false) => of_means(inputs, &passed.means, &graphs),
    };
    Gradients {
        rows,
        norm,
        weight,
        attention: filled(attention, if attends { c } else { 0 }),
        residual: filled(residual, if wanted.residual { i * c } else { 0 }),
    }
}

/// Rows of the weight's gradient that are computed together: fixed, so that threads change nothing.
const BLOCK: usize = 64;

/// Gradient of the weight from the graphs' means `[B, I]` and the sums of the output's gradient `[B, C]`.
fn of_means(inputs: &Inputs, means: &[f32], graphs: &[f32]) -> Vec<f32> {
    let (i, c, count) = (inputs.inputs(), inputs.outputs(), inputs.graphs());
    let mut weight = unset(i * c);
    let tasks = weight.chunks_mut(BLOCK * c).enumerate().collect();
    in_turn(
        tasks,
        || (),
        |(), (block, out): (usize, &mut [f32])| {
            let left = match count {
                0 => Matrix::rows(&[], 0, out.len() / c, i),
                _ => Matrix::rows(&means[block * BLOCK..], count, out.len() / c, i),
            };
            product(out, c, false, left.transposed(), Matrix::rows(graphs, count, c, c));
        },
    );
    weight
}

/// What all tiles of the pass read.
struct Pass<'a> {
    inputs: &'a Inputs,
    tiles: &'a Tiles,
    passed: &'a Passed,
    ds: &'a [f32],
    wanted: Wanted,
    path: Path,
    /// `W` with rows and columns exchanged.
    weight: Vec<f32>,
    /// First attention weight of each tile.
    pairs: Vec<usize>,
    /// Scratch memory that the largest graph needs.
    scratch: usize,
}

impl<'a> Pass<'a> {
    fn new(
        inputs: &'a Inputs,
        tiles: &'a Tiles,
        passed: &'a Passed,
        ds: &'a [f32],
        wanted: Wanted,
        path: Path,
    ) -> Self {
        let mut pairs = vec![0];
        for length in inputs.weight_lengths(tiles) {
            pairs.push(pairs[pairs.len() - 1] + length);
        }
        let scratch = inputs.scratch();
        // In the layout that the products of single tiles read fastest.
        let (i, c) = (inputs.inputs(), inputs.outputs());
        let source = slice(&inputs.weight);
        let weight =
            if wanted.rows { (0..i * c).map(|at| source[at % i * c + at / i]).collect() } else { Vec::new() };
        Self { inputs, tiles, passed, ds, wanted, path, weight, pairs, scratch }
    }

    /// Gradients of one tile; gives the sums for the norm.
    fn tile(
        &self,
        tile: usize,
        rows: &mut [f32],
        graphs: &mut [f32],
        weights: &mut Weights,
        local: &mut Local,
    ) -> Pair {
        let Self { inputs, wanted, path, .. } = *self;
        let (i, c) = (inputs.inputs(), inputs.outputs());
        let nodes = self.tiles.range(tile);
        let count = nodes.len();
        let offsets = inputs.offsets(self.tiles, tile);
        let ds = &self.ds[nodes.start * c..nodes.end * c];
        let gradient = Matrix::rows(ds, count, c, c);
        if wanted.residual || (wanted.weight && inputs.attention.is_some()) {
            let x = inputs.source.tile(nodes.clone(), &mut local.x, path);
            let x = Matrix::rows(x.data, count, i, x.stride).transposed();
            if wanted.residual {
                product(&mut weights.residual, c, true, x, gradient);
            }
            if let Some(attention) = &inputs.attention {
                let du = local.du.at_least(count * c);
                self.messages(tile, slice(attention), &mut weights.attention, &mut local.pairs, du);
                if wanted.weight {
                    product(&mut weights.weight, c, true, x, Matrix::rows(du, count, c, c));
                }
            }
        } else if let Some(attention) = inputs.attention.as_ref().filter(|_| wanted.attention || wanted.rows)
        {
            let du = local.du.at_least(count * c);
            self.messages(tile, slice(attention), &mut weights.attention, &mut local.pairs, du);
        }
        let graph_count = offsets.len() - 1;
        if inputs.attention.is_none() {
            let sums = if graphs.is_empty() { local.du.at_least(graph_count * c) } else { &mut *graphs };
            kernels::sums(path, ds, c, offsets, sums);
        }
        if !wanted.rows {
            return Pair::default();
        }
        let turned = Matrix::rows(&self.weight, c, i, i);
        match inputs.attention {
            Some(_) => product(rows, i, false, Matrix::rows(&local.du, count, c, c), turned),
            None => {
                let sums = if graphs.is_empty() { &local.du[..graph_count * c] } else { &*graphs };
                let shared = local.x.at_least(graph_count * i);
                product(shared, i, false, Matrix::rows(sums, graph_count, c, c), turned);
                kernels::shares(path, shared, i, offsets, rows);
            }
        }
        match &inputs.residual {
            Some(residual) => {
                product(rows, i, true, gradient, Matrix::rows(slice(residual), i, c, c).transposed());
            }
            None => kernels::add(path, ds, rows),
        }
        through_relu(&inputs.source, nodes, rows, path)
    }

    /// Gradient of `u`, and of the heads' vectors.
    fn messages(&self, tile: usize, attention: &[f32], da: &mut [f32], local: &mut Buffer, du: &mut [f32]) {
        let Self { inputs, passed, .. } = *self;
        let c = inputs.outputs();
        let nodes = self.tiles.range(tile).start * c..self.tiles.range(tile).end * c;
        let weights = &passed.weights[self.pairs[tile]..self.pairs[tile + 1]];
        let local = local.at_least(self.scratch);
        let offsets = inputs.offsets(self.tiles, tile);
        let (u, ds) = (&passed.u[nodes.clone()], &self.ds[nodes]);
        attend::attend_backward(self.path, u, attention, inputs.heads(), offsets, weights, ds, local, du, da);
    }
}
