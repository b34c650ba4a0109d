//! Who trains, who validates, who tests: by a hash of the event id, never by the order of rows or files.
//!
//! All jets of one event share its fate, in every file and on every machine, whatever else is in the data set.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Weights are fitted on it.
    Train,
    /// Weights and stopping are chosen on it.
    Validation,
    /// Looked at once, at the end.
    Test,
}

impl Part {
    /// All parts in order.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        })
    }
}

/// Shares of events in the three parts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Split {
    /// Share that trains.
    pub train: f64,
    /// Share that validates.
    pub validation: f64,
    /// Share that tests.
    pub test: f64,
    /// Changes who is where; the same salt gives the same parts.
    pub salt: u64,
}

impl Default for Split {
    fn default() -> Self {
        Self { train: 0.6, validation: 0.1, test: 0.3, salt: 0 }
    }
}

/// Row numbers of the three parts, rising.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitRows {
    /// Rows that train.
    pub train: Vec<usize>,
    /// Rows that validate.
    pub validation: Vec<usize>,
    /// Rows that test.
    pub test: Vec<usize>,
}

impl Split {
    /// Checks that the shares are not negative and add up to 1.
    ///
    /// # Errors
    /// [`DataError::Option`].
    pub fn check(&self) -> Result<(), DataError> {
        let shares = [self.train, self.validation, self.test];
        let sum: f64 = shares.iter().sum();
        if shares.iter().any(|share| !share.is_finite() || *share < 0.0) || (sum - 1.0).abs() > 1e-9 {
            return Err(DataError::option(
                "split",
                format!("train {} + validation {} + test {}", self.train, self.validation, self.test),
                "three shares from 0 to 1 that add up to 1",
            ));
        }
        Ok(())
    }

    /// The part of an event.
    pub fn assign(&self, event_id: u64) -> Part {
        let at = unit_interval(b"jetgraft split 1", self.salt, event_id);
        if at < self.train {
            Part::Train
        } else if at < self.train + self.validation || self.test == 0.0 {
            // With no test share, rounding of the sum must not make one.
            if self.validation == 0.0 { Part::Train } else { Part::Validation }
        } else {
            Part::Test
        }
    }

    /// Row numbers of the three parts.
    ///
    /// # Errors
    /// [`DataError::Option`] as [`Split::check`].
    pub fn rows(&self, event_ids: &[u64]) -> Result<SplitRows, DataError> {
        self.check()?;
        let mut rows = SplitRows::default();
        for (row, event_id) in event_ids.iter().enumerate() {
            match self.assign(*event_id) {
                Part::Train => rows.train.push(row),
                Part::Validation => rows.validation.push(row),
                Part::Test => rows.test.push(row),
            }
        }
        Ok(rows)
    }
}

/// The share, of those with the given weights, that an event falls into, for dividing events between tasks (source and
/// target, say). Independent of [`Split`] with the same salt. Weights need not add up to 1; 0 when all are zero.
pub fn partition(event_id: u64, salt: u64, weights: &[f64]) -> usize {
    let total: f64 = weights.iter().filter(|weight| **weight > 0.0).sum();
    let at = unit_interval(b"jetgraft partition 1", salt, event_id) * total;
    let mut sum = 0.0;
    let mut last = 0;
    for (share, weight) in weights.iter().enumerate() {
        if *weight > 0.0 {
            sum += weight;
            last = share;
            if at < sum {
                return share;
            }
        }
    }
    last
}

