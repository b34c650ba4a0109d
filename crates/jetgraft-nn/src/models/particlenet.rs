//! ParticleNet: a graph network on the particles of a jet, each joined to its nearest neighbours.
//!
//! Blocks of EdgeConv: each node gathers messages from its k nearest neighbours, three linear maps with norms long,
//! and takes their mean. The first block seeks neighbours in the plane of pseudorapidity and azimuth, each later one in
//! the features that the block before it made. Mean over particles, a hidden layer, the classes.
//!
//! Source: H. Qu, L. Gouskos, "ParticleNet: jet tagging via particle clouds", arXiv:1902.08570; JetClass sizes:
//! arXiv:2202.03772. Original code: github.com/hqucms/weaver-core (MIT). Known differences: the first linear map of a
//! message acts on nodes before they are gathered, which is the same sum in another order. With [`Padding::Real`] jets
//! of `n <= k` particles have `n - 1` neighbours and no padded slot enters a statistic; [`Padding::Weaver`] gives
//! weaver's numbers. A node is dropped from its own neighbours by its index, where weaver drops the nearest, which is
//! another one when particles coincide.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::contract::{Backbone, Mode, NormMode, RaggedGraph, Rows, Stage};
use crate::error::NnError;
use crate::import::ForeignTensor;
use crate::import::keys::{COUNTER, Imported, KeyMap};
use crate::init::dropout_mask;
use crate::layers::{BatchNorm, Dense};
use crate::ops::complete::{self, Pending};
use crate::ops::knn::{Neighbours, knn};
use crate::ops::neighbour_conv::{MAX_LAYERS, NeighbourConvParameters, neighbour_conv};
use crate::state::State;

/// Registry name.
pub const KIND: &str = "particlenet";

/// One EdgeConv block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockConfig {
    /// Number of nearest neighbours, k.
    pub neighbours: usize,
    /// Widths of the linear maps of a message; the last one is the block's output.
    pub widths: Vec<usize>,
}

impl BlockConfig {
    /// Three maps of one width.
    fn of(neighbours: usize, width: usize) -> Self {
        Self { neighbours, widths: vec![width; 3] }
    }
}

/// What stands where a jet has fewer particles than slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Padding {
    /// Nothing: particles and edges are real ones, statistics run over them.
    #[default]
    Real,
    /// As weaver: every jet has `slots` slots, of which those without a particle hold 0 before and after every block and
    /// lie far from all particles. They enter every statistic, and they are the neighbours that a jet of `n <= k`
    /// particles lacks. A jet of more particles than slots keeps them all.
    Weaver,
}

/// Sizes of a ParticleNet. The defaults are those of the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParticleNetConfig {
    /// Features per particle, F; default 7, the kinematic set.
    pub input_features: usize,
    /// EdgeConv blocks; default 16 neighbours and widths 64, 128, 256.
    pub blocks: Vec<BlockConfig>,
    /// Width of the map that joins the outputs of all blocks; none by default, as in the published weights.
    pub fusion: Option<usize>,
    /// Widths of the hidden layers of the head; default 256.
    pub head: Vec<usize>,
    /// Probability that dropout sets a hidden unit of the head to 0, in `[0, 1)`; default 0.1.
    pub dropout: f64,
    /// Number of classes, C; default 2.
    pub classes: usize,
    /// Which features place a particle for the first block (pseudorapidity and azimuth relative to the jet, not
    /// standardised); the last two by default.
    pub points: Option<[usize; 2]>,
    /// What padding does; `real` by default.
    pub padding: Padding,
    /// Slots of a jet with [`Padding::Weaver`]; default 128.
    pub slots: usize,
}

impl Default for ParticleNetConfig {
    fn default() -> Self {
        Self::particlenet()
    }
}

