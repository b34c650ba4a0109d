//! Event GNN: mean messages among the reconstructed objects of a collision event.
//!
//! Nodes are the objects of an event (lepton, missing momentum, jets), all joined with each other and themselves. Six
//! layers: each node takes the mean over all nodes through a linear map, plus its own row (through another one where the
//! width changes), then a norm over the batch and a ReLU. Mean over nodes, one linear map to the classes.
//!
//! Source: T. Kishimoto, M. Morinaga, M. Saito, J. Tanaka, "Application of transfer learning to event classification in
//! collider physics", PoS(ISGC2022)016. Original code: github.com/ktomoe/heptrans. Known differences: none in the function
//! computed; the mean is taken before the linear map, which is the same sum in another order. The original carries attention
//! vectors that it never uses: they are read over. Hidden layers and dropout of the head, which the work does not have, can
//! be asked for.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::event_parts::{EventHead, EventLayer, EventSizes, is_attention, without_copies};
use crate::contract::{Backbone, Mode, RaggedGraph, Rows, Stage};
use crate::error::NnError;
use crate::import::ForeignTensor;
use crate::import::keys::{Imported, KeyMap};
use crate::ops::complete::{Pending, finish, mean};
use crate::state::State;

/// Registry name.
pub const KIND: &str = "event-gnn";

/// Sizes of an event GNN. The defaults are those of the work: 333,312 + 514 parameters (layers, head).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventGnnConfig {
    /// Features per object, F; default 5 (log10 pt, pseudorapidity, azimuth, log10 mass, type); 9 with the type spread
    /// over four columns and the azimuth over two.
    pub input_features: usize,
    /// Number of layers; default 6.
    pub layers: usize,
    /// Width of every layer and of the representation of an event; default 256.
    pub width: usize,
    /// Widths of hidden layers of the head; default none.
    pub head_hidden: Vec<usize>,
    /// Probability that dropout sets a value that a linear map of the head reads to 0, in `[0, 1)`; default 0.
    pub dropout: f64,
    /// Number of classes, C; default 2.
    pub classes: usize,
}

impl Default for EventGnnConfig {
    fn default() -> Self {
        Self { input_features: 5, layers: 6, width: 256, head_hidden: Vec::new(), dropout: 0.0, classes: 2 }
    }
}

impl EventGnnConfig {
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
        self.sizes().check(KIND, self.dropout)
    }

    fn sizes(&self) -> EventSizes {
        EventSizes {
            input_features: self.input_features,
            layers: self.layers,
            width: self.width,
            head_hidden: self.head_hidden.clone(),
            classes: self.classes,
        }
    }
}

/// The network. Stages: `layer.0` and on, the last of which ends with the mean over nodes; `head`.
#[derive(Module, Debug)]
pub struct EventGnn {
    layer: Vec<EventLayer>,
    head: EventHead,
    #[module(skip)]
    config: EventGnnConfig,
}

impl EventGnn {
    /// A network with the work's start (Glorot's normal one for layers, PyTorch's default for the head), drawn from `seed`
    /// and the parameters' names, on `device`.
    ///
    /// # Errors
    /// [`NnError::Config`].
    pub fn new(config: &EventGnnConfig, seed: u64, device: &Device) -> Result<Self, NnError> {
        config.check()?;
        let layer = (0..config.layers)
            .map(|at| {
                let inputs = if at == 0 { config.input_features } else { config.width };
                EventLayer::new(&format!("layer.{at}"), inputs, config.width, None, seed, device)
            })
            .collect();
        Ok(Self {
            layer,
            head: EventHead::new(config.width, &config.head_hidden, config.classes, seed, device),
            config: config.clone(),
        })
    }

    /// The sizes it was built with (the classes are those of the present head).
    pub fn config(&self) -> &EventGnnConfig {
        &self.config
    }
}

impl Backbone for EventGnn {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn stages(&self) -> Vec<Stage> {
        let layers = (0..self.config.layers).map(|at| format!("layer.{at}"));
        layers.chain(["head".to_owned()]).map(|name| Stage { prefix: name.clone(), name }).collect()
    }

    fn classes(&self) -> usize {
        self.config.classes
    }

