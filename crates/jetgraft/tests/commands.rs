//! The commands one by one, as the quick start and a user's first hour go: what is written, in which columns, in which order.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{JETS, PARTICLES, TINY_TRAIN, at, json, ok, refused, scratch, tiny_run, tiny_study, with};
use jetgraft_data::jets::{JetQuery, load_jets};
use jetgraft_data::writer::{Scores, read_scores};

/// Names of the columns of a file, in order, as `inspect` says them.
fn columns(path: &str) -> Vec<String> {
    let report = json(&ok(&["inspect", "--json", path]).out);
    report[0]["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap().to_string())
        .collect()
}

#[test]
fn inspect_says_what_is_in_the_sample() {
    let done = ok(&["inspect", JETS, PARTICLES]);
    assert!(done.err.is_empty(), "{done:#?}");
    insta::assert_snapshot!("inspect", done.out);
    let both = json(&ok(&["inspect", "--json", JETS, PARTICLES]).out);
    assert_eq!((both[0]["rows"].as_u64(), both[0]["events"].as_u64()), (Some(13_381), Some(8_116)));
    assert_eq!(both[1]["rows"], 60);
    assert!(both[0]["recipe"].as_str().unwrap().contains("kind = \"train\""));
}

/// What `inspect` proposes is a recipe: it passes `recipe check` as it stands, and it trains.
#[test]
fn the_recipe_that_inspect_proposes_works() {
    let folder = scratch();
    let jets = at(&folder, "odd name (1).parquet");
    std::fs::copy(common::root().join(JETS), &jets).unwrap();
    for file in [JETS, PARTICLES, &jets] {
        let report = json(&ok(&["inspect", "--json", file]).out);
        let recipe = at(&folder, "proposed.toml");
        std::fs::write(&recipe, report[0]["recipe"].as_str().unwrap()).unwrap();
        ok(&["recipe", "check", &recipe]);
        // What `inspect` prints for people is the same recipe, with the rest of its words above it.
        assert!(ok(&["inspect", file]).out.contains(report[0]["recipe"].as_str().unwrap()));
    }
    let recipe = at(&folder, "mine.toml");
    let text = json(&ok(&["inspect", "--json", JETS]).out)[0]["recipe"].as_str().unwrap().to_string();
    std::fs::write(&recipe, text.replace("process_0", "QCD").replace("process_1", "W")).unwrap();
    let out = at(&folder, "run");
    let done = ok(&with(&["train", &recipe, "--out", &out], &[TINY_TRAIN]));
    assert!(done.out.contains(" QCD + "), "{done:#?}");
}

/// Columns with other names than ours are mapped in the proposal, and the mapped recipe reads the same jets.
#[test]
fn inspect_maps_columns_of_other_names() {
    let folder = scratch();
    let file = at(&folder, "clustered.parquet");
    ok(&["cluster", PARTICLES, "-o", &file, "--algorithm", "antikt", "--radius", "1.0", "--pt-min", "50"]);
    let lund = at(&folder, "lund.parquet");
    ok(&["lund", &file, "-o", &lund]);
    // A file of trees has no constituents: the proposal says which columns it did not find.
    let report = json(&ok(&["inspect", "--json", &lund]).out);
    let recipe = report[0]["recipe"].as_str().unwrap();
    assert!(recipe.contains("# No column was found for ") && recipe.contains("part_energy"), "{recipe}");
}

#[test]
fn cluster_writes_jets_that_other_commands_read() {
    let folder = scratch();
    let jets = at(&folder, "jets.parquet");
    let args =
        ["cluster", PARTICLES, "-o", &jets, "--algorithm", "antikt", "--radius", "0.4", "--pt-min", "20"];
    let done = ok(&args);
    assert!(done.out.is_empty() && done.err.contains("60 read = 60 used"), "{done:#?}");
    assert_eq!(
        columns(&jets),
        [
            "event_id",
            "jet_index",
            "jet_pt",
            "jet_eta",
            "jet_phi",
            "jet_mass",
            "part_pt",
            "part_deta",
            "part_dphi",
            "part_energy"
        ]
    );
    let (read, ledger, _) = load_jets(&JetQuery::new([&jets], Vec::new())).unwrap();
    assert_eq!(ledger.read, ledger.used);
    for jet in 0..read.len() {
        assert!(read.jet_pt_gev[jet] >= 20.0);
        let constituents = &read.constituents[read.offsets[jet]..read.offsets[jet + 1]];
        let sum: jetgraft_physics::FourMomentum = constituents.iter().copied().sum();
        assert!((sum.pt() / read.jet_pt_gev[jet] - 1.0).abs() < 1e-9, "the constituents sum to the jet");
        assert!(constituents.windows(2).all(|pair| pair[0].pt() >= pair[1].pt()), "hardest first");
        if read.jet_index[jet] > 0 {
            assert_eq!(read.event_id[jet], read.event_id[jet - 1]);
            assert!(read.jet_pt_gev[jet] <= read.jet_pt_gev[jet - 1], "jets of an event fall in pt");
        }
    }
    let first = std::fs::read(&jets).unwrap();
    ok(&args);
    assert_eq!(std::fs::read(&jets).unwrap(), first, "the same bytes again");
    // Cuts cut.
    ok(&with(&args, &[&["--abs-eta-max", "1.0", "--jets-max", "1"]]));
    let (few, _, _) = load_jets(&JetQuery::new([&jets], Vec::new())).unwrap();
    assert!(few.len() < read.len() && few.jet_index.iter().all(|index| *index == 0));
    assert!(few.jet_eta.iter().all(|eta| eta.abs() <= 1.0));
    // Every jet of another algorithm is there too.
    for algorithm in ["cambridge", "kt"] {
        ok(&["cluster", PARTICLES, "-o", &jets, "--algorithm", algorithm, "--radius", "0.8"]);
    }
}

#[test]
fn lund_writes_trees_in_the_order_of_the_jets() {
    let folder = scratch();
    let out = at(&folder, "lund.parquet");
    let done = ok(&["lund", JETS, "-o", &out, "--select", "jet_pt > 1000", "--ln-kt-min", "0"]);
    assert!(done.err.contains("13381 read = "), "{done:#?}");
    assert_eq!(
        columns(&out),
        ["event_id", "jet_index", "jet_pt", "jet_mass", "ln_z", "ln_delta", "psi", "ln_m", "ln_kt", "parent"]
    );
    let (jets, _, _) = load_jets(&JetQuery {
        selection: Some("jet_pt > 1000".into()),
        ..JetQuery::new([common::root().join(JETS)], vec![])
    })
    .unwrap();
    let report = json(&ok(&["inspect", "--json", &out]).out);
    let column = |name: &str| {
        let all = report[0]["columns"].as_array().unwrap();
        all.iter().find(|column| column["name"] == name).unwrap().clone()
    };
    assert_eq!(report[0]["rows"].as_u64().unwrap() as usize, jets.len());
    assert!(column("ln_kt")["min"].as_f64().unwrap() >= 0.0);
    assert_eq!(column("parent")["min"].as_f64(), Some(-1.0));
    // LundNet's psi lies in -pi/2..pi/2, the other in -pi..pi.
    assert!(column("psi")["max"].as_f64().unwrap() <= std::f64::consts::FRAC_PI_2 + 1e-6);
    ok(&["lund", JETS, "-o", &out, "--select", "jet_pt > 1000", "--psi", "atan2"]);
    let report = json(&ok(&["inspect", "--json", &out]).out);
    let psi = report[0]["columns"]
        .as_array()
        .unwrap()
        .iter()
        .find(|column| column["name"] == "psi")
        .unwrap()
        .clone();
    assert!(psi["max"].as_f64().unwrap() > std::f64::consts::FRAC_PI_2);
}

const SIGNAL: &[&str] = &["--signal", "process == 1", "--background", "process == 0"];

fn scores(path: &str) -> Scores {
    read_scores(Path::new(path)).unwrap()
}

#[test]
fn train_predict_evaluate_compare_report_export() {
    let folder = scratch();
    let (run, other) = (at(&folder, "w"), at(&folder, "other"));
    let done = tiny_run(&run);
    assert!(done.out.contains("accuracy") && done.err.contains("graft: scratch"), "{done:#?}");
    let json_out = json(
        &ok(&with(&["train", "lundnet5-w", "--out", &other, "--seed", "2", "--json"], &[TINY_TRAIN])).out,
    );
    assert!(json_out["auc"]["value"].as_f64().is_some(), "{json_out}");
    let names: Vec<String> = common::files_below(Path::new(&run))
        .iter()
        .map(|file| file.strip_prefix(&run).unwrap().to_str().unwrap().to_string())
        .collect();
    assert_eq!(
        names,
        [
            "recipe.resolved.toml",
            "recipe.toml",
            "run/MANIFEST",
            "run/card.json",
            "run/graft.json",
            "run/log.jsonl",
            "run/predictions.parquet",
            "run/recipe.resolved.toml",
            "run/recipe.toml",
            "run/run.json",
            "run/weights.safetensors"
        ]
    );
    let record = json(&std::fs::read_to_string(Path::new(&run).join("run/run.json")).unwrap());
    let ledger = &record["task"]["ledger"];
    let dropped: u64 =
        ledger["dropped"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(ledger["read"].as_u64().unwrap(), ledger["used"].as_u64().unwrap() + dropped);
    assert_eq!(ledger["read"], 13_381);

    // Scores: columns, order of the input, labels.
    let file = at(&folder, "scores.parquet");
    let select = "jet_pt > 1000 and (process == 0 or process == 1)";
    ok(&with(&["predict", &run, JETS, "-o", &file, "--select", select], &[SIGNAL]));
    let names = columns(&file);
    assert_eq!(names[..2], ["event_id", "label"]);
    for name in ["logit_QCD", "logit_W", "score_QCD", "score_W"] {
        assert!(names.contains(&name.to_string()), "{names:?}");
    }
    let (jets, _, _) = load_jets(&JetQuery {
        selection: Some(select.into()),
        ..JetQuery::new([common::root().join(JETS)], vec![])
    })
    .unwrap();
    let first = scores(&file);
    assert_eq!(first.event_id, jets.event_id, "in the order of the input");
    assert_eq!(first.classes, ["QCD", "W"]);
    // The event number says the process (bits 56 to 59).
    for (event, label) in first.event_id.iter().zip(&first.label) {
        assert_eq!((event >> 56) & 15, u64::from(*label));
    }
    assert!(first.logits.iter().all(|logit| logit.is_finite()));
    // The same bytes for another number of threads.
    let again = at(&folder, "again.parquet");
    ok(&with(&["predict", &run, JETS, "-o", &again, "--select", select, "--threads", "1"], &[SIGNAL]));
    assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&file).unwrap());
    // The run's own test jets get the same scores: what `train` stored is what `predict` says.
    let stored = scores(&format!("{run}/run/predictions.parquet"));
    let of = |scores: &Scores| -> BTreeMap<(u64, u32), Vec<u32>> {
        let bits = scores.logits.chunks(2).map(|pair| pair.iter().map(|logit| logit.to_bits()).collect());
        scores
            .event_id
            .iter()
            .zip(&scores.jet_pt_gev)
            .map(|(event, pt)| (*event, pt.to_bits()))
            .zip(bits)
            .collect()
    };
    let (stored, all) = (of(&stored), of(&first));
    assert!(!stored.is_empty());
    for (jet, logits) in &stored {
        assert_eq!(all.get(jet), Some(logits), "jet {jet:?}");
    }

    // Without classes there is no label, and `evaluate` says what to do.
    ok(&["predict", &run, JETS, "-o", &again, "--select", select]);
    let error = refused(&["evaluate", &again]);
    assert!(error.contains("no labels") && error.contains("--signal"), "{error}");
    let table = ok(&["evaluate", &file]).out;
    assert!(table.contains("AUC") && table.contains(&file), "{table}");
    let evaluation = json(&ok(&["evaluate", "--json", &file]).out);
    let auc = &evaluation[0]["auc"];
    assert!(
        auc["low"].as_f64() <= auc["value"].as_f64() && auc["value"].as_f64() <= auc["high"].as_f64(),
        "{auc}"
    );
    let counts: u64 = evaluation[0]["jets"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(counts as usize, jets.len());

    // Two runs on the same jets.
    let table = ok(&["compare", &run, &other]).out;
    assert!(table.contains("error reduction") && table.contains("McNemar"), "{table}");
    let comparison = json(&ok(&["compare", "--json", &run, &other]).out);
    assert_eq!(comparison["accuracy_difference"]["level"].as_f64(), Some(0.95));
    let same = json(&ok(&["compare", "--json", &run, &run]).out);
    assert_eq!(same["accuracy_difference"]["value"].as_f64(), Some(0.0));
    let elsewhere = at(&folder, "elsewhere");
    ok(&with(
        &["train", "lundnet5-w", "--out", &elsewhere],
        &[TINY_TRAIN, &["--set", "task.select=\"jet_pt > 1100\""]],
    ));
    let error = refused(&["compare", &run, &elsewhere]);
    assert!(error.contains("different jets"), "{error}");

    // The page.
    let page = at(&folder, "page");
    ok(&["report", &run, &other, "-o", &page]);
    check_page(Path::new(&page));
    ok(&["report", &run]);
    check_page(Path::new(&run));
    // A report beside a run changes nothing in it.
    ok(&["predict", &run, JETS, "-o", &again, "--select", select]);

    // Weights for PyTorch, and back again.
    let weights = at(&folder, "w.safetensors");
    ok(&["export", &run, "-o", &weights]);
    let bytes = std::fs::read(&weights).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = json(std::str::from_utf8(&bytes[8..8 + length]).unwrap());
    insta::assert_snapshot!("export_names", {
        let mut lines: Vec<String> = header
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| *name != "__metadata__")
            .map(|(name, tensor)| format!("{name} {} {}", tensor["dtype"].as_str().unwrap(), tensor["shape"]))
            .collect();
        lines.sort();
        lines.join("\n")
    });
    // The whole network for ONNX Runtime.
    let network = at(&folder, "w.onnx");
    let done = ok(&["export", &run, "-o", &network]);
    assert!(done.err.contains("features [batch, declusterings, 5]"), "{done:#?}");
    let file = jetgraft_nn::export::onnx::describe(&std::fs::read(&network).unwrap()).unwrap();
    let text =
        |key: &str| file.metadata.iter().find(|(name, _)| name == key).map(|(_, text)| text.clone()).unwrap();
    assert_eq!(json(&text("classes")), serde_json::json!(["QCD", "W"]));
    assert_eq!(json(&text("jetgraft_card"))["backbone"]["kind"], "lundnet");
    let other_name = at(&folder, "w.network");
    ok(&["export", &run, "-o", &other_name, "--format", "onnx"]);
    assert_eq!(std::fs::read(&other_name).unwrap(), std::fs::read(&network).unwrap());
    let nothing = at(&folder, "nothing.pt");
    let error = refused(&["export", &run, "-o", &nothing]);
    assert!(error.contains("the ending .pt") && error.contains("--format"), "{error}");
    let error = refused(&["export", &run, "-o", &at(&folder, "n.onnx"), "--preprocessing"]);
    assert!(error.contains("reclustering") && error.contains("jetgraft lund"), "{error}");
    let error = refused(&["export", &run, "-o", &at(&folder, "n.safetensors"), "--preprocessing"]);
    assert!(error.contains("ONNX"), "{error}");
    let back = at(&folder, "back");
    let report = ok(&["import", &weights, "-o", &back, "--as", "lundnet-5", "--classes", "QCD,W"]).out;
    assert!(report.contains("391,724"), "{report}");
    assert_eq!(
        std::fs::read(format!("{back}/run/weights.safetensors")).unwrap(),
        std::fs::read(format!("{run}/run/weights.safetensors")).unwrap(),
        "export and import give the weights back bit by bit"
    );
    let error = refused(&["import", &weights, "-o", &back, "--as", "lundnet-5"]);
    assert!(error.contains("holds a run already"), "{error}");
    let error = refused(&["import", &weights, "-o", &at(&folder, "three"), "--as", "lundnet-3"]);
    assert!(error.contains("5 features") && error.contains("--as lundnet-5"), "{error}");
}

