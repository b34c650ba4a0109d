//! One training step: which parameters learn, their gradients by name, and what is said when a number is not one.

use std::fmt;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use jetgraft_data::PackedBatch;
use jetgraft_nn::contract::{Backbone, GraphBatch, Mode};
use jetgraft_nn::state::{self, State};

/// Makes a network ready to learn: all its parameters on the autodiff device, gradients asked for those of which
/// `learns` says so.
pub fn arm<M: Module>(model: M, learns: impl Fn(&str) -> bool) -> M {
    model.map(&mut Armer { path: Vec::new(), learns })
}

struct Armer<F> {
    path: Vec<String>,
    learns: F,
}

impl<F: Fn(&str) -> bool> ModuleMapper for Armer<F> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let learns = (self.learns)(&self.path.join("."));
        let (id, tensor, mapper) = param.consume();
        // A leaf of its own, whatever graph it came from.
        let tensor = tensor.without_autodiff().autodiff().set_require_grad(learns);
        Param::from_mapped_value(id, tensor, mapper)
    }
}

/// Elements that are summed in one go.
const PIECE: usize = 1 << 20;

/// Gradients of one step by parameter name, flat, outside autodiff, in the order of the network.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    entries: Vec<(String, Option<Tensor<1>>)>,
}

impl Gradients {
    /// Those of every parameter that learns, by backpropagation from `loss`.
    pub fn of<M: Module>(loss: &Tensor<1>, model: &M) -> Self {
        let mut visitor = Collector { path: Vec::new(), gradients: loss.backward(), entries: Vec::new() };
        model.visit(&mut visitor);
        Self { entries: visitor.entries }
    }

    /// The sums of both; a parameter that has one in one of them only keeps that.
    pub fn plus(mut self, mut other: Self) -> Self {
        if self.entries.is_empty() {
            return other;
        }
        for (name, tensor) in &mut self.entries {
            *tensor = match (tensor.take(), other.take(name)) {
                (Some(mine), Some(theirs)) => Some(mine + theirs),
                (mine, theirs) => mine.or(theirs),
            };
        }
        self.entries.extend(other.entries.into_iter().filter(|(_, tensor)| tensor.is_some()));
        self
    }

    /// From values on the host: for tests and other objectives.
    pub fn from_host(entries: Vec<(String, Vec<f32>)>, device: &burn::tensor::Device) -> Self {
        let device = device.clone().inner();
        let tensor = |values: Vec<f32>| {
            let count = values.len();
            Tensor::from_data(TensorData::new(values, [count]), &device)
        };
        Self { entries: entries.into_iter().map(|(name, values)| (name, Some(tensor(values)))).collect() }
    }

    /// Takes one out.
    pub fn take(&mut self, name: &str) -> Option<Tensor<1>> {
        self.entries.iter_mut().find(|(found, _)| found == name).and_then(|(_, tensor)| tensor.take())
    }

    /// Number of parameters with a gradient.
    pub fn len(&self) -> usize {
        self.entries.iter().filter(|(_, tensor)| tensor.is_some()).count()
    }

    /// Whether no parameter has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sum of squares of each gradient, in order; one transfer from the device.
    fn squares(&self) -> Vec<f64> {
        let mut sums = Vec::with_capacity(self.entries.len());
        let mut pieces = Vec::with_capacity(self.entries.len());
        for tensor in self.entries.iter().filter_map(|(_, tensor)| tensor.clone()) {
            let count = tensor.dims()[0];
            // Sums of larger tensors are shared between threads in an order that may vary.
            let parts = if count > PIECE { tensor.split(PIECE, 0) } else { vec![tensor] };
            pieces.push(parts.len());
            sums.extend(parts.into_iter().map(|part| part.square().sum()));
        }
        if sums.is_empty() {
            return Vec::new();
        }
        let mut sums = Tensor::cat(sums, 0).into_data().iter::<f64>().collect::<Vec<_>>().into_iter();
        pieces.into_iter().map(|parts| sums.by_ref().take(parts).sum()).collect()
    }

