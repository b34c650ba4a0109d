//! Apache Parquet: flat columns and lists of numbers, read by row groups.
//!
//! Decoding is the `parquet` crate's. Around it: the structure is checked before it is trusted (`check.rs`), reads
//! carry their own position, and a panic of the decoder becomes an error that names the row group and column.
//!
//! Limits: a page may grow to 64 MiB or 64 times its stored size when decompressed, and hold 4 Mi values or eight a byte;
//! groups nest at most 12 deep. No writer comes near them; a file beyond them is refused by name.

mod check;
mod guard;
mod source;
mod thrift;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::error::DataError;
use crate::table::{Batches, ColumnSpec, ColumnStorage, DType, Format, Kind, TableReader, find, schema_of};
use check::Finding;
use guard::guarded;
use source::Source;

/// Key of the footer's metadata under which units are stored, as a JSON object from column to unit.
pub(crate) const UNITS_KEY: &str = "jetgraft.units";

const REMEDY: &str = "fetch or write the file again; if it is sound, please report it";

/// Values decoded at once, roughly; rows of a batch follow from it.
const BATCH_VALUES: usize = 1 << 18;

/// An open parquet file.
pub struct ParquetTable {
    path: PathBuf,
    source: Source,
    metadata: ArrowReaderMetadata,
    columns: Vec<ColumnSpec>,
    first_rows: Vec<u64>,
    rows: u64,
}

impl ParquetTable {
    /// Opens a file and checks its footer; no column is read yet.
    ///
    /// # Errors
    /// [`DataError::Io`], [`DataError::Corrupt`], [`DataError::TooLarge`].
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(DataError::io(path, "open"))?;
        let source = Source::new(file).map_err(DataError::io(path, "open"))?;
        check_footer(&source).map_err(|finding| refusal(path, "footer".into(), finding))?;

        let file = File::open(path).map_err(DataError::io(path, "open"))?;
        // The Arrow schema that some writers embed is not needed: Parquet's own types say the same.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = guarded(|| ArrowReaderMetadata::load(&file, options))
            .and_then(|loaded| loaded.map_err(|error| error.to_string()))
            .map_err(|detail| corrupt(path, "footer".into(), detail))?;

        let units = units(&metadata);
        let columns = metadata
            .schema()
            .fields()
            .iter()
            .map(|field| {
                let (kind, dtype) = match field.data_type() {
                    DataType::List(inner) => (Kind::List, DType::from_arrow(inner.data_type())),
                    other => (Kind::Flat, DType::from_arrow(other)),
                };
                let mut column = ColumnSpec::new(field.name(), kind, dtype);
                column.unit = units.get(field.name()).cloned();
                column
            })
            .collect();

