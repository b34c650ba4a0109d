//! Attention on the CPU: graph by graph, head by head, with everything of a head in cache. Nothing is kept for the
//! backward but the inputs: it computes the weights again.

use burn::backend::flex::FlexTensor;

use super::kernels::{self, Left, padded};
use crate::ops::bridge::{integers, slice};
use crate::ops::cpu::{Buffer, Path, Tiles, in_turn, split, unset};
use crate::ops::dropout::Dropout;

/// Everything that the operation reads.
#[derive(Debug)]
pub struct Inputs {
    /// `[N, 3 D]`, contiguous.
    pub joined: FlexTensor,
    /// See [`super::PairBias`].
    pub pairs: Option<FlexTensor>,
    /// `[N]`.
    pub keys: Option<FlexTensor>,
    /// `[B + 1]`.
    pub offsets: FlexTensor,
    pub heads: usize,
    pub dropout: Option<Dropout>,
}

/// Gradients of the joined rows and of the pairs; empty where nobody waits.
pub type Gradients = (Vec<f32>, Vec<f32>);

/// One graph: its first node, number of nodes, and first entry of its triangles.
#[derive(Clone, Copy, Debug)]
struct Graph {
    first: usize,
    nodes: usize,
    triangles: usize,
}

impl Inputs {
    fn columns(&self) -> usize {
        self.joined.layout().shape()[1]
    }

    /// D.
    pub fn width(&self) -> usize {
        self.columns() / 3
    }

    /// Graphs of each tile.
    fn tiles(&self) -> Vec<Vec<Graph>> {
        let offsets = integers(&self.offsets);
        let tiles = Tiles::new(offsets);
        let mut triangles = 0;
        (0..tiles.count())
            .map(|tile| {
                (tiles.jets[tile]..tiles.jets[tile + 1])
                    .map(|graph| {
                        let first = offsets[graph] as usize;
                        let nodes = offsets[graph + 1] as usize - first;
                        let found = Graph { first, nodes, triangles };
                        triangles += self.heads * nodes * (nodes + 1) / 2;
                        found
                    })
                    .collect()
            })
            .collect()
    }
}

/// Matrices of one head.
#[derive(Default)]
struct Scratch {
    /// Queries or what is like them, `[n, d]`.
    queries: Buffer,
    /// Keys or values with rows and columns exchanged, `[d, n]`.
    across: Buffer,
    /// Keys, values or gradients, `[n, d]`.
    rows: Buffer,
    /// Gradients of results, `[n, d]`.
    results: Buffer,
    weights: Buffer,
    dropped: Buffer,
    gradient: Buffer,
}

/// One head of one graph.
struct Head<'a> {
    inputs: &'a Inputs,
    graph: Graph,
    head: usize,
    path: Path,
}

