//! From index arrays of a packed batch to a checked [`RaggedGraph`] on a device.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::contract::{Edges, Needs, RaggedGraph};
use crate::error::NnError;

/// Checks offsets and puts them on `device`; see [`RaggedGraph::new`].
///
/// # Errors
/// [`NnError::Graph`] with the array and position of the first fault.
pub fn of_offsets(jet_offsets: &[u32], device: &Device) -> Result<RaggedGraph, NnError> {
    let nodes = check_offsets("jet_offsets", jet_offsets, None, true)?;
    Ok(RaggedGraph {
        jets: jet_offsets.len() - 1,
        nodes,
        jet_offsets: int_tensor(jet_offsets, device),
        edges: None,
        kinematics: None,
    })
}

/// Adds the kinematics of the nodes; see [`RaggedGraph::with_kinematics`].
///
/// # Errors
/// [`NnError::Graph`] with the position of the first fault.
pub fn with_kinematics(graph: RaggedGraph, values: &[f32]) -> Result<RaggedGraph, NnError> {
    const COLUMNS: usize = 4;
    if values.len() != COLUMNS * graph.nodes {
        let expected = format!("{} values: four for each of {} nodes", COLUMNS * graph.nodes, graph.nodes);
        return Err(fault("kinematics", values.len(), "that many values", expected));
    }
    if let Some(position) = values.iter().position(|value| !value.is_finite()) {
        return Err(fault("kinematics", position, values[position], "a finite number"));
    }
    let data = TensorData::new(values.to_vec(), [graph.nodes, COLUMNS]);
    let device = graph.jet_offsets.device();
    Ok(RaggedGraph { kinematics: Some(Tensor::from_data(data, &device)), ..graph })
}

/// Whether a graph has what a network needs; see [`Needs::check`].
///
/// # Errors
/// [`NnError::Graph`] naming what is missing.
pub fn check_needs(needs: Needs, graph: &RaggedGraph) -> Result<(), NnError> {
    if needs.edges && graph.edges.is_none() {
        return Err(fault("edges", 0, "none", "fixed edges, as Lund trees have them"));
    }
    if needs.kinematics && graph.kinematics.is_none() {
        return Err(fault("kinematics", 0, "none", "pt, rapidity, azimuth and mass of every particle"));
    }
    Ok(())
}

/// Checks compressed rows and puts them on `device`; see [`RaggedGraph::from_csr`].
///
/// # Errors
/// [`NnError::Graph`] with the array and position of the first fault.
pub fn from_csr(
    jet_offsets: &[u32],
    in_offsets: &[u32],
    senders: &[u32],
    device: &Device,
) -> Result<RaggedGraph, NnError> {
    let graph = of_offsets(jet_offsets, device)?;
    let (jets, nodes) = (graph.jets, graph.nodes);
    if in_offsets.len() != nodes + 1 {
        return Err(fault("in_offsets", in_offsets.len(), "length", format!("length {}", nodes + 1)));
    }
    check_offsets("in_offsets", in_offsets, Some(senders.len()), false)?;
    for jet in 0..jets {
        let range = jet_offsets[jet]..jet_offsets[jet + 1];
        let edges = in_offsets[range.start as usize] as usize..in_offsets[range.end as usize] as usize;
        for edge in edges {
            if !range.contains(&senders[edge]) {
                return Err(NnError::Graph {
                    array: "senders",
                    position: edge,
                    found: format!("node {}", senders[edge]),
                    expected: format!("a node of the same jet {jet}: {}..{}", range.start, range.end),
                });
            }
        }
    }
    let (out_offsets, out_edges) = transpose(nodes, senders);
    let edges = Edges {
        count: senders.len(),
        in_offsets: int_tensor(in_offsets, device),
        senders: int_tensor(senders, device),
        out_offsets: int_tensor(&out_offsets, device),
        out_edges: int_tensor(&out_edges, device),
    };
    Ok(RaggedGraph { edges: Some(edges), ..graph })
}

