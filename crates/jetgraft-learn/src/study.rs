//! The matrix plan x target size x seed: independent cells, each resumable, on the same validation and test jets.
//!
//! A study is a folder. `cells/<plan>-n<size>-s<seed>/` holds a `lock`, `checkpoints/` while the cell runs, and
//! `result/` when it is done. Processes that share the folder take cells that are neither done nor locked; a lock
//! goes with its process, however that ends.
//!
//! # Seeds
//! With `S` the study's seed, `i` the number of the seed of a cell and [`derive()`] the hash:
//! fresh weights come from `derive(S, "weights", [i])`, order and dropout from `derive(S, "training", [i])`, subsets
//! from `derive(S, "subsets", [])`. So cells of one `i` differ in plan and size only: they are paired.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use jetgraft_data::subset::{Sharing, Subsets, subsets};
use jetgraft_data::{GraphSet, check_disjoint};
use jetgraft_nn::contract::Backbone;
use jetgraft_nn::error::NnError;
use jetgraft_nn::state::{NamedTensor, Role, State, load_state, state};
use jetgraft_nn::weights;
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::checkpoint::{CheckpointEvery, Checkpoints};
use crate::error::LearnError;
use crate::evaluate::score;
use crate::graft::{GraftAllow, GraftReport, graft, ungrafted};
use crate::names::names_of;
use crate::observer::Observer;
use crate::plan::{Phase, Plan, PlanOptions};
use crate::predict::{Logits, logits_from};
use crate::prefix::Shelf;
use crate::record::{Chosen, End, Evaluation, Record};
use crate::seeds::derive;
use crate::snapshot::{self, Files, json, parse};
use crate::trainer::{Job, Span, TrainOptions, check_set, fingerprint, train};

const RECORD: &str = "record.json";
const TEST: &str = "test.safetensors";
const WEIGHTS: &str = "weights.safetensors";
const LOGITS: &str = "logits";

/// One plan of a study, and how it trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyPlan {
    /// Its name in folders and tables: lower-case letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What of the source is kept, frozen, and at which rate the rest learns.
    pub plan: PlanOptions,
    /// How it trains; the seed in it is replaced, see the [module](self). The budget is per cell: `epochs` gives
    /// small sizes fewer steps, `steps` gives every size the same.
    #[serde(default)]
    pub train: TrainOptions,
}

/// What a recipe says about a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyOptions {
    /// Everything random of the study follows from it.
    pub seed: u64,
    /// Training jets of a cell.
    pub sizes: Vec<usize>,
    /// Number of seeds.
    pub seeds: usize,
    /// Plans.
    pub plans: Vec<StudyPlan>,
    /// Mismatches between source and target that are accepted.
    #[serde(default)]
    pub allow: GraftAllow,
}

impl StudyOptions {
    /// Checks names, numbers and every plan's training.
    ///
    /// # Errors
    /// [`LearnError::Option`] for the first that makes no sense.
    pub fn check(&self) -> Result<(), LearnError> {
        if self.plans.is_empty() {
            return Err(LearnError::option("study.plans", "an empty list", "at least one plan"));
        }
        let mut names = BTreeSet::new();
        for plan in &self.plans {
            let good = |letter: char| {
                letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-_.".contains(letter)
            };
            if plan.name.is_empty() || plan.name.starts_with('.') || !plan.name.chars().all(good) {
                let expected = "lower-case letters, digits, `-`, `_` and `.`, not first a `.`";
                return Err(LearnError::option("study.plans.name", format!("`{}`", plan.name), expected));
            }
            if !names.insert(&plan.name) {
                return Err(LearnError::option(
                    "study.plans.name",
                    format!("`{}` twice", plan.name),
                    "one name a plan",
                ));
            }
            plan.train.check()?;
        }
        Ok(())
    }

    /// The cells in the order in which they are done: small sizes first, all plans of a seed together.
    pub fn cells(&self) -> Vec<Cell> {
        let mut sizes = self.sizes.clone();
        sizes.sort_unstable();
        sizes.dedup();
        let mut cells = Vec::new();
        for &size in &sizes {
            for seed in 0..self.seeds {
                cells.extend(self.plans.iter().map(|plan| Cell { plan: plan.name.clone(), size, seed }));
            }
        }
        cells
    }

