//! Backbones, one file each.

pub mod deep_sets;
pub mod jetclr;
pub mod lundnet;
pub mod mlp;
pub mod particle_transformer;
