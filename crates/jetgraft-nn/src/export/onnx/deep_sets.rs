//! Particle and energy flow networks on padded jets.

use super::builder::{F32, Var};
use super::pieces::{Constituents, Net};
use crate::error::NnError;
use crate::models::deep_sets::{DeepSetsConfig, Flow};

pub fn export(net: &Net<'_>, config: &DeepSetsConfig, jets: &Constituents) -> Result<Var<F32>, NnError> {
    let g = net.g;
    let mut x = jets.features.clone();
    for layer in 0..config.phi.len() {
        let name = format!("phi.{layer}");
        g.scope(&name);
        x = g.relu(&net.dense(&name, &x)?);
    }
    g.scope("sum");
    let mut x = match (config.flow, &jets.kinematics) {
        (Flow::Energy, Some(kinematics)) => {
            let pt = g.slice(kinematics, -1, 0, 1);
            let total = g.max(&g.reduce_sum(&pt, &[1]), &g.scalar(f32::MIN_POSITIVE.into()));
            let shares = g.transpose(&g.div(&pt, &total), &[0, 2, 1]);
            g.squeeze(&g.matmul(&shares, &x), &[1])
        }
        _ => net.sum(&x, jets),
    };
    for layer in 0..config.f.len() {
        let name = format!("f.{layer}");
        g.scope(&name);
        x = g.relu(&net.dense(&name, &x)?);
    }
    g.scope("head");
    net.dense("head", &x)
}
