//! Particle Transformer: attention between all particles of a jet, told of each pair.
//!
//! Features of particles are embedded row by row; a network on four features of each pair of particles gives what is
//! added to the logits of every attention. Eight blocks of attention and feed-forward network, then two in which a
//! token asks the particles; the token goes to the classes.
//!
//! Source: H. Qu, C. Li, S. Qian, "Particle Transformer for Jet Tagging", arXiv:2202.03772. Original code:
//! github.com/jet-universe/particle_transformer and weaver-core (both MIT). Known differences: only real particles and
//! pairs enter statistics, unless `padding = "weaver"` (weaver counts padded slots of the input, and up to its version
//! 0.4 also of pairs); the masses of pairs are computed without cancellation; trimming is off unless asked for, and
//! then has no first steps without it; initial values are PyTorch's defaults, as in weaver 0.4 (0.5 has others).
//!
//! Stages: `pair` (the embedding of pairs: activations pass it unchanged, and the blocks compute it from the graph's
//! kinematics whenever they run; its running statistics move in the pass of `block.0`), `embed`, `block.N`,
//! `class_block.N` (the first holds the token, the last the final normalisation), `head` (one linear map). Between class
//! blocks an activation is the particles' rows with the token of their jet beside each.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::contract::{Backbone, Mode, Needs, NormMode, RaggedGraph, Rows, Stage};
use crate::error::NnError;
use crate::import::ForeignTensor;
use crate::import::keys::{COUNTER, Imported, transposed};
use crate::init::{mix, named_seed, uniform};
use crate::layers::{BatchNorm, Dense, parameter};
use crate::ops::attention::plain::{indices, sizes};
use crate::ops::attention::{Options, PairBias, attention};
use crate::ops::class_attention::class_attention;
use crate::ops::pair_embedding::{FEATURES, Layer, pair_embedding};
use crate::ops::rows::{Activation, Step, chain};
use crate::ops::{Moments, Norm};
use crate::state::{NamedTensor, Role, State};

/// Registry name.
pub const KIND: &str = "particle-transformer";

/// What stands where a jet has fewer particles than the longest of its batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Padding {
    /// Nothing: the statistics of the input run over real particles.
    #[default]
    Real,
    /// As weaver on input that is padded with zeros: every jet has as many slots as the longest of the batch, and the
    /// zeros enter the statistics of the input's normalisation.
    Weaver,
}

/// Sizes of a Particle Transformer. The defaults are those of the paper, for kinematic features and the ten classes of
/// JetClass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParticleTransformerConfig {
    /// Features per particle, F: 7 for the set `kin` (default), 13 for `kinpid`, 17 for `full`.
    pub input_features: usize,
    /// Widths of the layers that embed a particle; the last is the width of the network; default 128, 512, 128.
    pub embed: Vec<usize>,
    /// Hidden widths of the embedding of pairs; its output has one column per head; default 64, 64, 64.
    pub pair: Vec<usize>,
    /// Number of heads; default 8.
    pub heads: usize,
    /// Blocks of attention between particles; default 8.
    pub blocks: usize,
    /// Blocks in which the token asks the particles; default 2.
    pub class_blocks: usize,
    /// Width of the hidden layer of each block; default 512.
    pub hidden: usize,
    /// Probability of dropout in the particles' blocks (weights of attention, its output, hidden layer, block output),
    /// in `[0, 1)`; the class blocks have none; default 0.1.
    pub dropout: f64,
    /// What padding does; `real` by default.
    pub padding: Padding,
    /// Whether training drops particles: of every batch, jets longer than a random high quantile of the lengths (of
    /// order min(1, U(0.9, 1.02))) keep that many particles, drawn anew each step. Done where a pass begins at the
    /// input and ends behind the class blocks. Off by default.
    pub trim: bool,
    /// Number of classes, C; default 10.
    pub classes: usize,
}

impl Default for ParticleTransformerConfig {
    fn default() -> Self {
        Self::kin()
    }
}

impl ParticleTransformerConfig {
    /// Seven kinematic features, ten classes: 2,142,166 parameters.
    pub fn kin() -> Self {
        Self {
            input_features: 7,
            embed: vec![128, 512, 128],
            pair: vec![64, 64, 64],
            heads: 8,
            blocks: 8,
            class_blocks: 2,
            hidden: 512,
            dropout: 0.1,
            padding: Padding::Real,
            trim: false,
            classes: 10,
        }
    }

    /// Kinematics and particle identification, 13 features: 2,142,958 parameters.
    pub fn kinpid() -> Self {
        Self { input_features: 13, ..Self::kin() }
    }

