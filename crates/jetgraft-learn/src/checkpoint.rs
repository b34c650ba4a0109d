//! A run on the disk, from which it goes on to the same bits.
//!
//! Folders `checkpoint-NNNNNN` count up; the highest is the newest. A new one is in place, whole, before the one
//! before it is removed. Random numbers need no state: masks and orders are functions of seed and counters
//! ([`crate::seeds`]).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jetgraft_nn::state::State;
use jetgraft_nn::weights;
use serde::{Deserialize, Serialize};

use crate::error::LearnError;
use crate::plan::Plan;
use crate::record::{Chosen, Record};
use crate::snapshot::{self, Files, json, parse};

const PREFIX: &str = "checkpoint-";
const WEIGHTS: &str = "weights.safetensors";
const BEST: &str = "best.safetensors";
const AVERAGE: &str = "average.safetensors";
const OPTIMISER: &str = "optimiser.safetensors";
const COUNTERS: &str = "counters.json";
const IDENTITY: &str = "job.json";
const PLAN: &str = "plan.json";
const LOG: &str = "log.jsonl";

/// When checkpoints are written; nothing here changes a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointEvery {
    /// After each so many steps.
    pub steps: Option<u64>,
    /// After each so many epochs of a phase; default 1.
    pub epochs: Option<u64>,
}

impl Default for CheckpointEvery {
    fn default() -> Self {
        Self { steps: None, epochs: Some(1) }
    }
}

/// Where a run keeps its checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    /// Folder of its own; made if it is not there.
    pub folder: PathBuf,
    /// When they are written.
    pub every: CheckpointEvery,
    /// Whether to go on from the newest one, if there is one. Without it, one that is there is an error.
    pub resume: bool,
}

/// What a checkpoint belongs to. A run only goes on from a checkpoint of the same job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Digest of the plan.
    pub plan: String,
    /// Digest of the training options.
    pub options: String,
    /// Digest of the weights before the first step.
    pub start: String,
    /// Digest of the training jets.
    pub training: String,
    /// Digest of the validation jets.
    pub validation: String,
}

impl Identity {
    fn entries(&self) -> [(&'static str, &str); 5] {
        [
            ("plan", &self.plan),
            ("training options", &self.options),
            ("start weights", &self.start),
            ("training set", &self.training),
            ("validation set", &self.validation),
        ]
    }

    /// Checks that `found`, stored in `folder`, is the same job.
    ///
    /// # Errors
    /// [`LearnError::OtherJob`] with the first difference.
    pub fn check(&self, found: &Self, folder: &Path) -> Result<(), LearnError> {
        for ((what, expected), (_, found)) in self.entries().into_iter().zip(found.entries()) {
            if expected != found {
                return Err(LearnError::OtherJob {
                    folder: folder.to_owned(),
                    what: what.to_owned(),
                    found: format!("digest {}", found.get(..16).unwrap_or(found)),
                    expected: format!("digest {}", expected.get(..16).unwrap_or(expected)),
                });
            }
        }
        Ok(())
    }
}

/// Sums since the last record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Sum of loss times weight.
    pub loss: f64,
    /// Sum of class weights of the jets seen.
    pub weight: f64,
    /// Sum of gradient norms.
    pub norm: f64,
    /// Largest gradient norm.
    pub norm_max: f64,
    /// Steps.
    pub steps: u64,
    /// Jets seen.
    pub jets: u64,
    /// Wall time in steps, s.
    pub seconds: f64,
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// Number of the phase, from 0.
    pub phase: usize,
    /// Steps done in it.
    pub phase_step: u64,
    /// Steps it may do.
    pub phase_steps: u64,
    /// Steps done over all phases.
    pub step: u64,
    /// Sums since the last record.
    pub window: Window,
    /// The best weights so far.
    pub chosen: Option<Chosen>,
    /// Best value that early stopping has seen in this phase, larger is better.
    pub early_best: Option<f64>,
    /// Evaluations in this phase without a better one.
    pub early_waited: u64,
    /// Digest of the tensors that are fixed in this phase, at its start.
    pub fixed_digest: String,
    /// Steps that each parameter has made in this phase.
    pub optimiser_steps: BTreeMap<String, u64>,
    /// Wall time so far, s.
    pub seconds: f64,
    /// Processor time so far, s.
    pub cpu_seconds: Option<f64>,
}

