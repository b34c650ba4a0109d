//! The errors of this crate: fields that say where, what was found, what was expected, and what to do.

use std::path::{Path, PathBuf};

use jetgraft_data::DataError;
use jetgraft_nn::error::NnError;
use jetgraft_stats::StatsError;

use crate::graft::GraftReport;
use crate::step::Divergence;

/// What can go wrong between a plan and a finished study. [`LearnError::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LearnError {
    /// A plan, an optimiser, a schedule or a run was asked for that makes no sense.
    #[error("`{option}` is {found}, expected {expected}")]
    Option {
        /// Name of the option, with its table: `plan.rates.head`.
        option: String,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// A plan names a stage that the network does not have.
    #[error("no stage `{name}` in this network (asked for by `{option}`){}", nearest_are(nearest))]
    UnknownStage {
        /// Option that names it.
        option: String,
        /// The name.
        name: String,
        /// Closest stage names, best first.
        nearest: Vec<String>,
        /// All stages, from input to output.
        stages: Vec<String>,
    },
    /// A tensor belongs to no stage: a fault of the backbone.
    #[error("tensor `{name}` belongs to no stage; the stages' prefixes are {stages:?}")]
    Homeless {
        /// The tensor.
        name: String,
        /// Prefixes of all stages.
        stages: Vec<String>,
    },
    /// The source and the target do not fit as the plan says.
    #[error("the graft does not fit: {}", report.faults().join("; "))]
    Graft {
        /// Everything that was found.
        report: Box<GraftReport>,
    },
    /// A card asks for other inputs than the data give.
    #[error("the source expects another input: {what} is {found}, the source was trained with {expected}")]
    Card {
        /// Which entry of the card.
        what: String,
        /// What the data give.
        found: String,
        /// What the source expects.
        expected: String,
    },
    /// A set of jets cannot be used.
    #[error("{set} set: {found}; expected {expected}")]
    Data {
        /// `training`, `validation` or `test`.
        set: String,
        /// What was found.
        found: String,
        /// What a run needs.
        expected: String,
    },
    /// The loss or a gradient is not a number; the weights before the step are kept in it.
    #[error("{0}")]
    Diverged(Box<Divergence>),
    /// A frozen tensor has moved: a fault of this program.
    #[error(
        "frozen tensor `{name}` moved in phase `{phase}` (first at element {element}: {before} to {after})"
    )]
    FrozenMoved {
        /// The tensor.
        name: String,
        /// Phase of the plan.
        phase: String,
        /// First element that differs.
        element: usize,
        /// Its value before.
        before: f32,
        /// Its value after.
        after: f32,
    },
    /// A file of ours is not as it was written.
    #[error("{} is damaged: {found}; expected {expected}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        found: String,
        /// What was recorded.
        expected: String,
    },
    /// A checkpoint or a cell was made by another job.
    #[error("{} belongs to another job: {what} is {found}, this job has {expected}", folder.display())]
    OtherJob {
        /// Its folder.
        folder: PathBuf,
        /// What differs: `plan`, `options`, `training set`, ...
        what: String,
        /// As stored.
        found: String,
        /// As asked for now.
        expected: String,
    },
    /// The keeper of a study's cells refused; see [`crate::study::CellStore`].
    #[error("{0}")]
    Store(Box<dyn std::error::Error + Send + Sync>),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The reason.
        source: std::io::Error,
    },
    /// From the data.
    #[error(transparent)]
    DataSet(#[from] DataError),
    /// From the network.
    #[error(transparent)]
    Network(#[from] NnError),
    /// From the statistics.
    #[error(transparent)]
    Statistics(#[from] StatsError),
}

fn nearest_are(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; nearest: {}", nearest.join(", ")) }
}

impl LearnError {
    pub(crate) fn option(
        option: impl Into<String>,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Option { option: option.into(), found: found.to_string(), expected: expected.into() }
    }

    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }

    /// What the reader can do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Option { .. } => Some("correct it in the recipe".into()),
            Self::UnknownStage { stages, .. } => {
                Some(format!("the stages of this network, from input to output: {}", stages.join(", ")))
            }
            Self::Graft { report } => Some(report.hint()),
            Self::Card { .. } => Some("prepare the jets as the source's card says, or choose another source".into()),
            Self::Data { .. } => Some("choose other files, another selection or other fractions of the split".into()),
            Self::Diverged(divergence) => Some(divergence.hint()),
            Self::Damaged { .. } => Some(
                "the file was changed or the disk failed: restore it from a copy, or remove its folder and run again"
                    .into(),
            ),
            Self::OtherJob { .. } => {
                Some("resume with the recipe and data it was made with, or give another output folder".into())
            }
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some("free some space, then resume: the last checkpoint is whole".into())
            }
            Self::Homeless { .. } | Self::FrozenMoved { .. } => {
                Some("this is a fault of the program; please report it".into())
            }
            Self::Io { .. } | Self::Statistics(_) | Self::Store(_) => None,
            Self::DataSet(error) => error.hint(),
            Self::Network(error) => error.hint().map(str::to_owned),
        }
    }
}