    /// Also displacements of tracks, 17 features: 2,143,486 parameters.
    pub fn full() -> Self {
        Self { input_features: 17, ..Self::kin() }
    }

    /// The same sizes for other inputs and classes.
    #[must_use]
    pub fn with_ends(self, input_features: usize, classes: usize) -> Self {
        Self { input_features, classes, ..self }
    }

    /// Width of the network, D.
    fn width(&self) -> usize {
        self.embed.last().copied().unwrap_or(0)
    }

    /// Number of stages.
    fn stages(&self) -> usize {
        FIRST_BLOCK + self.blocks + self.class_blocks + 1
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`NnError::Config`] for the first that no network can have.
    pub fn check(&self) -> Result<(), NnError> {
        let fault = |field, found: String, expected: &str| {
            Err(NnError::Config { network: KIND, field, found, expected: expected.to_owned() })
        };
        for (field, value) in [
            ("input_features", self.input_features),
            ("heads", self.heads),
            ("hidden", self.hidden),
            ("classes", self.classes),
        ] {
            if value == 0 || value > 1 << 16 {
                return fault(field, value.to_string(), "1 to 65536");
            }
        }
        for (field, value) in [("blocks", self.blocks), ("class_blocks", self.class_blocks)] {
            if value == 0 || value > 1 << 10 {
                return fault(field, value.to_string(), "1 to 1024");
            }
        }
        for (field, widths, fewest) in [("embed", &self.embed, 1), ("pair", &self.pair, 0)] {
            if widths.len() < fewest || widths.len() > 5 {
                return fault(
                    field,
                    format!("{} layers", widths.len()),
                    "at most 5 layers, and 1 for `embed`",
                );
            }
            if let Some(width) = widths.iter().find(|&&width| width == 0 || width > 1 << 16) {
                return fault(field, width.to_string(), "widths of 1 to 65536");
            }
        }
        if self.width() % self.heads != 0 {
            return fault("heads", self.heads.to_string(), "a divisor of the last width in `embed`");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fault("dropout", self.dropout.to_string(), "a probability in [0, 1)");
        }
        Ok(())
    }
}

/// Stages before the first block: `pair`, `embed`.
const FIRST_BLOCK: usize = 2;

/// Layer normalisation of rows.
#[derive(Module, Debug)]
pub struct RowNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

impl RowNorm {
    fn new(name: &str, columns: usize, device: &Device) -> Self {
        Self {
            weight: parameter(&format!("{name}.weight"), vec![1.0; columns], [columns], device),
            bias: parameter(&format!("{name}.bias"), vec![0.0; columns], [columns], device),
        }
    }

    fn step(&self) -> Step {
        Step::Norm { weight: self.weight.val(), bias: self.bias.val() }
    }
}

/// A factor per head or column, 1 at the start.
#[derive(Module, Debug)]
pub struct Factors {
    weight: Param<Tensor<1>>,
}

impl Factors {
    fn new(name: &str, count: usize, device: &Device) -> Self {
        Self { weight: parameter(&format!("{name}.weight"), vec![1.0; count], [count], device) }
    }

    /// Each repeated for the columns of its head.
    fn repeated(&self, columns: usize) -> Tensor<1> {
        let [count] = self.weight.val().dims();
        self.weight.val().reshape([count, 1]).expand([count, columns / count]).reshape([columns])
    }
}

fn bias(dense: &Dense) -> Tensor<1> {
    match &dense.bias {
        Some(bias) => bias.val(),
        None => unreachable!("all linear maps of this network have a bias"),
    }
}

fn linear(dense: &Dense, activation: Activation) -> Step {
    Step::Linear { weight: dense.weight.val(), bias: bias(dense), activation }
}

/// One layer of the embedding of pairs.
#[derive(Module, Debug)]
pub struct PairLayer {
    linear: Dense,
    norm: BatchNorm,
}

/// What is added to the logits of all attentions between particles; see [`crate::ops::pair_embedding`].
#[derive(Module, Debug)]
pub struct PairEmbedding {
    input: BatchNorm,
    layer: Vec<PairLayer>,
}

impl PairEmbedding {
    fn forward(&self, graph: &RaggedGraph, mode: NormMode, observe: bool) -> PairBias {
        let layers = (self.layer.iter())
            .map(|layer| Layer {
                weight: layer.linear.weight.val(),
                bias: bias(&layer.linear),
                norm: layer.norm.norm(mode),
            })
            .collect();
        let pairs = pair_embedding(graph, self.input.norm(mode), layers);
        if observe {
            let norms = std::iter::once(&self.input).chain(self.layer.iter().map(|layer| &layer.norm));
            for (norm, moments) in norms.zip(pairs.moments) {
                norm.observe(moments);
            }
        }
        pairs.bias
    }
}

