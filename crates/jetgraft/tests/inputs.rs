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
