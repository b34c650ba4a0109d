//! What the program says: help, lists, errors, exit status, and which stream carries what.
//!
//! The snapshots lie in `snapshots/`; `INSTA_UPDATE=always cargo test --release --workspace --test cli` writes them anew.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::process::Stdio;

use common::{JETS, at, json, ok, program, refused, root, run, scratch, stable};

const COMMANDS: &[&[&str]] = &[
    &["quickstart"],
    &["inspect"],
    &["cluster"],
    &["lund"],
    &["train"],
    &["study"],
    &["import"],
    &["export"],
    &["predict"],
    &["evaluate"],
    &["report"],
    &["compare"],
    &["recipe"],
    &["recipe", "list"],
    &["recipe", "show"],
    &["recipe", "copy"],
    &["recipe", "check"],
    &["devices"],
];

#[test]
fn help_of_the_program() {
    let done = ok(&["--help"]);
    assert!(done.err.is_empty(), "help is an answer: it goes to stdout");
    insta::assert_snapshot!("help", done.out);
}

#[test]
fn help_of_every_command_shows_an_example() {
    for command in COMMANDS {
        let done = ok(&[command, &["--help"][..]].concat());
        assert!(done.err.is_empty(), "{done:#?}");
        let example = format!("Example:\n  jetgraft {}", command.join(" "));
        assert!(done.out.contains(&example), "{}: no example", done.typed);
        insta::assert_snapshot!(format!("help_{}", command.join("_")), done.out);
    }
    // No command is left out here: the program lists as many.
    let listed = ok(&["--help"]).out;
    let names: Vec<&str> = listed
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    let tested: Vec<&str> =
        COMMANDS.iter().filter(|command| command.len() == 1).map(|command| command[0]).collect();
    assert_eq!(names, tested);
}

/// Each `--set` in an example of the help is accepted by the recipe that the example names.
#[test]
fn examples_with_changes_are_accepted() {
    let mut seen = 0;
    for command in COMMANDS {
        let help = ok(&[command, &["--help"][..]].concat()).out;
        let example = help.split("Example:\n  jetgraft ").nth(1).unwrap().lines().next().unwrap().to_string();
        let words: Vec<&str> = example.split_whitespace().collect();
        if !["train", "study"].contains(&words[0]) {
            continue;
        }
        let mut check = vec!["recipe", "check", words[1]];
        for pair in words.windows(2).filter(|pair| pair[0] == "--set") {
            check.extend(pair);
            seen += 1;
        }
        ok(&check);
    }
    assert!(seen >= 2, "no example with --set was found");
}

