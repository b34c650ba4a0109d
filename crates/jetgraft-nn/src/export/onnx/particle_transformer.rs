//! Particle Transformer on padded jets. Features of pairs are computed in 32 bits from kinematics in the form without
//! cancellation, as our own operation does.

use super::builder::{Builder, F32, Var};
use super::pieces::{Constituents, Net};
use crate::error::NnError;
use crate::models::particle_transformer::ParticleTransformerConfig;
use crate::ops::pair_embedding::EPSILON;

pub fn export(
    net: &Net<'_>,
    config: &ParticleTransformerConfig,
    jets: &Constituents,
) -> Result<Var<F32>, NnError> {
    let g = net.g;
    let (width, heads) = (config.width(), config.heads);
    g.scope("pair");
    let pairs = match &jets.kinematics {
        Some(kinematics) => pair_bias(net, kinematics, config.pair.len() + 1)?,
        None => unreachable!("the network needs kinematics"),
    };
    g.scope("embed");
    let mut x = net.affine("embed.input", &jets.features, &net.norm("embed.input")?);
    for layer in 0..config.embed.len() {
        let name = format!("embed.layer.{layer}");
        let normed = net.layer_norm(&format!("{name}.norm"), &x)?;
        x = net.gelu(&net.dense(&format!("{name}.linear"), &normed)?);
    }
    for block in 0..config.blocks {
        let name = format!("block.{block}");
        g.scope(&name);
        let normed = net.layer_norm(&format!("{name}.attention_norm"), &x)?;
        let seen =
            net.self_attention(&format!("{name}.query_key_value"), &normed, width, heads, |logits| {
                net.attention_weights(&g.add(logits, &pairs), &jets.real)
            })?;
        x = behind_heads(net, &name, &seen, &x, heads)?;
    }

    g.scope("class_block");
    // The token of every jet stands before its particles.
    let tokens = g.reshape_to(&net.weight("class_block.0.token")?, &[1, 1, width as i64]);
    let shape = g.concat(&[&g.size(&x, 0), &g.list(&[1, width as i64])], 0);
    let mut tokens = g.expand(&tokens, &shape);
    let always = g.slice(&g.or(&jets.real, &g.not(&jets.real)), 1, 0, 1);
    let real = g.concat(&[&always, &jets.real], 1);
    for block in 0..config.class_blocks {
        let name = format!("class_block.{block}.block");
        g.scope(&name);
        let seen = ask(net, &name, &tokens, &x, &real, width, heads)?;
        tokens = behind_heads(net, &name, &seen, &tokens, heads)?;
    }
    g.scope("head");
    let last = format!("class_block.{}.norm", config.class_blocks - 1);
    net.dense("head", &g.squeeze(&net.layer_norm(&last, &tokens)?, &[1]))
}

/// What is added to the logits of every attention, `[B, heads, P, P]`.
fn pair_bias(net: &Net<'_>, kinematics: &Var<F32>, layers: usize) -> Result<Var<F32>, NnError> {
    let g = net.g;
    let mut x = net.affine("pair.input", &pair_features(g, kinematics), &net.norm("pair.input")?);
    for layer in 0..layers {
        let name = format!("pair.layer.{layer}");
        x = net.gelu(&net.dense_norm(&format!("{name}.linear"), &format!("{name}.norm"), &x)?);
    }
    Ok(g.transpose(&x, &[0, 3, 1, 2]))
}