    /// What the plans may spend, in words: whether comparisons are at equal budget.
    pub fn budget(&self) -> String {
        let words = |span: Span| match span {
            Span::Epochs(epochs) => format!("{epochs} epochs"),
            Span::Steps(steps) => format!("{steps} steps"),
        };
        let first = self.plans.first().map(|plan| plan.train.budget);
        match first {
            Some(budget) if self.plans.iter().all(|plan| plan.train.budget == budget) => {
                format!("{} at most, the same for every plan and size", words(budget))
            }
            _ => {
                let each =
                    self.plans.iter().map(|plan| format!("{} {}", plan.name, words(plan.train.budget)));
                format!("not the same for every plan: {}", each.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// One place in the matrix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Name of its plan.
    pub plan: String,
    /// Training jets.
    pub size: usize,
    /// Number of its seed, from 0.
    pub seed: usize,
}

impl Cell {
    /// Its folder's name.
    pub fn id(&self) -> String {
        format!("{}-n{}-s{}", self.plan, self.size, self.seed)
    }
}

/// Jets of a study. No event may be in two of the sets.
#[derive(Clone, Debug)]
pub struct StudyData {
    /// Training jets, from which the cells' subsets are drawn.
    pub pool: Arc<GraphSet>,
    /// Jets to choose weights by, the same for all cells.
    pub validation: Arc<GraphSet>,
    /// Jets to judge by, the same for all cells; looked at once a cell, with the chosen weights.
    pub test: Arc<GraphSet>,
}

/// The networks that plans start from.
#[derive(Clone, Copy, Debug)]
pub enum Sources<'a> {
    /// There is none: only plans that start from nothing can run.
    None,
    /// The same for all cells.
    One(&'a State),
    /// One for each seed, so that the spread over seeds holds that of the source.
    PerSeed(&'a [State]),
}

/// A study about to be done.
pub struct Study<'a, F> {
    /// What.
    pub options: &'a StudyOptions,
    /// On what.
    pub data: &'a StudyData,
    /// From what.
    pub sources: Sources<'a>,
    /// A fresh target network from a seed.
    pub network: F,
    /// Where it computes.
    pub device: &'a Device,
    /// Its folder.
    pub folder: &'a Path,
    /// When cells write checkpoints.
    pub checkpoints: CheckpointEvery,
    /// Host memory for the output of frozen stages, once for a cell's training jets (see [`Job::cache_bytes`]) and
    /// once for the validation and test jets, which cells share.
    pub cache_bytes: u64,
}

/// What a cell depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellIdentity {
    /// Digest of plan, training options and seeds.
    pub options: String,
    /// Digest of the weights before the first step.
    pub start: String,
    /// Digest of its training jets.
    pub training: String,
    /// Digest of the validation jets.
    pub validation: String,
    /// Digest of the test jets.
    pub test: String,
}

/// What is known of a finished cell, without tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellRecord {
    /// Its place.
    pub cell: Cell,
    /// What it depends on.
    pub identity: CellIdentity,
    /// What the training jets of its size share between seeds.
    pub sharing: Sharing,
    /// Seed of fresh weights.
    pub weights_seed: u64,
    /// Seed of order and dropout.
    pub training_seed: u64,
    /// What came from the source.
    pub graft: GraftReport,
    /// Which weights were chosen.
    pub chosen: Chosen,
    /// Why training ended.
    pub end: End,
    /// Steps done.
    pub steps: u64,
    /// Wall time of training and validation, s.
    pub seconds: f64,
    /// Processor time over all threads, s, where the system tells it.
    pub cpu_seconds: Option<f64>,
    /// Elements of the parameters that learnt.
    pub trained_parameters: usize,
    /// Elements of all parameters.
    pub parameters: usize,
    /// The chosen weights on the test jets.
    pub test: Evaluation,
    /// Training, evaluation by evaluation.
    pub log: Vec<Record>,
}

/// A finished cell.
#[derive(Clone, Debug, PartialEq)]
pub struct CellResult {
    /// What is known of it.
    pub record: CellRecord,
    /// Logits of the test jets, in their order.
    pub test: Logits,
    /// The chosen weights.
    pub weights: State,
}

/// What a study has come to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Finished cells, in the order of [`StudyOptions::cells`].
    pub cells: Vec<CellResult>,
    /// Cells that are not done: taken by another process, or left when the observer asked to stop.
    pub pending: Vec<Cell>,
}

/// Follows a study; its methods as an [`Observer`] follow the cell at work.
pub trait StudyObserver: Observer {
    /// A cell begins or goes on: the `number`-th (from 0) of `total`.
    fn cell(&mut self, _cell: &Cell, _number: usize, _total: usize) {}

