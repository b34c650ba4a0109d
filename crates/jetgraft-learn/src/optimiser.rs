//! How gradients move weights: Adam, AdamW and stochastic gradient descent, with PyTorch's formulas and defaults.
//!
//! Written here rather than taken from Burn because three things are needed at once: PyTorch's numbers (Burn's Adam
//! has another epsilon, its momentum another first step), a state keyed by parameter names that goes into
//! safetensors and back bit for bit, and one rate per group. The arithmetic is Burn's, on any device, in f32.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use jetgraft_nn::state::{NamedTensor, Role, State};
use serde::{Deserialize, Serialize};

use crate::error::LearnError;
use crate::step::Gradients;

/// What a recipe says about the optimiser, tagged by `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum OptimiserOptions {
    /// Kingma and Ba, arXiv:1412.6980. The weight decay is added to the gradient.
    Adam {
        /// Memory of the mean gradient, in [0, 1); default 0.9.
        #[serde(default = "beta_1")]
        beta_1: f64,
        /// Memory of the mean squared gradient, in [0, 1); default 0.999.
        #[serde(default = "beta_2")]
        beta_2: f64,
        /// Added to the root of the mean square; default 1e-8.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Default 0.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Loshchilov and Hutter, arXiv:1711.05101: the decay acts on the weights, not through the moments.
    AdamW {
        /// As in `adam`.
        #[serde(default = "beta_1")]
        beta_1: f64,
        /// As in `adam`.
        #[serde(default = "beta_2")]
        beta_2: f64,
        /// As in `adam`.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Default 0.01.
        #[serde(default = "decay")]
        weight_decay: f64,
    },
    /// Gradient descent with momentum; the first step takes the gradient undamped, as PyTorch does.
    Sgd {
        /// Memory of the velocity, in [0, 1); default 0.9.
        #[serde(default = "beta_1")]
        momentum: f64,
        /// Share of each new gradient that the velocity loses, in [0, 1); default 0.
        #[serde(default)]
        dampening: f64,
        /// Nesterov's look ahead; needs momentum and no dampening.
        #[serde(default)]
        nesterov: bool,
        /// Added to the gradient; default 0.
        #[serde(default)]
        weight_decay: f64,
    },
}

fn beta_1() -> f64 {
    0.9
}

fn beta_2() -> f64 {
    0.999
}

fn epsilon() -> f64 {
    1e-8
}

fn decay() -> f64 {
    0.01
}

impl Default for OptimiserOptions {
    fn default() -> Self {
        Self::Adam { beta_1: beta_1(), beta_2: beta_2(), epsilon: epsilon(), weight_decay: 0.0 }
    }
}

impl OptimiserOptions {
    /// Names of what is remembered of each parameter.
    fn parts(&self) -> &'static [&'static str] {
        match self {
            Self::Adam { .. } | Self::AdamW { .. } => &["moment_1", "moment_2"],
            Self::Sgd { momentum: 0.0, .. } => &[],
            Self::Sgd { .. } => &["velocity"],
        }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// [`LearnError::Option`] for the first that makes no sense.
    pub fn check(&self) -> Result<(), LearnError> {
        let below_one = |name: &str, value: f64| {
            if (0.0..1.0).contains(&value) {
                return Ok(());
            }
            Err(LearnError::option(format!("optimiser.{name}"), value, "at least 0 and less than 1"))
        };
        let not_negative = |name: &str, value: f64| {
            if value.is_finite() && value >= 0.0 {
                return Ok(());
            }
            Err(LearnError::option(format!("optimiser.{name}"), value, "finite and not negative"))
        };
        match *self {
            Self::Adam { beta_1, beta_2, epsilon, weight_decay }
            | Self::AdamW { beta_1, beta_2, epsilon, weight_decay } => {
                below_one("beta_1", beta_1)?;
                below_one("beta_2", beta_2)?;
                not_negative("epsilon", epsilon)?;
                not_negative("weight_decay", weight_decay)
            }
            Self::Sgd { momentum, dampening, nesterov, weight_decay } => {
                below_one("momentum", momentum)?;
                below_one("dampening", dampening)?;
                not_negative("weight_decay", weight_decay)?;
                if nesterov && (momentum == 0.0 || dampening != 0.0) {
                    let expected = "false, or a momentum above 0 and a dampening of 0";
                    return Err(LearnError::option("optimiser.nesterov", true, expected));
                }
                Ok(())
            }
        }
    }
}

