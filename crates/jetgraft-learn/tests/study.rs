//! Studies: pairing, resuming, sharing a folder, reading results back.

#![allow(clippy::unwrap_used)] // Also in helpers, where the workspace's rule for tests does not reach.

mod common;

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use common::{Tiny, jets, same_bits};
use jetgraft_learn::LearnError;
use jetgraft_learn::checkpoint::CheckpointEvery;
use jetgraft_learn::observer::{Observer, Signal, Silent, StepEvent};
use jetgraft_learn::plan::PlanOptions;
use jetgraft_learn::predict::Logits;
use jetgraft_learn::record::{Chosen, End};
use jetgraft_learn::snapshot::{self, Files};
use jetgraft_learn::study::{
    Cell, CellIdentity, CellRecord, CellResult, CellStore, Outcome, Study, StudyData, StudyObserver,
    StudyOptions, StudyPlan,
};
use jetgraft_learn::trainer::{Span, TrainOptions};
use jetgraft_nn::state::{State, state};
use jetgraft_nn::weights;
use serde::{Deserialize, Serialize};

/// What is kept of a cell here.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    record: CellRecord,
    kept_parameters: usize,
    trained_parameters: usize,
    parameters: usize,
    chosen: Chosen,
    end: End,
    steps: u64,
    evaluations: usize,
    test: Logits,
}

const KEPT: &str = "kept.json";
const WEIGHTS: &str = "weights.safetensors";

/// A store as simple as can be: one folder a cell.
struct Folders<'a>(&'a Path);

impl Folders<'_> {
    fn read(&self, cell: &Cell) -> Result<Option<(Kept, State)>, LearnError> {
        let folder = self.folder(cell);
        if !folder.is_dir() {
            return Ok(None);
        }
        let files = snapshot::read(&folder)?;
        let kept =
            serde_json::from_slice(&files[KEPT]).map_err(|error| LearnError::Store(Box::new(error)))?;
        Ok(Some((kept, weights::from_bytes(&files[WEIGHTS])?.0)))
    }

    fn all(&self, options: &StudyOptions) -> Vec<(Kept, State)> {
        options.cells().iter().filter_map(|cell| self.read(cell).unwrap()).collect()
    }
}

impl CellStore<Tiny> for Folders<'_> {
    fn folder(&self, cell: &Cell) -> PathBuf {
        self.0.join("cells").join(format!("{}-n{}-s{}", cell.plan, cell.size, cell.seed))
    }

    fn finished(&self, cell: &Cell) -> Result<Option<CellIdentity>, LearnError> {
        Ok(self.read(cell)?.map(|(kept, _)| kept.record.identity))
    }

    fn write(&self, result: &CellResult<Tiny>) -> Result<(), LearnError> {
        let trained = &result.trained;
        let kept = Kept {
            record: result.record.clone(),
            kept_parameters: result.graft.kept_parameters(),
            trained_parameters: trained.trained_parameters,
            parameters: trained.parameters,
            chosen: trained.chosen.clone(),
            end: trained.end,
            steps: trained.steps,
            evaluations: trained.log.len(),
            test: result.test.clone(),
        };
        let none = Default::default();
        let files = Files::from([
            (KEPT.to_owned(), serde_json::to_vec(&kept).unwrap()),
            (WEIGHTS.to_owned(), weights::to_bytes(&state(&trained.model), &none)),
        ]);
        snapshot::write(&self.folder(&result.record.cell), &files)
    }
}

