//! What the attention of a Particle Transformer is told of each pair of particles (arXiv:2202.03772, equations 3 and 4).
//!
//! For particles `i >= j` of one jet, with transverse momentum pT, rapidity y, azimuth phi, mass m,
//! `mT^2 = m^2 + pT^2`:
//! `Delta = sqrt((y_i - y_j)^2 + wrap(phi_i - phi_j)^2)`, `kT = min(pT_i, pT_j) Delta`,
//! `z = min(pT_i, pT_j) / (pT_i + pT_j)`, and the squared mass of the pair without differences of large numbers,
//! `m2 = m_i^2 + m_j^2 + 2 (m_i^2 mT_j^2 + pT_i^2 m_j^2) / (mT_i mT_j + pT_i pT_j) +
//! 4 mT_i mT_j sinh^2((y_i - y_j) / 2) + 4 pT_i pT_j sin^2((phi_i - phi_j) / 2)`.
//! Each is cut below at 1e-8 (GeV, GeV^2) before its logarithm is taken. Then batch normalisation, and layers of a linear
//! map, batch normalisation and GELU. Statistics run over the pairs `i >= j` of the batch, each particle with itself
//! included; there is no gradient of the kinematics.

mod cpu;
mod kernels;
pub mod plain;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::attention::PairBias;
use super::bridge;
use super::cpu::{CpuNorm, Path};
use super::{Moments, Norm};
use crate::contract::RaggedGraph;

/// Below this a feature of a pair is cut before its logarithm; GeV or GeV^2.
pub const EPSILON: f64 = 1e-8;

/// Features of a pair.
pub const FEATURES: usize = 4;

/// One layer of the embedding.
#[derive(Clone, Debug)]
pub struct Layer {
    /// `[I, C]`.
    pub weight: Tensor<2>,
    /// `[C]`.
    pub bias: Tensor<1>,
    /// Normalisation before the GELU.
    pub norm: Norm,
}

/// What the embedding gives.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// Added to the logits of attention; as many heads as the last layer has columns.
    pub bias: PairBias,
    /// Batch statistics of the input's normalisation and of each layer's, where they used the batch's.
    pub moments: Vec<Option<Moments>>,
}

/// The embedding of all pairs of a batch, from the graph's kinematics.
///
/// # Panics
/// If the graph has no kinematics, there is no layer, or shapes do not agree.
pub fn pair_embedding(graph: &RaggedGraph, input: Norm, layers: Vec<Layer>) -> Pairs {
    let mut width = FEATURES;
    for layer in &layers {
        let [inputs, outputs] = layer.weight.dims();
        assert_eq!((inputs, layer.bias.dims()), (width, [outputs]), "layer of the pair embedding");
        width = outputs;
    }
    assert!(!layers.is_empty(), "a pair embedding has layers");
    if bridge::takes(graph.kinematics()) && bridge::takes(&layers[0].weight) && layers.len() <= MAX_LAYERS {
        on_cpu(graph, input, layers)
    } else {
        plain::pair_embedding(graph, input, layers)
    }
}

/// `ln kT`, `ln z`, `ln Delta`, `ln m2` of every pair, `[P, 4]`; pairs as in [`PairBias`].
///
/// # Panics
/// If the graph has no kinematics.
pub fn features(graph: &RaggedGraph) -> Tensor<2> {
    let kinematics = graph.kinematics();
    if !bridge::takes(kinematics) {
        return plain::features(kinematics, graph);
    }
    let kinematics = bridge::buffer(kinematics.clone()).to_contiguous();
    let values = cpu::features_of(&kinematics, &bridge::indices(&graph.jet_offsets), Path::current());
    let pairs = values.len() / FEATURES;
    Tensor::from_primitive::<Flex>(bridge::tensor(values, [pairs, FEATURES]))
}

/// Most layers of an embedding on the CPU.
const MAX_LAYERS: usize = 6;

fn on_cpu(graph: &RaggedGraph, input: Norm, layers: Vec<Layer>) -> Pairs {
    let mut lifted = false;
    let mut parents = Vec::new();
    fn part<const D: usize>(
        tensor: Tensor<D>,
        parents: &mut Vec<NodeGuard>,
        lifted: &mut bool,
    ) -> FlexTensor {
        *lifted |= tensor.is_autodiff();
        let (buffer, parent) = bridge::parts(tensor);
        parents.push(parent);
        buffer.to_contiguous()
    }
    let norm = |norm: Norm, parents: &mut Vec<NodeGuard>, lifted: &mut bool| CpuNorm {
        weight: part(norm.weight, parents, lifted),
        bias: part(norm.bias, parents, lifted),
        running: norm.running.map(|(mean, variance)| {
            (bridge::buffer(mean).to_contiguous(), bridge::buffer(variance).to_contiguous())
        }),
    };
    let inputs = cpu::Inputs {
        kinematics: bridge::buffer(graph.kinematics().clone()).to_contiguous(),
        offsets: bridge::indices(&graph.jet_offsets),
        input: norm(input, &mut parents, &mut lifted),
        layers: (layers.into_iter())
            .map(|layer| cpu::Layer {
                weight: part(layer.weight, &mut parents, &mut lifted),
                bias: part(layer.bias, &mut parents, &mut lifted),
                norm: norm(layer.norm, &mut parents, &mut lifted),
            })
            .collect(),
    };
    // The number of parents is part of the type of a backward.
    macro_rules! run_with {
        ($($count:literal)+) => {
            match parents.len() {
                $($count => match <[NodeGuard; $count]>::try_from(parents) {
                    Ok(parents) => run(inputs, parents, lifted),
                    Err(parents) => unreachable!("{} parents", parents.len()),
                },)+
                count => unreachable!("{count} parents"),
            }
        };
    }
    run_with!(6 10 14 18 22 26)
}

fn run<const N: usize>(inputs: cpu::Inputs, parents: [NodeGuard; N], lifted: bool) -> Pairs {
    let (y, passed) = cpu::forward(&inputs, Path::current());
    let moments = passed.statistics().into_iter().map(bridge::moments).collect();
    let length = y.len();
    let y = bridge::tensor(y, [length]);
    let bias = match PairBackward.prepare::<NoCheckpointing>(parents).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            Tensor::from_primitive::<Autodiff<Flex>>(prepared.finish(Arc::new((inputs, passed)), y))
        }
        OpsKind::UnTracked(prepared) if lifted => {
            Tensor::from_primitive::<Autodiff<Flex>>(prepared.finish(y))
        }
        OpsKind::UnTracked(_) => Tensor::from_primitive::<Flex>(y),
    };
    Pairs { bias: PairBias(bias), moments }
}

#[derive(Debug)]
struct PairBackward;

impl<const N: usize> Backward<Flex, N> for PairBackward {
    type State = Arc<(cpu::Inputs, cpu::Passed)>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let (inputs, passed) = &*ops.state;
        let found = cpu::backward(inputs, passed, bridge::slice(&dy), Path::current());
        for (at, (values, parent)) in found.into_iter().zip(&ops.parents).enumerate() {
            let Some(parent) = parent else { continue };
            let length = values.len();
            // After the two of the input's norm, every fourth is the weight of a layer.
            let gradient = match at.checked_sub(2) {
                Some(at) if at % 4 == 0 => {
                    let columns = bridge::slice(&inputs.layers[at / 4].bias).len();
                    bridge::tensor(values, [length / columns, columns])
                }
                _ => bridge::tensor(values, [length]),
            };
            grads.register::<Flex>(parent.id, gradient);
        }
    }
}