    /// A cell is done, now (`fresh`) or earlier.
    fn finished(&mut self, _record: &CellRecord, _fresh: bool) {}
}

impl StudyObserver for crate::observer::Silent {}

impl<F> Study<'_, F> {
    /// Does every cell that is not done and not at work elsewhere.
    ///
    /// # Errors
    /// [`LearnError::OtherJob`] for a finished cell of other options or jets; what [`graft`] and [`train`] say.
    pub fn run<B: Backbone>(&self, observer: &mut dyn StudyObserver) -> Result<Outcome, LearnError>
    where
        F: Fn(u64) -> Result<B, NnError>,
    {
        let StudyData { pool, validation, test } = self.data;
        self.options.check()?;
        check_disjoint(&[
            ("training", &pool.event_id[..]),
            ("validation", &validation.event_id),
            ("test", &test.event_id),
        ])?;
        let model = (self.network)(0)?;
        for (name, set) in [("training", pool), ("validation", validation), ("test", test)] {
            check_set(name, set, &model)?;
        }
        let shared = Shared {
            subsets: self.subsets()?,
            validation: fingerprint(validation),
            test: fingerprint(test),
            shelf: Shelf::new(self.cache_bytes),
        };
        let cells = self.options.cells();
        let mut outcome = Outcome { cells: Vec::new(), pending: Vec::new() };
        let mut stopped = false;
        for (number, cell) in cells.iter().enumerate() {
            if stopped {
                outcome.pending.push(cell.clone());
                continue;
            }
            observer.cell(cell, number, cells.len());
            match self.cell::<B>(cell, &shared, observer)? {
                Progress::Done(result, fresh) => {
                    observer.finished(&result.record, fresh);
                    outcome.cells.push(*result);
                }
                Progress::Taken => outcome.pending.push(cell.clone()),
                Progress::Stopped => {
                    stopped = true;
                    outcome.pending.push(cell.clone());
                }
            }
        }
        Ok(outcome)
    }

    /// The training jets of every cell.
    ///
    /// # Errors
    /// As [`subsets`].
    pub fn subsets(&self) -> Result<Subsets, LearnError> {
        let options = self.options;
        let seed = derive(options.seed, "subsets", &[]);
        let pool = &self.data.pool;
        Ok(subsets(&pool.label, &pool.event_id, &options.sizes, options.seeds, seed)?)
    }

