//! Ragged sets of graphs in memory and packed batches of them: the form in which every input reaches a network.
//!
//! A graph is a jet or an event, a node a declustering, a particle or a reconstructed object. Nothing is padded. Trees
//! are packed as edges between parent and child in both directions, without self loops.

/// Ragged graphs of jets in memory; J jets, N nodes over all of them, F features.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphSet {
    /// `[F]`: names of the features.
    pub feature_names: Vec<String>,
    /// `[N * F]`: features, node by node.
    pub features: Vec<f32>,
    /// `[J + 1]`: nodes of jet `j` are `node_offsets[j]..node_offsets[j + 1]`; a jet may have none.
    pub node_offsets: Vec<usize>,
    /// `[N]`: node within the jet that a node hangs on, below its own number, -1 for the root; `None` where the nodes
    /// are not joined to a tree.
    pub parents: Option<Vec<i32>>,
    /// `[N * 4]`: transverse momentum (GeV), rapidity, azimuth (both relative to the jet's axis) and mass (GeV) of each
    /// node; `None` where nodes are no particles.
    pub kinematics: Option<Vec<f32>>,
    /// `[J]`: the collision each jet is from.
    pub event_id: Vec<u64>,
    /// `[J]`: number of the class, or [`NO_LABEL`](crate::jets::NO_LABEL).
    pub label: Vec<u32>,
    /// `[J]`: transverse momentum, GeV.
    pub jet_pt_gev: Vec<f32>,
    /// `[J]`: mass, GeV.
    pub jet_mass_gev: Vec<f32>,
}

/// Edges of a batch in compressed rows by receiver; N nodes, E directed edges, node numbers over the whole batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PackedEdges {
    /// `[N + 1]`: edges that end at node `i` are `in_offsets[i]..in_offsets[i + 1]`.
    pub in_offsets: Vec<u32>,
    /// `[E]`: the sending node of each edge; rising within a receiver.
    pub senders: Vec<u32>,
}

/// A batch of jets as the networks read it; B jets, N nodes, E directed edges, node numbers over the whole batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PackedBatch {
    /// `[N * F]`: features, node by node.
    pub features: Vec<f32>,
    /// F.
    pub n_features: usize,
    /// `[B + 1]`: nodes of jet `b` are `jet_offsets[b]..jet_offsets[b + 1]`; at least one.
    pub jet_offsets: Vec<u32>,
    /// Edges between parents and children in both directions; `None` where the nodes are not joined to trees.
    pub edges: Option<PackedEdges>,
    /// `[N * 4]`: as in [`GraphSet::kinematics`].
    pub kinematics: Option<Vec<f32>>,
    /// `[B]`: numbers of the classes.
    pub labels: Vec<u32>,
    /// `[B]`: rows of the [`GraphSet`] in this batch.
    pub indices: Vec<usize>,
}

impl PackedBatch {
    /// Number of jets B.
    pub fn jets(&self) -> usize {
        self.indices.len()
    }

    /// Number of nodes N.
    pub fn nodes(&self) -> usize {
        self.jet_offsets.last().map_or(0, |&last| last as usize)
    }
}

/// Columns of [`GraphSet::kinematics`].
pub const KINEMATICS: usize = 4;

impl GraphSet {
    /// Number of jets.
    pub fn len(&self) -> usize {
        self.event_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.event_id.is_empty()
    }

    /// Number of features of a node.
    pub fn n_features(&self) -> usize {
        self.feature_names.len()
    }

    /// Number of nodes of a jet.
    ///
    /// # Panics
    /// When `jet` is not below [`GraphSet::len`].
    pub fn nodes_of(&self, jet: usize) -> usize {
        self.node_offsets[jet + 1] - self.node_offsets[jet]
    }

    /// The jets with the given numbers, in that order.
    ///
    /// # Panics
    /// When a number is not below [`GraphSet::len`].
    pub fn select(&self, rows: &[usize]) -> Self {
        let width = self.n_features();
        let mut node_offsets = Vec::with_capacity(rows.len() + 1);
        node_offsets.push(0);
        let mut nodes = 0;
        for row in rows {
            nodes += self.nodes_of(*row);
            node_offsets.push(nodes);
        }
        Self {
            feature_names: self.feature_names.clone(),
            features: self.rows_of(&self.features, width, rows),
            node_offsets,
            parents: self.parents.as_ref().map(|parents| self.rows_of(parents, 1, rows)),
            kinematics: self.kinematics.as_ref().map(|values| self.rows_of(values, KINEMATICS, rows)),
            event_id: rows.iter().map(|row| self.event_id[*row]).collect(),
            label: rows.iter().map(|row| self.label[*row]).collect(),
            jet_pt_gev: rows.iter().map(|row| self.jet_pt_gev[*row]).collect(),
            jet_mass_gev: rows.iter().map(|row| self.jet_mass_gev[*row]).collect(),
        }
    }

