//! From files to jets: read, selected, labelled, checked, every row accounted for.

use std::path::PathBuf;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::record_batch::RecordBatch;
use jetgraft_physics::{FourMomentum, pdg};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::columns::{ConstituentForm, Extras, IdentityColumns, JetColumns, Resolved};
use crate::error::DataError;
use crate::formats::lund_json::numbered_event_id;
use crate::formats::{OpenOptions, open_with};
use crate::ledger::Ledger;
use crate::manifest::{self, FileEntry, Manifest};
use crate::select::{Selection, float_values, integer_values};
use crate::table::{ColumnSpec, TableReader};

/// Label of a jet in a query without classes, or of one that no class claims where such jets are kept.
pub const NO_LABEL: u32 = u32::MAX;

/// Note of the ledger for LundNet lines whose element 0 is a four-momentum but not the jet's.
const NOT_THE_SUM: &str = "element 0 differs from the sum of the rest";

/// A class of jets; its label is its place in the query's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassSpec {
    /// Name in tables and files.
    pub name: String,
    /// Which rows belong to it, as a [`Selection`]; absent: every row (of its files).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Files it comes from, as they are written in the query; empty: any file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PathBuf>,
}

impl ClassSpec {
    /// A class of the rows for which an expression holds.
    pub fn new(name: impl Into<String>, when: impl Into<String>) -> Self {
        Self { name: name.into(), when: Some(when.into()), files: Vec::new() }
    }

    /// A class of all rows of some files.
    pub fn of_files(name: impl Into<String>, files: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self { name: name.into(), when: None, files: files.into_iter().map(Into::into).collect() }
    }
}

/// What happens to a row whose numbers cannot be a jet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBad {
    /// It is left out and counted in the ledger.
    #[default]
    Drop,
    /// Reading ends with an error that names the row.
    Error,
}

/// Which jets to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JetQuery {
    /// The files, read in this order.
    pub files: Vec<PathBuf>,
    /// Names of the columns.
    pub columns: JetColumns,
    /// Which rows to use at all, as a [`Selection`]; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<String>,
    /// The classes in order; a row in two is an error. Empty: jets without labels.
    pub classes: Vec<ClassSpec>,
    /// Keep jets that no class claims, with [`NO_LABEL`], instead of leaving them out.
    pub keep_unlabelled: bool,
    /// What happens to rows with NaN, infinities, nulls or no constituents.
    pub on_bad: OnBad,
    /// What to read of constituents beyond their momenta.
    pub extras: Extras,
    /// Choices that only one format has.
    pub open: OpenOptions,
}

impl JetQuery {
    /// All rows of some files in the given classes, with default columns.
    pub fn new(files: impl IntoIterator<Item = impl Into<PathBuf>>, classes: Vec<ClassSpec>) -> Self {
        Self { files: files.into_iter().map(Into::into).collect(), classes, ..Self::default() }
    }
}

/// Jets with their constituents, column by column; J jets, P constituents over all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Jets {
    /// `[J]`: the collision each jet is from.
    pub event_id: Vec<u64>,
    /// `[J]`: rank of the jet in its event.
    pub jet_index: Vec<u32>,
    /// `[J]`: number of the class, or [`NO_LABEL`].
    pub label: Vec<u32>,
    /// `[J]`: transverse momentum, GeV.
    pub jet_pt_gev: Vec<f64>,
    /// `[J]`: pseudorapidity of the axis.
    pub jet_eta: Vec<f64>,
    /// `[J]`: azimuth of the axis, rad.
    pub jet_phi: Vec<f64>,
    /// `[J]`: mass, GeV.
    pub jet_mass_gev: Vec<f64>,
    /// `[J + 1]`: constituents of jet `j` are `offsets[j]..offsets[j + 1]`.
    pub offsets: Vec<usize>,
    /// `[P]`: momenta in the laboratory, GeV.
    pub constituents: Vec<FourMomentum>,
    /// `[P]`: charge (units of e), then 1 or 0 for charged hadron, neutral hadron, photon, electron, muon; `None` where the
    /// query did not ask ([`Extras::identity`]).
    pub identity: Option<Vec<[f32; 6]>>,
    /// `[P]`: transverse impact parameter, its error, longitudinal one, its error, as in the file (JetClass: mm); `None`
    /// where the query did not ask ([`Extras::displacement`]).
    pub displacement: Option<Vec<[f32; 4]>>,
}

