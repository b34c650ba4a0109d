//! LundNet's jet files: one JSON value a line, usually gzip-compressed.
//!
//! A JSON string is a header line (anywhere in the file) and is passed over. Any other line is one jet: a list whose
//! element 0 the reference code throws away and whose other elements are objects with `px`, `py`, `pz`, `E` in
//! GeV. Here element 0 is thrown away too unless told otherwise, but it is looked at: the column
//! `element0_is_sum` says whether it is the sum of the rest, and the ledger counts the answers.
//!
//! Differences from the reference reader (`read_data.py` of the LundNet repository, version 1.0.0), where an empty or
//! broken line ends the data without a word: here a broken line, an empty line before others, or a truncated file is an
//! error that names file and line. Keys other than the four are passed over.
//!
//! Columns: `event_id`, `line` (from 1), `px`, `py`, `pz`, `energy` (lists), `element0_is_sum` (null where element 0
//! is no four-momentum). The files hold no event number, so `event_id` is made of the first 32 bits of the
//! content's BLAKE3 digest (upper half) and the line number (lower half): the same for a copy of the file under
//! another name, and different between jets. Two jets of one collision can therefore not be recognised.
//!
//! Source: LundNet, F. A. Dreyer and H. Qu, arXiv:2012.08526; file layout as its public code reads it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, ListBuilder, UInt64Builder};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use flate2::read::MultiGzDecoder;
use jetgraft_physics::FourMomentum;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::manifest;
use crate::table::{Batches, ColumnSpec, ColumnStorage, DType, Format, Kind, TableReader, find, schema_of};

/// Longest line taken, in bytes; a jet of 200 constituents needs some 20 thousand.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// Lines, and bytes of text, parsed together.
const BATCH_LINES: usize = 1024;
const BATCH_BYTES: usize = 32 << 20;

/// Element 0 counts as the sum of the rest if every component agrees to this part of the energy.
const SUM_TOLERANCE: f64 = 1e-4;

/// What element 0 of a line is taken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstElement {
    /// Thrown away, as the reference code does.
    #[default]
    Discard,
    /// A constituent like the others.
    Constituent,
    /// Thrown away, and an error unless it is the sum of the others.
    RequireSum,
}

/// Choices for LundNet files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LundJsonOptions {
    /// What element 0 of a line is.
    pub first_element: FirstElement,
}

/// An open LundNet file.
pub struct LundJsonTable {
    path: PathBuf,
    options: LundJsonOptions,
    columns: Vec<ColumnSpec>,
    compressed: bool,
    bytes: u64,
    digest: OnceLock<u64>,
}

impl LundJsonTable {
    /// Opens a file; no line is read yet.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn open(path: &Path, options: LundJsonOptions) -> Result<Self, DataError> {
        let mut file = File::open(path).map_err(DataError::io(path, "open"))?;
        let bytes = file.metadata().map_err(DataError::io(path, "open"))?.len();
        let mut head = [0; 2];
        let compressed = file.read_exact(&mut head).is_ok() && head == [0x1f, 0x8b];
        let list = |name: &str| ColumnSpec::new(name, Kind::List, DType::F64).with_unit("GeV");
        let columns = vec![
            ColumnSpec::new("event_id", Kind::Flat, DType::U64),
            ColumnSpec::new("line", Kind::Flat, DType::U64),
            list("px"),
            list("py"),
            list("pz"),
            list("energy"),
            ColumnSpec::new("element0_is_sum", Kind::Flat, DType::Bool),
        ];
        Ok(Self { path: path.to_owned(), options, columns, compressed, bytes, digest: OnceLock::new() })
    }

    /// Upper half of the event ids.
    fn id_base(&self) -> Result<u64, DataError> {
        if let Some(base) = self.digest.get() {
            return Ok(*base);
        }
        let digest = manifest::digest(&self.path)?;
        let bytes = digest.as_bytes();
        let base = u64::from(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])) << 32;
        Ok(*self.digest.get_or_init(|| base))
    }
}

/// The event id of row or line `number` of a file whose digest gave `base`.
pub(crate) fn numbered_event_id(base: u64, number: u64) -> Option<u64> {
    u32::try_from(number).ok().map(|number| base | u64::from(number))
}