/// One layer of the embedding of particles.
#[derive(Module, Debug)]
pub struct EmbedLayer {
    norm: RowNorm,
    linear: Dense,
}

/// From features of particles to the width of the network.
#[derive(Module, Debug)]
pub struct Embedding {
    input: BatchNorm,
    layer: Vec<EmbedLayer>,
}

impl Embedding {
    fn forward(&self, x: Tensor<2>, slots: usize, mode: NormMode) -> Tensor<2> {
        let (x, moments) = match mode {
            NormMode::Batch if slots > x.dims()[0] => padded_norm(x, slots, &self.input.norm(mode)),
            _ => crate::ops::plain::batch_norm(x, &self.input.norm(mode)),
        };
        self.input.observe(moments);
        let steps =
            self.layer.iter().flat_map(|layer| [layer.norm.step(), linear(&layer.linear, Activation::Gelu)]);
        chain(x, steps.collect())
    }
}

/// Batch normalisation whose statistics count rows of zeros up to `slots` rows.
fn padded_norm(x: Tensor<2>, slots: usize, norm: &Norm) -> (Tensor<2>, Option<Moments>) {
    let [rows, columns] = x.dims();
    let (share, zeros) = (1.0 / slots as f64, (slots - rows) as f64);
    let mean = x.clone().sum_dim(0) * share;
    let spread = (x.clone() - mean.clone()).powi_scalar(2).sum_dim(0);
    let variance = (spread + mean.clone().powi_scalar(2) * zeros) * share;
    let flat = |value: &Tensor<2>| value.clone().without_autodiff().reshape([columns]);
    let moments = Moments { mean: flat(&mean), variance: flat(&variance), rows: slots };
    let scale = norm.weight.clone().reshape([1, columns]) / (variance + crate::layers::NORM_EPSILON).sqrt();
    ((x - mean) * scale + norm.bias.clone().reshape([1, columns]), Some(moments))
}

/// What blocks of particles and of the token have in common: the maps of an attention, its factor per head and norm, and
/// the feed-forward network behind it.
#[derive(Module, Debug)]
pub struct Block {
    attention_norm: RowNorm,
    query_key_value: Dense,
    attention_output: Dense,
    head_scale: Factors,
    attention_output_norm: RowNorm,
    hidden_norm: RowNorm,
    hidden: Dense,
    output_norm: RowNorm,
    output: Dense,
    residual_scale: Factors,
}

impl Block {
    fn new(name: &str, config: &ParticleTransformerConfig, seed: u64, device: &Device) -> Self {
        let (width, hidden) = (config.width(), config.hidden);
        let full = |part: &str| format!("{name}.{part}");
        let norm = |part: &str, columns| RowNorm::new(&full(part), columns, device);
        let dense =
            |part: &str, inputs, outputs| Dense::new(&full(part), inputs, outputs, true, seed, device);
        // PyTorch's attention: the joined map is drawn as one matrix (X. Glorot, Y. Bengio, AISTATS 2010), biases are 0.
        let joined = full("query_key_value");
        let weight = format!("{joined}.weight");
        let drawn = uniform(seed, &weight, 3 * width * width, (6.0 / (4 * width) as f32).sqrt());
        let (_, values) = transposed(&[3 * width, width], &drawn);
        let query_key_value = Dense {
            weight: parameter(&weight, values, [width, 3 * width], device),
            bias: Some(parameter(&format!("{joined}.bias"), vec![0.0; 3 * width], [3 * width], device)),
        };
        let mut attention_output = dense("attention_output", width, width);
        let zeros = vec![0.0; width];
        attention_output.bias = Some(parameter(&full("attention_output.bias"), zeros, [width], device));
        Self {
            attention_norm: norm("attention_norm", width),
            query_key_value,
            attention_output,
            head_scale: Factors::new(&full("head_scale"), config.heads, device),
            attention_output_norm: norm("attention_output_norm", width),
            hidden_norm: norm("hidden_norm", width),
            hidden: dense("hidden", width, hidden),
            output_norm: norm("output_norm", hidden),
            output: dense("output", hidden, width),
            residual_scale: Factors::new(&full("residual_scale"), width, device),
        }
    }

