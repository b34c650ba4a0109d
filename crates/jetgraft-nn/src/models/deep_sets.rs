//! Particle flow network and energy flow network: deep sets on the particles of a jet.
//!
//! A particle flow network maps each particle by the same network Phi, adds up over the particles of the jet, and maps
//! the sum by a network F to the classes: `F(sum_i Phi(p_i))`. An energy flow network is infrared and collinear safe by
//! construction: Phi sees directions only, and the sum is weighted by the share of transverse momentum,
//! `F(sum_i z_i Phi(direction_i))` with `z_i = pt_i / sum_j pt_j`.
//!
//! Source: P. T. Komiske, E. M. Metodiev, J. Thaler, "Energy flow networks: deep sets for particle jets",
//! arXiv:1810.05165. Original code: energyflow.network (MIT). Known differences: initial values are PyTorch's (there
//! He-uniform, as Keras has it); the last layer gives logits, whose softmax is the loss's matter.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::contract::{Backbone, Mode, Needs, RaggedGraph, Rows, Stage};
use crate::error::NnError;
use crate::import::ForeignTensor;
use crate::import::keys::{Imported, KeyMap};
use crate::init::named_seed;
use crate::layers::Dense;
use crate::ops::dense::dense;
use crate::ops::dropout::Dropout;
use crate::ops::jet_sum::jet_sum;
use crate::state::State;

/// Registry name.
pub const KIND: &str = "deep-sets";

/// What is added up over the particles of a jet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flow {
    /// `Phi(p_i)` of all features: particle flow network.
    #[default]
    Particle,
    /// `z_i Phi(direction_i)`: energy flow network. The features must be directions (rapidity and azimuth relative
    /// to the jet, or functions of them); `z_i` comes from the kinematics of the batch.
    Energy,
}

/// Sizes of a deep set. The defaults are those of the published quark-gluon taggers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeepSetsConfig {
    /// Particle or energy flow; default particle.
    pub flow: Flow,
    /// Features per particle, F: default 7 (2 for directions alone).
    pub input_features: usize,
    /// Widths of the layers of Phi; default 100, 100, 128.
    pub phi: Vec<usize>,
    /// Widths of the hidden layers of F; default 100, 100, 100.
    pub f: Vec<usize>,
    /// Probability that dropout sets a hidden unit of F to 0, in `[0, 1)`; default 0, as published.
    pub dropout: f64,
    /// Number of classes, C; default 2.
    pub classes: usize,
}

impl Default for DeepSetsConfig {
    fn default() -> Self {
        Self::particle_flow()
    }
}

impl DeepSetsConfig {
    /// Particle flow network on 7 features. 57,130 parameters.
    pub fn particle_flow() -> Self {
        Self {
            flow: Flow::Particle,
            input_features: 7,
            phi: vec![100, 100, 128],
            f: vec![100, 100, 100],
            dropout: 0.0,
            classes: 2,
        }
    }

    /// Energy flow network on two directions. 56,630 parameters.
    pub fn energy_flow() -> Self {
        Self { flow: Flow::Energy, input_features: 2, ..Self::particle_flow() }
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
        for (field, value) in [("input_features", self.input_features), ("classes", self.classes)] {
            if value == 0 || value > 1 << 16 {
                return fault(field, value.to_string(), "1 to 65536");
            }
        }
        for (field, widths) in [("phi", &self.phi), ("f", &self.f)] {
            if widths.is_empty() || widths.len() > 32 {
                return fault(field, format!("{} layers", widths.len()), "1 to 32 layers");
            }
            if let Some(width) = widths.iter().find(|&&width| width == 0 || width > 1 << 16) {
                return fault(field, width.to_string(), "widths of 1 to 65536");
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fault("dropout", self.dropout.to_string(), "a probability in [0, 1)");
        }
        Ok(())
    }
}

/// The network. Stages: `phi.0` and on (the last one adds up over the jet), `f.0` and on, `head`.
#[derive(Module, Debug)]
pub struct DeepSets {
    phi: Vec<Dense>,
    f: Vec<Dense>,
    head: Dense,
    #[module(skip)]
    config: DeepSetsConfig,
}

impl DeepSets {
    /// A network with PyTorch's default start, drawn from `seed` and the parameters' names, on `device`.
    ///
    /// # Errors
    /// [`NnError::Config`].
    pub fn new(config: &DeepSetsConfig, seed: u64, device: &Device) -> Result<Self, NnError> {
        config.check()?;
        let mut inputs = config.input_features;
        let mut layers = |part: &str, widths: &[usize]| -> Vec<Dense> {
            let layer = |(layer, &width)| {
                let dense = Dense::new(&format!("{part}.{layer}"), inputs, width, true, seed, device);
                inputs = width;
                dense
            };
            widths.iter().enumerate().map(layer).collect()
        };
        let (phi, f) = (layers("phi", &config.phi), layers("f", &config.f));
        let head = Dense::new("head", inputs, config.classes, true, seed, device);
        Ok(Self { phi, f, head, config: config.clone() })
    }

