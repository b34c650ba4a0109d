//! Against stored answers of FastJet 3.5: jets, constituents, Lund trees, soft drop.
//!
//! Tolerances: momenta 1e-10 of the jet's energy, tree values 1e-8; both only allow for another order of rounding.
//! Event 0 holds exact ties, where more than one order of merging is right: its jets are compared, its tree is not.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may")]

use std::io::Read;
use std::path::Path;

use jetgraft_physics::FourMomentum;
use jetgraft_physics::cluster::{Algorithm, ClusterSequence, Jet, JetDefinition, Strategy};
use jetgraft_physics::groom::{SoftDrop, soft_drop};
use jetgraft_physics::lund::{LundCuts, PsiForm, Side, lund_tree};
use jetgraft_physics::substructure::{NSubjettiness, n_subjettiness_ratio};
use serde_json::Value;

fn events() -> Option<Vec<Value>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden/clustering.json.gz");
    if !Path::new(path).exists() {
        eprintln!("skipped: {path} not found");
        return None;
    }
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let mut golden: Value = serde_json::from_str(&text).unwrap();
    Some(serde_json::from_value(golden["events"].take()).unwrap())
}

fn momentum(value: &Value) -> FourMomentum {
    let [px, py, pz, energy]: [f64; 4] = serde_json::from_value(value.clone()).unwrap();
    FourMomentum::new(px, py, pz, energy)
}

fn momenta(value: &Value) -> Vec<FourMomentum> {
    value.as_array().unwrap().iter().map(momentum).collect()
}