impl ParticleNetConfig {
    /// ParticleNet: 366,160 parameters.
    pub fn particlenet() -> Self {
        Self {
            input_features: 7,
            blocks: vec![BlockConfig::of(16, 64), BlockConfig::of(16, 128), BlockConfig::of(16, 256)],
            fusion: None,
            head: vec![256],
            dropout: 0.1,
            classes: 2,
            points: None,
            padding: Padding::Real,
            slots: 128,
        }
    }

    /// ParticleNet-Lite: 26,416 parameters.
    pub fn particlenet_lite() -> Self {
        Self {
            blocks: vec![BlockConfig::of(7, 32), BlockConfig::of(7, 64)],
            head: vec![128],
            ..Self::particlenet()
        }
    }

    /// JetClass, kinematic features: 7 inputs, 10 classes, 368,216 parameters.
    pub fn jetclass_kin() -> Self {
        Self { classes: 10, ..Self::particlenet() }
    }

    /// JetClass, kinematics and particle identification: 13 inputs, 10 classes, 369,380 parameters.
    pub fn jetclass_kinpid() -> Self {
        Self { input_features: 13, ..Self::jetclass_kin() }
    }

    /// JetClass, all features: 17 inputs, 10 classes, 370,156 parameters.
    pub fn jetclass_full() -> Self {
        Self { input_features: 17, ..Self::jetclass_kin() }
    }

    /// With a map that joins the outputs of all blocks, as wide as weaver makes it: the sum of the blocks' widths
    /// rounded down to a multiple of 128, from 128 to 1024. 571,728 parameters for ParticleNet, 47,152 for Lite.
    #[must_use]
    pub fn with_fusion(self) -> Self {
        let joined: usize = (0..self.blocks.len()).map(|block| self.width(block)).sum();
        Self { fusion: Some((joined / 128 * 128).clamp(128, 1024)), ..self }
    }

    /// The same sizes for other inputs and classes.
    #[must_use]
    pub fn with_ends(self, input_features: usize, classes: usize) -> Self {
        Self { input_features, classes, ..self }
    }

    /// Output width of a block.
    fn width(&self, block: usize) -> usize {
        self.blocks[block].widths.last().copied().unwrap_or(0)
    }

    /// Columns of the features that place a particle.
    pub fn point_columns(&self) -> [usize; 2] {
        self.points.unwrap_or([self.input_features.saturating_sub(2), self.input_features.saturating_sub(1)])
    }

    /// Width of a jet's representation.
    fn representation(&self) -> usize {
        self.fusion.unwrap_or_else(|| self.width(self.blocks.len() - 1))
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`NnError::Config`] for the first that no network can have.
    pub fn check(&self) -> Result<(), NnError> {
        const MOST: usize = 1 << 16;
        let fault = |field, found: String, expected: &str| {
            Err(NnError::Config { network: KIND, field, found, expected: expected.to_owned() })
        };
        for (field, value) in [
            ("input_features", self.input_features),
            ("fusion", self.fusion.unwrap_or(1)),
            ("classes", self.classes),
            ("slots", self.slots),
        ] {
            if value == 0 || value > MOST {
                return fault(field, value.to_string(), "1 to 65536");
            }
        }
        if self.blocks.is_empty() || self.blocks.len() > 32 {
            return fault("blocks", format!("{} blocks", self.blocks.len()), "1 to 32 blocks");
        }
        for block in &self.blocks {
            if block.neighbours == 0 || block.neighbours > MOST {
                return fault("blocks.neighbours", block.neighbours.to_string(), "1 to 65536");
            }
            if block.widths.is_empty() || block.widths.len() > MAX_LAYERS {
                let expected = format!("1 to {MAX_LAYERS} widths");
                return fault("blocks.widths", format!("{} widths", block.widths.len()), &expected);
            }
            if let Some(width) = block.widths.iter().find(|&&width| width == 0 || width > MOST) {
                return fault("blocks.widths", width.to_string(), "widths of 1 to 65536");
            }
        }
        if self.head.len() > 8 {
            return fault("head", format!("{} hidden layers", self.head.len()), "at most 8 hidden layers");
        }
        if let Some(width) = self.head.iter().find(|&&width| width == 0 || width > MOST) {
            return fault("head", width.to_string(), "widths of 1 to 65536");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fault("dropout", self.dropout.to_string(), "a probability in [0, 1)");
        }
        if let Some(column) = self.point_columns().into_iter().find(|&column| column >= self.input_features) {
            let expected = format!("columns of {} features", self.input_features);
            return fault("points", column.to_string(), &expected);
        }
        if self.points.is_none() && self.input_features < 2 {
            return fault(
                "input_features",
                self.input_features.to_string(),
                "two features or more, or `points`",
            );
        }
        Ok(())
    }
}

