//! Our side of the comparison with FastJet: the same jobs on the same momenta as `fastjet/peer.cc`.
//!
//! `fastjet_workload lund FILE ROUNDS` or `fastjet_workload cluster FILE ROUNDS ALGORITHM RADIUS [STRATEGY]`; prints one line
//! of JSON with the CPU time of this thread per set and sums that both sides must agree on. Run by `fastjet/compare.py`.

use std::error::Error;
use std::io::Write;

use jetgraft_physics::FourMomentum;
use jetgraft_physics::cluster::{Algorithm, Clusterer, JetDefinition, Strategy};
use jetgraft_physics::lund::{FeatureSet, LundCuts, LundWorkspace, PsiForm};

/// CPU seconds of this thread.
fn cpu_seconds() -> f64 {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: `time` has the layout of `struct timespec` on 64-bit Linux and outlives the call.
    unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.seconds as f64 + 1e-9 * time.nanoseconds as f64
}

/// Sets of momenta: `u64` count, `u64` offsets (count + 1), then px, py, pz, E of every particle, little-endian.
fn read(path: &str) -> Result<Vec<Vec<FourMomentum>>, Box<dyn Error>> {
    let bytes = std::fs::read(path)?;
    let word = |at: usize| -> Result<[u8; 8], Box<dyn Error>> {
        Ok(bytes.get(8 * at..8 * at + 8).ok_or("file too short")?.try_into()?)
    };
    let count = u64::from_le_bytes(word(0)?) as usize;
    let mut sets = Vec::with_capacity(count);
    for set in 0..count {
        let first = u64::from_le_bytes(word(1 + set)?) as usize;
        let end = u64::from_le_bytes(word(2 + set)?) as usize;
        let mut momenta = Vec::with_capacity(end - first);
        for particle in first..end {
            let at = 2 + count + 4 * particle;
            let value = |k| -> Result<f64, Box<dyn Error>> { Ok(f64::from_le_bytes(word(at + k)?)) };
            momenta.push(FourMomentum::new(value(0)?, value(1)?, value(2)?, value(3)?));
        }
        sets.push(momenta);
    }
    Ok(sets)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ([job, path, rounds, rest @ ..], ..) = (arguments.as_slice(),) else {
        return Err("usage: fastjet_workload lund|cluster FILE ROUNDS [ALGORITHM RADIUS [STRATEGY]]".into());
    };
    let sets = read(path)?;
    let rounds: usize = rounds.parse()?;
    let (mut check, mut count, mut seconds) = (0.0, 0, f64::INFINITY);
    match *job {
        "lund" => {
            let mut workspace = LundWorkspace::new();
            let mut rows = Vec::new();
            for _ in 0..rounds {
                (check, count) = (0.0, 0);
                let start = cpu_seconds();
                for set in &sets {
                    rows.clear();
                    let tree = workspace.tree(set, &LundCuts::none())?;
                    tree.features(FeatureSet::LundNet5, PsiForm::LundNet, &mut rows);
                    count += tree.nodes.len();
                    check += rows.iter().map(|x| f64::from(*x)).sum::<f64>();
                }
                seconds = seconds.min(cpu_seconds() - start);
            }
        }
        "cluster" => {
            let [algorithm, radius, rest @ ..] = rest else {
                return Err("algorithm and radius missing".into());
            };
            let algorithm = match *algorithm {
                "antikt" => Algorithm::AntiKt,
                "cambridge" => Algorithm::CambridgeAachen,
                "kt" => Algorithm::Kt,
                other => return Err(format!("unknown algorithm {other}").into()),
            };
            let strategy = match rest.first().copied() {
                None | Some("auto") => Strategy::Auto,
                Some("plain") => Strategy::Plain,
                Some("tiled") => Strategy::Tiled,
                Some(other) => return Err(format!("unknown strategy {other}").into()),
            };
            let definition = JetDefinition::new(algorithm, radius.parse()?)?.with_strategy(strategy);
            let mut clusterer = Clusterer::new(definition);
            for _ in 0..rounds {
                (check, count) = (0.0, 0);
                let start = cpu_seconds();
                for set in &sets {
                    let sequence = clusterer.cluster(set)?;
                    let jets = sequence.inclusive_jets(5.0);
                    count += jets.len();
                    check += jets.iter().map(|jet| jet.momentum.pt()).sum::<f64>();
                }
                seconds = seconds.min(cpu_seconds() - start);
            }
        }
        other => return Err(format!("unknown job {other}").into()),
    }
    let micro = 1e6 * seconds / sets.len() as f64;
    writeln!(
        std::io::stdout(),
        "{{\"us_per_set\": {micro:.4}, \"count\": {count}, \"check\": {check:.9e}}}"
    )?;
    Ok(())
}
