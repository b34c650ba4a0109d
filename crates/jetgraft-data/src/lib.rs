//! What is in the file: from bytes to packed batches, with every row accounted for.
//!
//! * [`formats`]: one file or folder per format behind one [`table`] contract; [`open`] recognises a file by its content
//! * [`columns`], [`select`], [`jets`]: which columns, which rows, which class; [`load_jets`] reads them on threads
//! * [`input`]: what a network reads of a jet, of one of three kinds: [`mod@lund_graphs`] (declusterings), [`particles`]
//!   (constituents), [`high_level`] (variables of the whole jet)
//! * [`graph_set`]: ragged sets in memory, and packed batches of them
//! * [`split`], [`subset`], [`loader`], [`standardise`]: who trains on what, in which order, on which scale
//! * [`ledger`], [`manifest`]: read = used + dropped by reason; which files, with digests
//! * [`mod@inspect`]: what a file holds, and what a training could take from it
//! * [`writer`], [`atomic`]: files of ours, whole or absent
//!
//! No function depends on the number of threads, on timing or on the order of files in a folder. Nothing here panics on
//! input: errors say where, what was found, what was expected, and [`DataError::hint`] what to do.
//!
//! ```no_run
//! use jetgraft_data::{ClassSpec, JetQuery, LundInput, Split, load_jets, lund_graphs};
//!
//! let query = JetQuery::new(
//!     ["samples/jets_r10_pt500.parquet"],
//!     vec![ClassSpec::new("qcd", "process == 0"), ClassSpec::new("w", "process == 1")],
//! );
//! let (jets, read, manifest) = load_jets(&query)?;
//! let (graphs, made) = lund_graphs(&jets, &LundInput::default())?;
//! let rows = Split::default().rows(&graphs.event_id)?;
//! let batch = graphs.pack(&rows.train[..256]);
//! println!("{}; {}; {} files, {} nodes", read, made, manifest.files.len(), batch.nodes());
//! # Ok::<(), jetgraft_data::DataError>(())
//! ```

pub mod atomic;
pub mod columns;
mod error;
pub mod formats;
pub mod graph_set;
pub mod high_level;
pub mod input;
pub mod inspect;
pub mod jets;
pub mod ledger;
pub mod loader;
pub mod lund_graphs;
pub mod manifest;
pub mod particles;
pub mod select;
pub mod split;
pub mod standardise;
pub mod subset;
pub mod table;
pub mod writer;

pub use columns::{ConstituentForm, EnergyUnit, Extras, JetColumns};
pub use error::{DataError, nearest};
pub use formats::{OpenOptions, open, open_with};
pub use graph_set::{GraphSet, PackedBatch, PackedEdges};
pub use high_level::{HighLevelInput, Variable};
pub use input::{Feature, InputSpec};
pub use inspect::{Inspection, inspect};
pub use jets::{ClassSpec, Events, JetQuery, Jets, NO_LABEL, OnBad, load_events, load_jets};
pub use ledger::Ledger;
pub use loader::{Batching, LastBatch, Loader, epoch_order};
pub use lund_graphs::{FeatureSet, LundInput, PsiForm, lund_graphs};
pub use manifest::{FileEntry, Manifest};
pub use particles::{JetReference, ParticleFeatures, ParticleInput};
pub use select::Selection;
pub use split::{Part, Split, SplitRows, check_disjoint, partition};
pub use standardise::Standardisation;
pub use subset::{Sharing, Subsets, subsets};
pub use table::{ColumnSpec, DType, Format, Kind, TableReader};
pub use writer::{Precision, Scores, read_scores, write_jets, write_lund, write_scores};
