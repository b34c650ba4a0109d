//! The embedding of pairs in stock operations.

use burn::tensor::activation::gelu;
use burn::tensor::{Int, Tensor};

use super::{EPSILON, Layer, Pairs};
use crate::contract::RaggedGraph;
use crate::ops::attention::PairBias;
use crate::ops::attention::plain::{indices, sizes};
use crate::ops::plain::{batch_norm, like};
use crate::ops::{Moments, Norm};

/// Rows of the two particles of each pair.
fn pairs(sizes: &[usize], kinematics: &Tensor<2>) -> (Tensor<1, Int>, Tensor<1, Int>) {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    let mut first = 0;
    for &size in sizes {
        for i in 0..size {
            left.resize(left.len() + i + 1, (first + i) as i32);
            right.extend((0..=i).map(|j| (first + j) as i32));
        }
        first += size;
    }
    let device = kinematics.device();
    (indices(left, &device), indices(right, &device))
}

/// `ln kT`, `ln z`, `ln Delta`, `ln m2` of every pair, `[P, 4]`; see [`super::pair_embedding`].
pub fn features(kinematics: &Tensor<2>, graph: &RaggedGraph) -> Tensor<2> {
    let (left, right) = pairs(&sizes(graph), kinematics);
    let count = left.dims()[0];
    let side = |rows: Tensor<1, Int>| {
        let rows = kinematics.clone().select(0, rows);
        let column = |at: usize| rows.clone().slice([0..count, at..at + 1]);
        // A mass below 0 stands for a squared mass below 0.
        let m2 = column(3) * column(3).abs();
        let mt = (column(0).powi_scalar(2) + m2.clone()).clamp_min(0.0).sqrt();
        (column(0), column(1), column(2), m2, mt)
    };
    let ((pt_i, y_i, phi_i, m2_i, mt_i), (pt_j, y_j, phi_j, m2_j, mt_j)) = (side(left), side(right));
    let d_y = y_i - y_j;
    let d_phi = phi_i - phi_j;
    let turn = 2.0 * std::f64::consts::PI;
    let d_phi = d_phi.clone() - (d_phi / turn).round() * turn;
    let delta = (d_y.clone().powi_scalar(2) + d_phi.clone().powi_scalar(2)).sqrt();
    let softer = pt_i.clone().min_pair(pt_j.clone());
    let kt = softer.clone() * delta.clone();
    let z = softer / (pt_i.clone() + pt_j.clone()).clamp_min(EPSILON);
    let (mts, pts) = (mt_i.clone() * mt_j.clone(), pt_i.clone() * pt_j);
    let slower = (m2_i.clone() * mt_j.powi_scalar(2) + pt_i.powi_scalar(2) * m2_j.clone())
        / (mts.clone() + pts.clone()).clamp_min(1e-30);
    let opening = mts * (d_y * 0.5).sinh().powi_scalar(2) + pts * (d_phi * 0.5).sin().powi_scalar(2);
    let m2 = m2_i + m2_j + slower * 2.0 + opening * 4.0;
    let ln = |x: Tensor<2>| x.clamp_min(EPSILON).log();
    Tensor::cat(vec![ln(kt), ln(z), ln(delta), ln(m2)], 1)
}

/// Position in the rows `[P, H]` of each entry of a [`PairBias`].
fn by_head(sizes: &[usize], heads: usize) -> Vec<i32> {
    let mut positions = Vec::new();
    let mut first = 0;
    for &size in sizes {
        let count = size * (size + 1) / 2;
        for head in 0..heads {
            positions.extend((first..first + count).map(|pair| (pair * heads + head) as i32));
        }
        first += count;
    }
    positions
}

/// See [`super::pair_embedding`].
pub fn pair_embedding(graph: &RaggedGraph, input: Norm, layers: Vec<Layer>) -> Pairs {
    let features = features(graph.kinematics(), graph);
    let (mut x, first) = batch_norm(like(features, &input.weight), &input);
    let mut moments: Vec<Option<Moments>> = vec![first];
    for Layer { weight, bias, norm } in layers {
        let (y, found) = batch_norm(x.matmul(weight) + bias.unsqueeze::<2>(), &norm);
        moments.push(found);
        x = gelu(y);
    }
    let [pairs, heads] = x.dims();
    let positions = indices(by_head(&sizes(graph), heads), &x.device());
    Pairs { bias: PairBias(x.reshape([pairs * heads]).select(0, positions)), moments }
}
