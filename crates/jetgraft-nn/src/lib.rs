//! Jet networks on Burn.
//!
//! - [`contract`]: what every backbone promises; freezing, probing and cached prefixes use only that.
//! - [`models`]: the backbones, one file each.
//! - [`ops`]: fused operations, each with a plain body in stock operations and a kernel for the CPU.
//! - [`state`], [`weights`], [`import`]: a network's numbers as named tensors, in our files and in foreign ones.
//! - [`export`]: whole networks for other programs (ONNX).

pub mod contract;
pub mod error;
pub mod export;
pub mod graph;
pub mod import;
mod init;
pub mod layers;
pub mod models;
pub mod ops;
pub mod registry;
pub mod state;
pub mod weights;
