//! Which files a result was made from: path as given, size, rows, digest.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// One input file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path as the user gave it.
    pub path: PathBuf,
    /// Format it was read as, such as `parquet`.
    pub format: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Rows read.
    pub rows: u64,
    /// BLAKE3 digest of the content, 64 hexadecimal digits.
    pub blake3: String,
}

/// All input files of a result, in the order they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The files.
    pub files: Vec<FileEntry>,
}

impl Manifest {
    /// Rows over all files.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Checks that every file still has its recorded size and digest; relative paths start at `root`.
    ///
    /// # Errors
    /// [`DataError::Changed`] naming the first file that differs, [`DataError::Io`] when one cannot be read.
    pub fn verify(&self, root: &Path) -> Result<(), DataError> {
        for file in &self.files {
            let path = root.join(&file.path);
            let bytes = std::fs::metadata(&path).map_err(DataError::io(&path, "open"))?.len();
            if bytes != file.bytes {
                return Err(DataError::Changed {
                    path,
                    what: "size",
                    found: bytes.to_string(),
                    expected: file.bytes.to_string(),
                });
            }
            let found = digest(&path)?.to_hex().to_string();
            if found != file.blake3 {
                return Err(DataError::Changed {
                    path,
                    what: "digest",
                    found,
                    expected: file.blake3.clone(),
                });
            }
        }
        Ok(())
    }
}

/// BLAKE3 digest of a file's content, read in pieces.
///
/// # Errors
/// [`DataError::Io`].
pub fn digest(path: &Path) -> Result<blake3::Hash, DataError> {
    let mut file = File::open(path).map_err(DataError::io(path, "open"))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 17];
    loop {
        let read = file.read(&mut buffer).map_err(DataError::io(path, "read"))?;
        if read == 0 {
            return Ok(hasher.finalize());
        }
        hasher.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"content").unwrap();
        let entry = FileEntry {
            path: "a".into(),
            format: "parquet".into(),
            bytes: 7,
            rows: 1,
            blake3: digest(&path).unwrap().to_hex().to_string(),
        };
        let manifest = Manifest { files: vec![entry] };
        manifest.verify(folder.path()).unwrap();
        std::fs::write(&path, b"c0ntent").unwrap();
        let error = manifest.verify(folder.path()).unwrap_err();
        assert!(matches!(error, DataError::Changed { what: "digest", .. }), "{error}");
        std::fs::write(&path, b"longer content").unwrap();
        assert!(matches!(
            manifest.verify(folder.path()).unwrap_err(),
            DataError::Changed { what: "size", .. }
        ));
    }
}
