//! Mean over the nodes of each jet.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::bridge::{self, integers, rows, slice};
use super::cpu::{Path, Tiles, kernels, split, unset};
use super::plain;
use crate::contract::RaggedGraph;

/// Mean over the nodes of each jet.
///
/// # Shapes
/// `[N, C]` to `[B, C]`.
///
/// # Panics
/// If `values` has not one row a node.
pub fn jet_mean(values: Tensor<2>, graph: &RaggedGraph) -> Tensor<2> {
    let [nodes, columns] = values.dims();
    assert_eq!(nodes, graph.nodes, "rows of the values and nodes of the graph");
    if !bridge::takes(&values) {
        return plain::jet_mean(values, graph);
    }
    let lifted = values.is_autodiff();
    let jet_offsets = bridge::indices(&graph.jet_offsets);
    let (values, parent) = bridge::parts(values);
    let means = bridge::tensor(means(&bridge::with_whole_rows(values), &jet_offsets), [graph.jets, columns]);
    let graph = Tensor::from_primitive::<Autodiff<Flex>>;
    match JetMeanBackward.prepare::<NoCheckpointing>([parent]).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => graph(prepared.finish(Arc::new(jet_offsets), means)),
        OpsKind::UnTracked(prepared) if lifted => graph(prepared.finish(means)),
        OpsKind::UnTracked(_) => Tensor::from_primitive::<Flex>(means),
    }
}

fn means(values: &FlexTensor, jet_offsets: &FlexTensor) -> Vec<f32> {
    let offsets = integers(jet_offsets);
    let columns = values.layout().shape()[1];
    let tiles = Tiles::new(offsets);
    let path = Path::current();
    let mut means = unset((offsets.len() - 1) * columns);
    let jets = (0..tiles.count()).map(|tile| (tiles.jets[tile + 1] - tiles.jets[tile]) * columns);
    split(&mut means, jets).into_par_iter().enumerate().for_each(|(tile, means)| {
        let (data, stride) = rows(values);
        let data = &data[tiles.range(tile).start * stride..];
        mean_rows(path, data, stride, &offsets[tiles.jets[tile]..=tiles.jets[tile + 1]], columns, means);
    });
    means
}

fn spread(gradient: &[f32], jet_offsets: &FlexTensor, columns: usize) -> Vec<f32> {
    let offsets = integers(jet_offsets);
    let tiles = Tiles::new(offsets);
    let path = Path::current();
    let mut out = unset(tiles.rows() * columns);
    tiles.split(&mut out, columns).into_par_iter().enumerate().for_each(|(tile, out)| {
        let jets = tiles.jets[tile]..tiles.jets[tile + 1];
        let gradient = &gradient[jets.start * columns..jets.end * columns];
        spread_rows(path, gradient, &offsets[jets.start..=jets.end], columns, out);
    });
    out
}

#[derive(Debug)]
struct JetMeanBackward;

impl Backward<Flex, 1> for JetMeanBackward {
    type State = Arc<FlexTensor>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        let [Some(parent)] = &ops.parents else { return };
        let columns = gradient.layout().shape()[1];
        let out = spread(slice(&gradient), &ops.state, columns);
        let nodes = out.len() / columns.max(1);
        grads.register::<Flex>(parent.id, bridge::tensor(out, [nodes, columns]));
    }
}

kernels! {
    /// Mean over the rows of each jet.
    fn mean_rows(x: &[f32], stride: usize, offsets: &[i32], c: usize, means: &mut [f32]) {
        for (jet, mean) in means.chunks_exact_mut(c).enumerate() {
            mean.fill(0.0);
            let nodes = (offsets[jet] - offsets[0]) as usize..(offsets[jet + 1] - offsets[0]) as usize;
            let share = 1.0 / nodes.len().max(1) as f32;
            for node in nodes {
                let row = &x[node * stride..node * stride + c];
                for j in 0..c {
                    mean[j] += row[j];
                }
            }
            for value in mean {
                *value *= share;
            }
        }
    }

    /// An equal share of each jet's gradient for each of its rows.
    fn spread_rows(d: &[f32], offsets: &[i32], c: usize, out: &mut [f32]) {
        for (jet, d) in d.chunks_exact(c).enumerate() {
            let nodes = (offsets[jet] - offsets[0]) as usize..(offsets[jet + 1] - offsets[0]) as usize;
            let share = 1.0 / nodes.len().max(1) as f32;
            for row in out[nodes.start * c..nodes.end * c].chunks_exact_mut(c) {
                for j in 0..c {
                    row[j] = d[j] * share;
                }
            }
        }
    }
}
