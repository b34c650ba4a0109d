//! What every backbone promises: stages in order from input to output, evaluation of any run of stages, a
//! head that can be replaced.
//!
//! Freezing, learning rates per stage, probing, cached prefixes and export use only this. A backbone never
//! knows a data set; a data set never knows a backbone: they meet in [`GraphBatch`].

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use crate::error::NnError;

/// Directed edges of a batch, in compressed rows by receiver; N nodes, E edges, index tensors are `i32`.
#[derive(Clone, Debug)]
pub struct Edges {
    /// Number of directed edges over all graphs, E.
    pub count: usize,
    /// `[N + 1]`: edges that end at node `i` are `in_offsets[i]..in_offsets[i + 1]`.
    pub in_offsets: Tensor<1, Int>,
    /// `[E]`: the sending node of each edge, in the order of `in_offsets`.
    pub senders: Tensor<1, Int>,
    /// `[N + 1]`: positions in `out_edges` of the edges that start at node `i`.
    pub out_offsets: Tensor<1, Int>,
    /// `[E]`: edge numbers (positions in `senders`) grouped by sending node.
    pub out_edges: Tensor<1, Int>,
}

/// Which nodes belong to which graph of a batch, and what else is known of them that no stage computes.
///
/// A graph is a jet or an event; a node is a declustering, a particle or a reconstructed object. What a network
/// must find here it says in [`Backbone::needs`].
///
/// # Shapes
/// B graphs, N nodes over all graphs; index tensors are `i32`.
#[derive(Clone, Debug)]
pub struct RaggedGraph {
    /// Number of graphs, B.
    pub jets: usize,
    /// Number of nodes over all graphs, N.
    pub nodes: usize,
    /// `[B + 1]`: nodes of graph `b` are `jet_offsets[b]..jet_offsets[b + 1]`; every graph has one or more.
    pub jet_offsets: Tensor<1, Int>,
    /// Fixed edges, for networks on trees; networks that see all pairs, or seek neighbours themselves, have none.
    pub edges: Option<Edges>,
    /// `[N, 4]`: transverse momentum (GeV), rapidity, azimuth, mass (GeV) of each node, not standardised, for
    /// networks that compare pairs of particles. Rapidity and azimuth may be relative to any axis of the jet.
    pub kinematics: Option<Tensor<2>>,
}

impl RaggedGraph {
    /// Graphs without edges.
    ///
    /// # Errors
    /// [`NnError::Graph`] when offsets do not rise or a graph has no node.
    pub fn new(jet_offsets: &[u32], device: &Device) -> Result<Self, NnError> {
        crate::graph::of_offsets(jet_offsets, device)
    }

    /// Graphs with edges in compressed rows.
    ///
    /// # Errors
    /// [`NnError::Graph`] when offsets do not rise, an index is out of range, an edge leaves its graph, or a graph
    /// has no node.
    pub fn from_csr(
        jet_offsets: &[u32],
        in_offsets: &[u32],
        senders: &[u32],
        device: &Device,
    ) -> Result<Self, NnError> {
        crate::graph::from_csr(jet_offsets, in_offsets, senders, device)
    }

    /// The same graphs with the kinematics of their nodes, `[N * 4]` row by row.
    ///
    /// # Errors
    /// [`NnError::Graph`] when the number of values is not four a node, or one is not finite.
    pub fn with_kinematics(self, values: &[f32]) -> Result<Self, NnError> {
        crate::graph::with_kinematics(self, values)
    }

    /// The edges of graphs that have some.
    ///
    /// # Panics
    /// When there are none: whoever runs a network has compared [`Backbone::needs`] with the batch.
    pub fn edges(&self) -> &Edges {
        match &self.edges {
            Some(edges) => edges,
            None => panic!("a network on fixed edges was given graphs without edges"),
        }
    }

    /// The kinematics of the nodes of graphs that have them.
    ///
    /// # Panics
    /// As [`RaggedGraph::edges`].
    pub fn kinematics(&self) -> &Tensor<2> {
        match &self.kinematics {
            Some(kinematics) => kinematics,
            None => panic!("a network on pairs of particles was given graphs without kinematics"),
        }
    }
}