/// Checks that offsets start at 0, rise (strictly where `strict`), end at `end` if given and fit an `i32`.
/// Returns the last one.
fn check_offsets(
    array: &'static str,
    offsets: &[u32],
    end: Option<usize>,
    strict: bool,
) -> Result<usize, NnError> {
    let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else {
        return Err(fault(array, 0, "no entry", "at least one entry, 0"));
    };
    if first != 0 {
        return Err(fault(array, 0, first, "0"));
    }
    for (position, pair) in offsets.windows(2).enumerate() {
        if pair[1] < pair[0] || (strict && pair[1] == pair[0]) {
            let expected = format!("more than{} {}", if strict { "" } else { " or equal to" }, pair[0]);
            return Err(fault(array, position + 1, pair[1], expected));
        }
    }
    if last > i32::MAX as u32 {
        return Err(fault(array, offsets.len() - 1, last, format!("at most {}", i32::MAX)));
    }
    match end {
        Some(end) if end != last as usize => Err(fault(array, offsets.len() - 1, last, end.to_string())),
        _ => Ok(last as usize),
    }
}

fn fault(array: &'static str, position: usize, found: impl ToString, expected: impl Into<String>) -> NnError {
    NnError::Graph { array, position, found: found.to_string(), expected: expected.into() }
}

/// Edge numbers grouped by sender, in rising order within each: a counting sort.
fn transpose(nodes: usize, senders: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut offsets = vec![0u32; nodes + 1];
    for &sender in senders {
        offsets[sender as usize + 1] += 1;
    }
    for node in 0..nodes {
        offsets[node + 1] += offsets[node];
    }
    let mut next = offsets.clone();
    let mut edges = vec![0u32; senders.len()];
    for (edge, &sender) in senders.iter().enumerate() {
        let slot = &mut next[sender as usize];
        edges[*slot as usize] = edge as u32;
        *slot += 1;
    }
    (offsets, edges)
}

fn int_tensor(values: &[u32], device: &Device) -> Tensor<1, Int> {
    // Checked above: every value fits an i32.
    let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), (device, DType::I32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(jets: &[u32], offsets: &[u32], senders: &[u32]) -> Result<RaggedGraph, NnError> {
        from_csr(jets, offsets, senders, &Device::flex())
    }

    fn values(tensor: Tensor<1, Int>) -> Vec<i32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn edges_are_grouped_by_sender() {
        // Jet 0: 0-1, 0-2 both ways; jet 1: one lonely node.
        let graph = build(&[0, 3, 4], &[0, 2, 3, 4, 4], &[1, 2, 0, 0]).unwrap();
        let edges = graph.edges();
        assert_eq!((graph.jets, graph.nodes, edges.count), (2, 4, 4));
        assert_eq!(values(edges.out_offsets.clone()), [0, 2, 3, 4, 4]);
        assert_eq!(values(edges.out_edges.clone()), [2, 3, 0, 1]);
    }

    #[test]
    fn a_batch_without_edges_and_one_without_jets_are_graphs() {
        assert_eq!(build(&[0, 1, 2], &[0, 0, 0], &[]).unwrap().edges().count, 0);
        assert_eq!(build(&[0], &[0], &[]).unwrap().nodes, 0);
    }

    #[test]
    fn what_is_missing_or_wrong_beside_the_edges_is_named() {
        let graph = RaggedGraph::new(&[0, 2], &Device::flex()).unwrap();
        let kinematics = Needs { kinematics: true, ..Needs::default() };
        for (fault, name) in [
            (kinematics.check(&graph), "kinematics"),
            (Needs { edges: true, ..Needs::default() }.check(&graph), "edges"),
            (graph.clone().with_kinematics(&[0.0; 7]).map(drop), "kinematics"),
            (graph.clone().with_kinematics(&[f32::NAN; 8]).map(drop), "kinematics"),
        ] {
            match fault {
                Err(NnError::Graph { array, .. }) => assert_eq!(array, name),
                other => panic!("{other:?}"),
            }
        }
        kinematics.check(&graph.with_kinematics(&[1.0; 8]).unwrap()).unwrap();
    }

    #[test]
    fn faults_are_named() {
        for (jets, offsets, senders, array) in [
            (&[][..], &[0][..], &[][..], "jet_offsets"),
            (&[0, 2, 2], &[0, 0, 0], &[], "jet_offsets"),
            (&[1, 2], &[0, 0, 0], &[], "jet_offsets"),
            (&[0, 2], &[0, 0], &[], "in_offsets"),
            (&[0, 2], &[0, 2, 1], &[0], "in_offsets"),
            (&[0, 2], &[0, 1, 2], &[0], "in_offsets"),
            (&[0, 1, 2], &[0, 1, 1], &[1], "senders"),
            (&[0, 2], &[0, 1, 1], &[7], "senders"),
        ] {
            match build(jets, offsets, senders) {
                Err(NnError::Graph { array: found, .. }) => assert_eq!(found, array),
                other => panic!("{other:?}"),
            }
        }
    }
}
