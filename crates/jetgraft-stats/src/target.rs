//! After how many epochs, or seconds, is a wanted score reached?

use crate::error::{Result, StatsError, all_finite, at_least};
use serde::{Deserialize, Serialize};

/// When a training reached a score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TargetReached {
    /// At the end of this epoch for the first time.
    Reached {
        /// Epoch, counted from 1.
        epoch: usize,
        /// Score then.
        score: f64,
    },
    /// Not at all.
    NotReached {
        /// Epochs that were run.
        epochs: usize,
        /// Epoch of the best score, counted from 1, the first of equals.
        best_epoch: usize,
        /// Best score.
        best: f64,
    },
}

impl TargetReached {
    /// Cost at the end of the epoch that reached the target, from a column of costs since the start (seconds, steps,
    /// joules), one entry per epoch. None when the target was not reached.
    ///
    /// # Errors
    /// A column shorter than the epoch.
    pub fn cost(&self, cumulative: &[f64]) -> Result<Option<f64>> {
        match *self {
            Self::NotReached { .. } => Ok(None),
            Self::Reached { epoch, .. } => {
                at_least("epochs with a cost", cumulative.len(), epoch)?;
                Ok(Some(cumulative[epoch - 1]))
            }
        }
    }
}

/// First epoch whose validation score, higher is better, is at least `target`.
///
/// ```
/// use jetgraft_stats::target::{TargetReached, first_reaching};
/// let reached = first_reaching(&[0.81, 0.88, 0.91, 0.90], 0.88)?;
/// assert_eq!(reached, TargetReached::Reached { epoch: 2, score: 0.88 });
/// assert_eq!(reached.cost(&[10.0, 20.0, 30.0, 40.0])?, Some(20.0));
/// # Ok::<(), jetgraft_stats::StatsError>(())
/// ```
///
/// # Errors
/// No epochs, a score or a target that is not finite.
pub fn first_reaching(scores: &[f64], target: f64) -> Result<TargetReached> {
    at_least("epochs", scores.len(), 1)?;
    all_finite("validation score", scores)?;
    all_finite("target score", &[target])?;
    if let Some(index) = scores.iter().position(|&s| s >= target) {
        return Ok(TargetReached::Reached { epoch: index + 1, score: scores[index] });
    }
    let mut best = 0;
    for (index, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = index;
        }
    }
    Ok(TargetReached::NotReached { epochs: scores.len(), best_epoch: best + 1, best: scores[best] })
}

/// Costs of several seeds to reach a target.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TargetSummary {
    /// Seeds that reached it.
    pub reached: usize,
    /// Seeds.
    pub seeds: usize,
    /// Median cost, seeds that never got there counted as the dearest; none when they are the median.
    pub median: Option<f64>,
    /// Smallest cost.
    pub least: Option<f64>,
    /// Largest cost; none when a seed did not get there.
    pub most: Option<f64>,
}

/// Summary over seeds of costs (none: not reached). A median, since a mean over the seeds that got there would hide
/// the others.
///
/// # Errors
/// No seeds, a cost that is not finite.
pub fn summarise(costs: &[Option<f64>]) -> Result<TargetSummary> {
    at_least("seeds", costs.len(), 1)?;
    let mut sorted = Vec::with_capacity(costs.len());
    for (index, cost) in costs.iter().enumerate() {
        match cost {
            Some(value) if !value.is_finite() => {
                return Err(StatsError::NotFinite { what: "cost of seed", index, value: *value });
            }
            Some(value) => sorted.push(*value),
            None => sorted.push(f64::INFINITY),
        }
    }
    sorted.sort_by(f64::total_cmp);
    let finite = |x: f64| x.is_finite().then_some(x);
    let n = sorted.len();
    Ok(TargetSummary {
        reached: sorted.iter().filter(|x| x.is_finite()).count(),
        seeds: n,
        median: finite(0.5 * (sorted[(n - 1) / 2] + sorted[n / 2])),
        least: finite(sorted[0]),
        most: finite(sorted[n - 1]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_reached_tells_the_best() {
        let missed = first_reaching(&[0.5, 0.7, 0.7], 0.8).expect("valid");
        assert_eq!(missed, TargetReached::NotReached { epochs: 3, best_epoch: 2, best: 0.7 });
        assert_eq!(missed.cost(&[]).expect("valid"), None);
        assert!(matches!(first_reaching(&[], 0.8), Err(StatsError::TooFew { .. })));
        assert!(matches!(first_reaching(&[f64::NAN], 0.8), Err(StatsError::NotFinite { index: 0, .. })));
        assert!(first_reaching(&[0.5], f64::NAN).is_err());
        let reached = first_reaching(&[0.1, 0.9], 0.8).expect("valid");
        assert!(matches!(reached.cost(&[1.0]), Err(StatsError::TooFew { found: 1, needed: 2, .. })));
    }

    #[test]
    fn summary_counts_the_missing_as_dearest() {
        let s = summarise(&[Some(3.0), None, Some(1.0)]).expect("valid");
        assert_eq!((s.reached, s.seeds, s.median, s.least, s.most), (2, 3, Some(3.0), Some(1.0), None));
        assert_eq!(summarise(&[Some(3.0), None]).expect("valid").median, None);
        assert!(summarise(&[]).is_err());
    }
}
