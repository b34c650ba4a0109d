//! What the attention of a Particle Transformer is told of each pair of particles (arXiv:2202.03772, equations 3 and 4).
//!
//! For particles `i >= j` of one jet, with transverse momentum pT, rapidity y, azimuth phi, mass m,
//! `mT^2 = m^2 + pT^2`:
//! `Delta = sqrt((y_i - y_j)^2 + wrap(phi_i - phi_j)^2)`, `kT = min(pT_i, pT_j) Delta`,
//! `z = min(pT_i, pT_j) / (pT_i + pT_j)`, and the squared mass of the pair without differences of large numbers,
//! `m2 = m_i^2 + m_j^2 + 2 (m_i^2 mT_j^2 + pT_i^2 m_j^2) / (mT_i mT_j + pT_i pT_j)
//! + 4 mT_i mT_j sinh^2((y_i - y_j) / 2) + 4 pT_i pT_j sin^2((phi_i - phi_j) / 2)`.
//! Each is cut below at 1e-8 (GeV, GeV^2) before its logarithm is taken. Then batch normalisation, and layers of a linear
//! map, batch normalisation and GELU. Statistics run over the pairs `i >= j` of the batch, each particle with itself
//! included; there is no gradient of the kinematics.

pub mod plain;

use burn::tensor::Tensor;

use super::attention::PairBias;
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
    plain::pair_embedding(graph, input, layers)
}
