//! One file or folder per format; a file's format is told by its content, never by its name.
//!
//! What is no data at all (an error page saved as a file, a Git-LFS pointer, an empty file, half a download) is
//! named with what to do about it.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::table::{Format, TableReader};

pub mod lund_json;
pub mod parquet;

/// Choices that only one format has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenOptions {
    /// LundNet's JSON lines.
    pub lund_json: lund_json::LundJsonOptions,
}

/// Opens a table with the default options.
///
/// # Errors
/// As [`open_with`].
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn TableReader>, DataError> {
    open_with(path, &OpenOptions::default())
}

/// Opens a table; the format is recognised by the content.
///
/// # Errors
/// [`DataError::Io`] when the file cannot be read, [`DataError::NotData`] when it is none of the known formats
/// (with what it is instead), [`DataError::Corrupt`] or [`DataError::TooLarge`] when its structure is broken.
pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Box<dyn TableReader>, DataError> {
    let path = path.as_ref();
    match recognise(path)? {
        Format::Parquet => Ok(Box::new(parquet::ParquetTable::open(path)?)),
        Format::LundJson => Ok(Box::new(lund_json::LundJsonTable::open(path, options.lund_json)?)),
    }
}

const FETCH_AGAIN: &str = "fetch the file again and compare its size with the source";

/// Bytes looked at to tell what a file is.
const HEAD: usize = 1024;

/// Tells the format of a file by its content.
///
/// # Errors
/// [`DataError::Io`], [`DataError::NotData`].
pub fn recognise(path: &Path) -> Result<Format, DataError> {
    let not_data = |found: String, remedy: &str| DataError::NotData {
        path: path.to_owned(),
        found,
        remedy: remedy.to_owned(),
    };
    let mut file = File::open(path).map_err(DataError::io(path, "open"))?;
    let metadata = file.metadata().map_err(DataError::io(path, "open"))?;
    if metadata.is_dir() {
        return Err(not_data("it is a folder".into(), "give the files in it"));
    }
    let head = read_up_to(&mut file, HEAD).map_err(DataError::io(path, "read"))?;
    if head.is_empty() {
        return Err(not_data("it is empty".into(), "the download did not start; fetch the file again"));
    }
    if head.starts_with(b"PAR1") {
        let mut tail = [0; 4];
        let whole = metadata.len() >= 12
            && file.seek(SeekFrom::End(-4)).is_ok()
            && file.read_exact(&mut tail).is_ok()
            && &tail == b"PAR1";
        return if whole {
            Ok(Format::Parquet)
        } else {
            Err(not_data(
                format!(
                    "it begins as parquet but its end is missing (half a download? {} bytes are here)",
                    metadata.len()
                ),
                FETCH_AGAIN,
            ))
        };
    }
    if head.starts_with(&[0x1f, 0x8b]) {
        let mut file = File::open(path).map_err(DataError::io(path, "open"))?;
        file.seek(SeekFrom::Start(0)).map_err(DataError::io(path, "read"))?;
        let inside = match read_up_to(&mut MultiGzDecoder::new(BufReader::new(file)), HEAD) {
            Ok(inside) if inside.is_empty() => {
                return Err(not_data("it is a gzip file with nothing in it".into(), FETCH_AGAIN));
            }
            Ok(inside) => inside,
            Err(error) => {
                return Err(not_data(
                    format!("it begins as gzip but cannot be decompressed ({error})"),
                    FETCH_AGAIN,
                ));
            }
        };
        return match text_kind(&inside) {
            Text::Lines => Ok(Format::LundJson),
            _ => Err(not_data(
                format!("it is gzip, and inside it begins with {}", shown(&inside)),
                "LundNet files hold one JSON list or string a line; other compressed files are not read",
            )),
        };
    }
    match text_kind(&head) {
        Text::Lines => Ok(Format::LundJson),
        Text::LfsPointer => Err(not_data(
            match lfs_size(&head) {
                Some(size) => format!("it is a Git-LFS pointer that stands for a file of {size} bytes"),
                None => "it is a Git-LFS pointer".into(),
            },
            "run `git lfs pull` in its repository, or fetch the file itself",
        )),
        Text::ErrorPage => Err(not_data(
            format!("it is a web page that begins with {}", shown(&head)),
            "the server answered with a page instead of the file; open the address in a browser, then fetch again",
        )),
        Text::Object => Err(not_data(
            format!("it is JSON that begins with {}", shown(&head)),
            "LundNet files hold one JSON list or string a line; this may be a server's error message",
        )),
        Text::Other => {
            let (found, remedy) = match known_elsewhere(&head) {
                Some(name) => (
                    format!("it is {name}"),
                    "this version reads parquet and LundNet JSON; convert it to parquet",
                ),
                None => (
                    format!("it begins with {}", shown(&head)),
                    "readable are parquet and LundNet JSON lines (plain or gzip)",
                ),
            };
            Err(not_data(found, remedy))
        }
    }
}