/// What a network must find in a [`RaggedGraph`] beside the nodes of each graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// [`RaggedGraph::edges`].
    pub edges: bool,
    /// [`RaggedGraph::kinematics`].
    pub kinematics: bool,
}

impl Needs {
    /// Whether `graph` has everything.
    ///
    /// # Errors
    /// [`NnError::Graph`] naming what is missing.
    pub fn check(self, graph: &RaggedGraph) -> Result<(), NnError> {
        crate::graph::check_needs(self, graph)
    }
}

/// Packed ragged batch: node features and their graphs.
#[derive(Clone, Debug)]
pub struct GraphBatch {
    /// `[N, F]`, float.
    pub features: Tensor<2>,
    /// Which nodes belong to which jet, and who sends to whom.
    pub graph: RaggedGraph,
}

/// One stage of a backbone, from input to output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Name in plans and reports, such as `edge_conv.0`.
    pub name: String,
    /// Every parameter or buffer whose name is this or starts with this and a dot belongs to the stage.
    pub prefix: String,
}

/// What a row of an activation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// One row per node: N rows.
    Nodes,
    /// One row per jet: B rows.
    Jets,
}

/// How the BatchNorms of one stage compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormMode {
    /// Statistics of the batch; running statistics move (PyTorch's training mode).
    Batch,
    /// Running statistics, which stay as they are (PyTorch's evaluation mode).
    Running,
}

/// How a forward pass is run. It is explicit: nothing depends on a hidden training flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mode {
    /// One entry per stage.
    pub norms: Vec<NormMode>,
    /// Seed of this pass's dropout masks; `None` switches dropout off.
    pub dropout_seed: Option<u64>,
}

impl Mode {
    /// Evaluation: running statistics everywhere, no dropout.
    pub fn evaluate(stages: usize) -> Self {
        Self { norms: vec![NormMode::Running; stages], dropout_seed: None }
    }

    /// Training of all stages; `seed` names this step's dropout masks.
    pub fn train(stages: usize, seed: u64) -> Self {
        Self { norms: vec![NormMode::Batch; stages], dropout_seed: Some(seed) }
    }
}

/// A network that can be grafted.
///
/// Stage `s` maps the activation at cut `s` to the activation at cut `s + 1`: cut 0 is the input features, the
/// last cut is the logits, and the last stage is the head. The activation at a cut, with the graphs, is all that the
/// later stages need (for a network with skips to the end, the concatenation of what they use).
pub trait Backbone: Module + 'static {
    /// Registry name, such as `lundnet`.
    fn kind(&self) -> &'static str;

    /// Stages in order; the last one is the head.
    fn stages(&self) -> Vec<Stage>;

    /// Number of classes C of the head.
    fn classes(&self) -> usize;

    /// Number of input features F.
    fn input_features(&self) -> usize;

    /// What it must find in the graphs beside features.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// What the rows of the activation at `cut` are.
    fn rows_at(&self, cut: usize) -> Rows;

    /// Number of columns of the activation at `cut`.
    fn width_at(&self, cut: usize) -> usize;

    /// Runs `stages` on the activation at cut `stages.start`.
    ///
    /// # Shapes
    /// `[N or B, width_at(stages.start)]` to `[N or B, width_at(stages.end)]`.
    fn forward_stages(
        &self,
        stages: Range<usize>,
        activation: Tensor<2>,
        graph: &RaggedGraph,
        mode: &Mode,
    ) -> Tensor<2>;

    /// A new head for `classes` classes, drawn from `seed`; everything else is kept.
    fn replace_head(self, classes: usize, seed: u64) -> Self;

    /// Logits `[B, C]`.
    fn forward(&self, batch: &GraphBatch, mode: &Mode) -> Tensor<2> {
        self.forward_stages(0..self.stages().len(), batch.features.clone(), &batch.graph, mode)
    }

    /// Representation before the head, `[B, D]`.
    fn encode(&self, batch: &GraphBatch, mode: &Mode) -> Tensor<2> {
        self.forward_stages(0..self.stages().len() - 1, batch.features.clone(), &batch.graph, mode)
    }
}
