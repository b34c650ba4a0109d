//! Training sets of several sizes for several seeds: nested in size within a seed, disjoint between seeds as far as
//! the data go, with the classes in the same proportion everywhere.
//!
//! # Method
//! Events are shuffled and dealt to the seeds, each to the seed that has the fewest rows of the event's class, so that an
//! event is in one seed only. Within a seed the rows are lined up so that every beginning has the classes in
//! the proportion of the whole, to within one row; the subset of size n is the first n. Where a seed's own rows
//! do not suffice for a size, rows of the other seeds follow, in an order of the seed's own; such sizes are not
//! disjoint, and [`Subsets::sharing`] says how much two seeds have in common. No row is ever taken twice within a
//! subset: drawing with replacement would make a set of n jets hold fewer than n different ones.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::loader::{keyed, shuffle};

/// What the subsets of one size have in common between seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Sharing {
    /// No event is in the subsets of two seeds.
    Disjoint,
    /// There are too few data for that.
    Shared {
        /// Part of a subset that another seed's subset also holds, averaged over pairs of seeds.
        fraction: f64,
    },
}

/// Row numbers of every (seed, size).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subsets {
    /// Sizes, rising.
    pub sizes: Vec<usize>,
    /// For each size, what seeds have in common.
    pub sharing: Vec<Sharing>,
    /// For each seed, the rows in the order in which they are taken; as long as the largest size.
    pub order: Vec<Vec<usize>>,
}

/// Chooses training sets of the given sizes (numbers of rows) for `n_seeds` seeds; see the [module](self).
///
/// # Errors
/// [`DataError::Option`] for a size that is zero, larger than the data, or too small to hold every class;
/// [`DataError::SharedEvent`] should a promise of this function not hold.
///
/// # Panics
/// When `labels` and `event_ids` differ in length.
pub fn subsets(
    labels: &[u32],
    event_ids: &[u64],
    sizes: &[usize],
    n_seeds: usize,
    seed: u64,
) -> Result<Subsets, DataError> {
    assert_eq!(labels.len(), event_ids.len(), "one label and one event id a row");
    let rows = labels.len();
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    sizes.dedup();
    let (Some(&smallest), Some(&largest)) = (sizes.first(), sizes.last()) else {
        return Err(DataError::option("sizes", "an empty list", "at least one size"));
    };
    if n_seeds == 0 {
        return Err(DataError::option("seeds", 0, "at least 1"));
    }
    if largest > rows {
        return Err(DataError::option(
            "sizes",
            largest,
            format!("at most {rows}, the number of training jets"),
        ));
    }
    let mut totals: BTreeMap<u32, usize> = BTreeMap::new();
    for label in labels {
        *totals.entry(*label).or_default() += 1;
    }
    let sequence = class_sequence(&totals, rows, largest);
    let classes_in = |size: usize| sequence[..size].iter().collect::<HashSet<_>>().len();
    if smallest == 0 || classes_in(smallest) < totals.len() {
        let needed = (1..=largest).find(|size| classes_in(*size) == totals.len());
        return Err(DataError::option(
            "sizes",
            smallest,
            match needed {
                Some(needed) => format!("at least {needed}, so that every class is there"),
                None => "larger, so that every class is there".to_owned(),
            },
        ));
    }

    let pools = deal(labels, event_ids, n_seeds, seed);
    let order: Vec<Vec<usize>> = pools
        .iter()
        .enumerate()
        .map(|(at, pool)| line_up(labels, pool, &sequence, seed, at as u64))
        .collect();
    let sharing = sizes.iter().map(|size| sharing_of(&order, event_ids, *size)).collect();
    let subsets = Subsets { sizes, sharing, order };
    subsets.check(event_ids)?;
    Ok(subsets)
}

/// The classes of the first n rows for every n up to `length`: always the class that is furthest behind its share.
fn class_sequence(totals: &BTreeMap<u32, usize>, rows: usize, length: usize) -> Vec<u32> {
    let mut taken: BTreeMap<u32, usize> = totals.keys().map(|class| (*class, 0)).collect();
    let mut sequence = Vec::with_capacity(length);
    for n in 1..=length {
        // share * n - taken, times rows; exact in integers. The first class wins a tie.
        let behind =
            |class: &u32| (totals[class] as i128) * (n as i128) - (taken[class] as i128) * (rows as i128);
        let next = totals.keys().filter(|class| taken[class] < totals[class]).fold(
            None,
            |best: Option<&u32>, class| match best {
                Some(best) if behind(best) >= behind(class) => Some(best),
                _ => Some(class),
            },
        );
        let Some(next) = next else { break };
        sequence.push(*next);
        *taken.entry(*next).or_default() += 1;
    }
    sequence
}