fn options() -> StudyOptions {
    let train = TrainOptions {
        batch_size: 8,
        budget: Span::Epochs(2),
        learning_rate: 1e-2,
        ..TrainOptions::default()
    };
    let plan = |name: &str, text: &str| StudyPlan {
        name: name.into(),
        plan: serde_json::from_str::<PlanOptions>(text).unwrap(),
        view: 0,
        train: train.clone(),
    };
    StudyOptions {
        seed: 11,
        sizes: vec![40, 20],
        seeds: 2,
        plans: vec![
            plan("scratch", r#"{"kind": "scratch"}"#),
            plan("fine-tune", r#"{"kind": "fine-tune"}"#),
            plan("frozen", r#"{"kind": "frozen"}"#),
        ],
        allow: Default::default(),
    }
}

fn data() -> StudyData {
    StudyData { pool: jets(120, 1, 2), validation: jets(50, 2, 2), test: jets(60, 3, 2) }
}

fn source() -> State {
    state(&Tiny::new(2, 77, &Device::flex()))
}

fn go(
    options: &StudyOptions,
    data: &StudyData,
    folder: &Path,
    observer: &mut dyn StudyObserver,
) -> Result<Outcome, LearnError> {
    go_with(options, data, folder, observer, 1 << 30)
}

fn go_with(
    options: &StudyOptions,
    data: &StudyData,
    folder: &Path,
    observer: &mut dyn StudyObserver,
    cache_bytes: u64,
) -> Result<Outcome, LearnError> {
    let device = Device::flex();
    let source = source();
    Study {
        options,
        views: std::slice::from_ref(data),
        source: Some(&source),
        network: &|_, seed| Ok(Tiny::new(2, seed, &device)),
        device: &device,
        store: &Folders(folder),
        checkpoints: CheckpointEvery { steps: Some(2), epochs: None },
        cache_bytes,
    }
    .run(observer)
}

#[test]
fn sharing_the_output_of_frozen_stages_changes_no_bit() {
    let (mut options, data) = (options(), data());
    options.plans.remove(1);
    let run = |cache_bytes: u64| {
        let root = tempfile::tempdir().unwrap();
        go_with(&options, &data, root.path(), &mut Silent, cache_bytes).unwrap();
        Folders(root.path()).all(&options)
    };
    let none = run(0);
    // Room for all, for one set at a time, and for none of validation and test.
    for bytes in [1 << 30, 2500, 1500] {
        same(&none, &run(bytes));
    }
}

#[derive(Default)]
struct Count {
    steps: u64,
    stop_at: Option<u64>,
    kill_at: Option<u64>,
    fresh: Vec<bool>,
    seen: Vec<String>,
}

impl Observer for Count {
    fn step(&mut self, _: &StepEvent<'_>) -> Signal {
        self.steps += 1;
        assert_ne!(Some(self.steps), self.kill_at, "killed on purpose");
        if Some(self.steps) == self.stop_at { Signal::Stop } else { Signal::Continue }
    }
}

impl StudyObserver for Count {
    fn cell(&mut self, cell: &Cell) {
        self.seen.push(cell.to_string());
    }
    fn finished(&mut self, _: &Cell, fresh: bool) {
        self.fresh.push(fresh);
    }
}

fn same(a: &[(Kept, State)], b: &[(Kept, State)]) {
    assert_eq!(a.len(), b.len());
    for ((a, weights_a), (b, weights_b)) in a.iter().zip(b) {
        assert_eq!(a, b);
        assert!(same_bits(weights_a, weights_b), "{}", a.record.cell);
    }
}

#[test]
fn a_study_is_paired_finishes_and_is_not_done_twice() {
    let root = tempfile::tempdir().unwrap();
    let (options, data) = (options(), data());
    let mut count = Count::default();
    let outcome = go(&options, &data, root.path(), &mut count).unwrap();
    assert_eq!((&outcome.done, outcome.pending.len()), (&options.cells(), 0));
    assert_eq!(
        count.seen[..4],
        [
            "scratch with 20 jets, seed 1",
            "fine-tune with 20 jets, seed 1",
            "frozen with 20 jets, seed 1",
            "scratch with 20 jets, seed 2"
        ]
    );
    // Two epochs of 3 and of 5 steps.
    assert_eq!(count.steps, 6 * 6 + 6 * 10);
    let cells = Folders(root.path()).all(&options);
    assert_eq!(cells.len(), 12);
    for (kept, _) in &cells {
        let record = &kept.record;
        assert_eq!((kept.test.len(), kept.end, kept.evaluations), (60, End::Budget, 2));
        assert_eq!(kept.kept_parameters == 0, record.cell.plan == "scratch");
        assert_eq!(kept.trained_parameters < kept.parameters, record.cell.plan == "frozen");
        // Plans of one size and seed share jets and seeds; nothing else does.
        for (Kept { record: other, .. }, _) in &cells {
            let paired = record.cell.seed == other.cell.seed;
            assert_eq!(record.weights_seed == other.weights_seed, paired);
            assert_eq!(record.training_seed == other.training_seed, paired);
            let same_jets = record.identity.training == other.identity.training;
            assert_eq!(same_jets, paired && record.cell.size == other.cell.size);
            assert_eq!(record.identity.test, other.identity.test);
        }
    }
    // Again, over what a process leaves that is killed at its last lines: nothing is done twice.
    let left = Folders(root.path()).folder(&options.cells()[3]);
    File::create(left.with_extension("lock")).unwrap();
    fs::create_dir(left.with_extension("checkpoints")).unwrap();
    let mut again = Count::default();
    let outcome_again = go(&options, &data, root.path(), &mut again).unwrap();
    assert_eq!((again.steps, again.fresh), (0, vec![false; 12]));
    assert_eq!(outcome_again, outcome);
    assert_eq!(fs::read_dir(root.path().join("cells")).unwrap().count(), 12);
    same(&cells, &Folders(root.path()).all(&options));
}

#[test]
fn a_study_cut_off_anywhere_ends_with_the_same_bits() {
    let (mut options, data) = (options(), data());
    options.sizes = vec![20];
    options.seeds = 1;
    let whole = tempfile::tempdir().unwrap();
    go(&options, &data, whole.path(), &mut Silent).unwrap();
    let whole = Folders(whole.path()).all(&options);
    for at in 1..18 {
        let root = tempfile::tempdir().unwrap();
        let mut kill = Count { kill_at: Some(at), ..Count::default() };
        let killed = catch_unwind(AssertUnwindSafe(|| go(&options, &data, root.path(), &mut kill)));
        assert!(killed.is_err());
        let mut stop = Count { stop_at: Some(1), ..Count::default() };
        go(&options, &data, root.path(), &mut stop).unwrap();
        go(&options, &data, root.path(), &mut Silent).unwrap();
        same(&whole, &Folders(root.path()).all(&options));
        // Results only: no lock, no checkpoint, nothing of those who were killed.
        assert_eq!(fs::read_dir(root.path().join("cells")).unwrap().count(), 3);
    }
}

#[test]
fn a_cell_at_work_elsewhere_is_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let (options, data) = (options(), data());
    let taken = Cell { plan: "fine-tune".into(), size: 20, seed: 1 };
    let lock_path = Folders(root.path()).folder(&taken).with_extension("lock");
    fs::create_dir_all(lock_path.parent().unwrap()).unwrap();
    let lock = File::create(&lock_path).unwrap();
    lock.lock().unwrap();
    let outcome = go(&options, &data, root.path(), &mut Silent).unwrap();
    assert_eq!((outcome.done.len(), &outcome.pending[..]), (11, &[taken][..]));
    drop(lock);
    assert_eq!(go(&options, &data, root.path(), &mut Silent).unwrap().done.len(), 12);
}

/// Gives the lock back when it meets the last cell: the second look then finds it free.
struct Release(Option<File>);

impl Observer for Release {}

impl StudyObserver for Release {
    fn cell(&mut self, cell: &Cell) {
        if (cell.plan.as_str(), cell.size, cell.seed) == ("frozen", 40, 1) {
            self.0 = None;
        }
    }
}

#[test]
fn a_cell_that_its_holder_has_left_is_done_at_the_second_look() {
    let root = tempfile::tempdir().unwrap();
    let (options, data) = (options(), data());
    let taken = Cell { plan: "fine-tune".into(), size: 20, seed: 1 };
    let lock_path = Folders(root.path()).folder(&taken).with_extension("lock");
    fs::create_dir_all(lock_path.parent().unwrap()).unwrap();
    let lock = File::create(&lock_path).unwrap();
    lock.lock().unwrap();
    let outcome = go(&options, &data, root.path(), &mut Release(Some(lock))).unwrap();
    assert_eq!((outcome.done.len(), outcome.done.last(), outcome.pending.len()), (12, Some(&taken), 0));
}

#[test]
fn two_workers_share_a_folder() {
    let root = tempfile::tempdir().unwrap();
    let (options, data) = (options(), data());
    let done: Vec<Outcome> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..2).map(|_| scope.spawn(|| go(&options, &data, root.path(), &mut Silent).unwrap())).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    assert!(done.iter().all(|outcome| outcome.done.len() + outcome.pending.len() == 12));
    let alone = tempfile::tempdir().unwrap();
    go(&options, &data, alone.path(), &mut Silent).unwrap();
    same(&Folders(alone.path()).all(&options), &Folders(root.path()).all(&options));
}

#[test]
fn damage_other_options_and_shared_events_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let (mut options, data) = (options(), data());
    options.sizes = vec![20];
    options.seeds = 1;
    go(&options, &data, root.path(), &mut Silent).unwrap();
    let mut other = options.clone();
    other.plans[0].train.learning_rate = 0.5;
    match go(&other, &data, root.path(), &mut Silent) {
        Err(LearnError::OtherJob { what, .. }) => assert_eq!(what, "options"),
        other => panic!("{other:?}"),
    }
    let mixed = StudyData { test: data.pool.clone(), ..data.clone() };
    assert!(go(&options, &mixed, root.path(), &mut Silent).is_err());
    for file in [KEPT, WEIGHTS, "MANIFEST"] {
        let path = Folders(root.path()).folder(&options.cells()[1]).join(file);
        let content = fs::read(&path).unwrap();
        let mut flipped = content.clone();
        let at = content.len() / 2;
        flipped[at] ^= 1;
        fs::write(&path, &flipped).unwrap();
        match go(&options, &data, root.path(), &mut Silent) {
            Err(LearnError::Damaged { file, .. }) => assert_eq!(file, path),
            other => panic!("{other:?}"),
        }
        fs::write(&path, &content).unwrap();
    }
    for name in ["scratch", "Scratch", "../up", "a.b", ""] {
        let mut other = options.clone();
        other.plans[1].name = name.into();
        assert!(other.check().is_err(), "{name}");
    }
}
