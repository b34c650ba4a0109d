//! Contrast between two views of the same jets: NT-Xent (T. Chen et al., arXiv:2002.05709, equation 1), and the two
//! monitors of T. Wang, P. Isola, arXiv:2005.10242: alignment and uniformity.
//!
//! With N jets, the 2N outputs of both views are brought to length 1. For the anchor `a` with partner `p`,
//! `l_a = -s_ap / t + ln sum over k other than a of exp(s_ak / t)`, `s` being the scalar product and `t` the
//! temperature; the loss is the mean over the 2N anchors. It is computed as `softplus(m_a - s_ap / t)` with
//! `m_a = ln sum over the others but the partner of exp(s_ak / t)`, the largest exponent taken out first: nothing
//! overflows in 32 bits for any temperature, and a loss near 0 keeps its digits.
//!
//! The similarities are one matrix product. The kernel makes a block of their rows at a time and makes it again for
//! the backward: (2N)^2 numbers are never there at once.

use std::ops::Range;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::bridge;
use super::cpu::{Buffer, Matrix, Path, kernels, product, unset};

/// Squared length that is added before a root is taken: a row of zeros stays one.
const LENGTH_EPSILON: f32 = 1e-24;

/// Anchors whose similarities are there at a time.
const BLOCK: usize = 64;

/// NT-Xent of two views; row `i` of one belongs to row `i` of the other.
///
/// A single pair has nothing to be told from: its loss is 0.
///
/// # Shapes
/// `[N, D]` each, N at least 1, to `[1]`.
///
/// # Panics
/// If shapes do not agree, or the temperature is not a positive number.
pub fn nt_xent(first: Tensor<2>, second: Tensor<2>, temperature: f64) -> Tensor<1> {
    assert_eq!(first.dims(), second.dims(), "both views");
    assert!(first.dims()[0] > 0, "a pair or more");
    assert!(temperature > 0.0 && temperature.is_finite(), "temperature {temperature}");
    if !bridge::takes(&first) || !bridge::takes(&second) {
        return plain::nt_xent(first, second, temperature);
    }
    let lifted = first.is_autodiff() || second.is_autodiff();
    let [rows, columns] = first.dims();
    let (first, first_parent) = bridge::parts(first);
    let (second, second_parent) = bridge::parts(second);
    let (first, second) = (first.to_contiguous(), second.to_contiguous());
    let (loss, state) = State::forward(&first, &second, rows, columns, 1.0 / temperature as f32);
    let loss = bridge::tensor(vec![loss], [1]);
    let parents = [first_parent, second_parent];
    match NtXentBackward.prepare::<NoCheckpointing>(parents).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            Tensor::from_primitive::<Autodiff<Flex>>(prepared.finish(std::sync::Arc::new(state), loss))
        }
        OpsKind::UnTracked(prepared) if lifted => {
            Tensor::from_primitive::<Autodiff<Flex>>(prepared.finish(loss))
        }
        OpsKind::UnTracked(_) => Tensor::from_primitive::<Flex>(loss),
    }
}

/// Mean squared distance of the two views of a jet, both brought to length 1: 0 where they agree, at most 4.
///
/// # Shapes
/// `[N, D]` each to `[1]`.
pub fn alignment(first: Tensor<2>, second: Tensor<2>) -> Tensor<1> {
    let distance = plain::normalised(first) - plain::normalised(second);
    distance.powi_scalar(2).sum_dim(1).mean()
}

/// `ln mean over pairs of exp(-2 d^2)`, `d` being the distance of two jets' outputs of length 1: 0 where all are the
/// same, about -4 where they fill a sphere of many dimensions. Take the mean over the two views.
///
/// # Shapes
/// `[N, D]` to `[1]`; not a number for fewer than two jets, which have no pair.
pub fn uniformity(view: Tensor<2>) -> Tensor<1> {
    let [rows, _] = view.dims();
    let unit = plain::normalised(view);
    let cosines = unit.clone().matmul(unit.transpose());
    // d^2 = 2 - 2 cos; each pair is there twice, and each jet once with itself, as exp(0) up to rounding.
    let terms = ((cosines - 1.0) * 4.0).exp();
    let other = Tensor::<2>::ones([rows, rows], &terms.device()) - Tensor::eye(rows, &terms.device());
    ((terms * other).sum() / (rows * (rows - 1)) as f64).log()
}

