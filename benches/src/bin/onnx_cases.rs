//! Our side of the comparisons with ONNX Runtime; `validation/onnxruntime/check.py` and `benches/predict/compare.py`
//! start it and describe it.
//!
//! `onnx_cases write FOLDER` writes, for networks of every kind, weights drawn at random, their ONNX file, their
//! safetensors under the peers' names, and jets with the logits that we compute.
//! `onnx_cases predict NAME JETS.safetensors OURS.safetensors` runs one of them on the jets of a file: once, writing the
//! logits; then, for each line `N` on standard input, N times with the seconds each took.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use jetgraft_nn::contract::{Backbone, GraphBatch, Mode, RaggedGraph};
use jetgraft_nn::export::onnx::{Feature, JetAxis, OnnxOptions, Preprocessing, Quantity, to_onnx};
use jetgraft_nn::import::read_file;
use jetgraft_nn::registry::{AnyBackbone, BackboneConfig};
use jetgraft_nn::state::{NamedTensor, Role, State, load_state, state};
use jetgraft_nn::weights::{Metadata, to_bytes};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Constituents of the jets of a case: one alone, fewer and more than neighbours are sought, many.
const SIZES: [usize; 12] = [1, 2, 3, 7, 8, 15, 16, 17, 18, 30, 50, 90];

/// Constituents that networks with preprocessing keep.
const LIMIT: usize = 40;

/// Every kind at its published sizes, and what differs in the graph from one configuration to another.
fn cases() -> Vec<(&'static str, serde_json::Value)> {
    vec![
        ("lundnet-5", json!({"kind": "lundnet"})),
        ("lundnet-3", json!({"kind": "lundnet", "input_features": 3, "widths": [16, 8, 8], "classes": 4})),
        ("particlenet", json!({"kind": "particlenet"})),
        (
            "particlenet-lite-fusion",
            json!({
                "kind": "particlenet",
                "blocks": [{"neighbours": 7, "widths": [32, 32, 32]}, {"neighbours": 7, "widths": [64, 64, 64]}],
                "fusion": 128,
                "head": [128],
                "points": [0, 1],
            }),
        ),
        (
            "particlenet-weaver",
            json!({"kind": "particlenet", "padding": "weaver", "slots": 24, "classes": 10}),
        ),
        ("particle-transformer", json!({"kind": "particle-transformer"})),
        (
            "particle-transformer-small",
            json!({
                "kind": "particle-transformer", "input_features": 14, "embed": [16, 24], "pair": [8], "heads": 4,
                "blocks": 2, "class_blocks": 1, "hidden": 32, "classes": 3,
            }),
        ),
        ("jetclr", json!({"kind": "jetclr", "width": 256, "feed_forward": 1024, "projection": [256, 256]})),
        (
            "jetclr-hard",
            json!({
                "kind": "jetclr", "width": 32, "heads": 2, "feed_forward": 48, "layers": 2, "projection": [16],
                "mask": "hard", "input_features": 6,
            }),
        ),
        ("event-gnn", json!({"kind": "event-gnn"})),
        ("event-gat", json!({"kind": "event-gat"})),
        (
            "event-gat-head",
            json!({
                "kind": "event-gat", "width": 24, "heads": 3, "layers": 2, "head_hidden": [12], "input_features": 9,
                "classes": 4,
            }),
        ),
        ("particle-flow", json!({"kind": "deep-sets"})),
        ("particle-flow-14", json!({"kind": "deep-sets", "input_features": 14})),
        ("energy-flow", json!({"kind": "deep-sets", "flow": "energy", "input_features": 2})),
        ("mlp", json!({"kind": "mlp"})),
    ]
}

