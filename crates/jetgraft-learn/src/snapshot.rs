//! Folders that are whole or absent, every byte of which is accounted for.
//!
//! A snapshot is written under a hidden temporary name, its files and the folder are flushed to the disk, and one
//! rename puts it in place. `MANIFEST` holds the size and BLAKE3 digest of every file; its first line is the digest of
//! its other lines. So a flipped, added or missing byte anywhere is found and the file named.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::LearnError;

/// Name of the file that describes the others.
pub const MANIFEST: &str = "MANIFEST";

/// Version of the folder format.
const VERSION: u32 = 1;

/// Contents of the files of a snapshot by name.
pub type Files = BTreeMap<String, Vec<u8>>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: u32,
    files: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Entry {
    bytes: u64,
    blake3: String,
}

fn entry(content: &[u8]) -> Entry {
    Entry { bytes: content.len() as u64, blake3: blake3::hash(content).to_hex().to_string() }
}

/// Writes `files` as the folder `path`, which must not exist. Parents are made.
///
/// # Errors
/// [`LearnError::Io`]; then `path` does not exist.
pub fn write(path: &Path, files: &Files) -> Result<(), LearnError> {
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        return Err(LearnError::option("snapshot folder", path.display(), "a folder name"));
    };
    fs::create_dir_all(parent).map_err(LearnError::io(parent, "create the folder"))?;
    let temporary = Temporary(parent.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id())));
    let folder = &temporary.0;
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(LearnError::io(folder, "remove"))?;
    }
    fs::create_dir(folder).map_err(LearnError::io(folder, "create the folder"))?;
    let put = |name: &str, content: &[u8]| -> Result<(), LearnError> {
        let path = folder.join(name);
        let mut file = File::create_new(&path).map_err(LearnError::io(&path, "create"))?;
        file.write_all(content).map_err(LearnError::io(&path, "write"))?;
        file.sync_all().map_err(LearnError::io(&path, "flush to the disk"))
    };
    for (name, content) in files {
        put(name, content)?;
    }
    let manifest = Manifest {
        version: VERSION,
        files: files.iter().map(|(name, content)| (name.clone(), entry(content))).collect(),
    };
    let body = json(&manifest);
    let mut text = blake3::hash(&body).to_hex().as_bytes().to_vec();
    text.push(b'\n');
    text.extend_from_slice(&body);
    put(MANIFEST, &text)?;
    flush_folder(folder);
    fs::rename(folder, path).map_err(LearnError::io(path, "put in place"))?;
    flush_folder(parent);
    Ok(())
}

/// Reads and checks every file of the folder `path`.
///
/// # Errors
/// [`LearnError::Damaged`] naming the file at fault; [`LearnError::Io`].
pub fn read(path: &Path) -> Result<Files, LearnError> {
    let manifest_path = path.join(MANIFEST);
    let text = fs::read(&manifest_path).map_err(LearnError::io(&manifest_path, "read"))?;
    let damaged = |file: &Path, found: String, expected: String| {
        Err(LearnError::Damaged { file: file.to_owned(), found, expected })
    };
    let split = text.iter().position(|&byte| byte == b'\n').unwrap_or(text.len());
    let (first, body) = (&text[..split], text.get(split + 1..).unwrap_or_default());
    let digest = blake3::hash(body).to_hex();
    if first != digest.as_bytes() {
        let found = format!("its first line is not the digest {digest} of the rest");
        return damaged(&manifest_path, found, "the digest of the lines below it".into());
    }
    let manifest: Manifest = match serde_json::from_slice(body) {
        Ok(manifest) => manifest,
        Err(error) => return damaged(&manifest_path, error.to_string(), "a manifest of files".into()),
    };
    if manifest.version != VERSION {
        return damaged(
            &manifest_path,
            format!("format version {}", manifest.version),
            format!("version {VERSION}"),
        );
    }
    let mut files = Files::new();
    for (name, expected) in &manifest.files {
        let file = path.join(name);
        let content = match fs::read(&file) {
            Ok(content) => content,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return damaged(&file, "no file".into(), format!("{} bytes", expected.bytes));
            }
            Err(error) => return Err(LearnError::io(&file, "read")(error)),
        };
        let found = entry(&content);
        if &found != expected {
            return damaged(
                &file,
                format!("{} bytes with digest {}", found.bytes, found.blake3),
                format!("{} bytes with digest {}", expected.bytes, expected.blake3),
            );
        }
        files.insert(name.clone(), content);
    }
    for entry in fs::read_dir(path).map_err(LearnError::io(path, "list"))? {
        let name = entry.map_err(LearnError::io(path, "list"))?.file_name().to_string_lossy().into_owned();
        if name != MANIFEST && !files.contains_key(&name) {
            return damaged(
                &path.join(name),
                "a file that the manifest does not list".into(),
                "no file".into(),
            );
        }
    }
    Ok(files)
}

/// Removes what killed writers have left in `parent`.
///
/// # Errors
/// [`LearnError::Io`].
pub fn sweep(parent: &Path) -> Result<(), LearnError> {
    sweep_named(parent, ".")
}

