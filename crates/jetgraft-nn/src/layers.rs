//! The pieces that backbones are made of. Initial values follow PyTorch and depend on a seed and the
//! parameter's full name only.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::{
    Content, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param,
};
use burn::tensor::{Device, Tensor, TensorData};

use crate::contract::NormMode;
use crate::init::uniform;
use crate::ops::{Moments, Norm};
use crate::state::parameter_id;

/// Added to a variance before its root is taken; PyTorch's default.
pub const NORM_EPSILON: f64 = 1e-5;

/// Weight of the newest batch in a running statistic; PyTorch's default.
pub const NORM_MOMENTUM: f64 = 0.1;

/// A parameter with the identity of its name, trainable.
pub(crate) fn parameter<const D: usize>(
    name: &str,
    values: Vec<f32>,
    shape: [usize; D],
    device: &Device,
) -> Param<Tensor<D>> {
    let tensor = Tensor::from_data(TensorData::new(values, shape), device);
    Param::initialized(parameter_id(name), tensor).set_require_grad(true)
}

/// A tensor that forward passes move and gradients do not.
///
/// Unlike Burn's `RunningState`, a clone owns its value (a pass of a copy leaves the original alone), and the
/// value is always up to date. It is kept outside the autodiff graph.
#[derive(Debug)]
pub struct Buffer {
    id: burn::module::ParamId,
    value: Mutex<Tensor<1>>,
}

impl Buffer {
    /// A buffer with the identity of its name, filled with one value.
    pub fn full(name: &str, size: usize, value: f32, device: &Device) -> Self {
        let device = device.clone().inner();
        let tensor = Tensor::from_data(TensorData::new(vec![value; size], [size]), &device);
        Self { id: parameter_id(name), value: Mutex::new(tensor) }
    }

    /// The value, without autodiff.
    pub fn value(&self) -> Tensor<1> {
        self.lock().clone()
    }

    /// Replaces the value.
    pub fn set(&self, value: Tensor<1>) {
        *self.lock() = value.without_autodiff();
    }

    fn lock(&self) -> MutexGuard<'_, Tensor<1>> {
        // A panic elsewhere cannot leave a tensor half written.
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mapped(self, change: impl FnOnce(Tensor<1>) -> Tensor<1>) -> Self {
        let value = self.value.into_inner().unwrap_or_else(PoisonError::into_inner);
        Self { id: self.id, value: Mutex::new(change(value).without_autodiff()) }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self { id: self.id, value: Mutex::new(self.value()) }
    }
}

impl Module for Buffer {
    fn collect_devices(&self, mut devices: Vec<Device>) -> Vec<Device> {
        let device = self.value().device();
        if !devices.iter().any(|known| known.clone().inner() == device) {
            devices.push(device);
        }
        devices
    }

    fn fork(self, device: &Device) -> Self {
        self.to_device(device)
    }

    fn to_device(self, device: &Device) -> Self {
        let device = device.clone().inner();
        self.mapped(|value| value.to_device(&device))
    }

    fn train(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        self.clone()
    }

    fn materialize(self) -> Self {
        self
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.visit_float(&Param::initialized(self.id, self.value()));
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let id = self.id;
        self.mapped(|value| mapper.map_float(Param::initialized(id, value)).consume().1)
    }
}

impl ModuleDisplayDefault for Buffer {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&format!("Buffer {:?}", self.value().dims())).optional()
    }
}

impl ModuleDisplay for Buffer {}

/// Linear map of rows, `x W + b` with `W: [inputs, outputs]`.
#[derive(Module, Debug)]
pub struct Dense {
    /// `[inputs, outputs]`.
    pub weight: Param<Tensor<2>>,
    /// `[outputs]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Dense {
    /// PyTorch's default start: weight and bias uniform in `±1/sqrt(inputs)`.
    pub fn new(name: &str, inputs: usize, outputs: usize, bias: bool, seed: u64, device: &Device) -> Self {
        let bound = 1.0 / (inputs as f32).sqrt();
        Self::drawn(name, name, [inputs, outputs], bound, bias.then_some(bound), seed, device)
    }

