//! Averaged weights: an exponential moving average beside the ones that learn.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use jetgraft_nn::state::{NamedTensor, Role, State};
use serde::{Deserialize, Serialize};

use crate::error::LearnError;

/// What the averaged network has as running statistics of its norms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AveragedStatistics {
    /// Those of the network that learns (`AveragedModel` with `use_buffers=False`, PyTorch's default).
    #[default]
    Copy,
    /// Their average, by the same rule as the weights (`use_buffers=True`).
    Average,
}

/// What a recipe says about averaged weights.
///
/// After each step `average <- decay average + (1 - decay) weights`; the first step of a phase sets the average to the
/// weights after it (PyTorch's `AveragedModel` with `get_ema_multi_avg_fn`). Parameters that are frozen are not averaged.
/// Training goes on with the weights themselves; the average is what is evaluated, chosen and kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ema {
    /// Memory of the average, in [0, 1): about `1 / (1 - decay)` steps; default 0.999.
    #[serde(default = "decay")]
    pub decay: f64,
    /// Running statistics of the averaged network; default `copy`.
    #[serde(default)]
    pub running_statistics: AveragedStatistics,
}

fn decay() -> f64 {
    0.999
}

impl Ema {
    /// Checks every number.
    ///
    /// # Errors
    /// [`LearnError::Option`].
    pub fn check(&self) -> Result<(), LearnError> {
        if (0.0..1.0).contains(&self.decay) {
            return Ok(());
        }
        Err(LearnError::option("ema.decay", self.decay, "at least 0 and less than 1"))
    }
}

/// The average of a network's tensors by name, flat, outside autodiff.
#[derive(Clone, Debug)]
pub struct Average {
    options: Ema,
    values: BTreeMap<String, Tensor<1>>,
}

impl Average {
    /// One that has seen nothing.
    pub fn new(options: Ema) -> Self {
        Self { options, values: BTreeMap::new() }
    }

    /// Takes in the weights after a step; `learns` says which parameters are averaged.
    pub fn update<M: Module>(&mut self, model: &M, learns: impl Fn(&str) -> bool) {
        model.visit(&mut Taker { path: Vec::new(), average: self, learns });
    }

    /// `model` with the averages in the place of what has been averaged.
    pub fn applied<M: Module>(&self, model: M) -> M {
        model.map(&mut Giver { path: Vec::new(), average: self })
    }

    /// As named tensors, flat.
    pub fn to_state(&self) -> State {
        let tensor = |(name, value): (&String, &Tensor<1>)| {
            let values: Vec<f32> = value.to_data().iter::<f32>().collect();
            (name.clone(), NamedTensor { shape: vec![values.len()], values, role: Role::of(name) })
        };
        self.values.iter().map(tensor).collect()
    }

    /// The average that [`Average::to_state`] described; later ones have the same bits.
    pub fn from_state(options: Ema, state: &State, device: &Device) -> Self {
        let device = device.clone().inner();
        let tensor = |(name, tensor): (&String, &NamedTensor)| {
            let data = TensorData::new(tensor.values.clone(), [tensor.values.len()]);
            (name.clone(), Tensor::from_data(data, &device))
        };
        Self { options, values: state.iter().map(tensor).collect() }
    }
}

struct Taker<'a, F> {
    path: Vec<String>,
    average: &'a mut Average,
    learns: F,
}

impl<F: Fn(&str) -> bool> ModuleVisitor for Taker<'_, F> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        let Average { options, values } = &mut *self.average;
        let wanted = match Role::of(&name) {
            Role::Parameter => (self.learns)(&name),
            Role::Buffer => options.running_statistics == AveragedStatistics::Average,
        };
        if !wanted {
            return;
        }
        let value = param.val().without_autodiff();
        let count = value.dims().iter().product::<usize>();
        let value = value.reshape([count]);
        let average = match values.remove(&name) {
            // In this form what does not move stays the same to the last bit.
            Some(average) => average.clone() + (value - average) * (1.0 - options.decay),
            None => value,
        };
        values.insert(name, average);
    }
}

struct Giver<'a> {
    path: Vec<String>,
    average: &'a Average,
}

impl ModuleMapper for Giver<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(average) = self.average.values.get(&self.path.join(".")) else { return param };
        let (id, old, mapper) = param.consume();
        let new = average.clone().reshape(old.dims());
        // On the device (with or without autodiff) that the network was on.
        let new = if old.is_require_grad() { new.autodiff().require_grad() } else { new };
        Param::from_mapped_value(id, new, mapper)
    }
}