/// One EdgeConv block; see [`crate::ops::neighbour_conv`].
#[derive(Module, Debug)]
pub struct EdgeConv {
    linear: Vec<Dense>,
    norm: Vec<BatchNorm>,
    shortcut: Option<Dense>,
    shortcut_norm: Option<BatchNorm>,
}

impl EdgeConv {
    fn new(name: &str, inputs: usize, widths: &[usize], seed: u64, device: &Device) -> Self {
        let dense = |part: &str, inputs, outputs| {
            Dense::new(&format!("{name}.{part}"), inputs, outputs, false, seed, device)
        };
        let norm = |part: &str, columns| BatchNorm::new(&format!("{name}.{part}"), columns, device);
        let outputs = widths.last().copied().unwrap_or(inputs);
        let before = std::iter::once(2 * inputs).chain(widths.iter().copied());
        Self {
            linear: (before.zip(widths).enumerate())
                .map(|(layer, (from, &to))| dense(&format!("linear.{layer}"), from, to))
                .collect(),
            norm: (widths.iter().enumerate())
                .map(|(layer, &width)| norm(&format!("norm.{layer}"), width))
                .collect(),
            shortcut: (inputs != outputs).then(|| dense("shortcut", inputs, outputs)),
            shortcut_norm: (inputs != outputs).then(|| norm("shortcut_norm", outputs)),
        }
    }

    fn forward(
        &self,
        x: Tensor<2>,
        graph: &RaggedGraph,
        neighbours: &Neighbours,
        mode: NormMode,
    ) -> Tensor<2> {
        let shortcut = self.shortcut.as_ref().zip(self.shortcut_norm.as_ref());
        let layers = self.linear.iter().zip(&self.norm);
        let parameters = NeighbourConvParameters {
            layers: layers.map(|(dense, norm)| (dense.weight.val(), norm.norm(mode))).collect(),
            shortcut: shortcut.map(|(dense, norm)| (dense.weight.val(), norm.norm(mode))),
        };
        let output = neighbour_conv(x, graph, neighbours, parameters);
        for (norm, moments) in self.norm.iter().zip(output.moments) {
            norm.observe(moments);
        }
        if let Some((_, norm)) = shortcut {
            norm.observe(output.moments_shortcut);
        }
        output.nodes
    }
}

/// From the outputs of all blocks to one wide row per particle.
#[derive(Module, Debug)]
pub struct Fusion {
    linear: Dense,
    norm: BatchNorm,
}

impl Fusion {
    fn new(inputs: usize, outputs: usize, seed: u64, device: &Device) -> Self {
        Self {
            linear: Dense::new("fusion.linear", inputs, outputs, false, seed, device),
            norm: BatchNorm::new("fusion.norm", outputs, device),
        }
    }

    fn forward(&self, x: Tensor<2>, mode: NormMode) -> Tensor<2> {
        relu(self.norm.forward(self.linear.forward(x), mode))
    }
}

/// From the representation of a jet to its logits.
#[derive(Module, Debug)]
pub struct Head {
    hidden: Vec<Dense>,
    output: Dense,
}

