//! The errors of this crate: fields that say where, what was found and what was expected.

use std::path::PathBuf;

/// What can go wrong between a graph, a state, a weight file and a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NnError {
    /// The index arrays of a batch do not describe graphs.
    #[error("graph arrays: `{array}` at position {position}: found {found}, expected {expected}")]
    Graph {
        /// Which array is at fault.
        array: &'static str,
        /// Position in that array.
        position: usize,
        /// What stands there.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// A network was asked for that cannot be built.
    #[error("network `{network}`: `{field}` is {found}, expected {expected}")]
    Config {
        /// Registry name of the network.
        network: &'static str,
        /// Field of its configuration.
        field: &'static str,
        /// Its value.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// A state and a network do not have the same tensor names.
    #[error(
        "the state does not belong to this network: {} missing (first: {}), {} unexpected (first: {})",
        missing.len(), missing.first().map_or("none", String::as_str),
        unexpected.len(), unexpected.first().map_or("none", String::as_str)
    )]
    Names {
        /// In the network, not in the state.
        missing: Vec<String>,
        /// In the state, not in the network.
        unexpected: Vec<String>,
    },
    /// A tensor of a state has another shape than the network's.
    #[error("tensor `{name}`: found shape {found:?}, expected {expected:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Shape in the state or file.
        found: Vec<usize>,
        /// Shape in the network.
        expected: Vec<usize>,
    },
    /// A file of weights cannot be used.
    #[error("weights{}{}: {found}; expected {expected}", at(file), entry(name))]
    Weights {
        /// The file, when the bytes came from one.
        file: Option<PathBuf>,
        /// The entry in it, when one is at fault.
        name: Option<String>,
        /// What was met.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A network cannot be written for another program as asked.
    #[error("ONNX of `{network}`: {found}; expected {expected}")]
    Export {
        /// Registry name of the network.
        network: &'static str,
        /// What was asked for or given.
        found: String,
        /// What would be right.
        expected: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The operating system refused.
    #[error("cannot read {file}: {source}", file = file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
}

fn at(file: &Option<PathBuf>) -> String {
    file.as_ref().map_or_else(String::new, |path| format!(" in {}", path.display()))
}

fn entry(name: &Option<String>) -> String {
    name.as_ref().map_or_else(String::new, |name| format!(", entry `{name}`"))
}

impl NnError {
    /// Names the file of a weight error that was found in bytes.
    #[must_use]
    pub fn in_file(self, path: &std::path::Path) -> Self {
        match self {
            Self::Weights { name, found, expected, .. } => {
                Self::Weights { file: Some(path.to_path_buf()), name, found, expected }
            }
            other => other,
        }
    }

    /// What the reader can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Graph { .. } => None,
            Self::Config { .. } => Some("correct the network's section of the recipe"),
            Self::Names { .. } | Self::Shape { .. } => Some(
                "the weights were made for another network: compare the card beside them with the recipe",
            ),
            Self::Weights { .. } => {
                Some("check that the file is complete (size, digest) and a state dictionary of tensors")
            }
            Self::Export { remedy, .. } => Some(remedy),
            Self::Io { .. } => Some("check the path and its permissions"),
        }
    }
}