/// Everything a run needs to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// What it belongs to.
    pub identity: Identity,
    /// The plan, to be read by people.
    pub plan: Plan,
    /// Where it stands.
    pub counters: Counters,
    /// Weights and running statistics.
    pub weights: State,
    /// What the optimiser remembers.
    pub optimiser: State,
    /// Averaged weights, flat, if the run averages.
    pub average: Option<State>,
    /// The chosen weights so far.
    pub best: Option<State>,
    /// The log so far.
    pub log: Vec<Record>,
}

/// The numbers of the checkpoints in `folder`, rising.
fn numbers(folder: &Path) -> Result<Vec<u64>, LearnError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(LearnError::io(folder, "list"))? {
        let name = entry.map_err(LearnError::io(folder, "list"))?.file_name();
        if let Some(number) =
            name.to_string_lossy().strip_prefix(PREFIX).and_then(|digits| digits.parse().ok())
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{number:06}"))
}

/// The newest checkpoint in `folder`, if there is one.
///
/// # Errors
/// [`LearnError::Io`].
pub fn newest(folder: &Path) -> Result<Option<PathBuf>, LearnError> {
    Ok(numbers(folder)?.last().map(|&number| path(folder, number)))
}

impl Checkpoint {
    /// Writes it as the newest in `folder`, then removes the older ones.
    ///
    /// # Errors
    /// [`LearnError::Io`]; then the older ones are untouched.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, LearnError> {
        let older = numbers(folder)?;
        let new = path(folder, older.last().map_or(1, |number| number + 1));
        let none = BTreeMap::new();
        let mut files = Files::from([
            (WEIGHTS.to_owned(), weights::to_bytes(&self.weights, &none)),
            (OPTIMISER.to_owned(), weights::to_bytes(&self.optimiser, &none)),
            (COUNTERS.to_owned(), json(&self.counters)),
            (IDENTITY.to_owned(), json(&self.identity)),
            (PLAN.to_owned(), json(&self.plan)),
            (LOG.to_owned(), log_lines(&self.log)),
        ]);
        for (name, state) in [(BEST, &self.best), (AVERAGE, &self.average)] {
            if let Some(state) = state {
                files.insert(name.to_owned(), weights::to_bytes(state, &none));
            }
        }
        snapshot::write(&new, &files)?;
        for number in older {
            snapshot::remove(&path(folder, number))?;
        }
        Ok(new)
    }

    /// Reads and checks one.
    ///
    /// # Errors
    /// [`LearnError::Damaged`] naming the file, [`LearnError::Io`].
    pub fn read(folder: &Path) -> Result<Self, LearnError> {
        let files = snapshot::read(folder)?;
        let state = |name: &str| -> Result<State, LearnError> {
            let file = folder.join(name);
            let Some(bytes) = files.get(name) else {
                let expected = "the tensors of a run".to_owned();
                return Err(LearnError::Damaged { file, found: "no file".into(), expected });
            };
            Ok(weights::from_bytes(bytes).map_err(|error| error.in_file(&file))?.0)
        };
        let mut log = Vec::new();
        for line in files.get(LOG).into_iter().flat_map(|text| text.split(|&byte| byte == b'\n')) {
            if line.is_empty() {
                continue;
            }
            log.push(serde_json::from_slice(line).map_err(|error| LearnError::Damaged {
                file: folder.join(LOG),
                found: error.to_string(),
                expected: "one record a line".into(),
            })?);
        }
        Ok(Self {
            identity: parse(&files, folder, IDENTITY)?,
            plan: parse(&files, folder, PLAN)?,
            counters: parse(&files, folder, COUNTERS)?,
            weights: state(WEIGHTS)?,
            optimiser: state(OPTIMISER)?,
            average: if files.contains_key(AVERAGE) { Some(state(AVERAGE)?) } else { None },
            best: if files.contains_key(BEST) { Some(state(BEST)?) } else { None },
            log,
        })
    }
}

/// A log as JSON lines.
pub fn log_lines(log: &[Record]) -> Vec<u8> {
    let mut text = Vec::new();
    for record in log {
        match serde_json::to_vec(record) {
            Ok(line) => text.extend(line),
            Err(error) => unreachable!("a record is JSON: {error}"),
        }
        text.push(b'\n');
    }
    text
}