impl Head {
    fn new(config: &ParticleNetConfig, seed: u64, device: &Device) -> Self {
        let mut inputs = config.representation();
        let mut hidden = Vec::with_capacity(config.head.len());
        for (layer, &width) in config.head.iter().enumerate() {
            hidden.push(Dense::new(&format!("head.hidden.{layer}"), inputs, width, true, seed, device));
            inputs = width;
        }
        Self { hidden, output: Dense::new("head.output", inputs, config.classes, true, seed, device) }
    }

    /// The hidden layers with their dropout.
    fn hide(&self, x: Tensor<2>, rate: f64, seed: Option<u64>) -> Tensor<2> {
        let mut x = x;
        for (layer, dense) in self.hidden.iter().enumerate() {
            x = relu(dense.forward(x));
            if let Some(seed) = seed.filter(|_| rate > 0.0) {
                // Every hidden layer has a mask of its own.
                let seed = seed.wrapping_add((layer as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let [rows, columns] = x.dims();
                let mask = TensorData::new(dropout_mask(seed, rows, columns, rate), [rows, columns]);
                x = x.clone() * Tensor::from_data(mask, &x.device());
            }
        }
        x
    }
}

/// The network. Stages: `input`, `edge_conv.0` and on, `fusion` where there is one, `hidden` (the hidden layers of the
/// head, where there are some), `head` (the last linear map: what the works replace). The last stage on particles ends
/// with their mean.
///
/// The activation after `input` has two columns more than there are features: the places of the particles.
#[derive(Module, Debug)]
pub struct ParticleNet {
    input: BatchNorm,
    edge_conv: Vec<EdgeConv>,
    fusion: Option<Fusion>,
    head: Head,
    #[module(skip)]
    config: ParticleNetConfig,
}

impl ParticleNet {
    /// A network with PyTorch's default start, drawn from `seed` and the parameters' names, on `device`.
    ///
    /// # Errors
    /// [`NnError::Config`].
    pub fn new(config: &ParticleNetConfig, seed: u64, device: &Device) -> Result<Self, NnError> {
        config.check()?;
        let mut inputs = config.input_features;
        let mut edge_conv = Vec::with_capacity(config.blocks.len());
        for (at, block) in config.blocks.iter().enumerate() {
            edge_conv.push(EdgeConv::new(&format!("edge_conv.{at}"), inputs, &block.widths, seed, device));
            inputs = config.width(at);
        }
        let joined = (0..config.blocks.len()).map(|block| config.width(block)).sum();
        Ok(Self {
            input: BatchNorm::new("input", config.input_features, device),
            edge_conv,
            fusion: config.fusion.map(|width| Fusion::new(joined, width, seed, device)),
            head: Head::new(config, seed, device),
            config: config.clone(),
        })
    }

    /// The sizes it was built with (the classes are those of the present head).
    pub fn config(&self) -> &ParticleNetConfig {
        &self.config
    }

    fn blocks(&self) -> usize {
        self.edge_conv.len()
    }

    /// Whether the head has hidden layers, which are a stage of their own.
    fn hides(&self) -> bool {
        !self.head.hidden.is_empty()
    }

    /// The stage that ends with the mean over particles.
    fn pooling(&self) -> usize {
        self.blocks() + usize::from(self.fusion.is_some())
    }

    /// Columns of the joined block outputs that each of the first `blocks` blocks wrote.
    fn columns(&self, blocks: usize) -> Vec<Range<usize>> {
        let mut start = 0;
        (0..blocks)
            .map(|block| {
                start += self.config.width(block);
                start - self.config.width(block)..start
            })
            .collect()
    }

    /// Normalised features and, beside them, the places as they came.
    fn run_input(&self, x: Tensor<2>, padded: Option<&Padded>, mode: NormMode) -> Tensor<2> {
        let [first, second] = self.config.point_columns();
        let column = |at: usize| x.clone().slice([0..x.dims()[0], at..at + 1]);
        let points = vec![column(first), column(second)];
        let features = match padded {
            Some(padded) => padded.cut(self.input.forward(padded.fill(x), mode)),
            None => self.input.forward(x, mode),
        };
        Tensor::cat([vec![features], points].concat(), 1)
    }

    fn run_block(
        &self,
        block: usize,
        x: Tensor<2>,
        graph: &RaggedGraph,
        padded: Option<&Padded>,
        mode: NormMode,
    ) -> Tensor<2> {
        let k = self.config.blocks[block].neighbours;
        let (x, points) = match block {
            0 => {
                let [rows, features] = [x.dims()[0], self.config.input_features];
                let points = x.clone().slice([0..rows, features..features + 2]);
                (x.slice([0..rows, 0..features]), points)
            }
            _ => (x.clone(), x),
        };
        let conv = &self.edge_conv[block];
        match padded {
            Some(padded) => {
                let neighbours = padded.neighbours(points, graph, k);
                padded.cut(conv.forward(padded.fill(x), &padded.graph, &neighbours, mode))
            }
            None => conv.forward(x, graph, &knn(points, graph, k), mode),
        }
    }
}

impl Backbone for ParticleNet {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn stages(&self) -> Vec<Stage> {
        let blocks = (0..self.blocks()).map(|block| format!("edge_conv.{block}"));
        std::iter::once("input".to_owned())
            .chain(blocks)
            .chain(self.fusion.as_ref().map(|_| "fusion".to_owned()))
            .map(|name| Stage { prefix: name.clone(), name })
            .chain(self.hides().then(|| Stage { name: "hidden".into(), prefix: "head.hidden".into() }))
            .chain([Stage { name: "head".into(), prefix: "head.output".into() }])
            .collect()
    }

    fn classes(&self) -> usize {
        self.config.classes
    }

    fn input_features(&self) -> usize {
        self.config.input_features
    }

    fn rows_at(&self, cut: usize) -> Rows {
        if cut <= self.pooling() { Rows::Nodes } else { Rows::Jets }
    }

    fn width_at(&self, cut: usize) -> usize {
        let blocks = self.blocks();
        match cut {
            0 => self.config.input_features,
            1 => self.config.input_features + 2,
            _ if cut == self.pooling() + 1 => self.config.representation(),
            _ if cut == self.pooling() + 2 && self.hides() => self.head.output.weight.dims()[0],
            _ if cut > self.pooling() + 1 => self.config.classes,
            // Later stages need all outputs only if they are joined.
            _ if self.fusion.is_some() => self.columns(cut - 1).last().map_or(0, |columns| columns.end),
            _ => self.config.width(cut.min(blocks + 1) - 2),
        }
    }

    fn forward_stages(
        &self,
        stages: Range<usize>,
        activation: Tensor<2>,
        graph: &RaggedGraph,
        mode: &Mode,
    ) -> Tensor<2> {
        let blocks = self.blocks();
        let count = self.pooling() + 2 + usize::from(self.hides());
        assert!(stages.end <= count, "stages {stages:?} of a network of {count}");
        assert_eq!(mode.norms.len(), count, "one norm mode per stage");
        assert_eq!(activation.dims()[1], self.width_at(stages.start), "width of the activation at its cut");
        if stages.is_empty() {
            return activation;
        }
        let padded = (self.config.padding == Padding::Weaver && stages.start <= self.pooling())
            .then(|| Padded::new(graph, self.config.slots, &activation.device()));
        // Block outputs stay apart until someone needs them side by side.
        let mut pieces: Vec<Tensor<2>> = match &self.fusion {
            Some(_) if (2..=blocks + 1).contains(&stages.start) => {
                (self.columns(stages.start - 1).into_iter())
                    .map(|columns| activation.clone().slice([0..graph.nodes, columns]))
                    .collect()
            }
            _ => Vec::new(),
        };
        let mut last = pieces.last().cloned().unwrap_or(activation);
        for stage in stages {
            let norm = mode.norms[stage];
            last = match stage {
                0 => self.run_input(last, padded.as_ref(), norm),
                _ if stage <= blocks => {
                    let output = self.run_block(stage - 1, last, graph, padded.as_ref(), norm);
                    if self.fusion.is_some() {
                        pieces.push(output.clone());
                    }
                    output
                }
                _ => match &self.fusion {
                    Some(fusion) if stage == blocks + 1 => {
                        let joined = Tensor::cat(std::mem::take(&mut pieces), 1);
                        match &padded {
                            Some(padded) => padded.cut(fusion.forward(padded.fill(joined), norm)),
                            None => fusion.forward(joined, norm),
                        }
                    }
                    _ if stage == self.pooling() + 1 && self.hides() => {
                        self.head.hide(last, self.config.dropout, mode.dropout_seed)
                    }
                    _ => self.head.output.forward(last),
                },
            };
            if stage == self.pooling() {
                last = complete::mean(Pending::ready(last), graph);
            }
        }
        if pieces.len() > 1 { Tensor::cat(pieces, 1) } else { last }
    }

    fn replace_head(self, classes: usize, seed: u64) -> Self {
        let device = self.head.output.weight.device();
        let mut config = self.config;
        config.classes = classes;
        let head = Head { output: Head::new(&config, seed, &device).output, ..self.head };
        Self { head, config, ..self }
    }
}

/// A batch as weaver lays it out: every jet with the same number of slots, the particles first.
#[derive(Debug)]
struct Padded {
    /// Jets of all slots.
    graph: RaggedGraph,
    /// The particle of each slot; slots without one have the row behind the last particle.
    particles: Tensor<1, Int>,
    /// The slot of each particle.
    slots: Tensor<1, Int>,
    /// First slot of each jet.
    starts: Vec<usize>,
    /// First particle of each jet.
    jets: Vec<usize>,
}

impl Padded {
    fn new(graph: &RaggedGraph, slots: usize, device: &Device) -> Self {
        let jets: Vec<usize> =
            graph.jet_offsets.clone().into_data().iter::<i32>().map(|offset| offset as usize).collect();
        let mut starts = vec![0];
        let (mut particles, mut places) = (Vec::new(), Vec::new());
        for jet in jets.windows(2) {
            let size = jet[1] - jet[0];
            let start = particles.len();
            places.extend((start..start + size).map(|slot| slot as i32));
            particles.extend((jet[0]..jet[1]).map(|particle| particle as i32));
            particles.resize(start + slots.max(size), graph.nodes as i32);
            starts.push(particles.len());
        }
        let tensor = |values: Vec<i32>| {
            let length = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [length]), (device, DType::I32))
        };
        let nodes = particles.len();
        let offsets = starts.iter().map(|&start| start as i32).collect();
        Self {
            graph: RaggedGraph {
                jets: graph.jets,
                nodes,
                jet_offsets: tensor(offsets),
                edges: None,
                kinematics: None,
            },
            particles: tensor(particles),
            slots: tensor(places),
            starts,
            jets,
        }
    }

