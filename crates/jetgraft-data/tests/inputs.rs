//! What networks read of jets: formulas against NumPy and by hand, every row accounted for, nothing depends on threads.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panicking and log to stderr")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, RecordBatch, UInt64Array};
use arrow::datatypes::{Float32Type, Int32Type};
use jetgraft_data::columns::Extras;
use jetgraft_data::{
    ClassSpec, DataError, GraphSet, HighLevelInput, InputSpec, JetColumns, JetQuery, JetReference, Jets,
    LundInput, OnBad, ParticleFeatures, ParticleInput, Standardisation, Variable, load_jets,
};
use jetgraft_physics::{FourMomentum, pdg};
use serde_json::Value;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../validation/particle-inputs");
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/jets_r10_pt500.parquet");
const EVERYTHING: Extras = Extras { identity: true, displacement: true };

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(PathBuf::from(FOLDER).join("expected.json")).unwrap()).unwrap()
}

/// Names of JetClass.
fn jetclass() -> JetColumns {
    let name = |name: &str| name.to_owned();
    JetColumns {
        px: name("part_px"),
        py: name("part_py"),
        pz: name("part_pz"),
        energy: name("part_energy"),
        ..JetColumns::default()
    }
}

fn query(file: &str, extras: Extras) -> JetQuery {
    JetQuery { columns: jetclass(), extras, ..JetQuery::new([PathBuf::from(FOLDER).join(file)], vec![]) }
}

fn particles(features: ParticleFeatures) -> ParticleInput {
    ParticleInput { features, ..ParticleInput::default() }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn rows<'a>(values: &'a [f32], width: usize, graphs: &GraphSet, jet: usize) -> &'a [f32] {
    &values[graphs.node_offsets[jet] * width..graphs.node_offsets[jet + 1] * width]
}

fn close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let bound = 2e-7 * (1.0 + expected.abs());
        assert!((f64::from(*found) - expected).abs() <= bound, "{what} {at}: {found} {expected}");
    }
}

#[test]
fn features_agree_with_numpy() {
    let expected = expected();
    let limit = expected["limit"].as_u64().unwrap() as usize;
    let jets = load_jets(&query("jetclass_style.parquet", EVERYTHING)).unwrap().0;
    assert_eq!(jets.len(), expected["stored"].as_array().unwrap().len());
    for (reference, answers) in
        [(JetReference::Stored, &expected["stored"]), (JetReference::Sum, &expected["sum"])]
    {
        for features in ParticleFeatures::ALL {
            let spec = InputSpec::Particles(ParticleInput {
                max_constituents: Some(limit),
                jet: reference,
                ..particles(features)
            });
            let (graphs, ledger) = spec.graphs(&jets).unwrap();
            assert_eq!((ledger.used as usize, ledger.dropped_total()), (jets.len(), 0));
            let names: Vec<&str> = spec.features().iter().map(|feature| feature.name).collect();
            assert_eq!(graphs.feature_names, names);
            for (jet, answer) in answers.as_array().unwrap().iter().enumerate() {
                let what = format!("{} of jet {jet}", features.name());
                let found = rows(&graphs.features, names.len(), &graphs, jet);
                close(found, &numbers(&answer[features.name()]), &what);
                let found = rows(graphs.kinematics.as_ref().unwrap(), 4, &graphs, jet);
                let known = numbers(&answer["kinematics"]);
                assert_eq!(found.len(), known.len());
                for (found, known) in found.chunks(4).zip(known.chunks(4)) {
                    close(&found[..3], &known[..3], &what);
                    // The energy is at most pt cosh(4), and at least the mass.
                    let energy = known[0] * 4f64.cosh() + known[3];
                    assert!(
                        (f64::from(found[3]) - known[3]).abs() <= 3e-7 * energy,
                        "{what}: {found:?} {known:?}"
                    );
                }
            }
        }
    }
}

