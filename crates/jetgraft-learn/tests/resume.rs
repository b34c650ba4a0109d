//! A run that is cut off anywhere and resumed ends with the bits of one that was not.

#![allow(clippy::unwrap_used)] // Also in helpers, where the workspace's rule for tests does not reach.

mod common;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use common::{Tiny, jets, job, plan_for, same_bits};
use jetgraft_learn::LearnError;
use jetgraft_learn::checkpoint::{Checkpoint, CheckpointEvery, Checkpoints, newest};
use jetgraft_learn::observer::{Observer, Signal, Silent, StepEvent};
use jetgraft_learn::plan::Plan;
use jetgraft_learn::record::{End, Record};
use jetgraft_learn::trainer::{EarlyStopping, Job, Metric, Span, TrainOptions, Trained, train};
use jetgraft_nn::state::state;

/// Panics (as a kill would: nothing more is written) or asks to stop after a step.
struct Cut {
    after: u64,
    kill: bool,
}

impl Observer for Cut {
    fn step(&mut self, event: &StepEvent<'_>) -> Signal {
        if event.step < self.after {
            return Signal::Continue;
        }
        assert!(!self.kill, "killed on purpose");
        Signal::Stop
    }
}

fn options() -> TrainOptions {
    TrainOptions {
        batch_size: 16,
        budget: Span::Epochs(3),
        learning_rate: 1e-2,
        schedule: serde_json::from_str(r#"{"kind": "cosine", "warmup": {"steps": 3}}"#).unwrap(),
        clip_norm: Some(0.5),
        early_stopping: Some(EarlyStopping { metric: Metric::Accuracy, patience: 2, min_delta: 0.5 }),
        ..TrainOptions::default()
    }
}

fn checkpoints(folder: &Path, steps: Option<u64>) -> Checkpoints {
    Checkpoints { folder: folder.to_owned(), every: CheckpointEvery { steps, epochs: Some(1) }, resume: true }
}

fn go(
    plan: &Plan,
    options: &TrainOptions,
    checkpoints: Option<&Checkpoints>,
    observer: &mut dyn Observer,
) -> Result<Trained<Tiny>, LearnError> {
    let device = Device::flex();
    let model = Tiny::new(2, 3, &device);
    train(Job { checkpoints, ..job(&model, plan, options, &device) }, observer)
}

/// The log without what a clock says.
fn timeless(log: &[Record]) -> Vec<Record> {
    let mut log = log.to_vec();
    for record in &mut log {
        record.cost.seconds = 0.0;
        record.cost.cpu_seconds = None;
        record.cost.jets_per_second = 0.0;
    }
    log
}

fn same(a: &Trained<Tiny>, b: &Trained<Tiny>, what: &str) {
    assert!(same_bits(&a.last, &b.last), "last weights, {what}");
    assert!(same_bits(&state(&a.model), &state(&b.model)), "chosen weights, {what}");
    assert_eq!(timeless(&a.log), timeless(&b.log), "{what}");
    assert_eq!((&a.chosen, a.end, a.steps), (&b.chosen, b.end, b.steps), "{what}");
}

/// A panic of the observer, without its message on the test's output.
fn killed(run: impl FnOnce() -> Result<Trained<Tiny>, LearnError>) {
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err(), "the run was meant to be cut off");
}