    /// Rows of particles to rows of slots, 0 where there is none.
    fn fill(&self, x: Tensor<2>) -> Tensor<2> {
        let [_, columns] = x.dims();
        let zeros = Tensor::zeros([1, columns], &x.device());
        Tensor::cat(vec![x, zeros], 0).select(0, self.particles.clone())
    }

    /// Rows of slots to rows of particles.
    fn cut(&self, x: Tensor<2>) -> Tensor<2> {
        x.select(0, self.slots.clone())
    }

    /// Neighbours of every slot. A particle has the nearest of its jet and, where these are too few, slots without one.
    /// A slot without a particle lies at the same far place as all such slots, which are nearest; from there the
    /// particles follow by the sum of their coordinates, the largest first.
    fn neighbours(&self, points: Tensor<2>, graph: &RaggedGraph, k: usize) -> Neighbours {
        let device = points.device();
        let near = knn(points.clone(), graph, k);
        let near: Vec<i32> = near.senders.into_data().iter::<i32>().collect();
        let sums: Vec<f32> = points.without_autodiff().sum_dim(1).into_data().iter::<f32>().collect();
        let mut near = near.into_iter();
        let (mut offsets, mut senders) = (vec![0i32], Vec::new());
        for (jet, slots) in self.jets.windows(2).zip(self.starts.windows(2)) {
            let (size, all) = (jet[1] - jet[0], slots[1] - slots[0]);
            let degree = k.min(all - 1);
            let shift = slots[0] as i32 - jet[0] as i32;
            let empty = slots[0] + size..slots[1];
            let mut far: Vec<usize> = (jet[0]..jet[1]).collect();
            far.sort_by(|&one, &other| sums[other].total_cmp(&sums[one]));
            for slot in slots[0]..slots[1] {
                let first = senders.len();
                if slot < empty.start {
                    senders.extend(near.by_ref().take(k.min(size - 1)).map(|particle| particle + shift));
                }
                let others = empty.clone().filter(|&other| other != slot).map(|other| other as i32);
                senders.extend(others.take(degree + first - senders.len()));
                let particles = far.iter().map(|&particle| particle as i32 + shift);
                senders.extend(particles.take(degree + first - senders.len()));
                offsets.push(senders.len() as i32);
            }
        }
        Neighbours::new(offsets, senders, &device)
    }
}

