//! Every kind of input on its way from a recipe's task to a card, and back from the card to the same graphs.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panicking and log to stderr")]

mod common;

use jetgraft::recipe::{LoadedRecipe, Recipe};
use jetgraft::task::{self, Task};
use jetgraft_data::{
    HighLevelInput, InputSpec, JetQuery, LundInput, OnBad, ParticleFeatures, ParticleInput, load_jets,
};
use jetgraft_learn::card::InputCard;

const SELECT: &str = "jet_pt > 700 and jet_pt < 720";

fn load(input: &InputSpec, changes: &[&str]) -> jetgraft::Result<Task> {
    let mut all = vec![format!("task.select=\"{SELECT}\"")];
    all.extend(changes.iter().map(ToString::to_string));
    let loaded = LoadedRecipe::load("lundnet5-w", &all).unwrap();
    let Recipe::Train(recipe) = &loaded.recipe else { panic!("a study") };
    task::load(&loaded, &recipe.task, input)
}

#[test]
fn a_card_makes_the_graphs_of_its_task() {
    for (input, nodes, scaled) in [
        (InputSpec::Lund(LundInput::default()), "declusterings", false),
        (InputSpec::Particles(ParticleInput::default()), "constituents", false),
        (InputSpec::HighLevel(HighLevelInput::default()), "sets of variables", true),
    ] {
        let mut task = load(&input, &[]).unwrap();
        assert_eq!(task.record.nodes, nodes);
        assert_eq!(task.record.input, input.describe());
        assert_eq!(task.record.ledger.used as usize, task.graphs.len());
        let raw = task.graphs.clone();
        let scale = task.learn_scale(&input).unwrap();
        assert_eq!(scale.is_some(), scaled);
        task.rescale(scale.as_ref()).unwrap();
        assert_eq!(task.graphs.features != raw.features, scaled);
        // The scale is learnt on the training jets: there, half of each feature lies below zero.
        if let Some(scale) = &scale {
            assert_eq!(scale.nodes as usize, task.rows.train.len());
            let width = raw.n_features();
            for feature in 0..width {
                let value = |row: &&usize| task.graphs.features[**row * width + feature];
                let below = task.rows.train.iter().filter(|row| value(row) < 0.0).count();
                assert!(2 * below <= task.rows.train.len());
            }
        }
        let text = serde_json::to_string(&InputCard::new(input.clone(), scale)).unwrap();
        let card: InputCard = serde_json::from_str(&text).unwrap();
        let names: Vec<&str> = card.features.iter().map(|feature| feature.name.as_str()).collect();
        assert_eq!(task.graphs.feature_names, names);
        // As `predict` does it, without classes.
        let query = JetQuery {
            selection: Some(SELECT.into()),
            extras: card.spec.extras(),
            ..JetQuery::new([common::root().join(common::JETS)], vec![])
        };
        let (graphs, _) = card.graphs(&load_jets(&query).unwrap().0, OnBad::Drop).unwrap();
        let mut found = 0;
        for row in 0..task.graphs.len() {
            let twins = (0..graphs.len()).filter(|other| {
                graphs.event_id[*other] == task.graphs.event_id[row]
                    && graphs.jet_pt_gev[*other] == task.graphs.jet_pt_gev[row]
            });
            for other in twins {
                assert_eq!(graphs.select(&[other]).features, task.graphs.select(&[row]).features);
                found += 1;
            }
        }
        assert_eq!(found, task.graphs.len());
    }
}

#[test]
fn what_a_file_lacks_is_said() {
    let input = InputSpec::Particles(ParticleInput {
        features: ParticleFeatures::KinPid,
        ..ParticleInput::default()
    });
    let error = load(&input, &[]).unwrap_err().to_string();
    assert!(error.contains("`part_charge`") && error.contains("features = \"kin\""), "{error}");
}

/// Charge and kind from particle numbers, and a jet file with both, through a recipe's task.
#[test]
fn particle_numbers_through_a_task() {
    let Some(file) = common::shared("data/jets.parquet") else { return };
    let input = InputSpec::Particles(ParticleInput {
        features: ParticleFeatures::KinPid,
        ..ParticleInput::default()
    });
    let files = format!("task.files=[\"{}\"]", file.display());
    let task = load(&input, &[&files, "task.select=\"jet_pt > 700 and jet_pt < 705\""]).unwrap();
    let graphs = &task.graphs;
    assert!(graphs.len() > 100 && task.record.ledger.dropped_total() > 0);
    for node in graphs.features.chunks(13) {
        assert!([-1.0, 0.0, 1.0].contains(&node[5]), "{node:?}");
        assert_eq!(node[6..11].iter().sum::<f32>(), 1.0, "{node:?}");
        assert_eq!(node[5] == 0.0, node[7] + node[8] == 1.0, "{node:?}");
    }
}

