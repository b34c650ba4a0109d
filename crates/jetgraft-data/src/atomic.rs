//! Files that are whole or absent: written under a temporary name, flushed to the disk, then renamed.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::DataError;

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Removes the temporary file unless it has been renamed, also when the writer fails or panics.
struct Temporary {
    path: PathBuf,
    done: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.done {
            // Nothing better can be done here: the error that led here is already on its way.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Lets `fill` write a file that appears at `path` only when it is complete.
///
/// The content goes to a hidden temporary name in the same folder, is flushed to the disk (`fsync`), and then
/// takes the place of `path` in one step, replacing an older file. If `fill` fails, or the process is killed, what
/// was at `path` before is untouched; a killed process can leave a file `.NAME.*.tmp` behind, which nothing reads.
/// Parent folders are made.
///
/// # Errors
/// Those of `fill`, or [`DataError::Io`].
///
/// # Example
/// ```
/// use std::io::Write;
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("note.txt");
/// jetgraft_data::atomic::write(&path, |file| {
///     file.write_all(b"whole or absent").map_err(|source| jetgraft_data::DataError::Io {
///         path: path.clone(),
///         action: "write",
///         source,
///     })
/// })?;
/// # Ok::<(), jetgraft_data::DataError>(())
/// ```
pub fn write<T, E>(path: &Path, fill: impl FnOnce(&mut File) -> Result<T, E>) -> Result<T, E>
where
    E: From<DataError>,
{
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let Some(name) = path.file_name() else {
        return Err(DataError::option("output path", path.display(), "a file name").into());
    };
    fs::create_dir_all(&folder).map_err(DataError::io(&folder, "create the folder"))?;
    let temporary = folder.join(format!(
        ".{}.{}-{}.tmp",
        name.to_string_lossy(),
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    ));
    let mut file = OpenOptions::new()
        .write(true)
        .read(true)
        .create_new(true)
        .open(&temporary)
        .map_err(DataError::io(&temporary, "create"))?;
    let mut guard = Temporary { path: temporary, done: false };
    let value = fill(&mut file)?;
    file.sync_all().map_err(DataError::io(path, "flush to the disk"))?;
    drop(file);
    fs::rename(&guard.path, path).map_err(DataError::io(path, "put in place"))?;
    guard.done = true;
    // The new name itself must survive a power cut; not every system lets a folder be opened for that.
    if let Ok(folder) = File::open(&folder) {
        let _ = folder.sync_all();
    }
    Ok(value)
}

/// [`write()`] for content that is already in memory.
///
/// # Errors
/// [`DataError::Io`].
pub fn write_bytes(path: &Path, content: &[u8]) -> Result<(), DataError> {
    write(path, |file| file.write_all(content).map_err(DataError::io(path, "write")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_bytes(&path, b"old").unwrap();
        let failed: Result<(), DataError> = write(&path, |file| {
            file.write_all(b"half").unwrap();
            Err(DataError::option("x", 1, "2"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_panic_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/a");
        let caught = std::panic::catch_unwind(|| {
            let _ = write::<(), DataError>(&path, |_| panic!("on purpose"));
        });
        assert!(caught.is_err());
        assert!(names(path.parent().unwrap()).is_empty());
    }

    #[test]
    fn replaces_and_needs_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_bytes(&path, b"one").unwrap();
        write_bytes(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(write_bytes(Path::new("/"), b"x").is_err());
    }
}