/// Numbers of particles say the same as columns of charge and kind.
#[test]
fn particle_numbers_will_do() {
    let both = ["jetclass_style.parquet", "pdg_style.parquet"].map(|file| {
        let jets = load_jets(&query(file, Extras { identity: true, displacement: false })).unwrap().0;
        InputSpec::Particles(particles(ParticleFeatures::KinPid)).graphs(&jets).unwrap().0
    });
    assert_eq!(both[0], both[1]);
    let charges: BTreeMap<String, i32> = serde_json::from_value(expected()["charges"].clone()).unwrap();
    assert!(charges.len() > 500);
    for (code, charge) in charges {
        assert_eq!(pdg::charge(code.parse().unwrap()), Some(charge), "{code}");
    }
}

#[test]
fn variables_agree_with_numpy() {
    let jets = load_jets(&query("jetclass_style.parquet", Extras::default())).unwrap().0;
    let input = HighLevelInput { variables: Variable::ALL.to_vec() };
    let (graphs, ledger) = InputSpec::HighLevel(input.clone()).graphs(&jets).unwrap();
    ledger.check().unwrap();
    for (jet, answer) in expected()["variables"].as_array().unwrap().iter().enumerate() {
        let found = rows(&graphs.features, Variable::ALL.len(), &graphs, jet);
        assert_eq!(graphs.nodes_of(jet), 1);
        for (name, known) in answer.as_object().unwrap() {
            let at = graphs.feature_names.iter().position(|feature| feature == name).unwrap();
            let (found, known) = (f64::from(found[at]), known.as_f64().unwrap());
            assert!((found - known).abs() <= 1e-6 * (1.0 + known), "{name} of jet {jet}: {found} {known}");
        }
        // One constituent has no prongs, and whatever has no denominator is zero.
        if jets.constituents_of(jet).len() == 1 {
            for (value, name) in found.iter().zip(&graphs.feature_names) {
                if ["tau21", "tau32", "c2", "d2", "width"].contains(&name.as_str()) {
                    assert_eq!(*value, 0.0, "{name}");
                }
            }
        }
    }
}

/// A jet in memory: axis, then (pt, deta, dphi, energy).
fn jet(axis: [f64; 4], particles: &[[f64; 4]]) -> Jets {
    let [pt, eta, phi, mass] = axis;
    Jets {
        event_id: vec![7],
        jet_index: vec![1],
        label: vec![0],
        jet_pt_gev: vec![pt],
        jet_eta: vec![eta],
        jet_phi: vec![phi],
        jet_mass_gev: vec![mass],
        offsets: vec![0, particles.len()],
        constituents: particles
            .iter()
            .map(|[pt, deta, dphi, energy]| {
                FourMomentum::from_pt_eta_phi_energy(*pt, eta + deta, phi + dphi, *energy)
            })
            .collect(),
        identity: None,
        displacement: None,
    }
}

