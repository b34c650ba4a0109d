//! What a file holds: columns, types, units, ranges, ragged lengths, missing values; and what a training could take from it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::columns::{ConstituentForm, EnergyUnit, JetColumns};
use crate::error::DataError;
use crate::formats::{OpenOptions, open_with};
use crate::select::{float_values, integer_values};
use crate::table::{ColumnSpec, ColumnStorage, DType, Format, Kind};

/// Different values of an integer column that are counted before it is no longer a candidate for a class.
const MAX_DISTINCT: usize = 16;

/// Distinct events are counted up to this many rows; beyond, the count is left out.
const MAX_EVENT_ROWS: u64 = 50_000_000;

/// No particle of a proton collider has more energy than this in GeV; a larger number is in MeV.
const LARGEST_GEV: f64 = 14_000.0;

/// Lengths of the lists of a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    /// Shortest.
    pub min: u64,
    /// Mean over rows with a list.
    pub mean: f64,
    /// Longest.
    pub max: u64,
}

/// What a column holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnReport {
    /// Name in the file.
    pub name: String,
    /// One value or a list.
    pub kind: Kind,
    /// Type of the values.
    pub dtype: DType,
    /// Unit: from the file where it says so, else a guess from name and range.
    pub unit: Option<String>,
    /// Whether the unit is a guess.
    pub unit_guessed: bool,
    /// Number of values, over all rows and lists, nulls included.
    pub values: u64,
    /// Smallest finite value.
    pub min: Option<f64>,
    /// Mean of the finite values.
    pub mean: Option<f64>,
    /// Largest finite value.
    pub max: Option<f64>,
    /// Nulls, as a share of values (flat) or rows (list).
    pub null_share: f64,
    /// NaNs, as a share of values; nulls inside a list count here, since they are read as NaN.
    pub nan_share: f64,
    /// Infinities, as a share of values.
    pub infinite_share: f64,
    /// Lengths of the lists.
    pub lengths: Option<Lengths>,
    /// The different values and their counts, for integer and truth columns with at most 16 of them.
    pub distinct: Option<BTreeMap<i64, u64>>,
    /// How it is stored.
    pub storage: Option<ColumnStorage>,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// The file as given.
    pub path: PathBuf,
    /// How it is stored.
    pub format: Format,
    /// Size in bytes.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// Row groups.
    pub groups: usize,
    /// Different values of `event_id`, where there is such a column.
    pub events: Option<u64>,
    /// The columns in the order of the file.
    pub columns: Vec<ColumnReport>,
    /// Things that deserve a look before training.
    pub remarks: Vec<String>,
    /// What a training could take from it.
    pub proposal: Proposal,
}

/// Which columns play which part, and which classes there are, as far as the names and values tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// The usual columns, with the names that this file has for them.
    pub columns: JetColumns,
    /// Keys of [`JetColumns`] that differ from the default, in the order of the struct.
    pub renamed: Vec<String>,
    /// Keys of [`JetColumns`] for which no column was found.
    pub missing: Vec<String>,
    /// Classes; none where the file is one class of several.
    pub classes: Vec<ClassProposal>,
}

/// A class that the columns suggest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassProposal {
    /// A name to begin with, such as `process_1`.
    pub name: String,
    /// The selection, such as `process == 1`.
    pub when: String,
    /// Rows of the class.
    pub rows: u64,
}

/// Sums over the values of a column; added up group by group in the order of the file.
#[derive(Clone, Debug, Default)]
struct Sums {
    rows: u64,
    values: u64,
    null_rows: u64,
    nulls: u64,
    nans: u64,
    infinities: u64,
    finite: u64,
    sum: f64,
    min: f64,
    max: f64,
    shortest: u64,
    longest: u64,
    distinct: Option<BTreeMap<i64, u64>>,
}

impl Sums {
    fn new(column: &ColumnSpec) -> Self {
        let countable = column.kind == Kind::Flat && !column.dtype.is_float();
        Self {
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            shortest: u64::MAX,
            distinct: countable.then(BTreeMap::new),
            ..Self::default()
        }
    }