    /// The sizes it was built with (the classes are those of the present head).
    pub fn config(&self) -> &DeepSetsConfig {
        &self.config
    }

    fn pooled(&self, x: Tensor<2>, graph: &RaggedGraph) -> Tensor<2> {
        let weights = match self.config.flow {
            Flow::Particle => None,
            Flow::Energy => Some(shares(graph)),
        };
        jet_sum(x, weights, graph)
    }
}

/// `z_i = pt_i / sum over the jet of pt`, `[N]`. A jet without any transverse momentum has shares 0.
fn shares(graph: &RaggedGraph) -> Tensor<1> {
    let pt = graph.kinematics().clone().without_autodiff().slice([0..graph.nodes, 0..1]);
    let sums = jet_sum(pt.clone(), None, graph).clamp_min(f32::MIN_POSITIVE);
    let jets = crate::ops::plain::rows_of(&graph.jet_offsets, graph.jets, graph.nodes);
    let sums = sums.select(0, jets.without_autodiff());
    (pt / sums).reshape([graph.nodes])
}

impl Backbone for DeepSets {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn stages(&self) -> Vec<Stage> {
        let phi = (0..self.config.phi.len()).map(|layer| format!("phi.{layer}"));
        let f = (0..self.config.f.len()).map(|layer| format!("f.{layer}"));
        phi.chain(f).chain(["head".to_owned()]).map(|name| Stage { prefix: name.clone(), name }).collect()
    }

    fn classes(&self) -> usize {
        self.config.classes
    }

    fn input_features(&self) -> usize {
        self.config.input_features
    }

    fn needs(&self) -> Needs {
        Needs { kinematics: self.config.flow == Flow::Energy, ..Needs::default() }
    }

    fn rows_at(&self, cut: usize) -> Rows {
        if cut < self.config.phi.len() { Rows::Nodes } else { Rows::Jets }
    }

    fn width_at(&self, cut: usize) -> usize {
        let widths = [self.config.input_features];
        let mut widths = widths.iter().chain(&self.config.phi).chain(&self.config.f);
        widths.nth(cut).copied().unwrap_or(self.config.classes)
    }

    fn forward_stages(
        &self,
        stages: Range<usize>,
        activation: Tensor<2>,
        graph: &RaggedGraph,
        mode: &Mode,
    ) -> Tensor<2> {
        let (phi, f) = (self.phi.len(), self.f.len());
        let count = phi + f + 1;
        assert!(stages.end <= count, "stages {stages:?} of a network of {count}");
        assert_eq!(mode.norms.len(), count, "one norm mode per stage");
        assert_eq!(activation.dims()[1], self.width_at(stages.start), "width of the activation at its cut");
        let mut x = activation;
        for stage in stages {
            x = if stage < phi {
                let x = dense(x, self.phi[stage].linear(), true, None);
                if stage + 1 == phi { self.pooled(x, graph) } else { x }
            } else if stage < phi + f {
                let layer = stage - phi;
                let seed = mode.dropout_seed.filter(|_| self.config.dropout > 0.0);
                let dropout = seed
                    .map(|seed| Dropout::new(self.config.dropout, named_seed(seed, &format!("f.{layer}"))));
                dense(x, self.f[layer].linear(), true, dropout)
            } else {
                dense(x, self.head.linear(), false, None)
            };
        }
        x
    }