    fn cell<B: Backbone>(
        &self,
        cell: &Cell,
        shared: &Shared,
        observer: &mut dyn StudyObserver,
    ) -> Result<Progress, LearnError>
    where
        F: Fn(u64) -> Result<B, NnError>,
    {
        let options = self.options;
        let Some(study_plan) = options.plans.iter().find(|plan| plan.name == cell.plan) else {
            return Err(LearnError::option("cell.plan", &cell.plan, "one of the study's plans"));
        };
        let subsets = &shared.subsets;
        let index = cell.seed as u64;
        let weights_seed = derive(options.seed, "weights", &[index]);
        let training_seed = derive(options.seed, "training", &[index]);
        let train_options = TrainOptions { seed: training_seed, ..study_plan.train.clone() };
        let fresh = (self.network)(weights_seed)?;
        let fresh_state = state(&fresh);
        let plan = Plan::new(&fresh.stages(), &names_of(&fresh_state), &study_plan.plan)?;
        let (start, report) = if plan.needs_source() {
            graft(self.source(cell)?, &fresh_state, &plan, &options.allow)?
        } else {
            ungrafted(&fresh_state, &plan)?
        };
        let training = Arc::new(self.data.pool.select(subsets.rows(cell.seed, cell.size)));
        let none = Default::default();
        let identity = CellIdentity {
            options: digest(&json(&(cell, &study_plan.plan, &train_options))),
            start: digest(&weights::to_bytes(&start, &none)),
            training: fingerprint(&training),
            validation: shared.validation.clone(),
            test: shared.test.clone(),
        };
        let folder = self.folder.join("cells").join(cell.id());
        fs::create_dir_all(&folder).map_err(LearnError::io(&folder, "create the folder"))?;
        let result_folder = folder.join("result");
        if let Some(result) = finished(&result_folder, &identity)? {
            return Ok(Progress::Done(Box::new(result), false));
        }
        let lock_path = folder.join("lock");
        let lock = File::create(&lock_path).map_err(LearnError::io(&lock_path, "create"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Progress::Taken),
            Err(TryLockError::Error(error)) => return Err(LearnError::io(&lock_path, "lock")(error)),
        }
        // Another process may have finished it between the look and the lock.
        if let Some(result) = finished(&result_folder, &identity)? {
            return Ok(Progress::Done(Box::new(result), false));
        }
        snapshot::sweep(&folder)?;
        let checkpoint_folder = folder.join("checkpoints");
        let checkpoints =
            Checkpoints { folder: checkpoint_folder.clone(), every: self.checkpoints, resume: true };
        let trained = train(
            Job {
                model: load_state(fresh, &start)?,
                plan: &plan,
                training,
                validation: self.data.validation.clone(),
                options: &train_options,
                device: self.device,
                cache_bytes: self.cache_bytes,
                shelf: Some(&shared.shelf),
                checkpoints: Some(&checkpoints),
            },
            observer,
        )?;
        if trained.end == End::Stopped {
            return Ok(Progress::Stopped);
        }
        let test = &self.data.test;
        let batch_size = train_options.evaluation_batch_size;
        let prefix = match plan.phases.iter().map(Phase::fixed_prefix).min() {
            None | Some(0) => None,
            Some(cut) => {
                shared.shelf.get(&trained.model, test, &shared.test, cut, batch_size, self.device)?
            }
        };
        let test_logits = logits_from(&trained.model, test, prefix.as_deref(), batch_size, self.device)?;
        let size = subsets.sizes.iter().position(|&size| size == cell.size);
        let record = CellRecord {
            cell: cell.clone(),
            identity,
            sharing: size.map_or(Sharing::Disjoint, |at| subsets.sharing[at]),
            weights_seed,
            training_seed,
            graft: report,
            chosen: trained.chosen,
            end: trained.end,
            steps: trained.steps,
            seconds: trained.seconds,
            cpu_seconds: trained.cpu_seconds,
            trained_parameters: trained.trained_parameters,
            parameters: trained.parameters,
            test: score(&test_logits, &test.label, None)?,
            log: trained.log,
        };
        let result = CellResult { record, test: test_logits, weights: state(&trained.model) };
        result.write(&result_folder)?;
        if checkpoint_folder.is_dir() {
            fs::remove_dir_all(&checkpoint_folder).map_err(LearnError::io(&checkpoint_folder, "remove"))?;
        }
        info!(cell = cell.id(), steps = result.record.steps, auc = result.record.test.auc, "cell done");
        Ok(Progress::Done(Box::new(result), true))
    }

    fn source(&self, cell: &Cell) -> Result<&State, LearnError> {
        let found = match self.sources {
            Sources::None => None,
            Sources::One(state) => Some(state),
            Sources::PerSeed(states) => states.get(cell.seed),
        };
        found.ok_or_else(|| {
            LearnError::option(
                "source",
                format!("none for seed {}", cell.seed),
                format!("one for plan `{}`", cell.plan),
            )
        })
    }
}

