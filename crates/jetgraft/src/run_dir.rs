//! The folder of a run: one network with its card, log, predictions and provenance, whole or absent, every byte under a
//! digest. `predict`, `compare` and `report` read nothing else. The format is documented in docs/formats/run_folder.md.

use std::path::{Path, PathBuf};

use jetgraft_learn::card::Card;
use jetgraft_learn::graft::GraftReport;
use jetgraft_learn::record::{Chosen, End, Record};
use jetgraft_learn::snapshot::{self, Files};
use jetgraft_nn::state::State;
use jetgraft_nn::weights;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};
use crate::task::TaskRecord;

/// Version of the run folder.
pub const FORMAT: &str = "jetgraft-run/1";
/// Facts of the run.
pub const RECORD: &str = "run.json";
/// What the network is and expects.
pub const CARD: &str = "card.json";
/// The chosen weights.
pub const WEIGHTS: &str = "weights.safetensors";
/// One line per evaluation.
pub const LOG: &str = "log.jsonl";
/// Test predictions.
pub const PREDICTIONS: &str = "predictions.parquet";
/// What was kept, fresh and frozen.
pub const GRAFT: &str = "graft.json";
/// The recipe as written.
pub const RECIPE: &str = "recipe.toml";
/// The recipe with all defaults and changes.
pub const RECIPE_RESOLVED: &str = "recipe.resolved.toml";
/// Folder of the run in the folder that `--out` names, beside the report.
pub const RUN: &str = "run";
/// Folder of the checkpoints while a run goes on.
pub const CHECKPOINTS: &str = "checkpoints";

/// `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// `jetgraft-run/1`.
    pub format: String,
    /// Program and version that wrote it.
    pub version: String,
    /// Short name.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// Plan, by its name in the study or its kind; `import` for foreign weights.
    pub plan: String,
    /// Training jets.
    pub size: usize,
    /// Seed of everything random in the run.
    pub seed: u64,
    /// What was read, for a run of its own; a study keeps it once for all cells.
    pub task: Option<TaskRecord>,
    /// Which weights were chosen.
    pub chosen: Option<Chosen>,
    /// Why it ended.
    pub end: Option<End>,
    /// Steps done.
    pub steps: u64,
    /// Wall time, seconds, over all processes of the run.
    pub seconds: f64,
    /// CPU seconds over all threads, where the system tells them.
    pub cpu_seconds: Option<f64>,
    /// Elements of the parameters that learnt.
    pub trained_parameters: usize,
    /// Elements of all parameters.
    pub parameters: usize,
    /// Device, threads, instruction set.
    pub machine: String,
}

/// A run in memory.
#[derive(Debug, Clone)]
pub struct Run {
    /// Facts.
    pub record: RunRecord,
    /// What the network is.
    pub card: Card,
    /// Its weights.
    pub weights: State,
    /// Its log.
    pub log: Vec<Record>,
    /// What was kept of the source.
    pub graft: Option<GraftReport>,
    /// Folder of the files.
    pub folder: PathBuf,
}

/// The folder with the files of a run: `path` itself, or `path/run`.
///
/// # Errors
/// Neither is a run.
pub fn locate(path: &Path) -> Result<PathBuf> {
    for folder in [path.to_path_buf(), path.join(RUN)] {
        if folder.join(snapshot::MANIFEST).is_file() && folder.join(RECORD).is_file() {
            return Ok(folder);
        }
    }
    let mut error = Error::new(format!("{} is no run folder", path.display())).expected(format!(
        "a folder with {RECORD}, {CARD} and {WEIGHTS}, or one with such a folder `{RUN}` in it"
    ));
    if path.join(CHECKPOINTS).is_dir() {
        error = error.hint("the run was interrupted: finish it with --resume");
    } else if path.join("cells").is_dir() {
        error = error
            .hint("this is a study: name one of its runs, such as the folder `source` or one in `cells`");
    }
    Err(error)
}

/// Reads a run; every byte is checked against its digest, and the weights against their card.
///
/// # Errors
/// A folder that is no run, a file that has changed, a format of another version.
pub fn read(path: &Path) -> Result<Run> {
    let folder = locate(path)?;
    let files = snapshot::read(&folder)?;
    let get = |name: &str| {
        files.get(name).ok_or_else(|| Error::new(format!("{} has no file `{name}`", folder.display())))
    };
    let record: RunRecord = from_json(&folder.join(RECORD), get(RECORD)?)?;
    if record.format != FORMAT {
        return Err(Error::new(format!("{}: format `{}`", folder.display(), record.format))
            .expected(format!("`{FORMAT}`"))
            .hint("the run was written by another version of jetgraft"));
    }
    let card = Card::from_json(get(CARD)?)?;
    let bytes = get(WEIGHTS)?;
    card.check_weights(bytes)?;
    let (weights, _) = weights::from_bytes(bytes)?;
    let mut log = Vec::new();
    if let Some(text) = files.get(LOG) {
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            log.push(from_json(&folder.join(LOG), line)?);
        }
    }
    let graft = match files.get(GRAFT) {
        Some(text) => Some(from_json(&folder.join(GRAFT), text)?),
        None => None,
    };
    Ok(Run { record, card, weights, log, graft, folder })
}

/// The files of a run, to be written with [`snapshot::write`].
///
/// # Errors
/// Ours, if a record cannot be written as JSON.
pub fn files(run: &Run) -> Result<Files> {
    let weights = weights::to_bytes(&run.weights, &weights::Metadata::new());
    let mut card = run.card.clone();
    card.weights = jetgraft_learn::card::weights_digest(&weights);
    let mut files = Files::new();
    files.insert(RECORD.into(), to_json(&run.record)?);
    files.insert(CARD.into(), card.to_json());
    files.insert(WEIGHTS.into(), weights);
    if !run.log.is_empty() {
        files.insert(LOG.into(), jetgraft_learn::checkpoint::log_lines(&run.log));
    }
    if let Some(graft) = &run.graft {
        files.insert(GRAFT.into(), to_json(graft)?);
    }
    Ok(files)
}

/// JSON of a type of ours.
///
/// # Errors
/// Ours.
pub fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|error| Error::ours(error.to_string()))
}

/// Reads JSON of a type of ours.
///
/// # Errors
/// Text that is none.
pub fn from_json<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| {
        Error::new(format!("{}: {error}", path.display()))
            .hint("the file was written by another version of jetgraft")
    })
}

/// Program and version, for records.
pub fn version() -> String {
    concat!("jetgraft ", env!("CARGO_PKG_VERSION")).to_string()
}
