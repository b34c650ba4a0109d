//! Our weight files: safetensors (32-bit floats, names sorted, text metadata), the same bytes for the same content.

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensors};

use crate::error::NnError;
use crate::state::{NamedTensor, Role, State};

/// Text that travels with the tensors.
pub type Metadata = BTreeMap<String, String>;

/// The key under which the format keeps its metadata; no tensor may bear it.
const METADATA: &str = "__metadata__";

/// Writes a state and its metadata as the bytes of a safetensors file.
///
/// # Panics
/// If a tensor's values do not fill its shape: a state made by this crate never does that.
pub fn to_bytes(state: &State, metadata: &Metadata) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert(METADATA.to_owned(), serde_json::json!(metadata));
    }
    let mut start = 0;
    for (name, tensor) in state {
        assert_eq!(tensor.values.len(), tensor.shape.iter().product::<usize>(), "tensor `{name}`");
        let end = start + 4 * tensor.values.len();
        let entry = serde_json::json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end]});
        header.insert(name.clone(), entry);
        start = end;
    }
    let mut text = serde_json::Value::Object(header).to_string().into_bytes();
    // The format wants the data aligned to eight bytes; spaces fill the header.
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = Vec::with_capacity(8 + text.len() + start);
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&text);
    for tensor in state.values() {
        for value in &tensor.values {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
    }
    bytes
}

/// Reads what [`to_bytes`] wrote. Strict: every byte is accounted for, and only 32-bit floats are taken.
///
/// # Errors
/// [`NnError::Weights`] naming the entry.
pub fn from_bytes(bytes: &[u8]) -> Result<(State, Metadata), NnError> {
    let (tensors, metadata) = parse(bytes)?;
    let mut state = State::new();
    for (name, view) in tensors.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(NnError::Weights {
                file: None,
                name: Some(name),
                found: format!("data type {:?}", view.dtype()),
                expected: "F32".to_owned(),
            });
        }
        let values = view
            .data()
            .chunks_exact(4)
            .map(|chunk| f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]))
            .collect();
        let role = Role::of(&name);
        state.insert(name, NamedTensor { shape: view.shape().to_vec(), values, role });
    }
    Ok((state, metadata))
}

/// The container alone: checked header, views into `bytes`, metadata.
pub(crate) fn parse(bytes: &[u8]) -> Result<(SafeTensors<'_>, Metadata), NnError> {
    let fault = |error: safetensors::SafeTensorError| NnError::Weights {
        file: None,
        name: None,
        found: error.to_string(),
        expected: "a whole safetensors file".to_owned(),
    };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(fault)?;
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok((SafeTensors::deserialize(bytes).map_err(fault)?, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (State, Metadata) {
        let tensor = |shape: &[usize], name: &str| {
            let values = (0..shape.iter().product()).map(|at: usize| at as f32 - 0.5).collect();
            (name.to_owned(), NamedTensor { shape: shape.to_vec(), values, role: Role::of(name) })
        };
        let state = [tensor(&[2, 3], "a.weight"), tensor(&[3], "a.running_mean"), tensor(&[0], "empty")];
        (state.into(), [("card".to_owned(), "{\"x\": 1}".to_owned()), ("b".into(), "c".into())].into())
    }

    #[test]
    fn what_is_written_is_read_bit_for_bit() {
        let (state, metadata) = example();
        let bytes = to_bytes(&state, &metadata);
        assert_eq!(bytes, to_bytes(&state, &metadata));
        assert_eq!(from_bytes(&bytes).unwrap(), (state, metadata));
    }

    #[test]
    fn damaged_files_are_errors() {
        let (state, metadata) = example();
        let bytes = to_bytes(&state, &metadata);
        for length in 0..bytes.len() {
            assert!(from_bytes(&bytes[..length]).is_err(), "cut to {length}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                // A flip in the values is another file (digests catch it); none may panic.
                let _ = from_bytes(&damaged);
            }
        }
    }
}
