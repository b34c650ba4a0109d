//! Jets as graphs of declusterings, and packed ragged batches of them.
//!
//! Packing follows LundNet: one node per declustering, edges between parent and child in both directions, no
//! self loops, no padding. A jet without any declustering becomes one node of zero features without edges.

pub use jetgraft_physics::lund::{FeatureSet, PsiForm};
use jetgraft_physics::lund::{LundCuts, LundTree, LundWorkspace};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::jets::{Jets, OnBad};
use crate::ledger::Ledger;

/// What of a jet's Lund tree a network reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LundInput {
    /// Coordinates of a node, in order.
    pub features: FeatureSet,
    /// Which declusterings become nodes.
    pub cuts: LundCuts,
    /// Form of the azimuth.
    pub psi: PsiForm,
}

impl LundInput {
    /// One sentence for reports.
    pub fn describe(&self) -> String {
        format!("{}; {}; {}", self.features.describe(), self.cuts.describe(), self.psi.describe())
    }
}

/// Ragged graphs of jets in memory; J jets, N nodes over all of them, F features.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphSet {
    /// `[F]`: names of the features.
    pub feature_names: Vec<String>,
    /// `[N * F]`: features, node by node.
    pub features: Vec<f32>,
    /// `[J + 1]`: nodes of jet `j` are `node_offsets[j]..node_offsets[j + 1]`; a jet may have none.
    pub node_offsets: Vec<usize>,
    /// `[N]`: node within the jet that a node hangs on, below its own number; -1 for the root.
    pub parents: Vec<i32>,
    /// `[J]`: the collision each jet is from.
    pub event_id: Vec<u64>,
    /// `[J]`: number of the class, or [`NO_LABEL`](crate::jets::NO_LABEL).
    pub label: Vec<u32>,
    /// `[J]`: transverse momentum, GeV.
    pub jet_pt_gev: Vec<f32>,
    /// `[J]`: mass, GeV.
    pub jet_mass_gev: Vec<f32>,
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
    /// `[N + 1]`: edges that end at node `i` are `in_offsets[i]..in_offsets[i + 1]`.
    pub in_offsets: Vec<u32>,
    /// `[E]`: the sending node of each edge; rising within a receiver.
    pub senders: Vec<u32>,
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
        self.in_offsets.len().saturating_sub(1)
    }

    /// Number of directed edges E.
    pub fn edges(&self) -> usize {
        self.senders.len()
    }
}

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

    /// Number of declusterings of a jet.
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
        let nodes: usize = rows.iter().map(|row| self.nodes_of(*row)).sum();
        let mut features = Vec::with_capacity(nodes * width);
        let mut parents = Vec::with_capacity(nodes);
        let mut node_offsets = Vec::with_capacity(rows.len() + 1);
        node_offsets.push(0);
        for row in rows {
            let range = self.node_offsets[*row]..self.node_offsets[row + 1];
            features.extend_from_slice(&self.features[range.start * width..range.end * width]);
            parents.extend_from_slice(&self.parents[range]);
            node_offsets.push(parents.len());
        }
        Self {
            feature_names: self.feature_names.clone(),
            features,
            node_offsets,
            parents,
            event_id: rows.iter().map(|row| self.event_id[*row]).collect(),
            label: rows.iter().map(|row| self.label[*row]).collect(),
            jet_pt_gev: rows.iter().map(|row| self.jet_pt_gev[*row]).collect(),
            jet_mass_gev: rows.iter().map(|row| self.jet_mass_gev[*row]).collect(),
        }
    }

    /// Packs the jets with the given numbers into one batch, in that order.
    ///
    /// # Panics
    /// When a number is not below [`GraphSet::len`], or the batch has 2^32 nodes or edges.
    pub fn pack(&self, rows: &[usize]) -> PackedBatch {
        let width = self.n_features();
        let nodes: usize = rows.iter().map(|row| self.nodes_of(*row).max(1)).sum();
        assert!(nodes < u32::MAX as usize / 2, "a batch of {nodes} nodes; at most 2^31");
        let mut batch = PackedBatch {
            features: Vec::with_capacity(nodes * width),
            n_features: width,
            jet_offsets: Vec::with_capacity(rows.len() + 1),
            in_offsets: Vec::with_capacity(nodes + 1),
            senders: Vec::with_capacity(2 * nodes),
            labels: rows.iter().map(|row| self.label[*row]).collect(),
            indices: rows.to_vec(),
        };
        batch.jet_offsets.push(0);
        batch.in_offsets.push(0);
        let mut fill = Vec::new();
        let mut base = 0u32;
        for row in rows {
            let range = self.node_offsets[*row]..self.node_offsets[row + 1];
            if range.is_empty() {
                batch.features.resize(batch.features.len() + width, 0.0);
                batch.in_offsets.push(batch.senders.len() as u32);
                base += 1;
                batch.jet_offsets.push(base);
                continue;
            }
            batch.features.extend_from_slice(&self.features[range.start * width..range.end * width]);
            let parents = &self.parents[range];
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
            let mut next = batch.senders.len() as u32;
            for slot in &mut fill {
                let degree = *slot;
                *slot = next;
                next += degree;
                batch.in_offsets.push(next);
            }
            batch.senders.resize(next as usize, 0);
            for (node, parent) in parents.iter().enumerate() {
                if *parent >= 0 {
                    let parent = *parent as usize;
                    batch.senders[fill[node] as usize] = base + parent as u32;
                    fill[node] += 1;
                    batch.senders[fill[parent] as usize] = base + node as u32;
                    fill[parent] += 1;
                }
            }
            base += parents.len() as u32;
            batch.jet_offsets.push(base);
        }
        batch
    }

    fn append(&mut self, other: Self) {
        let base = self.parents.len();
        self.features.extend(other.features);
        self.parents.extend(other.parents);
        self.node_offsets.extend(other.node_offsets.iter().skip(1).map(|offset| base + offset));
        self.event_id.extend(other.event_id);
        self.label.extend(other.label);
        self.jet_pt_gev.extend(other.jet_pt_gev);
        self.jet_mass_gev.extend(other.jet_mass_gev);
    }

    fn empty(features: FeatureSet) -> Self {
        Self {
            feature_names: features.names().iter().map(|name| (*name).to_owned()).collect(),
            node_offsets: vec![0],
            ..Self::default()
        }
    }
}