#[test]
fn a_run_cut_off_after_any_step_ends_with_the_same_bits() {
    let model = Tiny::new(2, 3, &Device::flex());
    for (text, optimiser) in [
        (r#"{"kind": "scratch"}"#, r#"{"kind": "adam"}"#),
        (r#"{"kind": "probe-then-fine-tune", "probe_epochs": 1}"#, r#"{"kind": "sgd", "nesterov": true}"#),
    ] {
        // Every tensor from the network itself: a plan that keeps things needs no other source here.
        let plan = plan_for(&model, text);
        let options = TrainOptions { optimiser: serde_json::from_str(optimiser).unwrap(), ..options() };
        let whole = go(&plan, &options, None, &mut Silent).unwrap();
        for after in 1..whole.steps {
            for (kill, steps) in [(true, Some(3)), (true, None), (false, None)] {
                let root = tempfile::tempdir().unwrap();
                let places = checkpoints(root.path(), steps);
                let mut cut = Cut { after, kill };
                if kill {
                    killed(|| go(&plan, &options, Some(&places), &mut cut));
                } else {
                    let stopped = go(&plan, &options, Some(&places), &mut cut).unwrap();
                    assert_eq!((stopped.end, stopped.steps), (End::Stopped, after));
                }
                let resumed = go(&plan, &options, Some(&places), &mut Silent).unwrap();
                same(&whole, &resumed, &format!("{text} after {after}, killed {kill}, every {steps:?}"));
            }
        }
    }
}

#[test]
fn a_run_cut_off_again_and_again_ends_with_the_same_bits() {
    let plan = plan_for(&Tiny::new(2, 3, &Device::flex()), r#"{"kind": "scratch"}"#);
    let options = options();
    let whole = go(&plan, &options, None, &mut Silent).unwrap();
    let root = tempfile::tempdir().unwrap();
    let places = checkpoints(root.path(), Some(1));
    for after in (2..whole.steps).step_by(4) {
        killed(|| go(&plan, &options, Some(&places), &mut Cut { after, kill: true }));
        // Only the newest is there, and nothing half written.
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
    same(&whole, &go(&plan, &options, Some(&places), &mut Silent).unwrap(), "cut off again and again");
}

/// Everything that has a memory of its own: slow weights, averages, groups, several batches a step.
#[test]
fn every_optimiser_average_and_loss_goes_on_with_the_same_bits() {
    let model = Tiny::new(2, 3, &Device::flex());
    for (plan, text) in [
        (
            r#"{"kind": "fine-tune", "rates": {"head": 50}}"#,
            r#"{"batch_size": 8, "accumulate": 2, "budget": {"epochs": 2}, "learning_rate": 1e-3,
                "optimiser": {"kind": "ranger", "weight_decay": 0.01, "sync_every": 4},
                "weight_decay_on": "matrices", "ema": {"decay": 0.8},
                "schedule": {"kind": "flat-decay", "groups": "weaver"},
                "loss": {"kind": "focal", "alpha": 0.4}, "class_weights": "balanced"}"#,
        ),
        (
            r#"{"kind": "probe-then-fine-tune", "probe_epochs": 1}"#,
            r#"{"batch_size": 5, "accumulate": 3, "last_batch": "drop", "budget": {"epochs": 2},
                "optimiser": {"kind": "radam"}, "learning_rate": 1e-2,
                "ema": {"decay": 0.6, "running_statistics": "average"},
                "schedule": {"kind": "cosine-restarts", "first": 2, "growth": 2, "per": "step"},
                "loss": {"kind": "cross-entropy", "label_smoothing": 0.1}}"#,
        ),
    ] {
        let plan = plan_for(&model, plan);
        let options: TrainOptions = serde_json::from_str(text).unwrap();
        let whole = go(&plan, &options, None, &mut Silent).unwrap();
        for after in 1..whole.steps {
            for (kill, steps) in [(true, Some(1)), (true, Some(3)), (false, None)] {
                let root = tempfile::tempdir().unwrap();
                let places = checkpoints(root.path(), steps);
                let mut cut = Cut { after, kill };
                if kill {
                    killed(|| go(&plan, &options, Some(&places), &mut cut));
                } else {
                    assert_eq!(go(&plan, &options, Some(&places), &mut cut).unwrap().end, End::Stopped);
                }
                let resumed = go(&plan, &options, Some(&places), &mut Silent).unwrap();
                same(&whole, &resumed, &format!("{text} after {after}, killed {kill}, every {steps:?}"));
            }
        }
    }
}

/// A folder with a checkpoint of a run of these options.
fn stopped(root: &Path) -> (Plan, TrainOptions, Checkpoints, PathBuf) {
    let plan = plan_for(&Tiny::new(2, 3, &Device::flex()), r#"{"kind": "scratch"}"#);
    let options = TrainOptions { ema: serde_json::from_str("{}").unwrap(), ..options() };
    let places = checkpoints(root, None);
    go(&plan, &options, Some(&places), &mut Cut { after: 9, kill: false }).unwrap();
    let folder = newest(root).unwrap().unwrap();
    (plan, options, places, folder)
}

#[test]
fn a_flipped_byte_in_any_file_of_a_checkpoint_is_found_and_named() {
    let root = tempfile::tempdir().unwrap();
    let (plan, options, places, folder) = stopped(root.path());
    let mut files = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let content = fs::read(&path).unwrap();
        for at in (0..content.len()).step_by(content.len() / 7 + 1) {
            let mut flipped = content.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, flipped).unwrap();
            match go(&plan, &options, Some(&places), &mut Silent) {
                Err(LearnError::Damaged { file, .. }) => assert_eq!(file, path),
                other => panic!("byte {at} of {}: {other:?}", path.display()),
            }
        }
        fs::write(&path, content).unwrap();
        files += 1;
    }
    // Weights, averaged and best weights, optimiser, counters, log, plan, identity, manifest.
    assert_eq!(files, 9);
    go(&plan, &options, Some(&places), &mut Silent).unwrap();
}

#[test]
fn a_checkpoint_of_another_job_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (plan, options, places, _) = stopped(root.path());
    let refused = |result: Result<Trained<Tiny>, LearnError>| match result {
        Err(LearnError::OtherJob { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let other = TrainOptions { learning_rate: 2e-2, ..options.clone() };
    assert_eq!(refused(go(&plan, &other, Some(&places), &mut Silent)), "training options");
    let frozen = plan_for(&Tiny::new(2, 3, &Device::flex()), r#"{"kind": "frozen"}"#);
    assert_eq!(refused(go(&frozen, &options, Some(&places), &mut Silent)), "plan");
    let device = Device::flex();
    let model = Tiny::new(2, 3, &device);
    let with = |job: Job<'_, Tiny>| refused(train(Job { checkpoints: Some(&places), ..job }, &mut Silent));
    assert_eq!(
        with(Job { training: jets(100, 5, 2), ..job(&model, &plan, &options, &device) }),
        "training set"
    );
    assert_eq!(
        with(Job { validation: jets(60, 5, 2), ..job(&model, &plan, &options, &device) }),
        "validation set"
    );
    let other = Tiny::new(2, 4, &device);
    assert_eq!(with(job(&other, &plan, &options, &device)), "start weights");
    // And without being asked to resume, what is there is not written over.
    let fresh = Checkpoints { resume: false, ..places.clone() };
    assert_eq!(refused(go(&plan, &options, Some(&fresh), &mut Silent)), "the checkpoint in it");
}

#[test]
fn a_checkpoint_comes_back_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let (plan, .., folder) = stopped(root.path());
    let checkpoint = Checkpoint::read(&folder).unwrap();
    assert_eq!((checkpoint.counters.step, checkpoint.log.len()), (9, 1));
    assert_eq!(checkpoint.plan, plan);
    assert!(checkpoint.counters.seconds > 0.0 && checkpoint.best.is_some());
    let copy = tempfile::tempdir().unwrap();
    let written = checkpoint.write(copy.path()).unwrap();
    assert_eq!(Checkpoint::read(&written).unwrap(), checkpoint);
}
