//! The published LundNet weights, imported, on jets made as theirs were (and on jets that were not): accuracy and AUC
//! agree with an independent float64 PyTorch evaluation of the same weights on the same jets.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panicking and log to stderr")]

mod common;

use common::{at, json, ok, scratch, shared};

/// File, network, process of the signal; AUC and accuracy of the independent evaluation.
const TAGGERS: &[(&str, &str, &str, f64, f64)] = &[
    ("Top_QCD_500GeV_LundNet5_state.pt", "lundnet-5", "process == 2", 0.9842, 0.9596),
    ("Top_QCD_500GeV_LundNet3_state.pt", "lundnet-3", "process == 2", 0.9792, 0.9452),
    ("W_QCD_500GeV_LundNet5_state.pt", "lundnet-5", "process == 1", 0.9272, 0.8777),
    ("W_QCD_500GeV_LundNet3_state.pt", "lundnet-3", "process == 1", 0.9242, 0.8763),
];

/// Statistical error of the AUC of the independent evaluation; its accuracy has about twice that.
const AUC_BOUND: f64 = 0.003;
const ACCURACY_BOUND: f64 = 0.006;

#[test]
fn published_taggers_score_as_elsewhere() {
    let Some(jets) = shared("data/jets_lundnet_style.parquet") else { return };
    let jets = jets.to_str().unwrap();
    let folder = scratch();
    for (file, network, signal, auc, accuracy) in TAGGERS {
        let Some(weights) = shared(&format!("published/lundnet/{file}")) else { return };
        let (run, scores) = (at(&folder, file), at(&folder, "scores.parquet"));
        let imported = ok(&["import", weights.to_str().unwrap(), "-o", &run, "--as", network]);
        assert!(imported.err.contains("known weights"), "{imported:#?}");
        assert!(imported.out.contains("graft"), "{imported:#?}");
        ok(&["predict", &run, jets, "-o", &scores, "--signal", signal, "--background", "process == 0"]);
        let evaluation = json(&ok(&["evaluate", "--json", "--run", &run, &scores]).out);
        let found = &evaluation[0];
        let value = |key: &str| found[key]["value"].as_f64().unwrap();
        eprintln!(
            "{file}: AUC {:.4} (elsewhere {auc}), accuracy {:.4} ({accuracy}), jets {}",
            value("auc"),
            value("accuracy"),
            found["jets"]
        );
        assert!((value("auc") - auc).abs() <= AUC_BOUND, "{file}: AUC {}", value("auc"));
        assert!(
            (value("accuracy") - accuracy).abs() <= ACCURACY_BOUND,
            "{file}: accuracy {}",
            value("accuracy")
        );
        // The authors' own numbers stand beside.
        assert!(found["published"]["auc"].as_f64().is_some(), "{found}");
        let table = ok(&["evaluate", "--run", &run, &scores]).out;
        assert!(table.contains("published: ") && table.contains("Published numbers: "), "{table}");
    }
}

/// The domain shift: on jets whose hadrons decayed, the top tagger loses.
#[test]
fn a_top_tagger_of_stable_b_hadrons_loses_on_decayed_ones() {
    let Some(jets) = shared("data/jets.parquet") else { return };
    let Some(weights) = shared("published/lundnet/Top_QCD_500GeV_LundNet5_state.pt") else { return };
    let folder = scratch();
    let (run, scores) = (at(&folder, "top"), at(&folder, "scores.parquet"));
    ok(&["import", weights.to_str().unwrap(), "-o", &run, "--as", "lundnet-5"]);
    // A slice in phi is a sample that knows nothing of the classes.
    let slice = "jet_phi > 0.0 and jet_phi < 0.4";
    ok(&[
        "predict",
        &run,
        jets.to_str().unwrap(),
        "-o",
        &scores,
        "--select",
        slice,
        "--signal",
        "process == 2",
        "--background",
        "process == 0",
    ]);
    let evaluation = json(&ok(&["evaluate", "--json", &scores]).out);
    let auc = evaluation[0]["auc"]["value"].as_f64().unwrap();
    eprintln!("AUC {auc:.4} (elsewhere 0.914 on other jets), jets {}", evaluation[0]["jets"]);
    assert!((auc - 0.914).abs() < 0.02, "AUC {auc}");
}
