//! Backbones, one file each.

pub mod deep_sets;
pub mod event_gat;
pub mod event_gnn;
mod event_parts;
pub mod jetclr;
pub mod lundnet;
pub mod mlp;
pub mod particle_transformer;
pub mod particlenet;