#[test]
fn kin_by_hand() {
    // Jet: pt 100, eta -1, phi 3; two constituents in the wrong order, one of them across the edge of the azimuth.
    let jets = jet([100.0, -1.0, 3.0, 10.0], &[[20.0, 0.3, 0.4, 40.0], [80.0, -0.1, 0.0, 130.0]]);
    let (graphs, ledger) = InputSpec::Particles(particles(ParticleFeatures::Kin)).graphs(&jets).unwrap();
    assert_eq!(ledger.notes["jets whose constituents were sorted by pt"], 1);
    let energy = ((100.0 * 1f64.cosh()).powi(2) + 100.0).sqrt();
    let ln = f64::ln;
    let known = [
        0.7 * (ln(80.0) - 1.7),
        0.7 * (ln(130.0) - 2.0),
        0.7 * (ln(0.8) + 4.7),
        0.7 * (ln(130.0 / energy) + 4.7),
        4.0 * (0.1 - 0.2),
        // Mirrored, since the jet lies on the negative side.
        0.1,
        0.0,
        0.7 * (ln(20.0) - 1.7),
        0.7 * (ln(40.0) - 2.0),
        0.7 * (ln(0.2) + 4.7),
        0.7 * (ln(40.0 / energy) + 4.7),
        4.0 * (0.5 - 0.2),
        -0.3,
        0.4,
    ];
    close(&graphs.features, &known, "kin");
    // Scales end at five: a particle of a thousandth of an eV, and one far away.
    let jets = jet([100.0, 0.0, 0.0, 0.0], &[[100.0, 0.0, 0.0, 100.0], [1e-12, 3.0, 0.0, 1e-10]]);
    let graphs = InputSpec::Particles(particles(ParticleFeatures::Kin)).graphs(&jets).unwrap().0;
    close(&graphs.features[7..], &[-5.0, -5.0, -5.0, -5.0, 5.0, 3.0, 0.0], "cut");
    // At pseudorapidity zero nothing is mirrored.
    assert_eq!(graphs.features[12], 3.0);
    // Space-like by rounding: mass zero.
    let jets = jet([100.0, 0.0, 0.0, 0.0], &[[100.0, 0.0, 0.0, 99.999]]);
    let graphs = InputSpec::Particles(particles(ParticleFeatures::Flow)).graphs(&jets).unwrap().0;
    assert_eq!((graphs.features[0], graphs.kinematics.unwrap()[3]), (1.0, 0.0));
}

#[test]
fn jetclr_is_centred_and_limited() {
    let spec = InputSpec::Particles(particles(ParticleFeatures::JetClr));
    let many: Vec<[f64; 4]> = (0..60)
        .map(|at| {
            let pt = 70.0 - f64::from(at);
            [pt, 0.01 * f64::from(at % 7), -0.02 * f64::from(at % 5), 2.0 * pt]
        })
        .collect();
    let (graphs, ledger) = spec.graphs(&jet([900.0, 0.5, 1.0, 50.0], &many)).unwrap();
    assert_eq!(graphs.nodes_of(0), 50);
    assert_eq!(ledger.notes["constituents beyond the largest number left out"], 10);
    let moment = |column: usize| -> f64 {
        graphs.features.chunks(3).map(|node| f64::from(node[0]) * f64::from(node[column])).sum()
    };
    assert!(moment(1).abs() < 1e-6 && moment(2).abs() < 1e-6);
    close(&graphs.features[..1], &[70.0 / 600.0], "pt");
}

