//! A small network on high-level variables of a jet: mass, N-subjettiness ratios, multiplicity, energy correlations.
//!
//! The baseline that says what a network on particles gains over what physicists compute by hand. Each jet is one node
//! whose features are its variables; a batch normalisation without choice of units stands in for standardisation, and
//! ReLU layers follow. Where a jet has several nodes (subjets, say) their normalised variables are averaged first, so
//! that the network is defined on any batch and does not see an order.
//!
//! Source: none; this is the textbook network. Known differences: none.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::contract::{Backbone, Mode, RaggedGraph, Rows, Stage};
use crate::error::NnError;
use crate::import::ForeignTensor;
use crate::import::keys::{Imported, KeyMap};
use crate::layers::{BatchNorm, Dense};
use crate::ops::dense::dense;
use crate::ops::dropout::Dropout;
use crate::ops::plain::jet_mean;
use crate::state::State;

/// Registry name.
pub const KIND: &str = "mlp";

/// Sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MlpConfig {
    /// Variables per jet, F; default 5 (mass, tau21, tau32, multiplicity, D2).
    pub input_features: usize,
    /// Widths of the hidden layers; default 64, 64.
    pub hidden: Vec<usize>,
    /// Probability that dropout sets a unit of the last hidden layer to 0, in `[0, 1)`; default 0.
    pub dropout: f64,
    /// Number of classes, C; default 2.
    pub classes: usize,
}

impl Default for MlpConfig {
    fn default() -> Self {
        Self { input_features: 5, hidden: vec![64, 64], dropout: 0.0, classes: 2 }
    }
}

impl MlpConfig {
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
        for (field, value) in [("input_features", self.input_features), ("classes", self.classes)] {
            if value == 0 || value > 1 << 16 {
                return fault(field, value.to_string(), "1 to 65536");
            }
        }
        if self.hidden.is_empty() || self.hidden.len() > 32 {
            return fault("hidden", format!("{} layers", self.hidden.len()), "1 to 32 layers");
        }
        if let Some(width) = self.hidden.iter().find(|&&width| width == 0 || width > 1 << 16) {
            return fault("hidden", width.to_string(), "widths of 1 to 65536");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fault("dropout", self.dropout.to_string(), "a probability in [0, 1)");
        }
        Ok(())
    }
}

/// The network. Stages: `input` (norm, and the mean over the nodes of a jet), `layer.0` and on, `head`.
#[derive(Module, Debug)]
pub struct Mlp {
    input: BatchNorm,
    layer: Vec<Dense>,
    head: Dense,
    #[module(skip)]
    config: MlpConfig,
}

impl Mlp {
    /// A network with PyTorch's default start, drawn from `seed` and the parameters' names, on `device`.
    ///
    /// # Errors
    /// [`NnError::Config`].
    pub fn new(config: &MlpConfig, seed: u64, device: &Device) -> Result<Self, NnError> {
        config.check()?;
        let mut inputs = config.input_features;
        let mut layer = Vec::with_capacity(config.hidden.len());
        for (number, &width) in config.hidden.iter().enumerate() {
            layer.push(Dense::new(&format!("layer.{number}"), inputs, width, true, seed, device));
            inputs = width;
        }
        Ok(Self {
            input: BatchNorm::new("input", config.input_features, device),
            layer,
            head: Dense::new("head", inputs, config.classes, true, seed, device),
            config: config.clone(),
        })
    }

    /// The sizes it was built with (the classes are those of the present head).
    pub fn config(&self) -> &MlpConfig {
        &self.config
    }
}

impl Backbone for Mlp {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn stages(&self) -> Vec<Stage> {
        let layers = (0..self.layer.len()).map(|layer| format!("layer.{layer}"));
        std::iter::once("input".to_owned())
            .chain(layers)
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

    fn rows_at(&self, cut: usize) -> Rows {
        if cut == 0 { Rows::Nodes } else { Rows::Jets }
    }

    fn width_at(&self, cut: usize) -> usize {
        match cut {
            0 | 1 => self.config.input_features,
            _ => self.config.hidden.get(cut - 2).copied().unwrap_or(self.config.classes),
        }
    }