#[test]
fn version() {
    assert_eq!(ok(&["--version"]).out, concat!("jetgraft ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(ok(&["train", "--version"]).out, concat!("jetgraft-train ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn recipe_list() {
    let done = ok(&["recipe", "list"]);
    assert!(done.err.is_empty());
    insta::assert_snapshot!("recipe_list", done.out);
}

#[test]
fn recipe_show_is_the_file() {
    for line in ok(&["recipe", "list"]).out.lines() {
        let name = line.split_whitespace().next().unwrap();
        let file = std::fs::read_to_string(root().join(format!("recipes/{name}.toml"))).unwrap();
        assert_eq!(ok(&["recipe", "show", name]).out, file);
    }
}

#[test]
fn recipe_copy_overwrites_nothing() {
    let folder = scratch();
    let mine = at(&folder, "deep/mine.toml");
    let done = ok(&["recipe", "copy", "quickstart", &mine]);
    assert!(done.out.is_empty() && done.err.contains("mine.toml"), "{done:#?}");
    std::fs::write(&mine, "mine").unwrap();
    let error = refused(&["recipe", "copy", "quickstart", &mine]);
    assert!(error.contains("is there already"), "{error}");
    assert_eq!(std::fs::read_to_string(&mine).unwrap(), "mine");
}

#[test]
fn devices() {
    let done = ok(&["devices"]);
    assert!(done.err.is_empty() && done.out.starts_with("cpu "), "{done:#?}");
    let list = json(&ok(&["devices", "--json"]).out);
    assert_eq!(list[0]["name"], "cpu");
    let error = refused(&["train", "lundnet5-w", "--device", "abacus"]);
    insta::assert_snapshot!("unknown_device", error);
}

#[test]
fn status_is_0_for_answers_and_1_for_what_the_user_can_mend() {
    for args in [&["--help"][..], &["help"], &["help", "train"], &["--version"], &["recipe", "list"]] {
        ok(args);
    }
    let folder = scratch();
    let (nowhere, text) = (at(&folder, "nowhere"), at(&folder, "text"));
    std::fs::write(&text, "This is no data.\n").unwrap();
    let out = at(&folder, "out");
    let bad: &[&[&str]] = &[
        &[],
        &["trian"],
        &["train"],
        &["train", "lundnet5-w", "--threads", "no"],
        &["train", "lundnet5-w", "--threads", "0"],
        &["train", "lundnet5-w", "--seed", "-1"],
        &["train", "quickstart"],
        &["study", "lundnet5-w"],
        &["--quiet", "--verbose", "devices"],
        &["inspect", &nowhere],
        &["inspect", &text],
        &["cluster", JETS, "-o", &out, "--algorithm", "antikt", "--radius", "0.4"],
        &["cluster", common::PARTICLES, "-o", &out, "--algorithm", "antikt", "--radius", "-1"],
        &[
            "cluster",
            common::PARTICLES,
            "-o",
            &out,
            "--algorithm",
            "antikt",
            "--radius",
            "0.4",
            "--pt-min",
            "NaN",
        ],
        &["lund", JETS, "-o", &out, "--psi", "degrees"],
        &["lund", JETS, "-o", &out, "--select", "jet_pt >"],
        &["lund", JETS, "-o", &out, "--select", "jet_pq > 3"],
        &["lund", JETS, "-o", &out, "--ln-kt-min", "inf"],
        &["import", &nowhere, "-o", &out, "--as", "lundnet-5"],
        &["import", &text, "-o", &out, "--as", "lundnet-5"],
        &["import", &text, "-o", &out, "--as", "resnet"],
        &["export", &nowhere, "-o", &out, "--format", "onnx"],
        &["export", &nowhere, "-o", &out],
        &["predict", &nowhere, JETS, "-o", &out],
        &["evaluate", &nowhere],
        &["evaluate", JETS],
        &["report", &nowhere],
        &["report", folder.path().to_str().unwrap()],
        &["compare", &nowhere, &nowhere],
        &["recipe", "show", "nothing-like-it"],
        &["recipe", "check", &text],
        &["recipe", "check", folder.path().to_str().unwrap()],
    ];
    for args in bad {
        let done = run(args);
        assert_eq!(done.status, Some(1), "{done:#?}");
        assert!(done.out.is_empty(), "{done:#?}");
        assert!(!done.err.trim().is_empty() && !done.err.contains("panicked"), "{done:#?}");
        assert!(!std::path::Path::new(&out).exists(), "{}: nothing is left behind", done.typed);
    }
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let folder = scratch();
    let file = at(&folder, "file");
    std::fs::write(&file, "").unwrap();
    let below = format!("{file}/jets.parquet");
    let error = refused(&["lund", JETS, "-o", &below, "--select", "jet_pt > 1500"]);
    assert!(error.contains(&file), "{error}");
    let error = refused(&["train", "lundnet5-w", "--out", &below]);
    assert!(error.contains(&file), "{error}");
}

#[test]
fn data_on_stdout_and_words_on_stderr() {
    let folder = scratch();
    let out = at(&folder, "lund.parquet");
    let args = ["lund", JETS, "-o", &out, "--select", "jet_pt > 1500"];
    let done = ok(&args);
    assert!(done.out.is_empty(), "the data are in the file: {done:#?}");
    insta::assert_snapshot!("lund_words", stable(&done.err, folder.path()));
    for quiet in ["-q", "--quiet"] {
        let done = ok(&common::with(&args, &[&[quiet]]));
        assert!(done.out.is_empty() && done.err.is_empty(), "{done:#?}");
    }
    let done = ok(&["recipe", "check", "quickstart"]);
    assert!(done.out.starts_with("format = ") && !done.err.is_empty());
    assert!(!refused(&["--quiet", "recipe", "show", "nothing"]).is_empty(), "errors are shown even so");
}

#[test]
fn a_quiet_training_prints_its_table_only() {
    let folder = scratch();
    let out = at(&folder, "run");
    let done = ok(&common::with(&["--quiet", "train", "lundnet5-w", "--out", &out], &[common::TINY_TRAIN]));
    assert!(done.err.is_empty(), "{done:#?}");
    assert!(done.out.contains("accuracy") && done.out.contains("AUC"), "{done:#?}");
}

#[test]
fn no_colours_in_a_file() {
    let folder = scratch();
    let out = at(&folder, "run");
    let done = ok(&common::with(&["-v", "train", "lundnet5-w", "--out", &out], &[common::TINY_TRAIN]));
    assert!(!done.err.contains('\u{1b}') && !done.out.contains('\u{1b}'), "{done:#?}");
    assert!(!refused(&["train"]).contains('\u{1b}'));
}

#[test]
fn unknown_names_get_the_nearest() {
    insta::assert_snapshot!("unknown_recipe", refused(&["recipe", "show", "quickstrat"]));
    let error = refused(&["study", "quickstrat"]);
    assert!(error.contains("did you mean `quickstart`?"), "{error}");
    let error = refused(&["trian", "quickstart"]);
    assert!(error.contains("'train'"), "{error}");
}

#[test]
fn every_fault_of_a_recipe_is_said_at_once_with_its_line() {
    let folder = scratch();
    let file = at(&folder, "mine.toml");
    let text = ok(&["recipe", "show", "lundnet5-w"])
        .out
        .replace("seed = 1", "sede = 1")
        .replace("radius = 1.0", "radius = \"large\"")
        .replace("batch_size = 64", "batch_sise = 64")
        .replace("kind = \"adam\"", "kind = \"adamant\"");
    std::fs::write(&file, text).unwrap();
    let error = refused(&["recipe", "check", &file]);
    insta::assert_snapshot!("recipe_faults", stable(&error, folder.path()));
    assert_eq!(refused(&["train", &file]), error, "`train` says the same");
    std::fs::write(&file, "format = \"jetgraft-recipe/1\"\nkind = \"train\nname = 3\n").unwrap();
    insta::assert_snapshot!("recipe_no_toml", stable(&refused(&["recipe", "check", &file]), folder.path()));
    let text = ok(&["recipe", "show", "quickstart"])
        .out
        .replace("sizes = [50, 200, 700]", "sizes = [200, 50]")
        .replace("seeds = 5", "seeds = 1")
        .replace("share = [0.4, 1.0]", "share = [0.4, 1.2]");
    std::fs::write(&file, text).unwrap();
    insta::assert_snapshot!("recipe_misfits", stable(&refused(&["recipe", "check", &file]), folder.path()));
}

#[test]
fn changes_on_the_command_line() {
    let done =
        ok(&["recipe", "check", "lundnet5-w", "--set", "train.budget.epochs=3", "--set", "title=two words"]);
    assert!(done.out.contains("epochs = 3") && done.out.contains("title = \"two words\""), "{}", done.out);
    for (name, change) in [
        ("set_no_value", "train.batch_size"),
        ("set_unknown_key", "train.batchsize=3"),
        ("set_wrong_type", "train.batch_size=many"),
        ("set_through_a_value", "name.first=x"),
        ("set_zero", "train.batch_size=0"),
        ("set_kind", "kind=study"),
    ] {
        insta::assert_snapshot!(name, refused(&["recipe", "check", "lundnet5-w", "--set", change]));
    }
    for (name, change) in [
        ("input_of_another_kind", "input={kind=\"particles\", features=\"kin\"}"),
        ("input_unknown_kind", "input={kind=\"pixels\"}"),
        ("input_unknown_set", "input={kind=\"particles\", features=\"kim\"}"),
        ("input_without_constituents", "input={kind=\"particles\", features=\"kin\", max_constituents=0}"),
        ("input_variable_twice", "input={kind=\"high-level\", variables=[\"mass\", \"mass\"]}"),
    ] {
        insta::assert_snapshot!(name, refused(&["recipe", "check", "lundnet5-w", "--set", change]));
    }
    insta::assert_snapshot!("published_asks_for_its_file", refused(&["study", "published-w-to-top"]));
}

#[test]
fn a_file_that_is_not_there_says_where_it_was_sought() {
    let folder = scratch();
    let out = at(&folder, "run");
    let error = refused(&["train", "lundnet5-w", "--out", &out, "--set", "task.files=[\"nowhere.parquet\"]"]);
    assert!(error.contains("nowhere.parquet") && error.contains("tried:"), "{error}");
}

/// A reader that goes away (`| head -n 1`) is no error.
#[test]
fn a_broken_pipe_is_no_error() {
    for args in [
        &["recipe", "show", "quickstart"][..],
        &["inspect", JETS, "--json"],
        &["--help"],
        &["recipe", "list"],
    ] {
        let mut child = program(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}
