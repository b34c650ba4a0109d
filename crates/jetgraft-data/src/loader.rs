//! Batches in a reproducible order, packed by a thread that runs ahead of the trainer.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::graph_set::{GraphSet, PackedBatch};

/// A generator that depends on a purpose and two numbers only.
///
/// ChaCha8 keyed by (purpose, a, b): the same stream in every version and on every machine.
pub(crate) fn keyed(purpose: &[u8; 16], a: u64, b: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..16].copy_from_slice(purpose);
    key[16..24].copy_from_slice(&a.to_le_bytes());
    key[24..].copy_from_slice(&b.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// A number below `bound`, every one equally likely (Lemire's method with rejection).
fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    let threshold = bound.wrapping_neg() % bound;
    loop {
        let wide = u128::from(rng.next_u64()) * u128::from(bound);
        if wide as u64 >= threshold {
            return (wide >> 64) as u64;
        }
    }
}

/// Shuffles in place (Fisher and Yates). Written out here because its result must stay the same for ever.
pub(crate) fn shuffle<T>(rng: &mut ChaCha8Rng, values: &mut [T]) {
    for at in (1..values.len()).rev() {
        values.swap(at, below(rng, at as u64 + 1) as usize);
    }
}

/// The order in which `n` rows are visited in an epoch: a permutation that depends on (n, seed, epoch) only.
pub fn epoch_order(n: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    shuffle(&mut keyed(b"jetgraft epoch 1", seed, epoch), &mut order);
    order
}

/// What happens to the rows that do not fill the last batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LastBatch {
    /// They make a smaller batch.
    #[default]
    Keep,
    /// They are left out of this epoch, as LundNet's training does.
    Drop,
}

/// How rows become batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Jets in a batch; at least 1 (0 counts as 1).
    pub batch_size: usize,
    /// What happens to the rest.
    pub last: LastBatch,
    /// Batches to leave out at the beginning: those that a resumed run has already seen.
    pub skip: usize,
    /// Batches that may be ready before they are asked for.
    pub ahead: usize,
}

impl Batching {
    /// All rows, in batches of `batch_size`, two of them ahead.
    pub fn new(batch_size: usize) -> Self {
        Self { batch_size, last: LastBatch::Keep, skip: 0, ahead: 2 }
    }

    /// Number of batches of `rows` rows, those left out at the beginning included.
    pub fn batches(&self, rows: usize) -> usize {
        match self.last {
            LastBatch::Keep => rows.div_ceil(self.batch_size.max(1)),
            LastBatch::Drop => rows / self.batch_size.max(1),
        }
    }
}

/// An iterator over packed batches, which are made on a thread of its own.
///
/// The batches depend on the rows and the batching only, not on timing. Dropping the loader ends its thread.
///
/// ```
/// use std::sync::Arc;
/// use jetgraft_data::loader::{Batching, Loader, epoch_order};
/// # let graphs = Arc::new(jetgraft_data::GraphSet::default());
/// let order = epoch_order(graphs.len(), 7, 0);
/// for batch in Loader::new(graphs.clone(), order, Batching::new(256)) {
///     assert!(batch.jets() <= 256);
/// }
/// ```
#[derive(Debug)]
pub struct Loader {
    batches: Option<Receiver<PackedBatch>>,
    worker: Option<JoinHandle<()>>,
    left: usize,
}

impl Loader {
    /// Starts packing `rows` of `graphs`, in the order given.
    ///
    /// # Panics
    /// While iterating, when a row is not below `graphs.len()`.
    pub fn new(graphs: Arc<GraphSet>, rows: Vec<usize>, batching: Batching) -> Self {
        let total = batching.batches(rows.len());
        let (sender, receiver) = sync_channel(batching.ahead);
        let worker = std::thread::spawn(move || {
            for batch in rows.chunks(batching.batch_size.max(1)).take(total).skip(batching.skip) {
                if sender.send(graphs.pack(batch)).is_err() {
                    // Nobody listens any more.
                    return;
                }
            }
        });
        Self { batches: Some(receiver), worker: Some(worker), left: total.saturating_sub(batching.skip) }
    }

