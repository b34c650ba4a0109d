//! JetCLR's encoder with its projection and classifier.

use super::builder::{F32, Var};
use super::pieces::{Constituents, Net};
use crate::error::NnError;
use crate::models::jetclr::{JetClrConfig, Mask, PT_MIN, PT_SCALE};

pub fn export(net: &Net<'_>, config: &JetClrConfig, jets: &Constituents) -> Result<Var<F32>, NnError> {
    let g = net.g;
    // How a constituent counts in the sum, and what its key adds to the logits.
    let (weights, keys) = match (config.mask, &jets.kinematics) {
        (Mask::Continuous, Some(kinematics)) => {
            let pt = g.squeeze(&g.slice(kinematics, -1, 0, 1), &[2]);
            let share = g.div(&g.max(&pt, &g.scalar(PT_MIN)), &g.scalar(PT_SCALE));
            let keys = g.unsqueeze(&g.mul(&g.log(&share), &g.scalar(0.5)), &[1, 2]);
            (g.mul(&share, &jets.mask), Some(keys))
        }
        _ => (jets.mask.clone(), None),
    };
    g.scope("embed");
    let mut x = net.dense("embed", &jets.features)?;
    for layer in 0..config.layers {
        let name = format!("layer.{layer}");
        g.scope(&name);
        let of = |part: &str| format!("{name}.{part}");
        let seen = net.self_attention(&of("attention.joined"), &x, config.width, config.heads, |logits| {
            let logits = match &keys {
                Some(keys) => g.add(logits, keys),
                None => logits.clone(),
            };
            net.attention_weights(&logits, &jets.real)
        })?;
        let seen = net.dense(&of("attention.output"), &seen)?;
        x = net.layer_norm(&of("norm_1"), &g.add(&x, &seen))?;
        let hidden = g.relu(&net.dense(&of("hidden"), &x)?);
        x = net.layer_norm(&of("norm_2"), &g.add(&x, &net.dense(&of("output"), &hidden)?))?;
    }
    g.scope("sum");
    let mut x = g.squeeze(&g.matmul(&g.unsqueeze(&weights, &[1]), &x), &[1]);
    for layer in 0..config.projection.len() {
        let name = format!("projection.{layer}");
        g.scope(&name);
        x = net.dense(&name, &g.relu(&x))?;
    }
    g.scope("head");
    net.dense("head", &x)
}
