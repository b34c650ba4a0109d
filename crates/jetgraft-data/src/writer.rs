//! Parquet files of ours: jets, Lund trees, scores; each whole or absent.
//!
//! Files are the same bytes for the same content. Units are stored in the footer and come back with the columns.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_writer::ArrowWriterOptions;
use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use ::parquet::schema::types::ColumnPath;
use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Float64Array, Int32Array, ListArray, UInt32Array, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use jetgraft_physics::FourMomentum;
use jetgraft_physics::lund::{LundCuts, LundTree, PsiForm};
use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::error::DataError;
use crate::formats::parquet::{ParquetTable, UNITS_KEY};
use crate::jets::{Jets, NO_LABEL};
use crate::ledger::Ledger;
use crate::lund_graphs::lund_trees;
use crate::select::{float_values, integer_values};
use crate::table::{ColumnSpec, DType, Kind, TableReader};

/// Rows of a row group; small enough to shuffle by group, large enough to compress.
pub const ROWS_PER_GROUP: usize = 1024;

/// Precision of momenta in a file of jets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32, half the size. The energy is computed again from the rounded pt and direction and the particle's mass, so that
    /// rounding of the direction makes no mass.
    Single,
    /// f64: what was clustered comes back to rounding of the coordinates.
    #[default]
    Double,
}

/// Writes a table, one row group a batch; the number of rows.
///
/// The arrays of a batch are those of `columns`, in order, of the declared types (lists as Arrow `List`).
///
/// # Errors
/// Those of the batches, [`DataError::Io`], [`DataError::ColumnType`] when an array is not what its column says.
pub fn write_table(
    path: &Path,
    columns: &[ColumnSpec],
    batches: impl IntoIterator<Item = Result<Vec<ArrayRef>, DataError>>,
) -> Result<u64, DataError> {
    let failed = |error: ParquetError| DataError::Io {
        path: path.to_owned(),
        action: "write",
        source: std::io::Error::other(error),
    };
    let fields: Vec<Field> = columns.iter().map(field_of).collect();
    let schema = Arc::new(Schema::new(fields));
    let zstd = ZstdLevel::try_new(3).map_err(failed)?;
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("jetgraft ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(zstd))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(None);
    for column in columns.iter().filter(|column| column.dtype.is_float()) {
        let leaf = match column.kind {
            Kind::Flat => ColumnPath::from(vec![column.name.clone()]),
            Kind::List => ColumnPath::from(vec![column.name.clone(), "list".into(), "element".into()]),
        };
        properties = properties
            .set_column_dictionary_enabled(leaf.clone(), false)
            .set_column_encoding(leaf, Encoding::BYTE_STREAM_SPLIT);
    }
    let units: BTreeMap<&str, &str> =
        columns.iter().filter_map(|column| Some((column.name.as_str(), column.unit.as_deref()?))).collect();
    if let Ok(units) = serde_json::to_string(&units) {
        properties =
            properties.set_key_value_metadata(Some(vec![KeyValue::new(UNITS_KEY.to_owned(), units)]));
    }
    let options =
        ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
    atomic::write(path, |file| {
        let mut writer = ArrowWriter::try_new_with_options(file, schema.clone(), options).map_err(failed)?;
        let mut rows = 0;
        for arrays in batches {
            let arrays = arrays?;
            for (array, column) in arrays.iter().zip(columns) {
                check_array(path, array, column)?;
            }
            let batch = RecordBatch::try_new(schema.clone(), arrays).map_err(|error| failed(error.into()))?;
            rows += batch.num_rows() as u64;
            writer.write(&batch).map_err(failed)?;
            writer.flush().map_err(failed)?;
        }
        writer.close().map_err(failed)?;
        Ok(rows)
    })
}

fn field_of(column: &ColumnSpec) -> Field {
    let inner = column.dtype.to_arrow();
    let data_type = match column.kind {
        Kind::Flat => inner,
        Kind::List => DataType::List(Arc::new(Field::new("element", inner, true))),
    };
    Field::new(&column.name, data_type, true)
}

fn check_array(path: &Path, array: &ArrayRef, column: &ColumnSpec) -> Result<(), DataError> {
    let wanted = field_of(column);
    if array.data_type() == wanted.data_type() {
        return Ok(());
    }
    Err(DataError::ColumnType {
        path: path.to_owned(),
        name: column.name.clone(),
        needed_for: "writing",
        found: array.data_type().to_string(),
        expected: wanted.data_type().to_string(),
    })
}

/// A list array of the values of consecutive rows with the given lengths.
fn list(values: ArrayRef, lengths: impl Iterator<Item = usize>) -> ArrayRef {
    let field = Arc::new(Field::new("element", values.data_type().clone(), true));
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), values, None))
}