/// A page with its figures: SVG and PNG of each, nothing that is not a number, nothing from elsewhere.
fn check_page(folder: &Path) {
    let page = std::fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(page.contains("<svg"), "the figures are in the page");
    for outside in ["src=\"http", "href=\"http://", "<script src", "url(http"] {
        assert!(!page.contains(outside), "the page is self-contained: {outside}");
    }
    let mut figures = 0;
    for file in common::files_below(&folder.join("figures")) {
        let extension = file.extension().unwrap().to_str().unwrap();
        match extension {
            "svg" => {
                figures += 1;
                let text = std::fs::read_to_string(&file).unwrap();
                assert!(
                    !text.contains("NaN") && !text.contains("inf\"") && !text.contains("inf "),
                    "{}",
                    file.display()
                );
                assert!(file.with_extension("png").is_file(), "{}", file.display());
            }
            "png" => assert!(std::fs::read(&file).unwrap().starts_with(b"\x89PNG"), "{}", file.display()),
            _ => {}
        }
    }
    assert!(figures >= 2, "{figures} figures");
    assert!(!page.contains("NaN"), "a page shows numbers");
}

#[test]
fn a_study_from_its_recipe_to_its_page() {
    let folder = scratch();
    let out = at(&folder, "study");
    let done = tiny_study(&out);
    for word in ["scratch", "fine-tune", "frozen", "error reduction", "label factor"] {
        assert!(done.out.contains(word), "{word}: {}", done.out);
    }
    assert!(!done.out.contains("NaN"), "{}", done.out);
    check_page(Path::new(&out));
    let cells: Vec<_> = std::fs::read_dir(format!("{out}/cells")).unwrap().collect();
    assert_eq!(cells.len(), 3 * 2 * 2, "plans x sizes x seeds");
    for name in ["table.csv", "cells.csv", "roc.csv", "history.csv"] {
        let text = std::fs::read_to_string(format!("{out}/summary/{name}")).unwrap();
        let width = text.lines().next().unwrap().split(',').count();
        assert!(text.lines().count() > 1 && width > 2, "{name}");
        assert!(text.lines().all(|line| line.split(',').count() == width), "{name}: ragged\n{text}");
        assert!(!text.contains("NaN"), "{name}");
    }
    // The same numbers without training anew, for people and for programs.
    let args =
        with(&["study", "quickstart", "--out", &out, "--resume"], &[common::TINY_STUDY, common::TINY_SOURCE]);
    let again = ok(&args);
    assert_eq!(again.out, done.out);
    let record = json(&ok(&with(&args, &[&["--json"]])).out);
    assert_eq!(record["sizes"], serde_json::json!([8, 16]));
    let page = at(&folder, "page");
    ok(&["report", &out, "-o", &page]);
    check_page(Path::new(&page));
    assert_eq!(
        std::fs::read(format!("{page}/report.html")).unwrap(),
        std::fs::read(format!("{out}/report.html")).unwrap(),
        "a report is a function of run folders"
    );
    let (one, two) = (format!("{out}/cells/scratch_n16_s0"), format!("{out}/cells/fine-tune_n16_s0"));
    assert!(ok(&["compare", &one, &two]).out.contains("AUC difference"));
    // The source of the study is a run like any other.
    ok(&["export", &format!("{out}/source"), "-o", &at(&folder, "source.safetensors")]);
    let error = refused(&["predict", &out, JETS, "-o", &at(&folder, "s.parquet")]);
    assert!(error.contains("this is a study"), "{error}");
    let error = refused(&["report", &out, &one]);
    assert!(error.contains("one study"), "{error}");
}

