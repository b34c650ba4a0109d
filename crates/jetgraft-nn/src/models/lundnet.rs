//! LundNet: a graph network on the tree of a jet's declusterings.
//!
//! Nodes are declusterings with their Lund coordinates, edges join parent and child in both directions and stay
//! fixed. Six EdgeConv blocks, their outputs side by side into one linear map, the mean over nodes, two linear
//! maps to the classes.
//!
//! Source: F. A. Dreyer, H. Qu, "Jet tagging in the Lund plane with graph networks", arXiv:2012.08526. Original
//! code: github.com/fdreyer/LundNet (MIT). Known differences: none in the function computed; the linear maps of a
//! message act on nodes before they are gathered, which is the same sum in another order.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::contract::{Backbone, Mode, Needs, NormMode, RaggedGraph, Rows, Stage};
use crate::error::NnError;
use crate::import::ForeignTensor;
use crate::import::keys::{Imported, KeyMap};
use crate::init::dropout_mask;
use crate::layers::{BatchNorm, Dense};
use crate::ops::edge_conv::{EdgeConvParameters, edge_conv};
use crate::ops::readout::readout;
use crate::state::State;

/// Registry name.
pub const KIND: &str = "lundnet";

/// Sizes of a LundNet. The defaults are those of the published taggers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LundNetConfig {
    /// Features per node, F: 5 for LundNet-5 (default), 3 for LundNet-3.
    pub input_features: usize,
    /// Output width of each EdgeConv block; default 32, 32, 64, 64, 128, 128.
    pub widths: Vec<usize>,
    /// Width of the representation of a jet; default 384.
    pub fusion: usize,
    /// Width of the hidden layer of the head; default 256.
    pub head_hidden: usize,
    /// Probability that dropout sets a hidden unit of the head to 0, in `[0, 1)`; default 0.1.
    pub dropout: f64,
    /// Number of classes, C; default 2.
    pub classes: usize,
}

impl Default for LundNetConfig {
    fn default() -> Self {
        Self::lundnet_5()
    }
}

impl LundNetConfig {
    /// LundNet-5: ln z, ln Delta, psi, ln m, ln kt. 391,724 parameters.
    pub fn lundnet_5() -> Self {
        Self {
            input_features: 5,
            widths: vec![32, 32, 64, 64, 128, 128],
            fusion: 384,
            head_hidden: 256,
            dropout: 0.1,
            classes: 2,
        }
    }

    /// LundNet-3: ln z, ln Delta, ln kt. 391,528 parameters.
    pub fn lundnet_3() -> Self {
        Self { input_features: 3, ..Self::lundnet_5() }
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
            ("fusion", self.fusion),
            ("head_hidden", self.head_hidden),
            ("classes", self.classes),
        ] {
            if value == 0 || value > 1 << 16 {
                return fault(field, value.to_string(), "1 to 65536");
            }
        }
        if self.widths.is_empty() || self.widths.len() > crate::ops::readout::MAX_PIECES {
            let expected = format!("1 to {} blocks", crate::ops::readout::MAX_PIECES);
            return fault("widths", format!("{} blocks", self.widths.len()), &expected);
        }
        if let Some(width) = self.widths.iter().find(|&&width| width == 0 || width > 1 << 16) {
            return fault("widths", width.to_string(), "widths of 1 to 65536");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fault("dropout", self.dropout.to_string(), "a probability in [0, 1)");
        }
        Ok(())
    }
}

/// One EdgeConv block; see [`crate::ops::edge_conv`].
#[derive(Module, Debug)]
pub struct EdgeConv {
    theta: Dense,
    phi: Dense,
    norm_1: BatchNorm,
    linear: Dense,
    norm_2: BatchNorm,
    shortcut: Option<Dense>,
    shortcut_norm: Option<BatchNorm>,
}

impl EdgeConv {
    fn new(name: &str, inputs: usize, outputs: usize, seed: u64, device: &Device) -> Self {
        let dense =
            |part: &str, inputs| Dense::new(&format!("{name}.{part}"), inputs, outputs, false, seed, device);
        let norm = |part: &str| BatchNorm::new(&format!("{name}.{part}"), outputs, device);
        let side = inputs != outputs;
        Self {
            theta: dense("theta", inputs),
            phi: dense("phi", inputs),
            norm_1: norm("norm_1"),
            linear: dense("linear", outputs),
            norm_2: norm("norm_2"),
            shortcut: side.then(|| dense("shortcut", inputs)),
            shortcut_norm: side.then(|| norm("shortcut_norm")),
        }
    }

    fn forward(&self, x: Tensor<2>, graph: &RaggedGraph, mode: NormMode) -> Tensor<2> {
        let shortcut = self.shortcut.as_ref().zip(self.shortcut_norm.as_ref());
        let output = edge_conv(
            x,
            graph,
            EdgeConvParameters {
                theta: self.theta.weight.val(),
                phi: self.phi.weight.val(),
                norm_1: self.norm_1.norm(mode),
                linear: self.linear.weight.val(),
                norm_2: self.norm_2.norm(mode),
                shortcut: shortcut.map(|(dense, norm)| (dense.weight.val(), norm.norm(mode))),
            },
        );
        self.norm_1.observe(output.moments_1);
        self.norm_2.observe(output.moments_2);
        if let Some((_, norm)) = shortcut {
            norm.observe(output.moments_shortcut);
        }
        output.nodes
    }
}