    /// From the heads' results to the rows after attention and feed-forward network; `dropout` gives the step of a name.
    fn behind_heads(
        &self,
        heads: Tensor<2>,
        x: Tensor<2>,
        dropout: impl Fn(&str) -> Option<Step>,
    ) -> Tensor<2> {
        let [_, width] = x.dims();
        let mut steps = vec![
            linear(&self.attention_output, Activation::None),
            Step::Scale(self.head_scale.repeated(width)),
            self.attention_output_norm.step(),
        ];
        steps.extend(dropout("attention_output"));
        steps.push(Step::Add { rows: x, scale: None });
        let x = chain(heads, steps);
        let mut steps = vec![self.hidden_norm.step(), linear(&self.hidden, Activation::Gelu)];
        steps.extend(dropout("hidden"));
        steps.extend([self.output_norm.step(), linear(&self.output, Activation::None)]);
        steps.extend(dropout("output"));
        steps.push(Step::Add { rows: x.clone(), scale: Some(self.residual_scale.weight.val()) });
        chain(x, steps)
    }

    /// Attention between particles.
    fn forward(
        &self,
        x: Tensor<2>,
        graph: &RaggedGraph,
        pairs: PairBias,
        heads: usize,
        dropout: Option<(f64, u64)>,
    ) -> Tensor<2> {
        let joined = chain(
            x.clone(),
            vec![self.attention_norm.step(), linear(&self.query_key_value, Activation::None)],
        );
        let named = |name: &str| dropout.map(|(rate, seed)| (rate, named_seed(seed, name)));
        let options = Options { heads, pairs: Some(pairs), keys: None, dropout: named("attention") };
        let result = attention(joined, graph, options);
        self.behind_heads(result, x, |name| named(name).map(|(rate, seed)| Step::Dropout { rate, seed }))
    }

    /// Attention of the tokens; see [`crate::ops::class_attention`] for why keys and values are not there.
    fn ask(&self, tokens: Tensor<2>, nodes: Tensor<2>, graph: &RaggedGraph, heads: usize) -> Tensor<2> {
        let [jets, width] = tokens.dims();
        let each = width / heads;
        let (weight, bias) = (self.query_key_value.weight.val(), bias(&self.query_key_value));
        // Maps of queries, keys, values.
        let part = |part: usize| weight.clone().slice([0..width, part * width..(part + 1) * width]);
        let bias = |part: usize| bias.clone().slice(part * width..(part + 1) * width).unsqueeze::<2>();
        let by_head = |rows: Tensor<2>| {
            let count = rows.dims()[0];
            rows.reshape([count, heads, each]).swap_dims(0, 1)
        };
        let query = (tokens.clone().matmul(part(0)) + bias(0)) / (each as f64).sqrt();
        let folded = by_head(query).matmul(by_head(part(1)).swap_dims(1, 2));
        let folded = folded.swap_dims(0, 1).reshape([jets, heads * width]);
        let norm = &self.attention_norm;
        let means = class_attention(tokens.clone(), nodes, norm.weight.val(), norm.bias.val(), folded, graph);
        let means = means.reshape([jets, heads, width]).swap_dims(0, 1);
        let values = means.matmul(by_head(part(2))).swap_dims(0, 1).reshape([jets, width]) + bias(2);
        self.behind_heads(values, tokens, |_| None)
    }
}

/// A block in which the token asks the particles.
#[derive(Module, Debug)]
pub struct ClassBlock {
    token: Option<Param<Tensor<1>>>,
    block: Block,
    norm: Option<RowNorm>,
}

/// The network; see the head of this file for its stages.
#[derive(Module, Debug)]
pub struct ParticleTransformer {
    pair: PairEmbedding,
    embed: Embedding,
    block: Vec<Block>,
    class_block: Vec<ClassBlock>,
    head: Dense,
    #[module(skip)]
    config: ParticleTransformerConfig,
}

impl ParticleTransformer {
    /// A network with PyTorch's default start, drawn from `seed` and the parameters' names, on `device`.
    ///
    /// # Errors
    /// [`NnError::Config`].
    pub fn new(config: &ParticleTransformerConfig, seed: u64, device: &Device) -> Result<Self, NnError> {
        config.check()?;
        let width = config.width();
        let mut inputs = FEATURES;
        let mut layer = Vec::with_capacity(config.pair.len() + 1);
        for (at, &outputs) in config.pair.iter().chain([&config.heads]).enumerate() {
            layer.push(PairLayer {
                linear: Dense::new(&format!("pair.layer.{at}.linear"), inputs, outputs, true, seed, device),
                norm: BatchNorm::new(&format!("pair.layer.{at}.norm"), outputs, device),
            });
            inputs = outputs;
        }
        let pair = PairEmbedding { input: BatchNorm::new("pair.input", FEATURES, device), layer };
        let mut inputs = config.input_features;
        let mut layer = Vec::with_capacity(config.embed.len());
        for (at, &outputs) in config.embed.iter().enumerate() {
            layer.push(EmbedLayer {
                norm: RowNorm::new(&format!("embed.layer.{at}.norm"), inputs, device),
                linear: Dense::new(&format!("embed.layer.{at}.linear"), inputs, outputs, true, seed, device),
            });
            inputs = outputs;
        }
        let embed = Embedding { input: BatchNorm::new("embed.input", config.input_features, device), layer };
        let block =
            (0..config.blocks).map(|at| Block::new(&format!("block.{at}"), config, seed, device)).collect();
        let class_block = (0..config.class_blocks)
            .map(|at| {
                let name = format!("class_block.{at}");
                let token = format!("{name}.token");
                ClassBlock {
                    token: (at == 0)
                        .then(|| parameter(&token, normal(seed, &token, width, 0.02), [width], device)),
                    block: Block::new(&format!("{name}.block"), config, seed, device),
                    norm: (at + 1 == config.class_blocks)
                        .then(|| RowNorm::new(&format!("{name}.norm"), width, device)),
                }
            })
            .collect();
        let head = Dense::new("head", width, config.classes, true, seed, device);
        Ok(Self { pair, embed, block, class_block, head, config: config.clone() })
    }