impl TableReader for LundJsonTable {
    fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self) -> Format {
        Format::LundJson
    }

    fn columns(&self) -> &[ColumnSpec] {
        &self.columns
    }

    fn rows(&self) -> Option<u64> {
        None
    }

    fn groups(&self) -> usize {
        1
    }

    fn first_row(&self, _group: usize) -> u64 {
        0
    }

    fn read(&self, _group: usize, columns: &[String]) -> Result<Batches<'_>, DataError> {
        let columns: Vec<ColumnSpec> = columns
            .iter()
            .map(|name| find(&self.path, &self.columns, name, "reading").cloned())
            .collect::<Result<_, _>>()?;
        let file = File::open(&self.path).map_err(DataError::io(&self.path, "open"))?;
        let file = BufReader::with_capacity(1 << 17, file);
        let text: Box<dyn BufRead + Send> = if self.compressed {
            Box::new(BufReader::with_capacity(1 << 17, MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        Ok(Box::new(LineBatches {
            table: self,
            id_base: self.id_base()?,
            columns,
            text: Some(text),
            line: 0,
        }))
    }

    fn storage(&self, column: &str) -> Option<ColumnStorage> {
        // Lines cannot be told apart by column; the whole file stands for the first list.
        (column == "px").then(|| ColumnStorage {
            compression: if self.compressed { "GZIP (whole file)" } else { "NONE (whole file)" }.into(),
            compressed_bytes: self.bytes,
            uncompressed_bytes: 0,
        })
    }
}

struct LineBatches<'a> {
    table: &'a LundJsonTable,
    id_base: u64,
    columns: Vec<ColumnSpec>,
    text: Option<Box<dyn BufRead + Send>>,
    /// Lines read so far.
    line: u64,
}

/// A line that is a jet.
struct Jet {
    constituents: Vec<FourMomentum>,
    first_is_sum: Option<bool>,
}

impl Iterator for LineBatches<'_> {
    type Item = Result<RecordBatch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let outcome = self.batch().transpose();
        if !matches!(outcome, Some(Ok(_))) {
            self.text = None;
        }
        outcome
    }
}

