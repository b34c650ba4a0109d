//! The table contract: whatever the format, a file is a table of declared columns, read as Arrow record batches.
//!
//! A column is flat (one number a row) or a list (a run of numbers a row). A table falls into groups, which can be
//! read in any order and at the same time by several threads; within a group, batches come in order and are
//! small enough to stream. This is all that the rest of the crate knows about files.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::error::{DataError, nearest};

/// One number a row, or a run of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One value a row.
    Flat,
    /// A list of values a row, of any length.
    List,
}

/// Type of the values of a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DType {
    /// True or false.
    Bool,
    /// Signed integers.
    I8,
    /// Signed integers.
    I16,
    /// Signed integers.
    I32,
    /// Signed integers.
    I64,
    /// Unsigned integers.
    U8,
    /// Unsigned integers.
    U16,
    /// Unsigned integers.
    U32,
    /// Unsigned integers.
    U64,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
    /// Something that is not a number and cannot be read; the name says what.
    Other(String),
}

impl DType {
    /// Whether the values are numbers or truth values.
    pub fn is_readable(&self) -> bool {
        !matches!(self, Self::Other(_))
    }

    /// Whether the values are floating-point numbers.
    pub fn is_float(&self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    /// Whether the values are integers.
    pub fn is_integer(&self) -> bool {
        self.is_readable() && !self.is_float() && *self != Self::Bool
    }

    pub(crate) fn from_arrow(data_type: &DataType) -> Self {
        match data_type {
            DataType::Boolean => Self::Bool,
            DataType::Int8 => Self::I8,
            DataType::Int16 => Self::I16,
            DataType::Int32 => Self::I32,
            DataType::Int64 => Self::I64,
            DataType::UInt8 => Self::U8,
            DataType::UInt16 => Self::U16,
            DataType::UInt32 => Self::U32,
            DataType::UInt64 => Self::U64,
            DataType::Float32 => Self::F32,
            DataType::Float64 => Self::F64,
            other => Self::Other(other.to_string()),
        }
    }

    pub(crate) fn to_arrow(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::I8 => DataType::Int8,
            Self::I16 => DataType::Int16,
            Self::I32 => DataType::Int32,
            Self::I64 => DataType::Int64,
            Self::U8 => DataType::UInt8,
            Self::U16 => DataType::UInt16,
            Self::U32 => DataType::UInt32,
            Self::U64 => DataType::UInt64,
            Self::F32 => DataType::Float32,
            Self::F64 => DataType::Float64,
            Self::Other(_) => DataType::Null,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "bool",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Other(name) => name,
        })
    }
}

/// A declared column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSpec {
    /// Name in the file.
    pub name: String,
    /// Unit, where the file or the format says it, such as `GeV`.
    pub unit: Option<String>,
    /// One value or a list.
    pub kind: Kind,
    /// Type of the values.
    pub dtype: DType,
}

impl ColumnSpec {
    /// A column without a unit.
    pub fn new(name: impl Into<String>, kind: Kind, dtype: DType) -> Self {
        Self { name: name.into(), unit: None, kind, dtype }
    }

    /// The same column with a unit.
    pub fn with_unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = Some(unit.into());
        self
    }

    /// `f32` or `list of f32`.
    pub fn type_name(&self) -> String {
        match self.kind {
            Kind::Flat => self.dtype.to_string(),
            Kind::List => format!("list of {}", self.dtype),
        }
    }

    pub(crate) fn to_field(&self) -> Field {
        let inner = self.dtype.to_arrow();
        let data_type = match self.kind {
            Kind::Flat => inner,
            Kind::List => DataType::List(Arc::new(Field::new_list_field(inner, true))),
        };
        Field::new(&self.name, data_type, true)
    }
}

/// How a file is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// LundNet's JSON lines, usually gzip-compressed.
    LundJson,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parquet => "parquet",
            Self::LundJson => "lund_json",
        })
    }
}

/// How one column lies in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnStorage {
    /// Compression, such as `ZSTD`.
    pub compression: String,
    /// Bytes in the file, over all groups.
    pub compressed_bytes: u64,
    /// Bytes after decompression.
    pub uncompressed_bytes: u64,
}

/// The batches of one group, in order.
pub type Batches<'a> = Box<dyn Iterator<Item = Result<RecordBatch, DataError>> + Send + 'a>;

/// A file that is a table.
pub trait TableReader: Send + Sync {
    /// The file as the user named it.
    fn path(&self) -> &Path;

    /// How it is stored.
    fn format(&self) -> Format;

    /// Columns in the order of the file, also those that cannot be read.
    fn columns(&self) -> &[ColumnSpec];

    /// Number of rows, where it is known before reading.
    fn rows(&self) -> Option<u64>;

    /// Number of groups that can be read independently of each other.
    fn groups(&self) -> usize;

    /// Row number of the first row of `group`; `group` is below [`TableReader::groups`].
    fn first_row(&self, group: usize) -> u64;

    /// Streams the named columns of a group; the batches have exactly these columns in this order.
    ///
    /// Lists come as Arrow `List`, flat columns as Arrow primitives or booleans of the declared type.
    ///
    /// # Errors
    /// [`DataError::NoColumn`], [`DataError::ColumnType`] for a column that cannot be read, and, also from the
    /// iterator, [`DataError::Corrupt`] or [`DataError::TooLarge`]. After an error the iterator ends.
    fn read(&self, group: usize, columns: &[String]) -> Result<Batches<'_>, DataError>;

    /// How a column is stored, where the format can tell without reading it.
    fn storage(&self, column: &str) -> Option<ColumnStorage>;
}

/// Finds a readable column by name.
///
/// # Errors
/// [`DataError::NoColumn`] with the nearest names, [`DataError::ColumnType`] when it holds no numbers.
pub fn find<'a>(
    path: &Path,
    columns: &'a [ColumnSpec],
    name: &str,
    needed_for: &'static str,
) -> Result<&'a ColumnSpec, DataError> {
    let Some(column) = columns.iter().find(|column| column.name == name) else {
        return Err(DataError::NoColumn {
            path: path.to_owned(),
            name: name.to_owned(),
            needed_for,
            found: columns.iter().map(|column| column.name.clone()).collect(),
            nearest: nearest(name, columns.iter().map(|column| column.name.as_str())),
        });
    };
    if !column.dtype.is_readable() {
        return Err(DataError::ColumnType {
            path: path.to_owned(),
            name: name.to_owned(),
            needed_for,
            found: column.type_name(),
            expected: "numbers or lists of numbers".to_owned(),
        });
    }
    Ok(column)
}

pub(crate) fn schema_of<'a>(columns: impl IntoIterator<Item = &'a ColumnSpec>) -> SchemaRef {
    Arc::new(Schema::new(columns.into_iter().map(ColumnSpec::to_field).collect::<Vec<_>>()))
}
