//! The network on high-level variables: one row a jet, no mask.

use super::OnnxOptions;
use super::builder::{Dim, F32, Var};
use super::pieces::{Net, standardised};
use crate::error::NnError;
use crate::models::mlp::MlpConfig;

pub fn export(net: &Net<'_>, config: &MlpConfig, options: &OnnxOptions) -> Result<Var<F32>, NnError> {
    let g = net.g;
    let words = match &options.features[..] {
        [] => "the variables of the network's card, in order".to_owned(),
        names => format!("in order: {}", names.join(", ")),
    };
    let x = g.input::<F32>("features", &[Dim::Any("batch"), Dim::Is(config.input_features)], &words);
    g.scope("input");
    let mut x = net.affine("input", &standardised(g, &x, options), &net.norm("input")?);
    for layer in 0..config.hidden.len() {
        let name = format!("layer.{layer}");
        g.scope(&name);
        x = g.relu(&net.dense(&name, &x)?);
    }
    g.scope("head");
    net.dense("head", &x)
}