/// Jets that one thread takes at a time.
const CHUNK: usize = 256;

/// Reclusters every jet and takes it apart, on the threads of the current `rayon` pool; order is kept and the
/// result does not depend on the number of threads.
///
/// A jet that the physics refuses (a constituent of negative energy, say) is dropped and counted, or ends the work with
/// [`OnBad::Error`] in [`lund_graphs_with`]. The ledger notes how many jets have no declustering.
///
/// # Units
/// Features as [`FeatureSet`] says: natural logarithms of GeV, rad.
///
/// # Errors
/// [`DataError::Physics`] when the cuts themselves make no sense.
pub fn lund_graphs(jets: &Jets, input: &LundInput) -> Result<(GraphSet, Ledger), DataError> {
    lund_graphs_with(jets, input, OnBad::Drop)
}

/// [`lund_graphs`] with a choice of what happens to jets that the physics refuses.
///
/// # Errors
/// [`DataError::Physics`] naming the jet.
pub fn lund_graphs_with(
    jets: &Jets,
    input: &LundInput,
    on_bad: OnBad,
) -> Result<(GraphSet, Ledger), DataError> {
    check_cuts(&input.cuts)?;
    let width = input.features.len();
    let starts: Vec<usize> = (0..jets.len()).step_by(CHUNK).collect();
    let pieces: Vec<Result<(GraphSet, Ledger), DataError>> = starts
        .par_iter()
        .map_init(LundWorkspace::new, |workspace, start| {
            let mut graphs = GraphSet::empty(input.features);
            let mut ledger = Ledger::default();
            for jet in *start..(start + CHUNK).min(jets.len()) {
                match workspace.tree(jets.constituents_of(jet), &input.cuts) {
                    Ok(tree) => {
                        let before = graphs.features.len();
                        tree.features(input.features, input.psi, &mut graphs.features);
                        if !graphs.features[before..].iter().all(|value| value.is_finite()) {
                            graphs.features.truncate(before);
                            ledger.drop_row("a Lund coordinate is not finite");
                            continue;
                        }
                        tree.parents(&mut graphs.parents);
                        debug_assert_eq!(graphs.features.len(), graphs.parents.len() * width);
                        ledger.note("jets without a declustering", u64::from(tree.nodes.is_empty()));
                    }
                    Err(source) if on_bad == OnBad::Error => {
                        return Err(DataError::Physics { place: place(jets, jet), source });
                    }
                    Err(_) => {
                        ledger.drop_row("constituents that cannot be clustered");
                        continue;
                    }
                }
                graphs.node_offsets.push(graphs.parents.len());
                graphs.event_id.push(jets.event_id[jet]);
                graphs.label.push(jets.label[jet]);
                graphs.jet_pt_gev.push(jets.jet_pt_gev[jet] as f32);
                graphs.jet_mass_gev.push(jets.jet_mass_gev[jet] as f32);
                ledger.use_row();
            }
            Ok((graphs, ledger))
        })
        .collect();
    let mut graphs = GraphSet::empty(input.features);
    let mut ledger = Ledger::default();
    for piece in pieces {
        let (part, counts) = piece?;
        graphs.append(part);
        ledger.merge(&counts);
    }
    ledger.check()?;
    Ok((graphs, ledger))
}

