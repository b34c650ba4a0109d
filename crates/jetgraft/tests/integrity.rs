//! Damage is found and named: flipped bytes in files of ours, cut files of others, losses that are no number.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::path::{Path, PathBuf};

use common::{JETS, TINY_TRAIN, at, files_below, ok, refused, run, scratch, tiny_run, tiny_study, with};

/// First, last and middle byte, and some between: the same in every run of the test.
fn places(length: usize, more: usize) -> Vec<usize> {
    let mut places = vec![0, length / 2, length - 1];
    let mut state = length as u64;
    for _ in 0..more {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        places.push((state >> 33) as usize % length);
    }
    places
}

/// Flips single bits of `file`, runs `command`, and expects it to refuse and to name the file.
fn flip(file: &Path, more: usize, command: &[&str]) {
    let sound = std::fs::read(file).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    for (at, bit) in places(sound.len(), more).into_iter().zip([0, 7, 3, 5, 1, 6].into_iter().cycle()) {
        let mut damaged = sound.clone();
        damaged[at] ^= 1 << bit;
        std::fs::write(file, &damaged).unwrap();
        let done = run(command);
        assert_eq!(done.status, Some(1), "{} byte {at} bit {bit} was not noticed: {done:#?}", file.display());
        assert!(done.err.contains(name) && !done.err.contains("panicked"), "{name} is not named: {done:#?}");
    }
    std::fs::write(file, &sound).unwrap();
}

#[test]
fn a_flipped_byte_in_a_run_is_found_and_named() {
    let folder = scratch();
    let (run, scores, page) = (at(&folder, "run"), at(&folder, "s.parquet"), at(&folder, "page"));
    let weights = at(&folder, "w.safetensors");
    tiny_run(&run);
    let predict = ["predict", &run, JETS, "-o", &scores, "--select", "jet_pt > 1500"];
    let report = ["report", &run, "-o", &page];
    for file in files_below(&Path::new(&run).join("run")) {
        flip(&file, 4, &predict);
        flip(&file, 1, &["compare", &run, &run]);
        flip(&file, 1, &report);
        flip(&file, 1, &["export", &run, "-o", &weights]);
        let written = [&scores, &page, &weights].into_iter().any(|path| Path::new(path).exists());
        assert!(!written, "nothing is written");
    }
    // The folder is sound again.
    ok(&predict);
    ok(&report);
    // A file that is missing, cut, or too many.
    let card = Path::new(&run).join("run/card.json");
    let sound = std::fs::read(&card).unwrap();
    std::fs::write(&card, &sound[..sound.len() / 2]).unwrap();
    assert!(refused(&predict).contains("card.json"));
    std::fs::remove_file(&card).unwrap();
    assert!(refused(&predict).contains("card.json"));
    std::fs::write(&card, &sound).unwrap();
    let extra = Path::new(&run).join("run/notes.txt");
    std::fs::write(&extra, "mine").unwrap();
    assert!(refused(&predict).contains("notes.txt"));
}

#[test]
fn a_flipped_byte_in_a_study_is_found_and_named() {
    let folder = scratch();
    let (study, page, out) = (at(&folder, "study"), at(&folder, "page"), at(&folder, "w.safetensors"));
    tiny_study(&study);
    let report = ["report", &study, "-o", &page];
    let below = |name: &str| files_below(&Path::new(&study).join(name));
    for file in below("summary") {
        flip(&file, 2, &report);
    }
    let cells: Vec<PathBuf> = below("cells");
    assert!(cells.len() > 50);
    for file in &cells {
        flip(file, 0, &report);
    }
    let source = format!("{study}/source");
    for file in below("source") {
        flip(&file, 2, &["export", &source, "-o", &out]);
    }
    ok(&report);
    // A cell that is missing.
    std::fs::remove_dir_all(format!("{study}/cells/frozen_n8_s0")).unwrap();
    let error = refused(&report);
    assert!(error.contains("frozen_n8_s0"), "{error}");
}

