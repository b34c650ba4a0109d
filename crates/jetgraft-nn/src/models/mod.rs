//! Backbones, one file each.

pub mod deep_sets;
pub mod lundnet;
pub mod mlp;