    fn forward_stages(
        &self,
        stages: Range<usize>,
        activation: Tensor<2>,
        graph: &RaggedGraph,
        mode: &Mode,
    ) -> Tensor<2> {
        let layers = self.layer.len();
        assert!(stages.end <= layers + 2, "stages {stages:?} of a network of {}", layers + 2);
        assert_eq!(mode.norms.len(), layers + 2, "one norm mode per stage");
        assert_eq!(activation.dims()[1], self.width_at(stages.start), "width of the activation at its cut");
        let mut x = activation;
        for stage in stages {
            x = match stage {
                0 => {
                    let x = self.input.forward(x, mode.norms[0]);
                    if graph.nodes == graph.jets { x } else { jet_mean(x, graph) }
                }
                _ if stage <= layers => dense(x, self.layer[stage - 1].linear(), true, None),
                _ => {
                    if let Some(seed) = mode.dropout_seed.filter(|_| self.config.dropout > 0.0) {
                        let [rows, columns] = x.dims();
                        let mask = Dropout::new(self.config.dropout, seed).matrix(rows, columns);
                        let mask = Tensor::from_data(TensorData::new(mask, [rows, columns]), &x.device());
                        x = x * mask;
                    }
                    dense(x, self.head.linear(), false, None)
                }
            };
        }
        x
    }

    fn replace_head(self, classes: usize, seed: u64) -> Self {
        let device = self.head.weight.device();
        let inputs = self.width_at(self.layer.len() + 1);
        let head = Dense::new("head", inputs, classes, true, seed, &device);
        Self { head, config: MlpConfig { classes, ..self.config }, ..self }
    }
}

/// Our names and those of the same network in PyTorch.
const KEYS: KeyMap = KeyMap {
    network: "a network on high-level variables",
    modules: &[("input", "norm"), ("layer.{}", "layers.{}"), ("head", "output")],
    example: "`norm.weight`, `layers.0.weight`, `output.bias`",
};

/// Reads the tensors of the same network in PyTorch: `norm`, `layers.{i}`, `output`. Names and layouts become ours,
/// sizes come from the shapes.
///
/// # Errors
/// [`NnError::Weights`] for another entry, [`NnError::Names`] or [`NnError::Shape`] when the tensors do not make one
/// whole network.
pub fn from_foreign(tensors: &BTreeMap<String, ForeignTensor>) -> Result<Imported<MlpConfig>, NnError> {
    let (state, ignored) = KEYS.to_state(tensors)?;
    let config = sizes(&state)?;
    // A network of these sizes knows every name and shape that must be there.
    crate::state::load_state(Mlp::new(&config, 0, &Device::flex())?, &state)?;
    Ok(Imported { config, state, ignored })
}

/// The names that [`from_foreign`] reads, and PyTorch's layout; counters included (as 0).
///
/// # Errors
/// [`NnError::Weights`] for a name that is not of this network.
pub fn to_foreign(_: &MlpConfig, state: &State) -> Result<BTreeMap<String, ForeignTensor>, NnError> {
    KEYS.to_foreign(state)
}

/// Sizes of the network that a state belongs to.
fn sizes(state: &State) -> Result<MlpConfig, NnError> {
    let columns = |name: &str| match state.get(name).map(|tensor| &tensor.shape[..]) {
        None => Err(NnError::Names { missing: vec![name.to_owned()], unexpected: Vec::new() }),
        Some(&[.., columns]) => Ok(columns),
        Some([]) => Err(NnError::Shape { name: name.to_owned(), found: Vec::new(), expected: vec![1] }),
    };
    let mut hidden = Vec::new();
    while state.contains_key(&format!("layer.{}.weight", hidden.len())) {
        hidden.push(columns(&format!("layer.{}.weight", hidden.len()))?);
    }
    Ok(MlpConfig {
        input_features: columns("input.weight")?,
        hidden,
        classes: columns("head.weight")?,
        ..MlpConfig::default()
    })
}