#[test]
fn a_recipe_that_changed_under_a_run_is_noticed() {
    let folder = scratch();
    let out = at(&folder, "run");
    tiny_run(&out);
    let resolved = Path::new(&out).join("recipe.resolved.toml");
    let text =
        std::fs::read_to_string(&resolved).unwrap().replace("learning_rate = 0.001", "learning_rate = 0.002");
    std::fs::write(&resolved, text).unwrap();
    let error = refused(&with(&["train", "lundnet5-w", "--out", &out, "--resume"], &[TINY_TRAIN]));
    assert!(error.contains("another recipe") && error.contains("learning_rate = 0.002"), "{error}");
}

#[test]
fn a_cut_or_damaged_jet_file_is_named_with_a_remedy() {
    let folder = scratch();
    let sound = std::fs::read(common::root().join(JETS)).unwrap();
    let file = at(&folder, "cut.parquet");
    let (out, lund) = (at(&folder, "run"), at(&folder, "lund.parquet"));
    let change = format!("task.files=[\"{file}\"]");
    let train = with(&["train", "lundnet5-w", "--out", &out], &[TINY_TRAIN, &["--set", &change]]);
    for length in [0, 3, 4, 1000, sound.len() / 2, sound.len() - 1] {
        std::fs::write(&file, &sound[..length]).unwrap();
        for command in [&["inspect", &file][..], &["lund", &file, "-o", &lund], &train] {
            let error = refused(command);
            assert!(error.contains(&file), "the file is named: {error}");
            assert!(error.contains("hint: "), "a remedy is given: {error}");
        }
        // What is left of the refused training does not stand in the way of the next one.
        let _ = std::fs::remove_dir_all(&out);
        assert!(!Path::new(&lund).exists());
    }
    // A page in the middle: the place in the file is said.
    let mut damaged = sound.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    std::fs::write(&file, &damaged).unwrap();
    let error = refused(&["lund", &file, "-o", &lund]);
    assert!(error.contains(&file) && error.contains("hint: "), "{error}");
    assert!(error.contains("row group") || error.contains("group"), "the place is said: {error}");
}

/// A training on jets that cannot be read does not use up its folder: once they can, the same command works.
#[test]
fn a_refused_training_can_be_started_again() {
    let folder = scratch();
    let (file, out) = (at(&folder, "jets.parquet"), at(&folder, "run"));
    let change = format!("task.files=[\"{file}\"]");
    let train = with(&["train", "lundnet5-w", "--out", &out], &[TINY_TRAIN, &["--set", &change]]);
    std::fs::write(&file, "no jets").unwrap();
    refused(&train);
    std::fs::copy(common::root().join(JETS), &file).unwrap();
    ok(&train);
}

#[test]
fn a_loss_that_is_no_number_stops_with_batch_step_and_cause() {
    let folder = scratch();
    let out = at(&folder, "run");
    let long: &[&str] = &["--set", "train.budget={steps=40}", "--set", "train.evaluate_every={steps=5}"];
    let error = refused(&with(
        &["train", "lundnet5-w", "--out", &out],
        &[TINY_TRAIN, long, &["--set", "train.learning_rate=1e30"]],
    ));
    for word in ["not a finite number", "step ", "batch ", "learning rate"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    assert!(error.contains("hint: "), "what to do is said: {error}");
    assert!(!Path::new(&out).join("run").exists(), "there is no finished run");
}

/// Weights that grow by half in every step are numbers for the first epochs; those of the last checkpoint before the
/// fault are kept.
#[test]
fn weights_from_before_the_fault_are_kept() {
    let folder = scratch();
    let out = at(&folder, "run");
    let error = refused(&with(
        &["train", "lundnet5-w", "--out", &out],
        &[
            TINY_TRAIN,
            &["--set", "train.budget={steps=400}", "--set", "train.evaluate_every={steps=5}"],
            &[
                "--set",
                "train.optimiser={kind=\"sgd\", momentum=0.0, weight_decay=250.0}",
                "--set",
                "train.learning_rate=0.01",
            ],
        ],
    ));
    assert!(error.contains("not a finite number"), "{error}");
    let checkpoints = Path::new(&out).join("checkpoints");
    let kept = files_below(&checkpoints);
    assert!(kept.iter().any(|file| file.ends_with("MANIFEST")), "no checkpoint is left: {kept:?}");
    assert!(error.contains("checkpoints"), "where they are is said: {error}");
}