/// Deals whole events to seeds; for each seed its rows, event by event.
fn deal(labels: &[u32], event_ids: &[u64], n_seeds: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut events: Vec<Vec<usize>> = Vec::new();
    let mut place: HashMap<u64, usize> = HashMap::new();
    for (row, event_id) in event_ids.iter().enumerate() {
        let at = *place.entry(*event_id).or_insert_with(|| {
            events.push(Vec::new());
            events.len() - 1
        });
        events[at].push(row);
    }
    shuffle(&mut keyed(b"jetgraft deal  1", seed, 0), &mut events);
    let mut pools = vec![Vec::new(); n_seeds];
    let mut held: Vec<HashMap<u32, usize>> = vec![HashMap::new(); n_seeds];
    for event in events {
        let class = labels[event[0]];
        let poorest = (0..n_seeds)
            .min_by_key(|at| (held[*at].get(&class).copied().unwrap_or(0), pools[*at].len()))
            .unwrap_or(0);
        for row in event {
            *held[poorest].entry(labels[row]).or_default() += 1;
            pools[poorest].push(row);
        }
    }
    pools
}

/// The rows of one seed in the order of the class sequence: its own first, then those of the others.
fn line_up(labels: &[u32], pool: &[usize], sequence: &[u32], seed: u64, at: u64) -> Vec<usize> {
    let mut queues: HashMap<u32, std::collections::VecDeque<usize>> = HashMap::new();
    for row in pool {
        queues.entry(labels[*row]).or_default().push_back(*row);
    }
    let own: HashSet<usize> = pool.iter().copied().collect();
    let mut others: Vec<usize> = (0..labels.len()).filter(|row| !own.contains(row)).collect();
    shuffle(&mut keyed(b"jetgraft fill  1", seed, at), &mut others);
    for row in others {
        queues.entry(labels[row]).or_default().push_back(row);
    }
    sequence.iter().filter_map(|class| queues.get_mut(class)?.pop_front()).collect()
}

fn sharing_of(order: &[Vec<usize>], event_ids: &[u64], size: usize) -> Sharing {
    let events: Vec<HashSet<u64>> =
        order.iter().map(|rows| rows[..size].iter().map(|row| event_ids[*row]).collect()).collect();
    let rows: Vec<HashSet<usize>> = order.iter().map(|rows| rows[..size].iter().copied().collect()).collect();
    let (mut shared_rows, mut shared_events, mut pairs) = (0, 0, 0);
    for a in 0..order.len() {
        for b in a + 1..order.len() {
            shared_rows += rows[a].intersection(&rows[b]).count();
            shared_events += events[a].intersection(&events[b]).count();
            pairs += 1;
        }
    }
    if shared_events == 0 {
        Sharing::Disjoint
    } else {
        Sharing::Shared { fraction: shared_rows as f64 / (pairs * size) as f64 }
    }
}

impl Subsets {
    /// Number of seeds.
    pub fn seeds(&self) -> usize {
        self.order.len()
    }

    /// Rows of one seed and size, in the order in which they were taken.
    ///
    /// # Panics
    /// When `seed` is not below [`Subsets::seeds`] or `size` is not one of the sizes.
    pub fn rows(&self, seed: usize, size: usize) -> &[usize] {
        assert!(self.sizes.contains(&size), "size {size} is none of {:?}", self.sizes);
        &self.order[seed][..size]
    }

    /// One sentence for reports.
    pub fn describe(&self) -> String {
        let parts: Vec<String> = self
            .sizes
            .iter()
            .zip(&self.sharing)
            .map(|(size, sharing)| match sharing {
                Sharing::Disjoint => format!("{size}: disjoint"),
                Sharing::Shared { fraction } => {
                    format!("{size}: {:.0} % shared between two seeds, too few data", 100.0 * fraction)
                }
            })
            .collect();
        format!("{} seeds, nested subsets ({})", self.seeds(), parts.join("; "))
    }

