//! Checks on a parquet file's structure before anything is decoded or allocated for it.
//!
//! The `parquet` crate allocates what a footer or a page header declares. A damaged or hostile file can declare
//! anything, and a failed allocation ends the process, so the declared sizes are held against the bytes that are
//! there first.

use ::parquet::file::metadata::ColumnChunkMetaData;

use super::source::Source;
use super::thrift::{Fault, Walker, kind};

/// What a check found wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Broken(String),
    TooLarge { what: &'static str, found: u64, limit: u64 },
}

impl From<std::io::Error> for Finding {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<Fault> for Finding {
    fn from(fault: Fault) -> Self {
        Self::Broken(fault.what().into())
    }
}

/// Groups nested deeper than this are refused; a list column has depth 3.
const MAX_SCHEMA_DEPTH: usize = 12;

/// A page may grow by this factor when it is decompressed, ...
const PAGE_GROWTH: u64 = 64;

/// ... or to this size in bytes, whatever it was.
const PAGE_FLOOR: u64 = 64 << 20;

/// Values of one page: at most this many, or eight a byte of its decompressed size.
const VALUES_FLOOR: u64 = 4 << 20;

/// Page headers are some tens of bytes, with statistics a few hundred.
const HEADER_LIMIT: usize = 1 << 20;

/// Walks the footer: every length is inside it and the schema is not nested too deep.
pub(super) fn footer(bytes: &[u8]) -> Result<(), Finding> {
    let mut walker = Walker::new(bytes);
    // FileMetaData: field 2 is the list of schema elements in depth-first order.
    walker.structure(0, &mut |walker, number, field| {
        if number != 2 || field != kind::LIST {
            return Ok(false);
        }
        let (element, size) = walker.list()?;
        if element != kind::STRUCT {
            return Err(Fault::Malformed("a schema that is no list of structures"));
        }
        // Children still to come, one entry for each open group.
        let mut open: Vec<i64> = Vec::new();
        for _ in 0..size {
            let mut children = 0;
            walker.structure(2, &mut |walker, number, field| {
                // SchemaElement: field 5 is the number of children, an i32.
                if number == 5 && field == 5 {
                    children = walker.integer()?;
                    return Ok(true);
                }
                Ok(false)
            })?;
            while open.last() == Some(&0) {
                open.pop();
            }
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            if children > 0 {
                open.push(children);
                if open.len() > MAX_SCHEMA_DEPTH {
                    return Err(Fault::Malformed("a schema nested too deep"));
                }
            }
        }
        Ok(true)
    })?;
    Ok(())
}

/// Walks the page headers of one column of one row group.
pub(super) fn column_chunk(source: &Source, chunk: &ColumnChunkMetaData) -> Result<(), Finding> {
    let file_length = source.length();
    let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
    let (Ok(start), Ok(length)) = (u64::try_from(start), u64::try_from(chunk.compressed_size())) else {
        return Err(Finding::Broken("a negative offset or size".into()));
    };
    let Some(end) = start.checked_add(length).filter(|end| *end <= file_length) else {
        return Err(Finding::Broken(format!(
            "its bytes {start}..{} lie beyond the file's {file_length} bytes",
            u128::from(start) + u128::from(length)
        )));
    };
    if chunk.num_values() < 0 {
        return Err(Finding::Broken("a negative number of values".into()));
    }
    let mut at = start;
    let mut values = 0u64;
    // The decoder stops reading pages when it has all values.
    while at < end && values < chunk.num_values() as u64 {
        let header = page_header(source, at, end)?;
        let body = at + header.length as u64;
        let Some(next) = body.checked_add(header.compressed).filter(|next| *next <= end) else {
            return Err(Finding::Broken(format!("the page at byte {at} runs past the end of its column")));
        };
        let limit = PAGE_FLOOR.max(PAGE_GROWTH * header.compressed);
        if header.uncompressed > limit {
            return Err(Finding::TooLarge {
                what: "the decompressed size of a page",
                found: header.uncompressed,
                limit,
            });
        }
        let limit = if header.dictionary {
            header.uncompressed
        } else {
            VALUES_FLOOR.max(header.uncompressed.saturating_mul(8))
        };
        if header.values > limit {
            return Err(Finding::TooLarge {
                what: "the number of values of a page",
                found: header.values,
                limit,
            });
        }
        if !header.dictionary {
            values += header.values;
        }
        at = next;
    }
    if values != chunk.num_values() as u64 {
        return Err(Finding::Broken(format!(
            "its pages hold {values} values and the footer promises {}",
            chunk.num_values()
        )));
    }
    Ok(())
}

struct PageHeader {
    length: usize,
    uncompressed: u64,
    compressed: u64,
    values: u64,
    dictionary: bool,
}

fn page_header(source: &Source, at: u64, end: u64) -> Result<PageHeader, Finding> {
    let mut window = 256usize;
    loop {
        let length = (end - at).min(window as u64) as usize;
        let bytes = source.read(at, length)?;
        match parse_page_header(&bytes) {
            Err(Fault::End) if (length as u64) < end - at && window < HEADER_LIMIT => window *= 8,
            Err(fault) => {
                return Err(Finding::Broken(format!("the page header at byte {at}: {}", fault.what())));
            }
            Ok(header) => return Ok(header),
        }
    }
}

fn parse_page_header(bytes: &[u8]) -> Result<PageHeader, Fault> {
    const NEGATIVE: Fault = Fault::Malformed("a negative or missing size");
    let size = |value: i64| u64::try_from(value).map_err(|_| NEGATIVE);
    let mut walker = Walker::new(bytes);
    let (mut uncompressed, mut compressed, mut values, mut dictionary) = (None, None, None, false);
    walker.structure(0, &mut |walker, number, field| match (number, field) {
        // PageHeader: 2 and 3 are sizes; 5, 7 and 8 are the headers of data, dictionary and version-2 data
        // pages, each with the number of values as its field 1. Field type 5 is an i32.
        (2, 5) => {
            uncompressed = Some(size(walker.integer()?)?);
            Ok(true)
        }
        (3, 5) => {
            compressed = Some(size(walker.integer()?)?);
            Ok(true)
        }
        (5 | 7 | 8, kind::STRUCT) => {
            dictionary = number == 7;
            walker.structure(1, &mut |walker, number, field| {
                if number == 1 && field == 5 {
                    values = Some(size(walker.integer()?)?);
                    return Ok(true);
                }
                Ok(false)
            })?;
            Ok(true)
        }
        _ => Ok(false),
    })?;
    Ok(PageHeader {
        length: walker.position(),
        uncompressed: uncompressed.ok_or(NEGATIVE)?,
        compressed: compressed.ok_or(NEGATIVE)?,
        // Index pages have no values and are skipped by the decoder.
        values: values.unwrap_or(0),
        dictionary,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_beyond_the_bytes_are_refused() {
        // field 4 (row groups): a list of 2^31 - 1 structures in a footer of eight bytes
        let bytes = [0x49, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00];
        assert!(matches!(footer(&bytes), Err(Finding::Broken(_))));
        // field 1 binary of 2^62 bytes
        let bytes = [0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x00];
        assert!(matches!(footer(&bytes), Err(Finding::Broken(_))));
        assert_eq!(footer(&[0x00]), Ok(()));
    }

    #[test]
    fn deep_schemas_are_refused() {
        // field 2, list of 15 structures each with one child (field 5, i32, zigzag 1)
        let mut bytes = vec![0x29, 0xfc, 60];
        for _ in 0..60 {
            bytes.extend([0x55, 0x02, 0x00]);
        }
        bytes.push(0);
        assert!(matches!(footer(&bytes), Err(Finding::Broken(detail)) if detail.contains("deep")));
    }

    #[test]
    fn nested_structures_do_not_exhaust_the_stack() {
        assert!(matches!(footer(&vec![0x1c; 100_000]), Err(Finding::Broken(_))));
        assert!(matches!(footer(&vec![0x19; 100_000]), Err(Finding::Broken(_))));
    }
}
