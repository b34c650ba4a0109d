//! Our side of the comparison of backbones; `benches/backbones/compare.py` starts it and describes it.
//!
//! Reads a network's sizes, a batch and initial weights, then for each line `N` on standard input runs N training
//! steps (forward, loss, backward, Adam) and answers with one line of JSON.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};
use jetgraft_nn::contract::{Backbone, GraphBatch, Mode, RaggedGraph};
use jetgraft_nn::import::read_file;
use jetgraft_nn::ops::contrastive::nt_xent;
use jetgraft_nn::registry::BackboneConfig;
use jetgraft_nn::state::load_state;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Number of mimalloc's `mi_option_purge_delay` in its versions 2 and 3; the bindings do not name it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// As the product does. Makes the allocator keep freed memory for a minute: the next training step wants it back, and pages that went to the
/// system come back zeroed, which is a twentieth of a step. `MIMALLOC_PURGE_DELAY` in the environment overrides it.
fn keep_freed_memory() {
    // SAFETY: sets a number in the allocator's table of options, before any other thread exists.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, 60_000) };
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, batch, weights, loss] = &arguments[..] else {
        return Err("usage: backbone_step CONFIG.json BATCH.safetensors WEIGHTS.safetensors LOSS".into());
    };
    let device = Device::flex().autodiff();
    let tensors = read_file(Path::new(batch))?.tensors;
    let indices = |name: &str| tensors[name].values.iter().map(|&value| value as u32).collect::<Vec<_>>();
    let mut graph = match tensors.get("senders") {
        Some(_) => RaggedGraph::from_csr(
            &indices("jet_offsets"),
            &indices("in_offsets"),
            &indices("senders"),
            &device,
        )?,
        None => RaggedGraph::new(&indices("jet_offsets"), &device)?,
    };
    if let Some(kinematics) = tensors.get("kinematics") {
        graph = graph.with_kinematics(&kinematics.values)?;
    }
    let features = &tensors["features"];
    let features =
        Tensor::from_data(TensorData::new(features.values.clone(), features.shape.clone()), &device);
    let batch = GraphBatch { features, graph };
    let labels = indices("labels");

    let config: BackboneConfig = serde_json::from_slice(&std::fs::read(config)?)?;
    let imported = BackboneConfig::from_foreign(config.kind(), &read_file(Path::new(weights))?.tensors)?;
    let mut network = load_state(config.build(0, &device)?, &imported.state)?;
    network.needs().check(&batch.graph)?;
    let mut mode = Mode::train(network.stages().len(), 0);
    // Dropout off on both sides, so that the losses can be compared step by step.
    mode.dropout_seed = None;
    let mut optimiser = AdamConfig::new().with_epsilon(1e-8).init();

    let peak = gemm_peak(&device);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::json!({"ready": true, "gemm_gflops": peak}))?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let steps: usize = line?.trim().parse()?;
        let mut seconds = Vec::with_capacity(steps);
        let mut cpu_seconds = Vec::with_capacity(steps);
        let mut parts = [0f64; 3];
        let mut losses = Vec::with_capacity(steps);
        for _ in 0..steps {
            let start = Instant::now();
            let used = cpu_time_s();
            let loss = match loss.as_str() {
                "cross-entropy" => cross_entropy(network.forward(&batch, &mode), &labels),
                // The first half of the graphs is one view, the second half the other.
                "nt-xent" => {
                    let rows = network.encode(&batch, &mode);
                    let [views, width] = rows.dims();
                    let view = |rows: &Tensor<2>, from, to| rows.clone().slice([from..to, 0..width]);
                    let half = views / 2;
                    nt_xent(view(&rows, 0, half), view(&rows, half, views), 0.1)
                }
                other => return Err(format!("no loss `{other}`").into()),
            };
            losses.push(loss.clone().into_scalar::<f32>());
            let forward = start.elapsed();
            let gradients = GradientsParams::from_grads(loss.backward(), &network);
            let backward = start.elapsed();
            network = optimiser.step(1e-3, network, gradients);
            let all = start.elapsed();
            seconds.push(all.as_secs_f64());
            cpu_seconds.push(cpu_time_s() - used);
            parts[0] += forward.as_secs_f64();
            parts[1] += (backward - forward).as_secs_f64();
            parts[2] += (all - backward).as_secs_f64();
        }
        let answer = serde_json::json!({
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "losses": losses,
            "forward_backward_adam": parts.map(|part| part / steps.max(1) as f64),
            "peak_mib": peak_memory_mib(),
        });
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn cross_entropy(logits: Tensor<2>, labels: &[u32]) -> Tensor<1> {
    let [rows, classes] = logits.dims();
    let mut chosen = vec![0f32; rows * classes];
    for (row, &label) in labels.iter().enumerate() {
        chosen[row * classes + label as usize] = -1.0 / rows as f32;
    }
    let chosen = Tensor::from_data(TensorData::new(chosen, [rows, classes]), &logits.device());
    (log_softmax(logits, 1) * chosen).sum()
}

/// Best rate of a large product, in GFLOP/s, with the threads that the steps have.
fn gemm_peak(device: &Device) -> f64 {
    let device = device.clone().inner();
    let left = Tensor::<2>::ones([1536, 1024], &device);
    let right = Tensor::<2>::ones([1024, 1024], &device);
    let mut best = f64::INFINITY;
    for _ in 0..12 {
        let start = Instant::now();
        let product = left.clone().matmul(right.clone());
        best = best.min(start.elapsed().as_secs_f64());
        drop(product);
    }
    2.0 * 1536.0 * 1024.0 * 1024.0 / best * 1e-9
}

/// CPU time of this process over all threads (Linux), from the scheduler's own account; 0 where there is none.
fn cpu_time_s() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0.0 };
    let nanoseconds: u64 = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    nanoseconds as f64 * 1e-9
}

/// Peak resident memory of this process (Linux), in MiB.
fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}