    fn add_flat(&mut self, array: &ArrayRef) {
        self.rows += array.len() as u64;
        self.null_rows += array.null_count() as u64;
        let counts = self.distinct.take();
        let integers: Option<Vec<Option<i128>>> = match array.as_boolean_opt() {
            Some(truths) => Some(truths.iter().map(|value| value.map(i128::from)).collect()),
            None => counts.is_some().then(|| integer_values(array)).flatten(),
        };
        if let (Some(mut counts), Some(integers)) = (counts, &integers) {
            let small = integers.iter().flatten().all(|value| {
                let Ok(value) = i64::try_from(*value) else { return false };
                *counts.entry(value).or_default() += 1;
                counts.len() <= MAX_DISTINCT
            });
            self.distinct = small.then_some(counts);
        }
        match (array.as_boolean_opt(), integers) {
            (Some(_), Some(integers)) => self.add_values(integers.into_iter().map(|v| v.map(|v| v as f64))),
            _ => self.add_values(float_values(array).unwrap_or_default().into_iter()),
        }
    }

    fn add_list(&mut self, array: &ArrayRef) {
        let Some(list) = array.as_list_opt::<i32>() else { return };
        self.rows += list.len() as u64;
        self.null_rows += list.null_count() as u64;
        for row in (0..list.len()).filter(|row| list.is_valid(*row)) {
            let length = list.value_length(row) as u64;
            self.shortest = self.shortest.min(length);
            self.longest = self.longest.max(length);
        }
        let (first, last) = match (list.offsets().first(), list.offsets().last()) {
            (Some(first), Some(last)) => (*first as usize, *last as usize),
            _ => (0, 0),
        };
        let values = list.values().slice(first, last - first);
        match values.as_boolean_opt() {
            Some(truths) => self.add_values(truths.iter().map(|v| v.map(f64::from))),
            None => self.add_values(float_values(&values).unwrap_or_default().into_iter()),
        }
    }