impl Jets {
    /// Number of jets.
    pub fn len(&self) -> usize {
        self.event_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.event_id.is_empty()
    }

    /// Constituents of one jet.
    ///
    /// # Panics
    /// When `jet` is not below [`Jets::len`].
    pub fn constituents_of(&self, jet: usize) -> &[FourMomentum] {
        &self.constituents[self.offsets[jet]..self.offsets[jet + 1]]
    }

    /// Number of jets of each class; `classes` is the number of classes of the query.
    pub fn class_counts(&self, classes: usize) -> Vec<u64> {
        let mut counts = vec![0; classes];
        for label in &self.label {
            if let Some(count) = counts.get_mut(*label as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// The jets with the given numbers, in that order.
    ///
    /// # Panics
    /// When a number is not below [`Jets::len`].
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut offsets = Vec::with_capacity(rows.len() + 1);
        offsets.push(0);
        let mut constituents = Vec::new();
        for row in rows {
            constituents.extend_from_slice(self.constituents_of(*row));
            offsets.push(constituents.len());
        }
        let floats = |values: &[f64]| rows.iter().map(|row| values[*row]).collect();
        let ranges = || rows.iter().map(|row| self.offsets[*row]..self.offsets[row + 1]);
        Self {
            event_id: rows.iter().map(|row| self.event_id[*row]).collect(),
            jet_index: rows.iter().map(|row| self.jet_index[*row]).collect(),
            label: rows.iter().map(|row| self.label[*row]).collect(),
            jet_pt_gev: floats(&self.jet_pt_gev),
            jet_eta: floats(&self.jet_eta),
            jet_phi: floats(&self.jet_phi),
            jet_mass_gev: floats(&self.jet_mass_gev),
            offsets,
            constituents,
            identity: self
                .identity
                .as_ref()
                .map(|of| ranges().flat_map(|range| &of[range]).copied().collect()),
            displacement: self
                .displacement
                .as_ref()
                .map(|of| ranges().flat_map(|range| &of[range]).copied().collect()),
        }
    }

    /// Jets without any, with room for what a query asks for.
    fn none(extras: Extras) -> Self {
        Self {
            offsets: vec![0],
            identity: extras.identity.then(Vec::new),
            displacement: extras.displacement.then(Vec::new),
            ..Self::default()
        }
    }

    /// Takes back constituents beyond the first `count`.
    fn truncate_constituents(&mut self, count: usize) {
        self.constituents.truncate(count);
        if let Some(identity) = &mut self.identity {
            identity.truncate(count);
        }
        if let Some(displacement) = &mut self.displacement {
            displacement.truncate(count);
        }
    }

    /// Appends other jets. What only one of the two knows of its constituents is lost.
    pub fn append(&mut self, other: &Self) {
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        let base = self.constituents.len();
        append_column(&mut self.identity, &other.identity, self.event_id.is_empty());
        append_column(&mut self.displacement, &other.displacement, self.event_id.is_empty());
        self.event_id.extend_from_slice(&other.event_id);
        self.jet_index.extend_from_slice(&other.jet_index);
        self.label.extend_from_slice(&other.label);
        self.jet_pt_gev.extend_from_slice(&other.jet_pt_gev);
        self.jet_eta.extend_from_slice(&other.jet_eta);
        self.jet_phi.extend_from_slice(&other.jet_phi);
        self.jet_mass_gev.extend_from_slice(&other.jet_mass_gev);
        self.constituents.extend_from_slice(&other.constituents);
        self.offsets.extend(other.offsets.iter().skip(1).map(|offset| base + offset));
    }
}

fn append_column<T: Copy>(mine: &mut Option<Vec<T>>, other: &Option<Vec<T>>, first: bool) {
    match (&mut *mine, other) {
        (Some(mine), Some(other)) => mine.extend_from_slice(other),
        (None, Some(other)) if first => *mine = Some(other.clone()),
        _ => *mine = None,
    }
}

/// Whole events as lists of particles, for clustering; E events, P particles over all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Events {
    /// `[E]`.
    pub event_id: Vec<u64>,
    /// `[E + 1]`: particles of event `e` are `offsets[e]..offsets[e + 1]`.
    pub offsets: Vec<usize>,
    /// `[P]`: momenta, GeV.
    pub particles: Vec<FourMomentum>,
}

impl Events {
    /// Number of events.
    pub fn len(&self) -> usize {
        self.event_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.event_id.is_empty()
    }

