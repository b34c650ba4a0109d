//! What can go wrong between an input and a page.

use std::path::PathBuf;

/// Why a figure, a table or a page could not be made. Nothing in this crate panics on its input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A part of the input that must hold something holds nothing.
    #[error("{item}: {what} is empty")]
    Empty {
        /// The figure, table or page.
        item: String,
        /// The part of its input.
        what: String,
    },
    /// Two parts of the input that belong together differ in length.
    #[error("{item}: {what} has {found} entries, expected {expected}")]
    Length {
        /// The figure, table or page.
        item: String,
        /// The part of its input.
        what: String,
        /// Entries found.
        found: usize,
        /// Entries expected.
        expected: usize,
    },
    /// Bin edges or abscissas must increase and be finite.
    #[error("{item}: {what} must be finite and increase; entry {index} does not")]
    NotIncreasing {
        /// The figure, table or page.
        item: String,
        /// The part of its input.
        what: String,
        /// First entry at fault, counted from zero.
        index: usize,
    },
    /// A number that the figure cannot show, such as a negative count.
    #[error("{item}: {what} is {found}, expected {expected}")]
    Value {
        /// The figure, table or page.
        item: String,
        /// The part of its input.
        what: String,
        /// The number found.
        found: f64,
        /// What it must be.
        expected: &'static str,
    },
    /// A name refers to nothing in the input.
    #[error("{item}: no {what} `{name}`; known: {}", known.join(", "))]
    Unknown {
        /// The figure, table or page.
        item: String,
        /// What was looked for.
        what: &'static str,
        /// The name given.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// Two items of a page would be written to the same file or anchor.
    #[error("page: the id `{id}` is used twice")]
    DuplicateId {
        /// The id.
        id: String,
    },
    /// The page template failed.
    #[error("page template")]
    Template(#[from] minijinja::Error),
    /// The SVG of a figure could not be turned into pixels.
    #[error("figure `{figure}`: drawing PNG of {width} x {height} pixels: {message}")]
    Raster {
        /// The figure.
        figure: String,
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// What the rasteriser said.
        message: String,
    },
    /// A file could not be written.
    #[error("{action} `{}`", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done to it.
        action: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
}

impl ReportError {
    /// What the user can do about it, where that is not plain from the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Empty { .. } => Some("leave the figure out when its data do not exist".to_owned()),
            Self::NotIncreasing { .. } => Some("sort the entries and remove repeated ones".to_owned()),
            Self::DuplicateId { .. } => Some("give each figure and section its own id".to_owned()),
            Self::Raster { .. } => Some("ask for a smaller PNG scale; the SVG is not affected".to_owned()),
            Self::Io { .. } => Some("check that the folder exists, is writable and has space".to_owned()),
            _ => None,
        }
    }
}
