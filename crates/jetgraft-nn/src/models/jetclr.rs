//! JetCLR: a transformer encoder that learns jets by contrast, without labels.
//!
//! A linear map embeds each constituent; post-norm transformer layers let the constituents of a jet see each other; the
//! sum over the jet is its representation; a projection head follows, on which [NT-Xent](crate::ops::contrastive)
//! acts. Two masks say how constituents count. *Hard*: what exists counts, alike. *Continuous*: the logit of key `k`
//! gets `0.5 ln(pt_k / 600 GeV)`, and each row of the sum is weighted by `pt / 600 GeV`, so that soft constituents fade
//! out (infrared, not collinear safety: the transverse momentum is a feature too).
//!
//! Source: B. M. Dillon, G. Kasieczka, H. Olischlager, T. Plehn, P. Sorrenson, L. Vogel, "Symmetries, safety, and
//! self-supervision", arXiv:2108.04253; the same network at scale: Z. Zhao et al., arXiv:2408.09343. Original code:
//! github.com/bmdillon/JetCLR (MIT).
//! Known differences: jets are ragged, so padded slots neither enter attention nor the sum (a hard mask decides by a
//! feature being exactly 0 there, by the pseudorapidity in one input order); transverse momenta come from the
//! kinematics of the batch, never from a feature; a momentum below 1e-9 GeV counts as that, so that a jet of nothing
//! else stays finite; layers start independently unless asked to be identical, as the deep copies there are; the last
//! stage is a linear classifier on the last projection, which the work trains apart.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::contract::{Backbone, Mode, Needs, RaggedGraph, Rows, Stage};
use crate::error::NnError;
use crate::import::ForeignTensor;
use crate::import::keys::{Imported, KeyMap};
use crate::init::named_seed;
use crate::layers::{Dense, LayerNorm};
use crate::ops::attention::{self, attention};
use crate::ops::dense::{dense, dense_add_norm, feed_forward_add_norm};
use crate::ops::dropout::Dropout;
use crate::ops::jet_sum::jet_sum;
use crate::state::{NamedTensor, Role, State};

/// Registry name.
pub const KIND: &str = "jetclr";

/// Transverse momentum (GeV) in units of which the continuous mask measures.
pub const PT_SCALE: f64 = 600.0;

/// Transverse momentum (GeV) below which the continuous mask sees no difference: its logarithm stays finite.
pub const PT_MIN: f64 = 1e-9;

/// How constituents count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mask {
    /// No mask. Packed jets have no padding to mask, so this is the same function as `hard`; it is told apart because
    /// the works do so.
    None,
    /// Real constituents count, alike.
    Hard,
    /// By transverse momentum; needs kinematics.
    #[default]
    Continuous,
}

/// Sizes of the encoder. The defaults are the published ones: 26,046,000 parameters without the head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JetClrConfig {
    /// Features per constituent, F: 3 (default; pt / 600 GeV, rapidity, azimuth) or 6 or 7 in the work at scale.
    pub input_features: usize,
    /// Width of the rows in the layers, D; default 1000.
    pub width: usize,
    /// Heads of attention, a divisor of the width; default 4.
    pub heads: usize,
    /// Width of the hidden rows of the feed-forward networks; default 1000.
    pub feed_forward: usize,
    /// Number of layers; default 4.
    pub layers: usize,
    /// Widths of the projection head; default 1000, 1000.
    pub projection: Vec<usize>,
    /// How constituents count; default continuous.
    pub mask: Mask,
    /// Probability of dropout (attention weights, after attention, in and after the feed-forward network), in
    /// `[0, 1)`; default 0.1.
    pub dropout: f64,
    /// Whether all layers start as copies of the first, as in the works; default false.
    pub identical_layers: bool,
    /// Number of classes of the linear classifier, C; default 2.
    pub classes: usize,
}

impl Default for JetClrConfig {
    fn default() -> Self {
        Self::jetclr()
    }
}

impl JetClrConfig {
    /// The published encoder: width 1000, 4 layers of 4 heads, 3 features.
    pub fn jetclr() -> Self {
        Self {
            input_features: 3,
            width: 1000,
            heads: 4,
            feed_forward: 1000,
            layers: 4,
            projection: vec![1000, 1000],
            mask: Mask::Continuous,
            dropout: 0.1,
            identical_layers: false,
            classes: 2,
        }
    }

    /// The encoder of the work at scale: 1024 wide, 6 features, hard mask. 27,313,152 parameters without the head.
    pub fn at_scale() -> Self {
        Self {
            input_features: 6,
            width: 1024,
            feed_forward: 1024,
            projection: vec![1024, 1024],
            mask: Mask::Hard,
            ..Self::jetclr()
        }
    }