    /// The sizes it was built with (the classes are those of the present head).
    pub fn config(&self) -> &ParticleTransformerConfig {
        &self.config
    }

    /// Stage of the first class block.
    fn first_class_block(&self) -> usize {
        FIRST_BLOCK + self.config.blocks
    }

    /// The batch without what this step's trimming drops, where it drops something.
    fn trimmed(&self, x: &Tensor<2>, graph: &RaggedGraph, seed: u64) -> Option<(Tensor<2>, RaggedGraph)> {
        let sizes = sizes(graph);
        let mut sorted = sizes.clone();
        sorted.sort_unstable();
        let draw = uniform(seed, "trim", 1, 0.06).first().map_or(0.0, |&draw| f64::from(draw));
        let order = (0.96 + draw).min(1.0) * sorted.len().checked_sub(1)? as f64;
        // The quantile, interpolated between lengths, and cut to an integer.
        let (low, rest) = (order as usize, order.fract());
        let high = sorted.get(low + 1).copied().unwrap_or(sorted[low]);
        let most = ((1.0 - rest) * sorted[low] as f64 + rest * high as f64) as usize;
        let most = most.max(1);
        if sorted.last().is_none_or(|&longest| longest <= most) {
            return None;
        }
        let key = named_seed(seed, "trimmed particles");
        let (mut kept, mut offsets, mut first) = (Vec::new(), vec![0u32], 0);
        for size in sizes {
            let mut nodes: Vec<usize> = (first..first + size).collect();
            if size > most {
                nodes.sort_unstable_by_key(|&node| mix(key ^ node as u64));
                nodes.truncate(most);
                nodes.sort_unstable();
            }
            kept.extend(nodes.iter().map(|&node| node as i32));
            offsets.push(kept.len() as u32);
            first += size;
        }
        let device = x.device();
        let kept = indices(kept, &device);
        // Offsets rise because every jet keeps a particle.
        let trimmed = RaggedGraph::new(&offsets, &device).ok()?;
        let kinematics = graph.kinematics.as_ref().map(|rows| rows.clone().select(0, kept.clone()));
        Some((x.clone().select(0, kept), RaggedGraph { kinematics, ..trimmed }))
    }
}

/// `count` values of a normal distribution around 0, drawn from `seed` and the tensor's `name` (G. E. P. Box, M. E. Muller
/// 1958).
fn normal(seed: u64, name: &str, count: usize, deviation: f64) -> Vec<f32> {
    let draws = uniform(seed, name, 2 * count, 0.5);
    (draws.chunks_exact(2))
        .map(|pair| {
            // In (0, 1].
            let radius = (-2.0 * (0.5 - f64::from(pair[0])).ln()).sqrt();
            (deviation * radius * (2.0 * std::f64::consts::PI * f64::from(pair[1])).cos()) as f32
        })
        .collect()
}

impl Backbone for ParticleTransformer {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn stages(&self) -> Vec<Stage> {
        let blocks = (0..self.config.blocks).map(|at| format!("block.{at}"));
        let class_blocks = (0..self.config.class_blocks).map(|at| format!("class_block.{at}"));
        ["pair".to_owned(), "embed".to_owned()]
            .into_iter()
            .chain(blocks)
            .chain(class_blocks)
            .chain(["head".to_owned()])
            .map(|name| Stage { prefix: name.clone(), name })
            .collect()
    }

    fn classes(&self) -> usize {
        self.config.classes
    }

    fn input_features(&self) -> usize {
        self.config.input_features
    }

    fn needs(&self) -> Needs {
        Needs { kinematics: true, ..Needs::default() }
    }

