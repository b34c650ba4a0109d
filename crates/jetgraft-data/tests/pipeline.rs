//! From file to packed batches and back to files: nothing depends on threads, nothing is lost on the way.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panicking and log to stderr")]

use std::path::PathBuf;
use std::sync::Arc;

use jetgraft_data::{
    Batching, ClassSpec, DataError, FeatureSet, JetQuery, Jets, Loader, LundInput, NO_LABEL, Precision,
    Scores, Split, Standardisation, check_disjoint, epoch_order, inspect, load_jets, lund_graphs, open,
    read_scores, subsets, write_jets, write_lund, write_scores,
};
use jetgraft_physics::lund::{LundCuts, PsiForm};

fn sample() -> JetQuery {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/jets_r10_pt500.parquet"));
    JetQuery {
        selection: Some("jet_pt < 520".into()),
        ..JetQuery::new(
            [path],
            vec![
                ClassSpec::new("qcd", "process == 0"),
                ClassSpec::new("w", "process == 1"),
                ClassSpec::new("top", "process == 2"),
            ],
        )
    }
}

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

fn cuts() -> LundCuts {
    LundCuts { ln_kt_min: Some(0.0), ln_delta_min: None }
}

#[test]
fn threads_change_nothing() {
    let input = LundInput { cuts: cuts(), ..LundInput::default() };
    let run = || {
        let (jets, read, manifest) = load_jets(&sample()).unwrap();
        let (graphs, made) = lund_graphs(&jets, &input).unwrap();
        (jets, read, manifest, graphs, made)
    };
    let one = on_threads(1, run);
    assert!(one.0.len() > 1000, "{}", one.1);
    for threads in [2, 5] {
        assert!(on_threads(threads, run) == one, "{threads} threads");
    }
    one.1.then(&one.4).unwrap();
    // Reuse of memory between jets leaves no trace: one jet alone gives the same graph.
    for jet in [0, 17, one.0.len() - 1] {
        let (alone, _) = lund_graphs(&one.0.select(&[jet]), &input).unwrap();
        assert_eq!(alone, one.3.select(&[jet]));
    }
}

#[test]
fn the_whole_way_to_batches() {
    let (jets, _, _) = load_jets(&sample()).unwrap();
    let input = LundInput { features: FeatureSet::LundNet3, ..LundInput::default() };
    let (mut graphs, ledger) = lund_graphs(&jets, &input).unwrap();
    assert_eq!(ledger.used as usize, graphs.len());
    for jet in 0..graphs.len() {
        assert_eq!(graphs.nodes_of(jet), jets.constituents_of(jet).len() - 1, "no cut: n - 1 declusterings");
    }
    let rows = Split { salt: 3, ..Split::default() }.rows(&graphs.event_id).unwrap();
    let ids = |rows: &[usize]| rows.iter().map(|row| graphs.event_id[*row]).collect::<Vec<u64>>();
    let parts = [ids(&rows.train), ids(&rows.validation), ids(&rows.test)];
    check_disjoint(&[("train", &parts[0]), ("validation", &parts[1]), ("test", &parts[2])]).unwrap();

    let labels: Vec<u32> = rows.train.iter().map(|row| graphs.label[*row]).collect();
    let made = subsets(&labels, &parts[0], &[60, 120], 3, 1).unwrap();
    let chosen: Vec<usize> = made.rows(2, 120).iter().map(|at| rows.train[*at]).collect();
    let standard = Standardisation::fit(&graphs, &chosen).unwrap();
    standard.apply(&mut graphs).unwrap();
    let graphs = Arc::new(graphs);
    let order: Vec<usize> = epoch_order(chosen.len(), 1, 0).into_iter().map(|at| chosen[at]).collect();
    let mut seen = Vec::new();
    for batch in Loader::new(graphs.clone(), order.clone(), Batching::new(32)) {
        assert_eq!(batch.edges.as_ref().unwrap().senders.len(), 2 * (batch.nodes() - batch.jets()));
        assert!(batch.features.iter().all(|value| value.is_finite()));
        assert_eq!(batch.labels, batch.indices.iter().map(|row| graphs.label[*row]).collect::<Vec<_>>());
        seen.extend(batch.indices);
    }
    assert_eq!(seen, order);
}

fn some_jets() -> Jets {
    let query = JetQuery { selection: Some("jet_pt < 502".into()), ..sample() };
    load_jets(&query).unwrap().0
}

#[test]
fn jets_come_back_as_they_were_written() {
    let jets = some_jets();
    let folder = tempfile::tempdir().unwrap();
    let read = |path: &PathBuf| {
        let classes = ["qcd", "w", "top"].iter().enumerate();
        let classes =
            classes.map(|(label, name)| ClassSpec::new(*name, format!("label == {label}"))).collect();
        load_jets(&JetQuery::new([path], classes)).unwrap().0
    };
    let path = folder.path().join("double.parquet");
    assert_eq!(write_jets(&path, &jets, Precision::Double).unwrap(), jets.len() as u64);
    let back = read(&path);
    assert_eq!((&back.event_id, &back.label, &back.offsets), (&jets.event_id, &jets.label, &jets.offsets));
    assert_eq!((&back.jet_pt_gev, &back.jet_mass_gev), (&jets.jet_pt_gev, &jets.jet_mass_gev));
    for (a, b) in back.constituents.iter().zip(&jets.constituents) {
        let scale = 1e-12 * b.energy;
        assert!((a.px - b.px).abs() < scale && (a.py - b.py).abs() < scale && (a.pz - b.pz).abs() < scale);
        assert_eq!(a.energy, b.energy);
    }
    let bytes = std::fs::read(&path).unwrap();
    write_jets(&path, &jets, Precision::Double).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "the same bytes every time");
    let units = open(&path).unwrap();
    assert_eq!(units.columns().iter().find(|c| c.name == "part_pt").unwrap().unit.as_deref(), Some("GeV"));

    let path = folder.path().join("single.parquet");
    write_jets(&path, &jets, Precision::Single).unwrap();
    let back = read(&path);
    for jet in 0..jets.len() {
        let mass = |jets: &Jets| {
            jets.constituents_of(jet).iter().copied().sum::<jetgraft_physics::FourMomentum>().mass()
        };
        assert!((mass(&back) - mass(&jets)).abs() < 2e-3, "{} {}", mass(&back), mass(&jets));
    }
}

