//! From one row per node to one row per jet: `y_b = sum over the nodes i of jet b of w_i x_i`, the weights `w_i`
//! being 1 where none are given.
//!
//! The kernel adds the nodes of a jet in their order and jets in parallel, so threads do not change a bit; stock
//! scattering adds one row after the other.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::bridge;
use super::cpu::{Path, kernels, unset};
use crate::contract::RaggedGraph;

/// Sum over the nodes of each jet, weighted where weights are given. Weights are data: they get no gradient.
///
/// # Shapes
/// `x: [N, C]`, `weights: [N]` to `[B, C]`.
///
/// # Panics
/// If shapes do not agree.
pub fn jet_sum(x: Tensor<2>, weights: Option<Tensor<1>>, graph: &RaggedGraph) -> Tensor<2> {
    let [rows, columns] = x.dims();
    assert_eq!(rows, graph.nodes, "rows of the activation and nodes of the graph");
    if let Some(weights) = &weights {
        assert_eq!(weights.dims(), [rows], "one weight a node");
    }
    if !bridge::takes(&x) {
        return plain::jet_sum(x, weights, graph);
    }
    let lifted = x.is_autodiff();
    let (x, parent) = bridge::parts(x);
    let x = bridge::with_whole_rows(x);
    let state = State {
        jet_offsets: bridge::indices(&graph.jet_offsets),
        weights: weights.map(|weights| bridge::buffer(weights).to_contiguous()),
        columns,
    };
    let values = bridge::tensor(state.forward(&x), [graph.jets, columns]);
    match JetSumBackward.prepare::<NoCheckpointing>([parent]).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            Tensor::from_primitive::<Autodiff<Flex>>(prepared.finish(state, values))
        }
        OpsKind::UnTracked(prepared) if lifted => {
            Tensor::from_primitive::<Autodiff<Flex>>(prepared.finish(values))
        }
        OpsKind::UnTracked(_) => Tensor::from_primitive::<Flex>(values),
    }
}

/// The sum in stock operations.
pub mod plain {
    use burn::tensor::{IndexingUpdateOp, Tensor};

    use crate::contract::RaggedGraph;
    use crate::ops::plain::{like, rows_of};

    /// See [`super::jet_sum`].
    pub fn jet_sum(x: Tensor<2>, weights: Option<Tensor<1>>, graph: &RaggedGraph) -> Tensor<2> {
        let [rows, columns] = x.dims();
        let zeros = Tensor::zeros([graph.jets, columns], &x.device());
        if rows == 0 {
            return zeros;
        }
        let x = match weights {
            Some(weights) => {
                let weights = like(weights.without_autodiff(), &x).reshape([rows, 1]);
                x * weights
            }
            None => x,
        };
        zeros.select_assign(0, rows_of(&graph.jet_offsets, graph.jets, rows), x, IndexingUpdateOp::Add)
    }
}

#[derive(Clone, Debug)]
struct State {
    jet_offsets: FlexTensor,
    weights: Option<FlexTensor>,
    columns: usize,
}

impl State {
    fn offsets(&self) -> &[i32] {
        bridge::integers(&self.jet_offsets)
    }

    fn weights(&self, nodes: std::ops::Range<usize>) -> &[f32] {
        self.weights.as_ref().map_or(&[], |weights| &bridge::slice(weights)[nodes])
    }

    fn forward(&self, x: &FlexTensor) -> Vec<f32> {
        let (path, columns, offsets) = (Path::current(), self.columns, self.offsets());
        let jets = offsets.len() - 1;
        let mut sums = unset(jets * columns);
        if columns == 0 {
            return sums;
        }
        let (data, stride) = bridge::rows(x);
        sums.par_chunks_mut(columns).enumerate().for_each(|(jet, sum)| {
            let nodes = offsets[jet] as usize..offsets[jet + 1] as usize;
            let data = &data[(nodes.start * stride).min(data.len())..];
            add_rows(path, data, stride, nodes.len(), self.weights(nodes), sum);
        });
        sums
    }

    fn backward(&self, dy: &[f32]) -> Vec<f32> {
        let (path, columns, offsets) = (Path::current(), self.columns, self.offsets());
        let jets = offsets.len() - 1;
        let mut dx = unset(offsets[jets] as usize * columns);
        if columns == 0 {
            return dx;
        }
        let lengths = offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize * columns);
        super::cpu::split(&mut dx, lengths).into_par_iter().enumerate().for_each(|(jet, dx)| {
            let nodes = offsets[jet] as usize..offsets[jet + 1] as usize;
            spread_row(path, &dy[jet * columns..][..columns], self.weights(nodes), dx);
        });
        dx
    }
}

#[derive(Debug)]
struct JetSumBackward;

impl Backward<Flex, 1> for JetSumBackward {
    type State = State;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let [Some(parent)] = ops.parents else { return };
        let dx = ops.state.backward(bridge::slice(&dy));
        let rows = dx.len() / ops.state.columns.max(1);
        grads.register::<Flex>(parent.id, bridge::tensor(dx, [rows, ops.state.columns]));
    }
}

kernels! {
    /// `sum = sum over rows of w x`, with `w` 1 where there is none.
    fn add_rows(x: &[f32], stride: usize, rows: usize, weights: &[f32], sum: &mut [f32]) {
        let columns = sum.len();
        sum.fill(0.0);
        for row in 0..rows {
            let x = &x[row * stride..row * stride + columns];
            if weights.is_empty() {
                for j in 0..columns {
                    sum[j] += x[j];
                }
            } else {
                let weight = weights[row];
                for j in 0..columns {
                    sum[j] += weight * x[j];
                }
            }
        }
    }

    /// Every row becomes `w` times the given one.
    fn spread_row(dy: &[f32], weights: &[f32], dx: &mut [f32]) {
        let columns = dy.len();
        for (row, dx) in dx.chunks_exact_mut(columns).enumerate() {
            let weight = if weights.is_empty() { 1.0 } else { weights[row] };
            for j in 0..columns {
                dx[j] = weight * dy[j];
            }
        }
    }
}