/// The quick start is the shipped recipe and nothing else: it takes the same folder up again.
#[test]
fn quickstart_is_the_recipe() {
    let folder = scratch();
    let out = at(&folder, "q");
    // A folder that holds the beginning of a study of the recipe as shipped.
    std::fs::create_dir_all(format!("{out}/cells")).unwrap();
    std::fs::write(format!("{out}/recipe.toml"), ok(&["recipe", "show", "quickstart"]).out).unwrap();
    std::fs::write(format!("{out}/recipe.resolved.toml"), ok(&["recipe", "check", "quickstart"]).out)
        .unwrap();
    let error = refused(&["quickstart", "--out", &out]);
    assert!(error.contains("holds a run already") && error.contains("--resume"), "{error}");
    let error = refused(&["quickstart", "--out", &out, "--resume", "--seed", "7"]);
    assert!(error.contains("another recipe") && error.contains("seed = 7"), "{error}");
}

#[test]
fn a_run_repeats_from_its_resolved_recipe() {
    let folder = scratch();
    let (first, second) = (at(&folder, "first"), at(&folder, "second"));
    tiny_run(&first);
    ok(&["train", &format!("{first}/recipe.resolved.toml"), "--out", &second, "--threads", "1"]);
    let weights = |run: &str| std::fs::read(format!("{run}/run/weights.safetensors")).unwrap();
    assert!(weights(&first) == weights(&second), "bit by bit, whatever the number of threads");
    let other = at(&folder, "other");
    ok(&with(&["train", "lundnet5-w", "--out", &other, "--seed", "2"], &[TINY_TRAIN]));
    assert!(weights(&first) != weights(&other), "the seed matters");
}

