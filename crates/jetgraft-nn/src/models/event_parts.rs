//! What the two networks on events share: layers on complete graphs, and the head.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};

use crate::contract::{NormMode, RaggedGraph};
use crate::error::NnError;
use crate::import::ForeignTensor;
use crate::init::{dropout_mask, named_seed, normal};
use crate::layers::{BatchNorm, Dense};
use crate::ops::complete::{LayerParameters, Pending, attention_weights, layer};
use crate::state::{State, parameter_id};

/// The most layers and hidden layers that a network may have.
const MOST: usize = 64;

/// Glorot's normal start for a ReLU: standard deviation `sqrt(2) sqrt(2 / (fan in + fan out))`.
fn glorot(name: &str, shape: [usize; 2], fans: usize, seed: u64, device: &Device) -> Param<Tensor<2>> {
    let deviation = 2.0 / (fans as f64).sqrt();
    let data = TensorData::new(normal(seed, name, shape[0] * shape[1], deviation), shape);
    Param::initialized(parameter_id(name), Tensor::from_data(data, device)).set_require_grad(true)
}

/// A linear map without bias.
fn dense(name: &str, inputs: usize, outputs: usize, seed: u64, device: &Device) -> Dense {
    let name = format!("{name}.weight");
    Dense { weight: glorot(&name, [inputs, outputs], inputs + outputs, seed, device), bias: None }
}

/// One layer with its norm; see [`crate::ops::complete`].
#[derive(Module, Debug)]
pub struct EventLayer {
    linear: Dense,
    /// The heads' vectors, `[heads, width / heads]`.
    attn: Option<Param<Tensor<2>>>,
    residual: Option<Dense>,
    norm: BatchNorm,
}

impl EventLayer {
    /// A layer with DGL's start: Glorot's normal one for maps and vectors.
    pub fn new(
        name: &str,
        inputs: usize,
        outputs: usize,
        heads: Option<usize>,
        seed: u64,
        device: &Device,
    ) -> Self {
        Self {
            linear: dense(&format!("{name}.linear"), inputs, outputs, seed, device),
            attn: heads.map(|heads| {
                let width = outputs / heads;
                glorot(&format!("{name}.attn"), [heads, width], outputs + width, seed, device)
            }),
            residual: (inputs != outputs)
                .then(|| dense(&format!("{name}.residual"), inputs, outputs, seed, device)),
            norm: BatchNorm::new(&format!("{name}.norm"), outputs, device),
        }
    }

    fn parameters(&self) -> LayerParameters {
        LayerParameters {
            weight: self.linear.weight.val(),
            attention: self.attn.as_ref().map(Param::val),
            residual: self.residual.as_ref().map(|residual| residual.weight.val()),
        }
    }

    /// The layer; its norm and ReLU wait.
    pub fn forward(&self, input: Pending, graph: &RaggedGraph, mode: NormMode) -> Pending {
        let (rows, moments) = layer(input, graph, self.parameters(), mode == NormMode::Batch);
        self.norm.observe(moments.clone());
        Pending { rows, norm: Some(self.norm.norm(mode)), moments }
    }

    /// Attention weights, `[sum over graphs of n^2, heads]`.
    pub fn attention_weights(&self, input: Pending, graph: &RaggedGraph) -> Tensor<2> {
        attention_weights(input, graph, self.parameters())
    }
}

/// From the representation of an event to its logits: hidden layers with ReLU, if any, and a linear map.
#[derive(Module, Debug)]
pub struct EventHead {
    hidden: Vec<Dense>,
    output: Dense,
}

impl EventHead {
    /// PyTorch's default start.
    pub fn new(inputs: usize, hidden: &[usize], classes: usize, seed: u64, device: &Device) -> Self {
        let mut inputs = inputs;
        let mut layers = Vec::with_capacity(hidden.len());
        for (at, &outputs) in hidden.iter().enumerate() {
            layers.push(Dense::new(&format!("head.hidden.{at}"), inputs, outputs, true, seed, device));
            inputs = outputs;
        }
        Self { hidden: layers, output: Dense::new("head.output", inputs, classes, true, seed, device) }
    }

    /// Logits. With a seed, dropout acts on what each linear map reads.
    ///
    /// # Shapes
    /// `[B, D]` to `[B, C]`.
    pub fn forward(&self, x: Tensor<2>, rate: f64, seed: Option<u64>) -> Tensor<2> {
        let mut x = x;
        for (at, layer) in self.hidden.iter().enumerate() {
            x = relu(layer.forward(dropped(x, rate, seed, at)));
        }
        self.output.forward(dropped(x, rate, seed, self.hidden.len()))
    }

    /// Where its tensors are.
    pub fn device(&self) -> Device {
        self.output.weight.device()
    }
}

