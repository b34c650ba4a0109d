//! What the tests of the program share: they run the binary as a user does, in the repository's root.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "each test uses its part; tests fail by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The jets in the repository.
pub const JETS: &str = "samples/jets_r10_pt500.parquet";
/// The particles in the repository.
pub const PARTICLES: &str = "samples/particles.parquet";

/// `--set` of a train recipe that ends in a second: few jets, few declusterings, small batches.
pub const TINY_TRAIN: &[&str] = &[
    "--set",
    "task.select=\"jet_pt > 1000\"",
    "--set",
    "input.ln_kt_min=0.0",
    "--set",
    "train.batch_size=16",
    "--set",
    "train.budget={steps=2}",
    "--set",
    "train.evaluate_every={steps=1}",
];

/// `--set` of a study's target and matrix, likewise.
pub const TINY_STUDY: &[&str] = &[
    "--set",
    "target.select=\"jet_pt > 900\"",
    "--set",
    "input.ln_kt_min=0.0",
    "--set",
    "train.budget={steps=2}",
    "--set",
    "train.evaluate_every={steps=1}",
    "--set",
    "study.sizes=[8, 16]",
    "--set",
    "study.seeds=2",
    "--set",
    "statistics.replicates=100",
];

/// `--set` of a study's source that is trained here, likewise.
pub const TINY_SOURCE: &[&str] =
    &["--set", "source.task.select=\"jet_pt > 900\"", "--set", "source.train.budget={steps=2}"];

/// Root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file of the shared data, or a visible skip.
pub fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")).join(path);
    if path.is_file() {
        return Some(path);
    }
    eprintln!("skipped: {} not found", path.display());
    None
}

/// A scratch folder that goes away with the test.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// `path` below a folder, as text.
pub fn at(folder: &tempfile::TempDir, path: &str) -> String {
    folder.path().join(path).to_str().unwrap().to_string()
}

/// The program, in the repository's root, with nothing of the caller's environment that changes what it says.
pub fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jetgraft"));
    command.args(args).current_dir(root()).env_remove("RUST_LOG").env_remove("COLUMNS").stdin(Stdio::null());
    command
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    /// What was typed, for messages.
    pub typed: String,
    /// Exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// Data.
    pub out: String,
    /// Words.
    pub err: String,
}

/// Runs the program.
pub fn run(args: &[&str]) -> Done {
    let output = program(args).output().unwrap();
    Done {
        typed: args.join(" "),
        status: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the program and expects success.
#[track_caller]
pub fn ok(args: &[&str]) -> Done {
    let done = run(args);
    assert_eq!(done.status, Some(0), "{done:#?}");
    done
}

/// Runs the program and expects an error that the user can mend: status 1, nothing on stdout, words that begin with
/// `error:`; returns the words.
#[track_caller]
pub fn refused(args: &[&str]) -> String {
    let done = run(args);
    assert_eq!(done.status, Some(1), "{done:#?}");
    assert!(done.out.is_empty(), "an error prints no data: {done:#?}");
    assert!(done.err.contains("error: "), "{done:#?}");
    assert!(!done.err.contains("panicked"), "{done:#?}");
    done.err
}

/// `first` and more arguments, in one list.
pub fn with<'a>(first: &[&'a str], lists: &[&[&'a str]]) -> Vec<&'a str> {
    first.iter().chain(lists.iter().copied().flatten()).copied().collect()
}

/// Trains a tiny network into `out`.
#[track_caller]
pub fn tiny_run(out: &str) -> Done {
    ok(&with(&["train", "lundnet5-w", "--out", out], &[TINY_TRAIN]))
}

/// Runs a tiny quick-start study into `out`.
#[track_caller]
pub fn tiny_study(out: &str) -> Done {
    ok(&with(&["study", "quickstart", "--out", out], &[TINY_STUDY, TINY_SOURCE]))
}

/// All files below a folder, sorted.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    for file in files_below(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, target).unwrap();
    }
}

/// JSON on stdout.
#[track_caller]
pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Text without what differs between machines and moments.
pub fn stable(text: &str, scratch: &Path) -> String {
    text.replace(&scratch.display().to_string(), "DIR").replace(env!("CARGO_PKG_VERSION"), "VERSION")
}
