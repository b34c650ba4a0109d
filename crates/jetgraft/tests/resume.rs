//! A training that is killed (SIGKILL, a real process) and resumed gives bitwise the weights of one that was not.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{TINY_TRAIN, at, ok, program, refused, scratch, with};

/// A moment of a run: its name, and how it shows in the folder.
type Event = (&'static str, fn(&Path) -> bool);

/// Ten steps an epoch, four steps between evaluations, a checkpoint after each epoch.
const RUN: &[&str] = &["--set", "train.budget={steps=36}", "--set", "train.evaluate_every={steps=4}"];

fn arguments(out: &str) -> Vec<&str> {
    with(&["train", "lundnet5-w", "--out", out], &[TINY_TRAIN, RUN])
}

fn start(out: &str, resume: bool) -> Child {
    let mut args = arguments(out);
    if resume {
        args.push("--resume");
    }
    program(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn finish(out: &str) -> Vec<u8> {
    ok(&with(&arguments(out), &[&["--resume"]]));
    let left: Vec<_> = common::files_below(Path::new(out))
        .into_iter()
        .filter(|file| file.strip_prefix(out).unwrap().starts_with("checkpoints"))
        .collect();
    assert!(left.is_empty(), "a finished run needs no checkpoints: {left:?}");
    weights(out)
}

fn weights(out: &str) -> Vec<u8> {
    std::fs::read(Path::new(out).join("run/weights.safetensors")).unwrap()
}

/// What was chosen and logged, without the cost, which differs from run to run.
fn log(out: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(Path::new(out).join("run/log.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut record = common::json(line);
            record.as_object_mut().unwrap().remove("cost");
            record
        })
        .collect()
}

fn kill(child: &mut Child) {
    // SIGKILL on Unix. The child may have ended by itself.
    let _ = child.kill();
    child.wait().unwrap();
}

#[test]
fn killed_at_many_moments() {
    let folder = scratch();
    let whole = at(&folder, "whole");
    let began = Instant::now();
    ok(&arguments(&whole));
    let duration = began.elapsed();
    let expected = weights(&whole);
    let moments = 12;
    let mut interrupted = 0;
    for moment in 0..moments {
        let out = at(&folder, &format!("killed-{moment}"));
        let mut child = start(&out, false);
        std::thread::sleep(duration * (2 * moment + 1) / (2 * moments));
        kill(&mut child);
        interrupted += u32::from(!Path::new(&out).join("run").exists());
        assert!(finish(&out) == expected, "killed at moment {moment} of {moments}: other weights");
        assert_eq!(log(&out), log(&whole), "killed at moment {moment} of {moments}: another log");
    }
    assert!(
        interrupted >= moments / 2,
        "only {interrupted} of {moments} were interrupted: the test tests little"
    );
}

#[test]
fn killed_again_and_again() {
    let folder = scratch();
    let (whole, out) = (at(&folder, "whole"), at(&folder, "killed"));
    ok(&arguments(&whole));
    let mut delay = Duration::from_millis(20);
    let mut kills = 0;
    loop {
        let mut child = start(&out, true);
        std::thread::sleep(delay);
        kill(&mut child);
        if Path::new(&out).join("run").exists() {
            break;
        }
        kills += 1;
        delay += Duration::from_millis(40);
        assert!(kills < 200, "no progress");
    }
    assert!(kills > 3, "killed only {kills} times");
    assert!(finish(&out) == weights(&whole), "other weights after {kills} kills");
}

/// Killed at the moment that something appears in the folder: a file on its way, a checkpoint, the run itself.
#[test]
fn killed_while_writing() {
    let folder = scratch();
    let whole = at(&folder, "whole");
    ok(&arguments(&whole));
    let expected = weights(&whole);
    let events: &[Event] = &[
        ("the folder", |out| out.is_dir()),
        ("the recipe", |out| out.join("recipe.toml").exists()),
        ("the resolved recipe", |out| out.join("recipe.resolved.toml").exists()),
        ("the checkpoints", |out| out.join("checkpoints").is_dir()),
        ("half a checkpoint", |out| any(&out.join("checkpoints"), |name| name.ends_with(".tmp"))),
        ("a checkpoint", |out| any(&out.join("checkpoints"), |name| !name.starts_with('.'))),
        ("two checkpoints", |out| count(&out.join("checkpoints")) > 1),
        ("half a run", |out| any(out, |name| name.starts_with(".run"))),
        ("the run", |out| out.join("run").is_dir()),
    ];
    for (number, (event, happened)) in events.iter().enumerate() {
        let out = at(&folder, &format!("event-{number}"));
        let mut child = start(&out, false);
        while child.try_wait().unwrap().is_none() && !happened(Path::new(&out)) {
            std::thread::sleep(Duration::from_micros(100));
        }
        kill(&mut child);
        assert!(finish(&out) == expected, "killed at `{event}`: other weights");
        let _ = std::fs::remove_dir_all(&out);
    }
}

fn any(folder: &Path, good: fn(&str) -> bool) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| good(&entry.file_name().to_string_lossy())))
    })
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

/// What killed processes leave behind, theirs or of a process with the same number, never blocks a run.
#[test]
fn leftovers_do_not_block() {
    let folder = scratch();
    let (whole, out) = (at(&folder, "whole"), at(&folder, "left"));
    ok(&arguments(&whole));
    for name in [
        ".run.4711.tmp/weights.safetensors",
        "checkpoints/.step-10.4711.tmp/half",
        ".recipe.toml.4711.tmp",
        ".run.scores.9.tmp",
    ] {
        let path = Path::new(&out).join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "half").unwrap();
    }
    assert!(finish(&out) == weights(&whole));
}

#[test]
fn a_used_folder_is_refused_and_so_is_another_recipe() {
    let folder = scratch();
    let out = at(&folder, "run");
    ok(&arguments(&out));
    let before = weights(&out);
    let error = refused(&arguments(&out));
    assert!(error.contains("holds a run already") && error.contains("--resume"), "{error}");
    for change in ["train.learning_rate=2e-3", "seed=9", "train.budget={steps=40}"] {
        let error = refused(&with(&arguments(&out), &[&["--resume", "--set", change]]));
        assert!(error.contains("another recipe") && error.contains("found:"), "{error}");
    }
    assert!(weights(&out) == before);
    // With the same recipe there is nothing to do, and the table is printed again.
    let done = ok(&with(&arguments(&out), &[&["--resume"]]));
    assert!(done.err.contains("nothing to do") && done.out.contains("AUC"), "{done:#?}");
    assert!(weights(&out) == before);
}

#[test]
fn an_interrupted_run_is_refused_without_resume_and_says_so_elsewhere() {
    let folder = scratch();
    let out = at(&folder, "run");
    let mut child = start(&out, false);
    while child.try_wait().unwrap().is_none()
        && !any(&Path::new(&out).join("checkpoints"), |name| !name.starts_with('.'))
    {
        std::thread::sleep(Duration::from_micros(100));
    }
    kill(&mut child);
    if Path::new(&out).join("run").exists() {
        return;
    }
    let error = refused(&arguments(&out));
    assert!(error.contains("--resume"), "{error}");
    let error = refused(&["predict", &out, common::JETS, "-o", &at(&folder, "scores.parquet")]);
    assert!(error.contains("--resume"), "{error}");
}
