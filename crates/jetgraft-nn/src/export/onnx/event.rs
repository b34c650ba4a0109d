//! The two networks on events: complete graphs of the objects given.

use super::builder::{F32, Var};
use super::pieces::{Affine, Constituents, Net};
use crate::error::NnError;

/// Layers, mean over objects, head. With `heads`, messages are those of GATv2, else means.
pub fn export(
    net: &Net<'_>,
    layers: usize,
    hidden: usize,
    heads: Option<usize>,
    jets: &Constituents,
) -> Result<Var<F32>, NnError> {
    let g = net.g;
    let mut x = jets.features.clone();
    for layer in 0..layers {
        let name = format!("layer.{layer}");
        g.scope(&name);
        x = run(net, &name, &x, heads, jets)?;
    }
    g.scope("head");
    let mut x = net.mean(&x, jets);
    for layer in 0..hidden {
        x = g.relu(&net.dense(&format!("head.hidden.{layer}"), &x)?);
    }
    net.dense("head.output", &x)
}

/// `ReLU(BN(message + R x))`, the norm folded into both maps.
fn run(
    net: &Net<'_>,
    name: &str,
    x: &Var<F32>,
    heads: Option<usize>,
    jets: &Constituents,
) -> Result<Var<F32>, NnError> {
    let g = net.g;
    let Affine { scale, shift } = net.norm(&format!("{name}.norm"))?;
    let linear = net.matrix(&format!("{name}.linear.weight"))?;
    let residual = format!("{name}.residual.weight");
    let own = match net.has(&residual) {
        true => net.product(&format!("{name}.folded_residual"), x, &net.matrix(&residual)?.scaled(&scale)),
        false => g.mul(x, &net.vector(&format!("{name}.folded_scale"), &scale)),
    };
    let message = match heads {
        // The mean is the same for every object; it goes through the map once.
        None => {
            let mean = g.unsqueeze(&net.mean(x, jets), &[1]);
            net.product(&format!("{name}.folded_weight"), &mean, &linear.scaled(&scale))
        }
        Some(heads) => {
            let u = net.product(&format!("{name}.linear.weight"), x, &linear);
            let message = attend(net, name, &u, linear.columns, heads, jets)?;
            g.mul(&message, &net.vector(&format!("{name}.folded_message_scale"), &scale))
        }
    };
    Ok(g.relu(&net.shifted(&format!("{name}.folded_shift"), &g.add(&message, &own), &shift)))
}

/// Slope of the LeakyReLU for negative arguments.
const SLOPE: f32 = crate::ops::complete::NEGATIVE_SLOPE;

/// What each object takes from all, `[B, P, C]`: weights are the softmax over senders of
/// `a . LeakyReLU(u_i + u_j)`, head by head.
fn attend(
    net: &Net<'_>,
    name: &str,
    u: &Var<F32>,
    columns: usize,
    heads: usize,
    jets: &Constituents,
) -> Result<Var<F32>, NnError> {
    let g = net.g;
    let width = columns / heads;
    // The heads' vectors as one matrix `[C, heads]`: a column sees the rows of its head only.
    let vectors = net.values(&format!("{name}.attn"))?;
    let mut spread = vec![0f32; columns * heads];
    for (at, value) in vectors.iter().enumerate() {
        spread[at * heads + at / width] = *value as f32;
    }
    let spread = g.weight(&format!("{name}.attn.spread"), &[columns, heads], &spread);
    let pairs = g.leaky_relu(&g.add(&g.unsqueeze(u, &[2]), &g.unsqueeze(u, &[1])), SLOPE);
    let scores = g.transpose(&g.matmul(&pairs, &spread), &[0, 3, 1, 2]);
    let weights = net.attention_weights(&scores, &jets.real);
    let values = net.heads(u, heads, width);
    Ok(net.joined(&g.matmul(&weights, &values), columns))
}
