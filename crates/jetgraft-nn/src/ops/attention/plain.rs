//! Attention in stock operations: graphs are padded to the largest one, padded keys get no weight.

use burn::tensor::activation::softmax;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::Options;
use crate::contract::RaggedGraph;
use crate::ops::dropout::Dropout;
use crate::ops::plain::like;

/// Sizes of the graphs, from their offsets.
pub fn sizes(graph: &RaggedGraph) -> Vec<usize> {
    let offsets: Vec<i64> = graph.jet_offsets.clone().into_data().iter::<i64>().collect();
    offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize).collect()
}

/// Index tensor of host integers.
pub fn indices(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), (device, DType::I32))
}

/// Rows of each padded slot (`[B * M]`, 0 for padding), slots of each row (`[N]`), and what is added to the logits of
/// a slot (`[B, 1, 1, M]`, minus infinity for padding).
pub fn padded(sizes: &[usize], device: &Device) -> (Tensor<1, Int>, Tensor<1, Int>, Tensor<4>) {
    let most = sizes.iter().copied().max().unwrap_or(0);
    let (mut rows, mut slots, mut mask) = (Vec::new(), Vec::new(), Vec::new());
    for (graph, &size) in sizes.iter().enumerate() {
        for slot in 0..most {
            let real = slot < size;
            rows.push(if real { slots.len() as i32 } else { 0 });
            mask.push(if real { 0.0 } else { f32::NEG_INFINITY });
            if real {
                slots.push((graph * most + slot) as i32);
            }
        }
    }
    let mask = Tensor::from_data(TensorData::new(mask, [sizes.len(), 1, 1, most]), device);
    (indices(rows, device), indices(slots, device), mask)
}

/// Positions in a [`super::PairBias`] of every head and pair of padded slots, `[B * H * M * M]`.
fn pair_positions(sizes: &[usize], heads: usize) -> Vec<i32> {
    let most = sizes.iter().copied().max().unwrap_or(0);
    let mut positions = Vec::with_capacity(sizes.len() * heads * most * most);
    let mut start = 0;
    for &size in sizes {
        for _ in 0..heads {
            for i in 0..most {
                for j in 0..most {
                    let (low, high) = (i.min(j), i.max(j));
                    let position = if high < size { start + high * (high + 1) / 2 + low } else { 0 };
                    positions.push(position as i32);
                }
            }
            start += size * (size + 1) / 2;
        }
    }
    positions
}

/// Factors on the weights, `[B, H, M, M]`; what padding gets is not used.
fn mask(sizes: &[usize], heads: usize, dropout: Dropout, device: &Device) -> Tensor<4> {
    let most = sizes.iter().copied().max().unwrap_or(0);
    let mut values = Vec::with_capacity(sizes.len() * heads * most * most);
    let mut first = 0;
    for &size in sizes {
        for head in 0..heads {
            for i in 0..most {
                let row = dropout.row((first + i) * heads + head);
                values.extend((0..most).map(|j| row.factor(j)));
            }
        }
        first += size;
    }
    Tensor::from_data(TensorData::new(values, [sizes.len(), heads, most, most]), device)
}

/// See [`super::attention`].
pub fn attention(joined: Tensor<2>, graph: &RaggedGraph, options: Options) -> Tensor<2> {
    let Options { heads, pairs, keys, dropout } = options;
    let [rows, columns] = joined.dims();
    let width = columns / 3;
    if rows == 0 {
        return joined.slice([0..0, 0..width]);
    }
    let device = joined.device();
    let sizes = sizes(graph);
    let (graphs, most, each) = (sizes.len(), sizes.iter().copied().max().unwrap_or(0), width / heads);
    let (rows_of_slots, slots_of_rows, mut bias) = padded(&sizes, &device);
    if let Some(keys) = keys {
        let keys = like(keys, &joined).select(0, rows_of_slots.clone());
        bias = bias + keys.reshape([graphs, 1, 1, most]);
    }
    let mut bias = bias.expand([graphs, heads, most, most]);
    if let Some(pairs) = pairs {
        let positions = indices(pair_positions(&sizes, heads), &device);
        bias = bias + pairs.0.select(0, positions).reshape([graphs, heads, most, most]);
    }
    let joined = joined.select(0, rows_of_slots).reshape([graphs, most, 3 * heads, each]).swap_dims(1, 2);
    let part = |part: usize| joined.clone().slice([0..graphs, part * heads..(part + 1) * heads]);
    let logits = part(0).matmul(part(1).swap_dims(2, 3)) / (each as f64).sqrt() + bias;
    let mut weights = softmax(logits, 3);
    if let Some((rate, seed)) = dropout {
        weights = weights * mask(&sizes, heads, Dropout::new(rate, seed), &device);
    }
    let y = weights.matmul(part(2)).swap_dims(1, 2).reshape([graphs * most, width]);
    y.select(0, slots_of_rows)
}
