//! From index arrays of a packed batch to a checked [`RaggedGraph`] on a device.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::contract::RaggedGraph;
use crate::error::NnError;

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
    let nodes = check_offsets("jet_offsets", jet_offsets, None, true)?;
    if in_offsets.len() != nodes + 1 {
        return Err(fault("in_offsets", in_offsets.len(), "length", format!("length {}", nodes + 1)));
    }
    check_offsets("in_offsets", in_offsets, Some(senders.len()), false)?;
    let jets = jet_offsets.len() - 1;
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
    Ok(RaggedGraph {
        jets,
        nodes,
        edges: senders.len(),
        jet_offsets: int_tensor(jet_offsets, device),
        in_offsets: int_tensor(in_offsets, device),
        senders: int_tensor(senders, device),
        out_offsets: int_tensor(&out_offsets, device),
        out_edges: int_tensor(&out_edges, device),
    })
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
        assert_eq!((graph.jets, graph.nodes, graph.edges), (2, 4, 4));
        assert_eq!(values(graph.out_offsets), [0, 2, 3, 4, 4]);
        assert_eq!(values(graph.out_edges), [2, 3, 0, 1]);
    }

    #[test]
    fn a_batch_without_edges_and_one_without_jets_are_graphs() {
        assert_eq!(build(&[0, 1, 2], &[0, 0, 0], &[]).unwrap().edges, 0);
        assert_eq!(build(&[0], &[0], &[]).unwrap().nodes, 0);
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
