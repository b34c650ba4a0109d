//! From node features to one row per jet: `mean over nodes of BN(ReLU(sum_i x_i W_i + b))`, where the `x_i` are
//! columns of one wide input that need not be joined.
//!
//! The norm is affine, so the mean of its output is its output for the mean: nodes are never normalised one by
//! one.

mod cpu;
pub mod plain;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::bridge;
use super::cpu::{CpuNorm, Path, in_pool};
use super::{Moments, Norm};
use crate::contract::RaggedGraph;

/// The most pieces that one readout takes.
pub const MAX_PIECES: usize = 16;

/// Parents that are not pieces: weight, bias, scale and shift of the norm.
const OTHERS: usize = 4;

/// Linear map, ReLU, normalisation over nodes, mean over the nodes of each jet.
///
/// # Shapes
/// `pieces: [N, I_i]`, `weight: [sum of I_i, C]`, `bias: [C]` to `[B, C]`.
///
/// # Panics
/// If shapes do not agree.
pub fn readout(
    pieces: Vec<Tensor<2>>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    norm: Norm,
    graph: &RaggedGraph,
) -> (Tensor<2>, Option<Moments>) {
    let joined: usize = pieces.iter().map(|piece| piece.dims()[1]).sum();
    assert_eq!(weight.dims()[0], joined, "rows of the weight and columns of the pieces");
    assert!(pieces.iter().all(|piece| piece.dims()[0] == graph.nodes), "rows of the pieces");
    assert!((1..=MAX_PIECES).contains(&pieces.len()), "{} pieces", pieces.len());
    if !pieces.iter().all(bridge::takes) || !bridge::takes(&weight) {
        return plain::readout(pieces, weight, bias, norm, graph);
    }
    let lifted = pieces.iter().any(Tensor::is_autodiff) || weight.is_autodiff();
    let mut inputs = Vec::with_capacity(MAX_PIECES);
    let mut parents = Vec::with_capacity(MAX_PIECES + OTHERS);
    for piece in pieces {
        let (buffer, parent) = bridge::parts(piece);
        inputs.push(bridge::with_whole_rows(buffer));
        parents.push(parent);
    }
    let mut add = |(buffer, parent): (_, NodeGuard)| {
        parents.push(parent);
        buffer
    };
    let weight = add(bridge::parts(weight)).to_contiguous();
    let bias = add(bridge::parts(bias)).to_contiguous();
    let norm = CpuNorm {
        weight: add(bridge::parts(norm.weight)).to_contiguous(),
        bias: add(bridge::parts(norm.bias)).to_contiguous(),
        running: norm.running.map(|(mean, variance)| {
            (bridge::buffer(mean).to_contiguous(), bridge::buffer(variance).to_contiguous())
        }),
    };
    let jet_offsets = bridge::indices(&graph.jet_offsets);
    let inputs = cpu::Inputs { pieces: inputs, weight, bias, norm, jet_offsets };
    macro_rules! by_count {
        ($($count:literal)*) => {
            match parents.len() - OTHERS {
                $($count => run::<{ $count + OTHERS }>(inputs, parents, lifted),)*
                count => unreachable!("{count} pieces"),
            }
        };
    }
    by_count!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
}

fn run<const N: usize>(
    inputs: cpu::Inputs,
    parents: Vec<NodeGuard>,
    lifted: bool,
) -> (Tensor<2>, Option<Moments>) {
    let Ok(parents) = <[NodeGuard; N]>::try_from(parents) else { unreachable!("counted before") };
    let path = Path::current();
    let shape = [inputs.jets(), inputs.outputs()];
    let graph = Tensor::from_primitive::<Autodiff<Flex>>;
    match ReadoutBackward.prepare::<NoCheckpointing>(parents).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let (values, passed) = in_pool(|| cpu::forward(&inputs, true, path));
            let moments = bridge::moments(&passed.statistics);
            let jets = prepared.finish(Arc::new((inputs, passed)), bridge::tensor(values, shape));
            (graph(jets), moments)
        }
        OpsKind::UnTracked(prepared) => {
            let (values, passed) = in_pool(|| cpu::forward(&inputs, false, path));
            let jets = bridge::tensor(values, shape);
            let jets =
                if lifted { graph(prepared.finish(jets)) } else { Tensor::from_primitive::<Flex>(jets) };
            (jets, bridge::moments(&passed.statistics))
        }
    }
}

#[derive(Debug)]
struct ReadoutBackward;

impl<const N: usize> Backward<Flex, N> for ReadoutBackward {
    type State = Arc<(cpu::Inputs, cpu::Passed)>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let (inputs, passed) = &*ops.state;
        let pieces = N - OTHERS;
        let wanted: Vec<bool> = ops.parents.iter().map(Option::is_some).collect();
        let (dy, path) = (bridge::slice(&dy), Path::current());
        let found = in_pool(|| {
            cpu::backward(inputs, passed, dy, &wanted[..pieces], wanted[pieces], wanted[pieces + 1], path)
        });
        let c = inputs.outputs();
        let rows = inputs.tiles().rows();
        let joined = bridge::slice(&inputs.weight).len() / c;
        for (piece, values) in found.pieces.into_iter().enumerate() {
            if let Some(parent) = &ops.parents[piece] {
                let columns = inputs.pieces[piece].layout().shape()[1];
                grads.register::<Flex>(parent.id, bridge::tensor(values, [rows, columns]));
            }
        }
        if let Some(parent) = &ops.parents[pieces] {
            grads.register::<Flex>(parent.id, bridge::tensor(found.weight, [joined, c]));
        }
        for (place, values) in [(1, found.bias), (2, found.norm.0), (3, found.norm.1)] {
            if let Some(parent) = &ops.parents[pieces + place] {
                grads.register::<Flex>(parent.id, bridge::tensor(values, [c]));
            }
        }
    }
}
