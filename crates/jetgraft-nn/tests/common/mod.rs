//! Small random batches for tests.
#![allow(dead_code)]

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use jetgraft_nn::contract::{GraphBatch, RaggedGraph};
use jetgraft_nn::state::{NamedTensor, Role, State};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Index arrays of a batch of trees, the features of its nodes, and their kinematics as those of particles.
#[derive(Clone)]
pub struct Trees {
    pub jet_offsets: Vec<u32>,
    pub in_offsets: Vec<u32>,
    pub senders: Vec<u32>,
    pub features: Vec<f32>,
    pub columns: usize,
    pub kinematics: Vec<f32>,
}

pub fn random(seed: u64) -> impl FnMut() -> f32 {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    move || random.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0
}

pub fn vector(seed: u64, length: usize) -> Vec<f32> {
    let mut random = random(seed);
    (0..length).map(|_| random()).collect()
}

impl Trees {
    pub fn new(sizes: &[usize], columns: usize, seed: u64) -> Self {
        let mut random = random(seed);
        let mut parents = Vec::new();
        for &size in sizes {
            parents.push((0..size).map(|node| ((random() + 1.0) / 2.0 * node as f32) as usize).collect());
        }
        let count: usize = sizes.iter().sum();
        let features = (0..count * columns).map(|_| 2.0 * random()).collect();
        let mut trees = Self::from_parents(&parents, features, columns);
        // pt of 0.5 to 100 GeV, as particles of a jet of R = 0.8 have, with the mass of a pion.
        trees.kinematics = (0..count)
            .flat_map(|_| [(2.3 * random() + 2.3).exp() * 0.5, 0.8 * random(), 0.8 * random(), 0.1396])
            .collect();
        trees
    }

    /// Parent of each node but the first, per jet.
    pub fn from_parents(parents: &[Vec<usize>], features: Vec<f32>, columns: usize) -> Self {
        let mut trees = Self {
            jet_offsets: vec![0],
            in_offsets: vec![0],
            senders: Vec::new(),
            features,
            columns,
            kinematics: Vec::new(),
        };
        let mut first = 0;
        for jet in parents {
            for node in 0..jet.len() {
                if node > 0 {
                    trees.senders.push((first + jet[node].min(node - 1)) as u32);
                }
                for (child, &parent) in jet.iter().enumerate().skip(node + 1) {
                    if parent.min(child - 1) == node {
                        trees.senders.push((first + child) as u32);
                    }
                }
                trees.in_offsets.push(trees.senders.len() as u32);
            }
            first += jet.len();
            trees.jet_offsets.push(first as u32);
        }
        trees
    }

    pub fn jets(&self) -> usize {
        self.jet_offsets.len() - 1
    }

    pub fn nodes(&self) -> usize {
        self.in_offsets.len() - 1
    }

    /// One jet as a batch of its own.
    pub fn jet(&self, jet: usize) -> Self {
        let nodes = self.jet_offsets[jet] as usize..self.jet_offsets[jet + 1] as usize;
        let offsets = &self.in_offsets[nodes.start..=nodes.end];
        let edges = offsets[0] as usize..offsets[nodes.len()] as usize;
        Self {
            jet_offsets: vec![0, nodes.len() as u32],
            in_offsets: offsets.iter().map(|offset| offset - offsets[0]).collect(),
            senders: self.senders[edges].iter().map(|sender| sender - nodes.start as u32).collect(),
            features: self.features[nodes.start * self.columns..nodes.end * self.columns].to_vec(),
            columns: self.columns,
            kinematics: self.kinematics.get(4 * nodes.start..4 * nodes.end).unwrap_or_default().to_vec(),
        }
    }

    /// Several batches as one.
    pub fn join(parts: &[Self]) -> Self {
        let mut all = Self {
            jet_offsets: vec![0],
            in_offsets: vec![0],
            senders: Vec::new(),
            features: Vec::new(),
            columns: parts[0].columns,
            kinematics: Vec::new(),
        };
        for part in parts {
            let (nodes, edges) = (all.nodes() as u32, all.senders.len() as u32);
            all.jet_offsets.extend(part.jet_offsets[1..].iter().map(|offset| offset + nodes));
            all.in_offsets.extend(part.in_offsets[1..].iter().map(|offset| offset + edges));
            all.senders.extend(part.senders.iter().map(|sender| sender + nodes));
            all.features.extend_from_slice(&part.features);
            all.kinematics.extend_from_slice(&part.kinematics);
        }
        all
    }

    /// The same graphs with the nodes of each jet in reverse order.
    pub fn reversed(&self) -> Self {
        let parts: Vec<Self> = (0..self.jets())
            .map(|jet| {
                let jet = self.jet(jet);
                let last = jet.nodes() as u32 - 1;
                let mut turned = Self {
                    in_offsets: vec![0],
                    senders: Vec::new(),
                    features: Vec::new(),
                    kinematics: Vec::new(),
                    ..jet.clone()
                };
                for node in (0..jet.nodes()).rev() {
                    let edges = jet.in_offsets[node] as usize..jet.in_offsets[node + 1] as usize;
                    turned.senders.extend(jet.senders[edges].iter().map(|sender| last - sender));
                    turned.in_offsets.push(turned.senders.len() as u32);
                    let row = node * jet.columns..(node + 1) * jet.columns;
                    turned.features.extend_from_slice(&jet.features[row]);
                    turned.kinematics.extend_from_slice(&jet.kinematics[4 * node..4 * (node + 1)]);
                }
                turned
            })
            .collect();
        Self::join(&parts)
    }

    pub fn graph(&self, device: &Device) -> RaggedGraph {
        let graph =
            RaggedGraph::from_csr(&self.jet_offsets, &self.in_offsets, &self.senders, device).unwrap();
        if self.kinematics.is_empty() { graph } else { graph.with_kinematics(&self.kinematics).unwrap() }
    }

    pub fn batch(&self, device: &Device) -> GraphBatch {
        let features = matrix(self.features.clone(), self.nodes(), self.columns, device);
        GraphBatch { features, graph: self.graph(device) }
    }
}

pub fn matrix(values: Vec<f32>, rows: usize, columns: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Largest difference relative to the root mean square of the expected values.
pub fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let square = expected.iter().map(|value| value * value).sum::<f32>() / expected.len().max(1) as f32;
    let worst = found.iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
    assert!(found.iter().all(|value| value.is_finite()));
    worst / square.sqrt().max(1e-6)
}

/// Length of the difference relative to the length of the expected vector.
pub fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().all(|value| value.is_finite()));
    let length =
        |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let difference = length(&mut found.iter().zip(expected).map(|(&f, &e)| f64::from(f) - f64::from(e)));
    difference / length(&mut expected.iter().map(|&e| f64::from(e))).max(1e-6)
}

/// Gradients by name; a parameter without one is left out.
pub fn gradients<M: Module>(module: &M, found: &Gradients) -> State {
    struct Visitor<'a>(&'a Gradients, Vec<String>, State);
    impl ModuleVisitor for Visitor<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.1.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.1.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = self.1.join(".");
            if Role::of(&name) == Role::Buffer || !param.val().is_autodiff() {
                return;
            }
            if let Some(gradient) = param.val().grad(self.0) {
                let shape = gradient.dims().to_vec();
                self.2.insert(name, NamedTensor { shape, values: host(gradient), role: Role::Parameter });
            }
        }
    }
    let mut visitor = Visitor(found, Vec::new(), State::new());
    module.visit(&mut visitor);
    visitor.2
}