/// From all block outputs to one row per jet.
#[derive(Module, Debug)]
pub struct Fusion {
    linear: Dense,
    norm: BatchNorm,
}

impl Fusion {
    fn forward(&self, pieces: Vec<Tensor<2>>, graph: &RaggedGraph, mode: NormMode) -> Tensor<2> {
        let bias = match &self.linear.bias {
            Some(bias) => bias.val(),
            None => unreachable!("the fusion layer is built with a bias"),
        };
        let (jets, moments) = readout(pieces, self.linear.weight.val(), bias, self.norm.norm(mode), graph);
        self.norm.observe(moments);
        jets
    }
}

/// From the representation of a jet to its logits.
#[derive(Module, Debug)]
pub struct Head {
    hidden: Dense,
    output: Dense,
}

impl Head {
    fn new(inputs: usize, hidden: usize, classes: usize, seed: u64, device: &Device) -> Self {
        Self {
            hidden: Dense::new("head.hidden", inputs, hidden, true, seed, device),
            output: Dense::new("head.output", hidden, classes, true, seed, device),
        }
    }

    fn forward(&self, x: Tensor<2>, rate: f64, seed: Option<u64>) -> Tensor<2> {
        let mut hidden = relu(self.hidden.forward(x));
        if let Some(seed) = seed.filter(|_| rate > 0.0) {
            let [rows, columns] = hidden.dims();
            let mask = TensorData::new(dropout_mask(seed, rows, columns, rate), [rows, columns]);
            hidden = hidden.clone() * Tensor::from_data(mask, &hidden.device());
        }
        self.output.forward(hidden)
    }
}

/// The network. Stages: `input`, `edge_conv.0` and on, `fusion`, `head`.
#[derive(Module, Debug)]
pub struct LundNet {
    input: BatchNorm,
    edge_conv: Vec<EdgeConv>,
    fusion: Fusion,
    head: Head,
    #[module(skip)]
    config: LundNetConfig,
}

impl LundNet {
    /// A network with PyTorch's default start, drawn from `seed` and the parameters' names, on `device`.
    ///
    /// # Errors
    /// [`NnError::Config`].
    pub fn new(config: &LundNetConfig, seed: u64, device: &Device) -> Result<Self, NnError> {
        config.check()?;
        let mut inputs = config.input_features;
        let mut edge_conv = Vec::with_capacity(config.widths.len());
        for (block, &width) in config.widths.iter().enumerate() {
            edge_conv.push(EdgeConv::new(&format!("edge_conv.{block}"), inputs, width, seed, device));
            inputs = width;
        }
        let joined = config.widths.iter().sum();
        Ok(Self {
            input: BatchNorm::new("input", config.input_features, device),
            edge_conv,
            fusion: Fusion {
                linear: Dense::new("fusion.linear", joined, config.fusion, true, seed, device),
                norm: BatchNorm::new("fusion.norm", config.fusion, device),
            },
            head: Head::new(config.fusion, config.head_hidden, config.classes, seed, device),
            config: config.clone(),
        })
    }

    /// The sizes it was built with (the classes are those of the present head).
    pub fn config(&self) -> &LundNetConfig {
        &self.config
    }

    /// Columns `start..` of the joined block outputs that each of the first `blocks` blocks wrote.
    fn columns(&self, blocks: usize) -> Vec<Range<usize>> {
        let mut start = 0;
        self.config.widths[..blocks]
            .iter()
            .map(|&width| {
                start += width;
                start - width..start
            })
            .collect()
    }
}

impl Backbone for LundNet {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn stages(&self) -> Vec<Stage> {
        let blocks = (0..self.config.widths.len()).map(|block| format!("edge_conv.{block}"));
        std::iter::once("input".to_owned())
            .chain(blocks)
            .chain(["fusion".to_owned(), "head".to_owned()])
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
        Needs { edges: true, ..Needs::default() }
    }

    fn rows_at(&self, cut: usize) -> Rows {
        if cut <= self.config.widths.len() + 1 { Rows::Nodes } else { Rows::Jets }
    }

    fn width_at(&self, cut: usize) -> usize {
        let blocks = self.config.widths.len();
        match cut {
            0 | 1 => self.config.input_features,
            _ if cut <= blocks + 1 => self.config.widths[..cut - 1].iter().sum(),
            _ if cut == blocks + 2 => self.config.fusion,
            _ => self.config.classes,
        }
    }

