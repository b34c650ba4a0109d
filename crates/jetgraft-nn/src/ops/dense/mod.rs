//! Linear maps of rows with what usually follows them, done while a block of rows is in the cache: bias, ReLU, dropout;
//! and the two sublayers of a post-norm transformer (A. Vaswani et al., arXiv:1706.03762): linear map or feed-forward
//! network, dropout, residual, layer normalisation.
//!
//! Rows are cut into blocks by their number alone, and sums over blocks are added in order: threads do not change a
//! bit. The hidden rows of a feed-forward network exist as a whole for the backward only, and their gradient never
//! does.

mod backward;
mod forward;
mod kernels;
pub mod plain;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use super::bridge;
use super::cpu::Path;
use super::dropout::Dropout;

/// A linear map, `x W + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[I, C]`.
    pub weight: Tensor<2>,
    /// `[C]`.
    pub bias: Tensor<1>,
}

/// Layer normalisation of rows: `(x - mean) / sqrt(variance + 1e-5) * weight + bias`, mean and biased variance being
/// those of the row (arXiv:1607.06450).
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `[C]`.
    pub weight: Tensor<1>,
    /// `[C]`.
    pub bias: Tensor<1>,
}

/// `y = dropout(relu(x W + b))`, with ReLU and dropout where asked for.
///
/// # Shapes
/// `x: [N, I]` to `[N, C]`.
///
/// # Panics
/// If shapes do not agree.
pub fn dense(x: Tensor<2>, map: Linear, relu: bool, dropout: Option<Dropout>) -> Tensor<2> {
    check(&x, &map);
    if !bridge::takes(&x) || !bridge::takes(&map.weight) {
        return plain::dense(x, map, relu, dropout);
    }
    let mut parents = Parents::default();
    let inputs = Inputs {
        x: parents.rows(x),
        residual: None,
        hidden: None,
        map: parents.map(map),
        relu,
        dropout,
        norm: None,
    };
    run(inputs, parents.all::<3>(), parents.lifted)
}

/// `y = LayerNorm(residual + dropout(x W + b))`.
///
/// # Shapes
/// `x: [N, I]`, `residual: [N, C]` to `[N, C]`.
///
/// # Panics
/// If shapes do not agree.
pub fn dense_add_norm(
    x: Tensor<2>,
    map: Linear,
    dropout: Option<Dropout>,
    residual: Tensor<2>,
    norm: LayerNorm,
) -> Tensor<2> {
    check(&x, &map);
    assert_eq!(residual.dims(), [x.dims()[0], map.bias.dims()[0]], "residual");
    assert_eq!(norm.weight.dims(), map.bias.dims(), "norm");
    if !bridge::takes(&x) || !bridge::takes(&map.weight) {
        return plain::dense_add_norm(x, map, dropout, residual, norm);
    }
    let mut parents = Parents::default();
    let inputs = Inputs {
        x: parents.rows(x),
        residual: Some(parents.rows(residual)),
        hidden: None,
        map: parents.map(map),
        relu: false,
        dropout,
        norm: Some(parents.norm(norm)),
    };
    run(inputs, parents.all::<6>(), parents.lifted)
}

/// `y = LayerNorm(x + dropout(dropout(relu(x W1 + b1)) W2 + b2))`; the first dropout is that of the hidden rows.
///
/// # Shapes
/// `x: [N, C]` to `[N, C]`; hidden rows `[N, H]`.
///
/// # Panics
/// If shapes do not agree.
pub fn feed_forward_add_norm(
    x: Tensor<2>,
    hidden: Linear,
    hidden_dropout: Option<Dropout>,
    map: Linear,
    dropout: Option<Dropout>,
    norm: LayerNorm,
) -> Tensor<2> {
    check(&x, &hidden);
    assert_eq!(map.weight.dims(), [hidden.bias.dims()[0], x.dims()[1]], "second map");
    assert_eq!(map.bias.dims(), [x.dims()[1]], "second bias");
    assert_eq!(norm.weight.dims(), map.bias.dims(), "norm");
    if !bridge::takes(&x) || !bridge::takes(&map.weight) {
        return plain::feed_forward_add_norm(x, hidden, hidden_dropout, map, dropout, norm);
    }
    let mut parents = Parents::default();
    let inputs = Inputs {
        x: parents.rows(x),
        residual: None,
        hidden: Some((parents.map(hidden), hidden_dropout)),
        map: parents.map(map),
        relu: false,
        dropout,
        norm: Some(parents.norm(norm)),
    };
    run(inputs, parents.all::<7>(), parents.lifted)
}

fn check(x: &Tensor<2>, map: &Linear) {
    let [_, inputs] = x.dims();
    let [outputs] = map.bias.dims();
    assert_eq!(map.weight.dims(), [inputs, outputs], "weight of a linear map");
}

/// A linear map on the CPU, contiguous.
#[derive(Clone, Debug)]
struct CpuLinear {
    weight: FlexTensor,
    bias: FlexTensor,
}

impl CpuLinear {
    fn inputs(&self) -> usize {
        self.weight.layout().shape()[0]
    }

    fn outputs(&self) -> usize {
        self.weight.layout().shape()[1]
    }
}