/// NT-Xent in stock operations.
pub mod plain {
    use burn::tensor::{Device, Tensor, TensorData};

    /// Rows of length 1 (a row of zeros stays).
    pub fn normalised(x: Tensor<2>) -> Tensor<2> {
        let lengths = (x.clone().powi_scalar(2).sum_dim(1) + super::LENGTH_EPSILON).sqrt();
        x / lengths
    }

    /// Minus infinity, for all that matters, at the anchor itself and its partner.
    fn others(rows: usize, device: &Device) -> Tensor<2> {
        let all = 2 * rows;
        let mut values = vec![0f32; all * all];
        for at in 0..all {
            values[at * all + at] = -1e30;
            values[at * all + (at + rows) % all] = -1e30;
        }
        Tensor::from_data(TensorData::new(values, [all, all]), device)
    }

    /// See [`super::nt_xent`].
    pub fn nt_xent(first: Tensor<2>, second: Tensor<2>, temperature: f64) -> Tensor<1> {
        let [rows, _] = first.dims();
        let (first, second) = (normalised(first), normalised(second));
        let partners = (first.clone() * second.clone()).sum_dim(1) / temperature;
        let partners = Tensor::cat(vec![partners.clone(), partners], 0);
        let all = Tensor::cat(vec![first, second], 0);
        let logits = all.clone().matmul(all.transpose()) / temperature + others(rows, &partners.device());
        let most = logits.clone().detach().max_dim(1);
        let others = (logits - most.clone()).exp().sum_dim(1).log() + most;
        // softplus, stable on both sides.
        let margin = others - partners;
        (margin.clone().clamp_min(0.0) + (margin.abs() * -1.0).exp().log1p()).mean()
    }
}

/// What the forward pass leaves for the backward.
#[derive(Debug)]
struct State {
    rows: usize,
    columns: usize,
    /// One over the temperature.
    sharpness: f32,
    /// Both views, each row of length 1: `[2N, D]`.
    unit: Buffer,
    /// One over the length of each row.
    inverse: Vec<f32>,
    /// Logarithm of the sum over all but the anchor and its partner.
    others: Vec<f32>,
    /// Slope of the loss of each anchor in that logarithm: how likely it is to take another for its partner.
    slopes: Vec<f32>,
}

impl State {
    fn all(&self) -> usize {
        2 * self.rows
    }

    fn partner(&self, anchor: usize) -> usize {
        (anchor + self.rows) % self.all()
    }

    fn blocks(&self) -> Vec<Range<usize>> {
        let all = self.all();
        (0..all).step_by(BLOCK).map(|start| start..(start + BLOCK).min(all)).collect()
    }