fn numbers(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn close(ours: &FourMomentum, theirs: &FourMomentum, relative: f64) -> bool {
    let d = *ours - *theirs;
    [d.px, d.py, d.pz, d.energy].iter().all(|x| x.abs() <= relative * theirs.energy)
}

/// `relative` of the value, or of 1 if that is larger.
fn near(ours: f64, theirs: f64, relative: f64, what: &str) {
    assert!((ours - theirs).abs() <= relative * theirs.abs().max(1.0), "{what}: {ours} against {theirs}");
}

#[test]
fn jets_and_constituents() {
    let Some(events) = events() else { return };
    let mut jets_compared = 0;
    for (number, event) in events.iter().enumerate() {
        let particles = momenta(&event["particles"]);
        for clustering in event["clusterings"].as_array().unwrap() {
            let algorithm = match clustering["algorithm"].as_str().unwrap() {
                "antikt" => Algorithm::AntiKt,
                "cambridge" => Algorithm::CambridgeAachen,
                "kt" => Algorithm::Kt,
                other => panic!("{other}"),
            };
            let radius = clustering["R"].as_f64().unwrap();
            for strategy in [Strategy::Auto, Strategy::Naive, Strategy::Plain, Strategy::Tiled] {
                let definition = JetDefinition::new(algorithm, radius).unwrap().with_strategy(strategy);
                let what = format!("event {number}, {}, {strategy:?}", definition.describe());
                let sequence = ClusterSequence::new(&particles, &definition).unwrap();
                let constituents = |jet: &Jet| sequence.constituents(jet.node).unwrap();

                // The file holds the jets above 5 GeV.
                let ours = sequence.inclusive_jets(5.0);
                let theirs: Vec<_> = clustering["jets"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|jet| (numbers(&jet["constituents"]), momentum(&jet["p"])))
                    .collect();
                for (inside, p) in &theirs {
                    let same = ours.iter().find(|jet| constituents(jet) == *inside);
                    let Some(same) = same else { panic!("{what}: no jet of {inside:?}") };
                    assert!(close(&same.momentum, p, 1e-10), "{what}: {:?} against {p:?}", same.momentum);
                    jets_compared += 1;
                }
                assert_eq!(ours.len(), theirs.len(), "{what}");

                if let Some(expected) = clustering.get("exclusive_3").filter(|value| !value.is_null()) {
                    let mut expected: Vec<Vec<u32>> = serde_json::from_value(expected.clone()).unwrap();
                    let mut ours: Vec<_> =
                        sequence.exclusive_jets(3).unwrap().iter().map(constituents).collect();
                    ours.sort();
                    expected.sort();
                    if number != 0 {
                        assert_eq!(ours, expected, "{what}");
                    }
                    let d = clustering["exclusive_dmerge_3"].as_f64().unwrap();
                    if let Some(found) = sequence.exclusive_d_merge(3).filter(|_| number != 0) {
                        assert!((found - d).abs() <= 1e-10 * d, "{what}: {found} against {d}");
                        let mut cut: Vec<_> =
                            sequence.exclusive_jets_dcut(d * (1.0 + 1e-9)).iter().map(constituents).collect();
                        cut.sort();
                        assert!(cut.len() <= 3 && cut.iter().all(|jet| expected.contains(jet)), "{what}");
                    }
                }
            }
        }
    }
    assert!(jets_compared > 4 * 1500, "{jets_compared}");
}

#[test]
fn lund_trees() {
    let Some(events) = events() else { return };
    let mut splittings = 0;
    for (number, event) in events.iter().enumerate().skip(1) {
        let particles = momenta(&event["particles"]);
        let expected = &event["lund_tree"];
        let inside: Vec<_> =
            numbers(&expected["constituents"]).iter().map(|&i| particles[i as usize]).collect();
        let tree = lund_tree(&inside, &LundCuts::none()).unwrap();
        let nodes = expected["nodes"].as_array().unwrap();
        assert!(close(&tree.jet, &momentum(&expected["jet"]), 1e-10));
        assert_eq!(tree.nodes.len(), nodes.len(), "event {number}");
        for (index, (ours, theirs)) in tree.nodes.iter().zip(nodes).enumerate() {
            let what = |name: &str| format!("event {number}, node {index}, {name}");
            assert_eq!(ours.parent.map_or(-1, i64::from), theirs["parent"].as_i64().unwrap());
            let side = match theirs["side"].as_str().unwrap() {
                "root" => Side::Root,
                "harder" => Side::Harder,
                _ => Side::Softer,
            };
            assert_eq!(ours.side, side, "{}", what("side"));
            let (harder, softer) = (momentum(&theirs["harder"]), momentum(&theirs["softer"]));
            assert!(close(&ours.harder, &harder, 1e-10) && close(&ours.softer, &softer, 1e-10));
            let value = |name: &str| theirs[name].as_f64().unwrap();
            near(ours.delta, value("delta"), 1e-8, &what("delta"));
            near(ours.kt, value("kt"), 1e-8, &what("kt"));
            near(ours.z, value("z"), 1e-8, &what("z"));
            near(ours.psi(PsiForm::LundNet), value("psi_lundnet"), 1e-8, &what("psi_lundnet"));
            near(ours.psi(PsiForm::Atan2), value("psi_atan2"), 1e-8, &what("psi_atan2"));
            // The mass comes out of (E + pz)(E - pz) - pt^2, which rounds at the scale of E^2.
            let energy = (harder + softer).energy;
            let m2 = value("m2");
            assert!((ours.m2 - m2).abs() <= 1e-8 * m2.abs() + 1e-14 * energy * energy, "{}", what("m2"));
            // Logarithms follow from these.
            near(ours.ln_z, value("z").ln(), 1e-8, &what("ln_z"));
            near(ours.ln_delta, value("delta").max(1e-6).ln(), 1e-8, &what("ln_delta"));
            if value("delta") > 1e-6 {
                near(ours.ln_kt, value("kt").ln(), 1e-8, &what("ln_kt"));
            }
            near(ours.ln_m, 0.5 * ours.m2.abs().max(1e-16).ln(), 1e-13, &what("ln_m"));
            splittings += 1;
        }
    }
    assert!(splittings > 500, "{splittings}");
}

#[test]
fn groomed_jets() {
    let Some(events) = events() else { return };
    for (number, event) in events.iter().enumerate().skip(1) {
        let particles = momenta(&event["particles"]);
        let inside: Vec<_> =
            numbers(&event["lund_tree"]["constituents"]).iter().map(|&i| particles[i as usize]).collect();
        for expected in event["soft_drop"].as_array().unwrap() {
            let value = |name: &str| expected[name].as_f64().unwrap();
            let settings = SoftDrop { z_cut: value("zcut"), beta: value("beta"), r0: value("R0") };
            let groomed = soft_drop(&inside, &settings).unwrap();
            let what = format!("event {number}, {}", settings.describe());
            assert!(close(&groomed.momentum, &momentum(&expected["p"]), 1e-10), "{what}");
            let sum: FourMomentum = groomed.constituents.iter().map(|&i| inside[i as usize]).sum();
            assert!(close(&sum, &groomed.momentum, 1e-12), "{what}");
            match groomed.splitting {
                None => assert!(expected["split"].is_null(), "{what}"),
                Some(splitting) => {
                    near(splitting.z, expected["split"]["z"].as_f64().unwrap(), 1e-8, &what);
                    near(splitting.delta, expected["split"]["delta"].as_f64().unwrap(), 1e-8, &what);
                }
            }
        }
    }
}

/// FastJet contrib's Nsubjettiness on twelve real jets; the file's origin is `benches/fastjet/n_subjettiness.py`.
#[test]
fn n_subjettiness() {
    let jets: Vec<Value> = serde_json::from_str(include_str!("expected/n_subjettiness.json")).unwrap();
    assert_eq!(jets.len(), 12);
    for (number, jet) in jets.iter().enumerate() {
        let constituents = momenta(&jet["constituents"]);
        for (name, beta) in [("beta_1", 1.0), ("beta_2", 2.0)] {
            let settings = NSubjettiness { beta, r0: 1.0 };
            let expected: Vec<f64> = serde_json::from_value(jet[name].clone()).unwrap();
            let ours = settings.taus(&constituents, expected.len()).unwrap();
            for (n, (ours, theirs)) in ours.iter().zip(&expected).enumerate() {
                assert!(
                    (ours - theirs).abs() <= 1e-10 * theirs,
                    "jet {number}, tau_{}: {ours}, {theirs}",
                    n + 1
                );
            }
            let ratio = n_subjettiness_ratio(&constituents, 2, &settings).unwrap().unwrap();
            assert!((ratio - expected[1] / expected[0]).abs() < 1e-9);
        }
    }
}