/// Removes what killed writers of the snapshot `path` have left beside it; other snapshots in the same folder may be
/// at work.
///
/// # Errors
/// [`LearnError::Io`].
pub fn sweep_beside(path: &Path) -> Result<(), LearnError> {
    match (path.file_name(), path.parent()) {
        (Some(name), Some(parent)) => sweep_named(parent, &format!(".{}.", name.to_string_lossy())),
        _ => Ok(()),
    }
}

/// Removes what in `parent` is named as temporary and begins like that.
fn sweep_named(parent: &Path, beginning: &str) -> Result<(), LearnError> {
    if !parent.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(parent).map_err(LearnError::io(parent, "list"))? {
        let path = entry.map_err(LearnError::io(parent, "list"))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with(beginning) && name.ends_with(".tmp") {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(LearnError::io(&path, "remove"))?;
        }
    }
    Ok(())
}

/// Removes a snapshot so that a reader meets it whole or not at all: first it loses its name.
///
/// # Errors
/// [`LearnError::Io`].
pub fn remove(path: &Path) -> Result<(), LearnError> {
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        return Err(LearnError::option("snapshot folder", path.display(), "a folder name"));
    };
    let hidden = parent.join(format!(".{}.{}.old.tmp", name.to_string_lossy(), std::process::id()));
    fs::rename(path, &hidden).map_err(LearnError::io(path, "rename"))?;
    fs::remove_dir_all(&hidden).map_err(LearnError::io(&hidden, "remove"))
}

/// Removes the folder unless it has been renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is nothing; else the error on its way matters more.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Not every system lets a folder be opened for that.
fn flush_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

/// Pretty JSON of one of our own types.
///
/// # Panics
/// Never for types of this crate: they have string keys and no failing serialiser.
pub(crate) fn json<T: Serialize>(value: &T) -> Vec<u8> {
    match serde_json::to_vec_pretty(value) {
        Ok(mut text) => {
            text.push(b'\n');
            text
        }
        Err(error) => unreachable!("our own types are JSON: {error}"),
    }
}

/// Reads back what [`json`] wrote.
pub(crate) fn parse<T: for<'a> Deserialize<'a>>(
    files: &Files,
    folder: &Path,
    name: &str,
) -> Result<T, LearnError> {
    let damaged = |found: String, expected: &str| LearnError::Damaged {
        file: folder.join(name),
        found,
        expected: expected.into(),
    };
    let content = files.get(name).ok_or_else(|| damaged("no file".into(), "a file of this name"))?;
    serde_json::from_slice(content)
        .map_err(|error| damaged(error.to_string(), "JSON of this version's format"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Files {
        Files::from([("a.json".to_owned(), b"{}".to_vec()), ("b.bin".to_owned(), vec![0, 1, 2, 255])])
    }

    #[test]
    fn every_flipped_byte_is_found_and_its_file_named() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("deep/snapshot");
        write(&folder, &sample()).unwrap();
        assert_eq!(read(&folder).unwrap(), sample());
        for name in ["a.json", "b.bin", MANIFEST] {
            let path = folder.join(name);
            let content = fs::read(&path).unwrap();
            for at in 0..content.len() {
                for bit in [0, 7] {
                    let mut flipped = content.clone();
                    flipped[at] ^= 1 << bit;
                    fs::write(&path, &flipped).unwrap();
                    match read(&folder) {
                        Err(LearnError::Damaged { file, .. }) => assert_eq!(file, path, "byte {at}"),
                        other => panic!("byte {at} of {name}: {other:?}"),
                    }
                }
            }
            for cut in [0, content.len() - 1] {
                fs::write(&path, &content[..cut]).unwrap();
                assert!(matches!(read(&folder), Err(LearnError::Damaged { file, .. }) if file == path));
            }
            fs::write(&path, &content).unwrap();
        }
        fs::remove_file(folder.join("a.json")).unwrap();
        assert!(matches!(read(&folder), Err(LearnError::Damaged { file, .. }) if file.ends_with("a.json")));
        fs::write(folder.join("a.json"), b"{}").unwrap();
        fs::write(folder.join("stray"), b"").unwrap();
        assert!(matches!(read(&folder), Err(LearnError::Damaged { file, .. }) if file.ends_with("stray")));
    }

    #[test]
    fn a_folder_in_the_way_stays_and_nothing_is_left_behind() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("snapshot");
        write(&folder, &sample()).unwrap();
        assert!(write(&folder, &Files::new()).is_err());
        assert_eq!(read(&folder).unwrap(), sample());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        fs::create_dir(root.path().join(".snapshot.1.tmp")).unwrap();
        sweep(root.path()).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        for name in [".snapshot.1.tmp", ".snapshot.checkpoints.1.old.tmp", ".snapshot2.1.tmp"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join(".snapshot.scores.1.tmp"), b"").unwrap();
        sweep_beside(&folder).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
        fs::remove_dir(root.path().join(".snapshot2.1.tmp")).unwrap();
        remove(&folder).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
