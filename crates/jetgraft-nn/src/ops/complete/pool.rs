//! The norm and ReLU that wait for rows, alone or with the mean over the nodes of each graph.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::backward::{Pair, through_norm, through_relu};
use super::cpu::{Ready, Source};
use super::{Pending, kernels};
use crate::contract::RaggedGraph;
use crate::ops::bridge::{self, integers};
use crate::ops::cpu::{Path, Tiles, in_pool, in_turn, split, unset};

/// Rows, and the graphs over which to take means.
#[derive(Clone, Debug)]
struct Inputs {
    source: Source,
    /// `[B + 1]`.
    jet_offsets: Option<FlexTensor>,
}

/// Rows that a tile has when there are no graphs to keep whole.
const ROWS: usize = 256;

impl Inputs {
    fn rows(&self) -> usize {
        self.source.rows.layout().shape()[0]
    }

    fn tiles(&self) -> Tiles {
        match &self.jet_offsets {
            Some(offsets) => Tiles::new(integers(offsets)),
            None => {
                let ends = (0..self.rows()).step_by(ROWS).chain([self.rows()]);
                let nodes: Vec<usize> = ends.collect();
                Tiles { jets: nodes.clone(), nodes }
            }
        }
    }

    fn shape(&self) -> [usize; 2] {
        let rows = self.jet_offsets.as_ref().map_or(self.rows(), |offsets| integers(offsets).len() - 1);
        [rows, self.source.columns()]
    }

    /// The tile's rows of the output, cut out of it.
    fn split<'a>(&self, tiles: &Tiles, out: &'a mut [f32]) -> Vec<&'a mut [f32]> {
        let c = self.source.columns();
        split(out, (0..tiles.count()).map(|tile| (tiles.jets[tile + 1] - tiles.jets[tile]) * c))
    }

    fn forward(&self, path: Path) -> Vec<f32> {
        let tiles = self.tiles();
        let [rows, c] = self.shape();
        let mut out = unset(rows * c);
        let tasks = self.split(&tiles, &mut out).into_iter().enumerate().collect();
        in_turn(
            tasks,
            || (),
            |(), (tile, out): (usize, &mut [f32])| {
                let nodes = tiles.range(tile);
                match (&self.jet_offsets, &self.source.norm) {
                    (Some(offsets), Some(norm)) => {
                        let offsets = &integers(offsets)[tiles.jets[tile]..=tiles.jets[tile + 1]];
                        kernels::normed_means(
                            path,
                            self.source.contiguous(&nodes),
                            norm.affine(),
                            offsets,
                            out,
                        );
                    }
                    (Some(offsets), None) => {
                        let offsets = &integers(offsets)[tiles.jets[tile]..=tiles.jets[tile + 1]];
                        let (data, stride) = bridge::rows(&self.source.rows);
                        let rows = Ready { data: &data[nodes.start * stride..], stride };
                        kernels::means(path, rows, c, offsets, out);
                    }
                    (None, Some(norm)) => {
                        kernels::normed(path, self.source.contiguous(&nodes), norm.affine(), out);
                    }
                    (None, None) => unreachable!("nothing to do"),
                }
            },
        );
        out
    }

    /// Gradients of the rows and of the norm's parameters.
    fn backward(&self, dy: &[f32], path: Path) -> (Vec<f32>, Pair) {
        let tiles = self.tiles();
        let c = self.source.columns();
        let mut rows = unset(self.rows() * c);
        let tasks = tiles.split(&mut rows, c).into_iter().enumerate().collect();
        let sums: Vec<Pair> = in_turn(
            tasks,
            || (),
            |(), (tile, rows): (usize, &mut [f32])| {
                let nodes = tiles.range(tile);
                match &self.jet_offsets {
                    Some(offsets) => {
                        let graphs = tiles.jets[tile]..tiles.jets[tile + 1];
                        let dy = &dy[graphs.start * c..graphs.end * c];
                        kernels::shares(path, dy, c, &integers(offsets)[graphs.start..=graphs.end], rows);
                    }
                    None => rows.copy_from_slice(&dy[nodes.start * c..nodes.end * c]),
                }
                through_relu(&self.source, nodes, rows, path)
            },
        );
        let norm = through_norm(&self.source, &tiles, &sums, &mut rows, path);
        (rows, norm)
    }
}

/// On the CPU; with graphs, the mean over their nodes.
pub fn finish(input: Pending, graph: Option<&RaggedGraph>) -> Tensor<2> {
    let lifted =
        input.rows.is_autodiff() || input.norm.as_ref().is_some_and(|norm| norm.weight.is_autodiff());
    let (source, parents) = super::source(input);
    let inputs = Inputs { source, jet_offsets: graph.map(|graph| bridge::indices(&graph.jet_offsets)) };
    let path = Path::current();
    let out = bridge::tensor(in_pool(|| inputs.forward(path)), inputs.shape());
    let tracked = Tensor::from_primitive::<Autodiff<Flex>>;
    match FinishBackward.prepare::<NoCheckpointing>(parents).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => tracked(prepared.finish(Arc::new(inputs), out)),
        OpsKind::UnTracked(prepared) if lifted => tracked(prepared.finish(out)),
        OpsKind::UnTracked(_) => Tensor::from_primitive::<Flex>(out),
    }
}

#[derive(Debug)]
struct FinishBackward;

impl Backward<Flex, 3> for FinishBackward {
    type State = Arc<Inputs>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let inputs = &*ops.state;
        let (dy, path) = (bridge::slice(&dy), Path::current());
        let (rows, norm) = in_pool(|| inputs.backward(dy, path));
        let c = inputs.source.columns();
        if let Some(parent) = &ops.parents[super::ROWS] {
            grads.register::<Flex>(parent.id, bridge::tensor(rows, [inputs.rows(), c]));
        }
        for (place, values) in [(super::NORM_WEIGHT, norm.0), (super::NORM_BIAS, norm.1)] {
            if let Some(parent) = &ops.parents[place] {
                grads.register::<Flex>(parent.id, bridge::tensor(values, [c]));
            }
        }
    }
}
