//! Class attention on the CPU, graph by graph. Nothing is kept for the backward but the inputs.

use burn::backend::flex::FlexTensor;

use crate::ops::attention::kernels::{padded, softmax, softmax_gradient};
use crate::ops::bridge::{integers, slice};
use crate::ops::cpu::{Buffer, Matrix, Path, Tiles, in_turn, product, split, unset};
use crate::ops::rows::kernels::{norm, norm_gradient};

/// Everything that the operation reads, contiguous.
#[derive(Debug)]
pub struct Inputs {
    pub tokens: FlexTensor,
    pub nodes: FlexTensor,
    pub weight: FlexTensor,
    pub bias: FlexTensor,
    pub queries: FlexTensor,
    /// `[B + 1]`.
    pub offsets: FlexTensor,
}

/// Gradients in the order of the parents.
#[derive(Debug, Default)]
pub struct Gradients {
    pub tokens: Vec<f32>,
    pub nodes: Vec<f32>,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    pub queries: Vec<f32>,
}

#[derive(Default)]
struct Scratch {
    /// The token and the nodes of a graph.
    x: Buffer,
    /// The same, normalised.
    u: Buffer,
    /// Heads by rows.
    weights: Buffer,
    /// Gradients of the weights.
    d: Buffer,
    /// Gradients of `u`, and of `x`.
    du: Buffer,
    dx: Buffer,
}

impl Inputs {
    /// D.
    pub fn width(&self) -> usize {
        slice(&self.weight).len()
    }

    /// Length of a row of queries.
    pub fn queries_width(&self) -> usize {
        self.queries.layout().shape()[1]
    }

    fn heads(&self) -> usize {
        self.queries_width() / self.width()
    }

    fn size(&self, graph: usize) -> usize {
        let offsets = integers(&self.offsets);
        (offsets[graph + 1] - offsets[graph]) as usize
    }

    /// Normalised rows and weights of a graph.
    fn weights(&self, graph: usize, scratch: &mut Scratch, path: Path) {
        let (c, heads, rows) = (self.width(), self.heads(), self.size(graph) + 1);
        let first = integers(&self.offsets)[graph] as usize;
        let x = scratch.x.at_least(rows * c);
        x[..c].copy_from_slice(&slice(&self.tokens)[graph * c..(graph + 1) * c]);
        x[c..].copy_from_slice(&slice(&self.nodes)[first * c..(first + rows - 1) * c]);
        let u = scratch.u.at_least(rows * c);
        norm(path, x, slice(&self.weight), slice(&self.bias), u);
        let across = padded(rows);
        let weights = scratch.weights.at_least(heads * across);
        product(
            weights,
            across,
            false,
            self.rows(&self.queries, graph),
            Matrix::rows(u, rows, c, c).transposed(),
        );
        softmax(path, rows, across, &[], weights);
    }

    /// A graph's row of queries, or of what is like them, as one row per head.
    fn rows<'a>(&self, tensor: &'a FlexTensor, graph: usize) -> Matrix<'a> {
        self.by_head(slice(tensor), graph)
    }

    fn by_head<'a>(&self, values: &'a [f32], graph: usize) -> Matrix<'a> {
        let (c, width) = (self.width(), self.queries_width());
        Matrix::rows(&values[graph * width..(graph + 1) * width], self.heads(), c, c)
    }
}

/// Weighted means, `[B, H D]`.
pub fn forward(inputs: &Inputs, path: Path) -> Vec<f32> {
    let (c, heads, width) = (inputs.width(), inputs.heads(), inputs.queries_width());
    let mut y = unset(slice(&inputs.queries).len());
    let tiles = Tiles::new(integers(&inputs.offsets));
    let lengths = tiles.jets.windows(2).map(|pair| (pair[1] - pair[0]) * width);
    let tasks = split(&mut y, lengths).into_iter().enumerate().collect();
    in_turn(tasks, Scratch::default, |scratch, (tile, y)| {
        let graphs = tiles.jets[tile]..tiles.jets[tile + 1];
        for (graph, y) in graphs.zip(y.chunks_exact_mut(width)) {
            inputs.weights(graph, scratch, path);
            let rows = inputs.size(graph) + 1;
            let weights = Matrix::rows(&scratch.weights, heads, rows, padded(rows));
            product(y, c, false, weights, Matrix::rows(&scratch.u, rows, c, c));
        }
    });
    y
}

/// Gradients from that of the result.
pub fn backward(inputs: &Inputs, dy: &[f32], path: Path) -> Gradients {
    let (c, heads, width) = (inputs.width(), inputs.heads(), inputs.queries_width());
    let tiles = Tiles::new(integers(&inputs.offsets));
    let mut tokens = unset(slice(&inputs.tokens).len());
    let mut nodes = unset(slice(&inputs.nodes).len());
    let mut queries = unset(slice(&inputs.queries).len());
    let jets = |columns: usize| tiles.jets.windows(2).map(move |pair| (pair[1] - pair[0]) * columns);
    let tasks = split(&mut tokens, jets(c))
        .into_iter()
        .zip(tiles.split(&mut nodes, c))
        .zip(split(&mut queries, jets(width)))
        .enumerate()
        .collect();
    let sums = in_turn(tasks, Scratch::default, |scratch, (tile, ((tokens, mut nodes), queries))| {
        let mut sums = (vec![0f32; c], vec![0f32; c]);
        let graphs = tiles.jets[tile]..tiles.jets[tile + 1];
        let each = graphs.zip(tokens.chunks_exact_mut(c)).zip(queries.chunks_exact_mut(width));
        for ((graph, token), query) in each {
            inputs.weights(graph, scratch, path);
            let rows = inputs.size(graph) + 1;
            let across = padded(rows);
            let Scratch { x, u, weights, d, du, dx } = &mut *scratch;
            let (x, u, weights) =
                (x.at_least(rows * c), u.at_least(rows * c), weights.at_least(heads * across));
            let (d, du, dx) = (d.at_least(heads * across), du.at_least(rows * c), dx.at_least(rows * c));
            let dy = inputs.by_head(dy, graph);
            d.fill(0.0);
            product(d, across, false, dy, Matrix::rows(u, rows, c, c).transposed());
            softmax_gradient(path, weights, across, d);
            let by_row = |values| Matrix::rows(values, heads, rows, across).transposed();
            product(du, c, false, by_row(weights), dy);
            product(du, c, true, by_row(d), inputs.rows(&inputs.queries, graph));
            product(query, c, false, Matrix::rows(d, heads, rows, across), Matrix::rows(u, rows, c, c));
            norm_gradient(path, du, x, slice(&inputs.weight), dx, &mut sums.0, &mut sums.1);
            token.copy_from_slice(&dx[..c]);
            let (here, rest) = std::mem::take(&mut nodes).split_at_mut((rows - 1) * c);
            nodes = rest;
            here.copy_from_slice(&dx[c..]);
        }
        sums
    });
    let total = |of: &dyn Fn(&(Vec<f32>, Vec<f32>)) -> &[f32]| -> Vec<f32> {
        (0..c).map(|j| sums.iter().map(|sums| f64::from(of(sums)[j])).sum::<f64>() as f32).collect()
    };
    let (weight, bias) = (total(&|sums| &sums.0), total(&|sums| &sums.1));
    Gradients { tokens, nodes, weight, bias, queries }
}