#[test]
fn bad_jets_are_dropped_with_a_reason_or_named() {
    let good = [[60.0, 0.1, 0.0, 70.0], [40.0, -0.1, 0.1, 50.0]];
    let axis = [100.0, 0.1, 0.2, 10.0];
    let mut jets = jet(axis, &good);
    let mut others: Vec<(&str, Jets)> = vec![
        ("no constituents with transverse momentum", jet(axis, &[])),
        ("a jet without transverse momentum", jet([0.0, 0.1, 0.2, 10.0], &good)),
        ("a feature is not finite", jet(axis, &[[1e45, 0.0, 0.0, 1e46]])),
    ];
    for (reason, momentum) in [
        ("a constituent that cannot be used", FourMomentum::new(f64::NAN, 1.0, 1.0, 3.0)),
        ("a constituent that cannot be used", FourMomentum::new(1.0, 1.0, 1.0, -3.0)),
        ("a constituent without energy", FourMomentum::new(1.0, 1.0, 1.0, 0.0)),
        // Along the beam it is left out, and then nothing is left.
        ("no constituents with transverse momentum", FourMomentum::new(0.0, 0.0, 5.0, 5.0)),
    ] {
        let mut other = jet(axis, &[[1.0; 4]]);
        other.constituents[0] = momentum;
        others.push((reason, other));
    }
    let spec = InputSpec::Particles(particles(ParticleFeatures::Kin));
    for (reason, other) in &others {
        let (graphs, ledger) = spec.graphs(other).unwrap();
        assert_eq!((graphs.len(), ledger.dropped[*reason]), (0, 1), "{reason}");
        let error = spec.graphs_with(other, OnBad::Error).unwrap_err();
        assert!(error.to_string().contains("jet 1 of event 7"), "{error}");
        assert!(matches!(error, DataError::BadJet { .. } | DataError::Physics { .. }));
        jets.append(other);
    }
    // Among others a bad one leaves no trace.
    jets.append(&jet(axis, &good));
    for spec in [spec, InputSpec::HighLevel(HighLevelInput::default()), InputSpec::Lund(LundInput::default())]
    {
        let (graphs, ledger) = spec.graphs(&jets).unwrap();
        ledger.check().unwrap();
        assert_eq!(ledger.read as usize, jets.len());
        let last = graphs.len() - 1;
        assert_eq!(graphs.select(&[0]), graphs.select(&[last]), "{}", spec.describe());
        assert!(graphs.features.iter().all(|value| value.is_finite()));
    }
    let along = InputSpec::Particles(particles(ParticleFeatures::Kin));
    let mut with_beam = jet(axis, &good);
    with_beam.constituents.insert(1, FourMomentum::new(0.0, 0.0, 5.0, 5.0));
    with_beam.offsets = vec![0, 3];
    let (graphs, ledger) = along.graphs(&with_beam).unwrap();
    assert_eq!(ledger.notes["constituents without transverse momentum left out"], 1);
    assert_eq!(graphs, along.graphs(&jet(axis, &good)).unwrap().0);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused =
        |spec: &InputSpec| assert!(matches!(spec.check(), Err(DataError::Option { .. })), "{spec:?}");
    refused(&InputSpec::Particles(ParticleInput { max_constituents: Some(0), ..ParticleInput::default() }));
    refused(&InputSpec::HighLevel(HighLevelInput { variables: vec![] }));
    refused(&InputSpec::HighLevel(HighLevelInput { variables: vec![Variable::D2, Variable::D2] }));
    // Jets that were read without what an input needs.
    let jets = load_jets(&query("jetclass_style.parquet", Extras::default())).unwrap().0;
    let error = InputSpec::Particles(particles(ParticleFeatures::Full)).graphs(&jets).unwrap_err();
    assert!(error.to_string().contains("charge and kind"), "{error}");
}

#[test]
fn missing_columns_are_named_with_a_remedy() {
    let sample = |features: ParticleFeatures| {
        let spec = InputSpec::Particles(particles(features));
        let classes = vec![ClassSpec::new("qcd", "process == 0")];
        load_jets(&JetQuery { extras: spec.extras(), ..JetQuery::new([SAMPLE], classes) })
    };
    sample(ParticleFeatures::Kin).unwrap();
    let error = sample(ParticleFeatures::KinPid).unwrap_err();
    let (text, hint) = (error.to_string(), error.hint().unwrap());
    for part in ["part_charge", "jets_r10_pt500.parquet", "part_pdgid", "features = \"kin\""] {
        assert!(text.contains(part), "{text}");
    }
    assert!(hint.contains("map it under `columns`"), "{hint}");
    let error = load_jets(&query("pdg_style.parquet", EVERYTHING)).unwrap_err();
    match &error {
        DataError::NoColumn { name, .. } => assert_eq!(name, "part_d0val"),
        other => panic!("{other}"),
    }
    assert!(error.to_string().contains("kinpid"), "{error}");
}