    /// Particles of one event.
    ///
    /// # Panics
    /// When `event` is not below [`Events::len`].
    pub fn particles_of(&self, event: usize) -> &[FourMomentum] {
        &self.particles[self.offsets[event]..self.offsets[event + 1]]
    }
}

/// Reads jets, on the threads of the current `rayon` pool; the result does not depend on their number.
///
/// Order: files as given, rows as in the file. A row is dropped, in this order of reasons, when the selection
/// does not hold for it or stays undecided because of a missing value, when no class claims it, or when its
/// numbers cannot be a jet (null, NaN or infinity, no constituents; see [`OnBad`]). Constituents that are zero
/// in all components are padding and left out; the ledger notes how many.
///
/// # Units
/// GeV and rad, whatever the file's unit ([`JetColumns::unit`]).
///
/// # Errors
/// Everything that opening and reading can refuse; [`DataError::NoColumn`] and [`DataError::ColumnType`] for the mapping,
/// [`DataError::Expression`] for a selection, [`DataError::TwoClasses`], [`DataError::RaggedMismatch`], [`DataError::SameFile`],
/// [`DataError::BadRow`] if asked for, [`DataError::Empty`] when nothing is left.
pub fn load_jets(query: &JetQuery) -> Result<(Jets, Ledger, Manifest), DataError> {
    check_classes(query)?;
    let (pieces, ledger, manifest) = load(query, false)?;
    let mut jets = Jets::none(query.extras);
    jets.constituents.reserve(pieces.iter().map(|piece| piece.constituents.len()).sum());
    for piece in pieces {
        jets.append(&piece);
    }
    if jets.is_empty() {
        return Err(DataError::Empty { what: "jets".into(), detail: ledger.to_string() });
    }
    if !query.classes.is_empty() {
        for (class, count) in query.classes.iter().zip(jets.class_counts(query.classes.len())) {
            if count == 0 {
                return Err(DataError::Empty {
                    what: format!("jets of class `{}`", class.name),
                    detail: ledger.to_string(),
                });
            }
        }
    }
    Ok((jets, ledger, manifest))
}

/// Reads whole events as lists of particles: the query's Cartesian columns, selection and files count, its classes and
/// jet columns do not. Events without particles are kept.
///
/// # Errors
/// As [`load_jets`].
pub fn load_events(query: &JetQuery) -> Result<(Events, Ledger, Manifest), DataError> {
    let query = JetQuery {
        classes: Vec::new(),
        columns: JetColumns { form: Some(ConstituentForm::Cartesian), ..query.columns.clone() },
        extras: Extras::default(),
        ..query.clone()
    };
    let (pieces, ledger, manifest) = load(&query, true)?;
    let mut events = Events { offsets: vec![0], ..Events::default() };
    for piece in pieces {
        let base = events.particles.len();
        events.event_id.extend(piece.event_id);
        events.particles.extend(piece.constituents);
        events.offsets.extend(piece.offsets.iter().skip(1).map(|offset| base + offset));
    }
    if events.is_empty() {
        return Err(DataError::Empty { what: "events".into(), detail: ledger.to_string() });
    }
    Ok((events, ledger, manifest))
}

fn check_classes(query: &JetQuery) -> Result<(), DataError> {
    for (at, class) in query.classes.iter().enumerate() {
        if query.classes[..at].iter().any(|other| other.name == class.name) {
            return Err(DataError::option(
                "classes",
                format!("`{}` twice", class.name),
                "a list of different names",
            ));
        }
        if let Some(stranger) = class.files.iter().find(|file| !query.files.contains(file)) {
            return Err(DataError::option(
                format!("files of class `{}`", class.name),
                stranger.display(),
                "some of the query's files, written in the same way",
            ));
        }
    }
    Ok(())
}

/// A file with everything that is needed to read its rows.
struct Plan {
    reader: Box<dyn TableReader>,
    resolved: Resolved,
    names: Vec<String>,
    selection: Option<Selection>,
    /// Label and condition of each class that the file can have.
    classes: Vec<(u32, Option<Selection>)>,
    digest: blake3::Hash,
    bytes: u64,
}

impl Plan {
    fn new(query: &JetQuery, path: &PathBuf, events: bool) -> Result<Self, DataError> {
        let reader = open_with(path, &query.open)?;
        let columns = reader.columns().to_vec();
        let mut resolved = query.columns.resolve(path, &columns, query.extras)?;
        if events {
            resolved.jet = None;
            resolved.jet_index = None;
        }
        let parse = |text: &String| Selection::parse(text, &columns);
        let selection = query.selection.as_ref().map(parse).transpose()?;
        let mut classes = Vec::new();
        for (label, class) in query.classes.iter().enumerate() {
            if class.files.is_empty() || class.files.contains(path) {
                classes.push((label as u32, class.when.as_ref().map(parse).transpose()?));
            }
        }
        let mut names = resolved.names();
        let conditions = selection.iter().chain(classes.iter().filter_map(|(_, when)| when.as_ref()));
        for name in conditions.flat_map(Selection::columns) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let digest = manifest::digest(path)?;
        let bytes = std::fs::metadata(path).map_err(DataError::io(path, "open"))?.len();
        Ok(Self { reader, resolved, names, selection, classes, digest, bytes })
    }