    fn rows_at(&self, cut: usize) -> Rows {
        if cut < self.first_class_block() + self.config.class_blocks { Rows::Nodes } else { Rows::Jets }
    }

    fn width_at(&self, cut: usize) -> usize {
        let (first, width) = (self.first_class_block(), self.config.width());
        match cut {
            0 | 1 => self.config.input_features,
            _ if cut == self.config.stages() => self.config.classes,
            // Particles, and the token beside them.
            _ if cut > first && cut < first + self.config.class_blocks => 2 * width,
            _ => width,
        }
    }

    fn forward_stages(
        &self,
        stages: Range<usize>,
        activation: Tensor<2>,
        graph: &RaggedGraph,
        mode: &Mode,
    ) -> Tensor<2> {
        let count = self.config.stages();
        assert!(stages.end <= count, "stages {stages:?} of a network of {count}");
        assert_eq!(mode.norms.len(), count, "one norm mode per stage");
        assert_eq!(activation.dims()[1], self.width_at(stages.start), "width of the activation at its cut");
        let (first_class, heads, width) = (self.first_class_block(), self.config.heads, self.config.width());
        let head = count - 1;
        let (mut x, mut trimmed) = (activation, None);
        if self.config.trim && stages.start < FIRST_BLOCK && stages.end >= head {
            trimmed = mode.dropout_seed.and_then(|seed| self.trimmed(&x, graph, seed));
        }
        let graph = match &trimmed {
            Some((rows, graph)) => {
                x = rows.clone();
                graph
            }
            None => graph,
        };
        let mut pairs = None;
        // Tokens, while they are not beside the particles.
        let mut tokens: Option<Tensor<2>> = None;
        for stage in stages.clone() {
            let norm = mode.norms[stage];
            x = match stage {
                0 => x,
                1 => {
                    let slots = match self.config.padding {
                        Padding::Real => 0,
                        Padding::Weaver => graph.jets * sizes(graph).into_iter().max().unwrap_or(0),
                    };
                    self.embed.forward(x, slots, norm)
                }
                _ if stage < first_class => {
                    let pairs = pairs.get_or_insert_with(|| {
                        self.pair.forward(graph, mode.norms[0], stages.contains(&FIRST_BLOCK))
                    });
                    let block = stage - FIRST_BLOCK;
                    let dropout = mode.dropout_seed.filter(|_| self.config.dropout > 0.0);
                    let dropout = dropout
                        .map(|seed| (self.config.dropout, named_seed(seed, &format!("block.{block}"))));
                    self.block[block].forward(x, graph, pairs.clone(), heads, dropout)
                }
                _ if stage < head => {
                    let class_block = &self.class_block[stage - first_class];
                    let asking = match (&class_block.token, tokens.take()) {
                        (Some(token), _) => token.val().unsqueeze::<2>().expand([graph.jets, width]),
                        (None, Some(tokens)) => tokens,
                        (None, None) => {
                            // The token of a jet stands beside each of its particles.
                            let first = graph.jet_offsets.clone().slice(0..graph.jets);
                            let beside = x.clone().slice([0..graph.nodes, width..2 * width]);
                            x = x.slice([0..graph.nodes, 0..width]);
                            beside.select(0, first)
                        }
                    };
                    let answer = class_block.block.ask(asking, x.clone(), graph, heads);
                    match &class_block.norm {
                        Some(norm) => chain(answer, vec![norm.step()]),
                        None if stage + 1 == stages.end => {
                            let owners =
                                crate::ops::plain::rows_of(&graph.jet_offsets, graph.jets, graph.nodes);
                            Tensor::cat(vec![x, answer.select(0, owners)], 1)
                        }
                        None => {
                            tokens = Some(answer);
                            x
                        }
                    }
                }
                _ => self.head.forward(x),
            };
        }
        x
    }

    fn replace_head(self, classes: usize, seed: u64) -> Self {
        let device = self.head.weight.device();
        let mut config = self.config;
        config.classes = classes;
        let head = Dense::new("head", config.width(), classes, true, seed, &device);
        Self { head, config, ..self }
    }
}

/// What the weights of weaver's example networks have before every name.
const PREFIX: &str = "mod.";

/// Parts of a block, ours and weaver's.
const PARTS: [(&str, &str); 11] = [
    ("attention_norm.", "pre_attn_norm."),
    ("query_key_value.", "attn.in_proj_"),
    ("attention_output.", "attn.out_proj."),
    ("head_scale.weight", "c_attn"),
    ("attention_output_norm.", "post_attn_norm."),
    ("hidden_norm.", "pre_fc_norm."),
    ("hidden.", "fc1."),
    ("output_norm.", "post_fc_norm."),
    ("output.", "fc2."),
    ("residual_scale.weight", "w_resid"),
    // What weaver 0.5 calls the joined map; read, never written.
    ("query_key_value.", "attn.in_proj."),
];