/// Our names and weaver's, but for the last layer of the head, whose number depends on the hidden ones.
const KEYS: KeyMap = KeyMap {
    network: "ParticleNet",
    modules: &[
        ("input", "bn_fts"),
        ("edge_conv.{}.linear.{}", "edge_convs.{}.convs.{}"),
        ("edge_conv.{}.norm.{}", "edge_convs.{}.bns.{}"),
        ("edge_conv.{}.shortcut", "edge_convs.{}.sc"),
        ("edge_conv.{}.shortcut_norm", "edge_convs.{}.sc_bn"),
        ("fusion.linear", "fusion_block.0"),
        ("fusion.norm", "fusion_block.1"),
        ("head.hidden.{}", "fc.{}.0"),
        ("head.output", "fc.output"),
    ],
    example: "`bn_fts.weight`, `edge_convs.0.convs.0.weight`, `fc.1.bias`",
};

/// What the weights of weaver's example networks have before every name.
const PREFIX: &str = "mod.";

/// Name and dimensions of size 1 that weaver's convolutions have behind outputs and inputs.
fn kernel_dimensions(theirs: &str) -> usize {
    let of = |part: &str| theirs.contains(part) && theirs.ends_with(".weight");
    if of(".convs.") {
        2
    } else if of(".sc.") || theirs == "fusion_block.0.weight" {
        1
    } else {
        0
    }
}