    /// Upper half of event ids made of row numbers.
    fn id_base(&self) -> u64 {
        let digest = self.digest.as_bytes();
        u64::from(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])) << 32
    }
}

fn load(query: &JetQuery, events: bool) -> Result<(Vec<Jets>, Ledger, Manifest), DataError> {
    if query.files.is_empty() {
        return Err(DataError::option("files", "an empty list", "at least one file"));
    }
    let plans: Vec<Plan> =
        query.files.par_iter().map(|path| Plan::new(query, path, events)).collect::<Result<_, _>>()?;
    for (at, plan) in plans.iter().enumerate() {
        if let Some(twin) = plans[..at].iter().position(|other| other.digest == plan.digest) {
            return Err(DataError::SameFile {
                first: query.files[twin].clone(),
                second: query.files[at].clone(),
            });
        }
    }
    let units: Vec<(usize, usize)> = plans
        .iter()
        .enumerate()
        .flat_map(|(file, plan)| (0..plan.reader.groups()).map(move |group| (file, group)))
        .collect();
    // The first error in the order of the rows is reported, whichever thread meets one first.
    let outcomes: Vec<Result<(Jets, Ledger), DataError>> =
        units.par_iter().map(|(file, group)| read_group(query, &plans[*file], *group, events)).collect();

    let mut ledger = Ledger::default();
    let mut rows = vec![0; plans.len()];
    let mut pieces = Vec::with_capacity(outcomes.len());
    for ((file, _), outcome) in units.iter().zip(outcomes) {
        let (piece, part) = outcome?;
        rows[*file] += part.read;
        ledger.merge(&part);
        pieces.push(piece);
    }
    for (plan, read) in plans.iter().zip(&rows) {
        if let Some(promised) = plan.reader.rows()
            && promised != *read
        {
            return Err(DataError::Ledger { read: promised, used: *read, dropped: 0 });
        }
    }
    ledger.check()?;
    tracing::info!(files = plans.len(), "{ledger}");
    if let Some(count) = ledger.notes.get(NOT_THE_SUM) {
        tracing::warn!(
            count,
            "{NOT_THE_SUM}: it may be a constituent that is thrown away (see `first_element`)"
        );
    }
    let files = plans
        .iter()
        .zip(rows)
        .map(|(plan, rows)| FileEntry {
            path: plan.reader.path().to_owned(),
            format: plan.reader.format().to_string(),
            bytes: plan.bytes,
            rows,
            blake3: plan.digest.to_hex().to_string(),
        })
        .collect();
    Ok((pieces, ledger, Manifest { files }))
}