    fn input_features(&self) -> usize {
        self.config.input_features
    }

    fn rows_at(&self, cut: usize) -> Rows {
        if cut < self.config.layers { Rows::Nodes } else { Rows::Jets }
    }

    fn width_at(&self, cut: usize) -> usize {
        match cut {
            0 => self.config.input_features,
            _ if cut <= self.config.layers => self.config.width,
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
        let layers = self.config.layers;
        assert!(stages.end <= layers + 1, "stages {stages:?} of a network of {}", layers + 1);
        assert_eq!(mode.norms.len(), layers + 1, "one norm mode per stage");
        assert_eq!(activation.dims()[1], self.width_at(stages.start), "width of the activation at its cut");
        if stages.is_empty() {
            return activation;
        }
        let mut activation = activation;
        if stages.start < layers {
            let last = stages.end.min(layers);
            let mut pending = Pending::ready(activation);
            for stage in stages.start..last {
                pending = self.layer[stage].forward(pending, graph, mode.norms[stage]);
            }
            activation = if last == layers { mean(pending, graph) } else { finish(pending) };
        }
        if stages.end > layers {
            activation = self.head.forward(activation, self.config.dropout, mode.dropout_seed);
        }
        activation
    }

    fn replace_head(self, classes: usize, seed: u64) -> Self {
        let device = self.head.device();
        let config = EventGnnConfig { classes, ..self.config };
        let head = EventHead::new(config.width, &config.head_hidden, classes, seed, &device);
        Self { head, config, ..self }
    }
}

/// Our names and those of the work's layers in DGL.
const KEYS: KeyMap = KeyMap {
    network: "event GNN",
    modules: &[
        ("layer.{}.linear", "convs.{}.fc_src"),
        ("layer.{}.residual", "convs.{}.res_fc"),
        ("layer.{}.norm", "bns.{}"),
        ("head.hidden.{}", "fc_hidden.{}"),
        ("head.output", "fc"),
    ],
    example: "`convs.0.fc_src.weight`, `bns.0.weight`, `fc.bias`",
};

/// Reads the tensors of a state dictionary: names and layouts become ours, sizes come from the shapes.
///
/// DGL's layer with one weight for both ends stores it twice; the copy (`fc_dst`) is read over where it is the same, and so
/// are the attention vectors that the original GNN carries without using them.
///
/// # Errors
/// [`NnError::Weights`] for an entry that no event GNN has, or two different weights for the ends of an edge;
/// [`NnError::Names`] or [`NnError::Shape`] when the tensors do not make one whole network.
pub fn from_foreign(tensors: &BTreeMap<String, ForeignTensor>) -> Result<Imported<EventGnnConfig>, NnError> {
    let (mut used, mut ignored) = without_copies(tensors, KEYS.network)?;
    used.retain(|name, _| {
        let idle = is_attention(name);
        if idle {
            ignored.push(name.clone());
        }
        !idle
    });
    let (state, counters) = KEYS.to_state(&used)?;
    ignored.extend(counters);
    let config = sizes(&state)?;
    // A network of these sizes knows every name and shape that must be there.
    let network = EventGnn::new(&config, 0, &Device::flex())?;
    crate::state::load_state(network, &state)?;
    Ok(Imported { config, state, ignored })
}

/// The names and layout of the work's layers in DGL, counters included (as 0); the weight that both ends share once.
///
/// # Errors
/// [`NnError::Weights`] for a name that is not an event GNN's.
pub fn to_foreign(_: &EventGnnConfig, state: &State) -> Result<BTreeMap<String, ForeignTensor>, NnError> {
    KEYS.to_foreign(state)
}

/// Sizes of the network that a state belongs to.
///
/// # Errors
/// [`NnError::Names`] or [`NnError::Shape`] if a tensor that shows a size is missing or not a matrix.
pub fn sizes(state: &State) -> Result<EventGnnConfig, NnError> {
    let EventSizes { input_features, layers, width, head_hidden, classes } = EventSizes::of(state)?;
    Ok(EventGnnConfig { input_features, layers, width, head_hidden, classes, ..EventGnnConfig::default() })
}
