//! What every backbone promises: stages in order from input to output, evaluation of any run of stages, a
//! head that can be replaced.
//!
//! Freezing, learning rates per stage, probing, cached prefixes and export use only this. A backbone never
//! knows a data set; a data set never knows a backbone: they meet in [`GraphBatch`].

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use crate::error::NnError;

/// Ragged graphs of a batch on a device, edges in compressed rows by receiver.
///
/// # Shapes
/// B jets, N nodes over all jets, E directed edges over all jets; index tensors are `i32`.
#[derive(Clone, Debug)]
pub struct RaggedGraph {
    /// Number of graphs, B.
    pub jets: usize,
    /// Number of nodes over all graphs, N.
    pub nodes: usize,
    /// Number of directed edges over all graphs, E.
    pub edges: usize,
    /// `[B + 1]`: nodes of jet `b` are `jet_offsets[b]..jet_offsets[b + 1]`.
    pub jet_offsets: Tensor<1, Int>,
    /// `[N + 1]`: edges that end at node `i` are `in_offsets[i]..in_offsets[i + 1]`.
    pub in_offsets: Tensor<1, Int>,
    /// `[E]`: the sending node of each edge, in the order of `in_offsets`.
    pub senders: Tensor<1, Int>,
    /// `[N + 1]`: positions in `out_edges` of the edges that start at node `i`.
    pub out_offsets: Tensor<1, Int>,
    /// `[E]`: edge numbers (positions in `senders`) grouped by sending node.
    pub out_edges: Tensor<1, Int>,
}

impl RaggedGraph {
    /// Checks the index arrays and puts them on `device`.
    ///
    /// # Errors
    /// [`NnError::Graph`] when offsets do not rise, an index is out of range, an edge leaves its jet, or a jet
    /// has no node.
    pub fn from_csr(
        jet_offsets: &[u32],
        in_offsets: &[u32],
        senders: &[u32],
        device: &Device,
    ) -> Result<Self, NnError> {
        crate::graph::from_csr(jet_offsets, in_offsets, senders, device)
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
/// last cut is the logits, and the last stage is the head. The activation at a cut is all that the later stages
/// need (for a network with skips to the end, the concatenation of what they use).
pub trait Backbone: Module + 'static {
    /// Registry name, such as `lundnet`.
    fn kind(&self) -> &'static str;

    /// Stages in order; the last one is the head.
    fn stages(&self) -> Vec<Stage>;

    /// Number of classes C of the head.
    fn classes(&self) -> usize;

    /// Number of input features F.
    fn input_features(&self) -> usize;

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