/// A number in [0, 1) from a purpose, a salt and an event id: the first 53 bits of their BLAKE3 digest.
fn unit_interval(purpose: &[u8], salt: u64, event_id: u64) -> f64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(purpose);
    hasher.update(&salt.to_le_bytes());
    hasher.update(&event_id.to_le_bytes());
    let digest = hasher.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    (u64::from_le_bytes(first) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Checks that no event is in two of the named lists of event ids.
///
/// # Errors
/// [`DataError::SharedEvent`] with the first pair of lists that share events.
pub fn check_disjoint(parts: &[(&str, &[u64])]) -> Result<(), DataError> {
    let mut owner: HashMap<u64, usize> = HashMap::new();
    for (part, (name, event_ids)) in parts.iter().enumerate() {
        let mut shared: HashMap<usize, HashSet<u64>> = HashMap::new();
        for event_id in *event_ids {
            let first = *owner.entry(*event_id).or_insert(part);
            if first != part {
                shared.entry(first).or_default().insert(*event_id);
            }
        }
        if let Some((first, events)) = shared.into_iter().min_by_key(|(first, _)| *first) {
            return Err(DataError::SharedEvent {
                first: parts[first].0.to_owned(),
                second: (*name).to_owned(),
                event_id: events.iter().copied().min().unwrap_or_default(),
                shared: events.len(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_parts_of_an_event_are_pinned() {
        // These must never change: a stored split would silently become another one.
        let split = Split::default();
        let parts: Vec<u8> = (0..20).map(|event| split.assign(event) as u8).collect();
        assert_eq!(parts, PINNED, "the hash of the split has changed");
    }

    const PINNED: [u8; 20] = [0, 2, 0, 2, 0, 2, 0, 0, 0, 2, 0, 2, 0, 2, 0, 0, 0, 2, 2, 0];

    #[test]
    fn shares_come_out_and_do_not_follow_each_other() {
        let split = Split { train: 0.6, validation: 0.1, test: 0.3, salt: 5 };
        let ids: Vec<u64> = (0..20_000).map(|i| i << 32 | 7).collect();
        let rows = split.rows(&ids).unwrap();
        for (found, share) in [(&rows.train, 0.6), (&rows.validation, 0.1), (&rows.test, 0.3)] {
            let sigma = (share * (1.0 - share) / 20_000.0f64).sqrt();
            assert!((found.len() as f64 / 20_000.0 - share).abs() < 5.0 * sigma);
        }
        // The partition is independent of the split with the same salt.
        let both = rows.train.iter().filter(|row| partition(ids[**row], 5, &[1.0, 1.0]) == 0).count();
        assert!((both as f64 / rows.train.len() as f64 - 0.5).abs() < 0.03);
    }

    #[test]
    fn bad_shares_are_refused() {
        for (train, validation, test) in [(0.5, 0.5, 0.5), (1.5, -0.5, 0.0), (f64::NAN, 0.5, 0.5)] {
            assert!(Split { train, validation, test, salt: 0 }.check().is_err());
        }
        let whole = Split { train: 1.0, validation: 0.0, test: 0.0, salt: 0 };
        assert!((0..1000).all(|event| whole.assign(event) == Part::Train));
        let none = Split { train: 0.0, validation: 1.0, test: 0.0, salt: 0 };
        assert!((0..1000).all(|event| none.assign(event) == Part::Validation));
        assert_eq!(partition(3, 0, &[0.0, 0.0, 2.0]), 2);
        assert_eq!(partition(3, 0, &[]), 0);
    }

    proptest! {
        #[test]
        fn no_event_is_in_two_parts(ids in proptest::collection::vec(0u64..500, 0..400), salt: u64) {
            let split = Split { salt, ..Split::default() };
            let rows = split.rows(&ids).unwrap();
            prop_assert_eq!(rows.train.len() + rows.validation.len() + rows.test.len(), ids.len());
            let take = |rows: &[usize]| rows.iter().map(|row| ids[*row]).collect::<Vec<_>>();
            let (train, validation, test) = (take(&rows.train), take(&rows.validation), take(&rows.test));
            check_disjoint(&[("train", &train), ("validation", &validation), ("test", &test)]).unwrap();
        }
    }

    #[test]
    fn shared_events_are_counted_and_named() {
        let error = check_disjoint(&[("a", &[1, 2, 2, 3]), ("b", &[9]), ("c", &[3, 2, 2])]).unwrap_err();
        assert_eq!(error.to_string(), "event 2 is in `a` and in `c` (2 events are in both)");
    }
}