    fn add_values(&mut self, values: impl Iterator<Item = Option<f64>>) {
        for value in values {
            self.values += 1;
            match value {
                None => self.nulls += 1,
                Some(value) if value.is_nan() => self.nans += 1,
                Some(value) if value.is_infinite() => self.infinities += 1,
                Some(value) => {
                    self.finite += 1;
                    self.sum += value;
                    self.min = self.min.min(value);
                    self.max = self.max.max(value);
                }
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.values += other.values;
        self.null_rows += other.null_rows;
        self.nulls += other.nulls;
        self.nans += other.nans;
        self.infinities += other.infinities;
        self.finite += other.finite;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.shortest = self.shortest.min(other.shortest);
        self.longest = self.longest.max(other.longest);
        self.distinct = match (self.distinct.take(), other.distinct) {
            (Some(mut counts), Some(more)) => {
                for (value, count) in more {
                    *counts.entry(value).or_default() += count;
                }
                (counts.len() <= MAX_DISTINCT).then_some(counts)
            }
            _ => None,
        };
    }
}

/// Looks through a whole file, on the threads of the current `rayon` pool.
///
/// # Errors
/// Everything that opening and reading can refuse. Columns that hold no numbers are listed, not read.
pub fn inspect(path: impl AsRef<Path>) -> Result<Inspection, DataError> {
    inspect_with(path, &OpenOptions::default())
}

/// [`inspect`] with choices for some formats.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Inspection, DataError> {
    let path = path.as_ref();
    let table = open_with(path, options)?;
    let bytes = std::fs::metadata(path).map_err(DataError::io(path, "open"))?.len();
    let readable: Vec<&ColumnSpec> =
        table.columns().iter().filter(|column| column.dtype.is_readable()).collect();
    let names: Vec<String> = readable.iter().map(|column| column.name.clone()).collect();
    let event_column = readable.iter().position(|column| {
        column.name == "event_id" && column.kind == Kind::Flat && column.dtype.is_integer()
    });

    type Group = (u64, Vec<Sums>, Vec<i128>);
    let groups: Vec<Result<Group, DataError>> = (0..table.groups())
        .into_par_iter()
        .map(|group| {
            let mut sums: Vec<Sums> = readable.iter().map(|column| Sums::new(column)).collect();
            let (mut rows, mut events) = (0, Vec::new());
            for batch in table.read(group, &names)? {
                let batch = batch?;
                rows += batch.num_rows() as u64;
                for ((sums, column), array) in sums.iter_mut().zip(&readable).zip(batch.columns()) {
                    match column.kind {
                        Kind::Flat => sums.add_flat(array),
                        Kind::List => sums.add_list(array),
                    }
                }
                if let Some(at) = event_column {
                    events.extend(integer_values(batch.column(at)).unwrap_or_default().into_iter().flatten());
                }
            }
            Ok((rows, sums, events))
        })
        .collect();

    let mut rows = 0;
    let mut sums: Vec<Sums> = readable.iter().map(|column| Sums::new(column)).collect();
    let mut events: HashMap<i128, u32> = HashMap::new();
    for group in groups {
        let (more, parts, ids) = group?;
        rows += more;
        for (whole, part) in sums.iter_mut().zip(parts) {
            whole.merge(part);
        }
        if rows <= MAX_EVENT_ROWS {
            for id in ids {
                *events.entry(id).or_default() += 1;
            }
        }
    }
    let events = (event_column.is_some() && rows <= MAX_EVENT_ROWS).then_some(events.len() as u64);

    let mut sums = sums.into_iter();
    let columns: Vec<ColumnReport> = table
        .columns()
        .iter()
        .map(|column| {
            let sums = if column.dtype.is_readable() { sums.next() } else { None };
            report(column, sums.unwrap_or_else(|| Sums::new(column)), table.storage(&column.name))
        })
        .collect();
    let remarks = remarks(&columns, rows);
    let proposal = propose(&columns);
    Ok(Inspection {
        path: path.to_owned(),
        format: table.format(),
        bytes,
        rows,
        groups: table.groups(),
        events,
        columns,
        remarks,
        proposal,
    })
}

fn report(column: &ColumnSpec, sums: Sums, storage: Option<ColumnStorage>) -> ColumnReport {
    let share = |count: u64, of: u64| if of == 0 { 0.0 } else { count as f64 / of as f64 };
    let some = sums.finite > 0;
    let guess =
        if column.unit.is_none() && some { guess_unit(&column.name, sums.min, sums.max) } else { None };
    ColumnReport {
        name: column.name.clone(),
        kind: column.kind,
        dtype: column.dtype.clone(),
        unit_guessed: guess.is_some(),
        unit: column.unit.clone().or(guess),
        values: sums.values,
        min: some.then_some(sums.min),
        mean: some.then(|| sums.sum / sums.finite as f64),
        max: some.then_some(sums.max),
        null_share: share(sums.null_rows, sums.rows),
        nan_share: share(sums.nans + if column.kind == Kind::List { sums.nulls } else { 0 }, sums.values),
        infinite_share: share(sums.infinities, sums.values),
        lengths: (column.kind == Kind::List && sums.rows > sums.null_rows).then(|| Lengths {
            min: sums.shortest,
            mean: sums.values as f64 / (sums.rows - sums.null_rows) as f64,
            max: sums.longest,
        }),
        distinct: sums.distinct.filter(|counts| !counts.is_empty()),
        storage,
    }
}

/// Words of a column's name.
fn words(name: &str) -> Vec<String> {
    name.to_lowercase().split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect()
}

fn is_energy_like(name: &str) -> bool {
    const ENERGY: [&str; 14] =
        ["pt", "px", "py", "pz", "e", "energy", "mass", "m", "msoftdrop", "sdmass", "et", "met", "ht", "p"];
    words(name).last().is_some_and(|word| ENERGY.contains(&word.as_str()))
}

fn guess_unit(name: &str, min: f64, max: f64) -> Option<String> {
    let largest = max.abs().max(min.abs());
    let words = words(name);
    let last = words.last()?.as_str();
    if is_energy_like(name) {
        return Some(if largest > LARGEST_GEV { "MeV" } else { "GeV" }.to_owned());
    }
    let azimuth = ["phi", "dphi", "deltaphi", "psi"].contains(&last);
    (azimuth && largest <= 2.0 * std::f64::consts::PI + 1e-3).then(|| "rad".to_owned())
}

fn remarks(columns: &[ColumnReport], rows: u64) -> Vec<String> {
    let mut remarks = Vec::new();
    if rows == 0 {
        remarks.push("the file has no rows".to_owned());
    }
    for column in columns {
        let name = &column.name;
        if let DType::Other(what) = &column.dtype {
            remarks.push(format!("`{name}` holds {what} and is not read"));
        }
        for (share, what) in
            [(column.null_share, "null"), (column.nan_share, "NaN"), (column.infinite_share, "infinite")]
        {
            if share > 0.0 {
                remarks.push(format!("`{name}`: {:.2} % {what}", 100.0 * share));
            }
        }
        if column.lengths.is_some_and(|lengths| lengths.min == 0) {
            remarks.push(format!("`{name}`: some lists are empty"));
        }
        if column.unit.as_deref() == Some("MeV") {
            remarks.push(format!(
                "`{name}` looks like MeV: a largest value of {:.3e}",
                column.max.unwrap_or(0.0)
            ));
        }
    }
    let event = columns.iter().any(|column| column.name == "event_id");
    if !event {
        remarks.push(
            "no `event_id`: with row numbers in its place, jets of one event can end in different parts"
                .to_owned(),
        );
    }
    remarks
}

/// The column for a role: the house's name, or the first of the usual other names.
fn role<'a>(columns: &'a [ColumnReport], kind: Kind, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| {
        columns
            .iter()
            .find(|column| {
                column.kind == kind && column.dtype.is_readable() && column.name.eq_ignore_ascii_case(name)
            })
            .map(|column| column.name.as_str())
    })
}

