//! The matrix plan x target size x seed: independent cells, each resumable, on the same validation and test jets.
//!
//! The engine decides which cell runs, on which jets and from which weights; what a finished cell looks like on the
//! disk is the business of a [`CellStore`]. Beside the folder that the store names for a cell, the engine keeps
//! `<folder>.lock` and `<folder>.checkpoints` while the cell runs. Processes that share the folders take cells that are
//! neither done nor locked; a lock goes with its process, however that ends.
//!
//! # Seeds
//! With `S` the study's seed, `i` the number of the seed of a cell and [`derive`](crate::seeds::derive) the hash:
//! fresh weights come from `derive(S, "initial weights", [i])`, order and dropout from `derive(S, "training", [i])`,
//! subsets from `derive(S, "subsets", [])`. So cells of one `i` differ in plan and size only: they are paired.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use jetgraft_data::subset::{Sharing, Subsets, subsets};
use jetgraft_data::{GraphSet, check_disjoint};
use jetgraft_nn::contract::Backbone;
use jetgraft_nn::error::NnError;
use jetgraft_nn::state::{State, load_state, state};
use jetgraft_nn::weights;
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::checkpoint::{CheckpointEvery, Checkpoints};
use crate::error::LearnError;
use crate::graft::{GraftAllow, GraftReport, graft, ungrafted};
use crate::names::names_of;
use crate::observer::Observer;
use crate::plan::{Phase, Plan, PlanOptions};
use crate::predict::{Logits, logits_from};
use crate::prefix::Shelf;
use crate::record::End;
use crate::seeds::derive;
use crate::snapshot::{self, json};
use crate::trainer::{Job, TrainOptions, Trained, check_set, fingerprint, train};

/// One plan of a study, and how it trains.
#[derive(Clone, Debug, PartialEq)]
pub struct StudyPlan {
    /// Its name in folders and tables: letters, digits, `-` and `_`.
    pub name: String,
    /// What of the source is kept, frozen, and at which rate the rest learns.
    pub plan: PlanOptions,
    /// Number of the view of the jets that its networks read, from 0.
    pub view: usize,
    /// How it trains; the seed in it is replaced, see the [module](self). The budget is per cell: `epochs` gives
    /// small sizes fewer steps, `steps` gives every size the same.
    pub train: TrainOptions,
}

/// The matrix.
#[derive(Clone, Debug, PartialEq)]
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
            let good = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
            if plan.name.is_empty() || !plan.name.chars().all(good) {
                let expected = "letters, digits, `-` and `_`";
                return Err(LearnError::option("study.plans.name", format!("`{}`", plan.name), expected));
            }
            // Not every file system tells `A` from `a`.
            if !names.insert(plan.name.to_ascii_lowercase()) {
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

    /// The training jets of every cell, as rows of `pool`.
    ///
    /// # Errors
    /// As [`subsets`].
    pub fn subsets(&self, pool: &GraphSet) -> Result<Subsets, LearnError> {
        let seed = derive(self.seed, "subsets", &[]);
        Ok(subsets(&pool.label, &pool.event_id, &self.sizes, self.seeds, seed)?)
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

/// For people, who count seeds from 1.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} jets, seed {}", self.plan, self.size, self.seed + 1)
    }
}

/// Jets of a study, as networks of one kind read them. No event may be in two of the sets.
///
/// A study that compares networks with different inputs has several views of the same jets: the same events and labels
/// in the same order, so that cells of all plans are paired.
#[derive(Clone, Debug)]
pub struct StudyData {
    /// Training jets, from which the cells' subsets are drawn.
    pub pool: Arc<GraphSet>,
    /// Jets to choose weights by, the same for all cells.
    pub validation: Arc<GraphSet>,
    /// Jets to judge by, the same for all cells; looked at once a cell, with the chosen weights.
    pub test: Arc<GraphSet>,
}

/// Where finished cells are kept. The engine asks and tells; files and formats are the store's own.
pub trait CellStore<B> {
    /// Where the result of `cell` is or will be: a folder or a file of its own.
    fn folder(&self, cell: &Cell) -> PathBuf;

    /// What the result of `cell` depends on; `None` if there is no result yet.
    ///
    /// # Errors
    /// A result that is damaged or of another format; a store's own errors go into [`LearnError::Store`].
    fn finished(&self, cell: &Cell) -> Result<Option<CellIdentity>, LearnError>;

    /// Keeps a result, whole or not at all. It is called once a cell, while the engine holds the cell's lock.
    ///
    /// # Errors
    /// The store's own, in [`LearnError::Store`].
    fn write(&self, result: &CellResult<B>) -> Result<(), LearnError>;
}

/// Draws a fresh target network for a plan from a seed.
pub type Draw<'a, B> = dyn Fn(&StudyPlan, u64) -> Result<B, NnError> + 'a;