        let mut first_rows = Vec::with_capacity(metadata.metadata().num_row_groups());
        let mut rows = 0u64;
        for (group, row_group) in metadata.metadata().row_groups().iter().enumerate() {
            first_rows.push(rows);
            rows =
                u64::try_from(row_group.num_rows()).ok().and_then(|more| rows.checked_add(more)).ok_or_else(
                    || corrupt(path, format!("row group {group}"), "an impossible number of rows".into()),
                )?;
        }
        let promised = metadata.metadata().file_metadata().num_rows();
        if u64::try_from(promised).ok() != Some(rows) {
            return Err(corrupt(
                path,
                "footer".into(),
                format!("it promises {promised} rows and its row groups hold {rows}"),
            ));
        }
        Ok(Self { path: path.to_owned(), source, metadata, columns, first_rows, rows })
    }

    /// Numbers of the top-level columns in the file's schema.
    fn roots(&self, columns: &[String]) -> Result<Vec<usize>, DataError> {
        columns
            .iter()
            .map(|name| {
                let column = find(&self.path, &self.columns, name, "reading")?;
                let at = self.columns.iter().position(|other| std::ptr::eq(other, column));
                Ok(at.unwrap_or_default())
            })
            .collect()
    }

    fn place(&self, group: usize, column: Option<usize>) -> String {
        match column {
            Some(column) => format!("row group {group}, column {}", self.columns[column].name),
            None => format!("row group {group}"),
        }
    }

    /// Checks the pages of one top-level column of one row group.
    fn check_column(&self, group: usize, root: usize) -> Result<(), DataError> {
        let descriptor = self.metadata.parquet_schema();
        let row_group = self.metadata.metadata().row_group(group);
        let refuse = |finding| refusal(&self.path, self.place(group, Some(root)), finding);
        for leaf in 0..descriptor.num_columns() {
            if descriptor.get_column_root_idx(leaf) != root {
                continue;
            }
            let Some(chunk) = row_group.columns().get(leaf) else {
                return Err(refuse(Finding::Broken("it is not in this row group".into())));
            };
            if self.columns[root].kind == Kind::Flat && chunk.num_values() != row_group.num_rows() {
                return Err(refuse(Finding::Broken(format!(
                    "{} values for {} rows",
                    chunk.num_values(),
                    row_group.num_rows()
                ))));
            }
            check::column_chunk(&self.source, chunk).map_err(refuse)?;
        }
        Ok(())
    }

    fn reader(&self, group: usize, roots: &[usize]) -> Result<ParquetRecordBatchReader, DataError> {
        let row_group = self.metadata.metadata().row_group(group);
        let rows = row_group.num_rows().max(1) as usize;
        let values = row_group.columns().iter().map(|chunk| chunk.num_values()).max().unwrap_or(0).max(1);
        let batch_rows = (BATCH_VALUES / (values as usize / rows).max(1)).clamp(64, 8192);
        // A file of its own: the positions of two clones of one open file are shared between threads.
        let file = File::open(&self.path).map_err(DataError::io(&self.path, "open"))?;
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), roots.iter().copied());
        guarded(|| {
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                .with_projection(mask)
                .with_row_groups(vec![group])
                .with_batch_size(batch_rows)
                .build()
        })
        .and_then(|built| built.map_err(|error| error.to_string()))
        .map_err(|detail| corrupt(&self.path, self.place(group, None), detail))
    }

    /// Finds the column that cannot be decoded, so that the message can name it.
    fn culprit(&self, group: usize, roots: &[usize]) -> Option<usize> {
        roots.iter().copied().find(|root| match self.reader(group, &[*root]) {
            Err(_) => true,
            Ok(mut reader) => loop {
                match guarded(|| reader.next()) {
                    Ok(None) => break false,
                    Ok(Some(Ok(_))) => {}
                    Ok(Some(Err(_))) | Err(_) => break true,
                }
            },
        })
    }
}

impl TableReader for ParquetTable {
    fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self) -> Format {
        Format::Parquet
    }

    fn columns(&self) -> &[ColumnSpec] {
        &self.columns
    }

    fn rows(&self) -> Option<u64> {
        Some(self.rows)
    }

    fn groups(&self) -> usize {
        self.first_rows.len()
    }

    fn first_row(&self, group: usize) -> u64 {
        self.first_rows[group]
    }

    fn read(&self, group: usize, columns: &[String]) -> Result<Batches<'_>, DataError> {
        let roots = self.roots(columns)?;
        for root in &roots {
            self.check_column(group, *root)?;
        }
        let mut in_file = roots.clone();
        in_file.sort_unstable();
        in_file.dedup();
        let order = roots.iter().map(|root| in_file.partition_point(|other| other < root)).collect();
        Ok(Box::new(GroupBatches {
            table: self,
            group,
            reader: Some(self.reader(group, &in_file)?),
            schema: schema_of(roots.iter().map(|root| &self.columns[*root])),
            roots: in_file,
            order,
            rows_left: self.metadata.metadata().row_group(group).num_rows() as u64,
        }))
    }

    fn storage(&self, column: &str) -> Option<ColumnStorage> {
        let root = self.columns.iter().position(|other| other.name == column)?;
        let descriptor = self.metadata.parquet_schema();
        let mut storage = ColumnStorage::default();
        for row_group in self.metadata.metadata().row_groups() {
            for (leaf, chunk) in row_group.columns().iter().enumerate() {
                if descriptor.get_column_root_idx(leaf) == root {
                    // Without the level, which the file does not know and the name invents.
                    let name = chunk.compression().to_string();
                    storage.compression = name.split('(').next().unwrap_or_default().to_owned();
                    storage.compressed_bytes += u64::try_from(chunk.compressed_size()).unwrap_or(0);
                    storage.uncompressed_bytes += u64::try_from(chunk.uncompressed_size()).unwrap_or(0);
                }
            }
        }
        Some(storage)
    }
}