    /// Weight and bias (if any) uniform within their bounds, drawn as those of the layer called `source` (usually its
    /// own name).
    pub fn drawn(
        name: &str,
        source: &str,
        [inputs, outputs]: [usize; 2],
        weight_bound: f32,
        bias_bound: Option<f32>,
        seed: u64,
        device: &Device,
    ) -> Self {
        // Drawn in PyTorch's order (outputs first), so that a seed names one network in either layout.
        let drawn = uniform(seed, &format!("{source}.weight"), inputs * outputs, weight_bound);
        let values = (0..inputs * outputs).map(|at| drawn[at % outputs * inputs + at / outputs]).collect();
        let bias = bias_bound.map(|bound| {
            let values = uniform(seed, &format!("{source}.bias"), outputs, bound);
            parameter(&format!("{name}.bias"), values, [outputs], device)
        });
        Self { weight: parameter(&format!("{name}.weight"), values, [inputs, outputs], device), bias }
    }

    /// What an operation needs.
    ///
    /// # Panics
    /// If it was built without a bias.
    pub fn linear(&self) -> crate::ops::dense::Linear {
        match &self.bias {
            Some(bias) => crate::ops::dense::Linear { weight: self.weight.val(), bias: bias.val() },
            None => panic!("a linear map without bias in a layer that has one"),
        }
    }

    /// Stock product.
    ///
    /// # Shapes
    /// `[rows, inputs]` to `[rows, outputs]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = x.matmul(self.weight.val());
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze::<2>(),
            None => y,
        }
    }
}

/// Layer normalisation of rows, as PyTorch's `LayerNorm`.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale, `[columns]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[columns]`.
    pub bias: Param<Tensor<1>>,
}

impl LayerNorm {
    /// Scale 1, shift 0.
    pub fn new(name: &str, columns: usize, device: &Device) -> Self {
        Self {
            weight: parameter(&format!("{name}.weight"), vec![1.0; columns], [columns], device),
            bias: parameter(&format!("{name}.bias"), vec![0.0; columns], [columns], device),
        }
    }

    /// What an operation needs.
    pub fn norm(&self) -> crate::ops::dense::LayerNorm {
        crate::ops::dense::LayerNorm { weight: self.weight.val(), bias: self.bias.val() }
    }
}

/// Batch normalisation over rows, as PyTorch's `BatchNorm1d`: the biased variance normalises, the unbiased one
/// enters the running variance.
///
/// A batch of fewer than two rows does not move the running statistics (PyTorch refuses it).
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// Scale, `[columns]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[columns]`.
    pub bias: Param<Tensor<1>>,
    /// Running mean, `[columns]`.
    pub running_mean: Buffer,
    /// Running variance, `[columns]`.
    pub running_var: Buffer,
}

impl BatchNorm {
    /// Scale 1, shift 0, running mean 0, running variance 1.
    pub fn new(name: &str, columns: usize, device: &Device) -> Self {
        Self {
            weight: parameter(&format!("{name}.weight"), vec![1.0; columns], [columns], device),
            bias: parameter(&format!("{name}.bias"), vec![0.0; columns], [columns], device),
            running_mean: Buffer::full(&format!("{name}.running_mean"), columns, 0.0, device),
            running_var: Buffer::full(&format!("{name}.running_var"), columns, 1.0, device),
        }
    }

    /// What an operation needs to normalise in `mode`.
    pub fn norm(&self, mode: NormMode) -> Norm {
        Norm {
            weight: self.weight.val(),
            bias: self.bias.val(),
            running: match mode {
                NormMode::Batch => None,
                NormMode::Running => Some((self.running_mean.value(), self.running_var.value())),
            },
        }
    }

    /// Moves the running statistics by one batch.
    pub fn observe(&self, moments: Option<Moments>) {
        let Some(Moments { mean, variance, rows }) = moments else { return };
        if rows < 2 {
            return;
        }
        let unbiased = rows as f64 / (rows - 1) as f64;
        let blend = |old: Tensor<1>, new: Tensor<1>, factor: f64| {
            old * (1.0 - NORM_MOMENTUM) + new.without_autodiff() * (NORM_MOMENTUM * factor)
        };
        self.running_mean.set(blend(self.running_mean.value(), mean, 1.0));
        self.running_var.set(blend(self.running_var.value(), variance, unbiased));
    }

    /// Stock normalisation of `[rows, columns]`; in [`NormMode::Batch`] the running statistics move.
    pub fn forward(&self, x: Tensor<2>, mode: NormMode) -> Tensor<2> {
        let (y, moments) = crate::ops::plain::batch_norm(x, &self.norm(mode));
        self.observe(moments);
        y
    }
}