/// Reads the tensors of a weaver ParticleNet: names and layouts become ours, sizes come from the shapes. A prefix that
/// all names have, such as `mod.`, is taken off. The number of neighbours is not in such files: it is 7 for blocks of
/// the widths of ParticleNet-Lite, else 16.
///
/// # Errors
/// [`NnError::Weights`] for an entry that no ParticleNet has, [`NnError::Names`] or [`NnError::Shape`] when the tensors
/// do not make one whole network.
pub fn from_foreign(
    tensors: &BTreeMap<String, ForeignTensor>,
) -> Result<Imported<ParticleNetConfig>, NnError> {
    let prefix = common_prefix(tensors);
    let mut plain = BTreeMap::new();
    for (name, tensor) in tensors {
        let short = &name[prefix.len()..];
        let mut tensor = tensor.clone();
        for _ in 0..kernel_dimensions(short) {
            if tensor.shape.len() > 2 && tensor.shape.last() == Some(&1) {
                tensor.shape.pop();
            }
        }
        // `fc.N.weight` is the output, `fc.N.0.weight` a hidden layer.
        let short = match short.strip_prefix("fc.").and_then(|rest| rest.split_once('.')) {
            Some((number, leaf))
                if !leaf.contains('.') && number.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                format!("fc.output.{leaf}")
            }
            _ => short.to_owned(),
        };
        plain.insert(short, tensor);
    }
    let (state, ignored) = KEYS.to_state(&plain)?;
    let ignored = ignored.into_iter().map(|name| format!("{prefix}{name}")).collect();
    let config = sizes(&state)?;
    // A network of these sizes knows every name and shape that must be there.
    let network = ParticleNet::new(&config, 0, &Device::flex())?;
    crate::state::load_state(network, &state)?;
    Ok(Imported { config, state, ignored })
}