    /// The same sizes for other inputs and classes.
    #[must_use]
    pub fn with_ends(self, input_features: usize, classes: usize) -> Self {
        Self { input_features, classes, ..self }
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
            ("width", self.width),
            ("feed_forward", self.feed_forward),
            ("classes", self.classes),
        ] {
            if value == 0 || value > 1 << 16 {
                return fault(field, value.to_string(), "1 to 65536");
            }
        }
        if self.heads == 0 || !self.width.is_multiple_of(self.heads) {
            return fault("heads", self.heads.to_string(), &format!("a divisor of the width {}", self.width));
        }
        if self.layers == 0 || self.layers > 256 {
            return fault("layers", self.layers.to_string(), "1 to 256");
        }
        if self.projection.len() > 32 {
            return fault("projection", format!("{} layers", self.projection.len()), "at most 32 layers");
        }
        if let Some(width) = self.projection.iter().find(|&&width| width == 0 || width > 1 << 16) {
            return fault("projection", width.to_string(), "widths of 1 to 65536");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fault("dropout", self.dropout.to_string(), "a probability in [0, 1)");
        }
        Ok(())
    }

    /// Width of what the head sees.
    fn last(&self) -> usize {
        self.projection.last().copied().unwrap_or(self.width)
    }
}

/// Multi-head attention within a jet.
#[derive(Module, Debug)]
pub struct Attention {
    /// Queries, keys and values in one map, `[D, 3 D]`.
    joined: Dense,
    /// `[D, D]`.
    output: Dense,
}

/// One post-norm layer: attention and feed-forward network, each with a residual and a layer norm behind it.
#[derive(Module, Debug)]
pub struct Layer {
    attention: Attention,
    norm_1: LayerNorm,
    hidden: Dense,
    output: Dense,
    norm_2: LayerNorm,
}

impl Layer {
    /// PyTorch's start of an encoder layer, drawn as that of layer `source`.
    fn new(number: usize, source: usize, config: &JetClrConfig, seed: u64, device: &Device) -> Self {
        let (d, h) = (config.width, config.feed_forward);
        let dense = |part: &str, sizes: [usize; 2], weight_bound: f32, bias_bound: f32| {
            let (name, source) = (format!("layer.{number}.{part}"), format!("layer.{source}.{part}"));
            Dense::drawn(&name, &source, sizes, weight_bound, Some(bias_bound), seed, device)
        };
        let usual = |inputs: usize| 1.0 / (inputs as f32).sqrt();
        let norm = |part: &str| LayerNorm::new(&format!("layer.{number}.{part}"), d, device);
        Self {
            attention: Attention {
                // Xavier's bound for one matrix of 3 D rows and D columns; attention starts without biases.
                joined: dense("attention.joined", [d, 3 * d], (6.0 / (4 * d) as f32).sqrt(), 0.0),
                output: dense("attention.output", [d, d], usual(d), 0.0),
            },
            norm_1: norm("norm_1"),
            hidden: dense("hidden", [d, h], usual(d), usual(d)),
            output: dense("output", [h, d], usual(h), usual(h)),
            norm_2: norm("norm_2"),
        }
    }

    fn forward(
        &self,
        x: Tensor<2>,
        graph: &RaggedGraph,
        heads: usize,
        keys: Option<Tensor<1>>,
        dropout: impl Fn(&str) -> Option<(f64, u64)>,
    ) -> Tensor<2> {
        let mask = |part| dropout(part).map(|(rate, seed)| Dropout::new(rate, seed));
        let options = attention::Options { heads, pairs: None, keys, dropout: dropout("weights") };
        let joined = dense(x.clone(), self.attention.joined.linear(), false, None);
        let seen = attention(joined, graph, options);
        let map = self.attention.output.linear();
        let x = dense_add_norm(seen, map, mask("attention"), x, self.norm_1.norm());
        feed_forward_add_norm(
            x,
            self.hidden.linear(),
            mask("hidden"),
            self.output.linear(),
            mask("output"),
            self.norm_2.norm(),
        )
    }
}

/// The network. Stages: `embed`, `layer.0` and on (the last one ends with the sum over the jet), `projection.0` and on,
/// `head`. The cuts behind the last layer and behind each projection are the levels at which the work probes.
#[derive(Module, Debug)]
pub struct JetClr {
    embed: Dense,
    layer: Vec<Layer>,
    projection: Vec<Dense>,
    head: Dense,
    #[module(skip)]
    config: JetClrConfig,
}

