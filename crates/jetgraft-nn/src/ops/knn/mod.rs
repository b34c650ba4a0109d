//! Nearest neighbours inside each jet of a packed batch.
//!
//! The squared distance of nodes `i` and `j` is `sum over columns f of (x_jf - x_if)^2`, added up in the order of the
//! columns in 32-bit floats; one that overflows or is no number counts as the largest float. Of equal distances the
//! smaller index is nearer. A node is not its own neighbour, whatever other nodes lie on the same place. A jet of
//! `n <= k` nodes has `n - 1` neighbours for each. Both bodies give the same neighbours in the same order, nearest
//! first; nothing of size n x n is kept beyond the jets at hand.

mod cpu;
pub mod plain;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::bridge;
use super::cpu::Path;
use crate::contract::RaggedGraph;

/// Who sends to whom, in compressed rows by receiver; N nodes, E edges.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// Number of directed edges, E.
    pub count: usize,
    /// `[N + 1]`: neighbours of node `i` are `senders[in_offsets[i]..in_offsets[i + 1]]`.
    pub in_offsets: Tensor<1, Int>,
    /// `[E]`: nodes of the same jet.
    pub senders: Tensor<1, Int>,
}

impl Neighbours {
    /// From host arrays that describe nodes of the same jets.
    ///
    /// # Panics
    /// If the last offset is not the number of senders.
    pub fn new(in_offsets: Vec<i32>, senders: Vec<i32>, device: &Device) -> Self {
        let count = senders.len();
        assert_eq!(in_offsets.last().copied(), i32::try_from(count).ok(), "edges end with the last offset");
        let tensor = |values: Vec<i32>| {
            let length = values.len();
            Tensor::from_data(TensorData::new(values, [length]), (device, DType::I32))
        };
        Self { count, in_offsets: tensor(in_offsets), senders: tensor(senders) }
    }
}

/// Offsets of the neighbours when every node of a jet of `n` has `min(k, n - 1)`.
fn offsets(jet_offsets: &[i32], k: usize) -> Vec<i32> {
    let mut offsets = Vec::with_capacity(jet_offsets.last().map_or(0, |&nodes| nodes as usize) + 1);
    let mut end = 0;
    offsets.push(end);
    for jet in jet_offsets.windows(2) {
        let degree = k.min((jet[1] - jet[0]) as usize - 1) as i32;
        for _ in jet[0]..jet[1] {
            end += degree;
            offsets.push(end);
        }
    }
    offsets
}

/// The `k` nearest neighbours of every node among the nodes of its jet.
///
/// # Shapes
/// `points: [N, D]`; no gradient flows through the choice.
///
/// # Panics
/// If `points` has not one row a node, or `k` is 0.
pub fn knn(points: Tensor<2>, graph: &RaggedGraph, k: usize) -> Neighbours {
    assert_eq!(points.dims()[0], graph.nodes, "rows of the points and nodes of the graph");
    assert!(k > 0, "no neighbour is asked for");
    if !bridge::takes(&points) {
        return plain::knn(points, graph, k);
    }
    let device = points.device();
    let jet_offsets = bridge::indices(&graph.jet_offsets);
    let jet_offsets = bridge::integers(&jet_offsets);
    let points = bridge::with_whole_rows(bridge::buffer(points));
    let offsets = offsets(jet_offsets, k);
    let senders = cpu::knn(&points, jet_offsets, &offsets, Path::current());
    Neighbours::new(offsets, senders, &device)
}