impl LineBatches<'_> {
    fn broken(&self, line: u64, detail: impl Into<String>) -> DataError {
        DataError::Corrupt {
            path: self.table.path.clone(),
            entry: format!("line {line}"),
            detail: detail.into(),
            remedy:
                "fetch the file again; if the source itself is broken there, cut the file before that line"
                    .into(),
        }
    }

    /// The next lines that are not blank, with their numbers.
    fn lines(&mut self) -> Result<Vec<(u64, Vec<u8>)>, DataError> {
        let Some(mut text) = self.text.take() else {
            return Ok(Vec::new());
        };
        let mut lines = Vec::new();
        let mut bytes = 0;
        let mut first_blank = None;
        while lines.len() < BATCH_LINES && bytes < BATCH_BYTES {
            let mut line = Vec::new();
            let read = (&mut text).take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line);
            match read {
                Ok(0) => {
                    // Blank lines at the very end are harmless.
                    return Ok(lines);
                }
                Ok(_) => {}
                Err(error) => {
                    let detail = if error.kind() == std::io::ErrorKind::UnexpectedEof {
                        "the compressed data end in the middle (half a download?)".to_owned()
                    } else {
                        format!("the compressed data are damaged ({error})")
                    };
                    return Err(self.broken(self.line + 1, detail));
                }
            }
            self.line += 1;
            if line.len() > MAX_LINE_BYTES {
                return Err(DataError::TooLarge {
                    path: self.table.path.clone(),
                    entry: format!("line {}", self.line),
                    what: "the length of a line in bytes",
                    found: line.len() as u64,
                    limit: MAX_LINE_BYTES as u64,
                });
            }
            if line.trim_ascii().is_empty() {
                first_blank.get_or_insert(self.line);
                continue;
            }
            if let Some(blank) = first_blank {
                return Err(self.broken(blank, format!("the line is empty, and line {} is not", self.line)));
            }
            bytes += line.len();
            lines.push((self.line, line));
        }
        self.text = Some(text);
        Ok(lines)
    }

    fn batch(&mut self) -> Result<Option<RecordBatch>, DataError> {
        loop {
            let lines = self.lines()?;
            if lines.is_empty() {
                return Ok(None);
            }
            let parsed: Vec<Result<Option<Jet>, String>> = lines
                .par_iter()
                .map(|(_, line)| parse_line(line, self.table.options.first_element))
                .collect();
            let mut jets = Vec::with_capacity(parsed.len());
            for ((number, _), outcome) in lines.iter().zip(parsed) {
                match outcome {
                    Ok(Some(jet)) => {
                        let Some(event_id) = numbered_event_id(self.id_base, *number) else {
                            return Err(self.broken(*number, "more lines than event ids can number"));
                        };
                        jets.push((event_id, *number, jet));
                    }
                    Ok(None) => {}
                    Err(detail) => return Err(self.broken(*number, detail)),
                }
            }
            // A run of header lines makes no batch.
            if !jets.is_empty() {
                return self.assemble(&jets).map(Some);
            }
        }
    }

    fn assemble(&self, jets: &[(u64, u64, Jet)]) -> Result<RecordBatch, DataError> {
        let list = |component: fn(&FourMomentum) -> f64| -> ArrayRef {
            let values = jets.iter().map(|(_, _, jet)| jet.constituents.len()).sum();
            let mut builder = ListBuilder::with_capacity(Float64Builder::with_capacity(values), jets.len());
            for (_, _, jet) in jets {
                for momentum in &jet.constituents {
                    builder.values().append_value(component(momentum));
                }
                builder.append(true);
            }
            Arc::new(builder.finish())
        };
        let numbers = |value: fn(&(u64, u64, Jet)) -> u64| -> ArrayRef {
            let mut builder = UInt64Builder::with_capacity(jets.len());
            jets.iter().for_each(|jet| builder.append_value(value(jet)));
            Arc::new(builder.finish())
        };
        let arrays = self
            .columns
            .iter()
            .map(|column| match column.name.as_str() {
                "event_id" => numbers(|jet| jet.0),
                "line" => numbers(|jet| jet.1),
                "px" => list(|momentum| momentum.px),
                "py" => list(|momentum| momentum.py),
                "pz" => list(|momentum| momentum.pz),
                "energy" => list(|momentum| momentum.energy),
                _ => {
                    let mut builder = BooleanBuilder::with_capacity(jets.len());
                    jets.iter().for_each(|(_, _, jet)| builder.append_option(jet.first_is_sum));
                    Arc::new(builder.finish()) as ArrayRef
                }
            })
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(jets.len()));
        RecordBatch::try_new_with_options(schema_of(&self.columns), arrays, &options)
            .map_err(|error| self.broken(self.line, error.to_string()))
    }
}

#[derive(Deserialize)]
struct Momentum {
    px: f64,
    py: f64,
    pz: f64,
    #[serde(rename = "E")]
    energy: f64,
}

impl From<Momentum> for FourMomentum {
    fn from(momentum: Momentum) -> Self {
        Self { px: momentum.px, py: momentum.py, pz: momentum.pz, energy: momentum.energy }
    }
}

/// A line as JSON: what is in element 0 is settled afterwards.
struct Elements {
    first: Option<serde_json::Value>,
    rest: Vec<FourMomentum>,
}

impl Elements {
    /// Reads `[first, {..}, {..}, ...]`; `None` for a header line.
    fn parse(line: &str) -> Result<Option<Self>, String> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Option<Elements>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of objects with px, py, pz and E, or a header string")
            }

            fn visit_str<E>(self, _header: &str) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut elements: A,
            ) -> Result<Self::Value, A::Error> {
                let first = elements.next_element()?;
                let mut rest = Vec::new();
                while let Some(momentum) = elements.next_element::<Momentum>()? {
                    rest.push(momentum.into());
                }
                Ok(Some(Elements { first, rest }))
            }
        }
        let mut reader = serde_json::Deserializer::from_str(line);
        let elements = serde::Deserializer::deserialize_any(&mut reader, Visitor).map_err(|e| in_line(&e))?;
        reader.end().map_err(|e| in_line(&e))?;
        Ok(elements)
    }
}

