//! Between Burn's tensors and slices on the CPU.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::backend::autodiff::ops::NodeGuard;
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::{Autodiff, Flex};
use burn::tensor::{Bytes, DType, Device, Int, Shape, Tensor};

use super::Moments;
use super::cpu::{Matrix, Statistics};

static PLAIN: AtomicBool = AtomicBool::new(false);

/// For tests and comparisons: makes all operations of the process take their plain bodies, or kernels again.
#[doc(hidden)]
pub fn prefer_plain(plain: bool) {
    PLAIN.store(plain, Ordering::Relaxed);
}

/// Whether the kernels can take a tensor: 32-bit floats on Burn's CPU backend, without gradient checkpointing
/// (which the hand-written backward does not know).
pub fn takes<const D: usize>(tensor: &Tensor<D>) -> bool {
    let device = tensor.device();
    let stock = device.gradient_checkpointing_strategy();
    let plain = stock.is_none() || stock == Device::flex().autodiff().gradient_checkpointing_strategy();
    !PLAIN.load(Ordering::Relaxed)
        && plain
        && tensor.dtype() == DType::F32
        && device.inner() == Device::flex()
}

/// The tensor's buffer and its place in the autodiff graph. A plain tensor gets a place without gradient.
pub fn parts<const D: usize>(tensor: Tensor<D>) -> (FlexTensor, NodeGuard) {
    let tensor = if tensor.is_autodiff() { tensor } else { Tensor::from_inner(tensor) };
    match tensor.try_into_primitive::<Autodiff<Flex>>() {
        Ok(tensor) => tensor.into_parts(),
        Err(_) => unreachable!("`takes` has looked at the device"),
    }
}

/// The tensor's buffer.
pub fn buffer<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    match tensor.without_autodiff().try_into_primitive::<Flex>() {
        Ok(tensor) => tensor,
        Err(_) => unreachable!("`takes` has looked at the device"),
    }
}

/// The buffer of an index tensor.
pub fn indices(tensor: &Tensor<1, Int>) -> FlexTensor {
    match tensor.clone().without_autodiff().try_into_primitive::<Flex>() {
        Ok(tensor) => tensor.to_contiguous(),
        Err(_) => unreachable!("graph and features are on one device"),
    }
}

/// The numbers of a contiguous vector or matrix.
pub fn slice(tensor: &FlexTensor) -> &[f32] {
    match tensor.as_slice::<f32>() {
        Some(values) => values,
        None => unreachable!("made contiguous before"),
    }
}

/// The numbers of an index tensor.
pub fn integers(tensor: &FlexTensor) -> &[i32] {
    match tensor.as_slice::<i32>() {
        Some(values) => values,
        None => unreachable!("graphs hold contiguous 32-bit integers"),
    }
}

/// Makes rows contiguous in themselves; columns cut out of a wider matrix stay where they are.
pub fn with_whole_rows(tensor: FlexTensor) -> FlexTensor {
    let layout = tensor.layout();
    let whole = layout.shape().num_dims() == 2 && layout.strides()[1] == 1 && layout.strides()[0] >= 0;
    if whole { tensor } else { tensor.to_contiguous() }
}

/// A matrix view of a tensor with whole rows: data from its first element, and the distance of rows.
pub fn rows(tensor: &FlexTensor) -> (&[f32], usize) {
    let layout = tensor.layout();
    (&tensor.storage::<f32>()[layout.start_offset()..], layout.strides()[0] as usize)
}

/// Some rows of a tensor with whole rows.
pub fn row_range(tensor: &FlexTensor, range: std::ops::Range<usize>) -> Matrix<'_> {
    let (data, stride) = rows(tensor);
    let columns = tensor.layout().shape()[1];
    let start = (range.start * stride).min(data.len());
    Matrix::rows(&data[start..], range.len(), columns, stride)
}

/// A new buffer.
pub fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::new(shape)), DType::F32)
}

/// A new plain vector.
pub fn vector(values: Vec<f32>) -> Tensor<1> {
    let length = values.len();
    Tensor::from_primitive::<Flex>(tensor(values, [length]))
}

/// Statistics that were taken from the batch, as tensors; `None` for running ones.
pub fn moments(statistics: &Statistics) -> Option<Moments> {
    (statistics.rows > 0).then(|| Moments {
        mean: vector(statistics.mean.clone()),
        variance: vector(statistics.variance.clone()),
        rows: statistics.rows,
    })
}
