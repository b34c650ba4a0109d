//! Small files made by other programs (`fixtures/make.py`): what they say and what we read must be the same.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panicking and log to stderr")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes as types;
use jetgraft_data::formats::lund_json::{FirstElement, LundJsonOptions};
use jetgraft_data::{
    ClassSpec, DType, DataError, Format, JetQuery, Jets, Kind, OnBad, OpenOptions, TableReader, load_events,
    load_jets, open, open_with,
};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

/// A value of an array in the form in which the script wrote it.
fn plain(array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    macro_rules! number {
        ($type:ty) => {
            Value::from(array.as_primitive::<$type>().value(row))
        };
    }
    let float = |value: f64| {
        if value.is_finite() { Value::from(value) } else { Value::from(value.to_string()) }
    };
    match array.data_type() {
        types::DataType::Boolean => Value::from(array.as_boolean().value(row)),
        types::DataType::Int8 => number!(types::Int8Type),
        types::DataType::Int16 => number!(types::Int16Type),
        types::DataType::Int32 => number!(types::Int32Type),
        types::DataType::Int64 => number!(types::Int64Type),
        types::DataType::UInt8 => number!(types::UInt8Type),
        types::DataType::UInt16 => number!(types::UInt16Type),
        types::DataType::UInt32 => number!(types::UInt32Type),
        types::DataType::UInt64 => number!(types::UInt64Type),
        types::DataType::Float32 => float(f64::from(array.as_primitive::<types::Float32Type>().value(row))),
        types::DataType::Float64 => float(array.as_primitive::<types::Float64Type>().value(row)),
        types::DataType::List(_) => {
            let values = array.as_list::<i32>().value(row);
            Value::from((0..values.len()).map(|at| plain(&values, at)).collect::<Vec<_>>())
        }
        other => panic!("{other}"),
    }
}

fn column(table: &dyn TableReader, name: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for group in 0..table.groups() {
        assert_eq!(table.first_row(group), all.len() as u64);
        for batch in table.read(group, &[name.to_owned()]).unwrap() {
            let batch = batch.unwrap();
            all.extend((0..batch.num_rows()).map(|row| plain(batch.column(0), row)));
        }
    }
    all
}

#[test]
fn parquet_agrees_with_pyarrow() {
    let files: BTreeMap<String, BTreeMap<String, Vec<Value>>> =
        serde_json::from_value(json("plain.json")).unwrap();
    assert_eq!(files.len(), 5);
    for (file, columns) in files {
        let table = open(fixture(&file)).unwrap();
        assert_eq!(table.format(), Format::Parquet);
        assert_eq!(table.rows(), Some(40));
        let readable = table.columns().iter().filter(|column| column.dtype.is_readable()).count();
        assert_eq!(readable, columns.len(), "{file}");
        for (name, expected) in columns {
            assert_eq!(column(&*table, &name), expected, "{file}: {name}");
        }
        // All at once and in another order gives the same.
        let names: Vec<String> = ["u64", "list_f32", "i8"].map(str::to_owned).to_vec();
        let batch = table.read(0, &names).unwrap().next().unwrap().unwrap();
        assert_eq!(batch.schema().field(0).name(), "u64");
        assert_eq!(batch.schema().field(2).name(), "i8");
    }
}

#[test]
fn types_and_refusals() {
    let table = open(fixture("types_zstd_bss.parquet")).unwrap();
    let spec = |name: &str| table.columns().iter().find(|column| column.name == name).unwrap();
    assert_eq!((spec("u64").kind, &spec("u64").dtype), (Kind::Flat, &DType::U64));
    assert_eq!(spec("list_f32").type_name(), "list of f32");
    assert_eq!(spec("large_list").type_name(), "list of f32");
    assert_eq!(spec("fixed_list").type_name(), "list of f32");
    assert!(!spec("text").dtype.is_readable() && !spec("nested").dtype.is_readable());
    for name in ["text", "nested"] {
        assert!(matches!(table.read(0, &[name.into()]).err(), Some(DataError::ColumnType { .. })), "{name}");
    }
    match table.read(0, &["list_f23".into()]).err().unwrap() {
        DataError::NoColumn { nearest, .. } => assert_eq!(nearest[0], "list_f32"),
        other => panic!("{other}"),
    }
    assert!(table.storage("list_f32").unwrap().compression.contains("ZSTD"));
}