/// What stands before `bn_fts.` in all names, such as `mod.`; empty if they do not agree.
fn common_prefix(tensors: &BTreeMap<String, ForeignTensor>) -> String {
    let found = tensors.keys().find_map(|name| name.strip_suffix("bn_fts.weight")).unwrap_or_default();
    let all = tensors.keys().all(|name| name.starts_with(found));
    if all { found.to_owned() } else { String::new() }
}

/// Weaver's names and layout of a ParticleNet's state, counters included (as 0), with the prefix `mod.` that its example
/// networks and published weights have.
///
/// # Errors
/// [`NnError::Weights`] for a name that is not ParticleNet's.
pub fn to_foreign(
    config: &ParticleNetConfig,
    state: &State,
) -> Result<BTreeMap<String, ForeignTensor>, NnError> {
    let output = format!("fc.{}.", config.head.len());
    let tensors = KEYS.to_foreign(state)?.into_iter().map(|(name, mut tensor)| {
        if !name.ends_with(COUNTER) {
            tensor.shape.resize(tensor.shape.len() + kernel_dimensions(&name), 1);
        }
        (format!("{PREFIX}{}", name.replacen("fc.output.", &output, 1)), tensor)
    });
    Ok(tensors.collect())
}

/// Sizes of the network that a state belongs to.
///
/// # Errors
/// [`NnError::Names`] or [`NnError::Shape`] if a tensor that shows a size is missing or not a matrix.
pub fn sizes(state: &State) -> Result<ParticleNetConfig, NnError> {
    let columns = |name: &str| match state.get(name) {
        None => Err(NnError::Names { missing: vec![name.to_owned()], unexpected: Vec::new() }),
        Some(tensor) => tensor.shape.last().copied().ok_or_else(|| NnError::Shape {
            name: name.to_owned(),
            found: Vec::new(),
            expected: vec![1],
        }),
    };
    let run = |name: &dyn Fn(usize) -> String| -> Result<Vec<usize>, NnError> {
        let names = (0..).map(name).take_while(|name| state.contains_key(name));
        names.map(|name| columns(&name)).collect()
    };
    let mut blocks = Vec::new();
    loop {
        let widths = run(&|layer| format!("edge_conv.{}.linear.{layer}.weight", blocks.len()))?;
        if widths.is_empty() {
            break;
        }
        blocks.push(BlockConfig { neighbours: 16, widths });
    }
    let lite = ParticleNetConfig::particlenet_lite();
    if blocks.iter().map(|block| &block.widths).eq(lite.blocks.iter().map(|block| &block.widths)) {
        blocks = lite.blocks;
    }
    let fusion = "fusion.linear.weight";
    Ok(ParticleNetConfig {
        input_features: columns("input.weight")?,
        blocks,
        fusion: state.contains_key(fusion).then(|| columns(fusion)).transpose()?,
        head: run(&|layer| format!("head.hidden.{layer}.weight"))?,
        classes: columns("head.output.weight")?,
        ..ParticleNetConfig::particlenet()
    })
}