fn floats(precision: Precision, values: impl Iterator<Item = f64>) -> ArrayRef {
    match precision {
        Precision::Single => Arc::new(values.map(|value| value as f32).collect::<Float32Array>()),
        Precision::Double => Arc::new(values.collect::<Float64Array>()),
    }
}

/// Labels with null for [`NO_LABEL`].
fn labels(labels: &[u32]) -> ArrayRef {
    Arc::new(labels.iter().map(|label| (*label != NO_LABEL).then_some(*label)).collect::<UInt32Array>())
}

fn row_groups(rows: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..rows).step_by(ROWS_PER_GROUP).map(move |start| start..(start + ROWS_PER_GROUP).min(rows))
}

/// Writes jets: `event_id`, `jet_index`, `label` (if any jet has one), `jet_pt`, `jet_eta`, `jet_phi`, `jet_mass`, and the lists
/// `part_pt`, `part_deta`, `part_dphi`, `part_energy`; the number of rows.
///
/// # Errors
/// [`DataError::Io`].
pub fn write_jets(path: &Path, jets: &Jets, precision: Precision) -> Result<u64, DataError> {
    let dtype = match precision {
        Precision::Single => DType::F32,
        Precision::Double => DType::F64,
    };
    let flat = |name: &str| ColumnSpec::new(name, Kind::Flat, dtype.clone());
    let part = |name: &str| ColumnSpec::new(name, Kind::List, dtype.clone());
    let labelled = jets.label.iter().any(|label| *label != NO_LABEL);
    let mut columns = vec![
        ColumnSpec::new("event_id", Kind::Flat, DType::U64),
        ColumnSpec::new("jet_index", Kind::Flat, DType::U32),
    ];
    if labelled {
        columns.push(ColumnSpec::new("label", Kind::Flat, DType::U32));
    }
    columns.extend([
        flat("jet_pt").with_unit("GeV"),
        flat("jet_eta"),
        flat("jet_phi").with_unit("rad"),
        flat("jet_mass").with_unit("GeV"),
        part("part_pt").with_unit("GeV"),
        part("part_deta"),
        part("part_dphi").with_unit("rad"),
        part("part_energy").with_unit("GeV"),
    ]);
    let batches = row_groups(jets.len()).map(|rows| {
        let lengths = || rows.clone().map(|jet| jets.constituents_of(jet).len());
        let parts: Vec<[f64; 4]> = rows.clone().flat_map(|jet| relative(jets, jet, precision)).collect();
        let part = |at: usize| list(floats(precision, parts.iter().map(|part| part[at])), lengths());
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from(jets.event_id[rows.clone()].to_vec())),
            Arc::new(UInt32Array::from(jets.jet_index[rows.clone()].to_vec())),
        ];
        if labelled {
            arrays.push(labels(&jets.label[rows.clone()]));
        }
        for values in [&jets.jet_pt_gev, &jets.jet_eta, &jets.jet_phi, &jets.jet_mass_gev] {
            arrays.push(floats(precision, values[rows.clone()].iter().copied()));
        }
        arrays.extend([part(0), part(1), part(2), part(3)]);
        Ok(arrays)
    });
    write_table(path, &columns, batches)
}

/// pt, eta and phi relative to the axis as it will be read back, energy, of each constituent of a jet.
fn relative(jets: &Jets, jet: usize, precision: Precision) -> impl Iterator<Item = [f64; 4]> {
    let round = move |value: f64| match precision {
        Precision::Single => f64::from(value as f32),
        Precision::Double => value,
    };
    let (jet_eta, jet_phi) = (round(jets.jet_eta[jet]), round(jets.jet_phi[jet]));
    jets.constituents_of(jet).iter().map(move |momentum| {
        let pt = round(momentum.pt());
        let deta = round(momentum.pseudorapidity() - jet_eta);
        let dphi = round(jetgraft_physics::delta_phi(momentum.phi(), jet_phi));
        let energy = match precision {
            Precision::Double => momentum.energy,
            Precision::Single => {
                let rounded = FourMomentum::from_pt_eta_phi_energy(pt, jet_eta + deta, jet_phi + dphi, 0.0);
                (momentum.mass2().max(0.0) + rounded.p2()).sqrt()
            }
        };
        [pt, deta, dphi, energy]
    })
}