    fn join(&mut self) {
        self.batches = None;
        if let Some(worker) = self.worker.take()
            && let Err(panic) = worker.join()
            && !std::thread::panicking()
        {
            // A fault of the packing is the caller's to see; raised again during a panic it would abort.
            std::panic::resume_unwind(panic);
        }
    }
}

impl Iterator for Loader {
    type Item = PackedBatch;

    fn next(&mut self) -> Option<PackedBatch> {
        let batch = self.batches.as_ref().and_then(|batches| batches.recv().ok());
        match batch {
            Some(batch) => {
                self.left -= 1;
                Some(batch)
            }
            None => {
                self.join();
                None
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graphs(jets: usize) -> Arc<GraphSet> {
        Arc::new(GraphSet {
            feature_names: vec!["x".into()],
            features: (0..jets).map(|jet| jet as f32).collect(),
            node_offsets: (0..=jets).collect(),
            parents: Some(vec![-1; jets]),
            kinematics: None,
            event_id: (0..jets as u64).collect(),
            label: vec![0; jets],
            jet_pt_gev: vec![500.0; jets],
            jet_mass_gev: vec![80.0; jets],
        })
    }

    #[test]
    fn the_order_is_a_pinned_permutation() {
        let order = epoch_order(10, 42, 3);
        assert_eq!(order, PINNED_ORDER, "the stream or the shuffle has changed");
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        assert_ne!(order, epoch_order(10, 42, 4));
        assert_ne!(order, epoch_order(10, 43, 3));
        assert!(epoch_order(0, 1, 1).is_empty());
    }

    const PINNED_ORDER: [usize; 10] = [5, 3, 2, 7, 8, 4, 6, 1, 0, 9];

    #[test]
    fn every_place_is_equally_likely() {
        let mut counts = [[0u32; 5]; 5];
        for epoch in 0..5000 {
            for (place, row) in epoch_order(5, 1, epoch).into_iter().enumerate() {
                counts[place][row] += 1;
            }
        }
        // 1000 expected, sigma 28
        assert!(counts.iter().flatten().all(|count| (860..1140).contains(count)), "{counts:?}");
    }

    #[test]
    fn batches_come_in_order_and_resume() {
        let graphs = graphs(10);
        let order = epoch_order(10, 1, 0);
        let whole: Vec<PackedBatch> = Loader::new(graphs.clone(), order.clone(), Batching::new(4)).collect();
        assert_eq!(whole.iter().map(PackedBatch::jets).collect::<Vec<_>>(), [4, 4, 2]);
        let seen: Vec<usize> = whole.iter().flat_map(|batch| batch.indices.clone()).collect();
        assert_eq!(seen, order);
        let dropping = Batching { last: LastBatch::Drop, ..Batching::new(4) };
        assert_eq!(Loader::new(graphs.clone(), order.clone(), dropping).count(), 2);
        let resumed = Batching { skip: 1, ahead: 0, ..Batching::new(4) };
        let loader = Loader::new(graphs.clone(), order.clone(), resumed);
        assert_eq!(loader.size_hint(), (2, Some(2)));
        assert_eq!(loader.collect::<Vec<_>>(), whole[1..]);
        let beyond = Batching { skip: 9, ..Batching::new(4) };
        assert_eq!(Loader::new(graphs, order, beyond).count(), 0);
    }

    #[test]
    fn an_abandoned_loader_ends_its_thread() {
        let mut loader = Loader::new(graphs(1000), (0..1000).collect(), Batching::new(1));
        assert!(loader.next().is_some());
        drop(loader);
    }

    #[test]
    #[should_panic(expected = "index out of bounds")]
    fn a_row_that_is_not_there_is_not_swallowed() {
        Loader::new(graphs(2), vec![7], Batching::new(1)).for_each(drop);
    }
}
