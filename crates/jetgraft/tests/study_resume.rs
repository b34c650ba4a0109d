//! An interrupted study goes on to the bytes of one that was never interrupted, and refuses another's cells.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jetgraft::args::PlaceArgs;
use jetgraft::progress::{Progress, Silent};
use jetgraft::recipe::{LoadedRecipe, Recipe};
use jetgraft::{Error, run_dir, study, study_folder};

/// The quick start, as small as it can be.
const CHANGES: [&str; 5] = [
    "study.sizes=[20,40]",
    "study.seeds=2",
    "train.budget={steps=4}",
    "train.evaluate_every={steps=2}",
    "source.train.budget={steps=2}",
];
const CELLS: usize = 12;

fn run(out: &Path, further: &[&str], progress: &dyn Progress) -> Result<(), Error> {
    let changes: Vec<String> = CHANGES.iter().chain(further).map(ToString::to_string).collect();
    let loaded = LoadedRecipe::load("quickstart", &changes)?;
    let Recipe::Study(recipe) = &loaded.recipe else { panic!("the quick start is a study") };
    let place = PlaceArgs { device: "cpu".into(), threads: None };
    study::run(&loaded, recipe, &place, out, progress)
}

/// Weights and predictions of the source and of all cells; and nothing else may lie beside them.
fn results(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![out.join(study_folder::SOURCE)];
    for entry in std::fs::read_dir(out.join(study_folder::CELLS)).expect("cells") {
        let path = entry.expect("entry").path();
        assert!(path.is_dir() && path.extension().is_none(), "{} was left behind", path.display());
        folders.push(path);
    }
    assert_eq!(folders.len(), CELLS + 1);
    for name in [".lock", ".checkpoints"] {
        assert!(!out.join(format!("{}{name}", study_folder::SOURCE)).exists());
    }
    for folder in folders {
        for file in [run_dir::WEIGHTS, run_dir::PREDICTIONS, study_folder::CELL] {
            // The source has weights only.
            if let Ok(bytes) = std::fs::read(folder.join(file)) {
                let name = folder.file_name().expect("name").to_string_lossy().into_owned();
                found.insert(format!("{name}/{file}"), bytes);
            }
        }
    }
    assert_eq!(found.len(), 3 * CELLS + 1);
    found
}

fn assert_same(a: &BTreeMap<String, Vec<u8>>, b: &BTreeMap<String, Vec<u8>>) {
    assert!(a.keys().eq(b.keys()));
    for (name, bytes) in a {
        assert!(bytes == &b[name], "{name} differs");
    }
}

/// Dies when so many more cells are done, at the next step after that.
struct Dies {
    after: usize,
    done: AtomicUsize,
}

impl Progress for Dies {
    fn words(&self, _: &str) {}
    fn start(&self, _: &str, _: u64, _: &'static str) {}
    fn advance(&self, _: u64, detail: &str) {
        let done = self.done.fetch_add(usize::from(detail.ends_with("done")), Ordering::Relaxed);
        assert!(done < self.after, "killed on purpose");
    }
    fn finish(&self, _: &str) {}
}

/// The bar over the whole study, as it was shown.
#[derive(Default)]
struct Shown(Mutex<(u64, Vec<u64>)>);

impl Progress for Shown {
    fn words(&self, _: &str) {}
    fn start(&self, _: &str, total: u64, _: &'static str) {
        self.0.lock().expect("lock").0 = total;
    }
    fn advance(&self, done: u64, _: &str) {
        self.0.lock().expect("lock").1.push(done);
    }
    fn finish(&self, _: &str) {}
}

#[test]
fn an_interrupted_study_goes_on_to_the_same_bytes() {
    let whole = tempfile::tempdir().expect("folder");
    let shown = Shown::default();
    run(whole.path(), &[], &shown).expect("a study");
    let (total, steps) = shown.0.into_inner().expect("lock");
    assert!(steps.is_sorted() && steps.last() == Some(&total), "the bar ends at {total}: {steps:?}");
    let expected = results(whole.path());

    // Stopped in the source's training, then in the second cell, then in the eighth.
    let pieces = tempfile::tempdir().expect("folder");
    for (after, cells) in [(0, 0), (1, 1), (7, 7)] {
        let dies = Dies { after, done: AtomicUsize::new(0) };
        let killed = catch_unwind(AssertUnwindSafe(|| run(pieces.path(), &[], &dies)));
        assert!(killed.is_err());
        let done = pieces.path().join(study_folder::CELLS);
        let runs = std::fs::read_dir(&done).map_or(0, |entries| {
            entries.flatten().filter(|e| e.path().join(run_dir::RECORD).is_file()).count()
        });
        assert_eq!(runs, cells);
    }
    run(pieces.path(), &[], &Silent).expect("the rest of the study");
    assert_same(&expected, &results(pieces.path()));
    // What reads a study and its runs can read this one.
    let study = study_folder::read(pieces.path()).expect("a finished study");
    assert_eq!(study.cells.len(), CELLS);
    assert_eq!(study.table.rows.len(), 6);

    // Cells of other options, and of other jets, are refused with the reason.
    let refused =
        |further: &str| run(pieces.path(), &[further], &Silent).expect_err("another study").to_string();
    let text = refused("train.learning_rate=1e-2");
    assert!(text.contains("belongs to another job: options") && text.contains("hint: resume with"), "{text}");
    let text = refused("target.select=\"jet_pt > 520 and abs(jet_eta) < 2.5\"");
    assert!(text.contains("belongs to another job: training set"), "{text}");
    // So is a run without the record of a cell.
    let cell = pieces.path().join(study_folder::CELLS).join(study_folder::cell_name("scratch", 20, 0));
    std::fs::remove_dir_all(&cell).expect("remove");
    let run = run_dir::read(&pieces.path().join(study_folder::SOURCE)).expect("a run");
    jetgraft::training::write_run(&cell, &run, None, &[]).expect("write");
    let error = self::run(pieces.path(), &[], &Silent).expect_err("no cell").to_string();
    assert!(error.contains("has no file `cell.json`"), "{error}");
}

#[test]
fn a_killed_process_leaves_what_another_goes_on_from() {
    let root = tempfile::tempdir().expect("folder");
    let out = root.path().join("study");
    let command = |resume: bool| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("jetgraft"));
        command.args(["--quiet", "study", "quickstart", "--out"]).arg(&out);
        for change in CHANGES {
            command.args(["--set", change]);
        }
        if resume {
            command.arg("--resume");
        }
        command.stdout(Stdio::null());
        command
    };
    let mut child = command(false).spawn().expect("the program starts");
    let cells = out.join(study_folder::CELLS);
    let third = || std::fs::read_dir(&cells).is_ok_and(|entries| entries.count() >= 3);
    let began = Instant::now();
    while !third() {
        assert!(began.elapsed() < Duration::from_secs(300), "no third cell in 5 minutes");
        assert!(child.try_wait().expect("status").is_none(), "the program ended");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("kill");
    child.wait().expect("end");
    assert!(!out.join(study_folder::SUMMARY).exists(), "it was killed before its end");
    // Without --resume the folder is in use; with it the rest is done, locks of the dead do not count.
    assert_eq!(command(false).stderr(Stdio::null()).status().expect("status").code(), Some(1));
    assert!(command(true).status().expect("status").success());
    let whole = root.path().join("whole");
    run(&whole, &[], &Silent).expect("a study");
    assert_same(&results(&whole), &results(&out));
}