/// Writes Lund trees: `event_id`, `jet_index`, `label` (if any jet has one), `jet_pt`, `jet_mass`, and the lists `ln_z`, `ln_delta`,
/// `psi`, `ln_m`, `ln_kt` (f32, natural logarithms, of GeV where there is a unit) and `parent` (-1 for the root),
/// root first, then depth first, harder branch before softer. Jets that cannot be taken apart are
/// dropped and counted.
///
/// # Errors
/// [`DataError::Io`], [`DataError::Physics`] when the cuts make no sense.
pub fn write_lund(path: &Path, jets: &Jets, cuts: &LundCuts, psi: PsiForm) -> Result<Ledger, DataError> {
    let coordinate = |name: &str| ColumnSpec::new(name, Kind::List, DType::F32);
    let labelled = jets.label.iter().any(|label| *label != NO_LABEL);
    let mut columns = vec![
        ColumnSpec::new("event_id", Kind::Flat, DType::U64),
        ColumnSpec::new("jet_index", Kind::Flat, DType::U32),
    ];
    if labelled {
        columns.push(ColumnSpec::new("label", Kind::Flat, DType::U32));
    }
    columns.extend([
        ColumnSpec::new("jet_pt", Kind::Flat, DType::F32).with_unit("GeV"),
        ColumnSpec::new("jet_mass", Kind::Flat, DType::F32).with_unit("GeV"),
        coordinate("ln_z"),
        coordinate("ln_delta"),
        coordinate("psi").with_unit("rad"),
        coordinate("ln_m").with_unit("ln GeV"),
        coordinate("ln_kt").with_unit("ln GeV"),
        ColumnSpec::new("parent", Kind::List, DType::I32),
    ]);
    let mut ledger = Ledger::default();
    // Trees are large: they are made for one row group at a time.
    let batches = row_groups(jets.len()).map(|rows| {
        let rows: Vec<usize> = rows.collect();
        let group = jets.select(&rows);
        let mut kept = Vec::new();
        let mut trees: Vec<LundTree> = Vec::new();
        for (jet, tree) in lund_trees(&group, cuts)?.into_iter().enumerate() {
            match tree {
                Ok(tree) => {
                    ledger.use_row();
                    ledger.note("jets without a declustering", u64::from(tree.nodes.is_empty()));
                    kept.push(jet);
                    trees.push(tree);
                }
                Err(_) => ledger.drop_row("constituents that cannot be clustered"),
            }
        }
        let group = group.select(&kept);
        let lengths = || trees.iter().map(|tree| tree.nodes.len());
        let nodes = || trees.iter().flat_map(|tree| &tree.nodes);
        let single = |values: Vec<f64>| floats(Precision::Single, values.into_iter());
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from(group.event_id.clone())),
            Arc::new(UInt32Array::from(group.jet_index.clone())),
        ];
        if labelled {
            arrays.push(labels(&group.label));
        }
        arrays.push(single(group.jet_pt_gev.clone()));
        arrays.push(single(group.jet_mass_gev.clone()));
        arrays.push(list(single(nodes().map(|node| node.ln_z).collect()), lengths()));
        arrays.push(list(single(nodes().map(|node| node.ln_delta).collect()), lengths()));
        arrays.push(list(single(nodes().map(|node| node.psi(psi)).collect()), lengths()));
        arrays.push(list(single(nodes().map(|node| node.ln_m).collect()), lengths()));
        arrays.push(list(single(nodes().map(|node| node.ln_kt).collect()), lengths()));
        let parents: Int32Array =
            nodes().map(|node| Some(node.parent.map_or(-1, |parent| parent as i32))).collect();
        arrays.push(list(Arc::new(parents), lengths()));
        Ok(arrays)
    });
    let written = write_table(path, &columns, batches)?;
    ledger.check()?;
    if written != ledger.used {
        return Err(DataError::Ledger { read: ledger.used, used: written, dropped: 0 });
    }
    Ok(ledger)
}