    /// Values of the nodes of some jets, `width` a node.
    fn rows_of<T: Copy>(&self, values: &[T], width: usize, rows: &[usize]) -> Vec<T> {
        let nodes: usize = rows.iter().map(|row| self.nodes_of(*row)).sum();
        let mut out = Vec::with_capacity(nodes * width);
        for row in rows {
            out.extend_from_slice(
                &values[self.node_offsets[*row] * width..self.node_offsets[row + 1] * width],
            );
        }
        out
    }

    /// Packs the jets with the given numbers into one batch, in that order. A jet without nodes becomes one node of
    /// zeros without edges.
    ///
    /// # Panics
    /// When a number is not below [`GraphSet::len`], or the batch has 2^31 nodes.
    pub fn pack(&self, rows: &[usize]) -> PackedBatch {
        let width = self.n_features();
        let nodes: usize = rows.iter().map(|row| self.nodes_of(*row).max(1)).sum();
        assert!(nodes < u32::MAX as usize / 2, "a batch of {nodes} nodes; at most 2^31");
        let mut features = Vec::with_capacity(nodes * width);
        let mut kinematics = self.kinematics.as_ref().map(|_| Vec::with_capacity(nodes * KINEMATICS));
        let mut jet_offsets = Vec::with_capacity(rows.len() + 1);
        jet_offsets.push(0);
        let mut base = 0;
        for row in rows {
            let range = self.node_offsets[*row]..self.node_offsets[row + 1];
            base += range.len().max(1);
            features.extend_from_slice(&self.features[range.start * width..range.end * width]);
            features.resize(base * width, 0.0);
            if let (Some(out), Some(values)) = (&mut kinematics, &self.kinematics) {
                out.extend_from_slice(&values[range.start * KINEMATICS..range.end * KINEMATICS]);
                out.resize(base * KINEMATICS, 0.0);
            }
            jet_offsets.push(base as u32);
        }
        PackedBatch {
            features,
            n_features: width,
            jet_offsets,
            edges: self.parents.as_ref().map(|parents| self.pack_edges(parents, rows, nodes)),
            kinematics,
            labels: rows.iter().map(|row| self.label[*row]).collect(),
            indices: rows.to_vec(),
        }
    }

    fn pack_edges(&self, parents: &[i32], rows: &[usize], nodes: usize) -> PackedEdges {
        let mut in_offsets = Vec::with_capacity(nodes + 1);
        let mut senders: Vec<u32> = Vec::with_capacity(2 * nodes);
        in_offsets.push(0);
        let mut fill = Vec::new();
        let mut base = 0u32;
        for row in rows {
            let parents = &parents[self.node_offsets[*row]..self.node_offsets[row + 1]];
            if parents.is_empty() {
                in_offsets.push(senders.len() as u32);
                base += 1;
                continue;
            }
            // Where the next sender of each receiver goes. Parents come before their children, so that going
            // through the nodes in order writes a node's parent first and then its children, rising.
            fill.clear();
            fill.resize(parents.len(), 0u32);
            for (node, parent) in parents.iter().enumerate() {
                if *parent >= 0 {
                    fill[node] += 1;
                    fill[*parent as usize] += 1;
                }
            }
            let mut next = senders.len() as u32;
            for slot in &mut fill {
                let degree = *slot;
                *slot = next;
                next += degree;
                in_offsets.push(next);
            }
            senders.resize(next as usize, 0);
            for (node, parent) in parents.iter().enumerate() {
                if *parent >= 0 {
                    let parent = *parent as usize;
                    senders[fill[node] as usize] = base + parent as u32;
                    fill[node] += 1;
                    senders[fill[parent] as usize] = base + node as u32;
                    fill[parent] += 1;
                }
            }
            base += parents.len() as u32;
        }
        PackedEdges { in_offsets, senders }
    }

    /// Adds the jets of another set of the same kind.
    pub(crate) fn append(&mut self, other: Self) {
        let base = self.node_offsets.last().copied().unwrap_or(0);
        self.features.extend(other.features);
        if let (Some(parents), Some(others)) = (&mut self.parents, other.parents) {
            parents.extend(others);
        }
        if let (Some(kinematics), Some(others)) = (&mut self.kinematics, other.kinematics) {
            kinematics.extend(others);
        }
        self.node_offsets.extend(other.node_offsets.iter().skip(1).map(|offset| base + offset));
        self.event_id.extend(other.event_id);
        self.label.extend(other.label);
        self.jet_pt_gev.extend(other.jet_pt_gev);
        self.jet_mass_gev.extend(other.jet_mass_gev);
    }

