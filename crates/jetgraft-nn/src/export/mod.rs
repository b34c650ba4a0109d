//! Networks for other programs. PyTorch reads safetensors under the peers' names
//! ([`crate::registry::BackboneConfig::to_foreign`] with [`crate::weights`]); whoever runs networks reads [`onnx`].

pub mod onnx;