/// What a network says about jets; J jets, C classes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// `[C]`: names of the classes.
    pub classes: Vec<String>,
    /// `[J]`: the collision each jet is from.
    pub event_id: Vec<u64>,
    /// `[J]`: true class, [`NO_LABEL`] where unknown; empty when no jet has one.
    pub label: Vec<u32>,
    /// `[J * C]`: logits, jet by jet.
    pub logits: Vec<f32>,
    /// `[J]`: transverse momentum, GeV; empty when not known.
    pub jet_pt_gev: Vec<f32>,
    /// `[J]`: mass, GeV; empty when not known.
    pub jet_mass_gev: Vec<f32>,
}

impl Scores {
    /// Number of jets.
    pub fn len(&self) -> usize {
        self.event_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.event_id.is_empty()
    }

    /// Probabilities of all classes for each jet, `[J * C]`: the softmax of the logits, computed in f64.
    pub fn probabilities(&self) -> Vec<f32> {
        let mut all = Vec::with_capacity(self.logits.len());
        for logits in self.logits.chunks_exact(self.classes.len().max(1)) {
            let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - top).exp()).collect();
            let sum: f64 = powers.iter().sum();
            all.extend(powers.iter().map(|power| (power / sum) as f32));
        }
        all
    }

    /// Checks lengths and that all logits are finite.
    ///
    /// # Errors
    /// [`DataError::Option`].
    pub fn check(&self) -> Result<(), DataError> {
        let jets = self.len();
        let sound = self.classes.len() >= 2
            && self.logits.len() == jets * self.classes.len()
            && [self.label.len(), self.jet_pt_gev.len(), self.jet_mass_gev.len()]
                .iter()
                .all(|len| *len == 0 || *len == jets);
        if !sound {
            return Err(DataError::option(
                "scores",
                format!("{jets} jets, {} classes, {} logits", self.classes.len(), self.logits.len()),
                "two or more classes, one logit a jet and class, columns of one length",
            ));
        }
        if let Some(label) =
            self.label.iter().find(|label| **label != NO_LABEL && **label as usize >= self.classes.len())
        {
            return Err(DataError::option("label", label, format!("below {}", self.classes.len())));
        }
        if let Some(at) = self.logits.iter().position(|logit| !logit.is_finite()) {
            let jet = at / self.classes.len();
            return Err(DataError::option(
                format!("logit_{} of row {jet}", self.classes[at % self.classes.len()]),
                self.logits[at],
                "a finite number",
            ));
        }
        Ok(())
    }
}

/// Writes scores: `event_id`, `label` when known, `logit_<class>`, `score_<class>` (f32), then `jet_pt` and `jet_mass` when
/// known; one row a jet in the order given.
///
/// # Errors
/// [`DataError::Option`] for scores that do not fit together or are not finite, [`DataError::Io`].
pub fn write_scores(path: &Path, scores: &Scores) -> Result<u64, DataError> {
    scores.check()?;
    let width = scores.classes.len();
    let mut columns = vec![ColumnSpec::new("event_id", Kind::Flat, DType::U64)];
    let labelled = scores.label.iter().any(|label| *label != NO_LABEL);
    if labelled {
        columns.push(ColumnSpec::new("label", Kind::Flat, DType::U32));
    }
    for prefix in ["logit", "score"] {
        for class in &scores.classes {
            columns.push(ColumnSpec::new(format!("{prefix}_{class}"), Kind::Flat, DType::F32));
        }
    }
    for (name, values) in [("jet_pt", &scores.jet_pt_gev), ("jet_mass", &scores.jet_mass_gev)] {
        if !values.is_empty() {
            columns.push(ColumnSpec::new(name, Kind::Flat, DType::F32).with_unit("GeV"));
        }
    }
    let probabilities = scores.probabilities();
    let batches = row_groups(scores.len()).map(|rows| {
        let mut arrays: Vec<ArrayRef> =
            vec![Arc::new(UInt64Array::from(scores.event_id[rows.clone()].to_vec()))];
        if labelled {
            arrays.push(labels(&scores.label[rows.clone()]));
        }
        for values in [&scores.logits, &probabilities] {
            for class in 0..width {
                let column: Float32Array =
                    rows.clone().map(|jet| Some(values[jet * width + class])).collect();
                arrays.push(Arc::new(column));
            }
        }
        for values in [&scores.jet_pt_gev, &scores.jet_mass_gev] {
            if !values.is_empty() {
                arrays.push(Arc::new(Float32Array::from(values[rows.clone()].to_vec())));
            }
        }
        Ok(arrays)
    });
    write_table(path, &columns, batches)
}