    /// A set without jets.
    pub(crate) fn empty(feature_names: Vec<String>, trees: bool, kinematics: bool) -> Self {
        Self {
            feature_names,
            node_offsets: vec![0],
            parents: trees.then(Vec::new),
            kinematics: kinematics.then(Vec::new),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A set of random trees: for each jet the parents of its nodes.
    fn graphs_of(trees: &[Vec<i32>]) -> GraphSet {
        let mut graphs = GraphSet::empty(vec!["x".into(), "y".into()], true, true);
        for (jet, parents) in trees.iter().enumerate() {
            for (node, parent) in parents.iter().enumerate() {
                graphs.parents.as_mut().unwrap().push(*parent);
                graphs.kinematics.as_mut().unwrap().extend([1.0, jet as f32, node as f32, 0.0]);
                graphs.features.extend([jet as f32 + 1.0, node as f32]);
            }
            graphs.node_offsets.push(graphs.features.len() / 2);
            graphs.event_id.push(jet as u64);
            graphs.label.push(jet as u32 % 2);
            graphs.jet_pt_gev.push(500.0);
            graphs.jet_mass_gev.push(80.0);
        }
        graphs
    }

    fn tree() -> impl Strategy<Value = Vec<i32>> {
        (0usize..30).prop_flat_map(|size| {
            (0..size)
                .map(|node| if node == 0 { (-1..0).boxed() } else { (0..node as i32).boxed() })
                .collect::<Vec<_>>()
        })
    }

    proptest! {
        #[test]
        fn packing_keeps_every_edge_both_ways(
            trees in proptest::collection::vec(tree(), 1..8),
            picks in proptest::collection::vec(any::<proptest::sample::Index>(), 0..10),
        ) {
            let graphs = graphs_of(&trees);
            let rows: Vec<usize> = picks.iter().map(|pick| pick.index(trees.len())).collect();
            let batch = graphs.pack(&rows);
            prop_assert_eq!(batch.jets(), rows.len());
            prop_assert_eq!(batch.jet_offsets.len(), rows.len() + 1);
            prop_assert_eq!(batch.nodes(), *batch.jet_offsets.last().unwrap() as usize);
            prop_assert_eq!(batch.features.len(), batch.nodes() * 2);
            prop_assert_eq!(batch.kinematics.as_ref().unwrap().len(), batch.nodes() * KINEMATICS);
            let PackedEdges { in_offsets, senders } = batch.edges.as_ref().unwrap();
            prop_assert_eq!(*in_offsets.last().unwrap() as usize, senders.len());

            let mut edges = std::collections::BTreeSet::new();
            for node in 0..batch.nodes() {
                let (from, to) = (in_offsets[node] as usize, in_offsets[node + 1] as usize);
                prop_assert!(from <= to);
                prop_assert!(senders[from..to].windows(2).all(|pair| pair[0] < pair[1]));
                for sender in &senders[from..to] {
                    prop_assert!(edges.insert((*sender as usize, node)), "an edge twice");
                }
            }
            let mut expected = std::collections::BTreeSet::new();
            for (b, row) in rows.iter().enumerate() {
                let base = batch.jet_offsets[b] as usize;
                let nodes = batch.jet_offsets[b + 1] as usize - base;
                prop_assert_eq!(nodes, trees[*row].len().max(1));
                prop_assert_eq!(batch.labels[b], *row as u32 % 2);
                if trees[*row].is_empty() {
                    prop_assert_eq!(&batch.features[2 * base..2 * base + 2], &[0.0, 0.0]);
                }
                for (node, parent) in trees[*row].iter().enumerate() {
                    prop_assert_eq!(batch.features[2 * (base + node)], *row as f32 + 1.0);
                    prop_assert_eq!(batch.features[2 * (base + node) + 1], node as f32);
                    if *parent >= 0 {
                        expected.insert((base + *parent as usize, base + node));
                        expected.insert((base + node, base + *parent as usize));
                    }
                }
            }
            prop_assert_eq!(edges, expected);
            // Selecting first and packing all is the same batch, but for the row numbers.
            let all: Vec<usize> = (0..rows.len()).collect();
            let mut selected = graphs.select(&rows).pack(&all);
            selected.indices = rows;
            prop_assert_eq!(selected, batch);
        }
    }

    #[test]
    fn a_chain_and_an_empty_jet() {
        let graphs = graphs_of(&[vec![-1, 0, 1, 0], vec![]]);
        let batch = graphs.pack(&[1, 0]);
        assert_eq!(batch.jet_offsets, [0, 1, 5]);
        let edges = batch.edges.unwrap();
        assert_eq!(edges.in_offsets, [0, 0, 2, 4, 5, 6]);
        assert_eq!(edges.senders, [2, 4, 1, 3, 2, 1]);
        assert_eq!(batch.features[..4], [0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn nodes_without_a_tree_have_no_edges() {
        let mut graphs = graphs_of(&[vec![-1, 0], vec![-1]]);
        graphs.parents = None;
        assert_eq!(graphs.select(&[1]).parents, None);
        let batch = graphs.pack(&[1, 0]);
        assert_eq!((batch.edges.is_none(), batch.nodes()), (true, 3));
        assert_eq!(batch.kinematics.unwrap()[..8], [1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
    }
}
