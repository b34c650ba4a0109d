//! From a packed batch on the host to tensors on a device.

use burn::tensor::{Device, Tensor, TensorData};
use jetgraft_data::PackedBatch;
use jetgraft_nn::contract::{GraphBatch, RaggedGraph};

use crate::error::LearnError;

/// Puts a batch on `device`; give an autodiff device for training.
///
/// # Errors
/// [`jetgraft_nn::error::NnError::Graph`] if the index arrays are not graphs.
///
/// # Example
/// ```
/// use burn::tensor::Device;
/// use jetgraft_data::{PackedBatch, PackedEdges};
///
/// // Two jets: two declusterings joined by an edge, and one alone.
/// let packed = PackedBatch {
///     features: vec![0.1, 0.2, 0.3],
///     n_features: 1,
///     jet_offsets: vec![0, 2, 3],
///     edges: Some(PackedEdges { in_offsets: vec![0, 1, 2, 2], senders: vec![1, 0] }),
///     kinematics: None,
///     labels: vec![0, 1],
///     indices: vec![0, 1],
/// };
/// let batch = jetgraft_learn::batch::to_device(&packed, &Device::flex())?;
/// assert_eq!(batch.features.dims(), [3, 1]);
/// assert_eq!((batch.graph.jets, batch.graph.edges().count), (2, 2));
/// # Ok::<(), jetgraft_learn::LearnError>(())
/// ```
pub fn to_device(packed: &PackedBatch, device: &Device) -> Result<GraphBatch, LearnError> {
    let features = rows(packed.features.clone(), packed.n_features, device);
    Ok(GraphBatch { features, graph: graph(packed, device)? })
}

/// Only the graph of a batch.
///
/// # Errors
/// As [`to_device`].
pub fn graph(packed: &PackedBatch, device: &Device) -> Result<RaggedGraph, LearnError> {
    let graph = match &packed.edges {
        Some(edges) => RaggedGraph::from_csr(&packed.jet_offsets, &edges.in_offsets, &edges.senders, device)?,
        None => RaggedGraph::new(&packed.jet_offsets, device)?,
    };
    Ok(match &packed.kinematics {
        Some(kinematics) => graph.with_kinematics(kinematics)?,
        None => graph,
    })
}

/// A matrix of `width` columns from its rows.
pub(crate) fn rows(values: Vec<f32>, width: usize, device: &Device) -> Tensor<2> {
    let count = values.len().checked_div(width).unwrap_or(0);
    Tensor::from_data(TensorData::new(values, [count, width]), device)
}