fn read_group(
    query: &JetQuery,
    plan: &Plan,
    group: usize,
    events: bool,
) -> Result<(Jets, Ledger), DataError> {
    let mut jets = Jets::none(query.extras);
    let mut ledger = Ledger::default();
    let mut first_row = plan.reader.first_row(group);
    for batch in plan.reader.read(group, &plan.names)? {
        let batch = batch?;
        let rows = batch.num_rows() as u64;
        let before = ledger.read;
        BatchReader { query, plan, batch: &batch, first_row, events }.read(&mut jets, &mut ledger)?;
        if ledger.read != before + rows {
            return Err(DataError::Ledger { read: rows, used: ledger.read - before, dropped: 0 });
        }
        first_row += rows;
    }
    ledger.check()?;
    Ok((jets, ledger))
}

struct BatchReader<'a> {
    query: &'a JetQuery,
    plan: &'a Plan,
    batch: &'a RecordBatch,
    first_row: u64,
    events: bool,
}

/// Values of a list column, whatever their precision.
struct Lists {
    offsets: Vec<usize>,
    valid: Option<arrow::buffer::NullBuffer>,
    values: Vec<f64>,
}

impl Lists {
    fn new(array: &ArrayRef) -> Option<Self> {
        let list: &ListArray = array.as_list_opt::<i32>()?;
        let values = list.values();
        // A null inside a list is a missing number: NaN, so that the row is seen as bad.
        let values: Vec<f64> = match (values.data_type(), values.null_count()) {
            (DataType::Float32, 0) => values
                .as_primitive_opt::<Float32Type>()?
                .values()
                .iter()
                .map(|value| f64::from(*value))
                .collect(),
            (DataType::Float64, 0) => values.as_primitive_opt::<Float64Type>()?.values().to_vec(),
            // Flags may be written as truth values.
            (DataType::Boolean, _) => values
                .as_boolean_opt()?
                .iter()
                .map(|value| value.map_or(f64::NAN, |truth| f64::from(u8::from(truth))))
                .collect(),
            _ => float_values(values)?.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect(),
        };
        Some(Self {
            offsets: list.offsets().iter().map(|offset| *offset as usize).collect(),
            valid: list.nulls().cloned(),
            values,
        })
    }

    /// Values of a row; `None` for a null list.
    fn row(&self, row: usize) -> Option<&[f64]> {
        if self.valid.as_ref().is_some_and(|valid| valid.is_null(row)) {
            return None;
        }
        self.values.get(self.offsets[row]..self.offsets[row + 1])
    }
}

/// The list columns of one batch.
#[derive(Default)]
struct ConstituentLists {
    momenta: Vec<Lists>,
    /// Charge and flags, or particle numbers.
    identity: Vec<Lists>,
    /// Whether `identity` is particle numbers.
    by_number: bool,
    displacement: Vec<Lists>,
}

/// Charge and flags of a particle number; `None` if it is none.
fn by_number(number: f64) -> Option<[f32; 6]> {
    let code = number as i32;
    if f64::from(code) != number {
        return None;
    }
    let kind = pdg::kind(code)?;
    let mut values = [0.0; 6];
    values[0] = pdg::charge(code)? as f32;
    values[1 + kind as usize] = 1.0;
    Some(values)
}

