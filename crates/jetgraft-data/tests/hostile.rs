//! Thousands of damaged files: every one is read, or refused by an error that names it; none panics, hangs or asks for
//! absurd memory.
//!
//! `JETGRAFT_HOSTILE_ROUNDS=N` sets the number of damaged copies of each file (default 400).

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panicking and log to stderr")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jetgraft_data::{ClassSpec, DataError, JetQuery, Precision, inspect, load_jets, open, write_jets};
use jetgraft_physics::FourMomentum;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Counts the memory in use and its peak.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// Largest peak of one file so far, for the log.
static WORST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = IN_USE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let now = IN_USE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let now = IN_USE.fetch_add(size, Ordering::Relaxed) + size;
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most memory that reading a damaged file of some kilobytes may take: four pages of the largest size granted.
const MEMORY: usize = 256 << 20;

/// A reader that takes this long over a damaged file of some kilobytes hangs. Nothing is said about speed: the bound is a
/// thousand times what a read takes, so that a stalled machine does not fail the test.
const SLOW: Duration = Duration::from_secs(60);

fn rounds() -> usize {
    std::env::var("JETGRAFT_HOSTILE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).join(name)
}

/// One file is read at a time, so that the peak is its own.
static ALONE: Mutex<()> = Mutex::new(());

/// Reads everything that can be read; whether it went through.
fn read(path: &Path) -> bool {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = IN_USE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let started = Instant::now();
    let mut errors: Vec<DataError> = Vec::new();
    match open(path) {
        Err(error) => errors.push(error),
        Ok(table) => {
            let names: Vec<String> = table
                .columns()
                .iter()
                .filter(|column| column.dtype.is_readable())
                .map(|column| column.name.clone())
                .collect();
            for group in 0..table.groups().min(64) {
                match table.read(group, &names) {
                    Err(error) => errors.push(error),
                    Ok(batches) => {
                        let mut rows = 0;
                        for batch in batches {
                            match batch {
                                Err(error) => errors.push(error),
                                Ok(batch) => rows += batch.num_rows(),
                            }
                            assert!(rows < 100_000_000);
                        }
                    }
                }
            }
        }
    }
    errors.extend(inspect(path).err());
    let query = JetQuery::new([path], vec![ClassSpec::of_files("all", [path])]);
    // A sound file without jets is refused as well, which is no verdict on the file.
    errors.extend(load_jets(&query).err().filter(|error| !matches!(error, DataError::NoColumn { .. })));
    let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    WORST.fetch_max(peak, Ordering::Relaxed);
    assert!(peak < MEMORY, "{}: {peak} bytes at once", path.display());
    assert!(started.elapsed() < SLOW, "{}: {:?}", path.display(), started.elapsed());
    for error in &errors {
        assert!(!error.to_string().is_empty());
        if let DataError::Corrupt { path: named, entry, .. }
        | DataError::TooLarge { path: named, entry, .. } = error
        {
            assert_eq!(named, path);
            assert!(!entry.is_empty() && error.hint().is_some());
        }
    }
    errors.is_empty()
}

/// One way to damage a file.
fn damage(rng: &mut ChaCha8Rng, content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    let length = bytes.len();
    // Half of the damage goes where the structure is: the first and last kilobytes.
    let place = |rng: &mut ChaCha8Rng| match rng.random_range(0..4u32) {
        0 => length - 1 - rng.random_range(0..length.min(3000)),
        1 => rng.random_range(0..length.min(300)),
        _ => rng.random_range(0..length),
    };
    match rng.random_range(0..8u32) {
        0 => bytes.truncate(rng.random_range(0..length)),
        1 => {
            let at = place(rng);
            bytes[at] ^= 1 << rng.random_range(0..8u32);
        }
        2 => {
            let at = place(rng);
            bytes[at] = rng.random();
        }
        3 => {
            let at = place(rng);
            let end = (at + rng.random_range(1..12usize)).min(length);
            bytes[at..end].fill(0xff);
        }
        4 => {
            for _ in 0..rng.random_range(2..12u32) {
                let at = place(rng);
                bytes[at] = rng.random();
            }
        }
        5 => {
            let at = place(rng);
            let end = (at + rng.random_range(1..200usize)).min(length);
            bytes.drain(at..end);
        }
        6 => {
            let from = place(rng);
            let piece: Vec<u8> = bytes[from..(from + 40).min(length)].to_vec();
            let at = place(rng);
            bytes.splice(at..at, piece);
        }
        _ => {
            // A large number in variable-length form.
            let at = place(rng);
            let end = (at + 5).min(length);
            let mut number = [0xff, 0xff, 0xff, 0xff, 0x07];
            rng.fill_bytes(&mut number[..2]);
            number.iter_mut().take(4).for_each(|byte| *byte |= 0x80);
            bytes[at..end].copy_from_slice(&number[..end - at]);
        }
    }
    bytes
}

fn torture(name: &str, content: &[u8], rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let seed = content.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut passed = 0;
    for _ in 0..rounds {
        std::fs::write(&path, damage(&mut rng, content)).unwrap();
        passed += usize::from(read(&path));
    }
    let worst = WORST.load(Ordering::Relaxed) >> 10;
    eprintln!("{name}: {rounds} damaged copies, {passed} of them readable; {worst} KiB at once at most");
}

/// A small file as we write it.
fn own_file() -> Vec<u8> {
    let mut jets = jetgraft_data::Jets { offsets: vec![0], ..Default::default() };
    for jet in 0..30u32 {
        for i in 0..=jet % 7 {
            jets.constituents.push(FourMomentum::from_pt_eta_phi_mass(
                f64::from(i + 1),
                0.1 * f64::from(i),
                0.2 * f64::from(jet),
                0.14,
            ));
        }
        jets.offsets.push(jets.constituents.len());
        jets.event_id.push(u64::from(jet));
        jets.jet_index.push(0);
        jets.label.push(jet % 2);
        jets.jet_pt_gev.push(500.0);
        jets.jet_eta.push(0.0);
        jets.jet_phi.push(0.0);
        jets.jet_mass_gev.push(80.0);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.parquet");
    write_jets(&path, &jets, Precision::Single).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn damaged_parquet_files() {
    for name in [
        "types_zstd_bss.parquet",
        "types_snappy_v1.parquet",
        "types_gzip_v2_pages.parquet",
        "types_lz4_dictionary.parquet",
        "types_none_small_pages.parquet",
        "bad_rows.parquet",
    ] {
        torture(name, &std::fs::read(fixture(name)).unwrap(), rounds());
    }
    torture("own.parquet", &own_file(), 2 * rounds());
}

#[test]
fn parquet_cut_at_every_length() {
    let content = own_file();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.parquet");
    std::fs::write(&path, &content).unwrap();
    assert!(read(&path), "the whole file is sound");
    for length in 0..content.len() {
        std::fs::write(&path, &content[..length]).unwrap();
        assert!(!read(&path), "cut at {length}");
        // A file that was cut and then closed properly by someone else: the footer points at what is not there.
        if length % 7 == 0 && length > 4 {
            let footer = content.len()
                - 8
                - u32::from_le_bytes(content[content.len() - 8..][..4].try_into().unwrap()) as usize;
            if length < footer {
                let mut joined = content[..length].to_vec();
                joined.extend_from_slice(&content[footer..]);
                std::fs::write(&path, &joined).unwrap();
                // Only what lies between the last column and the footer can be missing without harm.
                assert!(!read(&path) || footer - length < 800, "joined at {length}");
            }
        }
    }
}

#[test]
fn damaged_lund_files() {
    let compressed = std::fs::read(fixture("lund_valid.json.gz")).unwrap();
    torture("valid.json.gz", &compressed, 2 * rounds());
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&compressed[..]), &mut text).unwrap();
    torture("valid.json", &text, 2 * rounds());
    // Damaged inside, and compressed again.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inside.json.gz");
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for _ in 0..rounds() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&damage(&mut rng, &text)).unwrap();
        std::fs::write(&path, gzip.finish().unwrap()).unwrap();
        read(&path);
    }
    for length in (0..compressed.len()).step_by(13) {
        std::fs::write(&path, &compressed[..length]).unwrap();
        assert!(!read(&path), "cut at {length}");
    }
}

#[test]
fn bombs_are_refused_early() {
    let folder = tempfile::tempdir().unwrap();
    // A line of a gigabyte in a file of a megabyte.
    let path = folder.path().join("line.json.gz");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"\"header\"\n[").unwrap();
    let spaces = vec![b' '; 1 << 20];
    for _ in 0..1024 {
        gzip.write_all(&spaces).unwrap();
    }
    std::fs::write(&path, gzip.finish().unwrap()).unwrap();
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let started = Instant::now();
    let table = open(&path).unwrap();
    PEAK.store(IN_USE.load(Ordering::Relaxed), Ordering::Relaxed);
    let before = IN_USE.load(Ordering::Relaxed);
    let outcome = table.read(0, &["px".into()]).unwrap().next().unwrap();
    assert!(matches!(outcome, Err(DataError::TooLarge { .. })));
    assert!(PEAK.load(Ordering::Relaxed) - before < MEMORY);
    assert!(started.elapsed() < SLOW);
}