    fn replace_head(self, classes: usize, seed: u64) -> Self {
        let device = self.head.weight.device();
        let inputs = self.width_at(self.phi.len() + self.f.len());
        let head = Dense::new("head", inputs, classes, true, seed, &device);
        Self { head, config: DeepSetsConfig { classes, ..self.config }, ..self }
    }
}

/// Our names and those of PyTorch deep sets: blocks of linear map and activation, one after the other.
const KEYS: KeyMap = KeyMap {
    network: "a deep set",
    modules: &[("phi.{}", "phi.{}.0"), ("f.{}", "fc.{}.0"), ("head", "fc.head")],
    example: "`phi.0.0.weight`, `fc.0.0.bias`, `fc.3.weight`",
};

/// Reads the tensors of a PyTorch deep set: `phi.{i}.0` (linear maps, or convolutions of kernel 1, with an activation
/// behind each), `fc.{i}.0`, and the last layer as `fc.{n}`. Names and layouts become ours, sizes come from the shapes;
/// no tensor shows the flow, which is taken to be that of particles.
///
/// # Errors
/// [`NnError::Weights`] for an entry that no such network has (a norm, for instance), [`NnError::Names`] or
/// [`NnError::Shape`] when the tensors do not make one whole network.
pub fn from_foreign(tensors: &BTreeMap<String, ForeignTensor>) -> Result<Imported<DeepSetsConfig>, NnError> {
    let named = tensors.iter().map(|(name, tensor)| {
        let mut tensor = tensor.clone();
        if let [outputs, inputs, 1] = tensor.shape[..] {
            tensor.shape = vec![outputs, inputs];
        }
        // The last layer has no activation and so no number of its own within a block.
        let last = name.strip_prefix("fc.").and_then(|rest| rest.split_once('.'));
        let name = match last {
            Some((number, leaf)) if is_number(number) && !leaf.contains('.') => format!("fc.head.{leaf}"),
            _ => name.clone(),
        };
        (name, tensor)
    });
    let (state, ignored) = KEYS.to_state(&named.collect())?;
    let config = sizes(&state)?;
    // A network of these sizes knows every name and shape that must be there.
    crate::state::load_state(DeepSets::new(&config, 0, &Device::flex())?, &state)?;
    Ok(Imported { config, state, ignored })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The names that [`from_foreign`] reads, and PyTorch's layout of linear maps.
///
/// # Errors
/// [`NnError::Weights`] for a name that is not of a deep set.
pub fn to_foreign(
    config: &DeepSetsConfig,
    state: &State,
) -> Result<BTreeMap<String, ForeignTensor>, NnError> {
    let last = config.f.len();
    let tensors =
        KEYS.to_foreign(state)?.into_iter().map(|(name, tensor)| match name.strip_prefix("fc.head.") {
            Some(leaf) => (format!("fc.{last}.{leaf}"), tensor),
            None => (name, tensor),
        });
    Ok(tensors.collect())
}

/// Sizes of the network that a state belongs to.
fn sizes(state: &State) -> Result<DeepSetsConfig, NnError> {
    let shape = |name: &str| match state.get(name).map(|tensor| &tensor.shape[..]) {
        None => Err(NnError::Names { missing: vec![name.to_owned()], unexpected: Vec::new() }),
        Some(&[inputs, outputs]) => Ok((inputs, outputs)),
        Some(other) => {
            Err(NnError::Shape { name: name.to_owned(), found: other.to_vec(), expected: vec![1, 1] })
        }
    };
    let widths = |part: &str| -> Result<Vec<usize>, NnError> {
        let mut widths = Vec::new();
        loop {
            let name = format!("{part}.{}.weight", widths.len());
            if !state.contains_key(&name) {
                return Ok(widths);
            }
            widths.push(shape(&name)?.1);
        }
    };
    Ok(DeepSetsConfig {
        flow: Flow::Particle,
        input_features: shape("phi.0.weight")?.0,
        phi: widths("phi")?,
        f: widths("f")?,
        classes: shape("head.weight")?.1,
        ..DeepSetsConfig::default()
    })
}