/// A study about to be done.
pub struct Study<'a, B> {
    /// What.
    pub options: &'a StudyOptions,
    /// On what: the views of the jets, which plans choose from.
    pub views: &'a [StudyData],
    /// From what, the same for all cells; without it only plans that start from nothing can run.
    pub source: Option<&'a State>,
    /// Fresh target networks.
    pub network: &'a Draw<'a, B>,
    /// Where it computes.
    pub device: &'a Device,
    /// Where results go.
    pub store: &'a dyn CellStore<B>,
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

/// What a cell is, known before its training ends.
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
}

/// A cell that has just been finished.
#[derive(Clone, Debug)]
pub struct CellResult<B> {
    /// What it is.
    pub record: CellRecord,
    /// What came from the source.
    pub graft: GraftReport,
    /// The training, with the chosen weights.
    pub trained: Trained<B>,
    /// Logits of the test jets, in their order, with the chosen weights.
    pub test: Logits,
}

/// What a study has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Cells whose results are in the store.
    pub done: Vec<Cell>,
    /// Cells that are not done: at work in another process, or left when the observer asked to stop.
    pub pending: Vec<Cell>,
}

/// Follows a study; its methods as an [`Observer`] follow the cell at work.
pub trait StudyObserver: Observer {
    /// A cell is looked at; what follows is about it.
    fn cell(&mut self, _cell: &Cell) {}

    /// A cell is done, now (`fresh`) or earlier.
    fn finished(&mut self, _cell: &Cell, _fresh: bool) {}
}

impl StudyObserver for crate::observer::Silent {}