fn lund(name: &str, first_element: FirstElement) -> Result<(Jets, jetgraft_data::Ledger), DataError> {
    let query = JetQuery {
        classes: vec![ClassSpec::of_files("qcd", [fixture(name)])],
        open: OpenOptions { lund_json: LundJsonOptions { first_element } },
        ..JetQuery::new([fixture(name)], vec![])
    };
    load_jets(&query).map(|(jets, ledger, _)| (jets, ledger))
}

#[test]
fn lund_files_hold_what_was_written() {
    let (jets, ledger) = lund("lund_valid.json.gz", FirstElement::Discard).unwrap();
    let expected: Vec<Vec<[f64; 4]>> = serde_json::from_value(json("lund_valid.json")).unwrap();
    assert_eq!(jets.len(), expected.len());
    for (jet, constituents) in expected.iter().enumerate() {
        let found: Vec<[f64; 4]> =
            jets.constituents_of(jet).iter().map(|p| [p.px, p.py, p.pz, p.energy]).collect();
        assert_eq!(found, *constituents);
    }
    assert_eq!(ledger.notes["element 0 is the sum of the rest"], 30);
    // The lower half of the event id is the line: two headers first, one after nine jets... at line 13.
    let lines: Vec<u64> = jets.event_id.iter().map(|id| id & 0xffff_ffff).collect();
    assert_eq!(lines[..3], [3, 4, 5]);
    assert_eq!(lines[10..12], [14, 15]);
    assert_eq!(lines.last(), Some(&33));
    // The sum of the constituents stands in for the jet.
    let sum: jetgraft_physics::FourMomentum = jets.constituents_of(4).iter().copied().sum();
    assert_eq!(jets.jet_pt_gev[4], sum.pt());

    let (again, _) = lund("lund_two_members.json.gz", FirstElement::Discard).unwrap();
    assert_eq!(again.constituents, jets.constituents);
    assert_ne!(again.event_id, jets.event_id, "another file, other events");
    let (with_sum, _) = lund("lund_valid.json.gz", FirstElement::Constituent).unwrap();
    assert_eq!(with_sum.constituents.len(), jets.constituents.len() + jets.len());
    assert!(lund("lund_valid.json.gz", FirstElement::RequireSum).is_ok());
}

#[test]
fn element_zero_is_told_in_the_ledger() {
    let (_, ledger) = lund("lund_element0_not_sum.json.gz", FirstElement::Discard).unwrap();
    assert_eq!(ledger.notes["element 0 differs from the sum of the rest"], 3);
    assert_eq!(ledger.notes["element 0 is no four-momentum"], 1);
    let error = lund("lund_element0_not_sum.json.gz", FirstElement::RequireSum).unwrap_err();
    assert!(error.to_string().contains("line 1:"), "{error}");
}

#[test]
fn broken_lund_files_name_file_and_line() {
    for (name, entry) in [
        ("lund_broken_line21.json.gz", "line 21"),
        ("lund_blank_line6.json.gz", "line 6"),
        ("lund_truncated.json.gz", "line "),
    ] {
        let error = lund(name, FirstElement::Discard).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(entry), "{text}");
        assert!(error.hint().is_some());
    }
    let error = lund("lund_truncated.json.gz", FirstElement::Discard).unwrap_err();
    assert!(error.to_string().contains("half a download"), "{error}");
}

fn three_classes() -> Vec<ClassSpec> {
    vec![ClassSpec::new("a", "label == 0"), ClassSpec::new("b", "label == 1")]
}

