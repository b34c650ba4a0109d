//! JetCLR and its contrast against reference numbers, formulas, and what masks and shapes promise. Reference files lie
//! beside the repository and are not part of it.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Tensor};
use common::{bits, difference, distance, gradients, host, matrix, vector};
use jetgraft_nn::contract::{Backbone, GraphBatch, Mode, RaggedGraph, Rows};
use jetgraft_nn::import::{ForeignTensor, read_file};
use jetgraft_nn::models::jetclr::{JetClr, JetClrConfig, Mask, from_foreign, to_foreign};
use jetgraft_nn::ops::contrastive::{self, alignment, nt_xent, uniformity};
use jetgraft_nn::ops::dense::{self, LayerNorm, Linear};
use jetgraft_nn::ops::dropout::Dropout;
use jetgraft_nn::state::{State, load_state, parameter_ids, state};

type Tensors = BTreeMap<String, ForeignTensor>;

fn golden() -> Option<Tensors> {
    let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let path = PathBuf::from(shared).join("golden/encoder_small.safetensors");
    if !path.exists() {
        eprintln!("skipped: {} not found", path.display());
        return None;
    }
    Some(read_file(&path).unwrap().tensors)
}

/// Root mean square.
fn size(values: &[f32]) -> f64 {
    (values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

/// Largest difference, relative to the root mean square of what is expected or to `floor`.
fn worst(found: &[f32], expected: &[f32], floor: f64) -> f64 {
    assert_eq!(found.len(), expected.len());
    let worst =
        found.iter().zip(expected).map(|(&f, &e)| (f64::from(f) - f64::from(e)).abs()).fold(0.0, f64::max);
    if worst.is_nan() { f64::INFINITY } else { worst / size(expected).max(floor) }
}

/// Jets of constituents (pt / 600, eta, phi) with kinematics.
#[derive(Clone)]
struct Jets {
    sizes: Vec<usize>,
    features: Vec<f32>,
}

impl Jets {
    fn new(sizes: &[usize], seed: u64) -> Self {
        let mut features = vector(seed, 3 * sizes.iter().sum::<usize>());
        for constituent in features.chunks_mut(3) {
            constituent[0] = 0.11 + 0.1 * constituent[0];
        }
        Self { sizes: sizes.to_vec(), features }
    }

    /// The constituents of padded jets `[B, n, 3]` whose transverse momentum is not 0.
    fn of_padded(tensor: &ForeignTensor) -> Self {
        let [_, slots, 3] = tensor.shape[..] else { panic!("{:?}", tensor.shape) };
        let mut jets = Self { sizes: Vec::new(), features: Vec::new() };
        for jet in tensor.values.chunks(3 * slots) {
            let real: Vec<&[f32]> = jet.chunks(3).filter(|constituent| constituent[0] > 0.0).collect();
            jets.sizes.push(real.len());
            jets.features.extend(real.concat());
        }
        jets
    }

    fn join(parts: &[Self]) -> Self {
        Self {
            sizes: parts.iter().flat_map(|part| part.sizes.clone()).collect(),
            features: parts.iter().flat_map(|part| part.features.clone()).collect(),
        }
    }

    fn jet(&self, jet: usize) -> Self {
        let start: usize = self.sizes[..jet].iter().sum();
        let features = self.features[3 * start..3 * (start + self.sizes[jet])].to_vec();
        Self { sizes: vec![self.sizes[jet]], features }
    }

    fn reversed(&self) -> Self {
        let turned = (0..self.sizes.len()).map(|jet| {
            let jet = self.jet(jet);
            let features = jet.features.chunks(3).rev().flatten().copied().collect();
            Self { features, ..jet }
        });
        Self::join(&turned.collect::<Vec<_>>())
    }

    fn batch(&self, device: &Device) -> GraphBatch {
        let mut offsets = vec![0u32];
        for &size in &self.sizes {
            offsets.push(offsets[offsets.len() - 1] + size as u32);
        }
        let kinematics: Vec<f32> =
            self.features.chunks(3).flat_map(|row| [600.0 * row[0], row[1], row[2], 0.0]).collect();
        let graph = RaggedGraph::new(&offsets, device).unwrap().with_kinematics(&kinematics).unwrap();
        GraphBatch { features: matrix(self.features.clone(), self.features.len() / 3, 3, device), graph }
    }
}

fn small(mask: Mask) -> JetClrConfig {
    JetClrConfig {
        width: 16,
        heads: 2,
        feed_forward: 24,
        layers: 2,
        projection: vec![12, 10],
        mask,
        classes: 3,
        ..JetClrConfig::default()
    }
}

fn evaluate(network: &JetClr, jets: &Jets) -> Vec<f32> {
    let device = burn::module::Module::devices(network)[0].clone();
    host(network.forward(&jets.batch(&device), &Mode::evaluate(network.stages().len())))
}

/// Bounds on the largest difference of a tensor, relative to its root mean square (gradients of one kind: to that of
/// the largest, since biases of keys have none). Measured against the double-precision reference with f32 sums in
/// any order; each bound is about three times the worst measured.
const REPRESENTATION: f64 = 1.5e-6;
const PROJECTION: f64 = 1.5e-6;
const LOSS: f64 = 3e-7;
const MONITOR: f64 = 3e-7;
const GRADIENT: f64 = 2e-5;

#[test]
fn outputs_loss_and_gradients_of_the_reference() {
    let Some(golden) = golden() else { return };
    let parameters: Tensors = (golden.iter())
        .filter_map(|(name, tensor)| Some((name.strip_prefix("param.")?.to_owned(), tensor.clone())))
        .collect();
    let imported = from_foreign(&parameters).unwrap();
    assert_eq!(
        imported.config,
        JetClrConfig {
            width: 32,
            feed_forward: 64,
            layers: 2,
            projection: vec![32, 32],
            ..JetClrConfig::default()
        }
    );
    let views = [Jets::of_padded(&golden["in.view_a"]), Jets::of_padded(&golden["in.view_b"])];
    let device = Device::flex().autodiff();
    let mut found: Vec<(String, f64, f64)> = Vec::new();
    let mut note = |group: &str, bound: f64, values: &[f32], expected: &str, floor: f64| {
        found.push((group.to_owned(), worst(values, &golden[expected].values, floor), bound));
    };
    for (mask, name) in [(Mask::Hard, "hard"), (Mask::Continuous, "continuous"), (Mask::None, "hard")] {
        let config = JetClrConfig { mask, ..imported.config.clone() };
        let network = load_state(JetClr::new(&config, 1, &device).unwrap(), &imported.state).unwrap();
        let mode = Mode::evaluate(network.stages().len());
        let batch = views[0].batch(&device);
        let pooled = network.forward_stages(0..3, batch.features.clone(), &batch.graph, &mode);
        assert_eq!(network.rows_at(3), Rows::Jets);
        let label = format!("representation, {mask:?}");
        note(&label, REPRESENTATION, &host(pooled), &format!("out.representation_{name}"), 0.0);
        let projected = network.encode(&batch, &mode);
        note(
            &format!("projection, {mask:?}"),
            PROJECTION,
            &host(projected),
            &format!("out.projection_{name}"),
            0.0,
        );
    }

    let config = JetClrConfig { mask: Mask::Hard, ..imported.config.clone() };
    let network = load_state(JetClr::new(&config, 1, &device).unwrap(), &imported.state).unwrap();
    // Both views in one batch.
    let batch = Jets::join(&views).batch(&device);
    let mut mode = Mode::train(network.stages().len(), 1);
    mode.dropout_seed = None;
    let z = network.encode(&batch, &mode);
    let jets = views[0].sizes.len();
    let (first, second) = (z.clone().slice([0..jets, 0..32]), z.slice([jets..2 * jets, 0..32]));
    let loss = nt_xent(first.clone(), second.clone(), 0.1);
    note("NT-Xent of projections", LOSS, &host(loss.clone()), "out.nt_xent_hard_t0.1", 0.0);
    note(
        "plain NT-Xent",
        LOSS,
        &host(contrastive::plain::nt_xent(first, second, 0.1)),
        "out.nt_xent_hard_t0.1",
        0.0,
    );
    let gradients = gradients(&network, &loss.backward());
    let gradients = to_foreign(network.config(), &gradients).unwrap();
    let names = || golden.keys().filter_map(|name| name.strip_prefix("grad."));
    assert_eq!(gradients.keys().map(String::as_str).collect::<Vec<_>>(), names().collect::<Vec<_>>());
    let scale = |weight: &str| {
        let of =
            |name: &&str| if weight == "bias" { name.ends_with("bias") } else { name.ends_with("weight") };
        let sizes = names().filter(of).map(|name| size(&golden[&format!("grad.{name}")].values));
        sizes.fold(0.0, f64::max)
    };
    let floors = [scale("weight"), scale("bias")];
    for (name, gradient) in &gradients {
        assert_eq!(gradient.shape, golden[&format!("grad.{name}")].shape, "{name}");
        // The smallest gradients are sums that nearly cancel: measured against a hundredth of the largest.
        let floor = 0.01 * floors[usize::from(name.ends_with("bias"))];
        note(&format!("gradient of {name}"), GRADIENT, &gradient.values, &format!("grad.{name}"), floor);
    }

    let pairs = |name: &str| {
        let tensor = &golden[name];
        matrix(tensor.values.clone(), tensor.shape[0], tensor.shape[1], &Device::flex())
    };
    let (first, second) = (pairs("in.pairs_a"), pairs("in.pairs_b"));
    for temperature in ["0.05", "0.1", "0.5"] {
        let name = format!("out.nt_xent_pairs_t{temperature}");
        let temperature = temperature.parse().unwrap();
        let kernel = nt_xent(first.clone(), second.clone(), temperature);
        note(&name, LOSS, &host(kernel), &name, 0.0);
        let plain = contrastive::plain::nt_xent(first.clone(), second.clone(), temperature);
        note(&format!("plain {name}"), LOSS, &host(plain), &name, 0.0);
    }
    note("alignment", MONITOR, &host(alignment(first.clone(), second.clone())), "out.alignment", 0.0);
    note("uniformity", MONITOR, &host(uniformity(first)), "out.uniformity", 0.0);

    for (group, difference, bound) in &found {
        println!("{difference:9.2e} of {bound:7.1e}  {group}");
    }
    assert!(found.iter().all(|(_, difference, bound)| difference <= bound), "above the bound");
}

#[test]
fn counts_are_the_published_ones() {
    let device = Device::flex();
    let count = |config: &JetClrConfig| {
        let network = JetClr::new(config, 0, &device).unwrap();
        let state = state(&network);
        for name in state.keys() {
            let owners = network
                .stages()
                .iter()
                .filter(|stage| name.starts_with(&format!("{}.", stage.prefix)))
                .count();
            assert_eq!(owners, 1, "{name} belongs to one stage");
        }
        let encoder = state.iter().filter(|(name, _)| !name.starts_with("head."));
        encoder.map(|(_, tensor)| tensor.values.len()).sum::<usize>()
    };
    let published = JetClrConfig::default();
    assert_eq!(count(&published), 26_046_000);
    assert_eq!(count(&published.clone().with_ends(6, 2)), 26_049_000);
    assert_eq!(count(&published.clone().with_ends(7, 2)), 26_050_000);
    assert_eq!(count(&JetClrConfig::at_scale()), 27_313_152);
    let one_more = JetClrConfig { layers: 5, ..published.clone() };
    assert_eq!(count(&one_more) - count(&published), 6_010_000);
}

#[test]
fn the_start_is_that_of_pytorch() {
    let device = Device::flex();
    let config = JetClrConfig { width: 32, feed_forward: 48, ..small(Mask::Hard) };
    let start = |config: &JetClrConfig| state(&JetClr::new(config, 5, &device).unwrap());
    let state = start(&config);
    let largest = |name: &str| state[name].values.iter().fold(0f32, |most, value| most.max(value.abs()));
    let near = |name: &str, bound: f32| {
        let found = largest(name);
        assert!(found <= bound && found > 0.9 * bound, "{name}: {found} of {bound}");
    };
    near("layer.1.attention.joined.weight", (6.0f32 / 128.0).sqrt());
    near("layer.1.attention.output.weight", 32f32.powf(-0.5));
    near("layer.1.hidden.bias", 32f32.powf(-0.5));
    near("layer.1.output.weight", 48f32.powf(-0.5));
    near("embed.weight", 3f32.powf(-0.5));
    assert_eq!(largest("layer.0.attention.joined.bias") + largest("layer.0.attention.output.bias"), 0.0);
    let parts = ["attention.joined.weight", "attention.output.weight", "hidden.weight", "output.bias"];
    let identical = start(&JetClrConfig { identical_layers: true, ..config });
    for part in parts {
        let [first, second] = [0, 1].map(|layer| format!("layer.{layer}.{part}"));
        assert_ne!(state[&first], state[&second], "{part}");
        assert_eq!(identical[&first], identical[&second], "{part}");
        assert_eq!(identical[&first], state[&first], "{part}");
    }
}

#[test]
fn impossible_sizes_are_errors() {
    for config in [
        JetClrConfig { heads: 3, ..small(Mask::Hard) },
        JetClrConfig { heads: 0, ..small(Mask::Hard) },
        JetClrConfig { layers: 0, ..small(Mask::Hard) },
        JetClrConfig { width: 0, ..small(Mask::Hard) },
        JetClrConfig { projection: vec![3, 0], ..small(Mask::Hard) },
        JetClrConfig { dropout: f64::NAN, ..small(Mask::Hard) },
    ] {
        assert!(JetClr::new(&config, 0, &Device::flex()).is_err(), "{config:?}");
    }
}

#[test]
fn stage_by_stage_is_the_whole_bit_for_bit() {
    for (mask, projection) in
        [(Mask::Hard, vec![12, 10]), (Mask::Continuous, vec![12, 10]), (Mask::Continuous, vec![])]
    {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let config = JetClrConfig { projection: projection.clone(), ..small(mask) };
            let network = JetClr::new(&config, 3, &device).unwrap();
            let stages = network.stages().len();
            let batch = Jets::new(&[1, 12, 70, 7, 2, 61], 2).batch(&device);
            for mode in [Mode::evaluate(stages), Mode::train(stages, 5)] {
                let whole = host(network.forward(&batch, &mode));
                for cut in 0..=stages {
                    let first = network.forward_stages(0..cut, batch.features.clone(), &batch.graph, &mode);
                    let rows = if network.rows_at(cut) == Rows::Nodes {
                        batch.graph.nodes
                    } else {
                        batch.graph.jets
                    };
                    assert_eq!(first.dims(), [rows, network.width_at(cut)]);
                    let second = network.forward_stages(cut..stages, first, &batch.graph, &mode);
                    assert_eq!(bits(&host(second)), bits(&whole), "cut {cut}");
                }
            }
        }
    }
}

#[test]
fn evaluation_does_not_see_the_order_or_the_company() {
    for mask in [Mask::Hard, Mask::Continuous] {
        let network = JetClr::new(&small(mask), 3, &Device::flex()).unwrap();
        let jets = Jets::new(&[1, 12, 70, 7, 2, 61], 2);
        let logits = evaluate(&network, &jets);
        assert!(difference(&evaluate(&network, &jets.reversed()), &logits) < 1e-5, "order of constituents");
        let alone: Vec<f32> = (0..6).flat_map(|jet| evaluate(&network, &jets.jet(jet))).collect();
        assert!(difference(&alone, &logits) < 1e-5, "company");
    }
}

#[test]
fn the_continuous_mask_is_infrared_safe_and_the_hard_one_is_not() {
    let jets = Jets::new(&[5], 2);
    let mut soft = jets.clone();
    soft.sizes[0] += 1;
    soft.features.extend([1e-12, 0.4, -0.3]);
    for (mask, safe) in [(Mask::Continuous, true), (Mask::Hard, false), (Mask::None, false)] {
        let network = JetClr::new(&small(mask), 3, &Device::flex()).unwrap();
        let change = difference(&evaluate(&network, &soft), &evaluate(&network, &jets));
        assert_eq!(change < 2e-5, safe, "{mask:?}: {change}");
        assert_eq!(network.needs().kinematics, mask == Mask::Continuous);
    }
    // Momenta of zero stay finite.
    let mut nothing = jets.clone();
    nothing.features.iter_mut().step_by(3).for_each(|pt| *pt = 0.0);
    let network = JetClr::new(&small(Mask::Continuous), 3, &Device::flex()).unwrap();
    assert!(evaluate(&network, &nothing).iter().all(|value| value.is_finite()));
}

/// One training step; gives everything that it computed.
fn step(network: &JetClr, jets: &Jets, seed: u64) -> (Vec<f32>, State) {
    let device = Device::flex().autodiff();
    let logits = network.forward(&jets.batch(&device), &Mode::train(network.stages().len(), seed));
    let [rows, columns] = logits.dims();
    let found = (logits.clone() * matrix(vector(4, rows * columns), rows, columns, &device)).sum().backward();
    (host(logits), gradients(network, &found))
}

#[test]
fn gradients_are_finite_and_dropout_has_a_name() {
    let device = Device::flex().autodiff();
    for mask in [Mask::Hard, Mask::Continuous] {
        for sizes in [&[1, 12, 70, 7, 2][..], &[1, 1, 1], &[1]] {
            let network = JetClr::new(&small(mask), 3, &device).unwrap();
            let jets = Jets::new(sizes, 2);
            let (logits, gradients) = step(&network, &jets, 1);
            assert!(logits.iter().all(|value| value.is_finite()), "{sizes:?}");
            assert_eq!(gradients.len(), parameter_ids(&network).len());
            assert!(gradients.values().flat_map(|tensor| &tensor.values).all(|value| value.is_finite()));
            assert_eq!(bits(&step(&network, &jets, 1).0), bits(&logits));
            assert_ne!(bits(&step(&network, &jets, 2).0), bits(&logits));
        }
    }
}

#[test]
fn a_new_head_keeps_the_rest_and_a_frozen_prefix_leaves_no_trace() {
    let device = Device::flex().autodiff();
    let network = JetClr::new(&small(Mask::Hard), 3, &device).unwrap();
    let before = state(&network);
    let swapped = network.clone().replace_head(5, 8);
    assert_eq!((swapped.classes(), swapped.width_at(swapped.stages().len())), (5, 5));
    for (name, tensor) in state(&swapped) {
        assert!(name.starts_with("head.") || tensor == before[&name], "{name}");
    }
    use burn::module::{Module, ParamGroup};
    let mut frozen = network;
    for part in ["embed", "layer.0"] {
        frozen = frozen.set_require_grad_group(ParamGroup::from_predicate(part), false);
    }
    let (_, gradients) = step(&frozen, &Jets::new(&[3, 40, 9], 2), 1);
    for name in before.keys() {
        let out = name.starts_with("embed.") || name.starts_with("layer.0.");
        assert_eq!(gradients.contains_key(name), !out, "{name}");
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let views = [Jets::new(&[50; 30], 6), Jets::new(&[50; 30], 7)];
    let run = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let device = Device::flex().autodiff();
            let config = JetClrConfig {
                width: 64,
                feed_forward: 96,
                projection: vec![64, 300],
                ..JetClrConfig { layers: 2, ..JetClrConfig::default() }
            };
            let mut network = JetClr::new(&config, 3, &device).unwrap();
            let mut optimiser = AdamConfig::new().init();
            let batch = Jets::join(&views).batch(&device);
            for seed in 0..2 {
                let z = network.encode(&batch, &Mode::train(network.stages().len(), seed));
                let loss = nt_xent(z.clone().slice([0..30, 0..300]), z.slice([30..60, 0..300]), 0.1);
                let found = GradientsParams::from_grads(loss.backward(), &network);
                network = optimiser.step(1e-3, network, found);
            }
            state(&network).into_values().map(|tensor| bits(&tensor.values)).collect::<Vec<_>>()
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(4));
}

#[test]
fn the_authors_names_go_both_ways() {
    let device = Device::flex();
    let config = JetClrConfig { heads: 4, ..small(Mask::Continuous) };
    let network = JetClr::new(&config, 3, &device).unwrap();
    let ours = state(&network);
    let mut theirs = to_foreign(network.config(), &ours).unwrap();
    assert_eq!(theirs["transformer.layers.1.self_attn.in_proj_weight"].shape, [48, 16]);
    let back = from_foreign(&theirs).unwrap();
    assert_eq!((&back.config, &back.state), (network.config(), &ours));
    // Their files have no classifier.
    theirs.retain(|name, _| !name.starts_with("classifier"));
    let back = from_foreign(&theirs).unwrap();
    assert_eq!(back.config.classes, 2);
    for (name, tensor) in &back.state {
        if name.starts_with("head.") {
            assert!(tensor.values.iter().all(|&value| value == 0.0));
        } else {
            assert_eq!(tensor, &ours[name]);
        }
    }
    theirs.remove("embedding.bias");
    assert!(from_foreign(&theirs).is_err());
    theirs.insert(
        "positions.weight".to_owned(),
        ForeignTensor { shape: vec![1], values: vec![0.0], dtype: "f32" },
    );
    assert!(from_foreign(&theirs).is_err());
}

#[test]
fn nt_xent_has_its_known_values() {
    let device = Device::flex();
    let loss = |first: Vec<f32>, second: Vec<f32>, columns: usize, temperature: f64| {
        let rows = first.len() / columns;
        let (first, second) = (matrix(first, rows, columns, &device), matrix(second, rows, columns, &device));
        let plain = host(contrastive::plain::nt_xent(first.clone(), second.clone(), temperature))[0];
        let kernel = host(nt_xent(first, second, temperature))[0];
        assert!((plain - kernel).abs() <= 2e-6 * kernel.abs(), "{plain} {kernel}");
        f64::from(kernel)
    };
    // Two orthogonal jets, views the same: ln(1 + 2 e^-10).
    let axes = vec![3.0, 0.0, 0.0, 0.5];
    let expected = (2.0 * (-10f64).exp()).ln_1p();
    assert!((loss(axes.clone(), axes, 2, 0.1) / expected - 1.0).abs() < 1e-5);
    // Everything in one point: ln(2N - 1).
    let point: Vec<f32> = (0..300).flat_map(|_| [0.3, -0.4, 1.2]).collect();
    assert!((loss(point.clone(), point, 3, 0.1) - 599f64.ln()).abs() < 1e-5);
    // Opposite partners at a low temperature: 2 / 0.001 more than any exponent of f32.
    let opposite = loss(vec![1.0, 0.0, 1.0, 0.0], vec![-1.0, 0.0, -1.0, 0.0], 2, 0.001);
    assert!((opposite - 2000.0).abs() < 1e-2, "{opposite}");
    // One pair has nothing to be told from.
    assert_eq!(loss(vec![1.0, 2.0], vec![-3.0, 1.0], 2, 0.1), 0.0);
}

#[test]
fn nt_xent_gradients_are_those_of_the_plain_body_and_slopes() {
    let device = Device::flex().autodiff();
    // More anchors than one block of the kernel holds.
    for (rows, columns, temperature) in [(1, 3, 0.1), (5, 7, 0.1), (90, 20, 0.5), (70, 4, 0.05)] {
        let tensor = |seed| matrix(vector(seed, rows * columns), rows, columns, &device).require_grad();
        let run = |body: fn(Tensor<2>, Tensor<2>, f64) -> Tensor<1>| {
            let (first, second) = (tensor(1), tensor(2));
            let found = (body(first.clone(), second.clone(), temperature) * 3.0).backward();
            [host(first.grad(&found).unwrap()), host(second.grad(&found).unwrap())]
        };
        let (kernel, plain) = (run(nt_xent), run(contrastive::plain::nt_xent));
        for (kernel, plain) in kernel.iter().zip(&plain) {
            let distance = distance(kernel, plain);
            println!("{rows} x {columns}: {distance:.1e}");
            assert!(distance < 5e-6, "{rows} x {columns}");
        }
        let size = kernel[0].iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let value = |sign: f64| {
            let moved = vector(1, rows * columns).into_iter().zip(&kernel[0]);
            let moved =
                moved.map(|(x, &g)| (f64::from(x) + sign * 1e-2 * f64::from(g) / size.max(1e-9)) as f32);
            let first = matrix(moved.collect(), rows, columns, &device);
            f64::from(host(nt_xent(first, tensor(2), temperature))[0]) * 3.0
        };
        let slope = (value(1.0) - value(-1.0)) / 2e-2;
        println!("{rows} x {columns}: slope {slope:.5}, gradient {size:.5}");
        assert!((slope - size).abs() <= 0.01 * size + 1e-6);
    }
}

/// Operations of `ops::dense` on rows of several blocks: outputs and all gradients, by kernel or plain body.
fn dense_cases(plain: bool, dropout: bool) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let (rows, i, c, h) = (900, 7, 21, 33);
    let tensor = |seed: u64, rows: usize, columns: usize| {
        matrix(vector(seed, rows * columns), rows, columns, &device).require_grad()
    };
    let mask = |seed| dropout.then(|| Dropout::new(0.2, seed));
    let flat = |tensor: &Tensor<2>| tensor.clone().flatten::<1>(0, 1);
    let map = |weight: &Tensor<2>, bias: &Tensor<2>| Linear { weight: weight.clone(), bias: flat(bias) };
    let norm = |scale: &Tensor<2>, shift: &Tensor<2>| LayerNorm { weight: flat(scale), bias: flat(shift) };
    let (x, wide, bias) = (tensor(1, rows, i), tensor(2, i, c), tensor(3, 1, c));
    let residual = tensor(4, rows, c);
    let (into, into_bias, out) = (tensor(5, c, h), tensor(6, 1, h), tensor(7, h, c));
    let (scale, shift) = (tensor(8, 1, c), tensor(9, 1, c));
    let mut results = Vec::new();
    let mut case = |y: Tensor<2>, inputs: &[&Tensor<2>]| {
        let [rows, columns] = y.dims();
        let found = (y.clone() * matrix(vector(99, rows * columns), rows, columns, &device)).sum().backward();
        results.push(host(y));
        results.extend(inputs.iter().map(|input| host(input.grad(&found).unwrap())));
    };
    for relu in [false, true] {
        let body = if plain { dense::plain::dense } else { dense::dense };
        case(body(x.clone(), map(&wide, &bias), relu, mask(1)), &[&x, &wide, &bias]);
    }
    let body = if plain { dense::plain::dense_add_norm } else { dense::dense_add_norm };
    let y = body(x.clone(), map(&wide, &bias), mask(2), residual.clone(), norm(&scale, &shift));
    case(y, &[&x, &wide, &bias, &residual, &scale, &shift]);
    let body = if plain { dense::plain::feed_forward_add_norm } else { dense::feed_forward_add_norm };
    let y = body(
        residual.clone(),
        map(&into, &into_bias),
        mask(3),
        map(&out, &bias),
        mask(4),
        norm(&scale, &shift),
    );
    case(y, &[&residual, &into, &into_bias, &out, &bias, &scale, &shift]);
    results
}

#[test]
fn dense_kernels_are_their_plain_bodies_for_any_threads_and_path() {
    use jetgraft_nn::ops::Path;
    for dropout in [false, true] {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let kernel = pool(1).install(|| dense_cases(false, dropout));
        for (at, (kernel, plain)) in kernel.iter().zip(dense_cases(true, dropout)).enumerate() {
            let distance = distance(kernel, &plain);
            println!("dropout {dropout}, tensor {at}: {distance:.1e}");
            assert!(distance < 3e-6, "dropout {dropout}, tensor {at}");
        }
        for threads in [2, 4] {
            let again = pool(threads).install(|| dense_cases(false, dropout));
            assert!(again.iter().zip(&kernel).all(|(again, first)| bits(again) == bits(first)), "{threads}");
        }
        for path in [Path::Portable, Path::Avx2] {
            Path::force(Some(path));
            let again = dense_cases(false, dropout);
            Path::force(None);
            assert!(again.iter().zip(&kernel).all(|(again, first)| bits(again) == bits(first)), "{path:?}");
        }
    }
}
