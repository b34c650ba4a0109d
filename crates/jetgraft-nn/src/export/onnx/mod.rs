//! ONNX files of networks, for programs that run networks without us (ONNX Runtime).
//!
//! The interface is that of padded batches: the first dimension is the batch, the second the constituents (or
//! declusterings) of a jet, and `mask` says which are real. Both are chosen by each call; padding may stand anywhere, hold
//! anything and never changes an answer. A jet without constituents is one constituent of zeros, as in our own batches.
//! Outputs are `logits` and `probabilities`, `[batch, classes]`.
//!
//! | network | inputs |
//! |---|---|
//! | on particles | `features [batch, constituents, F]`, `mask [batch, constituents]`; `kinematics [batch, constituents, 4]` where pairs are compared |
//! | on Lund trees | `features [batch, declusterings, F]`, `mask [batch, declusterings]`, `parents [batch, declusterings]` (64-bit integers, -1: none) |
//! | on high-level variables | `features [batch, F]` |
//! | on particles, preprocessing included | `four_vectors [batch, constituents, 4]` (64-bit floats), `mask`; `jet [batch, 4]`, `properties` where they are used |
//!
//! Norms are folded into scales and shifts (running statistics), in double precision; dropout is absent. Operators are
//! those of opset 17. The bytes depend on the network and the options only.
//!
//! Source: the ONNX specification (onnx.ai), `onnx.proto` and the operators of opset 17.

mod builder;
mod deep_sets;
mod event;
mod jetclr;
mod lundnet;
mod mlp;
mod particle_transformer;
mod particlenet;
mod pieces;
mod preprocess;
mod proto;

use burn::tensor::Device;
use prost::Message;

use self::builder::{Builder, Dim};
use self::pieces::Net;
pub use self::preprocess::{Feature, JetAxis, Preprocessing, Quantity};
use crate::contract::Backbone;
use crate::error::NnError;
use crate::models::event_gat::EventGatConfig;
use crate::models::event_gnn::EventGnnConfig;
use crate::registry::BackboneConfig;
use crate::state::{State, load_state};

/// What goes into a file beside the network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnnxOptions {
    /// Name of the network, for people.
    pub name: String,
    /// Names of the classes in the order of the logits; empty: not said.
    pub classes: Vec<String>,
    /// Names of the input features with their units, for the description of the input; empty: not said.
    pub features: Vec<String>,
    /// Centre and scale of the features, `(x - centre) / scale`, when the network wants them so.
    pub standardise: Option<(Vec<f32>, Vec<f32>)>,
    /// Features computed from four-vectors inside the graph, instead of given.
    pub preprocessing: Option<Preprocessing>,
    /// Further texts: the card, say.
    pub metadata: Vec<(String, String)>,
}

/// A network as the bytes of an ONNX file.
///
/// # Errors
/// [`NnError::Config`], [`NnError::Names`] or [`NnError::Shape`] when the state is not that of such a network;
/// [`NnError::Export`] for options that do not fit it.
pub fn to_onnx(config: &BackboneConfig, state: &State, options: &OnnxOptions) -> Result<Vec<u8>, NnError> {
    // A network of these sizes knows every name and shape that must be there.
    let network = load_state(config.build(0, &Device::flex())?, state)?;
    let (features, classes) = (network.input_features(), network.classes());
    let kinematics = network.needs().kinematics;
    check(config, features, classes, options)?;

    let g = Builder::default();
    let net = Net { g: &g, state };
    let particles = || match &options.preprocessing {
        Some(preprocessing) => preprocess::constituents(&g, preprocessing, kinematics, options),
        None => pieces::given(&g, "constituents", features, kinematics, options),
    };
    let logits = match config {
        BackboneConfig::LundNet(config) => lundnet::export(&net, config, options)?,
        BackboneConfig::ParticleNet(config) => particlenet::export(&net, config, &particles())?,
        BackboneConfig::ParticleTransformer(config) => {
            particle_transformer::export(&net, config, &particles())?
        }
        BackboneConfig::EventGnn(EventGnnConfig { layers, head_hidden, .. }) => {
            event::export(&net, *layers, head_hidden.len(), None, &particles())?
        }
        BackboneConfig::EventGat(EventGatConfig { layers, head_hidden, heads, .. }) => {
            event::export(&net, *layers, head_hidden.len(), Some(*heads), &particles())?
        }
        BackboneConfig::DeepSets(config) => deep_sets::export(&net, config, &particles())?,
        BackboneConfig::JetClr(config) => jetclr::export(&net, config, &particles())?,
        BackboneConfig::Mlp(config) => mlp::export(&net, config, options)?,
    };
    g.scope("output");
    let dims = [Dim::Any("batch"), Dim::Is(classes)];
    let names = match &options.classes[..] {
        [] => "one column a class".to_owned(),
        names => format!("classes in order: {}", names.join(", ")),
    };
    g.output("logits", &logits, &dims, &names);
    g.output("probabilities", &g.softmax(&logits), &dims, &format!("softmax of the logits; {names}"));

    let mut metadata = vec![("jetgraft_kind".to_owned(), config.kind().to_owned())];
    if !options.classes.is_empty() {
        metadata.push(("classes".into(), serde_json::json!(options.classes).to_string()));
    }
    if !options.features.is_empty() {
        metadata.push(("features".into(), serde_json::json!(options.features).to_string()));
    }
    metadata.extend(options.metadata.iter().cloned());
    let words = format!("{} ({}), {}", options.name, config.kind(), names);
    Ok(g.finish(config.kind(), &words, &metadata))
}

