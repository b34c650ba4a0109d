//! Foreign weight files: what is read, and what hostile files do (nothing).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use jetgraft_nn::import::{Foreign, Format, read};
use jetgraft_nn::models::lundnet::{LundNet, LundNetConfig, from_foreign, to_foreign};
use jetgraft_nn::state::{NamedTensor, Role, State, state};
use jetgraft_nn::weights::{Metadata, to_bytes};

const ZIP: &[u8] = include_bytes!("fixtures/zip.pt");
const LEGACY: &[u8] = include_bytes!("fixtures/legacy.pt");
const NESTED: &[u8] = include_bytes!("fixtures/nested.pt");
const TRAP: &[u8] = include_bytes!("fixtures/trap.pt");

fn check(file: &Foreign) {
    let expect = |name: &str, shape: &[usize], values: &[f32], dtype: &str| {
        let tensor = &file.tensors[name];
        assert_eq!((&tensor.shape[..], &tensor.values[..], tensor.dtype), (shape, values, dtype), "{name}");
    };
    expect("plain", &[2, 3], &[1.5, -2.0, 0.25, 3.0, 4.0, -5.5], "f32");
    expect("transposed", &[4, 3], &[0., 4., 8., 1., 5., 9., 2., 6., 10., 3., 7., 11.], "f32");
    expect("tail", &[4], &[8., 9., 10., 11.], "f32");
    expect("double", &[2], &[1e-3, 2.0], "f64");
    expect("half", &[2], &[0.5, -1.0], "f16");
    expect("brain", &[2], &[0.5, -1.0], "bf16");
    expect("count", &[], &[7.0], "i64");
    expect("parameter", &[1], &[9.0], "f32");
    assert_eq!(file.tensors.len(), 8);
}

#[test]
fn both_layouts_of_pytorch_are_read() {
    let zip = read(ZIP).unwrap();
    assert_eq!(zip.format, Format::PytorchZip);
    check(&zip);
    let legacy = read(LEGACY).unwrap();
    assert_eq!(legacy.format, Format::PytorchLegacy);
    check(&legacy);
    let nested = read(NESTED).unwrap();
    assert_eq!(nested.tensors.keys().collect::<Vec<_>>(), ["model.a.weight"]);
}

#[test]
fn nothing_is_executed() {
    let folder = tempfile::tempdir().unwrap();
    std::env::set_current_dir(folder.path()).unwrap();
    let trap = read(TRAP).unwrap();
    assert_eq!(trap.tensors.keys().collect::<Vec<_>>(), ["weight"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the command in the file has run");
}

/// Every single-bit flip and every truncation ends in tensors or an error.
#[test]
fn damaged_files_never_panic() {
    for bytes in [ZIP, LEGACY, NESTED, TRAP] {
        for length in 0..bytes.len() {
            let _ = read(&bytes[..length]);
        }
        let mut damaged = bytes.to_vec();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                damaged[at] ^= 1 << bit;
                let _ = read(&damaged);
                damaged[at] ^= 1 << bit;
            }
        }
    }
    // The zip layout has checksums: damaged tensor data are noticed.
    let mut damaged = ZIP.to_vec();
    let at = ZIP.windows(4).position(|window| window == 1.5f32.to_le_bytes()).unwrap();
    damaged[at] ^= 1;
    assert!(read(&damaged).unwrap_err().to_string().contains("CRC-32"));
}

/// Several random bytes at once, spliced pieces, and long runs of one instruction.
#[test]
fn hostile_files_never_panic() {
    use rand::{Rng, SeedableRng};
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    for bytes in [ZIP, LEGACY] {
        for _ in 0..20_000 {
            let mut damaged = bytes.to_vec();
            for _ in 0..random.next_u32() % 6 + 1 {
                let at = random.next_u32() as usize % damaged.len();
                damaged[at] = random.next_u32() as u8;
            }
            if random.next_u32().is_multiple_of(4) {
                let (from, to) = (random.next_u32() as usize, random.next_u32() as usize);
                let (from, to) = (from % damaged.len(), to % damaged.len());
                let piece = damaged[from.min(to)..from.max(to)].to_vec();
                let at = random.next_u32() as usize % damaged.len();
                damaged.splice(at..at, piece);
            }
            let _ = read(&damaged);
        }
    }
    for run in [&b"("[..], b"\x85", b"}q\x00h\x00\x85", b"]q\x00h\x00a", b"2", b"(((tt", b"cos\nsystem\n"] {
        let mut bytes = b"\x80\x02)".to_vec();
        for _ in 0..300_000 / run.len() {
            bytes.extend_from_slice(run);
        }
        bytes.push(b'.');
        let _ = read(&bytes);
    }
}

fn foreign_bytes(network: &LundNet) -> Vec<u8> {
    let tensors: State = to_foreign(network.config(), &state(network))
        .unwrap()
        .into_iter()
        .map(|(name, tensor)| {
            (name, NamedTensor { shape: tensor.shape, values: tensor.values, role: Role::Parameter })
        })
        .collect();
    to_bytes(&tensors, &Metadata::new())
}

#[test]
fn lundnet_goes_out_and_comes_back() {
    let config = LundNetConfig { widths: vec![8, 8, 12], classes: 4, ..LundNetConfig::lundnet_3() };
    let network = LundNet::new(&config, 5, &burn::tensor::Device::flex()).unwrap();
    let file = read(&foreign_bytes(&network)).unwrap();
    assert_eq!(file.format, Format::Safetensors);
    assert!(file.tensors.contains_key("edge_convs.2.sc_bn.num_batches_tracked"));
    let imported = from_foreign(&file.tensors).unwrap();
    assert_eq!(imported.config, config);
    assert_eq!(imported.state, state(&network));
    assert_eq!(imported.ignored.len(), 10);

    for name in ["bn_fts.weight", "edge_convs.1.theta.weight", "fc.1.bias", "fusion_block.2.running_var"] {
        let mut tensors = file.tensors.clone();
        tensors.remove(name);
        assert!(from_foreign(&tensors).is_err(), "without {name}");
        let mut tensors = file.tensors.clone();
        let tensor = tensors.get_mut(name).unwrap();
        tensor.shape.push(1);
        assert!(from_foreign(&tensors).is_err(), "another shape of {name}");
    }
    let mut tensors = file.tensors.clone();
    tensors.insert("decoder.weight".to_owned(), tensors["fc.1.bias"].clone());
    assert!(from_foreign(&tensors).unwrap_err().to_string().contains("decoder.weight"));
}
