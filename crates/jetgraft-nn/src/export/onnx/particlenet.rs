//! ParticleNet on padded jets: neighbours are sought inside the graph, anew in every block.
//!
//! In the plane of the first block squared distances are sums of squared differences, as our kernel adds them up. In the
//! wide space of a later block they are `|x_i|^2 - 2 x_i x_j + |x_j|^2` in double precision: what cancels there is
//! below the rounding of the features themselves.

use super::builder::{Builder, F32, Float, I64, Var};
use super::pieces::{Affine, Constituents, Net, rows};
use crate::error::NnError;
use crate::models::particlenet::{Padding, ParticleNetConfig};

/// Stands for no neighbour: no squared distance of finite features is larger.
const FAR: f64 = f32::MAX as f64;

pub fn export(net: &Net<'_>, config: &ParticleNetConfig, jets: &Constituents) -> Result<Var<F32>, NnError> {
    let g = net.g;
    let places = config.point_columns().map(|column| column as i64);
    let points = g.gather(&jets.features, &g.list(&places), -1);
    g.scope("input");
    let mut x = net.affine("input", &jets.features, &net.norm("input")?);
    let mut columns = config.input_features;
    let mut pieces = Vec::with_capacity(config.blocks.len());
    for (block, sizes) in config.blocks.iter().enumerate() {
        let name = format!("edge_conv.{block}");
        g.scope(&format!("{name}.neighbours"));
        let (near, numbers) = match block {
            0 => nearest(g, &plane_distances(g, &points), jets, sizes.neighbours),
            _ => {
                let (near, numbers) = nearest(g, &space_distances(g, &x), jets, sizes.neighbours);
                (near, numbers)
            }
        };
        let shares = shares(g, &near, jets, config, sizes.neighbours);
        g.scope(&name);
        x = edge_conv(net, &name, &x, columns, &numbers, &shares, config.padding)?;
        columns = sizes.widths.last().copied().unwrap_or(columns);
        pieces.push(x.clone());
    }
    if config.fusion.is_some() {
        g.scope("fusion");
        let joined = g.concat(&pieces.iter().collect::<Vec<_>>(), -1);
        x = g.relu(&net.dense_norm("fusion.linear", "fusion.norm", &joined)?);
    }
    g.scope("head");
    let mut x = net.mean(&x, jets);
    for layer in 0..config.head.len() {
        x = g.relu(&net.dense(&format!("head.hidden.{layer}"), &x)?);
    }
    net.dense("head.output", &x)
}

/// `[B, P, P]` of `[B, P, 2]`.
fn plane_distances(g: &Builder, points: &Var<F32>) -> Var<F32> {
    let step = |column: i64| {
        let of = g.slice(points, -1, column, column + 1);
        let step = g.sub(&g.transpose(&of, &[0, 2, 1]), &of);
        g.mul(&step, &step)
    };
    g.add(&step(0), &step(1))
}

/// `[B, P, P]` of `[B, P, C]`.
fn space_distances(g: &Builder, x: &Var<F32>) -> Var<super::builder::F64> {
    let x = g.cast(x);
    let product = g.matmul(&x, &g.transpose(&x, &[0, 2, 1]));
    let square = g.reduce_sum(&g.mul(&x, &x), &[2]);
    let both = g.add(&square, &g.transpose(&square, &[0, 2, 1]));
    g.sub(&both, &g.mul(&product, &g.scalar(2.0)))
}

/// Of each constituent, which of its nearest are neighbours (1, else 0) and their numbers, `[B, P, K]`. Itself and
/// padding are none, however near.
fn nearest<T: Float>(
    g: &Builder,
    distances: &Var<T>,
    jets: &Constituents,
    neighbours: usize,
) -> (Var<F32>, Var<I64>) {
    let slots = g.size(distances, 1);
    let numbers = g.range(&slots);
    let itself = g.equal(&g.unsqueeze(&numbers, &[0]), &g.unsqueeze(&numbers, &[1]));
    let other = g.and(&g.not(&g.unsqueeze(&itself, &[0])), &g.unsqueeze(&jets.real, &[1]));
    let barred = g.choose(&other, distances, &g.scalar(FAR));
    let count = g.min(&slots, &g.list(&[neighbours as i64]));
    let (distances, numbers) = g.smallest(&barred, &count);
    (g.cast(&g.less(&distances, &g.scalar(FAR))), numbers)
}

/// Weights of the messages in their mean, `[B, P, K, 1]`; with weaver's padding one more, of all empty slots.
fn shares(
    g: &Builder,
    near: &Var<F32>,
    jets: &Constituents,
    config: &ParticleNetConfig,
    neighbours: usize,
) -> Var<F32> {
    let found = g.reduce_sum(near, &[2]);
    let near = match config.padding {
        Padding::Real => near.clone(),
        // An empty slot lies nearer than none: it stands in for each real neighbour that is missing.
        Padding::Weaver => {
            let slots = g.max(&jets.count, &g.scalar(config.slots as f64));
            let wanted = g.min(&g.sub(&slots, &g.scalar(1.0)), &g.scalar(neighbours as f64));
            let missing = g.max(&g.sub(&g.unsqueeze(&wanted, &[1]), &found), &g.scalar(0.0));
            g.concat(&[near, &missing], 2)
        }
    };
    let all = g.max(&g.reduce_sum(&near, &[2]), &g.scalar(1.0));
    g.unsqueeze(&g.div(&near, &all), &[3])
}

/// `ReLU(mean over neighbours of the messages + shortcut)`; the first map of a message acts before rows are gathered.
fn edge_conv(
    net: &Net<'_>,
    name: &str,
    x: &Var<F32>,
    inputs: usize,
    numbers: &Var<I64>,
    shares: &Var<F32>,
    padding: Padding,
) -> Result<Var<F32>, NnError> {
    let g = net.g;
    let of = |part: &str| format!("{name}.{part}");
    let Affine { scale, shift } = net.norm(&of("norm.0"))?;
    let first = net.matrix(&of("linear.0.weight"))?;
    // Rows for the receiver, then for sender minus receiver.
    let difference = first.rows(inputs, 2 * inputs);
    let receiver = first.rows(0, inputs).minus(&difference).scaled(&scale);
    let width = difference.columns;
    let receive =
        net.shifted(&of("folded_shift"), &net.product(&of("folded_receiver"), x, &receiver), &shift);
    let send = net.product(&of("folded_sender"), x, &difference.scaled(&scale));
    let mut sent = rows(g, &send, numbers, width, 3);
    if padding == Padding::Weaver {
        // The features of an empty slot are 0.
        let empty = g.mul(&g.unsqueeze(&send, &[2]), &g.scalar(0.0));
        sent = g.concat(&[&sent, &empty], 2);
    }
    let mut message = g.relu(&g.add(&g.unsqueeze(&receive, &[2]), &sent));
    let mut layer = 1;
    while net.has(&of(&format!("linear.{layer}.weight"))) {
        let (linear, norm) = (of(&format!("linear.{layer}")), of(&format!("norm.{layer}")));
        message = g.relu(&net.dense_norm(&linear, &norm, &message)?);
        layer += 1;
    }
    let mean = g.squeeze(&g.reduce_sum(&g.mul(&message, shares), &[2]), &[2]);
    let side = match net.has(&of("shortcut.weight")) {
        true => net.dense_norm(&of("shortcut"), &of("shortcut_norm"), x)?,
        false => x.clone(),
    };
    Ok(g.relu(&g.add(&mean, &side)))
}