/// Reads scores that [`write_scores`] wrote, or that another program wrote under the same names.
///
/// # Errors
/// Everything that reading can refuse; [`DataError::NoColumn`] when there are no `logit_*` columns, [`DataError::Option`] for
/// values that do not fit together.
pub fn read_scores(path: &Path) -> Result<Scores, DataError> {
    crate::formats::recognise(path)?;
    let table = ParquetTable::open(path)?;
    let names: Vec<String> = table.columns().iter().map(|column| column.name.clone()).collect();
    let classes: Vec<String> =
        names.iter().filter_map(|name| name.strip_prefix("logit_")).map(str::to_owned).collect();
    crate::table::find(path, table.columns(), "event_id", "scores")?;
    if classes.is_empty() {
        return Err(DataError::NoColumn {
            path: path.to_owned(),
            name: "logit_<class>".into(),
            needed_for: "scores",
            nearest: crate::error::nearest("logit_", names.iter().map(String::as_str)),
            found: names,
        });
    }
    let optional = |name: &str| names.iter().any(|other| other == name).then(|| name.to_owned());
    let (label, pt, mass) = (optional("label"), optional("jet_pt"), optional("jet_mass"));
    let logits: Vec<String> = classes.iter().map(|class| format!("logit_{class}")).collect();
    let mut wanted = vec!["event_id".to_owned()];
    wanted.extend(logits.iter().chain(&label).chain(&pt).chain(&mass).cloned());

    let mut scores = Scores { classes, ..Scores::default() };
    for group in 0..table.groups() {
        for batch in table.read(group, &wanted)? {
            let batch = batch?;
            let broken = |name: &str, found: String, expected: &str| DataError::ColumnType {
                path: path.to_owned(),
                name: name.to_owned(),
                needed_for: "scores",
                found,
                expected: expected.into(),
            };
            let column = |name: &str| {
                batch.column_by_name(name).ok_or_else(|| broken(name, "not there".into(), "there"))
            };
            let numbers = |name: &str| -> Result<Vec<f32>, DataError> {
                let array = column(name)?;
                float_values(array)
                    .and_then(|values| values.into_iter().map(|value| value.map(|v| v as f32)).collect())
                    .ok_or_else(|| broken(name, array.data_type().to_string(), "numbers without nulls"))
            };
            let ids = column("event_id")?;
            match ids.as_primitive_opt::<arrow::datatypes::UInt64Type>() {
                Some(ids) if ids.null_count() == 0 => scores.event_id.extend(ids.values()),
                _ => {
                    let values = integer_values(ids)
                        .and_then(|values| {
                            values.into_iter().map(|id| Some(id? as u64)).collect::<Option<Vec<_>>>()
                        })
                        .ok_or_else(|| {
                            broken("event_id", ids.data_type().to_string(), "integers without nulls")
                        })?;
                    scores.event_id.extend(values);
                }
            }
            if let Some(name) = &label {
                let array = column(name)?;
                let values = integer_values(array)
                    .ok_or_else(|| broken(name, array.data_type().to_string(), "integers"))?;
                for value in values {
                    scores.label.push(match value {
                        None => NO_LABEL,
                        Some(value) => u32::try_from(value)
                            .map_err(|_| broken(name, value.to_string(), "numbers of classes"))?,
                    });
                }
            }
            let parts = logits.iter().map(|name| numbers(name)).collect::<Result<Vec<_>, _>>()?;
            for row in 0..batch.num_rows() {
                scores.logits.extend(parts.iter().map(|part| part[row]));
            }
            if let Some(name) = &pt {
                scores.jet_pt_gev.extend(numbers(name)?);
            }
            if let Some(name) = &mass {
                scores.jet_mass_gev.extend(numbers(name)?);
            }
        }
    }
    scores.check()?;
    Ok(scores)
}