/// Everything that an operation reads.
#[derive(Clone, Debug)]
struct Inputs {
    /// `[N, I]` with whole rows.
    x: FlexTensor,
    /// `[N, C]` with whole rows; where there is a norm and no residual, it is `x`.
    residual: Option<FlexTensor>,
    /// First of two maps, with ReLU, and its dropout.
    hidden: Option<(CpuLinear, Option<Dropout>)>,
    /// The map that gives the output.
    map: CpuLinear,
    /// ReLU of the output; not with a norm.
    relu: bool,
    /// Dropout of the output (before the residual).
    dropout: Option<Dropout>,
    /// Scale and shift; with them the residual is added and rows are normalised.
    norm: Option<CpuLayerNorm>,
}

/// Scale and shift of a layer norm, contiguous.
#[derive(Clone, Debug)]
struct CpuLayerNorm {
    weight: FlexTensor,
    bias: FlexTensor,
}

impl Inputs {
    fn rows(&self) -> usize {
        self.x.layout().shape()[0]
    }
}

/// Gathers the buffers of tensors and their places in the autodiff graph.
#[derive(Default)]
struct Parents {
    guards: Vec<NodeGuard>,
    lifted: bool,
}

impl Parents {
    fn add<const D: usize>(&mut self, tensor: Tensor<D>) -> FlexTensor {
        self.lifted |= tensor.is_autodiff();
        let (buffer, parent) = bridge::parts(tensor);
        self.guards.push(parent);
        buffer
    }

    fn rows(&mut self, tensor: Tensor<2>) -> FlexTensor {
        bridge::with_whole_rows(self.add(tensor))
    }

    fn map(&mut self, map: Linear) -> CpuLinear {
        CpuLinear { weight: self.add(map.weight).to_contiguous(), bias: self.add(map.bias).to_contiguous() }
    }

    fn norm(&mut self, norm: LayerNorm) -> CpuLayerNorm {
        CpuLayerNorm {
            weight: self.add(norm.weight).to_contiguous(),
            bias: self.add(norm.bias).to_contiguous(),
        }
    }

    fn all<const N: usize>(&mut self) -> [NodeGuard; N] {
        match <[NodeGuard; N]>::try_from(std::mem::take(&mut self.guards)) {
            Ok(guards) => guards,
            Err(guards) => unreachable!("{} parents", guards.len()),
        }
    }
}

fn run<const N: usize>(inputs: Inputs, parents: [NodeGuard; N], lifted: bool) -> Tensor<2> {
    let path = Path::current();
    let shape = [inputs.rows(), inputs.map.outputs()];
    let graph = Tensor::from_primitive::<Autodiff<Flex>>;
    match DenseBackward.prepare::<NoCheckpointing>(parents).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let (values, passed) = forward::forward(&inputs, true, path);
            let y = bridge::tensor(values, shape);
            // The sign of the output tells where its ReLU let something through.
            let kept = inputs.relu.then(|| y.clone());
            graph(prepared.finish(Arc::new(Saved { inputs, passed, y: kept }), y))
        }
        OpsKind::UnTracked(prepared) => {
            let y = bridge::tensor(forward::forward(&inputs, false, path).0, shape);
            if lifted { graph(prepared.finish(y)) } else { Tensor::from_primitive::<Flex>(y) }
        }
    }
}

/// What the backward keeps.
#[derive(Debug)]
struct Saved {
    inputs: Inputs,
    passed: forward::Passed,
    y: Option<FlexTensor>,
}

#[derive(Debug)]
struct DenseBackward;

impl<const N: usize> Backward<Flex, N> for DenseBackward {
    type State = Arc<Saved>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let Saved { inputs, passed, y } = &*ops.state;
        let wanted: Vec<bool> = ops.parents.iter().map(Option::is_some).collect();
        // Parents in the order in which they were gathered: x, residual, maps, norm.
        let first_map = 1 + usize::from(inputs.residual.is_some());
        let last_map = first_map + if inputs.hidden.is_some() { 2 } else { 0 };
        let wanted = backward::Wanted {
            x: wanted[0],
            residual: inputs.residual.is_some() && wanted[1],
            hidden: inputs.hidden.is_some() && (wanted[first_map] || wanted[first_map + 1]),
            map: wanted[last_map],
        };
        let (dy, y) = (bridge::slice(&dy), y.as_ref().map_or(&[][..], bridge::slice));
        let found = backward::backward(inputs, passed, y, dy, wanted, Path::current());

        let (rows, c) = (inputs.rows(), inputs.map.outputs());
        let mut ordered: Vec<(Vec<f32>, [usize; 2])> = vec![(found.x, [rows, inputs.x.layout().shape()[1]])];
        if inputs.residual.is_some() {
            ordered.push((found.residual, [rows, c]));
        }
        if let Some((hidden, _)) = &inputs.hidden {
            ordered.push((found.hidden.0, [hidden.inputs(), hidden.outputs()]));
            ordered.push((found.hidden.1, [0, hidden.outputs()]));
        }
        ordered.push((found.map.0, [inputs.map.inputs(), c]));
        ordered.push((found.map.1, [0, c]));
        if inputs.norm.is_some() {
            ordered.push((found.norm.0, [0, c]));
            ordered.push((found.norm.1, [0, c]));
        }
        for ((values, shape), parent) in ordered.into_iter().zip(&ops.parents) {
            let Some(parent) = parent else { continue };
            let vector = shape[0] == 0 && values.len() == shape[1];
            let gradient =
                if vector { bridge::tensor(values, [shape[1]]) } else { bridge::tensor(values, shape) };
            grads.register::<Flex>(parent.id, gradient);
        }
    }
}