    /// Global norm: the root of the sum of all squares, summed in the order of the network in f64.
    pub fn norm(&self) -> f64 {
        self.squares().iter().sum::<f64>().sqrt()
    }

    /// The parameter closest to the output whose gradient is not finite (or so large that its square is not).
    pub fn last_not_finite(&self) -> Option<&str> {
        let names = self.entries.iter().filter(|(_, tensor)| tensor.is_some()).map(|(name, _)| name);
        let pairs: Vec<_> = names.zip(self.squares()).collect();
        pairs.into_iter().rev().find(|(_, square)| !square.is_finite()).map(|(name, _)| name.as_str())
    }

    /// Multiplies all by `factor`.
    pub fn scale(&mut self, factor: f64) {
        for (_, tensor) in &mut self.entries {
            *tensor = tensor.take().map(|tensor| tensor * factor);
        }
    }
}

struct Collector {
    path: Vec<String>,
    gradients: burn::tensor::Gradients,
    entries: Vec<(String, Option<Tensor<1>>)>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() {
            return;
        }
        if let Some(gradient) = param.val().grad_remove(&mut self.gradients) {
            let count = gradient.dims().iter().product::<usize>();
            let flat = gradient.without_autodiff().reshape([count]);
            self.entries.push((self.path.join("."), Some(flat)));
        }
    }
}

/// What was not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// The training loss of a batch.
    Loss,
    /// The gradient of a batch.
    Gradient,
    /// The loss on the validation jets, after the step.
    ValidationLoss,
}

impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Loss => "the training loss",
            Self::Gradient => "the gradient",
            Self::ValidationLoss => "the validation loss",
        })
    }
}

/// The first thing found that explains it.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// An input feature is not finite.
    Input {
        /// Name of the feature.
        feature: String,
        /// Collision of its jet.
        event_id: u64,
        /// The value.
        value: f32,
    },
    /// A weight or running statistic was not finite before the step.
    Weight {
        /// Its name.
        name: String,
    },
    /// Inputs and weights are finite, but what a stage computes is not.
    Activation {
        /// The first such stage.
        stage: String,
        /// Largest magnitude that went into it.
        largest_input: f32,
    },
    /// The loss is finite, a gradient is not.
    Gradient {
        /// The parameter closest to the output.
        parameter: String,
    },
    /// Everything is finite up to the logits.
    Logits {
        /// Largest magnitude among them.
        largest: f32,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input { feature, event_id, value } => {
                write!(out, "input feature `{feature}` of event {event_id} is {value}")
            }
            Self::Weight { name } => write!(out, "`{name}` was already not finite before this step"),
            Self::Activation { stage, largest_input } => {
                write!(out, "stage `{stage}` overflows on inputs of up to {largest_input:.3e}")
            }
            Self::Gradient { parameter } => write!(out, "the gradient of `{parameter}` is the first to fail"),
            Self::Logits { largest } => write!(out, "logits of up to {largest:.3e}"),
        }
    }
}

/// A run that stopped because a number was not finite. The weights are those before the step.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// What was not finite.
    pub quantity: Quantity,
    /// Phase of the plan.
    pub phase: String,
    /// Steps done before, over all phases.
    pub step: u64,
    /// Epoch in the phase, from 0.
    pub epoch: u64,
    /// Batch in the epoch, from 0.
    pub batch: u64,
    /// The first few collisions of the batch.
    pub event_ids: Vec<u64>,
    /// Base learning rate of the step, schedule included.
    pub learning_rate: f64,
    /// The first thing found that explains it.
    pub cause: Cause,
    /// Weights and running statistics before the step (for the validation loss: before the last step).
    pub weights: State,
}

impl fmt::Display for Divergence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} is not a finite number at step {} (phase `{}`, epoch {}, batch {}, first events {:?}, learning rate \
             {}): {}",
            self.quantity,
            self.step,
            self.phase,
            self.epoch,
            self.batch,
            self.event_ids,
            self.learning_rate,
            self.cause
        )
    }
}

