//! Backbones, one file each.

pub mod lundnet;