/// What is remembered of one parameter: its [`OptimiserOptions::parts`], flat.
type Memory = Vec<Tensor<1>>;

/// An optimiser and what it remembers of every parameter, by the parameter's name.
#[derive(Clone, Debug)]
pub struct Optimiser {
    options: OptimiserOptions,
    memory: BTreeMap<String, Memory>,
    /// Steps that each parameter has made.
    steps: BTreeMap<String, u64>,
}

impl Optimiser {
    /// One that remembers nothing.
    pub fn new(options: &OptimiserOptions) -> Self {
        Self { options: options.clone(), memory: BTreeMap::new(), steps: BTreeMap::new() }
    }

    /// One step: every parameter with a gradient and a rate moves. The rates are learning rates, the factors of
    /// groups and schedule included.
    pub fn step<M: Module>(&mut self, model: M, gradients: Gradients, rates: &BTreeMap<String, f64>) -> M {
        model.map(&mut Mover { path: Vec::new(), optimiser: self, gradients, rates })
    }

    /// Where a parameter goes from `value` by `gradient`, both flat and outside autodiff.
    fn update(&mut self, name: &str, value: Tensor<1>, gradient: Tensor<1>, rate: f64) -> Tensor<1> {
        let steps = self.steps.entry(name.to_owned()).or_insert(0);
        *steps += 1;
        let memory = self.memory.remove(name);
        let decayed = |gradient: Tensor<1>, weight_decay: f64| match weight_decay {
            0.0 => gradient,
            _ => gradient + value.clone() * weight_decay,
        };
        let (value, memory) = match self.options {
            OptimiserOptions::Adam { beta_1, beta_2, epsilon, weight_decay } => {
                let gradient = decayed(gradient, weight_decay);
                adam(value, gradient, memory, *steps, [beta_1, beta_2, epsilon, rate])
            }
            OptimiserOptions::AdamW { beta_1, beta_2, epsilon, weight_decay } => {
                let value = if weight_decay == 0.0 { value } else { value * (1.0 - rate * weight_decay) };
                adam(value, gradient, memory, *steps, [beta_1, beta_2, epsilon, rate])
            }
            OptimiserOptions::Sgd { momentum, dampening, nesterov, weight_decay } => {
                let gradient = decayed(gradient, weight_decay);
                if momentum == 0.0 {
                    return value - gradient * rate;
                }
                let velocity = match memory.and_then(|mut parts| parts.pop()) {
                    Some(velocity) => velocity * momentum + gradient.clone() * (1.0 - dampening),
                    None => gradient.clone(),
                };
                let by = if nesterov { gradient + velocity.clone() * momentum } else { velocity.clone() };
                (value - by * rate, vec![velocity])
            }
        };
        self.memory.insert(name.to_owned(), memory);
        value
    }

    /// What it remembers as named tensors, and the number of steps of every parameter.
    pub fn to_state(&self) -> (State, BTreeMap<String, u64>) {
        let mut state = State::new();
        for (name, memory) in &self.memory {
            for (part, tensor) in self.options.parts().iter().zip(memory) {
                let values: Vec<f32> = tensor.to_data().iter::<f32>().collect();
                let tensor = NamedTensor { shape: vec![values.len()], values, role: Role::Parameter };
                state.insert(format!("{name}.{part}"), tensor);
            }
        }
        (state, self.steps.clone())
    }