struct GroupBatches<'a> {
    table: &'a ParquetTable,
    group: usize,
    reader: Option<ParquetRecordBatchReader>,
    schema: SchemaRef,
    /// Top-level columns read, in the order of the file.
    roots: Vec<usize>,
    /// For each column asked for, its place among `roots`.
    order: Vec<usize>,
    rows_left: u64,
}

impl GroupBatches<'_> {
    fn damaged(&mut self, detail: String) -> DataError {
        self.reader = None;
        let culprit = self.table.culprit(self.group, &self.roots);
        corrupt(&self.table.path, self.table.place(self.group, culprit), detail)
    }

    fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch, String> {
        let columns: Vec<_> = self
            .order
            .iter()
            .zip(self.schema.fields())
            .map(|(at, field)| {
                let array = batch.column(*at);
                // The declared schema has nullable values; the file may promise more than that.
                match (array.data_type(), field.data_type()) {
                    (found, wanted) if found == wanted => Ok(array.clone()),
                    (DataType::List(_), DataType::List(_)) => {
                        arrow::compute::cast(array, field.data_type()).map_err(|error| error.to_string())
                    }
                    (found, wanted) => Err(format!("values are {found} where the footer says {wanted}")),
                }
            })
            .collect::<Result<_, String>>()?;
        let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|error| error.to_string())
    }
}

impl Iterator for GroupBatches<'_> {
    type Item = Result<RecordBatch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let reader = self.reader.as_mut()?;
        let outcome = match guarded(|| reader.next()) {
            Ok(Some(Ok(batch))) => match self.conform(&batch) {
                Ok(batch) => match self.rows_left.checked_sub(batch.num_rows() as u64) {
                    Some(left) => {
                        self.rows_left = left;
                        return Some(Ok(batch));
                    }
                    None => Err("more rows than the footer promises".to_owned()),
                },
                Err(detail) => Err(detail),
            },
            Ok(Some(Err(error))) => Err(error.to_string()),
            Ok(None) if self.rows_left > 0 => {
                Err(format!("it ends {} rows before the footer says", self.rows_left))
            }
            Ok(None) => Ok(()),
            Err(detail) => Err(detail),
        };
        match outcome {
            Ok(()) => {
                self.reader = None;
                None
            }
            Err(detail) => Some(Err(self.damaged(detail))),
        }
    }
}

fn check_footer(source: &Source) -> Result<(), Finding> {
    let length = source.length();
    if length < 12 {
        return Err(Finding::Broken("the file is too short to be parquet".into()));
    }
    let tail = source.read(length - 8, 8)?;
    let size = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if size > length - 12 {
        return Err(Finding::Broken(format!("it claims {size} bytes in a file of {length}")));
    }
    check::footer(&source.read(length - 8 - size, size as usize)?)
}

fn units(metadata: &ArrowReaderMetadata) -> BTreeMap<String, String> {
    metadata
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .into_iter()
        .flatten()
        .find(|entry| entry.key == UNITS_KEY)
        .and_then(|entry| serde_json::from_str(entry.value.as_deref()?).ok())
        .unwrap_or_default()
}

fn corrupt(path: &Path, entry: String, detail: String) -> DataError {
    DataError::Corrupt { path: path.to_owned(), entry, detail, remedy: REMEDY.to_owned() }
}

fn refusal(path: &Path, entry: String, finding: Finding) -> DataError {
    match finding {
        Finding::Broken(detail) => corrupt(path, entry, detail),
        Finding::TooLarge { what, found, limit } => {
            DataError::TooLarge { path: path.to_owned(), entry, what, found, limit }
        }
    }
}