fn dropped(x: Tensor<2>, rate: f64, seed: Option<u64>, place: usize) -> Tensor<2> {
    let Some(seed) = seed.filter(|_| rate > 0.0) else { return x };
    let [rows, columns] = x.dims();
    let seed = named_seed(seed, &format!("head.{place}"));
    let mask = TensorData::new(dropout_mask(seed, rows, columns, rate), [rows, columns]);
    x.clone() * Tensor::from_data(mask, &x.device())
}

/// Sizes that both networks have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSizes {
    /// Features per node.
    pub input_features: usize,
    /// Number of layers.
    pub layers: usize,
    /// Width of a layer.
    pub width: usize,
    /// Widths of the head's hidden layers.
    pub head_hidden: Vec<usize>,
    /// Number of classes.
    pub classes: usize,
}

impl EventSizes {
    /// Checks every field, and the rate of dropout.
    ///
    /// # Errors
    /// [`NnError::Config`] for the first that no network can have.
    pub fn check(&self, network: &'static str, dropout: f64) -> Result<(), NnError> {
        let fault =
            |field, found: String, expected: String| Err(NnError::Config { network, field, found, expected });
        for (field, value) in
            [("input_features", self.input_features), ("width", self.width), ("classes", self.classes)]
        {
            if value == 0 || value > 1 << 16 {
                return fault(field, value.to_string(), "1 to 65536".to_owned());
            }
        }
        if self.layers == 0 || self.layers > MOST {
            return fault("layers", self.layers.to_string(), format!("1 to {MOST}"));
        }
        if self.head_hidden.len() > MOST {
            return fault(
                "head_hidden",
                format!("{} layers", self.head_hidden.len()),
                format!("at most {MOST}"),
            );
        }
        if let Some(width) = self.head_hidden.iter().find(|&&width| width == 0 || width > 1 << 16) {
            return fault("head_hidden", width.to_string(), "widths of 1 to 65536".to_owned());
        }
        if !(0.0..1.0).contains(&dropout) {
            return fault("dropout", dropout.to_string(), "a probability in [0, 1)".to_owned());
        }
        Ok(())
    }

    /// Sizes of the network that a state belongs to.
    ///
    /// # Errors
    /// [`NnError::Names`] or [`NnError::Shape`] if a tensor that shows a size is missing or not a matrix.
    pub fn of(state: &State) -> Result<Self, NnError> {
        let matrix = |name: &str| match state.get(name) {
            None => Err(NnError::Names { missing: vec![name.to_owned()], unexpected: Vec::new() }),
            Some(tensor) => match tensor.shape[..] {
                [rows, columns] => Ok([rows, columns]),
                _ => Err(NnError::Shape {
                    name: name.to_owned(),
                    found: tensor.shape.clone(),
                    expected: vec![1, 1],
                }),
            },
        };
        let count =
            |name: &dyn Fn(usize) -> String| (0..).take_while(|&at| state.contains_key(&name(at))).count();
        let layers = count(&|at| format!("layer.{at}.linear.weight"));
        let hidden = count(&|at| format!("head.hidden.{at}.weight"));
        let [input_features, width] = matrix("layer.0.linear.weight")?;
        let head_hidden = (0..hidden)
            .map(|at| Ok(matrix(&format!("head.hidden.{at}.weight"))?[1]))
            .collect::<Result<_, NnError>>()?;
        let [_, classes] = matrix("head.output.weight")?;
        Ok(Self { input_features, layers, width, head_hidden, classes })
    }
}

/// Whether a foreign name is that of a layer's attention vectors.
pub fn is_attention(name: &str) -> bool {
    name.starts_with("convs.") && name.ends_with(".attn")
}

/// The tensors without second copies of a weight that both ends of an edge share, and the copies' names.
///
/// # Errors
/// [`NnError::Weights`] when the two are not the same.
pub fn without_copies(
    tensors: &BTreeMap<String, ForeignTensor>,
    network: &'static str,
) -> Result<(BTreeMap<String, ForeignTensor>, Vec<String>), NnError> {
    let (mut used, mut copies) = (BTreeMap::new(), Vec::new());
    for (name, tensor) in tensors {
        match name.strip_suffix(".fc_dst.weight") {
            Some(layer) if tensors.get(&format!("{layer}.fc_src.weight")) == Some(tensor) => {
                copies.push(name.clone());
            }
            Some(layer) => {
                return Err(NnError::Weights {
                    file: None,
                    name: Some(name.clone()),
                    found: "another weight for the receiving end".to_owned(),
                    expected: format!(
                        "the same as `{layer}.fc_src.weight`, which both ends of an {network} share"
                    ),
                });
            }
            None => {
                used.insert(name.clone(), tensor.clone());
            }
        }
    }
    Ok((used, copies))
}