/// `12.rest` as 12 and `rest`.
fn numbered(name: &str) -> Option<(usize, &str)> {
    let (number, rest) = name.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

fn renamed(part: &str, pairs: impl Iterator<Item = (&'static str, &'static str)>) -> Option<String> {
    let mut pairs = pairs;
    pairs.find_map(|(from, to)| part.strip_prefix(from).map(|leaf| format!("{to}{leaf}")))
}

/// Our name of a tensor of weaver's network with so many class blocks.
fn ours(theirs: &str, class_blocks: usize) -> Option<String> {
    let part = |part: &str| renamed(part, PARTS.iter().map(|&(ours, theirs)| (theirs, ours)));
    if let Some(rest) = theirs.strip_prefix("embed.embed.") {
        let (at, leaf) = numbered(rest)?;
        return match at % 3 {
            0 => Some(format!("embed.layer.{}.norm.{leaf}", at / 3)),
            1 => Some(format!("embed.layer.{}.linear.{leaf}", at / 3)),
            _ => None,
        };
    }
    if let Some(rest) = theirs.strip_prefix("pair_embed.embed.") {
        let (at, leaf) = numbered(rest)?;
        return match (at, at % 3) {
            (0, _) => Some(format!("pair.input.{leaf}")),
            (_, 1) => Some(format!("pair.layer.{}.linear.{leaf}", at / 3)),
            (_, 2) => Some(format!("pair.layer.{}.norm.{leaf}", at / 3)),
            _ => None,
        };
    }
    if let Some(rest) = theirs.strip_prefix("blocks.") {
        let (at, rest) = numbered(rest)?;
        return Some(format!("block.{at}.{}", part(rest)?));
    }
    if let Some(rest) = theirs.strip_prefix("cls_blocks.") {
        let (at, rest) = numbered(rest)?;
        return Some(format!("class_block.{at}.block.{}", part(rest)?));
    }
    let last = class_blocks.checked_sub(1)?;
    if let Some(leaf) = theirs.strip_prefix("norm.") {
        return Some(format!("class_block.{last}.norm.{leaf}"));
    }
    match theirs.split_once('.') {
        None if theirs == "cls_token" => Some("class_block.0.token".to_owned()),
        Some(("embed", rest)) => rest.strip_prefix("input_bn.").map(|leaf| format!("embed.input.{leaf}")),
        Some(("fc", rest)) => rest.strip_prefix("0.").map(|leaf| format!("head.{leaf}")),
        _ => None,
    }
}

/// Weaver's name of our tensor.
fn theirs(ours: &str) -> Option<String> {
    let part = |part: &str| renamed(part, PARTS.iter().copied());
    if let Some(rest) = ours.strip_prefix("embed.layer.") {
        let (at, rest) = numbered(rest)?;
        let (kind, leaf) = rest.split_once('.')?;
        return Some(format!("embed.embed.{}.{leaf}", 3 * at + usize::from(kind == "linear")));
    }
    if let Some(rest) = ours.strip_prefix("pair.layer.") {
        let (at, rest) = numbered(rest)?;
        let (kind, leaf) = rest.split_once('.')?;
        return Some(format!("pair_embed.embed.{}.{leaf}", 3 * at + if kind == "linear" { 1 } else { 2 }));
    }
    if let Some(rest) = ours.strip_prefix("block.") {
        let (at, rest) = numbered(rest)?;
        return Some(format!("blocks.{at}.{}", part(rest)?));
    }
    if let Some(rest) = ours.strip_prefix("class_block.") {
        let (at, rest) = numbered(rest)?;
        return match rest.split_once('.') {
            None => (rest == "token").then(|| "cls_token".to_owned()),
            Some(("norm", leaf)) => Some(format!("norm.{leaf}")),
            Some(("block", rest)) => Some(format!("cls_blocks.{at}.{}", part(rest)?)),
            Some(_) => None,
        };
    }
    let (module, leaf) = ours.rsplit_once('.')?;
    match module {
        "pair.input" => Some(format!("pair_embed.embed.0.{leaf}")),
        "embed.input" => Some(format!("embed.input_bn.{leaf}")),
        "head" => Some(format!("fc.0.{leaf}")),
        _ => None,
    }
}

fn stranger(name: &str, expected: &str) -> NnError {
    NnError::Weights {
        file: None,
        name: Some(name.to_owned()),
        found: "a tensor that a Particle Transformer does not have".to_owned(),
        expected: expected.to_owned(),
    }
}

/// Reads the tensors of a weaver ParticleTransformer, with the prefix `mod.` of its example networks or without: names
/// and layouts become ours, sizes come from the shapes. The number of heads is the width of the embedding of pairs.
///
/// # Errors
/// [`NnError::Weights`] for an entry that no such network has, [`NnError::Names`] or [`NnError::Shape`] when the tensors
/// do not make one whole network.
pub fn from_foreign(
    tensors: &BTreeMap<String, ForeignTensor>,
) -> Result<Imported<ParticleTransformerConfig>, NnError> {
    let prefix = tensors.keys().find_map(|name| name.strip_suffix("cls_token")).unwrap_or_default();
    let class_blocks =
        (0..).take_while(|at| tensors.contains_key(&format!("{prefix}cls_blocks.{at}.c_attn"))).count();
    let (mut state, mut ignored) = (State::new(), Vec::new());
    for (name, tensor) in tensors {
        if name.rsplit('.').next() == Some(COUNTER) {
            ignored.push(name.clone());
            continue;
        }
        let ours = (name.strip_prefix(prefix).and_then(|name| ours(name, class_blocks)))
            .ok_or_else(|| stranger(name, "names such as `blocks.0.attn.in_proj_weight`, `fc.0.bias`"))?;
        let mut shape = tensor.shape.clone();
        // Convolutions of width 1 are linear maps; the token is a row.
        if shape.len() == 3 && (shape[2] == 1 || shape[..2] == [1, 1]) {
            if shape[2] == 1 {
                shape.pop()
            } else {
                shape.drain(..2).next()
            };
        }
        let (shape, values) = transposed(&shape, &tensor.values);
        let role = Role::of(&ours);
        state.insert(ours, NamedTensor { shape, values, role });
    }
    let config = found_sizes(&state)?;
    // A network of these sizes knows every name and shape that must be there.
    let network = ParticleTransformer::new(&config, 0, &Device::flex())?;
    crate::state::load_state(network, &state)?;
    Ok(Imported { config, state, ignored })
}

/// Weaver's names and layout of a state, counters included (as 0), with the prefix `mod.` that its example networks have.
/// The joined maps of attention are called as PyTorch's attention calls them and weaver did up to 0.4.
///
/// # Errors
/// [`NnError::Weights`] for a name that is not a Particle Transformer's.
pub fn to_foreign(
    _: &ParticleTransformerConfig,
    state: &State,
) -> Result<BTreeMap<String, ForeignTensor>, NnError> {
    let mut tensors = BTreeMap::new();
    for (name, tensor) in state {
        let theirs = theirs(name).ok_or_else(|| stranger(name, "the state of a Particle Transformer"))?;
        let theirs = format!("{PREFIX}{theirs}");
        if let Some(module) = theirs.strip_suffix("running_mean") {
            let counter = ForeignTensor { shape: Vec::new(), values: vec![0.0], dtype: "i64" };
            tensors.insert(format!("{module}{COUNTER}"), counter);
        }
        let (mut shape, values) = transposed(&tensor.shape, &tensor.values);
        if name.starts_with("pair.") && shape.len() == 2 {
            shape.push(1);
        }
        if theirs.ends_with("cls_token") {
            shape.splice(0..0, [1, 1]);
        }
        tensors.insert(theirs, ForeignTensor { shape, values, dtype: "f32" });
    }
    Ok(tensors)
}

/// Sizes of the network that a state belongs to.
fn found_sizes(state: &State) -> Result<ParticleTransformerConfig, NnError> {
    let columns = |name: &str| match state.get(name) {
        None => Err(NnError::Names { missing: vec![name.to_owned()], unexpected: Vec::new() }),
        Some(tensor) => tensor.shape.last().copied().ok_or_else(|| NnError::Shape {
            name: name.to_owned(),
            found: Vec::new(),
            expected: vec![1],
        }),
    };
    let widths = |layers: &str| {
        (0..)
            .map_while(|at| state.get(&format!("{layers}.{at}.linear.bias"))?.shape.last().copied())
            .collect::<Vec<_>>()
    };
    let count = |blocks: &str, part: &str| {
        (0..).take_while(|at| state.contains_key(&format!("{blocks}.{at}.{part}head_scale.weight"))).count()
    };
    let mut pair = widths("pair.layer");
    let heads = pair.pop().unwrap_or(0);
    Ok(ParticleTransformerConfig {
        input_features: columns("embed.input.weight")?,
        embed: widths("embed.layer"),
        pair,
        heads,
        blocks: count("block", ""),
        class_blocks: count("class_block", "block."),
        hidden: columns("block.0.hidden.bias")?,
        classes: columns("head.bias")?,
        ..ParticleTransformerConfig::default()
    })
}
