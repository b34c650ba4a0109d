//! Chains of operations that act on each row by itself: linear maps with bias and activation, layer normalisation,
//! dropout, scaling, residual addition.
//!
//! A transformer is attention plus such chains. On the CPU a chain is done tile by tile, so what lies between its steps
//! stays in cache; only what a linear map gives is kept for the backward, which computes the rest again.

mod cpu;
mod kernels;
pub mod plain;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;

use std::sync::Arc;

use super::bridge;
use super::cpu::Path;
use super::dropout::Dropout;

/// What follows a linear map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `max(x, 0)`.
    Relu,
    /// `x Phi(x)`, exact.
    Gelu,
}

/// One step of a [`chain`] on rows of C columns.
#[derive(Clone, Debug)]
pub enum Step {
    /// `(x - mean) / sqrt(variance + 1e-5) * weight + bias`, mean and biased variance over the row's columns
    /// (J. L. Ba et al., arXiv:1607.06450).
    Norm {
        /// `[C]`.
        weight: Tensor<1>,
        /// `[C]`.
        bias: Tensor<1>,
    },
    /// `activation(x W + b)`.
    Linear {
        /// `[C, D]`.
        weight: Tensor<2>,
        /// `[D]`.
        bias: Tensor<1>,
        /// What follows.
        activation: Activation,
    },
    /// `x * scale` with `scale: [C]`; directly after a linear map without activation.
    Scale(Tensor<1>),
    /// Sets entries to 0 with probability `rate` in `[0, 1)`, multiplies the others by `1 / (1 - rate)`.
    Dropout {
        /// Probability.
        rate: f64,
        /// Seed of the mask.
        seed: u64,
    },
    /// `x + rows`, or `x + rows * scale`.
    Add {
        /// `[rows, C]`.
        rows: Tensor<2>,
        /// `[C]`.
        scale: Option<Tensor<1>>,
    },
}

/// Takes rows through the steps.
///
/// # Shapes
/// `[rows, C]` to `[rows, D]` with D the width after the last linear map.
///
/// # Panics
/// If shapes do not agree, there is no step, or a scale does not follow a linear map without activation.
pub fn chain(x: Tensor<2>, steps: Vec<Step>) -> Tensor<2> {
    let [rows, mut columns] = x.dims();
    let mut scalable = false;
    assert!(!steps.is_empty(), "a chain has steps");
    for step in &steps {
        let was_linear = std::mem::take(&mut scalable);
        match step {
            Step::Norm { weight, bias } => {
                assert_eq!((weight.dims(), bias.dims()), ([columns], [columns]), "norm");
            }
            Step::Linear { weight, bias, activation } => {
                let [inputs, outputs] = weight.dims();
                assert_eq!((inputs, bias.dims()), (columns, [outputs]), "linear map");
                columns = outputs;
                scalable = *activation == Activation::None;
            }
            Step::Scale(scale) => {
                assert_eq!(scale.dims(), [columns], "scale");
                assert!(was_linear, "a scale follows a linear map without activation");
            }
            Step::Dropout { .. } => {}
            Step::Add { rows: other, scale } => {
                assert_eq!(other.dims(), [rows, columns], "rows to add");
                assert!(
                    scale.as_ref().is_none_or(|scale| scale.dims() == [columns]),
                    "scale of the added rows"
                );
            }
        }
    }
    if bridge::takes(&x) && tensors(&steps) < MAX_PARENTS { on_cpu(x, steps) } else { plain::chain(x, steps) }
}

/// Most tensors that one chain on the CPU reads.
const MAX_PARENTS: usize = 16;

fn tensors(steps: &[Step]) -> usize {
    (steps.iter())
        .map(|step| match step {
            Step::Norm { .. } | Step::Linear { .. } | Step::Add { scale: Some(_), .. } => 2,
            Step::Scale(_) | Step::Add { scale: None, .. } => 1,
            Step::Dropout { .. } => 0,
        })
        .sum()
}