#[test]
fn lund_trees_are_those_of_the_graphs() {
    let jets = some_jets();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lund.parquet");
    let ledger = write_lund(&path, &jets, &cuts(), PsiForm::LundNet).unwrap();
    assert_eq!(ledger.used as usize, jets.len());
    let (graphs, _) = lund_graphs(&jets, &LundInput { cuts: cuts(), ..LundInput::default() }).unwrap();
    let table = open(&path).unwrap();
    let names = ["ln_z", "ln_delta", "psi", "ln_m", "ln_kt", "parent"].map(str::to_owned);
    let (mut features, mut parents) = (Vec::new(), Vec::new());
    for group in 0..table.groups() {
        for batch in table.read(group, &names).unwrap() {
            let batch = batch.unwrap();
            use arrow::array::AsArray;
            let values: Vec<&[f32]> = (0..5)
                .map(|at| {
                    &batch
                        .column(at)
                        .as_list::<i32>()
                        .values()
                        .as_primitive::<arrow::datatypes::Float32Type>()
                        .values()[..]
                })
                .collect();
            for node in 0..values[0].len() {
                features.extend(values.iter().map(|column| column[node]));
            }
            let list = batch.column(5).as_list::<i32>().values().clone();
            parents.extend(list.as_primitive::<arrow::datatypes::Int32Type>().values().iter().copied());
        }
    }
    assert_eq!(features, graphs.features);
    assert_eq!(Some(parents), graphs.parents);
    assert_eq!(inspect(&path).unwrap().rows, jets.len() as u64);
}

#[test]
fn scores_come_back_and_nonsense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scores.parquet");
    let jets = 3000;
    let scores = Scores {
        classes: vec!["qcd".into(), "top".into()],
        event_id: (0..jets).map(|i| (1 << 60) + i).collect(),
        label: (0..jets as u32).map(|i| if i == 5 { NO_LABEL } else { i % 2 }).collect(),
        logits: (0..2 * jets).map(|i| (i as f32 * 0.37).sin() * 90.0).collect(),
        jet_pt_gev: vec![500.0; jets as usize],
        jet_mass_gev: Vec::new(),
    };
    write_scores(&path, &scores).unwrap();
    assert_eq!(read_scores(&path).unwrap(), scores);
    let names: Vec<String> =
        open(&path).unwrap().columns().iter().map(|column| column.name.clone()).collect();
    assert_eq!(names, ["event_id", "label", "logit_qcd", "logit_top", "score_qcd", "score_top", "jet_pt"]);
    for pair in scores.probabilities().chunks_exact(2) {
        assert!((pair[0] + pair[1] - 1.0).abs() < 1e-6 && pair.iter().all(|p| (0.0..=1.0).contains(p)));
    }
    let mut bad = scores.clone();
    bad.logits[7] = f32::NAN;
    let error = write_scores(&path, &bad).unwrap_err();
    assert!(error.to_string().contains("logit_top of row 3"), "{error}");
    bad.logits.pop();
    assert!(matches!(write_scores(&path, &bad), Err(DataError::Option { .. })));
    assert_eq!(read_scores(&path).unwrap(), scores, "a refused write leaves the file");
    let jets = folder.path().join("jets.parquet");
    write_jets(&jets, &some_jets(), Precision::Single).unwrap();
    assert!(matches!(read_scores(&jets), Err(DataError::NoColumn { .. })));
}

/// `cargo test --release -p jetgraft-data --test pipeline -- --ignored --nocapture`
#[test]
#[ignore = "prints rates; run by hand"]
fn rates() {
    let shared = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/jets.parquet"));
    let path = if shared.exists() { shared } else { sample().files[0].clone() };
    let query = JetQuery { selection: None, files: vec![path], ..sample() };
    for threads in [1, 2] {
        on_threads(threads, || {
            let started = std::time::Instant::now();
            let (jets, _, _) = load_jets(&query).unwrap();
            let read = started.elapsed().as_secs_f64();
            let started = std::time::Instant::now();
            let (graphs, _) = lund_graphs(&jets, &LundInput::default()).unwrap();
            let made = started.elapsed().as_secs_f64();
            let started = std::time::Instant::now();
            let order = epoch_order(graphs.len(), 1, 0);
            let nodes: usize = order.chunks(256).map(|rows| graphs.pack(rows).nodes()).sum();
            let packed = started.elapsed().as_secs_f64();
            let rate = |seconds: f64| jets.len() as f64 / seconds;
            eprintln!(
                "{threads} threads, {} jets, {nodes} nodes: read {:.0} jets/s, Lund graphs {:.0} jets/s, packed (one thread) {:.0} jets/s",
                jets.len(),
                rate(read),
                rate(made),
                rate(packed)
            );
        });
    }
}
