//! Foreign weight files: names and tensors, nothing else. Nothing in a file is ever executed, and a damaged or
//! hostile file is an error, never a panic or an unbounded allocation.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::error::NnError;
use crate::weights::Metadata;

mod archive;
pub mod keys;
mod pickle;
mod pytorch;

/// The file formats that are read; recognised by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `torch.save` since 1.6: a zip archive with `data.pkl`.
    PytorchZip,
    /// `torch.save` before 1.6: pickles, then raw storages.
    PytorchLegacy,
    /// safetensors.
    Safetensors,
}

/// A tensor of a foreign file, row major, converted to `f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignTensor {
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// Elements, the last dimension fastest.
    pub values: Vec<f32>,
    /// Element type in the file, such as `f32` or `i64`.
    pub dtype: &'static str,
}

/// What a foreign file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreign {
    /// How it was written.
    pub format: Format,
    /// Tensors under the file's own names; dictionaries inside dictionaries are joined by dots.
    pub tensors: BTreeMap<String, ForeignTensor>,
    /// Text that came with them (safetensors only).
    pub metadata: Metadata,
}

/// Reads a file.
///
/// # Errors
/// [`NnError::Io`], or [`NnError::Weights`] with the file and entry.
pub fn read_file(path: &Path) -> Result<Foreign, NnError> {
    let bytes = std::fs::read(path).map_err(|source| NnError::Io { file: path.to_path_buf(), source })?;
    read(&bytes).map_err(|error| error.in_file(path))
}

/// Reads the bytes of a file.
///
/// # Errors
/// [`NnError::Weights`] with the entry at fault.
pub fn read(bytes: &[u8]) -> Result<Foreign, NnError> {
    if bytes.starts_with(b"PK\x03\x04") {
        let tensors = pytorch::read_zip(bytes)?;
        Ok(Foreign { format: Format::PytorchZip, tensors, metadata: Metadata::new() })
    } else if bytes.first() == Some(&0x80) && bytes.get(1).is_some_and(|&protocol| protocol <= 5) {
        let tensors = pytorch::read_legacy(bytes)?;
        Ok(Foreign { format: Format::PytorchLegacy, tensors, metadata: Metadata::new() })
    } else {
        read_safetensors(bytes)
    }
}

fn read_safetensors(bytes: &[u8]) -> Result<Foreign, NnError> {
    let (views, metadata) = crate::weights::parse(bytes).map_err(|error| match error {
        NnError::Weights { found, .. } => fault(found, "a PyTorch or safetensors file"),
        other => other,
    })?;
    let mut tensors = BTreeMap::new();
    for (name, view) in views.tensors() {
        let tensor = from_view(&view).map_err(|error| in_entry(error, &name))?;
        tensors.insert(name, tensor);
    }
    Ok(Foreign { format: Format::Safetensors, tensors, metadata })
}

fn from_view(view: &TensorView<'_>) -> Result<ForeignTensor, NnError> {
    let element = match view.dtype() {
        Dtype::F64 => Element::F64,
        Dtype::F32 => Element::F32,
        Dtype::F16 => Element::F16,
        Dtype::BF16 => Element::Bf16,
        Dtype::I64 => Element::I64,
        Dtype::I32 => Element::I32,
        Dtype::U8 => Element::U8,
        Dtype::BOOL => Element::Bool,
        other => return Err(fault(format!("data type {other:?}"), "a float or integer type")),
    };
    let data = view.data();
    let values = (0..data.len() / element.size()).map(|at| element.value(data, at)).collect();
    Ok(ForeignTensor { shape: view.shape().to_vec(), values, dtype: element.name() })
}

/// Element types that occur in weight files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    U8,
    Bool,
}

impl Element {
    fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::U8 | Self::Bool => 1,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::I16 => "i16",
            Self::U8 => "u8",
            Self::Bool => "bool",
        }
    }

    /// Element `at` of little-endian `data`, which the caller has measured.
    fn value(self, data: &[u8], at: usize) -> f32 {
        let bytes = &data[at * self.size()..(at + 1) * self.size()];
        let mut wide = [0u8; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(wide);
        match self {
            Self::F64 => f64::from_bits(bits) as f32,
            Self::F32 => f32::from_bits(bits as u32),
            Self::F16 => half(bits as u16),
            Self::Bf16 => f32::from_bits((bits as u32) << 16),
            Self::I64 => bits as i64 as f32,
            Self::I32 => bits as i32 as f32,
            Self::I16 => bits as i16 as f32,
            Self::U8 | Self::Bool => bits as f32,
        }
    }
}

/// IEEE half precision to single: exact.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff) / 1024.0;
    match exponent {
        0 => sign * fraction * 2f32.powi(-14),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction) * 2f32.powi(exponent - 15),
    }
}

fn fault(found: impl Into<String>, expected: impl Into<String>) -> NnError {
    NnError::Weights { file: None, name: None, found: found.into(), expected: expected.into() }
}

fn in_entry(error: NnError, entry: &str) -> NnError {
    match error {
        NnError::Weights { file, found, expected, .. } => {
            NnError::Weights { file, name: Some(entry.to_owned()), found, expected }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_exact() {
        for (bits, value) in
            [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2f32.powi(-24)), (0x7bff, 65504.0), (0x8000, 0.0)]
        {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7c00).is_infinite() && half(0x7c01).is_nan());
    }

    #[test]
    fn other_files_are_named_as_such() {
        for bytes in [&b""[..], b"PK", b"hello world, this is text", b"\x80\x02.", b"PK\x03\x04"] {
            assert!(matches!(read(bytes), Err(NnError::Weights { .. })));
        }
    }
}