/// The jets' features that a network can compute from four-vectors itself, for as many as it reads.
fn preprocessing(config: &BackboneConfig, features: usize) -> Option<Preprocessing> {
    match config {
        BackboneConfig::ParticleNet(_)
        | BackboneConfig::ParticleTransformer(_)
        | BackboneConfig::DeepSets(_)
        | BackboneConfig::JetClr(_) => {}
        _ => return None,
    }
    let feature = |name: &str, quantity, shift, scale, clip| Feature {
        name: name.into(),
        quantity,
        shift,
        scale,
        clip: Some(clip),
    };
    let bounds = (-5.0, 5.0);
    let all = [
        feature("part_deta", Quantity::MirroredDeltaEta, 0.0, 1.0, bounds),
        feature("part_dphi", Quantity::DeltaPhi, 0.0, 1.0, bounds),
        feature("part_pt_log", Quantity::LogPt, 1.7, 0.7, bounds),
        feature("part_e_log", Quantity::LogEnergy, 2.0, 0.7, bounds),
        feature("part_logptrel", Quantity::LogPtShare, -4.7, 0.7, bounds),
        feature("part_logerel", Quantity::LogEnergyShare, -4.7, 0.7, bounds),
        feature("part_deltaR", Quantity::DeltaR, 0.2, 4.0, bounds),
        feature("part_drap", Quantity::DeltaRapidity, 0.0, 1.0, bounds),
        feature("part_d0val", Quantity::TanhProperty, 0.0, 1.0, bounds),
        feature("part_d0err", Quantity::Property, 0.0, 1.0, (0.0, 1.0)),
        feature("pt", Quantity::Pt, 0.0, 1.0 / 600.0, (0.0, 1e6)),
        feature("z", Quantity::PtFraction, 0.0, 1.0, bounds),
        feature("eta", Quantity::CentredEta, 0.0, 1.0, bounds),
        feature("phi", Quantity::CentredPhi, 0.0, 1.0, bounds),
    ];
    let mut features: Vec<Feature> = all.into_iter().cycle().take(features).collect();
    // Directions stand last, where networks look for coordinates. 14 features show every quantity.
    let ends = 2.min(features.len());
    features.rotate_left(ends);
    Some(Preprocessing { features, axis: JetAxis::Sum, limit: Some(LIMIT) })
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", folder] => write(Path::new(folder)),
        ["predict", name, jets, ours] => predict(name, Path::new(jets), Path::new(ours)),
        _ => Err("usage: onnx_cases write FOLDER | predict NAME JETS.safetensors OURS.safetensors".into()),
    }
}

fn network(config: &BackboneConfig) -> Result<AnyBackbone> {
    let fresh = config.build(1, &Device::flex())?;
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut unit = || f64::from(random.next_u32()) / f64::from(u32::MAX);
    let mut drawn = state(&fresh);
    // Norms and biases start as 0 and 1, where a fault in them would not show.
    for (name, tensor) in &mut drawn {
        if tensor.shape.len() == 1 {
            let variance = name.ends_with("running_var");
            for value in &mut tensor.values {
                *value += if variance { 0.5 * unit() } else { 0.4 * (unit() - 0.5) } as f32;
            }
        }
    }
    Ok(load_state(fresh, &drawn)?)
}

fn tensor(shape: &[usize], values: Vec<f32>) -> NamedTensor {
    NamedTensor { shape: shape.to_vec(), values, role: Role::Parameter }
}