/// A file with one column of particle numbers; two jets of two particles, and padding.
fn numbered(folder: &tempfile::TempDir, numbers: Vec<Option<i32>>, lengths: [usize; 2]) -> JetQuery {
    let floats = |values: [f32; 5]| -> ArrayRef {
        let rows = [&values[..2], &values[2..]];
        let rows = rows.map(|row| Some(row.iter().map(|value| Some(*value)).collect::<Vec<_>>()));
        Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows))
    };
    let codes = [numbers[..lengths[0]].to_vec(), numbers[lengths[0]..lengths[0] + lengths[1]].to_vec()];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("event_id", Arc::new(UInt64Array::from(vec![1, 2]))),
        ("px", floats([30.0, 20.0, 50.0, 0.0, 10.0])),
        ("py", floats([1.0, 2.0, 3.0, 0.0, 4.0])),
        ("pz", floats([5.0, 5.0, 5.0, 0.0, 5.0])),
        ("energy", floats([40.0, 30.0, 60.0, 0.0, 20.0])),
        ("part_pdgid", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(codes.map(Some)))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let path = folder.path().join("numbered.parquet");
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    JetQuery { extras: Extras { identity: true, displacement: false }, ..JetQuery::new([path], vec![]) }
}

#[test]
fn identities_follow_their_particles() {
    let folder = tempfile::tempdir().unwrap();
    let codes = vec![Some(211), Some(22), Some(-11), Some(0), Some(2112)];
    // The fourth is padding, whatever number it has.
    let (jets, ledger, _) = load_jets(&numbered(&folder, codes.clone(), [2, 3])).unwrap();
    assert_eq!((jets.len(), ledger.notes["constituents of zero momentum left out as padding"]), (2, 1));
    let identity = jets.identity.clone().unwrap();
    assert_eq!(identity.len(), jets.constituents.len());
    assert_eq!(identity[0], [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(identity[1], [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!(identity[2], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    assert_eq!(identity[3], [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
    let second = jets.select(&[1]);
    assert_eq!(second.identity.as_deref(), Some(&identity[2..]));
    let mut twice = second.clone();
    twice.append(&jets);
    assert_eq!(twice.identity.unwrap().len(), 6);

    for bad in [Some(21), None] {
        let mut codes = codes.clone();
        codes[1] = bad;
        let query = numbered(&folder, codes, [2, 3]);
        let (jets, ledger, _) = load_jets(&query).unwrap();
        assert_eq!(ledger.dropped["constituent of a number that is no particle"], 1);
        assert_eq!(jets.identity.as_deref(), Some(&identity[2..]));
        assert!(matches!(
            load_jets(&JetQuery { on_bad: OnBad::Error, ..query }),
            Err(DataError::BadRow { row: 0, .. })
        ));
    }
    match load_jets(&numbered(&folder, codes, [3, 2])).unwrap_err() {
        DataError::RaggedMismatch { row: 0, first, second, first_len: 2, second_len: 3, .. } => {
            assert_eq!((first.as_str(), second.as_str()), ("px", "part_pdgid"));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn threads_and_company_change_nothing() {
    let query = JetQuery { selection: Some("jet_pt < 510".into()), ..JetQuery::new([SAMPLE], vec![]) };
    let jets = load_jets(&query).unwrap().0;
    let specs = [
        InputSpec::Particles(particles(ParticleFeatures::Kin)),
        InputSpec::Particles(particles(ParticleFeatures::JetClr)),
        InputSpec::HighLevel(HighLevelInput { variables: Variable::ALL.to_vec() }),
        InputSpec::Lund(LundInput::default()),
    ];
    for spec in specs {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| spec.graphs(&jets).unwrap())
        };
        let one = on(1);
        assert!(one.0.len() > 500);
        assert_eq!(on(3), one);
        for jet in [0, 300, one.0.len() - 1] {
            let alone = spec.graphs(&jets.select(&[jet])).unwrap().0;
            assert_eq!(alone, one.0.select(&[jet]));
        }
        assert_eq!(spec.has_edges(), one.0.parents.is_some());
        assert_eq!(spec.has_kinematics(), one.0.kinematics.is_some());
        let names: Vec<&str> = spec.features().iter().map(|feature| feature.name).collect();
        assert_eq!(one.0.feature_names, names);
        let rows: Vec<usize> = (0..one.0.len()).collect();
        Standardisation::fit(&one.0, &rows).unwrap().apply(&mut one.0.clone()).unwrap();
        // Order of constituents: the sum of a jet moves by rounding only, so here the set of nodes is compared.
        if matches!(spec, InputSpec::Particles(_)) {
            let mut turned = jets.select(&[3]);
            turned.constituents.reverse();
            let (turned, straight) = (spec.graphs(&turned).unwrap().0, one.0.select(&[3]));
            let sorted = |graphs: &GraphSet| {
                let mut nodes: Vec<Vec<u32>> = graphs
                    .kinematics
                    .as_ref()
                    .unwrap()
                    .chunks(4)
                    .map(|node| node.iter().map(|value| value.to_bits()).collect())
                    .collect();
                nodes.sort();
                nodes
            };
            assert_eq!(sorted(&turned), sorted(&straight));
        }
    }
}

#[test]
fn specs_are_written_as_recipes_are() {
    for (text, spec) in [
        (
            r#"{"kind":"particles","features":"kinpid","max_constituents":64,"jet":"sum"}"#,
            InputSpec::Particles(ParticleInput {
                features: ParticleFeatures::KinPid,
                max_constituents: Some(64),
                jet: JetReference::Sum,
            }),
        ),
        (
            r#"{"kind":"high-level","variables":["mass","soft_drop_mass","tau21","tau32","multiplicity","d2"]}"#,
            InputSpec::HighLevel(HighLevelInput::default()),
        ),
        (
            r#"{"kind":"lund","features":"lundnet-5","cuts":{},"psi":"lundnet"}"#,
            InputSpec::Lund(LundInput::default()),
        ),
    ] {
        assert_eq!(serde_json::to_string(&spec).unwrap(), text);
        assert_eq!(serde_json::from_str::<InputSpec>(text).unwrap(), spec);
    }
    for text in [r#"{"kind":"particles","feature":"kin"}"#, r#"{"kind":"pixels"}"#, "{}"] {
        assert!(serde_json::from_str::<InputSpec>(text).is_err(), "{text}");
    }
    let kin = InputSpec::Particles(ParticleInput::default());
    assert_eq!(
        kin.describe(),
        "constituents: kin (part_pt_log, part_e_log, part_logptrel, part_logerel, part_deltaR, part_deta, part_dphi); the \
         128 of largest pt; relative to the jet of the file"
    );
    assert_eq!(
        InputSpec::HighLevel(HighLevelInput::default()).describe(),
        "variables of the jet: mass, soft_drop_mass, tau21, tau32, multiplicity, d2; soft drop, z_cut = 0.1, beta = 0; \
         N-subjettiness, beta = 1, winner-take-all kt axes; energy correlation functions, beta = 1, in rapidity and azimuth"
    );
    // Said or usual, the number is the same.
    let said = ParticleInput { max_constituents: Some(128), ..ParticleInput::default() };
    assert_eq!(kin.difference(&InputSpec::Particles(said)), None);
    let fewer = InputSpec::Particles(ParticleInput { max_constituents: Some(64), ..said });
    assert_eq!(kin.difference(&fewer).unwrap().0, "the largest number of constituents");
    assert_eq!(kin.difference(&InputSpec::Lund(LundInput::default())).unwrap().0, "the kind of input");
}

/// `cargo test --release -p jetgraft-data --test inputs -- --ignored --nocapture`
#[test]
#[ignore = "prints rates; run by hand"]
fn rates() {
    let jets = load_jets(&JetQuery::new([SAMPLE], vec![])).unwrap().0;
    for spec in [
        InputSpec::Particles(ParticleInput::default()),
        InputSpec::HighLevel(HighLevelInput::default()),
        InputSpec::HighLevel(HighLevelInput { variables: vec![Variable::D2] }),
    ] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let started = std::time::Instant::now();
        pool.install(|| spec.graphs(&jets).unwrap());
        let rate = jets.len() as f64 / started.elapsed().as_secs_f64();
        eprintln!("{rate:.0} jets/s on one thread: {}", spec.describe());
    }
}
