//! The output of frozen stages, computed once.
//!
//! Stages with fixed weights and fixed norms give a jet the same rows in every epoch and every batch. They are
//! computed once, kept on the host, and gathered for each batch. On the CPU the gathered rows have the same bits as
//! those computed in the batch, because no kernel lets rows of different jets touch each other.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Tensor};
use jetgraft_data::{GraphSet, PackedBatch};
use jetgraft_nn::contract::{Backbone, Mode, Rows};
use jetgraft_nn::{state, weights};

use crate::batch::{rows, to_device};
use crate::error::LearnError;
use crate::names::stage_of;

/// Activations of a set of jets at one cut.
#[derive(Clone, Debug)]
pub struct Prefix {
    cut: usize,
    width: usize,
    /// `[J + 1]`: rows of jet `j` are `offsets[j]..offsets[j + 1]`.
    offsets: Vec<usize>,
    /// `[rows, width]`.
    values: Vec<f32>,
}

/// Bytes that the activations of `set` at `cut` take.
pub fn bytes<B: Backbone>(model: &B, set: &GraphSet, cut: usize) -> u64 {
    let rows: usize = match model.rows_at(cut) {
        Rows::Jets => set.len(),
        Rows::Nodes => (0..set.len()).map(|jet| set.nodes_of(jet).max(1)).sum(),
    };
    4 * rows as u64 * model.width_at(cut) as u64
}

impl Prefix {
    /// Runs the first `cut` stages over all jets of `set`, in evaluation mode.
    ///
    /// # Errors
    /// As [`to_device`].
    pub fn compute<B: Backbone>(
        model: &B,
        set: &GraphSet,
        cut: usize,
        batch_size: usize,
        device: &Device,
    ) -> Result<Self, LearnError> {
        let model = model.valid();
        let device = device.clone().inner();
        let mode = Mode::evaluate(model.stages().len());
        let (width, per) = (model.width_at(cut), model.rows_at(cut));
        let mut prefix = Self { cut, width, offsets: vec![0], values: Vec::new() };
        let all: Vec<usize> = (0..set.len()).collect();
        for jets in all.chunks(batch_size.max(1)) {
            let packed = set.pack(jets);
            let batch = to_device(&packed, &device)?;
            let output = model.forward_stages(0..cut, batch.features, &batch.graph, &mode);
            prefix.values.extend(output.into_data().iter::<f32>());
            let base = prefix.offsets[prefix.offsets.len() - 1];
            match per {
                Rows::Jets => prefix.offsets.extend((1..=jets.len()).map(|jet| base + jet)),
                Rows::Nodes => {
                    prefix
                        .offsets
                        .extend(packed.jet_offsets[1..].iter().map(|&offset| base + offset as usize));
                }
            }
        }
        Ok(prefix)
    }

    /// Number of stages before the cut.
    pub fn cut(&self) -> usize {
        self.cut
    }

    /// The rows of these jets, in their order.
    ///
    /// # Panics
    /// When a jet is not one of the set.
    pub fn gather(&self, jets: &[usize], device: &Device) -> Tensor<2> {
        let count: usize = jets.iter().map(|&jet| self.offsets[jet + 1] - self.offsets[jet]).sum();
        let mut values = Vec::with_capacity(count * self.width);
        for &jet in jets {
            values.extend_from_slice(
                &self.values[self.offsets[jet] * self.width..self.offsets[jet + 1] * self.width],
            );
        }
        rows(values, self.width, device)
    }
}

/// Activations that several runs share: the cells of a study see the same validation and test jets through the
/// same frozen stages.
#[derive(Debug)]
pub struct Shelf {
    limit_bytes: u64,
    /// Oldest first.
    kept: Mutex<Vec<(String, Arc<Prefix>)>>,
}

impl Shelf {
    /// An empty one that holds at most `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, kept: Mutex::new(Vec::new()) }
    }

    /// The output of the first `cut` stages for `set`, whose digest is `set_digest`: from the shelf, or computed
    /// and put there in the place of the oldest. `None` if it is larger than the whole shelf.
    ///
    /// # Errors
    /// As [`Prefix::compute`].
    pub fn get<B: Backbone>(
        &self,
        model: &B,
        set: &GraphSet,
        set_digest: &str,
        cut: usize,
        batch_size: usize,
        device: &Device,
    ) -> Result<Option<Arc<Prefix>>, LearnError> {
        let needed = bytes(model, set, cut);
        if needed > self.limit_bytes {
            return Ok(None);
        }
        let stages = model.stages();
        let mut frozen = state::state(model);
        let mut homeless = None;
        frozen.retain(|name, _| match stage_of(name, &stages) {
            Ok(stage) => stage < cut,
            Err(error) => {
                homeless = Some(error);
                false
            }
        });
        if let Some(error) = homeless {
            return Err(error);
        }
        let digest = blake3::hash(&weights::to_bytes(&frozen, &Default::default()));
        let key = format!("{cut} {digest} {set_digest}");
        // A panic elsewhere cannot leave the list half changed.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, prefix)) = kept.iter().find(|(found, _)| *found == key) {
            return Ok(Some(prefix.clone()));
        }
        let size = |prefix: &Prefix| 4 * prefix.values.len() as u64;
        let mut total: u64 = kept.iter().map(|(_, prefix)| size(prefix)).sum();
        while total + needed > self.limit_bytes && !kept.is_empty() {
            total -= size(&kept.remove(0).1);
        }
        let prefix = Arc::new(Prefix::compute(model, set, cut, batch_size, device)?);
        kept.push((key, prefix.clone()));
        Ok(Some(prefix))
    }
}

/// What the stages that are still to be run start from: the features of a batch, or cached rows.
///
/// # Errors
/// As [`to_device`].
pub fn activation(
    prefix: Option<&Prefix>,
    packed: &PackedBatch,
    device: &Device,
) -> Result<(usize, Tensor<2>), LearnError> {
    Ok(match prefix {
        Some(prefix) => (prefix.cut, prefix.gather(&packed.indices, device)),
        None => (0, rows(packed.features.clone(), packed.n_features, device)),
    })
}