#[test]
fn every_bad_row_has_its_reason() {
    let query = JetQuery::new([fixture("bad_rows.parquet")], three_classes());
    let (jets, ledger, manifest) = load_jets(&query).unwrap();
    assert_eq!((ledger.read, ledger.used), (10, 2));
    let reasons: Vec<(&str, u64)> =
        ledger.dropped.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    assert_eq!(
        reasons,
        [
            ("constituent not finite", 3),
            ("in no class", 2),
            ("no constituents", 1),
            ("null constituents", 1),
            ("null event id", 1),
        ]
    );
    assert_eq!(ledger.notes["constituents of zero momentum left out as padding"], 1);
    assert_eq!(jets.offsets, [0, 2, 4]);
    assert_eq!((jets.event_id.as_slice(), jets.label.as_slice()), (&[1, 1][..], &[0, 1][..]));
    assert_eq!(manifest.files[0].rows, 10);
    manifest.verify(std::path::Path::new("")).unwrap();

    let strict = JetQuery { on_bad: OnBad::Error, ..query.clone() };
    match load_jets(&strict).unwrap_err() {
        DataError::BadRow { row, reason, .. } => {
            assert_eq!((row, reason.as_str()), (2, "constituent not finite"))
        }
        other => panic!("{other}"),
    }
    // Undecided is told apart from not selected.
    let selected = JetQuery { selection: Some("label < 2".into()), ..query.clone() };
    let (_, ledger, _) = load_jets(&selected).unwrap();
    assert_eq!(ledger.dropped["selection"], 1);
    assert_eq!(ledger.dropped["selection undecided: a value is missing"], 1);
    // Nothing is lost when unlabelled jets are kept.
    let kept = JetQuery { keep_unlabelled: true, ..query.clone() };
    let (jets, _, _) = load_jets(&kept).unwrap();
    assert_eq!(jets.label, [0, 1, jetgraft_data::NO_LABEL, jetgraft_data::NO_LABEL]);
    // Whole events: an empty one stays.
    let (events, ledger, _) = load_events(&query).unwrap();
    assert_eq!((events.len(), ledger.used), (5, 5));
    assert_eq!(events.particles_of(0).len(), 2);
}

#[test]
fn faulty_queries_are_refused() {
    let file = fixture("bad_rows.parquet");
    let query = |classes| JetQuery::new([file.clone()], classes);
    let error = load_jets(&query(vec![ClassSpec::new("a", "label < 2"), ClassSpec::new("b", "label == 1")]));
    match error.unwrap_err() {
        DataError::TwoClasses { row, event_id, first, second, .. } => {
            assert_eq!((row, event_id, first.as_str(), second.as_str()), (1, 1, "a", "b"));
        }
        other => panic!("{other}"),
    }
    let error = load_jets(&query(vec![ClassSpec::new("a", "lable == 1")])).unwrap_err();
    assert_eq!(error.hint().unwrap(), "nearest columns: `label`");
    let error = load_jets(&query(vec![ClassSpec::new("a", "label == 9")])).unwrap_err();
    assert!(matches!(error, DataError::Empty { .. }), "{error}");
    let twice = vec![ClassSpec::new("a", "label == 0"), ClassSpec::new("a", "label == 1")];
    assert!(matches!(load_jets(&query(twice)), Err(DataError::Option { .. })));
    let stranger = vec![ClassSpec::of_files("a", ["other.parquet"])];
    assert!(matches!(load_jets(&query(stranger)), Err(DataError::Option { .. })));
    assert!(matches!(load_jets(&JetQuery::default()), Err(DataError::Option { .. })));

    let copy = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(&file, copy.path()).unwrap();
    let both = JetQuery::new([file.clone(), copy.path().to_owned()], three_classes());
    assert!(matches!(load_jets(&both), Err(DataError::SameFile { .. })));

    let unequal = JetQuery::new([fixture("unequal_lists.parquet")], vec![]);
    match load_jets(&unequal).unwrap_err() {
        DataError::RaggedMismatch { row, first_len, second_len, .. } => {
            assert_eq!((row, first_len, second_len), (1, 2, 1));
        }
        other => panic!("{other}"),
    }
    let missing = JetQuery::new([fixture("types_zstd_bss.parquet")], vec![]);
    assert!(matches!(load_jets(&missing), Err(DataError::NoColumn { .. })));
}

#[test]
fn row_numbers_can_stand_in_for_event_ids() {
    let mut query = JetQuery::new([fixture("bad_rows.parquet")], three_classes());
    query.columns.event_id = jetgraft_data::columns::ROW_AS_EVENT_ID.to_owned();
    let (jets, _, _) = load_jets(&query).unwrap();
    let rows: Vec<u64> = jets.event_id.iter().map(|id| id & 0xffff_ffff).collect();
    assert_eq!(rows, [0, 1, 6]);
    assert!(jets.event_id.iter().all(|id| id >> 32 == jets.event_id[0] >> 32));
}

#[test]
fn options_reach_the_reader() {
    let options = OpenOptions { lund_json: LundJsonOptions { first_element: FirstElement::Constituent } };
    let table = open_with(fixture("lund_valid.json.gz"), &options).unwrap();
    assert_eq!(
        table.columns().iter().find(|column| column.name == "px").unwrap().unit.as_deref(),
        Some("GeV")
    );
    assert_eq!(table.rows(), None);
}