/// Message of a JSON error without its line number, which is always 1 here and would mislead.
fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => format!("{} at column {}", &text[..end], error.column()),
        None => text,
    }
}

fn parse_line(line: &[u8], first_element: FirstElement) -> Result<Option<Jet>, String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("the text is not UTF-8 ({error})"))?;
    let Some(Elements { first, mut rest }) = Elements::parse(text.trim())? else {
        return Ok(None);
    };
    let Some(first) = first else {
        return Err("the list is empty; expected at least its element 0".to_owned());
    };
    let momentum = serde_json::from_value::<Momentum>(first).map(FourMomentum::from);
    let first_is_sum = momentum.as_ref().ok().map(|momentum| is_sum(momentum, &rest));
    match first_element {
        FirstElement::Discard => {}
        FirstElement::Constituent => {
            rest.insert(0, momentum.map_err(|error| format!("element 0: {}", in_line(&error)))?);
        }
        FirstElement::RequireSum if first_is_sum == Some(true) => {}
        FirstElement::RequireSum => return Err("element 0 is not the sum of the other elements".to_owned()),
    }
    Ok(Some(Jet { constituents: rest, first_is_sum }))
}

fn is_sum(first: &FourMomentum, rest: &[FourMomentum]) -> bool {
    let sum: FourMomentum = rest.iter().copied().sum();
    let tolerance = SUM_TOLERANCE * sum.energy.abs().max(first.energy.abs());
    (first.px - sum.px).abs() <= tolerance
        && (first.py - sum.py).abs() <= tolerance
        && (first.pz - sum.pz).abs() <= tolerance
        && (first.energy - sum.energy).abs() <= tolerance
}

#[cfg(test)]
mod tests {
    use super::*;

    const JET: &str = r#"[{"px":3,"py":0,"pz":0,"E":3},{"px":1,"py":0,"pz":0,"E":1,"id":22},{"px":2.0,"py":0,"pz":0,"E":2e0}]"#;

    fn parsed(line: &str, first: FirstElement) -> Result<Option<Jet>, String> {
        parse_line(line.as_bytes(), first)
    }

    #[test]
    fn element_zero_is_looked_at_and_thrown_away() {
        let jet = parsed(JET, FirstElement::Discard).unwrap().unwrap();
        assert_eq!(jet.constituents.len(), 2);
        assert_eq!(jet.first_is_sum, Some(true));
        assert_eq!(parsed(JET, FirstElement::Constituent).unwrap().unwrap().constituents.len(), 3);
        assert!(parsed(JET, FirstElement::RequireSum).is_ok());
        let other = JET.replacen("3", "4", 1);
        assert_eq!(parsed(&other, FirstElement::Discard).unwrap().unwrap().first_is_sum, Some(false));
        assert!(parsed(&other, FirstElement::RequireSum).is_err());
        let strange = r#"["label",{"px":1,"py":0,"pz":0,"E":1}]"#;
        assert_eq!(parsed(strange, FirstElement::Discard).unwrap().unwrap().first_is_sum, None);
        assert!(parsed(strange, FirstElement::Constituent).is_err());
    }

    #[test]
    fn header_lines_are_passed_over() {
        assert!(parsed(r#""Pythia \"8\"""#, FirstElement::Discard).unwrap().is_none());
        assert!(parsed("\"plain\"\r\n", FirstElement::Discard).unwrap().is_none());
    }

    #[test]
    fn broken_lines_say_where() {
        let missing = r#"[{"px":1,"py":0,"pz":0,"E":1},{"px":1,"py":0,"pz":0}]"#;
        let message = parsed(missing, FirstElement::Discard).err().unwrap();
        assert!(message.contains("missing field `E` at column"), "{message}");
        assert!(!message.contains("line"), "{message}");
        for bad in
            ["[", "[]", "{}", "3", "[{}] x", "[1,{\"px\":1e999,\"py\":0,\"pz\":0,\"E\":1}]", "[1,[2]]", "nul"]
        {
            assert!(parsed(bad, FirstElement::Discard).is_err(), "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert!(parsed(&deep, FirstElement::Discard).is_err());
    }
}