impl BatchReader<'_> {
    fn column(&self, name: &str) -> Result<&ArrayRef, DataError> {
        self.batch.column_by_name(name).ok_or_else(|| DataError::NoColumn {
            path: self.plan.reader.path().to_owned(),
            name: name.to_owned(),
            needed_for: "reading",
            found: self.batch.schema().fields().iter().map(|field| field.name().clone()).collect(),
            nearest: vec![],
        })
    }

    fn wrong(&self, name: &str, expected: &str) -> DataError {
        DataError::ColumnType {
            path: self.plan.reader.path().to_owned(),
            name: name.to_owned(),
            needed_for: "reading",
            found: "of another type".into(),
            expected: expected.into(),
        }
    }

    fn numbers(&self, name: &str) -> Result<Vec<Option<f64>>, DataError> {
        float_values(self.column(name)?).ok_or_else(|| self.wrong(name, "numbers"))
    }

    fn integers(&self, name: &str) -> Result<Vec<Option<i128>>, DataError> {
        integer_values(self.column(name)?).ok_or_else(|| self.wrong(name, "integers"))
    }

    fn read(&self, jets: &mut Jets, ledger: &mut Ledger) -> Result<(), DataError> {
        let resolved = &self.plan.resolved;
        let rows = self.batch.num_rows();
        let keep =
            self.plan.selection.as_ref().map(|selection| selection.evaluate(self.batch)).transpose()?;
        let classes: Vec<(u32, Option<BooleanArray>)> = self
            .plan
            .classes
            .iter()
            .map(|(label, when)| {
                Ok((*label, when.as_ref().map(|when| when.evaluate(self.batch)).transpose()?))
            })
            .collect::<Result<_, DataError>>()?;
        let event_id = resolved.event_id.as_ref().map(|name| self.integers(name)).transpose()?;
        let jet_index = resolved.jet_index.as_ref().map(|name| self.integers(name)).transpose()?;
        let axis = match &resolved.jet {
            Some(names) => Some([
                self.numbers(&names[0])?,
                self.numbers(&names[1])?,
                self.numbers(&names[2])?,
                self.numbers(&names[3])?,
            ]),
            None => None,
        };
        let lists_of = |names: &[String]| {
            names
                .iter()
                .map(|name| {
                    Lists::new(self.column(name)?).ok_or_else(|| self.wrong(name, "lists of numbers"))
                })
                .collect::<Result<Vec<_>, _>>()
        };
        let mut columns = ConstituentLists { momenta: lists_of(&resolved.lists)?, ..Default::default() };
        match &resolved.identity {
            Some(IdentityColumns::Flags(names)) => columns.identity = lists_of(names)?,
            Some(IdentityColumns::Pdg(name)) => {
                columns.identity = lists_of(std::slice::from_ref(name))?;
                columns.by_number = true;
            }
            None => {}
        }
        if let Some(names) = &resolved.displacement {
            columns.displacement = lists_of(names)?;
        }
        if let Some(name) = &resolved.first_is_sum {
            self.note_first_element(name, ledger)?;
        }

        let mut padding = 0u64;
        for row in 0..rows {
            if let Some(keep) = &keep {
                if keep.is_null(row) {
                    ledger.drop_row("selection undecided: a value is missing");
                    continue;
                }
                if !keep.value(row) {
                    ledger.drop_row("selection");
                    continue;
                }
            }
            let id =
                match &event_id {
                    None => numbered_event_id(self.plan.id_base(), self.first_row + row as u64).ok_or_else(
                        || DataError::option("event_id", "@row in a file of 2^32 rows", "a column"),
                    )?,
                    Some(ids) => match ids[row].map(|id| id as u64) {
                        Some(id) => id,
                        None => {
                            self.bad(row, "null event id", ledger)?;
                            continue;
                        }
                    },
                };
            let Some(label) = self.label(row, id, &classes)? else {
                ledger.drop_row("in no class");
                continue;
            };
            let index = match &jet_index {
                None => 0,
                Some(indices) => match indices[row].map(u32::try_from) {
                    Some(Ok(index)) => index,
                    _ => {
                        self.bad(row, "null or negative jet index", ledger)?;
                        continue;
                    }
                },
            };
            let axis = match axis.as_ref().map(|axis| axis.each_ref().map(|values| values[row])) {
                None => None,
                Some([Some(pt), Some(eta), Some(phi), Some(energy)]) if resolved.jet_energy => {
                    let p = pt * eta.cosh();
                    let m2 = (energy - p) * (energy + p);
                    Some([pt, eta, phi, m2.abs().sqrt().copysign(m2)])
                }
                Some([Some(pt), Some(eta), Some(phi), Some(mass)]) => Some([pt, eta, phi, mass]),
                Some(_) => {
                    self.bad(row, "null jet momentum", ledger)?;
                    continue;
                }
            };
            let start = jets.constituents.len();
            match self.constituents(row, axis, &columns, jets)? {
                Ok(left_out) => padding += left_out,
                Err(reason) => {
                    jets.truncate_constituents(start);
                    self.bad(row, reason, ledger)?;
                    continue;
                }
            }
            let unit = self.query.columns.unit.in_gev();
            let kinematics = match axis {
                Some([pt, eta, phi, mass]) => [pt * unit, eta, phi, mass * unit],
                None => {
                    let sum: FourMomentum = jets.constituents[start..].iter().copied().sum();
                    [sum.pt(), sum.pseudorapidity(), sum.phi(), sum.mass()]
                }
            };
            if !self.events {
                if jets.constituents.len() == start {
                    self.bad(row, "no constituents", ledger)?;
                    continue;
                }
                if !kinematics.iter().all(|value| value.is_finite()) {
                    jets.truncate_constituents(start);
                    self.bad(row, "jet momentum not finite", ledger)?;
                    continue;
                }
            }
            jets.event_id.push(id);
            jets.jet_index.push(index);
            jets.label.push(label);
            let [pt, eta, phi, mass] = kinematics;
            jets.jet_pt_gev.push(pt);
            jets.jet_eta.push(eta);
            jets.jet_phi.push(phi);
            jets.jet_mass_gev.push(mass);
            jets.offsets.push(jets.constituents.len());
            ledger.use_row();
        }
        ledger.note("constituents of zero momentum left out as padding", padding);
        Ok(())
    }

    /// Drops a row, or ends reading if the query asks for that.
    fn bad(&self, row: usize, reason: &str, ledger: &mut Ledger) -> Result<(), DataError> {
        match self.query.on_bad {
            OnBad::Drop => {
                ledger.drop_row(reason);
                Ok(())
            }
            OnBad::Error => Err(DataError::BadRow {
                path: self.plan.reader.path().to_owned(),
                row: self.first_row + row as u64,
                reason: reason.to_owned(),
            }),
        }
    }

    fn label(
        &self,
        row: usize,
        event_id: u64,
        classes: &[(u32, Option<BooleanArray>)],
    ) -> Result<Option<u32>, DataError> {
        if self.query.classes.is_empty() {
            return Ok(Some(NO_LABEL));
        }
        let mut found: Option<u32> = None;
        for (label, when) in classes {
            if when.as_ref().is_some_and(|when| when.is_null(row) || !when.value(row)) {
                continue;
            }
            if let Some(first) = found {
                let name = |label: u32| self.query.classes[label as usize].name.clone();
                return Err(DataError::TwoClasses {
                    path: self.plan.reader.path().to_owned(),
                    row: self.first_row + row as u64,
                    event_id,
                    first: name(first),
                    second: name(*label),
                });
            }
            found = Some(*label);
        }
        Ok(found.or(self.query.keep_unlabelled.then_some(NO_LABEL)))
    }

    /// Appends the constituents of a row; the number of padding entries, or why the row is bad.
    fn constituents(
        &self,
        row: usize,
        axis: Option<[f64; 4]>,
        columns: &ConstituentLists,
        jets: &mut Jets,
    ) -> Result<Result<u64, &'static str>, DataError> {
        let mut parts: [&[f64]; 4] = [&[]; 4];
        for (part, list) in parts.iter_mut().zip(&columns.momenta) {
            match list.row(row) {
                Some(values) => *part = values,
                None => return Ok(Err("null constituents")),
            }
        }
        let length = parts[0].len();
        let mut extras: Vec<&[f64]> = Vec::new();
        for list in columns.identity.iter().chain(&columns.displacement) {
            match list.row(row) {
                Some(values) => extras.push(values),
                None => return Ok(Err("null constituents")),
            }
        }
        let lengths = parts.iter().chain(&extras).map(|part| part.len());
        if let Some((other, second_len)) = lengths.enumerate().find(|(_, other)| *other != length) {
            return Err(self.uneven(row, length, other, second_len));
        }
        let unit = self.query.columns.unit.in_gev();
        let [_, jet_eta, jet_phi, _] = axis.unwrap_or_default();
        let mut padding = 0;
        let [first, second, third, fourth] = parts;
        for (at, (((&a, &b), &c), &d)) in first.iter().zip(second).zip(third).zip(fourth).enumerate() {
            let momentum = match self.plan.resolved.form {
                ConstituentForm::Relative if a == 0.0 && d == 0.0 => FourMomentum::default(),
                ConstituentForm::Relative => {
                    FourMomentum::from_pt_eta_phi_energy(a * unit, jet_eta + b, jet_phi + c, d * unit)
                }
                ConstituentForm::Cartesian => FourMomentum::new(a * unit, b * unit, c * unit, d * unit),
            };
            let finite = momentum.px.is_finite()
                && momentum.py.is_finite()
                && momentum.pz.is_finite()
                && momentum.energy.is_finite();
            if !finite {
                return Ok(Err("constituent not finite"));
            }
            if momentum == FourMomentum::default() {
                padding += 1;
                continue;
            }
            jets.constituents.push(momentum);
            let (identity, displacement) = extras.split_at(columns.identity.len());
            if let Some(out) = &mut jets.identity {
                let found = if columns.by_number {
                    by_number(identity[0][at])
                } else {
                    let values: [f32; 6] = std::array::from_fn(|column| identity[column][at] as f32);
                    values.iter().all(|value| value.is_finite()).then_some(values)
                };
                match found {
                    Some(values) => out.push(values),
                    None if columns.by_number => {
                        return Ok(Err("constituent of a number that is no particle"));
                    }
                    None => return Ok(Err("constituent not finite")),
                }
            }
            if let Some(out) = &mut jets.displacement {
                let values: [f32; 4] = std::array::from_fn(|column| displacement[column][at] as f32);
                if !values.iter().all(|value| value.is_finite()) {
                    return Ok(Err("constituent not finite"));
                }
                out.push(values);
            }
        }
        Ok(Ok(padding))
    }

    /// Lists of one row that differ in length; `other` counts through momenta, identity, displacement.
    fn uneven(&self, row: usize, first_len: usize, other: usize, second_len: usize) -> DataError {
        let resolved = &self.plan.resolved;
        let identity: &[String] = match &resolved.identity {
            Some(IdentityColumns::Flags(names)) => names,
            Some(IdentityColumns::Pdg(name)) => std::slice::from_ref(name),
            None => &[],
        };
        let mut names = resolved.lists.iter().chain(identity).chain(resolved.displacement.iter().flatten());
        DataError::RaggedMismatch {
            path: self.plan.reader.path().to_owned(),
            row: self.first_row + row as u64,
            first: resolved.lists[0].clone(),
            first_len,
            second: names.nth(other).cloned().unwrap_or_default(),
            second_len,
        }
    }

    fn note_first_element(&self, name: &str, ledger: &mut Ledger) -> Result<(), DataError> {
        let array = self.column(name)?;
        let Some(answers) = array.as_boolean_opt() else {
            return Err(self.wrong(name, "truth values"));
        };
        let yes = answers.true_count() as u64;
        let unknown = answers.null_count() as u64;
        ledger.note("element 0 is the sum of the rest", yes);
        ledger.note("element 0 is no four-momentum", unknown);
        ledger.note(NOT_THE_SUM, answers.len() as u64 - yes - unknown);
        Ok(())
    }
}

/// Columns that a query would read from a table, for tools that show them.
///
/// # Errors
/// As the mapping in [`load_jets`].
pub fn mapped_columns(columns: &JetColumns, table: &dyn TableReader) -> Result<Vec<ColumnSpec>, DataError> {
    let names = columns.resolve(table.path(), table.columns(), Extras::default())?.names();
    Ok(table.columns().iter().filter(|column| names.contains(&column.name)).cloned().collect())
}
