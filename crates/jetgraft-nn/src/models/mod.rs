//! Backbones, one file each.

pub mod event_gat;
pub mod event_gnn;
mod event_parts;
pub mod lundnet;