/// `--set` that turns a shipped LundNet recipe into one of another network and input.
fn turned(model: &str, input: &str) -> [String; 4] {
    ["--set".into(), format!("model={model}"), "--set".into(), format!("input={input}")]
}

const NETWORKS: [(&str, &str, &str); 6] = [
    ("lundnet", "{kind=\"lundnet\"}", "{kind=\"lund\", features=\"lundnet-3\", ln_kt_min=0.0}"),
    (
        "particlenet",
        "{kind=\"particlenet-lite\"}",
        "{kind=\"particles\", features=\"kin\", max_constituents=24}",
    ),
    ("particle-transformer", "{kind=\"particle-transformer\"}", "{kind=\"particles\", features=\"kin\"}"),
    ("pfn", "{kind=\"pfn\"}", "{kind=\"particles\", features=\"flow\"}"),
    ("efn", "{kind=\"efn\"}", "{kind=\"particles\", features=\"directions\"}"),
    ("mlp", "{kind=\"mlp\"}", "{kind=\"high-level\"}"),
];

/// Two steps of training, then the same scores from the run folder alone.
#[test]
fn every_input_trains_and_predicts() {
    let folder = common::scratch();
    for (name, model, input) in NETWORKS {
        let out = common::at(&folder, name);
        let own = turned(model, input);
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let tiny: Vec<&str> = common::TINY_TRAIN
            .chunks(2)
            .filter(|pair| !pair[1].starts_with("input."))
            .flatten()
            .copied()
            .collect();
        common::ok(&common::with(&["train", "lundnet5-w", "--out", &out], &[&own, &tiny]));
        let scores = format!("{out}/scores.parquet");
        common::ok(&["predict", &out, common::JETS, "-o", &scores, "--select", "jet_pt > 1000"]);
        let read = |path: &str| jetgraft_data::read_scores(std::path::Path::new(path)).unwrap();
        let (all, test) = (read(&scores), read(&format!("{out}/run/predictions.parquet")));
        assert!(test.event_id.len() > 5);
        let logits = |of: &jetgraft_data::Scores, row: usize| of.logits[2 * row..2 * row + 2].to_vec();
        for row in 0..test.event_id.len() {
            let twin = (0..all.event_id.len())
                .find(|at| {
                    all.event_id[*at] == test.event_id[row] && all.jet_pt_gev[*at] == test.jet_pt_gev[row]
                })
                .unwrap();
            for (a, b) in logits(&test, row).iter().zip(logits(&all, twin)) {
                assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{name}: {a} {b}");
            }
        }
    }
}

/// A study on variables: one scale for source and cells, and no Lund plane.
#[test]
fn a_study_without_trees() {
    let folder = common::scratch();
    let out = common::at(&folder, "study");
    let own = turned("{kind=\"mlp\", hidden=[8]}", "{kind=\"high-level\", variables=[\"mass\", \"tau21\"]}");
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let tiny = |list: &'static [&'static str]| -> Vec<&'static str> {
        let pairs = list.chunks(2).filter(|pair| !pair[1].starts_with("input."));
        pairs.flatten().copied().collect()
    };
    let (study, source) = (tiny(common::TINY_STUDY), tiny(common::TINY_SOURCE));
    let plans = "study.plans=[{name=\"scratch\", kind=\"scratch\"}, {name=\"tuned\", kind=\"fine-tune\"}]";
    common::ok(&common::with(
        &["study", "quickstart", "--out", &out],
        &[&own, &study, &source, &["--set", plans]],
    ));
    assert!(!std::path::Path::new(&format!("{out}/summary/lund_plane.json")).exists());
    let page = std::fs::read_to_string(format!("{out}/report.html")).unwrap();
    assert!(!page.contains("Lund") && page.contains("multi-layer perceptron learnt on"), "no word of trees");
    let cards = common::files_below(std::path::Path::new(&out));
    let scales: Vec<serde_json::Value> = cards
        .iter()
        .filter(|file| file.ends_with("card.json"))
        .map(|file| common::json(&std::fs::read_to_string(file).unwrap())["input"]["standardisation"].clone())
        .collect();
    assert!(scales.len() > 4 && scales[0].is_object());
    assert!(scales.iter().all(|scale| *scale == scales[0]));
}