fn propose(columns: &[ColumnReport]) -> Proposal {
    let mut proposed = JetColumns::default();
    let flat = |names: &[&str]| role(columns, Kind::Flat, names);
    let list = |names: &[&str]| role(columns, Kind::List, names);
    let relative = [
        ("part_pt", list(&["part_pt", "pt", "constituent_pt", "pfcand_pt", "trk_pt"])),
        ("part_deta", list(&["part_deta", "part_etarel", "pfcand_etarel", "deta", "constituent_deta"])),
        ("part_dphi", list(&["part_dphi", "part_phirel", "pfcand_phirel", "dphi", "constituent_dphi"])),
        ("part_energy", list(&["part_energy", "part_e", "energy", "constituent_energy"])),
    ];
    let cartesian = [
        ("px", list(&["px", "part_px", "particle_px", "constituent_px"])),
        ("py", list(&["py", "part_py", "particle_py", "constituent_py"])),
        ("pz", list(&["pz", "part_pz", "particle_pz", "constituent_pz"])),
        ("energy", list(&["energy", "e", "part_energy", "part_e", "particle_e", "constituent_energy"])),
    ];
    let complete = |roles: &[(&str, Option<&str>)]| roles.iter().all(|role| role.1.is_some());
    let form = if complete(&relative) {
        Some(ConstituentForm::Relative)
    } else {
        complete(&cartesian).then_some(ConstituentForm::Cartesian)
    };
    let cartesian_form = form == Some(ConstituentForm::Cartesian);
    let event = flat(&["event_id", "eventid", "event_number", "eventnumber", "event"]);
    let mut roles = vec![
        ("event_id", event.or(Some(crate::columns::ROW_AS_EVENT_ID))),
        ("jet_pt", flat(&["jet_pt", "fjet_pt", "fatjet_pt", "j_pt"])),
        ("jet_eta", flat(&["jet_eta", "fjet_eta", "fatjet_eta", "j_eta"])),
        ("jet_phi", flat(&["jet_phi", "fjet_phi", "fatjet_phi", "j_phi"])),
        ("jet_mass", flat(&["jet_mass", "jet_m", "fjet_m", "fatjet_mass", "j_mass"])),
    ];
    let lists = if cartesian_form { &cartesian } else { &relative };
    roles.extend(lists);

    let (mut renamed, mut missing) = (Vec::new(), Vec::new());
    for (key, found) in roles {
        let place = match key {
            "event_id" => &mut proposed.event_id,
            "jet_pt" => &mut proposed.jet_pt,
            "jet_eta" => &mut proposed.jet_eta,
            "jet_phi" => &mut proposed.jet_phi,
            "jet_mass" => &mut proposed.jet_mass,
            "part_pt" => &mut proposed.part_pt,
            "part_deta" => &mut proposed.part_deta,
            "part_dphi" => &mut proposed.part_dphi,
            "part_energy" => &mut proposed.part_energy,
            "px" => &mut proposed.px,
            "py" => &mut proposed.py,
            "pz" => &mut proposed.pz,
            _ => &mut proposed.energy,
        };
        match found {
            Some(name) if name != place => {
                name.clone_into(place);
                renamed.push(key.to_owned());
            }
            // The jet's momentum is the sum of absolute constituents, so its columns may be absent.
            None if !(cartesian_form && key.starts_with("jet_")) => missing.push(key.to_owned()),
            _ => {}
        }
    }
    let used: Vec<&str> = lists.iter().filter_map(|role| role.1).collect();
    let mev = columns.iter().any(|column| {
        used.contains(&column.name.as_str())
            && is_energy_like(&column.name)
            && column.unit.as_deref() == Some("MeV")
    });
    if mev {
        proposed.unit = EnergyUnit::MeV;
        renamed.push("unit".to_owned());
    }
    let classes =
        classes(columns).into_iter().map(|(name, when, rows)| ClassProposal { name, when, rows }).collect();
    Proposal { columns: proposed, renamed, missing, classes }
}

