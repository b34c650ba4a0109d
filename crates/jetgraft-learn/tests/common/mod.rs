//! A backbone and jets of our own, small enough to train in milliseconds. The network has everything that a plan
//! can touch: norms with running statistics, dropout, ragged means, three stages.

#![allow(dead_code)] // Each test file uses its part.

use std::ops::Range;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use jetgraft_data::GraphSet;
use jetgraft_learn::names::names_of;
use jetgraft_learn::plan::{Plan, PlanOptions};
use jetgraft_learn::seeds::derive;
use jetgraft_learn::trainer::{Job, TrainOptions};
use jetgraft_nn::contract::{Backbone, Mode, RaggedGraph, Rows, Stage};
use jetgraft_nn::layers::{BatchNorm, Dense};
use jetgraft_nn::state::{self, State};

/// Norm of the inputs; dense, ReLU, norm, dropout on nodes and their mean over the jet; dense to the classes.
#[derive(Module, Debug)]
pub struct Tiny {
    input: BatchNorm,
    node: Node,
    head: Dense,
    #[module(skip)]
    sizes: [usize; 3],
    /// Without norms and dropout, jets do not see each other.
    #[module(skip)]
    plain: bool,
}

#[derive(Module, Debug)]
struct Node {
    dense: Dense,
    norm: BatchNorm,
}

pub const WIDTH: usize = 8;
const RATE: f64 = 0.25;

impl Tiny {
    pub fn new(classes: usize, seed: u64, device: &Device) -> Self {
        Self {
            input: BatchNorm::new("input", 3, device),
            node: Node {
                dense: Dense::new("node.dense", 3, WIDTH, true, seed, device),
                norm: BatchNorm::new("node.norm", WIDTH, device),
            },
            head: Dense::new("head", WIDTH, classes, true, seed, device),
            sizes: [3, WIDTH, classes],
            plain: false,
        }
    }

    /// Without batch statistics and dropout.
    pub fn plain(classes: usize, seed: u64, device: &Device) -> Self {
        Self { plain: true, ..Self::new(classes, seed, device) }
    }
}

/// Mean over the nodes of each jet, as a product with a sparse matrix written out.
fn means(x: Tensor<2>, graph: &RaggedGraph) -> Tensor<2> {
    let offsets: Vec<i32> = graph.jet_offsets.to_data().iter::<i32>().collect();
    let mut table = vec![0f32; graph.jets * graph.nodes];
    for jet in 0..graph.jets {
        let (from, to) = (offsets[jet] as usize, offsets[jet + 1] as usize);
        table[jet * graph.nodes + from..jet * graph.nodes + to].fill(1.0 / (to - from) as f32);
    }
    Tensor::from_data(TensorData::new(table, [graph.jets, graph.nodes]), &x.device()).matmul(x)
}

fn dropout(x: Tensor<2>, seed: u64) -> Tensor<2> {
    let [rows, columns] = x.dims();
    let mask = (0..rows * columns)
        .map(|at| {
            if derive(seed, "mask", &[at as u64]) as f64 / 2f64.powi(64) < RATE {
                0.0
            } else {
                1.0 / (1.0 - RATE) as f32
            }
        })
        .collect::<Vec<f32>>();
    x.clone() * Tensor::from_data(TensorData::new(mask, [rows, columns]), &x.device())
}

impl Backbone for Tiny {
    fn kind(&self) -> &'static str {
        "tiny"
    }

    fn stages(&self) -> Vec<Stage> {
        ["input", "node", "head"]
            .map(|name| Stage { name: name.into(), prefix: name.into() })
            .into_iter()
            .collect()
    }

    fn classes(&self) -> usize {
        self.sizes[2]
    }

    fn input_features(&self) -> usize {
        3
    }

    fn rows_at(&self, cut: usize) -> Rows {
        if cut < 2 { Rows::Nodes } else { Rows::Jets }
    }

    fn width_at(&self, cut: usize) -> usize {
        [3, 3, WIDTH, self.sizes[2]][cut]
    }

    fn forward_stages(
        &self,
        stages: Range<usize>,
        activation: Tensor<2>,
        graph: &RaggedGraph,
        mode: &Mode,
    ) -> Tensor<2> {
        let mut x = activation;
        for stage in stages {
            x = match stage {
                0 if self.plain => x,
                1 if self.plain => means(relu(self.node.dense.forward(x)), graph),
                0 => self.input.forward(x, mode.norms[0]),
                1 => {
                    let y = self.node.norm.forward(relu(self.node.dense.forward(x)), mode.norms[1]);
                    let y = match mode.dropout_seed {
                        Some(seed) => dropout(y, seed),
                        None => y,
                    };
                    means(y, graph)
                }
                _ => self.head.forward(x),
            };
        }
        x
    }

    fn replace_head(self, classes: usize, seed: u64) -> Self {
        let device = self.head.weight.device();
        let head = Dense::new("head", WIDTH, classes, true, seed, &device);
        Self { head, sizes: [3, WIDTH, classes], ..self }
    }
}

/// Numbers in (-1, 1) from a seed.
pub fn noise(seed: u64, at: u64) -> f32 {
    (derive(seed, "noise", &[at]) as f64 / 2f64.powi(63) - 1.0) as f32
}

/// Jets of 0 to 6 nodes in a chain; class 1 has its features shifted.
pub fn jets(count: usize, seed: u64, classes: u32) -> Arc<GraphSet> {
    let mut set = GraphSet {
        feature_names: ["a", "b", "c"].map(String::from).to_vec(),
        node_offsets: vec![0],
        ..GraphSet::default()
    };
    let mut parents = Vec::new();
    for jet in 0..count as u64 {
        let label = (jet % u64::from(classes)) as u32;
        let nodes = derive(seed, "nodes", &[jet]) % 7;
        for node in 0..nodes {
            for feature in 0..3 {
                let shift = if feature == 1 { 0.6 * label as f32 } else { 0.0 };
                set.features.push(noise(seed, (jet * 7 + node) * 3 + feature) + shift);
            }
            parents.push(node as i32 - 1);
        }
        set.node_offsets.push(parents.len());
        set.event_id.push(seed * 1_000_000 + jet);
        set.label.push(label);
        set.jet_pt_gev.push(500.0);
        set.jet_mass_gev.push(80.0);
    }
    set.parents = Some(parents);
    Arc::new(set)
}

pub fn plan_for<B: Backbone>(model: &B, options: &str) -> Plan {
    let options: PlanOptions = serde_json::from_str(options).unwrap();
    Plan::new(&model.stages(), &names_of(&state::state(model)), &options).unwrap()
}

pub fn job<'a, B: Backbone>(
    model: &B,
    plan: &'a Plan,
    options: &'a TrainOptions,
    device: &'a Device,
) -> Job<'a, B> {
    Job {
        model: model.clone(),
        plan,
        training: jets(100, 1, 2),
        validation: jets(60, 2, 2),
        options,
        device,
        cache_bytes: 1 << 30,
        shelf: None,
        checkpoints: None,
    }
}

pub fn same_bits(a: &State, b: &State) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|((name_a, x), (name_b, y))| {
            name_a == name_b
                && x.shape == y.shape
                && x.values.iter().zip(&y.values).all(|(p, q)| p.to_bits() == q.to_bits())
        })
}