/// Lund trees of all jets, in order, with every coordinate, for files and figures; for each jet its tree or why there
/// is none.
///
/// # Errors
/// [`DataError::Physics`] when the cuts themselves make no sense.
pub fn lund_trees(jets: &Jets, cuts: &LundCuts) -> Result<Vec<Result<LundTree, DataError>>, DataError> {
    check_cuts(cuts)?;
    let rows: Vec<usize> = (0..jets.len()).collect();
    Ok(rows
        .par_iter()
        .with_min_len(16)
        .map_init(LundWorkspace::new, |workspace, jet| {
            workspace
                .tree(jets.constituents_of(*jet), cuts)
                .cloned()
                .map_err(|source| DataError::Physics { place: place(jets, *jet), source })
        })
        .collect())
}

/// Refuses cuts that make no sense before any jet is blamed for them.
fn check_cuts(cuts: &LundCuts) -> Result<(), DataError> {
    LundWorkspace::new()
        .tree(&[], cuts)
        .map(drop)
        .map_err(|source| DataError::Physics { place: "Lund cuts".into(), source })
}

fn place(jets: &Jets, jet: usize) -> String {
    format!("jet {} of event {}", jets.jet_index[jet], jets.event_id[jet])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A set of random trees: for each jet the parents of its nodes.
    fn graphs_of(trees: &[Vec<i32>]) -> GraphSet {
        let mut graphs = GraphSet::empty(FeatureSet::LundNet2);
        for (jet, parents) in trees.iter().enumerate() {
            for (node, parent) in parents.iter().enumerate() {
                graphs.parents.push(*parent);
                graphs.features.extend([jet as f32 + 1.0, node as f32]);
            }
            graphs.node_offsets.push(graphs.parents.len());
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
            prop_assert_eq!(*batch.in_offsets.last().unwrap() as usize, batch.edges());

            let mut edges = std::collections::BTreeSet::new();
            for node in 0..batch.nodes() {
                let (from, to) = (batch.in_offsets[node] as usize, batch.in_offsets[node + 1] as usize);
                prop_assert!(from <= to);
                prop_assert!(batch.senders[from..to].windows(2).all(|pair| pair[0] < pair[1]));
                for sender in &batch.senders[from..to] {
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
        assert_eq!(batch.in_offsets, [0, 0, 2, 4, 5, 6]);
        assert_eq!(batch.senders, [2, 4, 1, 3, 2, 1]);
        assert_eq!(batch.features[..4], [0.0, 0.0, 1.0, 0.0]);
    }
}