    fn forward_stages(
        &self,
        stages: Range<usize>,
        activation: Tensor<2>,
        graph: &RaggedGraph,
        mode: &Mode,
    ) -> Tensor<2> {
        let blocks = self.config.widths.len();
        assert!(stages.end <= blocks + 3, "stages {stages:?} of a network of {}", blocks + 3);
        assert_eq!(mode.norms.len(), blocks + 3, "one norm mode per stage");
        assert_eq!(activation.dims()[1], self.width_at(stages.start), "width of the activation at its cut");
        if stages.is_empty() {
            return activation;
        }
        // Block outputs stay apart until someone needs them side by side.
        let mut pieces = match stages.start {
            2.. if stages.start <= blocks + 1 => self
                .columns(stages.start - 1)
                .into_iter()
                .map(|columns| activation.clone().slice([0..graph.nodes, columns]))
                .collect(),
            _ => Vec::new(),
        };
        let mut last = pieces.last().cloned().unwrap_or(activation);
        for stage in stages.clone() {
            let norm = mode.norms[stage];
            last = match stage {
                0 => self.input.forward(last, norm),
                _ if stage <= blocks => {
                    let output = self.edge_conv[stage - 1].forward(last, graph, norm);
                    pieces.push(output.clone());
                    output
                }
                _ if stage == blocks + 1 => self.fusion.forward(std::mem::take(&mut pieces), graph, norm),
                _ => self.head.forward(last, self.config.dropout, mode.dropout_seed),
            };
        }
        if pieces.len() > 1 { Tensor::cat(pieces, 1) } else { last }
    }

    fn replace_head(self, classes: usize, seed: u64) -> Self {
        let device = self.head.hidden.weight.device();
        let mut config = self.config;
        config.classes = classes;
        let head = Head::new(config.fusion, config.head_hidden, classes, seed, &device);
        Self { head, config, ..self }
    }
}

/// Our names and the authors'.
const KEYS: KeyMap = KeyMap {
    network: "LundNet",
    modules: &[
        ("input", "bn_fts"),
        ("edge_conv.{}.theta", "edge_convs.{}.theta"),
        ("edge_conv.{}.phi", "edge_convs.{}.phi"),
        ("edge_conv.{}.norm_1", "edge_convs.{}.bns.0"),
        ("edge_conv.{}.linear", "edge_convs.{}.fcs.0"),
        ("edge_conv.{}.norm_2", "edge_convs.{}.bns.1"),
        ("edge_conv.{}.shortcut", "edge_convs.{}.sc"),
        ("edge_conv.{}.shortcut_norm", "edge_convs.{}.sc_bn"),
        ("fusion.linear", "fusion_block.0"),
        ("fusion.norm", "fusion_block.2"),
        ("head.hidden", "fc.0.0"),
        ("head.output", "fc.1"),
    ],
    example: "`bn_fts.weight`, `edge_convs.0.theta.weight`, `fc.1.bias`",
};

/// Reads the tensors of the authors' weight files: names and layouts become ours, sizes come from the shapes.
///
/// # Errors
/// [`NnError::Weights`] for an entry that no LundNet has, [`NnError::Names`] or [`NnError::Shape`] when the
/// tensors do not make one whole network.
pub fn from_foreign(tensors: &BTreeMap<String, ForeignTensor>) -> Result<Imported<LundNetConfig>, NnError> {
    let (state, ignored) = KEYS.to_state(tensors)?;
    let config = sizes(&state)?;
    // A network of these sizes knows every name and shape that must be there.
    let network = LundNet::new(&config, 0, &Device::flex())?;
    crate::state::load_state(network, &state)?;
    Ok(Imported { config, state, ignored })
}

/// The authors' names and layout of a LundNet's state, counters included (as 0).
///
/// # Errors
/// [`NnError::Weights`] for a name that is not LundNet's.
pub fn to_foreign(_: &LundNetConfig, state: &State) -> Result<BTreeMap<String, ForeignTensor>, NnError> {
    KEYS.to_foreign(state)
}

/// Sizes of the network that a state belongs to.
///
/// # Errors
/// [`NnError::Names`] or [`NnError::Shape`] if a tensor that shows a size is missing or not a matrix.
pub fn sizes(state: &State) -> Result<LundNetConfig, NnError> {
    let columns = |name: &str| match state.get(name) {
        None => Err(NnError::Names { missing: vec![name.to_owned()], unexpected: Vec::new() }),
        Some(tensor) => tensor.shape.last().copied().ok_or_else(|| NnError::Shape {
            name: name.to_owned(),
            found: Vec::new(),
            expected: vec![1],
        }),
    };
    let mut widths = Vec::new();
    while state.contains_key(&format!("edge_conv.{}.theta.weight", widths.len())) {
        widths.push(columns(&format!("edge_conv.{}.theta.weight", widths.len()))?);
    }
    Ok(LundNetConfig {
        input_features: columns("input.weight")?,
        widths,
        fusion: columns("fusion.linear.weight")?,
        head_hidden: columns("head.hidden.weight")?,
        classes: columns("head.output.weight")?,
        ..LundNetConfig::default()
    })
}