impl JetClr {
    /// A network with PyTorch's start, drawn from `seed` and the parameters' names, on `device`.
    ///
    /// # Errors
    /// [`NnError::Config`].
    pub fn new(config: &JetClrConfig, seed: u64, device: &Device) -> Result<Self, NnError> {
        config.check()?;
        let layer = |number: usize| {
            let source = if config.identical_layers { 0 } else { number };
            Layer::new(number, source, config, seed, device)
        };
        let mut inputs = config.width;
        let mut projection = Vec::with_capacity(config.projection.len());
        for (number, &width) in config.projection.iter().enumerate() {
            projection.push(Dense::new(&format!("projection.{number}"), inputs, width, true, seed, device));
            inputs = width;
        }
        Ok(Self {
            embed: Dense::new("embed", config.input_features, config.width, true, seed, device),
            layer: (0..config.layers).map(layer).collect(),
            projection,
            head: Dense::new("head", inputs, config.classes, true, seed, device),
            config: config.clone(),
        })
    }

    /// The sizes it was built with (the classes are those of the present head).
    pub fn config(&self) -> &JetClrConfig {
        &self.config
    }

    /// `pt / 600 GeV` of each constituent, where the mask asks for it.
    fn weights(&self, graph: &RaggedGraph) -> Option<Tensor<1>> {
        (self.config.mask == Mask::Continuous).then(|| {
            let kinematics = graph.kinematics().clone().without_autodiff();
            let pt = kinematics.slice([0..graph.nodes, 0..1]).reshape([graph.nodes]);
            pt.clamp_min(PT_MIN) / PT_SCALE
        })
    }
}

impl Backbone for JetClr {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn stages(&self) -> Vec<Stage> {
        let layers = (0..self.config.layers).map(|layer| format!("layer.{layer}"));
        let projections = (0..self.config.projection.len()).map(|layer| format!("projection.{layer}"));
        std::iter::once("embed".to_owned())
            .chain(layers)
            .chain(projections)
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
        Needs { kinematics: self.config.mask == Mask::Continuous, ..Needs::default() }
    }

    fn rows_at(&self, cut: usize) -> Rows {
        if cut <= self.config.layers { Rows::Nodes } else { Rows::Jets }
    }

    fn width_at(&self, cut: usize) -> usize {
        let layers = self.config.layers;
        match cut {
            0 => self.config.input_features,
            _ if cut <= layers + 1 => self.config.width,
            _ => self.config.projection.get(cut - layers - 2).copied().unwrap_or(self.config.classes),
        }
    }

    fn forward_stages(
        &self,
        stages: Range<usize>,
        activation: Tensor<2>,
        graph: &RaggedGraph,
        mode: &Mode,
    ) -> Tensor<2> {
        let (layers, projections) = (self.layer.len(), self.projection.len());
        let count = layers + projections + 2;
        assert!(stages.end <= count, "stages {stages:?} of a network of {count}");
        assert_eq!(mode.norms.len(), count, "one norm mode per stage");
        assert_eq!(activation.dims()[1], self.width_at(stages.start), "width of the activation at its cut");
        let with_layers = stages.start <= layers && stages.end > 1;
        let weights = if with_layers { self.weights(graph) } else { None };
        let keys = weights.clone().map(|weights| weights.log() * 0.5);
        let rate = self.config.dropout;
        let seed = mode.dropout_seed.filter(|_| rate > 0.0);
        let mut x = activation;
        for stage in stages {
            x = if stage == 0 {
                dense(x, self.embed.linear(), false, None)
            } else if stage <= layers {
                let dropout = |part: &str| {
                    seed.map(|seed| (rate, named_seed(seed, &format!("layer.{}.{part}", stage - 1))))
                };
                let x = self.layer[stage - 1].forward(x, graph, self.config.heads, keys.clone(), dropout);
                if stage == layers { jet_sum(x, weights.clone(), graph) } else { x }
            } else if stage <= layers + projections {
                dense(relu(x), self.projection[stage - layers - 1].linear(), false, None)
            } else {
                dense(x, self.head.linear(), false, None)
            };
        }
        x
    }

    fn replace_head(self, classes: usize, seed: u64) -> Self {
        let device = self.head.weight.device();
        let head = Dense::new("head", self.config.last(), classes, true, seed, &device);
        Self { head, config: JetClrConfig { classes, ..self.config }, ..self }
    }
}

