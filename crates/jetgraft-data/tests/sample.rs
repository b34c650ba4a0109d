//! The jets in the repository are those that their README describes.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panicking and log to stderr")]

use std::collections::HashSet;
use std::path::PathBuf;

use jetgraft_data::{ClassSpec, JetQuery, inspect, load_jets};

fn samples(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples")).join(name)
}

/// SHA-256 (FIPS 180-4), written out here because only this test needs it.
fn sha256(content: &[u8]) -> String {
    // The constants are the first 32 bits of the fractional parts of roots of the first primes.
    let primes: Vec<u32> = (2..312u32).filter(|n| (2..*n).all(|d| n % d != 0)).collect();
    let fraction = |root: f64| ((root - root.floor()) * 4294967296.0) as u32;
    let k: Vec<u32> = primes.iter().map(|p| fraction(f64::from(*p).cbrt())).collect();
    let mut h: Vec<u32> = primes[..8].iter().map(|p| fraction(f64::from(*p).sqrt())).collect();
    let mut padded = content.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend((content.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut w: Vec<u32> =
            block.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])).collect();
        for t in 16..64 {
            let s0 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ (w[t - 15] >> 3);
            let s1 = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ (w[t - 2] >> 10);
            w.push(w[t - 16].wrapping_add(s0).wrapping_add(w[t - 7]).wrapping_add(s1));
        }
        let mut v = h.clone();
        for t in 0..64 {
            let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let choice = (v[4] & v[5]) ^ (!v[4] & v[6]);
            let t1 = v[7].wrapping_add(s1).wrapping_add(choice).wrapping_add(k[t]).wrapping_add(w[t]);
            let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            v.rotate_right(1);
            v[4] = v[4].wrapping_add(t1);
            v[0] = t1.wrapping_add(s0.wrapping_add(majority));
        }
        for (h, v) in h.iter_mut().zip(v) {
            *h = h.wrapping_add(v);
        }
    }
    h.iter().map(|word| format!("{word:08x}")).collect()
}

#[test]
fn sha256_of_a_known_text() {
    assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[test]
fn digest_and_counts_are_those_of_the_readme() {
    let path = samples("jets_r10_pt500.parquet");
    let content = std::fs::read(&path).unwrap();
    assert_eq!(content.len(), 11_473_971);
    assert!(content.len() < 12_000_000);
    let digest = "04b530ad3db05bfabe1512de2bda6b2f85f1ad89a77493b5690fbe158afbf937";
    assert_eq!(sha256(&content), digest);
    let readme = std::fs::read_to_string(samples("README.md")).unwrap();
    for part in [digest, "13,381", "6,540", "3,985", "2,401", "1,370", "4,440", "2,761", "8,116", "1,087,640"]
    {
        assert!(readme.contains(part), "the README does not say {part}");
    }

    let classes = [("qcd", 0, 6540, 3985), ("w", 1, 2401, 1370), ("top", 2, 4440, 2761)];
    let specs = classes
        .iter()
        .map(|(name, process, ..)| ClassSpec::new(*name, format!("process == {process}")))
        .collect();
    let (jets, ledger, manifest) = load_jets(&JetQuery::new([&path], specs)).unwrap();
    assert_eq!((ledger.read, ledger.used), (13_381, 13_381));
    assert_eq!(jets.constituents.len(), 1_087_640);
    assert_eq!(manifest.files[0].rows, 13_381);
    for (label, (name, _, count, events)) in classes.into_iter().enumerate() {
        let rows = (0..jets.len()).filter(|jet| jets.label[*jet] == label as u32);
        let ids: Vec<u64> = rows.map(|jet| jets.event_id[jet]).collect();
        assert_eq!(ids.len(), count, "{name}");
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), events, "{name}");
    }
    // The constituents make the jet, but for lists that were cut at 200.
    let mut off = 0;
    for jet in 0..jets.len() {
        let sum: jetgraft_physics::FourMomentum = jets.constituents_of(jet).iter().copied().sum();
        assert!((sum.pt() / jets.jet_pt_gev[jet] - 1.0).abs() < 1e-2);
        off += usize::from((sum.mass() - jets.jet_mass_gev[jet]).abs() > 2e-3);
        assert!(jets.jet_pt_gev[jet] > 500.0 && jets.jet_eta[jet].abs() < 2.5);
    }
    assert!(off < 150, "{off} jets with another mass");
}

#[test]
fn inspect_describes_it_and_finds_columns_and_classes() {
    let path = samples("jets_r10_pt500.parquet");
    let inspection = inspect(&path).unwrap();
    assert_eq!((inspection.rows, inspection.events, inspection.groups), (13_381, Some(8_116), 14));
    let column = |name: &str| inspection.columns.iter().find(|column| column.name == name).unwrap();
    assert_eq!(column("part_pt").unit.as_deref(), Some("GeV"));
    assert_eq!(column("jet_phi").unit.as_deref(), Some("rad"));
    let lengths = column("part_energy").lengths.unwrap();
    assert_eq!(lengths.max, 200);
    assert!((lengths.mean - 1_087_640.0 / 13_381.0).abs() < 1e-9);
    assert_eq!(column("process").distinct.as_ref().unwrap()[&2], 4440);
    assert!(column("part_pt").storage.as_ref().unwrap().compression.contains("ZSTD"));
    let proposal = &inspection.proposal;
    let classes: Vec<_> = proposal.classes.iter().map(|class| (class.when.as_str(), class.rows)).collect();
    assert_eq!(classes, [("process == 0", 6540), ("process == 1", 2401), ("process == 2", 4440)]);
    assert!(proposal.renamed.is_empty() && proposal.missing.is_empty(), "{proposal:?}");
    assert!(inspection.remarks.is_empty(), "{:?}", inspection.remarks);
    let text = inspection.to_string();
    assert!(text.contains("list of f32") && text.contains("13381 rows"), "{text}");
    let json = serde_json::to_string(&inspection).unwrap();
    assert_eq!(serde_json::from_str::<jetgraft_data::Inspection>(&json).unwrap().rows, 13_381);
}