impl<B: Backbone> Study<'_, B> {
    /// Does every cell that is not done and not at work elsewhere.
    ///
    /// # Errors
    /// [`LearnError::OtherJob`] for a finished cell of other options or jets; what the store, [`graft`] and [`train`]
    /// say.
    pub fn run(&self, observer: &mut dyn StudyObserver) -> Result<Outcome, LearnError> {
        self.options.check()?;
        let pool = self.check_data()?;
        let digests = |view: &StudyData| [fingerprint(&view.validation), fingerprint(&view.test)];
        let shared = Shared {
            subsets: self.options.subsets(pool)?,
            digests: self.views.iter().map(digests).collect(),
            shelf: Shelf::new(self.cache_bytes),
        };
        let mut done = Vec::new();
        let mut pending = self.options.cells();
        // The second look is at cells that other processes held at the first: they may be done by now, or free.
        for _ in 0..2 {
            let mut taken = Vec::new();
            let mut cells = pending.into_iter();
            while let Some(cell) = cells.next() {
                observer.cell(&cell);
                match self.cell(&cell, &shared, observer)? {
                    Progress::Done { fresh } => {
                        observer.finished(&cell, fresh);
                        done.push(cell);
                    }
                    Progress::Taken => taken.push(cell),
                    Progress::Stopped => {
                        taken.push(cell);
                        taken.extend(cells);
                        return Ok(Outcome { done, pending: taken });
                    }
                }
            }
            pending = taken;
        }
        Ok(Outcome { done, pending })
    }

    /// Checks that the views are of the same jets, that no event is in two sets, and that every plan's network reads
    /// its view. Returns the jets that subsets are drawn from.
    fn check_data(&self) -> Result<&GraphSet, LearnError> {
        let Some((first, others)) = self.views.split_first() else {
            return Err(LearnError::option("study.views", "none", "one or more"));
        };
        check_disjoint(&[
            ("training", &first.pool.event_id[..]),
            ("validation", &first.validation.event_id),
            ("test", &first.test.event_id),
        ])?;
        for view in others {
            for (name, set, same) in [
                ("training", &view.pool, &first.pool),
                ("validation", &view.validation, &first.validation),
                ("test", &view.test, &first.test),
            ] {
                if set.event_id != same.event_id || set.label != same.label {
                    return Err(LearnError::Data {
                        set: name.into(),
                        found: format!("{} jets that differ between the inputs of the study", set.len()),
                        expected: format!("the same {} jets in the same order for every input", same.len()),
                    });
                }
            }
        }
        for plan in &self.options.plans {
            let view = self.view(plan)?;
            let model = (self.network)(plan, 0)?;
            for (name, set) in
                [("training", &view.pool), ("validation", &view.validation), ("test", &view.test)]
            {
                check_set(name, set, &model)?;
            }
        }
        Ok(&first.pool)
    }

    fn view(&self, plan: &StudyPlan) -> Result<&StudyData, LearnError> {
        self.views.get(plan.view).ok_or_else(|| {
            let expected = format!("below {}", self.views.len());
            LearnError::option("study.plans.view", plan.view.to_string(), expected)
        })
    }

    fn cell(
        &self,
        cell: &Cell,
        shared: &Shared,
        observer: &mut dyn StudyObserver,
    ) -> Result<Progress, LearnError> {
        let options = self.options;
        let Some(study_plan) = options.plans.iter().find(|plan| plan.name == cell.plan) else {
            return Err(LearnError::option("cell.plan", &cell.plan, "one of the study's plans"));
        };
        let subsets = &shared.subsets;
        let view = self.view(study_plan)?;
        let [validation_digest, test_digest] = &shared.digests[study_plan.view];
        let index = cell.seed as u64;
        let weights_seed = derive(options.seed, "initial weights", &[index]);
        let training_seed = derive(options.seed, "training", &[index]);
        let train_options = TrainOptions { seed: training_seed, ..study_plan.train.clone() };
        let drawn = (self.network)(study_plan, weights_seed)?;
        let fresh_state = state(&drawn);
        let plan = Plan::new(&drawn.stages(), &names_of(&fresh_state), &study_plan.plan)?;
        let (start, graft) = match self.source {
            Some(source) if plan.needs_source() => graft(source, &fresh_state, &plan, &options.allow)?,
            _ => ungrafted(&fresh_state, &plan)?,
        };
        let training = Arc::new(view.pool.select(subsets.rows(cell.seed, cell.size)));
        let none = Default::default();
        let identity = CellIdentity {
            options: digest(&json(&(cell, &study_plan.plan, &train_options))),
            start: digest(&weights::to_bytes(&start, &none)),
            training: fingerprint(&training),
            validation: validation_digest.clone(),
            test: test_digest.clone(),
        };
        let folder = self.store.folder(cell);
        let lock_path = beside(&folder, "lock");
        let done = self.finished(cell, &identity)?;
        // Next to a result, a lock file is what a process left that was killed at its last lines: there is tidying to do.
        if done && !lock_path.exists() {
            return Ok(Progress::Done { fresh: false });
        }
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent).map_err(LearnError::io(parent, "create the folder"))?;
        }
        let lock = File::create(&lock_path).map_err(LearnError::io(&lock_path, "create"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if done => return Ok(Progress::Done { fresh: false }),
            Err(TryLockError::WouldBlock) => return Ok(Progress::Taken),
            Err(TryLockError::Error(error)) => return Err(LearnError::io(&lock_path, "lock")(error)),
        }
        // Another process may have finished it between the look and the lock.
        let fresh = !self.finished(cell, &identity)?;
        let checkpoints =
            Checkpoints { folder: beside(&folder, "checkpoints"), every: self.checkpoints, resume: true };
        if fresh {
            snapshot::sweep_beside(&folder)?;
            let trained = train(
                Job {
                    model: load_state(drawn, &start)?,
                    plan: &plan,
                    training,
                    validation: view.validation.clone(),
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
            info!(%cell, steps = trained.steps, "cell done");
            let size = subsets.sizes.iter().position(|&size| size == cell.size);
            let sharing = size.map_or(Sharing::Disjoint, |at| subsets.sharing[at]);
            let test =
                self.test(&trained.model, &plan, &train_options, &view.test, test_digest, &shared.shelf)?;
            let record = CellRecord { cell: cell.clone(), identity, sharing, weights_seed, training_seed };
            self.store.write(&CellResult { record, graft, trained, test })?;
        }
        if checkpoints.folder.is_dir() {
            snapshot::remove(&checkpoints.folder)?;
        }
        // The lock file goes last. Only for tidiness: whoever still gets this lock finds the cell finished.
        let _ = fs::remove_file(&lock_path);
        Ok(Progress::Done { fresh })
    }

    /// The one look at the test jets.
    fn test(
        &self,
        model: &B,
        plan: &Plan,
        options: &TrainOptions,
        test: &GraphSet,
        test_digest: &str,
        shelf: &Shelf,
    ) -> Result<Logits, LearnError> {
        let batch_size = options.evaluation_batch_size;
        let prefix = match plan.phases.iter().map(Phase::fixed_prefix).min() {
            None | Some(0) => None,
            Some(cut) => shelf.get(model, test, test_digest, cut, batch_size, self.device)?,
        };
        logits_from(model, test, prefix.as_deref(), batch_size, self.device)
    }

    /// Whether a cell is done; an error if it is not the one that is meant.
    fn finished(&self, cell: &Cell, identity: &CellIdentity) -> Result<bool, LearnError> {
        let Some(found) = self.store.finished(cell)? else { return Ok(false) };
        for (what, found, expected) in [
            ("options", &found.options, &identity.options),
            ("start weights", &found.start, &identity.start),
            ("training set", &found.training, &identity.training),
            ("validation set", &found.validation, &identity.validation),
            ("test set", &found.test, &identity.test),
        ] {
            if found != expected {
                return Err(LearnError::OtherJob {
                    folder: self.store.folder(cell),
                    what: what.to_owned(),
                    found: format!("digest {}", found.get(..16).unwrap_or(found)),
                    expected: format!("digest {}", expected.get(..16).unwrap_or(expected)),
                });
            }
        }
        Ok(true)
    }
}

/// What all cells of a run of a study use.
struct Shared {
    subsets: Subsets,
    /// Of the validation and test jets of each view.
    digests: Vec<[String; 2]>,
    shelf: Shelf,
}

enum Progress {
    Done { fresh: bool },
    Taken,
    Stopped,
}

/// `folder.ending`, where `folder` itself may have dots.
fn beside(folder: &Path, ending: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    folder.with_file_name(name)
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