/// Jets whose constituents fall off in momentum and lie around the axis, as trees too.
fn jets(sizes: &[usize], features: usize) -> State {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut unit = || f64::from(random.next_u32()) / f64::from(u32::MAX);
    let (mut rows, mut kinematics, mut parents) = (Vec::new(), Vec::new(), Vec::new());
    let mut offsets = vec![0f32];
    for &size in sizes {
        for node in 0..size {
            let mut normal =
                || (-2.0 * (unit() + 1e-12).ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
            rows.extend((0..features).map(|_| normal() as f32));
            let (rapidity, azimuth) = (0.3 * normal(), 0.3 * normal());
            let mass = [0.0, 0.13957, 0.000511][node % 3];
            let pt = 0.5 - 40.0 * (unit() + 1e-9).ln();
            kinematics.extend([pt, rapidity, azimuth, mass].map(|value| value as f32));
            parents.push(if node == 0 { -1.0 } else { (unit() * 0.999 * node as f64).floor() as f32 });
        }
        offsets.push(offsets.last().copied().unwrap_or(0.0) + size as f32);
    }
    let nodes = parents.len();
    BTreeMap::from([
        ("features".into(), tensor(&[nodes, features], rows)),
        ("kinematics".into(), tensor(&[nodes, 4], kinematics)),
        ("parents".into(), tensor(&[nodes], parents)),
        ("jet_offsets".into(), tensor(&[offsets.len()], offsets)),
    ])
}

fn batch(jets: &State, network: &AnyBackbone, device: &Device) -> Result<GraphBatch> {
    let get = |name: &str| jets.get(name).ok_or_else(|| format!("no `{name}` in the jets"));
    let offsets: Vec<u32> = get("jet_offsets")?.values.iter().map(|&value| value as u32).collect();
    let graph = if network.needs().edges {
        let parents = &get("parents")?.values;
        let mut neighbours = vec![Vec::new(); parents.len()];
        for jet in offsets.windows(2) {
            for node in jet[0]..jet[1] {
                let parent = parents[node as usize];
                if parent >= 0.0 {
                    let parent = jet[0] + parent as u32;
                    neighbours[node as usize].push(parent);
                    neighbours[parent as usize].push(node);
                }
            }
        }
        let mut in_offsets = vec![0];
        for row in &neighbours {
            in_offsets.push(in_offsets.last().copied().unwrap_or(0) + row.len() as u32);
        }
        RaggedGraph::from_csr(&offsets, &in_offsets, &neighbours.concat(), device)?
    } else {
        RaggedGraph::new(&offsets, device)?
    };
    let graph = match network.needs().kinematics {
        true => graph.with_kinematics(&get("kinematics")?.values)?,
        false => graph,
    };
    let features = get("features")?;
    let data = TensorData::new(features.values.clone(), features.shape.clone());
    Ok(GraphBatch { features: Tensor::from_data(data, device), graph })
}

fn logits(network: &AnyBackbone, batch: &GraphBatch) -> Vec<f32> {
    let mode = Mode::evaluate(network.stages().len());
    network.forward(batch, &mode).into_data().iter::<f32>().collect()
}

fn write(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut names = Vec::new();
    for (name, config) in cases() {
        let config: BackboneConfig = serde_json::from_value(config)?;
        let network = network(&config)?;
        let weights = state(&network);
        let (features, classes) = (network.input_features(), network.classes());
        let put = |ending: &str, bytes: &[u8]| std::fs::write(folder.join(format!("{name}.{ending}")), bytes);
        put(
            "onnx",
            &to_onnx(&config, &weights, &OnnxOptions { name: name.into(), ..OnnxOptions::default() })?,
        )?;
        let centre: Vec<f32> = (0..features).map(|at| 0.1 * at as f32).collect();
        let scale: Vec<f32> = (0..features).map(|at| 0.5 + 0.25 * at as f32).collect();
        let options = OnnxOptions { standardise: Some((centre, scale)), ..OnnxOptions::default() };
        put("standardised.onnx", &to_onnx(&config, &weights, &options)?)?;
        let mut steps = None;
        if let Some(preprocessing) = preprocessing(&config, features) {
            steps = Some(
                preprocessing
                    .features
                    .iter()
                    .map(|f| {
                        json!([format!("{:?}", f.quantity), f.shift, f.scale, f.clip.map(|(a, b)| [a, b])])
                    })
                    .collect::<Vec<_>>(),
            );
            let options = OnnxOptions { preprocessing: Some(preprocessing), ..OnnxOptions::default() };
            put("four_vectors.onnx", &to_onnx(&config, &weights, &options)?)?;
        }
        let foreign = config
            .to_foreign(&weights)?
            .into_iter()
            .map(|(name, tensor)| {
                let role = Role::of(&name);
                (name, NamedTensor { shape: tensor.shape, values: tensor.values, role })
            })
            .collect();
        put("safetensors", &to_bytes(&foreign, &Metadata::new()))?;
        let sizes = if config.kind() == "mlp" { [1; SIZES.len()] } else { SIZES };
        let mut jets = jets(&sizes, features);
        let ours = logits(&network, &batch(&jets, &network, &Device::flex())?);
        jets.insert("logits".into(), tensor(&[sizes.len(), classes], ours));
        put("jets", &to_bytes(&jets, &Metadata::new()))?;
        names.push(json!({
            "name": name,
            "kind": config.kind(),
            "config": config,
            "features": features,
            "classes": classes,
            "kinematics": network.needs().kinematics,
            "edges": network.needs().edges,
            "preprocessing": steps,
            "limit": LIMIT,
        }));
    }
    std::fs::write(folder.join("cases.json"), serde_json::to_vec_pretty(&names)?)?;
    Ok(())
}

fn predict(name: &str, jets: &Path, ours: &Path) -> Result<()> {
    let cases = cases();
    let (_, config) =
        cases.iter().find(|(case, _)| *case == name).ok_or_else(|| format!("no case `{name}`"))?;
    let network = network(&serde_json::from_value(config.clone())?)?;
    let jets: State = read_file(jets)?
        .tensors
        .into_iter()
        .map(|(name, found)| (name, tensor(&found.shape, found.values)))
        .collect();
    let batch = batch(&jets, &network, &Device::flex())?;
    let found = logits(&network, &batch);
    let shape = [batch.graph.jets, network.classes()];
    let found = BTreeMap::from([("logits".to_owned(), tensor(&shape, found))]);
    std::fs::write(ours, to_bytes(&found, &Metadata::new()))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", json!({"ready": true}))?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let passes: usize = line?.trim().parse()?;
        let mut seconds = Vec::with_capacity(passes);
        for _ in 0..passes {
            let start = Instant::now();
            std::hint::black_box(logits(&network, &batch));
            seconds.push(start.elapsed().as_secs_f64());
        }
        writeln!(out, "{}", json!({"seconds": seconds}))?;
        out.flush()?;
    }
    Ok(())
}