    /// Similarities over temperature of some anchors with all.
    fn logits<'a>(&self, anchors: &Range<usize>, buffer: &'a mut Buffer) -> &'a mut [f32] {
        let (all, d) = (self.all(), self.columns);
        let logits = buffer.at_least(anchors.len() * all);
        let left = Matrix::rows(&self.unit[anchors.start * d..], anchors.len(), d, d);
        product(logits, all, false, left, Matrix::rows(&self.unit, all, d, d).transposed());
        logits.iter_mut().for_each(|logit| *logit *= self.sharpness);
        logits
    }

    fn forward(
        first: &FlexTensor,
        second: &FlexTensor,
        rows: usize,
        columns: usize,
        sharpness: f32,
    ) -> (f32, Self) {
        let path = Path::current();
        let mut state = Self {
            rows,
            columns,
            sharpness,
            unit: Buffer::take(2 * rows * columns),
            inverse: vec![0.0; 2 * rows],
            others: vec![0.0; 2 * rows],
            slopes: vec![0.0; 2 * rows],
        };
        let (head, tail) = state.unit.split_at_mut(rows * columns);
        head.copy_from_slice(bridge::slice(first));
        tail.copy_from_slice(bridge::slice(second));
        normalise(path, &mut state.unit, columns, &mut state.inverse);
        let parts: Vec<Vec<(f32, f32, f32)>> = state
            .blocks()
            .into_par_iter()
            .map_init(Buffer::default, |buffer, anchors| {
                let logits = state.logits(&anchors, buffer);
                let anchors = logits.chunks_exact(state.all()).zip(anchors);
                anchors.map(|(logits, anchor)| one_loss(logits, anchor, state.partner(anchor))).collect()
            })
            .collect();
        let mut loss = 0f64;
        for (anchor, (one, others, slope)) in parts.into_iter().flatten().enumerate() {
            loss += f64::from(one);
            state.others[anchor] = others;
            state.slopes[anchor] = slope;
        }
        ((loss / state.all() as f64) as f32, state)
    }

    /// Gradients of both views, one after the other.
    fn backward(&self, gradient: f32) -> Vec<f32> {
        let path = Path::current();
        let (all, d) = (self.all(), self.columns);
        let scale = gradient * self.sharpness / all as f32;
        let mut dx = unset(all * d);
        dx.par_chunks_mut((BLOCK * d).max(1)).zip(self.blocks()).for_each_init(
            Buffer::default,
            |buffer, (dx, anchors)| {
                let logits = self.logits(&anchors, buffer);
                for (row, anchor) in logits.chunks_exact_mut(all).zip(anchors.clone()) {
                    let partner = self.partner(anchor);
                    // A pair of jets meets twice, with either as the anchor.
                    let (own, slope) = (self.others[anchor], self.slopes[anchor]);
                    for (k, value) in row.iter_mut().enumerate() {
                        *value = if k == anchor {
                            0.0
                        } else if k == partner {
                            -scale * (slope + self.slopes[partner])
                        } else {
                            let as_anchor = slope * (*value - own).exp();
                            let as_other = self.slopes[k] * (*value - self.others[k]).exp();
                            scale * (as_anchor + as_other)
                        };
                    }
                }
                let left = Matrix::rows(logits, anchors.len(), all, all);
                product(dx, d, false, left, Matrix::rows(&self.unit, all, d, d));
                let unit = &self.unit[anchors.start * d..anchors.end * d];
                unit_gradient(path, unit, &self.inverse[anchors], d, dx);
            },
        );
        dx
    }
}

/// Loss of one anchor, logarithm of the sum over others, slope.
fn one_loss(logits: &[f32], anchor: usize, partner: usize) -> (f32, f32, f32) {
    let others = || {
        let each = logits.iter().enumerate();
        each.filter(move |&(k, _)| k != anchor && k != partner).map(|(_, &logit)| logit)
    };
    // `max` would swallow a NaN.
    let most = others().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b });
    if most == f32::NEG_INFINITY {
        return (0.0, most, 0.0);
    }
    let sum: f32 = others().map(|logit| (logit - most).exp()).sum();
    let others = most + sum.ln();
    let margin = others - logits[partner];
    let small = (-margin.abs()).exp();
    let loss = margin.max(0.0) + small.ln_1p();
    let slope = if margin > 0.0 { 1.0 / (1.0 + small) } else { small / (1.0 + small) };
    (loss + 0.0 * margin, others, slope + 0.0 * margin)
}

#[derive(Debug)]
struct NtXentBackward;

impl Backward<Flex, 2> for NtXentBackward {
    type State = std::sync::Arc<State>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        let state = &ops.state;
        let mut first = state.backward(bridge::slice(&gradient)[0]);
        let second = first.split_off(state.rows * state.columns);
        for (parent, values) in ops.parents.into_iter().zip([first, second]) {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, bridge::tensor(values, [state.rows, state.columns]));
            }
        }
    }
}

kernels! {
    /// Brings rows to length 1 and keeps one over their lengths.
    fn normalise(x: &mut [f32], columns: usize, inverse: &mut [f32]) {
        for (x, inverse) in x.chunks_exact_mut(columns.max(1)).zip(inverse) {
            let mut square = 0f64;
            for value in x.iter() {
                square += f64::from(*value) * f64::from(*value);
            }
            let share = (1.0 / (square + f64::from(LENGTH_EPSILON)).sqrt()) as f32;
            for value in x {
                *value *= share;
            }
            *inverse = share;
        }
    }

    /// From the gradient of rows of length 1 to that of the rows.
    fn unit_gradient(unit: &[f32], inverse: &[f32], columns: usize, d: &mut [f32]) {
        let rows = unit.chunks_exact(columns.max(1)).zip(d.chunks_exact_mut(columns.max(1)));
        for ((unit, d), share) in rows.zip(inverse) {
            let mut along = 0f64;
            for j in 0..columns {
                along += f64::from(unit[j]) * f64::from(d[j]);
            }
            let along = along as f32;
            for j in 0..columns {
                d[j] = (d[j] - unit[j] * along) * share;
            }
        }
    }
}