/// Why a network's preprocessing cannot be part of the graph.
fn no_preprocessing(config: &BackboneConfig) -> Option<(&'static str, &'static str)> {
    match config {
        BackboneConfig::LundNet(_) => Some((
            "features, mask and parents of Lund trees: reclustering a jet cannot be written in ONNX",
            "export without preprocessing and make the trees with `jetgraft lund`, or with jetgraft-physics in your program",
        )),
        BackboneConfig::Mlp(_) => Some((
            "its variables: N-subjettiness and energy correlations cannot be written in ONNX",
            "export without preprocessing and compute the variables in your program",
        )),
        BackboneConfig::EventGnn(_) | BackboneConfig::EventGat(_) => Some((
            "its features: the objects of an event are no constituents of a jet",
            "export without preprocessing and compute the features of each object in your program",
        )),
        BackboneConfig::ParticleNet(_)
        | BackboneConfig::ParticleTransformer(_)
        | BackboneConfig::DeepSets(_)
        | BackboneConfig::JetClr(_) => None,
    }
}

/// Whether options fit a network.
fn check(
    config: &BackboneConfig,
    features: usize,
    classes: usize,
    options: &OnnxOptions,
) -> Result<(), NnError> {
    let network = config.kind();
    let fault =
        |found: String, expected: String, remedy| Err(NnError::Export { network, found, expected, remedy });
    let names = "give as many as the network has, in its order";
    if !options.classes.is_empty() && options.classes.len() != classes {
        return fault(format!("{} names of classes", options.classes.len()), classes.to_string(), names);
    }
    if !options.features.is_empty() && options.features.len() != features {
        return fault(format!("{} names of features", options.features.len()), features.to_string(), names);
    }
    if let Some((centre, scale)) = &options.standardise {
        let sound = |values: &[f32]| values.len() == features && values.iter().all(|value| value.is_finite());
        if !sound(centre) || !sound(scale) || scale.contains(&0.0) {
            return fault(
                format!("a standardisation of {} centres and {} scales", centre.len(), scale.len()),
                format!("{features} finite ones each, no scale of 0"),
                "check the card of the network",
            );
        }
    }
    if let Some(preprocessing) = &options.preprocessing {
        if let Some((expected, remedy)) = no_preprocessing(config) {
            return fault("preprocessing of four-vectors".into(), expected.into(), remedy);
        }
        if preprocessing.features.len() != features {
            return fault(
                format!("preprocessing that makes {} features", preprocessing.features.len()),
                format!("{features}, which the network reads"),
                "name the features of the network's card",
            );
        }
    }
    Ok(())
}

/// A tensor of a file: an input, an output or a stored one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Element type: `f32`, `f64`, `i64`, `bool`, or another one's number.
    pub element: String,
    /// Sizes; those that each call chooses by their names.
    pub dims: Vec<String>,
}