fn read_up_to(reader: &mut impl Read, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(limit);
    reader.take(limit as u64).read_to_end(&mut content)?;
    Ok(content)
}

enum Text {
    /// A JSON string or list: the first line of a LundNet file.
    Lines,
    Object,
    LfsPointer,
    ErrorPage,
    Other,
}

fn text_kind(head: &[u8]) -> Text {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let start = head.trim_ascii_start();
    let lower = start[..start.len().min(256)].to_ascii_lowercase();
    if start.starts_with(b"version https://git-lfs") || start.starts_with(b"version https://hawser") {
        Text::LfsPointer
    } else if lower.starts_with(b"<!doctype")
        || lower.starts_with(b"<html")
        || lower.starts_with(b"<?xml")
        || lower.starts_with(b"<error")
        || lower.starts_with(b"<head")
    {
        Text::ErrorPage
    } else {
        match start.first() {
            Some(b'[' | b'"') => Text::Lines,
            Some(b'{') => Text::Object,
            _ => Text::Other,
        }
    }
}

fn lfs_size(head: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(head).ok()?;
    text.lines().find_map(|line| line.strip_prefix("size "))?.trim().parse().ok()
}

/// Formats of the field that this version does not read, by their first bytes.
fn known_elsewhere(head: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 9] = [
        (b"root", "a ROOT file"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"PK\x03\x04", "a zip archive (npz?)"),
        (b"\x93NUMPY", "a numpy array"),
        (b"ARROW1", "an Arrow IPC file"),
        (b"HepMC::", "a HepMC file"),
        (b"<LesHouchesEvents", "an LHE file"),
        (b"\xfd7zXZ", "an xz archive"),
        (b"BZh", "a bzip2 archive"),
    ];
    known.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| *name)
}

/// The first bytes as text fit for a message.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes.iter().take(48) {
        match byte {
            b'\n' => text.push_str("\\n"),
            0x20..=0x7e => text.push(char::from(*byte)),
            other => text.push_str(&format!("\\x{other:02x}")),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(content: &[u8]) -> Result<Format, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, content).unwrap();
        recognise(&path)
    }

    fn found(content: &[u8]) -> String {
        match verdict(content).unwrap_err() {
            DataError::NotData { found, remedy, .. } => {
                assert!(!remedy.is_empty());
                found
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_no_data_is_named() {
        assert!(found(b"").contains("empty"));
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 485239\n";
        assert!(found(pointer).contains("Git-LFS pointer that stands for a file of 485239 bytes"));
        assert!(found(b"\n <!DOCTYPE html><html>404").contains("web page"));
        assert!(found(b"<?xml version=\"1.0\"?><Error>AccessDenied</Error>").contains("web page"));
        assert!(found(b"{\"message\": \"Not found\"}").contains("JSON that begins"));
        assert!(found(b"PAR1 and nothing more").contains("half a download"));
        assert!(found(b"root\0\0\xf7\x2f").contains("ROOT"));
        assert!(found(b"\x1f\x8bxxxxxxxxxxxx").contains("gzip"));
        assert!(found(b"pt,eta,phi\n").contains("begins with \"pt,eta,phi\\n\""));
        assert_eq!(verdict(b"\"header\"\n[{}]").unwrap(), Format::LundJson);
        let missing = recognise(Path::new("no/such/file")).unwrap_err();
        assert!(missing.hint().unwrap().contains("path"));
    }

    #[test]
    fn a_folder_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(recognise(folder.path()).is_err());
    }
}