fn on_cpu(x: Tensor<2>, steps: Vec<Step>) -> Tensor<2> {
    let mut lifted = x.is_autodiff();
    let mut parents = Vec::with_capacity(MAX_PARENTS);
    fn part<const D: usize>(
        tensor: Tensor<D>,
        parents: &mut Vec<NodeGuard>,
        lifted: &mut bool,
    ) -> FlexTensor {
        *lifted |= tensor.is_autodiff();
        let (buffer, parent) = bridge::parts(tensor);
        parents.push(parent);
        buffer.to_contiguous()
    }
    let x = part(x, &mut parents, &mut lifted);
    let steps = (steps.into_iter())
        .map(|step| match step {
            Step::Norm { weight, bias } => cpu::Step::Norm {
                weight: part(weight, &mut parents, &mut lifted),
                bias: part(bias, &mut parents, &mut lifted),
            },
            Step::Linear { weight, bias, activation } => cpu::Step::Linear {
                weight: part(weight, &mut parents, &mut lifted),
                bias: part(bias, &mut parents, &mut lifted),
                activation,
            },
            Step::Scale(scale) => cpu::Step::Scale(part(scale, &mut parents, &mut lifted)),
            Step::Dropout { rate, seed } => cpu::Step::Dropout(Dropout::new(rate, seed)),
            Step::Add { rows, scale } => cpu::Step::Add {
                rows: part(rows, &mut parents, &mut lifted),
                scale: scale.map(|scale| part(scale, &mut parents, &mut lifted)),
            },
        })
        .collect();
    let chain = cpu::Chain::new(x, steps);
    // The number of parents is part of the type of a backward.
    macro_rules! run_with {
        ($($count:literal)+) => {
            match parents.len() {
                $($count => match <[NodeGuard; $count]>::try_from(parents) {
                    Ok(parents) => run(chain, parents, lifted),
                    Err(parents) => unreachable!("{} parents", parents.len()),
                },)+
                count => unreachable!("{count} parents"),
            }
        };
    }
    run_with!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
}

fn run<const N: usize>(chain: cpu::Chain, parents: [NodeGuard; N], lifted: bool) -> Tensor<2> {
    let path = Path::current();
    let shape = [chain.rows(), chain.outputs()];
    match ChainBackward.prepare::<NoCheckpointing>(parents).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let (y, kept) = cpu::forward(&chain, true, path);
            let y = bridge::tensor(y, shape);
            Tensor::from_primitive::<Autodiff<Flex>>(prepared.finish(Arc::new(Saved { chain, kept }), y))
        }
        OpsKind::UnTracked(prepared) => {
            let y = bridge::tensor(cpu::forward(&chain, false, path).0, shape);
            if lifted {
                Tensor::from_primitive::<Autodiff<Flex>>(prepared.finish(y))
            } else {
                Tensor::from_primitive::<Flex>(y)
            }
        }
    }
}

/// What the backward keeps.
#[derive(Debug)]
struct Saved {
    chain: cpu::Chain,
    kept: Vec<super::cpu::Buffer>,
}

#[derive(Debug)]
struct ChainBackward;

impl<const N: usize> Backward<Flex, N> for ChainBackward {
    type State = Arc<Saved>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node).to_contiguous();
        let wanted: Vec<bool> = ops.parents.iter().map(Option::is_some).collect();
        let Saved { chain, kept } = &*ops.state;
        let found = cpu::backward(chain, kept, bridge::slice(&dy), &wanted, Path::current());
        for ((values, shape), parent) in found.into_iter().zip(&ops.parents) {
            let Some(parent) = parent else { continue };
            let gradient = match *shape {
                [rows, columns] => bridge::tensor(values, [rows, columns]),
                _ => {
                    let length = values.len();
                    bridge::tensor(values, [length])
                }
            };
            grads.register::<Flex>(parent.id, gradient);
        }
    }
}
