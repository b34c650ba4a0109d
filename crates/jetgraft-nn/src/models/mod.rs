//! Backbones, one file each.

pub mod lundnet;
pub mod particlenet;
