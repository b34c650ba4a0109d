//! A network's numbers as named tensors on the host, in our names and layout.
//!
//! A matrix of a linear layer is `[inputs, outputs]`. The role of a tensor is in its name: a buffer's last
//! component starts with `running_`.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::NnError;

/// What a tensor of a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Learnt by gradient.
    Parameter,
    /// Moved by forward passes: a running statistic.
    Buffer,
}

impl Role {
    /// The role that a tensor name implies.
    pub fn of(name: &str) -> Self {
        let last = name.rsplit('.').next().unwrap_or(name);
        if last.starts_with("running_") { Self::Buffer } else { Self::Parameter }
    }
}

/// One tensor of a [`State`], row major.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// Elements, the last dimension fastest.
    pub values: Vec<f32>,
    /// Parameter or buffer.
    pub role: Role,
}

/// Every parameter and buffer of a network by name.
pub type State = BTreeMap<String, NamedTensor>;

/// The stable identity of the parameter called `name`: optimiser records find it again after a restart.
pub fn parameter_id(name: &str) -> ParamId {
    let digest = blake3::hash(name.as_bytes());
    let mut bytes = [0u8; 8];
    bytes.copy_from_slice(&digest.as_bytes()[..8]);
    ParamId::from(u64::from_le_bytes(bytes))
}

/// Copies every parameter and buffer to the host; running statistics are up to date.
pub fn state<M: Module>(module: &M) -> State {
    let mut visitor = Reader::default();
    module.visit(&mut visitor);
    visitor.state
}

/// Identities of the parameters (not the buffers) by name.
pub fn parameter_ids<M: Module>(module: &M) -> BTreeMap<String, ParamId> {
    let mut visitor = Identities::default();
    module.visit(&mut visitor);
    visitor.ids
}

/// Puts a state into a network of the same names and shapes. Devices, gradient requirements and parameter
/// identities of the network stay.
///
/// # Errors
/// [`NnError::Names`] or [`NnError::Shape`]; [`NnError::Weights`] if a tensor's values do not fill its shape.
pub fn load_state<M: Module>(module: M, state: &State) -> Result<M, NnError> {
    let mut expected = Shapes::default();
    module.visit(&mut expected);
    let missing: Vec<String> =
        expected.shapes.keys().filter(|name| !state.contains_key(*name)).cloned().collect();
    let unexpected: Vec<String> =
        state.keys().filter(|name| !expected.shapes.contains_key(*name)).cloned().collect();
    if !missing.is_empty() || !unexpected.is_empty() {
        return Err(NnError::Names { missing, unexpected });
    }
    for (name, tensor) in state {
        let shape = &expected.shapes[name];
        if &tensor.shape != shape {
            return Err(NnError::Shape {
                name: name.clone(),
                found: tensor.shape.clone(),
                expected: shape.clone(),
            });
        }
        if tensor.values.len() != shape.iter().product::<usize>() {
            return Err(NnError::Weights {
                file: None,
                name: Some(name.clone()),
                found: format!("{} values", tensor.values.len()),
                expected: format!("{} values for shape {shape:?}", shape.iter().product::<usize>()),
            });
        }
    }
    Ok(module.map(&mut Writer { path: Vec::new(), state }))
}

#[derive(Default)]
struct Reader {
    path: Vec<String>,
    state: State,
}

impl ModuleVisitor for Reader {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        let tensor = param.val().without_autodiff();
        let shape = tensor.dims().to_vec();
        let values: Vec<f32> = tensor.into_data().iter::<f32>().collect();
        let role = Role::of(&name);
        self.state.insert(name, NamedTensor { shape, values, role });
    }
}

#[derive(Default)]
struct Identities {
    path: Vec<String>,
    ids: BTreeMap<String, ParamId>,
}

impl ModuleVisitor for Identities {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        if Role::of(&name) == Role::Parameter {
            self.ids.insert(name, param.id);
        }
    }
}

#[derive(Default)]
struct Shapes {
    path: Vec<String>,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl ModuleVisitor for Shapes {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.shapes.insert(self.path.join("."), param.lazy_shape().to_vec());
    }
}

struct Writer<'a> {
    path: Vec<String>,
    state: &'a State,
}

impl ModuleMapper for Writer<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        // `load_state` has checked that names and shapes match.
        let Some(source) = self.state.get(&self.path.join(".")) else { return param };
        let (id, old, mapper) = param.consume();
        let data = TensorData::new(source.values.clone(), source.shape.clone());
        let mut new = Tensor::from_data(data, &old.device());
        if old.is_require_grad() {
            new = new.require_grad();
        }
        Param::from_mapped_value(id, new, mapper)
    }
}