    /// Checks the promises: every subset has its size without repetition, and the sizes said to be disjoint share no
    /// event between seeds. (Nesting holds by construction: a subset is a beginning of one order.)
    ///
    /// # Errors
    /// [`DataError::SharedEvent`], [`DataError::Option`].
    pub fn check(&self, event_ids: &[u64]) -> Result<(), DataError> {
        let largest = self.sizes.last().copied().unwrap_or(0);
        for rows in &self.order {
            let different: HashSet<&usize> = rows.iter().collect();
            let inside = rows.iter().all(|row| *row < event_ids.len());
            if rows.len() != largest || different.len() != largest || !inside {
                return Err(DataError::option(
                    "subset",
                    format!("{} rows, {} of them different", rows.len(), different.len()),
                    format!("{largest} different rows of {}", event_ids.len()),
                ));
            }
        }
        for (size, sharing) in self.sizes.iter().zip(&self.sharing) {
            if *sharing == Sharing::Disjoint {
                let names: Vec<String> = (0..self.seeds()).map(|seed| format!("seed {seed}")).collect();
                let events: Vec<Vec<u64>> = self
                    .order
                    .iter()
                    .map(|rows| rows[..*size].iter().map(|row| event_ids[*row]).collect())
                    .collect();
                let parts: Vec<(&str, &[u64])> =
                    names.iter().zip(&events).map(|(name, ids)| (name.as_str(), ids.as_slice())).collect();
                crate::split::check_disjoint(&parts)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `events` events of one or two rows; class 0 for two of three events.
    fn data(events: u64) -> (Vec<u32>, Vec<u64>) {
        let mut labels = Vec::new();
        let mut ids = Vec::new();
        for event in 0..events {
            for _ in 0..1 + event % 2 {
                labels.push(u32::from(event % 3 == 0));
                ids.push(event * 1000 + 17);
            }
        }
        (labels, ids)
    }

    #[test]
    fn disjoint_where_the_data_allow() {
        let (labels, ids) = data(400);
        let made = subsets(&labels, &ids, &[150, 30, 400], 3, 7).unwrap();
        assert_eq!(made.sizes, [30, 150, 400]);
        assert_eq!(made.sharing[..2], [Sharing::Disjoint, Sharing::Disjoint]);
        let Sharing::Shared { fraction } = made.sharing[2] else { panic!("400 * 3 > 600") };
        assert!((0.4..0.8).contains(&fraction), "{fraction}");
        for seed in 0..3 {
            assert_eq!(made.rows(seed, 30), &made.rows(seed, 150)[..30]);
        }
        assert_eq!(made, subsets(&labels, &ids, &[30, 150, 400], 3, 7).unwrap());
        assert_ne!(made, subsets(&labels, &ids, &[30, 150, 400], 3, 8).unwrap());
        assert!(made.describe().contains("150: disjoint; 400: "));
        // All rows for one seed.
        let all = subsets(&labels, &ids, &[labels.len()], 1, 7).unwrap();
        assert_eq!(all.sharing, [Sharing::Disjoint]);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let (labels, ids) = data(40);
        for sizes in [vec![], vec![0], vec![1], vec![10_000]] {
            assert!(
                matches!(subsets(&labels, &ids, &sizes, 2, 0), Err(DataError::Option { .. })),
                "{sizes:?}"
            );
        }
        assert!(subsets(&labels, &ids, &[10], 0, 0).is_err());
    }

    #[test]
    fn a_shared_event_is_caught() {
        let (labels, ids) = data(100);
        let mut made = subsets(&labels, &ids, &[20], 2, 1).unwrap();
        let stolen = made.order[0][0];
        made.order[1][0] = stolen;
        assert!(matches!(made.check(&ids), Err(DataError::SharedEvent { .. })));
    }

    proptest! {
        #[test]
        fn stratified_nested_and_honest(
            rows in proptest::collection::vec((0u32..3, 0u64..60), 30..200),
            n_seeds in 1usize..5,
            seed: u64,
        ) {
            let labels: Vec<u32> = rows.iter().map(|row| row.0).collect();
            let ids: Vec<u64> = rows.iter().map(|row| row.1).collect();
            let sizes = [rows.len() / 6, rows.len() / 3, rows.len()];
            let Ok(made) = subsets(&labels, &ids, &sizes, n_seeds, seed) else { return Ok(()) };
            for at in 0..n_seeds {
                for size in &made.sizes {
                    let subset = made.rows(at, *size);
                    prop_assert_eq!(subset.len(), *size);
                    for class in 0..3 {
                        let share = labels.iter().filter(|label| **label == class).count() as f64 / labels.len() as f64;
                        let found = subset.iter().filter(|row| labels[**row] == class).count() as f64;
                        prop_assert!((found - share * *size as f64).abs() < 2.0, "{} {} {}", found, share, size);
                    }
                }
            }
        }
    }
}
