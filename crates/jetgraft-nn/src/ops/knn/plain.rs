//! Nearest neighbours in stock operations: groups of jets of similar place in the batch, padded to the longest, and
//! the nearest node taken out `k` times.

use burn::tensor::{DType, Int, Tensor, TensorData};

use super::{Neighbours, offsets};
use crate::contract::RaggedGraph;

/// Distances that one group of jets may hold.
const GROUP: usize = 1 << 22;

/// See [`super::knn`].
pub fn knn(points: Tensor<2>, graph: &RaggedGraph, k: usize) -> Neighbours {
    let points = points.without_autodiff();
    let device = points.device();
    let jet_offsets: Vec<i32> = graph.jet_offsets.clone().into_data().iter::<i32>().collect();
    let mut senders = Vec::new();
    let mut start = 0;
    while start + 1 < jet_offsets.len() {
        let mut end = start;
        let mut longest = 0;
        while end + 1 < jet_offsets.len() {
            let long = longest.max((jet_offsets[end + 1] - jet_offsets[end]) as usize);
            if end > start && (end + 1 - start) * long * long > GROUP {
                break;
            }
            longest = long;
            end += 1;
        }
        group(&points, &jet_offsets[start..=end], longest, k, &mut senders);
        start = end;
    }
    Neighbours::new(offsets(&jet_offsets, k), senders, &device)
}

/// Neighbours of the nodes of some jets, none longer than `n`.
fn group(points: &Tensor<2>, jet_offsets: &[i32], n: usize, k: usize, senders: &mut Vec<i32>) {
    let device = points.device();
    let [_, columns] = points.dims();
    let jets = jet_offsets.len() - 1;
    let rounds = k.min(n - 1);
    if rounds == 0 {
        return;
    }
    let sizes: Vec<usize> = jet_offsets.windows(2).map(|jet| (jet[1] - jet[0]) as usize).collect();
    // A slot behind the end of a jet repeats its last node; it is never chosen.
    let mut rows = Vec::with_capacity(jets * n);
    let mut barred = Vec::with_capacity(jets * n * n);
    for (&size, &first) in sizes.iter().zip(jet_offsets) {
        rows.extend((0..n).map(|slot| first + slot.min(size - 1) as i32));
        barred.extend((0..n * n).map(|at| if at % n >= size || at % n == at / n { 1f32 } else { 0.0 }));
    }
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [jets * n]), (&device, DType::I32));
    let barred = Tensor::<3>::from_data(TensorData::new(barred, [jets, n, n]), &device);
    let x = points.clone().select(0, rows).reshape([jets, n, columns]);
    let mut distance = Tensor::<3>::zeros([jets, n, n], &device);
    for column in 0..columns {
        let of = x.clone().slice([0..jets, 0..n, column..column + 1]);
        let step = of.clone().swap_dims(1, 2) - of;
        distance = distance + step.clone() * step;
    }
    let no_number = distance.clone().is_nan();
    let distance = distance.mask_fill(no_number, f32::MAX).clamp_max(f32::MAX);
    let mut distance = distance.mask_fill(barred.greater_elem(0.5), f32::INFINITY);
    let places =
        Tensor::<1, Int>::arange(0..n as i64, &device).float().reshape([1, 1, n]).repeat(&[jets, n, 1]);
    let mut chosen = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let farther = distance.clone().greater(distance.clone().min_dim(2).repeat(&[1, 1, n]));
        let nearest = places.clone().mask_fill(farther, n as f32).min_dim(2);
        distance =
            distance.mask_fill(places.clone().equal(nearest.clone().repeat(&[1, 1, n])), f32::INFINITY);
        chosen.push(nearest.into_data().iter::<f32>().map(|place| place as i32).collect::<Vec<_>>());
    }
    for (jet, (&size, &first)) in sizes.iter().zip(jet_offsets).enumerate() {
        for node in 0..size {
            senders.extend(chosen[..k.min(size - 1)].iter().map(|round| first + round[jet * n + node]));
        }
    }
}