    /// The optimiser that [`Optimiser::to_state`] described; the next step gives the same bits.
    ///
    /// # Errors
    /// [`LearnError::Option`] if the state is not one of this kind of optimiser.
    pub fn from_state(
        options: &OptimiserOptions,
        state: &State,
        steps: &BTreeMap<String, u64>,
        device: &Device,
    ) -> Result<Self, LearnError> {
        let device = device.clone().inner();
        let mut optimiser = Self::new(options);
        optimiser.steps.clone_from(steps);
        let mut read = 0;
        for name in steps.keys() {
            let mut tensors = Vec::with_capacity(2);
            for part in options.parts() {
                let Some(found) = state.get(&format!("{name}.{part}")) else {
                    let expected = format!("`{name}.{part}` among its tensors");
                    return Err(LearnError::option(
                        "optimiser state",
                        format!("{} tensors", state.len()),
                        expected,
                    ));
                };
                let data = TensorData::new(found.values.clone(), [found.values.len()]);
                tensors.push(Tensor::<1>::from_data(data, &device));
                read += 1;
            }
            optimiser.memory.insert(name.clone(), tensors);
        }
        if read != state.len() {
            let expected = format!("{read} for this kind of optimiser");
            return Err(LearnError::option("optimiser state", format!("{} tensors", state.len()), expected));
        }
        Ok(optimiser)
    }
}

/// One step of Adam; `steps` counts from 1.
fn adam(
    value: Tensor<1>,
    gradient: Tensor<1>,
    memory: Option<Memory>,
    steps: u64,
    [beta_1, beta_2, epsilon, rate]: [f64; 4],
) -> (Tensor<1>, Memory) {
    let mut parts = memory.unwrap_or_default().into_iter();
    let (moment_1, moment_2) = match (parts.next(), parts.next()) {
        (Some(moment_1), Some(moment_2)) => (
            moment_1 * beta_1 + gradient.clone() * (1.0 - beta_1),
            moment_2 * beta_2 + gradient.square() * (1.0 - beta_2),
        ),
        _ => (gradient.clone() * (1.0 - beta_1), gradient.square() * (1.0 - beta_2)),
    };
    // In f64: 1 - beta^t loses all digits in f32 when beta is close to 1. Products, not `powf`, whose last bit
    // is the platform's.
    let correction = |beta: f64| 1.0 - power(beta, steps);
    let denominator = moment_2.clone().sqrt() * (1.0 / correction(beta_2).sqrt()) + epsilon;
    let value = value - moment_1.clone() / denominator * (rate / correction(beta_1));
    (value, vec![moment_1, moment_2])
}

/// `base^exponent` by squaring.
fn power(mut base: f64, mut exponent: u64) -> f64 {
    let mut product = 1.0;
    while exponent > 0 {
        if exponent & 1 == 1 {
            product *= base;
        }
        base *= base;
        exponent >>= 1;
    }
    product
}

struct Mover<'a> {
    path: Vec<String>,
    optimiser: &'a mut Optimiser,
    gradients: Gradients,
    rates: &'a BTreeMap<String, f64>,
}

impl ModuleMapper for Mover<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        let Some(&rate) = self.rates.get(&name) else { return param };
        let Some(gradient) = self.gradients.take(&name) else { return param };
        let (id, tensor, mapper) = param.consume();
        let shape = tensor.dims();
        let flat = tensor.without_autodiff().reshape([shape.iter().product::<usize>()]);
        let moved = self.optimiser.update(&name, flat, gradient, rate).reshape(shape);
        Param::from_mapped_value(id, moved.autodiff().require_grad(), mapper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers() {
        assert_eq!(power(0.9, 0), 1.0);
        assert!((power(0.999, 10_000) - 0.999f64.powi(10_000)).abs() < 1e-15);
    }

    #[test]
    fn options_are_checked_and_unknown_keys_refused() {
        for (text, name) in [
            (r#"{"kind": "adam", "beta_2": 1.0}"#, "optimiser.beta_2"),
            (r#"{"kind": "adam-w", "epsilon": -1}"#, "optimiser.epsilon"),
            (r#"{"kind": "sgd", "nesterov": true, "momentum": 0}"#, "optimiser.nesterov"),
            (r#"{"kind": "sgd", "nesterov": true, "dampening": 0.1}"#, "optimiser.nesterov"),
            (r#"{"kind": "sgd", "weight_decay": -0.1}"#, "optimiser.weight_decay"),
        ] {
            let options: OptimiserOptions = serde_json::from_str(text).unwrap();
            match options.check() {
                Err(LearnError::Option { option, .. }) => assert_eq!(option, name),
                other => panic!("{other:?}"),
            }
        }
        assert!(serde_json::from_str::<OptimiserOptions>(r#"{"kind": "adam", "lr": 1}"#).is_err());
        OptimiserOptions::default().check().unwrap();
    }
}
