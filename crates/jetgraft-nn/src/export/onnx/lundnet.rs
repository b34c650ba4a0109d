//! LundNet on padded trees.
//!
//! A tree edge joins a declustering and its parent in both directions, so the messages of a jet of N slots are
//! two rows a slot: one from the parent, found by its number, one to the parent, added up by a product with the
//! matrix of parents `[N, N]`.

use super::OnnxOptions;
use super::builder::{Builder, Dim, F32, I64, Var};
use super::pieces::{Affine, Constituents, Net, given, rows};
use crate::error::NnError;
use crate::models::lundnet::LundNetConfig;

/// Edges of padded trees.
struct Tree {
    /// `[B, N, N]`: 1 where the row is the parent of the column.
    children: Var<F32>,
    /// `[B, N]`: number of the parent, 0 where there is none.
    parent: Var<I64>,
    /// `[B, N, 1]`: 1 where there is a parent.
    has_parent: Var<F32>,
    /// `[B, N, 1]`: 1 over the number of neighbours, at most 1.
    share: Var<F32>,
}

fn tree(g: &Builder, jets: &Constituents) -> Tree {
    let words =
        "number of the parent declustering within the jet, from 0; -1 for the first one and for padding";
    let parents = g.input::<I64>("parents", &[Dim::Any("batch"), Dim::Any("declusterings")], words);
    let numbers = g.range(&g.size(&parents, 1));
    let is_parent = g.equal(&g.unsqueeze(&parents, &[2]), &g.reshape_to(&numbers, &[1, 1, -1]));
    // Who is padding has no parent and is none.
    let both = g.and(&g.unsqueeze(&jets.real, &[2]), &g.unsqueeze(&jets.real, &[1]));
    let matrix = g.cast::<_, F32>(&g.and(&is_parent, &both));
    let children = g.transpose(&matrix, &[0, 2, 1]);
    let has_parent = g.reduce_sum(&matrix, &[2]);
    let degree = g.add(&has_parent, &g.reduce_sum(&children, &[2]));
    let share = g.div(&g.scalar(1.0), &g.max(&degree, &g.scalar(1.0)));
    let last = g.sub(&g.size(&parents, 1), &g.list(&[1]));
    let parent = g.min(&g.max(&parents, &g.whole(0)), &last);
    Tree { children, parent, has_parent, share }
}

pub fn export(net: &Net<'_>, config: &LundNetConfig, options: &OnnxOptions) -> Result<Var<F32>, NnError> {
    let g = net.g;
    let jets = given(g, "declusterings", config.input_features, false, options);
    let tree = tree(g, &jets);
    let mut x = net.affine("input", &jets.features, &net.norm("input")?);
    let mut pieces = Vec::with_capacity(config.widths.len());
    for (block, &width) in config.widths.iter().enumerate() {
        let name = format!("edge_conv.{block}");
        g.scope(&name);
        x = edge_conv(net, &name, &x, &tree, width)?;
        pieces.push(x.clone());
    }
    g.scope("fusion");
    let joined = g.concat(&pieces.iter().collect::<Vec<_>>(), -1);
    let hidden = g.relu(&net.dense("fusion.linear", &joined)?);
    // The norm is affine: the norm of the mean is the mean of the norms.
    let x = net.affine("fusion.norm", &net.mean(&hidden, &jets), &net.norm("fusion.norm")?);
    g.scope("head");
    net.dense("head.output", &g.relu(&net.dense("head.hidden", &x)?))
}

/// `ReLU(mean over neighbours of the messages + shortcut)`, a message being
/// `ReLU(BN2(ReLU(BN1(x_receiver Theta + x_sender (Phi - Theta))) W))`.
fn edge_conv(
    net: &Net<'_>,
    name: &str,
    x: &Var<F32>,
    tree: &Tree,
    width: usize,
) -> Result<Var<F32>, NnError> {
    let g = net.g;
    let of = |part: &str| format!("{name}.{part}");
    let Affine { scale, shift } = net.norm(&of("norm_1"))?;
    let theta = net.matrix(&of("theta.weight"))?;
    let sending = net.matrix(&of("phi.weight"))?.minus(&theta).scaled(&scale);
    let receive = net.product(&of("folded_receiver"), x, &theta.scaled(&scale));
    let send = net.shifted(&of("folded_shift"), &net.product(&of("folded_sender"), x, &sending), &shift);

    // One gather for both: the parent as sender, and as receiver.
    let parent = rows(g, &g.concat(&[&receive, &send], -1), &tree.parent, 2 * width, 2);
    let [parent_receives, parent_sends] = g.halves(&parent, -1);
    let (down, up) = (g.add(&receive, &parent_sends), g.add(&send, &parent_receives));
    // Both ways in one product of matrices.
    let edges = g.relu(&g.concat(&[&down, &up], 1));
    let messages = g.relu(&net.dense_norm(&of("linear"), &of("norm_2"), &edges)?);
    let [down, up] = g.halves(&messages, 1);
    let sum = g.add(&g.mul(&down, &tree.has_parent), &g.matmul(&tree.children, &up));
    let mean = g.mul(&sum, &tree.share);
    let side = match net.has(&of("shortcut.weight")) {
        true => net.dense_norm(&of("shortcut"), &of("shortcut_norm"), x)?,
        false => x.clone(),
    };
    Ok(g.relu(&g.add(&mean, &side)))
}