/// `ln kT`, `ln z`, `ln Delta`, `ln m2`, `[B, P, P, 4]`; see [`crate::ops::pair_embedding`].
fn pair_features(g: &Builder, kinematics: &Var<F32>) -> Var<F32> {
    let column = |at: i64| g.slice(kinematics, -1, at, at + 1);
    let other = |x: &Var<F32>| g.transpose(x, &[0, 2, 1]);
    let square = |x: &Var<F32>| g.mul(x, x);
    let (pt, y, phi, mass) = (column(0), column(1), column(2), column(3));
    let m2 = g.mul(&mass, &g.abs(&mass));
    let mt2 = g.max(&g.add(&square(&pt), &m2), &g.scalar(0.0));
    let mt = g.sqrt(&mt2);

    let d_y = g.sub(&y, &other(&y));
    let turn = g.scalar(std::f64::consts::TAU);
    let d_phi = g.sub(&phi, &other(&phi));
    let d_phi = g.sub(&d_phi, &g.mul(&g.round(&g.div(&d_phi, &turn)), &turn));
    let delta = g.sqrt(&g.add(&square(&d_y), &square(&d_phi)));
    let softer = g.min(&pt, &other(&pt));
    let kt = g.mul(&softer, &delta);
    let epsilon = g.scalar(EPSILON);
    let z = g.div(&softer, &g.max(&g.add(&pt, &other(&pt)), &epsilon));
    let (mts, pts) = (g.mul(&mt, &other(&mt)), g.mul(&pt, &other(&pt)));
    let slower = g.div(
        &g.add(&g.mul(&m2, &other(&square(&mt))), &g.mul(&square(&pt), &other(&m2))),
        &g.max(&g.add(&mts, &pts), &g.scalar(1e-30)),
    );
    let half = g.scalar(0.5);
    let opening = g.add(
        &g.mul(&mts, &square(&g.sinh(&g.mul(&d_y, &half)))),
        &g.mul(&pts, &square(&g.sin(&g.mul(&d_phi, &half)))),
    );
    let masses = g.add(&m2, &other(&m2));
    let mass = g.add(&masses, &g.add(&g.mul(&slower, &g.scalar(2.0)), &g.mul(&opening, &g.scalar(4.0))));
    let columns = [kt, z, delta, mass].map(|x| g.unsqueeze(&g.log(&g.max(&x, &epsilon)), &[3]));
    g.concat(&columns.iter().collect::<Vec<_>>(), 3)
}

/// The tokens' attention to `[token; particles]`, `[B, 1, D]`. Queries are not normalised; the bias of keys is the same
/// for all of them and falls out of the softmax.
fn ask(
    net: &Net<'_>,
    name: &str,
    tokens: &Var<F32>,
    x: &Var<F32>,
    real: &Var<super::builder::Bool>,
    width: usize,
    heads: usize,
) -> Result<Var<F32>, NnError> {
    let g = net.g;
    let of = |part: &str| format!("{name}.{part}");
    let asked = net.layer_norm(&of("attention_norm"), &g.concat(&[tokens, x], 1))?;
    let joined = net.matrix(&of("query_key_value.weight"))?;
    let bias = net.values(&of("query_key_value.bias"))?;
    let each = width / heads;
    let map = |part: &str, at: usize, rows: &Var<F32>| {
        let y = net.product(&of(part), rows, &joined.columns(at * width, (at + 1) * width));
        let biased = match at {
            1 => y,
            _ => net.shifted(&of(&format!("{part}.bias")), &y, &bias[at * width..(at + 1) * width]),
        };
        net.heads(&biased, heads, each)
    };
    let (query, key, value) = (map("query", 0, tokens), map("key", 1, &asked), map("value", 2, &asked));
    let logits = g.matmul(&query, &g.transpose(&key, &[0, 1, 3, 2]));
    let logits = g.mul(&logits, &g.scalar(1.0 / (each as f64).sqrt()));
    Ok(net.joined(&g.matmul(&net.attention_weights(&logits, real), &value), width))
}

/// From the heads' results to the rows after attention and feed-forward network.
fn behind_heads(
    net: &Net<'_>,
    name: &str,
    heads_results: &Var<F32>,
    x: &Var<F32>,
    heads: usize,
) -> Result<Var<F32>, NnError> {
    let g = net.g;
    let of = |part: &str| format!("{name}.{part}");
    // The factor of each head, on the columns of its number, is part of the map before it.
    let factors = net.values(&of("head_scale.weight"))?;
    let output = net.matrix(&of("attention_output.weight"))?;
    let columns = output.columns;
    let scale: Vec<f64> = (0..columns).map(|column| factors[column * heads / columns]).collect();
    let bias = net.values(&of("attention_output.bias"))?;
    let bias: Vec<f64> = bias.iter().zip(&scale).map(|(bias, scale)| bias * scale).collect();
    let seen = net.product(&of("attention_output.folded_weight"), heads_results, &output.scaled(&scale));
    let seen = net.shifted(&of("attention_output.folded_bias"), &seen, &bias);
    let x = g.add(x, &net.layer_norm(&of("attention_output_norm"), &seen)?);

    let hidden = net.gelu(&net.dense(&of("hidden"), &net.layer_norm(&of("hidden_norm"), &x)?)?);
    let y = net.dense(&of("output"), &net.layer_norm(&of("output_norm"), &hidden)?)?;
    Ok(g.add(&y, &g.mul(&x, &net.weight(&of("residual_scale.weight"))?)))
}