impl Head<'_> {
    /// Columns of a head.
    fn each(&self) -> usize {
        self.inputs.width() / self.inputs.heads
    }

    fn scale(&self) -> f32 {
        1.0 / (self.each() as f32).sqrt()
    }

    /// First column of the head's part of queries (0), keys (1), values (2).
    fn start(&self, part: usize) -> usize {
        part * self.inputs.width() + self.head * self.each()
    }

    /// The graph's joined rows.
    fn joined(&self) -> &[f32] {
        let columns = self.inputs.columns();
        &slice(&self.inputs.joined)[self.graph.first * columns..][..self.graph.nodes * columns]
    }

    /// The head's triangle.
    fn triangle(&self) -> std::ops::Range<usize> {
        let (nodes, start) = (self.graph.nodes, self.graph.triangles);
        let each = nodes * (nodes + 1) / 2;
        start + self.head * each..start + (self.head + 1) * each
    }

    /// Scaled queries into `scratch.queries`, weights (before dropout) into `scratch.weights`.
    fn weights(&self, scratch: &mut Scratch) {
        let Self { inputs, graph, path, .. } = *self;
        let (n, each, columns) = (graph.nodes, self.each(), inputs.columns());
        let (across, wide) = (padded(n), padded(each));
        let queries = scratch.queries.at_least(n * wide);
        kernels::gather(path, self.joined(), columns, self.start(0), each, self.scale(), queries);
        let keys = scratch.across.at_least(each * across);
        kernels::gather_transposed(path, self.joined(), columns, self.start(1), each, 1.0, n, across, keys);
        let weights = scratch.weights.at_least(n * across);
        let left = Left { data: queries, row: wide, column: 1 };
        kernels::small_product(path, n, each, across, left, keys, across, weights, across);
        if let Some(pairs) = &inputs.pairs {
            kernels::add_pairs(path, &slice(pairs)[self.triangle()], n, across, weights);
        }
        let keys = inputs.keys.as_ref().map_or(&[][..], |keys| &slice(keys)[graph.first..][..n]);
        kernels::softmax(path, n, across, keys, weights);
    }

    fn forward(&self, scratch: &mut Scratch, y: &mut [f32]) {
        let Self { inputs, graph, head, path } = *self;
        let (n, each) = (graph.nodes, self.each());
        let (across, wide) = (padded(n), padded(each));
        self.weights(scratch);
        let values = scratch.rows.at_least(n * wide);
        kernels::gather(path, self.joined(), inputs.columns(), self.start(2), each, 1.0, values);
        let weights = scratch.weights.at_least(n * across);
        if let Some(mask) = inputs.dropout {
            kernels::dropped_here(path, mask, graph.first, inputs.heads, head, across, weights);
        }
        let result = scratch.results.at_least(n * wide);
        let left = Left { data: weights, row: across, column: 1 };
        kernels::small_product(path, n, n, wide, left, values, wide, result, wide);
        kernels::scatter(path, result, each, 1.0, y, inputs.width(), head * each);
    }

    /// From the gradient of the result; `joined` and `triangle` get theirs.
    fn backward(&self, scratch: &mut Scratch, dy: &[f32], joined: &mut [f32], triangle: Option<&mut [f32]>) {
        let Self { inputs, graph, head, path } = *self;
        let (n, each, columns) = (graph.nodes, self.each(), inputs.columns());
        let (across, wide) = (padded(n), padded(each));
        self.weights(scratch);
        let Scratch { queries, across: values, rows, results, weights, dropped, gradient } = scratch;
        let (queries, weights) = (queries.at_least(n * wide), weights.at_least(n * across));
        let results = results.at_least(n * wide);
        kernels::gather(path, dy, inputs.width(), head * each, each, 1.0, results);
        let values = values.at_least(each * across);
        kernels::gather_transposed(path, self.joined(), columns, self.start(2), each, 1.0, n, across, values);
        let d = gradient.at_least(n * across);
        let left = Left { data: results, row: wide, column: 1 };
        kernels::small_product(path, n, each, across, left, values, across, d, across);
        let used: &[f32] = match inputs.dropout {
            None => weights,
            Some(mask) => {
                let used = dropped.at_least(n * across);
                kernels::dropped(path, weights, mask, graph.first, inputs.heads, head, across, used);
                kernels::dropped_here(path, mask, graph.first, inputs.heads, head, across, d);
                used
            }
        };
        let rows = rows.at_least(n * wide);
        let by_key = |data| Left { data, row: 1, column: across };
        kernels::small_product(path, n, n, wide, by_key(used), results, wide, rows, wide);
        kernels::scatter(path, rows, each, 1.0, joined, columns, self.start(2));
        kernels::softmax_gradient(path, weights, across, d);
        if let Some(triangle) = triangle {
            kernels::pairs_gradient(path, d, n, across, triangle);
        }
        kernels::small_product(path, n, n, wide, by_key(d), queries, wide, rows, wide);
        kernels::scatter(path, rows, each, 1.0, joined, columns, self.start(1));
        kernels::gather(path, self.joined(), columns, self.start(1), each, 1.0, results);
        let left = Left { data: d, row: across, column: 1 };
        kernels::small_product(path, n, n, wide, left, results, wide, rows, wide);
        kernels::scatter(path, rows, each, self.scale(), joined, columns, self.start(0));
    }
}

/// The result, `[N, D]`.
pub fn forward(inputs: &Inputs, path: Path) -> Vec<f32> {
    let (width, heads) = (inputs.width(), inputs.heads);
    let mut y = unset(slice(&inputs.joined).len() / 3);
    let tiles = inputs.tiles();
    let lengths: Vec<usize> =
        tiles.iter().map(|tile| tile.iter().map(|graph| graph.nodes * width).sum()).collect();
    let tasks = tiles.iter().zip(split(&mut y, lengths.into_iter())).collect();
    in_turn(tasks, Scratch::default, |scratch, (tile, mut y)| {
        for &graph in tile {
            let (here, rest) = std::mem::take(&mut y).split_at_mut(graph.nodes * width);
            y = rest;
            for head in 0..heads {
                Head { inputs, graph, head, path }.forward(scratch, here);
            }
        }
    });
    y
}

/// Gradients from that of the result.
pub fn backward(inputs: &Inputs, dy: &[f32], want_pairs: bool, path: Path) -> Gradients {
    let (width, columns, heads) = (inputs.width(), inputs.columns(), inputs.heads);
    let mut joined = unset(slice(&inputs.joined).len());
    let pairs = inputs.pairs.as_ref().filter(|_| want_pairs);
    let mut triangles = unset(pairs.map_or(0, |pairs| slice(pairs).len()));
    let tiles = inputs.tiles();
    let sum = |of: &dyn Fn(&Graph) -> usize| -> Vec<usize> {
        tiles.iter().map(|tile| tile.iter().map(of).sum()).collect()
    };
    let triangle = |graph: &Graph| match pairs {
        Some(_) => heads * graph.nodes * (graph.nodes + 1) / 2,
        None => 0,
    };
    let rows = split(&mut joined, sum(&|graph| graph.nodes * columns).into_iter());
    let pieces = split(&mut triangles, sum(&triangle).into_iter());
    let tasks = tiles.iter().zip(rows).zip(pieces).collect();
    in_turn(tasks, Scratch::default, |scratch, ((tile, mut joined), mut triangles)| {
        for &graph in tile {
            let (here, rest) = std::mem::take(&mut joined).split_at_mut(graph.nodes * columns);
            joined = rest;
            let dy = &dy[graph.first * width..(graph.first + graph.nodes) * width];
            for head in 0..heads {
                let (piece, rest) = std::mem::take(&mut triangles).split_at_mut(triangle(&graph) / heads);
                triangles = rest;
                let piece = pairs.is_some().then_some(piece);
                Head { inputs, graph, head, path }.backward(scratch, dy, here, piece);
            }
        }
    });
    (joined, triangles)
}