/// What all cells of a run of a study use.
struct Shared {
    subsets: Subsets,
    validation: String,
    test: String,
    shelf: Shelf,
}

enum Progress {
    Done(Box<CellResult>, bool),
    Taken,
    Stopped,
}

/// A cell that is done, if it is, and is the one that is meant.
fn finished(folder: &Path, identity: &CellIdentity) -> Result<Option<CellResult>, LearnError> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let result = CellResult::read(folder)?;
    let found = &result.record.identity;
    for (what, found, expected) in [
        ("options", &found.options, &identity.options),
        ("start weights", &found.start, &identity.start),
        ("training set", &found.training, &identity.training),
        ("validation set", &found.validation, &identity.validation),
        ("test set", &found.test, &identity.test),
    ] {
        if found != expected {
            return Err(LearnError::OtherJob {
                folder: folder.to_owned(),
                what: what.to_owned(),
                found: format!("digest {}", found.get(..16).unwrap_or(found)),
                expected: format!("digest {}", expected.get(..16).unwrap_or(expected)),
            });
        }
    }
    Ok(Some(result))
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The results that lie in a study's folder, for those who only want to read: no network, no data.
///
/// # Errors
/// [`LearnError::Damaged`] naming a file, [`LearnError::Io`].
pub fn collect(options: &StudyOptions, folder: &Path) -> Result<Outcome, LearnError> {
    let mut outcome = Outcome { cells: Vec::new(), pending: Vec::new() };
    for cell in options.cells() {
        let result = result_folder(folder, &cell);
        if result.is_dir() {
            outcome.cells.push(CellResult::read(&result)?);
        } else {
            outcome.pending.push(cell);
        }
    }
    Ok(outcome)
}

/// Where the result of a cell lies in a study's folder.
pub fn result_folder(folder: &Path, cell: &Cell) -> PathBuf {
    folder.join("cells").join(cell.id()).join("result")
}

impl CellResult {
    /// Writes it as the folder `folder`, whole or not at all.
    ///
    /// # Errors
    /// [`LearnError::Io`].
    pub fn write(&self, folder: &Path) -> Result<(), LearnError> {
        let none = Default::default();
        let tensor = NamedTensor {
            shape: vec![self.test.len(), self.test.classes],
            values: self.test.values.clone(),
            role: Role::Parameter,
        };
        let logits = State::from([(LOGITS.to_owned(), tensor)]);
        let files = Files::from([
            (RECORD.to_owned(), json(&self.record)),
            (TEST.to_owned(), weights::to_bytes(&logits, &none)),
            (WEIGHTS.to_owned(), weights::to_bytes(&self.weights, &none)),
        ]);
        snapshot::write(folder, &files)
    }

    /// Reads and checks one.
    ///
    /// # Errors
    /// [`LearnError::Damaged`] naming the file, [`LearnError::Io`].
    pub fn read(folder: &Path) -> Result<Self, LearnError> {
        let files = snapshot::read(folder)?;
        let damaged = |name: &str, found: String, expected: &str| LearnError::Damaged {
            file: folder.join(name),
            found,
            expected: expected.to_owned(),
        };
        let state = |name: &str| -> Result<State, LearnError> {
            let bytes = files.get(name).ok_or_else(|| damaged(name, "no file".into(), "tensors"))?;
            Ok(weights::from_bytes(bytes).map_err(|error| error.in_file(&folder.join(name)))?.0)
        };
        let mut tensors = state(TEST)?;
        let logits = match tensors.remove(LOGITS) {
            Some(NamedTensor { shape, values, .. }) if shape.len() == 2 => {
                Logits { classes: shape[1], values }
            }
            _ => return Err(damaged(TEST, "no matrix `logits`".into(), "logits of the test jets")),
        };
        Ok(Self { record: parse(&files, folder, RECORD)?, test: logits, weights: state(WEIGHTS)? })
    }
}