/// What is in an ONNX file, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Version of the format.
    pub ir_version: i64,
    /// Version of the operators.
    pub opset: i64,
    /// Given by the caller.
    pub inputs: Vec<Tensor>,
    /// Given to the caller.
    pub outputs: Vec<Tensor>,
    /// Weights and constants.
    pub initialisers: Vec<Tensor>,
    /// Operators in the order of the nodes.
    pub operators: Vec<String>,
    /// Texts.
    pub metadata: Vec<(String, String)>,
}

/// Reads back what [`to_onnx`] wrote, and checks that the graph is whole: each value is made once, before it is used,
/// and stored tensors have as many bytes as their shapes say.
///
/// # Errors
/// [`NnError::Weights`].
pub fn describe(bytes: &[u8]) -> Result<Description, NnError> {
    let fault = |name: Option<&str>, found: String, expected: &str| NnError::Weights {
        file: None,
        name: name.map(str::to_owned),
        found,
        expected: expected.to_owned(),
    };
    let model =
        proto::Model::decode(bytes).map_err(|error| fault(None, error.to_string(), "a whole ONNX file"))?;
    let graph = model.graph.ok_or_else(|| fault(None, "no graph".into(), "an ONNX file with a network"))?;
    let element = |code: i32| match code {
        1 => "f32".to_owned(),
        7 => "i64".to_owned(),
        9 => "bool".to_owned(),
        11 => "f64".to_owned(),
        other => other.to_string(),
    };
    let ends = |values: &[proto::ValueInfo]| -> Vec<Tensor> {
        let ends = values.iter().map(|value| {
            let tensor = value.kind.as_ref().and_then(|kind| kind.tensor.clone()).unwrap_or_default();
            let dims = tensor.shape.unwrap_or_default().dims.into_iter();
            let dims = dims.map(|dim| match (dim.value, dim.name) {
                (Some(size), _) => size.to_string(),
                (None, name) => name.unwrap_or_default(),
            });
            Tensor { name: value.name.clone(), element: element(tensor.element), dims: dims.collect() }
        });
        ends.collect()
    };
    let (inputs, outputs) = (ends(&graph.inputs), ends(&graph.outputs));
    let mut known = std::collections::BTreeSet::new();
    let mut initialisers = Vec::with_capacity(graph.initialisers.len());
    for tensor in &graph.initialisers {
        let width = match tensor.data_type {
            1 => 4,
            7 | 11 => 8,
            _ => 1,
        };
        let size = tensor.dims.iter().try_fold(width, |size: i64, &dim| size.checked_mul(dim));
        if size != i64::try_from(tensor.raw_data.len()).ok() {
            let found = format!("{} bytes for shape {:?}", tensor.raw_data.len(), tensor.dims);
            return Err(fault(Some(&tensor.name), found, "as many as the shape says"));
        }
        let dims = tensor.dims.iter().map(ToString::to_string).collect();
        initialisers.push(Tensor { name: tensor.name.clone(), element: element(tensor.data_type), dims });
    }
    for tensor in inputs.iter().chain(&initialisers) {
        if !known.insert(tensor.name.as_str()) {
            return Err(fault(Some(&tensor.name), "the name twice".into(), "each value once"));
        }
    }
    for node in &graph.nodes {
        if let Some(unknown) = node.inputs.iter().find(|input| !known.contains(input.as_str())) {
            let found = format!("the input `{unknown}`, which nothing before it makes");
            return Err(fault(Some(&node.name), found, "values in the order of their making"));
        }
        for output in &node.outputs {
            if !known.insert(output) {
                return Err(fault(Some(output), "the name twice".into(), "each value once"));
            }
        }
    }
    if let Some(output) = outputs.iter().find(|output| !known.contains(output.name.as_str())) {
        return Err(fault(Some(&output.name), "an output that nothing makes".into(), "a whole graph"));
    }
    Ok(Description {
        ir_version: model.ir_version,
        opset: model.opset_import.first().map_or(0, |set| set.version),
        operators: graph.nodes.iter().map(|node| node.operator.clone()).collect(),
        metadata: model.metadata.into_iter().map(|entry| (entry.key, entry.value)).collect(),
        inputs,
        outputs,
        initialisers,
    })
}
