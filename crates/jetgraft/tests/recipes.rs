//! The shipped recipes: each is valid, says all its defaults, and runs.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{TINY_SOURCE, TINY_STUDY, TINY_TRAIN, at, ok, run, scratch, shared, with};

/// The weights that a shipped recipe asks for.
fn weights(name: &str) -> Option<&'static str> {
    match name {
        "published-w-to-top" => Some("published/lundnet/W_QCD_500GeV_LundNet5_state.pt"),
        "published-top-to-decayed" => Some("published/lundnet/Top_QCD_500GeV_LundNet5_state.pt"),
        _ => None,
    }
}

fn names() -> Vec<String> {
    let list = ok(&["recipe", "list"]).out;
    list.lines().map(|line| line.split_whitespace().next().unwrap().to_string()).collect()
}

#[test]
fn every_recipe_in_the_folder_is_shipped() {
    let mut files: Vec<String> = common::files_below(&common::root().join("recipes"))
        .iter()
        .map(|file| file.file_stem().unwrap().to_str().unwrap().to_string())
        .collect();
    let mut shipped = names();
    files.sort();
    shipped.sort();
    assert_eq!(files, shipped);
}

/// The header of every recipe says what it needs, how it is run, how long it takes and what it shows.
#[test]
fn headers_are_complete() {
    for name in names() {
        let text = ok(&["recipe", "show", &name]).out;
        for word in ["# Needs:", "# Command:", "# Takes:", "# Shows:"] {
            assert!(text.contains(word), "{name}: no line `{word}`");
        }
        assert!(text.contains(&format!("name = \"{name}\"")), "{name} has another name inside");
    }
}

/// The keys of `[train]` that no shipped recipe uses.
#[test]
fn ways_of_training_resolve_and_misfits_are_refused() {
    let folder = scratch();
    let check = |changes: &[&str]| {
        let mut args = vec!["recipe", "check", "lundnet5-w"];
        args.extend(changes.iter().flat_map(|change| ["--set", change]));
        run(&args)
    };
    let done = check(&[
        "train.accumulate=4",
        "train.optimiser={kind=\"ranger\",weight_decay=0.01}",
        "train.weight_decay_on=matrices",
        "train.ema={decay=0.99}",
        "train.schedule={kind=\"flat-decay\",groups=\"weaver\"}",
        "train.loss={kind=\"focal\",alpha=0.25}",
    ]);
    assert_eq!(done.status, Some(0), "{}", done.err);
    for line in ["fast_share = 0.5", "running_statistics = \"copy\"", "decay_share = 0.3", "gamma = 2.0"] {
        assert!(done.out.contains(line), "{line} in {}", done.out);
    }
    let file = at(&folder, "resolved.toml");
    std::fs::write(&file, &done.out).unwrap();
    assert_eq!(ok(&["recipe", "check", &file]).out, done.out);
    for (change, words) in [
        ("train.weight_decay_on=matrices", "`weight_decay_on` is matrices, expected `all`"),
        ("train.loss={kind=\"focal\",label_smoothing=0.1}", "label_smoothing"),
        ("train.ema={decay=2}", "`ema.decay` is 2"),
        ("train.accumulate=0", "`accumulate` is 0"),
    ] {
        let done = check(&[change]);
        assert!(done.status == Some(1) && done.err.contains(words), "{change}: {}", done.err);
    }
}

/// A resolved recipe has no default left: read and resolved again it is the same text.
#[test]
fn resolved_recipes_are_recipes() {
    let folder = scratch();
    for name in names() {
        let change = "source.weights.file=weights.pt";
        let mut args = vec!["recipe", "check", &name];
        if weights(&name).is_some() {
            args.extend(["--set", change]);
        }
        let resolved = ok(&args).out;
        let file = at(&folder, "resolved.toml");
        std::fs::write(&file, &resolved).unwrap();
        assert_eq!(ok(&["recipe", "check", &file]).out, resolved, "{name}");
    }
}

#[test]
fn every_recipe_runs_two_steps() {
    let folder = scratch();
    for name in names() {
        let out = at(&folder, &name);
        let kind = ok(&["recipe", "show", &name]).out;
        if kind.contains("kind = \"train\"") {
            ok(&with(&["train", &name, "--out", &out], &[TINY_TRAIN]));
            continue;
        }
        let mut args = vec!["study".to_string(), name.clone(), "--out".to_string(), out.clone()];
        match weights(&name) {
            // The published networks were trained without a cut on kt; so is the target then.
            Some(file) => {
                let Some(file) = shared(file) else { continue };
                args.extend(["--set".into(), format!("source.weights.file={}", file.display())]);
                let changes = TINY_STUDY.chunks(2).filter(|pair| !pair[1].starts_with("input."));
                args.extend(changes.flatten().map(ToString::to_string));
                args.extend(["--set".into(), "target.select=\"jet_pt > 1000\"".into()]);
            }
            None => args.extend(TINY_STUDY.iter().chain(TINY_SOURCE).map(ToString::to_string)),
        }
        if kind.contains("probe_epochs") {
            let at =
                kind.split("[[study.plans]]").skip(1).position(|plan| plan.contains("probe_epochs")).unwrap();
            args.extend(["--set".into(), format!("study.plans.{at}.probe_epochs=1")]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let done = ok(&args);
        assert!(done.out.contains("scratch"), "{done:#?}");
        assert!(std::path::Path::new(&out).join("report.html").is_file());
    }
}