/// A network trained here is the source of the next, from scratch to every plan.
#[test]
fn train_grafts_from_a_run() {
    let folder = scratch();
    let source = at(&folder, "source");
    tiny_run(&source);
    let run = format!("source.run=\"{source}\"");
    for plan in [
        "plan={kind=\"fine-tune\"}",
        "plan={kind=\"frozen\"}",
        "plan={kind=\"frozen\", batch_norm=\"update\"}",
        "plan={kind=\"partial\", stages=2}",
        "plan={kind=\"probe-then-fine-tune\", probe_epochs=1}",
        "plan={kind=\"layer-wise-decay\", decay=0.5}",
    ] {
        let out = tempfile::tempdir_in(folder.path()).unwrap();
        let out = out.path().join("run").to_str().unwrap().to_string();
        let target = [
            "--set",
            &run,
            "--set",
            plan,
            "--set",
            "task.signal.when=\"process == 2\"",
            "--set",
            "task.signal.name=top",
        ];
        // The probe takes an epoch of about ten steps.
        let longer = ["--set", "train.budget={steps=14}", "--set", "train.evaluate_every={steps=7}"];
        let done = ok(&with(&["train", "lundnet5-w", "--out", &out], &[TINY_TRAIN, &target, &longer]));
        assert!(done.err.contains("graft: "), "{done:#?}");
        let card = json(&std::fs::read_to_string(format!("{out}/run/card.json")).unwrap());
        assert_eq!(card["classes"], serde_json::json!(["QCD", "top"]), "{plan}");
        assert_eq!(card["provenance"]["sources"].as_array().unwrap().len(), 1, "{plan}: {card}");
    }
    // A source that saw other quantities does not fit.
    let out = at(&folder, "misfit");
    let error = refused(&with(
        &["train", "lundnet5-w", "--out", &out, "--set", &run, "--set", "plan.kind=\"fine-tune\""],
        &[TINY_TRAIN, &["--set", "input.features=\"lundnet-3\""]],
    ));
    assert!(error.contains("lundnet") || error.contains("features"), "{error}");
}
