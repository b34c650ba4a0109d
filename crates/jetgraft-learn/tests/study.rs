//! Studies: pairing, resuming, sharing a folder, reading results back.

#![allow(clippy::unwrap_used)] // Also in helpers, where the workspace's rule for tests does not reach.

mod common;

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn::tensor::Device;
use common::{Tiny, jets, same_bits};
use jetgraft_learn::LearnError;
use jetgraft_learn::checkpoint::CheckpointEvery;
use jetgraft_learn::observer::{Observer, Signal, Silent, StepEvent};
use jetgraft_learn::plan::PlanOptions;
use jetgraft_learn::record::End;
use jetgraft_learn::study::{
    Cell, CellRecord, CellResult, Outcome, Sources, Study, StudyData, StudyObserver, StudyOptions, StudyPlan,
    collect, result_folder,
};
use jetgraft_learn::trainer::{Span, TrainOptions};
use jetgraft_nn::state::{State, state};

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
        data,
        sources: Sources::One(&source),
        network: |seed| Ok(Tiny::new(2, seed, &device)),
        device: &device,
        folder,
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
        go_with(&options, &data, root.path(), &mut Silent, cache_bytes).unwrap()
    };
    let none = run(0);
    // Room for all, for one set at a time, and for none of validation and test.
    for bytes in [1 << 30, 2500, 1500] {
        same(&none.cells, &run(bytes).cells);
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
    fn cell(&mut self, cell: &Cell, number: usize, total: usize) {
        assert!(number < total);
        self.seen.push(cell.id());
    }
    fn finished(&mut self, _: &CellRecord, fresh: bool) {
        self.fresh.push(fresh);
    }
}

fn same(a: &[CellResult], b: &[CellResult]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.record.cell, b.record.cell);
        assert!(same_bits(&a.weights, &b.weights), "{}", a.record.cell.id());
        assert_eq!(a.test, b.test);
        assert_eq!((a.record.steps, &a.record.chosen), (b.record.steps, &b.record.chosen));
    }
}

#[test]
fn a_study_is_paired_finishes_and_reads_back() {
    let root = tempfile::tempdir().unwrap();
    let (options, data) = (options(), data());
    let mut count = Count::default();
    let outcome = go(&options, &data, root.path(), &mut count).unwrap();
    assert_eq!((outcome.cells.len(), outcome.pending.len()), (12, 0));
    assert_eq!(count.seen[..4], ["scratch-n20-s0", "fine-tune-n20-s0", "frozen-n20-s0", "scratch-n20-s1"]);
    // Two epochs of 3 and of 5 steps.
    assert_eq!(count.steps, 6 * 6 + 6 * 10);
    for result in &outcome.cells {
        let record = &result.record;
        assert_eq!((result.test.len(), record.test.jets, record.end), (60, 60, End::Budget));
        assert_eq!(record.log.len(), 2);
        let scratch = record.cell.plan == "scratch";
        assert_eq!(record.graft.kept_parameters() == 0, scratch);
        assert_eq!(record.trained_parameters < record.parameters, record.cell.plan == "frozen");
        // Plans of one size and seed share jets and seeds; nothing else does.
        for other in &outcome.cells {
            let (a, b) = (&record.cell, &other.record.cell);
            let paired = a.seed == b.seed;
            assert_eq!(record.training_seed == other.record.training_seed, paired);
            let same_jets = record.identity.training == other.record.identity.training;
            assert_eq!(same_jets, paired && a.size == b.size);
            assert_eq!(record.identity.test, other.record.identity.test);
        }
    }
    assert!(options.budget().starts_with("2 epochs at most, the same"));
    let read = collect(&options, root.path()).unwrap();
    assert_eq!(read.cells, outcome.cells);
    // Again: nothing is done twice.
    let mut again = Count::default();
    let outcome_again = go(&options, &data, root.path(), &mut again).unwrap();
    assert_eq!((again.steps, again.fresh), (0, vec![false; 12]));
    assert_eq!(outcome_again.cells, outcome.cells);
}

#[test]
fn a_study_cut_off_anywhere_ends_with_the_same_bits() {
    let (mut options, data) = (options(), data());
    options.sizes = vec![20];
    options.seeds = 1;
    let whole = tempfile::tempdir().unwrap();
    let whole = go(&options, &data, whole.path(), &mut Silent).unwrap();
    for at in 1..18 {
        let root = tempfile::tempdir().unwrap();
        let mut kill = Count { kill_at: Some(at), ..Count::default() };
        let killed = catch_unwind(AssertUnwindSafe(|| go(&options, &data, root.path(), &mut kill)));
        assert!(killed.is_err());
        let mut stop = Count { stop_at: Some(1), ..Count::default() };
        go(&options, &data, root.path(), &mut stop).unwrap();
        let outcome = go(&options, &data, root.path(), &mut Silent).unwrap();
        same(&whole.cells, &outcome.cells);
        for cell in options.cells() {
            // A finished cell keeps its result and its lock file only.
            let folder = result_folder(root.path(), &cell);
            assert_eq!(fs::read_dir(folder.parent().unwrap()).unwrap().count(), 2);
        }
    }
}

#[test]
fn a_cell_at_work_elsewhere_is_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let (options, data) = (options(), data());
    let taken = Cell { plan: "fine-tune".into(), size: 20, seed: 1 };
    let folder = root.path().join("cells").join(taken.id());
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let outcome = go(&options, &data, root.path(), &mut Silent).unwrap();
    assert_eq!((outcome.cells.len(), &outcome.pending[..]), (11, &[taken][..]));
    assert_eq!(collect(&options, root.path()).unwrap().pending, outcome.pending);
    drop(lock);
    assert_eq!(go(&options, &data, root.path(), &mut Silent).unwrap().cells.len(), 12);
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
    assert!(done.iter().all(|outcome| outcome.cells.len() + outcome.pending.len() == 12));
    let alone = tempfile::tempdir().unwrap();
    let alone = go(&options, &data, alone.path(), &mut Silent).unwrap();
    same(&alone.cells, &go(&options, &data, root.path(), &mut Silent).unwrap().cells);
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
    for file in ["record.json", "test.safetensors", "weights.safetensors", "MANIFEST"] {
        let path = result_folder(root.path(), &options.cells()[1]).join(file);
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
    let mut twice = options.clone();
    twice.plans[1].name = "scratch".into();
    assert!(twice.check().is_err());
    twice.plans[1].name = "../up".into();
    assert!(twice.check().is_err());
    let text = serde_json::to_string(&options).unwrap();
    assert_eq!(serde_json::from_str::<StudyOptions>(&text).unwrap(), options);
}