/// Our names and the authors', whose packed map of attention is called like a module of its own here.
const KEYS: KeyMap = KeyMap {
    network: "JetCLR",
    modules: &[
        ("embed", "embedding"),
        ("layer.{}.attention.joined", "transformer.layers.{}.self_attn.in_proj"),
        ("layer.{}.attention.output", "transformer.layers.{}.self_attn.out_proj"),
        ("layer.{}.norm_1", "transformer.layers.{}.norm1"),
        ("layer.{}.hidden", "transformer.layers.{}.linear1"),
        ("layer.{}.output", "transformer.layers.{}.linear2"),
        ("layer.{}.norm_2", "transformer.layers.{}.norm2"),
        ("projection.{}", "head_layers.{}"),
        ("head", "classifier"),
    ],
    example: "`embedding.weight`, `transformer.layers.0.self_attn.in_proj_weight`, `head_layers.0.bias`",
};

/// The packed map of attention in PyTorch's names, and in the form that [`KEYS`] has.
const PACKED: [(&str, &str); 2] = [("in_proj_weight", "in_proj.weight"), ("in_proj_bias", "in_proj.bias")];

/// Reads the tensors of the authors' weight files: names and layouts become ours, sizes come from the shapes.
///
/// No tensor shows the number of heads (taken to be the published 4), the mask (continuous) or dropout. Their files
/// hold no classifier; where none comes under `classifier`, the head is all zero, for two classes: its scores say
/// nothing until it is replaced or trained.
///
/// # Errors
/// [`NnError::Weights`] for an entry that no such network has, [`NnError::Names`] or [`NnError::Shape`] when the
/// tensors do not make one whole network.
pub fn from_foreign(tensors: &BTreeMap<String, ForeignTensor>) -> Result<Imported<JetClrConfig>, NnError> {
    let named = tensors.iter().map(|(name, tensor)| {
        let packed =
            PACKED.iter().find_map(|(theirs, like)| Some(name.strip_suffix(theirs)?.to_owned() + like));
        (packed.unwrap_or_else(|| name.clone()), tensor.clone())
    });
    let (mut state, ignored) = KEYS.to_state(&named.collect())?;
    if !state.contains_key("head.weight") && !state.contains_key("head.bias") {
        let classes = JetClrConfig::default().classes;
        let inputs = JetClrConfig { classes, ..sizes(&state, classes)? }.last();
        for (name, shape) in [("head.weight", vec![inputs, classes]), ("head.bias", vec![classes])] {
            let values = vec![0.0; shape.iter().product()];
            state.insert(name.to_owned(), NamedTensor { shape, values, role: Role::Parameter });
        }
    }
    let classes = matrix(&state, "head.weight")?.1;
    let config = sizes(&state, classes)?;
    // A network of these sizes knows every name and shape that must be there.
    crate::state::load_state(JetClr::new(&config, 0, &Device::flex())?, &state)?;
    Ok(Imported { config, state, ignored })
}

/// The authors' names and layout of an encoder's state; the head, which they keep apart, as `classifier`.
///
/// # Errors
/// [`NnError::Weights`] for a name that is not of this network.
pub fn to_foreign(_: &JetClrConfig, state: &State) -> Result<BTreeMap<String, ForeignTensor>, NnError> {
    let tensors = KEYS.to_foreign(state)?.into_iter().map(|(name, tensor)| {
        let packed =
            PACKED.iter().find_map(|(theirs, like)| Some(name.strip_suffix(like)?.to_owned() + theirs));
        (packed.unwrap_or(name), tensor)
    });
    Ok(tensors.collect())
}

/// Inputs and outputs of a map in a state.
fn matrix(state: &State, name: &str) -> Result<(usize, usize), NnError> {
    match state.get(name).map(|tensor| &tensor.shape[..]) {
        None => Err(NnError::Names { missing: vec![name.to_owned()], unexpected: Vec::new() }),
        Some(&[inputs, outputs]) => Ok((inputs, outputs)),
        Some(other) => {
            Err(NnError::Shape { name: name.to_owned(), found: other.to_vec(), expected: vec![1, 1] })
        }
    }
}

/// Sizes of the network that a state belongs to.
fn sizes(state: &State, classes: usize) -> Result<JetClrConfig, NnError> {
    let (input_features, width) = matrix(state, "embed.weight")?;
    let mut layers = 0;
    while state.contains_key(&format!("layer.{layers}.hidden.weight")) {
        layers += 1;
    }
    let mut projection = Vec::new();
    while state.contains_key(&format!("projection.{}.weight", projection.len())) {
        projection.push(matrix(state, &format!("projection.{}.weight", projection.len()))?.1);
    }
    Ok(JetClrConfig {
        input_features,
        width,
        feed_forward: matrix(state, "layer.0.hidden.weight")?.1,
        layers,
        projection,
        classes,
        ..JetClrConfig::default()
    })
}
