//! How gradients move weights: Adam, AdamW, RAdam and stochastic gradient descent with PyTorch's formulas and
//! defaults, Ranger with weaver's.
//!
//! Written here rather than taken from Burn because three things are needed at once: PyTorch's numbers (Burn's Adam
//! has another epsilon, its momentum another first step), a state keyed by parameter names that goes into
//! safetensors and back bit for bit, and one rate per group. The arithmetic is Burn's, on any device, in f32; factors
//! that depend on the step alone are f64.

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
    /// Adam whose first steps are plain momentum until the mean square is known well enough, and whose rate then rises
    /// with the certainty of it: "rectified" (Liu et al., arXiv:1908.03265, algorithm 2; `torch.optim.RAdam`).
    #[serde(rename = "radam")]
    RAdam {
        /// As in `adam`.
        #[serde(default = "beta_1")]
        beta_1: f64,
        /// As in `adam`.
        #[serde(default = "beta_2")]
        beta_2: f64,
        /// As in `adam`; the root is that of the mean square without its correction for the first steps.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Default 0.
        #[serde(default)]
        weight_decay: f64,
        /// Whether the decay acts on the weights, as in `adam-w`, or is added to the gradient (default).
        #[serde(default)]
        decoupled: bool,
    },
    /// Lookahead (Zhang et al., arXiv:1907.08610) around RAdam with decoupled decay, as weaver trains ParticleNet and
    /// Particle Transformer: after every `sync_every` steps of RAdam the weights go back towards where they were
    /// after the last such step, `w <- fast_share w + (1 - fast_share) w_last`; the moments go on. The first `w_last`
    /// are the weights before the first step of the phase. Running statistics of norms are left alone, and what is
    /// evaluated and kept are the fast weights, as in weaver.
    Ranger {
        /// As in `adam`; default 0.95.
        #[serde(default = "ranger_beta_1")]
        beta_1: f64,
        /// As in `adam`.
        #[serde(default = "beta_2")]
        beta_2: f64,
        /// As in `radam`; default 1e-5.
        #[serde(default = "ranger_epsilon")]
        epsilon: f64,
        /// As in `adam-w`; default 0.
        #[serde(default)]
        weight_decay: f64,
        /// Steps between two looks back, at least 1; default 6.
        #[serde(default = "sync_every")]
        sync_every: u64,
        /// Share of the fast weights, in (0, 1]; default 0.5. With 1 it is RAdam.
        #[serde(default = "fast_share")]
        fast_share: f64,
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

fn ranger_beta_1() -> f64 {
    0.95
}

fn ranger_epsilon() -> f64 {
    1e-5
}

fn sync_every() -> u64 {
    6
}

fn fast_share() -> f64 {
    0.5
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
            Self::Adam { .. } | Self::AdamW { .. } | Self::RAdam { .. } => &["moment_1", "moment_2"],
            Self::Ranger { .. } => &["moment_1", "moment_2", "slow"],
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
            | Self::AdamW { beta_1, beta_2, epsilon, weight_decay }
            | Self::RAdam { beta_1, beta_2, epsilon, weight_decay, .. }
            | Self::Ranger { beta_1, beta_2, epsilon, weight_decay, .. } => {
                below_one("beta_1", beta_1)?;
                below_one("beta_2", beta_2)?;
                not_negative("epsilon", epsilon)?;
                not_negative("weight_decay", weight_decay)?;
                if let Self::Ranger { sync_every, fast_share, .. } = *self {
                    if sync_every == 0 {
                        return Err(LearnError::option("optimiser.sync_every", 0, "1 or more"));
                    }
                    if !(fast_share > 0.0 && fast_share <= 1.0) {
                        let expected = "more than 0 and at most 1";
                        return Err(LearnError::option("optimiser.fast_share", fast_share, expected));
                    }
                }
                Ok(())
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

impl OptimiserOptions {
    /// How strongly weights decay.
    pub fn weight_decay(&self) -> f64 {
        match *self {
            Self::Adam { weight_decay, .. }
            | Self::AdamW { weight_decay, .. }
            | Self::RAdam { weight_decay, .. }
            | Self::Ranger { weight_decay, .. }
            | Self::Sgd { weight_decay, .. } => weight_decay,
        }
    }
}

/// Which parameters the weight decay acts on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decayed {
    /// Every parameter that learns, as PyTorch's optimisers do by themselves.
    #[default]
    All,
    /// Tensors of two or more dimensions; not biases, scales and shifts of norms, class tokens and learnt positions.
    /// This is the rule that weaver trains Particle Transformer by.
    Matrices,
}

impl Decayed {
    /// Whether the parameter of this name and shape decays.
    ///
    /// By `matrices` it does not if it has fewer than two dimensions, or if the last part of its name is `bias` or
    /// ends with `_bias`, `token` or `pos_embed`.
    pub fn includes(self, name: &str, shape: &[usize]) -> bool {
        let last = name.rsplit('.').next().unwrap_or(name);
        let spared = last == "bias" || ["_bias", "token", "pos_embed"].iter().any(|end| last.ends_with(end));
        self == Self::All || (shape.len() > 1 && !spared)
    }
}

/// What is remembered of one parameter: its [`OptimiserOptions::parts`], flat.
type Memory = Vec<Tensor<1>>;

/// An optimiser and what it remembers of every parameter, by the parameter's name.
#[derive(Clone, Debug)]
pub struct Optimiser {
    options: OptimiserOptions,
    decayed: Decayed,
    memory: BTreeMap<String, Memory>,
    /// Steps that each parameter has made.
    steps: BTreeMap<String, u64>,
}

impl Optimiser {
    /// One that remembers nothing.
    pub fn new(options: &OptimiserOptions) -> Self {
        Self {
            options: options.clone(),
            decayed: Decayed::All,
            memory: BTreeMap::new(),
            steps: BTreeMap::new(),
        }
    }

    /// Restricts the weight decay to these parameters.
    pub fn decaying(self, decayed: Decayed) -> Self {
        Self { decayed, ..self }
    }

    /// One step: every parameter with a gradient and a rate moves. The rates are learning rates, the factors of
    /// groups and schedule included.
    pub fn step<M: Module>(&mut self, model: M, gradients: Gradients, rates: &BTreeMap<String, f64>) -> M {
        model.map(&mut Mover { path: Vec::new(), optimiser: self, gradients, rates })
    }

    /// Where a parameter goes from `value` by `gradient`, both flat and outside autodiff; `decays`: whether it loses
    /// weight.
    fn update(
        &mut self,
        name: &str,
        value: Tensor<1>,
        gradient: Tensor<1>,
        rate: f64,
        decays: bool,
    ) -> Tensor<1> {
        let steps = self.steps.entry(name.to_owned()).or_insert(0);
        *steps += 1;
        let memory = self.memory.remove(name);
        let of = |weight_decay: f64| if decays { weight_decay } else { 0.0 };
        let added = |gradient: Tensor<1>, weight_decay: f64| match of(weight_decay) {
            0.0 => gradient,
            weight_decay => gradient + value.clone() * weight_decay,
        };
        let shrunk = |weight_decay: f64| match of(weight_decay) {
            0.0 => value.clone(),
            weight_decay => value.clone() * (1.0 - rate * weight_decay),
        };
        let (value, memory) = match self.options {
            OptimiserOptions::Adam { beta_1, beta_2, epsilon, weight_decay } => {
                let gradient = added(gradient, weight_decay);
                adam(value, gradient, memory, *steps, [beta_1, beta_2, epsilon, rate])
            }
            OptimiserOptions::AdamW { beta_1, beta_2, epsilon, weight_decay } => {
                adam(shrunk(weight_decay), gradient, memory, *steps, [beta_1, beta_2, epsilon, rate])
            }
            OptimiserOptions::RAdam { beta_1, beta_2, epsilon, weight_decay, decoupled } => {
                let numbers = [beta_1, beta_2, epsilon, rate];
                if decoupled {
                    radam(shrunk(weight_decay), gradient, memory, *steps, numbers)
                } else {
                    let gradient = added(gradient, weight_decay);
                    radam(value, gradient, memory, *steps, numbers)
                }
            }
            OptimiserOptions::Ranger { beta_1, beta_2, epsilon, weight_decay, sync_every, fast_share } => {
                let mut memory = memory.unwrap_or_default();
                // The third part; at the first step there is none.
                let slow = memory.pop().unwrap_or_else(|| value.clone());
                let (fast, mut memory) = radam(
                    shrunk(weight_decay),
                    gradient,
                    (!memory.is_empty()).then_some(memory),
                    *steps,
                    [beta_1, beta_2, epsilon, rate],
                );
                let (value, slow) = if steps.is_multiple_of(sync_every) {
                    let both = fast * fast_share + slow * (1.0 - fast_share);
                    (both.clone(), both)
                } else {
                    (fast, slow)
                };
                memory.push(slow);
                (value, memory)
            }
            OptimiserOptions::Sgd { momentum, dampening, nesterov, weight_decay } => {
                let gradient = added(gradient, weight_decay);
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

/// The moments with this gradient in them.
fn moments(memory: Option<Memory>, gradient: Tensor<1>, beta_1: f64, beta_2: f64) -> (Tensor<1>, Tensor<1>) {
    let mut parts = memory.unwrap_or_default().into_iter();
    match (parts.next(), parts.next()) {
        (Some(moment_1), Some(moment_2)) => (
            moment_1 * beta_1 + gradient.clone() * (1.0 - beta_1),
            moment_2 * beta_2 + gradient.square() * (1.0 - beta_2),
        ),
        _ => (gradient.clone() * (1.0 - beta_1), gradient.square() * (1.0 - beta_2)),
    }
}

// In f64: 1 - beta^t loses all digits in f32 when beta is close to 1. Products, not `powf`, whose last bit is the
// platform's.
fn correction(beta: f64, steps: u64) -> f64 {
    1.0 - power(beta, steps)
}

/// One step of Adam; `steps` counts from 1.
fn adam(
    value: Tensor<1>,
    gradient: Tensor<1>,
    memory: Option<Memory>,
    steps: u64,
    [beta_1, beta_2, epsilon, rate]: [f64; 4],
) -> (Tensor<1>, Memory) {
    let (moment_1, moment_2) = moments(memory, gradient, beta_1, beta_2);
    let denominator = moment_2.clone().sqrt() * (1.0 / correction(beta_2, steps).sqrt()) + epsilon;
    let value = value - moment_1.clone() / denominator * (rate / correction(beta_1, steps));
    (value, vec![moment_1, moment_2])
}

/// One step of RAdam; `steps` counts from 1.
fn radam(
    value: Tensor<1>,
    gradient: Tensor<1>,
    memory: Option<Memory>,
    steps: u64,
    [beta_1, beta_2, epsilon, rate]: [f64; 4],
) -> (Tensor<1>, Memory) {
    let (moment_1, moment_2) = moments(memory, gradient, beta_1, beta_2);
    let size = rectified(beta_1, beta_2, steps);
    let by = if size.rectified {
        moment_1.clone() / (moment_2.clone().sqrt() + epsilon)
    } else {
        moment_1.clone()
    };
    (value - by * (rate * size.factor), vec![moment_1, moment_2])
}

/// Step of RAdam in units of the learning rate.
struct StepSize {
    /// Whether the step is divided by the root of the mean square.
    rectified: bool,
    factor: f64,
}

/// `rho_t = rho - 2 t beta_2^t / (1 - beta_2^t)` with `rho = 2 / (1 - beta_2) - 1` is the length of the mean square's
/// memory. Up to 5, the factor is `1 / (1 - beta_1^t)`; above, that times
/// `sqrt((1 - beta_2^t) (rho_t - 4) (rho_t - 2) rho / ((rho - 4) (rho - 2) rho_t))`.
fn rectified(beta_1: f64, beta_2: f64, steps: u64) -> StepSize {
    let first = 1.0 / correction(beta_1, steps);
    let left = correction(beta_2, steps);
    let longest = 2.0 / (1.0 - beta_2) - 1.0;
    let length = longest - 2.0 * steps as f64 * (1.0 - left) / left;
    if length <= 5.0 {
        return StepSize { rectified: false, factor: first };
    }
    let certainty =
        (length - 4.0) / (longest - 4.0) * ((length - 2.0) / length) * (longest / (longest - 2.0));
    StepSize { rectified: true, factor: (left * certainty).sqrt() * first }
}

/// `base^exponent` by squaring.
pub(crate) fn power(mut base: f64, mut exponent: u64) -> f64 {
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
        let decays = self.optimiser.decayed.includes(&name, &shape);
        let moved = self.optimiser.update(&name, flat, gradient, rate, decays).reshape(shape);
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

    /// Sizes known from weaver's settings: rho = 1999; five steps of momentum, then 0.00754 and 0.00907.
    #[test]
    fn ranger_begins_with_five_steps_of_momentum() {
        for steps in 1..=5 {
            let size = rectified(0.95, 0.999, steps);
            assert!(!size.rectified && (size.factor * (1.0 - power(0.95, steps)) - 1.0).abs() < 1e-15);
        }
        for (steps, factor) in [(6, 0.0075407), (7, 0.0090665)] {
            let size = rectified(0.95, 0.999, steps);
            assert!(size.rectified && (size.factor - factor).abs() < 5e-8, "{}", size.factor);
        }
        let stored = include_str!("../../../validation/weaver-optimiser/expected.json");
        let stored: serde_json::Value = serde_json::from_str(stored).unwrap();
        for (at, factor) in stored["step_sizes"].as_array().unwrap().iter().enumerate() {
            let (ours, weaver) = (rectified(0.95, 0.999, at as u64 + 1).factor, factor.as_f64().unwrap());
            assert!((ours / weaver - 1.0).abs() < 1e-9, "step {}: {ours}, weaver {weaver}", at + 1);
        }
        let late = rectified(0.95, 0.999, 100_000);
        assert!(late.rectified && (late.factor - 1.0).abs() < 1e-12);
        // A memory too short to be certain of anything never leaves momentum.
        assert!(!rectified(0.9, 0.5, 1000).rectified);
    }

    #[test]
    fn options_are_checked_and_unknown_keys_refused() {
        for (text, name) in [
            (r#"{"kind": "adam", "beta_2": 1.0}"#, "optimiser.beta_2"),
            (r#"{"kind": "adam-w", "epsilon": -1}"#, "optimiser.epsilon"),
            (r#"{"kind": "sgd", "nesterov": true, "momentum": 0}"#, "optimiser.nesterov"),
            (r#"{"kind": "sgd", "nesterov": true, "dampening": 0.1}"#, "optimiser.nesterov"),
            (r#"{"kind": "sgd", "weight_decay": -0.1}"#, "optimiser.weight_decay"),
            (r#"{"kind": "radam", "beta_1": -0.1}"#, "optimiser.beta_1"),
            (r#"{"kind": "ranger", "weight_decay": -0.1}"#, "optimiser.weight_decay"),
            (r#"{"kind": "ranger", "sync_every": 0}"#, "optimiser.sync_every"),
            (r#"{"kind": "ranger", "fast_share": 0}"#, "optimiser.fast_share"),
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