impl Divergence {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match &self.cause {
            Cause::Input { .. } => "leave such jets out with a selection, or mend the file".into(),
            Cause::Weight { .. } => "the source is damaged or was saved from a run that had diverged".into(),
            _ => format!(
                "the learning rate {} is likely too high: lower it, or set `clip_norm`, or give the schedule a warm-up; \
                 the weights before the step are kept",
                self.learning_rate
            ),
        }
    }
}

/// Looks for what made a number not finite: inputs, then weights, then stages from input to output.
///
/// `model` is the network before the step; `mode` that of the pass.
pub fn diagnose<B: Backbone>(
    model: &B,
    packed: &PackedBatch,
    feature_names: &[String],
    event_id: impl Fn(usize) -> u64,
    batch: &GraphBatch,
    mode: &Mode,
) -> Cause {
    let width = packed.n_features.max(1);
    if let Some(at) = packed.features.iter().position(|value| !value.is_finite()) {
        let node = (at / width) as u32;
        let jet = packed.jet_offsets.partition_point(|&offset| offset <= node).saturating_sub(1);
        return Cause::Input {
            feature: feature_names.get(at % width).cloned().unwrap_or_else(|| format!("{}", at % width)),
            event_id: event_id(packed.indices[jet]),
            value: packed.features[at],
        };
    }
    for (name, tensor) in state::state(model) {
        if tensor.values.iter().any(|value| !value.is_finite()) {
            return Cause::Weight { name };
        }
    }
    let mut activation = batch.features.clone();
    let mut largest_input = largest(&activation);
    for (at, stage) in model.stages().iter().enumerate() {
        activation = model.forward_stages(at..at + 1, activation, &batch.graph, mode);
        let size = largest(&activation);
        if !size.is_finite() {
            return Cause::Activation { stage: stage.name.clone(), largest_input };
        }
        largest_input = size;
    }
    Cause::Logits { largest: largest_input }
}

/// Largest magnitude; NaN if one entry is.
fn largest(tensor: &Tensor<2>) -> f32 {
    tensor.clone().into_data().iter::<f32>().fold(0.0, |largest: f32, value| {
        // `max` would drop a NaN.
        if value.is_nan() || largest.is_nan() { f32::NAN } else { largest.max(value.abs()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn gradients_add_by_name() {
        let device = Device::flex();
        let of = |entries: &[(&str, f32)]| {
            let entries = entries.iter().map(|&(name, value)| (name.to_owned(), vec![value; 2]));
            Gradients::from_host(entries.collect(), &device)
        };
        let mut sum = of(&[("a", 1.0), ("b", 2.0)]).plus(of(&[("b", 3.0), ("c", 4.0)]));
        assert_eq!(sum.len(), 3);
        for (name, value) in [("a", 1.0), ("b", 5.0), ("c", 4.0)] {
            assert_eq!(sum.take(name).unwrap().into_data().iter::<f32>().collect::<Vec<_>>(), [value; 2]);
        }
        assert_eq!(Gradients::default().plus(of(&[("a", 1.0)])).len(), 1);
    }

    #[test]
    fn norms_of_large_tensors_are_summed_in_pieces() {
        let count = 2 * PIECE + 3;
        let entries = vec![("a".to_owned(), vec![2.0; count]), ("b".to_owned(), vec![3.0])];
        let mut gradients = Gradients::from_host(entries, &Device::flex());
        assert_eq!(gradients.squares(), [4.0 * count as f64, 9.0]);
        assert_eq!(gradients.norm(), (4.0 * count as f64 + 9.0).sqrt());
        assert_eq!((gradients.len(), gradients.last_not_finite()), (2, None));
        gradients.scale(f64::from(f32::MAX));
        assert_eq!(gradients.last_not_finite(), Some("b"));
        assert!(gradients.take("a").is_some() && gradients.take("a").is_none());
        assert_eq!(Gradients::default().norm(), 0.0);
        assert!(Gradients::default().is_empty());
    }
}