/// Classes that the columns suggest: name, condition, rows.
fn classes(columns: &[ColumnReport]) -> Vec<(String, String, u64)> {
    const NAMES: [&str; 9] =
        ["process", "label", "class", "target", "truth_label", "is_signal", "is_signal_new", "y", "jet_type"];
    let named = NAMES.iter().find_map(|name| {
        columns
            .iter()
            .find(|column| column.name.eq_ignore_ascii_case(name))
            .filter(|column| column.distinct.as_ref().is_some_and(|values| values.len() >= 2))
    });
    if let Some(column) = named {
        let reference = reference(&column.name);
        return column
            .distinct
            .iter()
            .flatten()
            .map(|(value, count)| {
                let when = match (&column.dtype, value) {
                    (DType::Bool, 1) => reference.clone(),
                    (DType::Bool, _) => format!("not {reference}"),
                    _ => format!("{reference} == {value}"),
                };
                (format!("{}_{value}", column.name), when, *count)
            })
            .collect();
    }
    // One column a class, as JetClass has them.
    columns
        .iter()
        .filter_map(|column| {
            let class = column.name.strip_prefix("label_")?;
            let values = column.distinct.as_ref()?;
            let count = *values.get(&1)?;
            let truth = values.keys().all(|value| [0, 1].contains(value));
            let reference = reference(&column.name);
            let when = if column.dtype == DType::Bool { reference } else { format!("{reference} == 1") };
            truth.then(|| (class.to_owned(), when, count))
        })
        .collect()
}

/// A column's name as a selection writes it.
fn reference(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { name.to_owned() } else { format!("`{name}`") }
}

/// A number in about six characters.
fn short(value: f64) -> String {
    let size = value.abs();
    if value == value.trunc() && size < 1e7 {
        format!("{value:.0}")
    } else if (1e-3..1e7).contains(&size) {
        format!("{value:.*}", (3 - size.log10().floor() as i32).clamp(0, 5) as usize)
    } else {
        format!("{value:.3e}")
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}, {} rows in {} groups, {:.1} MB",
            self.path.display(),
            self.format,
            self.rows,
            self.groups,
            self.bytes as f64 / 1e6
        )?;
        match self.events {
            Some(events) => writeln!(f, ", {events} events")?,
            None => writeln!(f)?,
        }
        let head = ["column", "type", "unit", "min", "mean", "max", "lengths", "missing", "stored"];
        let mut rows = vec![head.map(str::to_owned)];
        for column in &self.columns {
            let number = |value: Option<f64>| value.map(short).unwrap_or_default();
            let spec = ColumnSpec::new(&column.name, column.kind, column.dtype.clone());
            let unit = column.unit.clone().unwrap_or_default();
            let missing = column.null_share + column.nan_share + column.infinite_share;
            rows.push([
                column.name.clone(),
                spec.type_name(),
                if column.unit_guessed { format!("{unit}?") } else { unit },
                number(column.min),
                number(column.mean),
                number(column.max),
                column
                    .lengths
                    .map(|lengths| format!("{} .. {:.1} .. {}", lengths.min, lengths.mean, lengths.max))
                    .unwrap_or_default(),
                if missing > 0.0 { format!("{:.3} %", 100.0 * missing) } else { String::new() },
                column
                    .storage
                    .as_ref()
                    .map(|storage| {
                        format!("{} {:.1} kB", storage.compression, storage.compressed_bytes as f64 / 1e3)
                    })
                    .unwrap_or_default(),
            ]);
        }
        let widths: Vec<usize> = (0..head.len())
            .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
            .collect();
        for row in &rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "  {}", cells.join("  ").trim_end())?;
        }
        for remark in &self.remarks {
            writeln!(f, "note: {remark}")?;
        }
        Ok(())
    }
}
