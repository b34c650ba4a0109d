//! How many background jets does one accepted background jet cost?
//!
//! Rejection is 1 / eps_B at a wanted signal efficiency. The threshold is the first one, from the highest score
//! down, with eps_S >= target: no interpolation, so an integer number of background events stands behind every
//! number and is shown with it. (LundNet's evaluation takes the ROC point after the nearest one instead; both agree
//! for many events.) No accepted background gives a lower limit, never infinity.

use crate::bootstrap::{Bootstrap, sorted_quantile};
use crate::error::{Result, StatsError, at_least, good_level};
use crate::interval::{Interval, format_level, format_point, format_significant};
use crate::proportion::{clopper_pearson, clopper_pearson_upper};
use crate::roc::Roc;
use crate::seeds::{SeedsAndEvents, combine, mean_and_variance, pure_event_share, share_interval};
use crate::special::two_sided_t;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A rejection, or what can be said without any accepted background.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum RejectionEstimate {
    /// Some background passed: 1 / eps_B with a two-sided interval.
    Measured {
        /// The rejection.
        interval: Interval,
    },
    /// No background passed: the rejection is above `limit` at the (one-sided) level.
    LowerLimit {
        /// One-sided lower limit.
        limit: f64,
        /// Its confidence level.
        level: f64,
        /// Background events, all of them rejected.
        n: u64,
        /// How the limit was found.
        method: String,
    },
}

impl RejectionEstimate {
    /// The value, or the lower limit where there is no value; for figures.
    pub fn value_or_limit(&self) -> f64 {
        match self {
            Self::Measured { interval } => interval.value,
            Self::LowerLimit { limit, .. } => *limit,
        }
    }

    /// The interval where there is one.
    pub fn interval(&self) -> Option<&Interval> {
        match self {
            Self::Measured { interval } => Some(interval),
            Self::LowerLimit { .. } => None,
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, counts: &str) -> fmt::Result {
        match self {
            Self::Measured { interval } => {
                let (low, high) = (format_significant(interval.low, 3), format_significant(interval.high, 3));
                write!(f, "{} [{low}, {high}] ({counts})", format_point(interval.value))
            }
            Self::LowerLimit { limit, level, .. } => {
                write!(f, "> {} ({counts}), {} % CL", format_significant(*limit, 3), format_level(*level))
            }
        }
    }
}

/// One-sided lower limit of the rejection when none of `total` background events passed, and how it was found.
fn lower_limit(total: u64, level: f64) -> Result<(f64, String)> {
    Ok((1.0 / clopper_pearson_upper(0, total, level)?, "one-sided Clopper-Pearson over events".into()))
}

/// Background rejection of one network at one signal efficiency.
///
/// It prints as `1785.7 [1240, 2690] (28)`, the background count in round brackets, or `> 16700 (0), 95 % CL`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejection {
    /// eps_S asked for.
    pub signal_efficiency_target: f64,
    /// eps_S at the threshold, at least the target.
    pub signal_efficiency: f64,
    /// Events with a score at or above it are accepted.
    pub threshold: f64,
    /// Signal events accepted.
    pub signal_count: u64,
    /// Signal events.
    pub signal_total: u64,
    /// Background events accepted.
    pub background_count: u64,
    /// Background events.
    pub background_total: u64,
    /// 1 / eps_B; interval from the background count at this threshold.
    pub estimate: RejectionEstimate,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.estimate.write(f, &self.background_count.to_string())
    }
}

impl Rejection {
    /// Rejection at the first threshold with eps_S >= `target`; two-sided Clopper-Pearson of eps_B turned over.
    ///
    /// ```
    /// use jetgraft_stats::{rejection::Rejection, roc::Roc};
    /// let scores = [0.9, 0.8, 0.7, 0.6, 0.85, 0.3, 0.2, 0.1];
    /// let labels = [true, true, true, true, false, false, false, false];
    /// let rejection = Rejection::at(&Roc::new(&scores, &labels)?, 0.5, 0.95)?;
    /// assert_eq!((rejection.background_count, rejection.background_total), (1, 4));
    /// assert!(rejection.to_string().starts_with("4.00 ["));
    /// # Ok::<(), jetgraft_stats::StatsError>(())
    /// ```
    ///
    /// # Errors
    /// A weighted curve, a target outside (0, 1], a level outside (0, 1).
    pub fn at(roc: &Roc, target: f64, level: f64) -> Result<Self> {
        good_level(level)?;
        if roc.is_weighted() {
            return Err(StatsError::Weighted { what: "the rejection" });
        }
        let point = roc.at_signal_efficiency(target)?;
        let total = roc.background_count();
        let estimate = if point.background_count == 0 {
            let (limit, method) = lower_limit(total, level)?;
            RejectionEstimate::LowerLimit { limit, level, n: total, method }
        } else {
            let efficiency = clopper_pearson(point.background_count, total, level)?;
            let mut interval = efficiency.map(|e| 1.0 / e);
            // From the integers, so that 1 of 4 is 4 exactly.
            interval.value = total as f64 / point.background_count as f64;
            RejectionEstimate::Measured { interval }
        };
        Ok(Self {
            signal_efficiency_target: target,
            signal_efficiency: point.signal_efficiency,
            threshold: point.threshold,
            signal_count: point.signal_count,
            signal_total: roc.signal_count(),
            background_count: point.background_count,
            background_total: total,
            estimate,
        })
    }

    /// As [`Rejection::at`], with the fluctuation of the threshold added: the signal is drawn again, the threshold
    /// found anew, and the change of ln eps_B added in quadrature to that from the background count. It matters
    /// where the rejection is low (many background events) or the signal sample small. A replicate without
    /// background counts half an event, since its logarithm must exist. A lower limit stays as it is.
    ///
    /// # Errors
    /// As [`Rejection::at`]; fewer than 100 replicates.
    pub fn with_threshold_uncertainty(roc: &Roc, target: f64, bootstrap: &Bootstrap) -> Result<Self> {
        let mut rejection = Self::at(roc, target, bootstrap.level)?;
        let RejectionEstimate::Measured { interval } = &mut rejection.estimate else { return Ok(rejection) };
        // Working point of every signal event, from the highest score down.
        let mut point_of = Vec::with_capacity(rejection.signal_total as usize);
        for (index, point) in roc.points().iter().enumerate() {
            point_of.resize(point.signal_count as usize, index);
        }
        let m = point_of.len();
        // The same rounding rule as in Roc::at_signal_efficiency.
        let needed = ((target - 1e-12) * m as f64).ceil().max(1.0) as usize;
        let mut changes = bootstrap.run(|stream| {
            let mut drawn = vec![0_usize; roc.points().len()];
            for _ in 0..m {
                drawn[point_of[stream.index(m)]] += 1;
            }
            let mut kept = 0;
            let index = drawn.iter().position(|&d| {
                kept += d;
                kept >= needed
            });
            let count = roc.points()[index.unwrap_or(drawn.len() - 1)].background_count;
            (rejection.background_count as f64 / (count as f64).max(0.5)).ln()
        })?;
        changes.sort_by(f64::total_cmp);
        let tail = 0.5 * (1.0 - bootstrap.level);
        let value = interval.value;
        let logs = Interval {
            value: 0.0,
            low: (interval.low / value).ln(),
            high: (interval.high / value).ln(),
            ..interval.clone()
        };
        let threshold = Interval {
            value: 0.0,
            low: sorted_quantile(&changes, tail).min(0.0),
            high: sorted_quantile(&changes, 1.0 - tail).max(0.0),
            method: "bootstrap of the threshold over signal events".into(),
            ..interval.clone()
        };
        let n = interval.n;
        *interval = combine(&threshold, &logs, 1.0).map(|log| value * log.exp());
        interval.n = n;
        // No rejection is below one.
        interval.low = interval.low.max(1.0);
        Ok(rejection)
    }
}

/// What is known of the mean background efficiency of several networks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum SeedRejectionEstimate {
    /// Some network accepted background.
    Measured {
        /// 1 / mean eps_B with total interval, seed part and event part.
        parts: SeedsAndEvents,
    },
    /// No network accepted any background.
    LowerLimit {
        /// One-sided lower limit, as if the networks were one.
        limit: f64,
        /// Its confidence level.
        level: f64,
        /// Background events.
        n: u64,
        /// How the limit was found.
        method: String,
    },
}

/// Background rejection of several networks (seeds) on the same test events: one over the mean of eps_B.
///
/// The mean is taken of eps_B, not of 1 / eps_B, whose mean is infinite as soon as one network accepts nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedRejection {
    /// Each network by itself.
    pub per_seed: Vec<Rejection>,
    /// Mean of eps_B.
    pub mean_background_efficiency: f64,
    /// Background events.
    pub background_total: u64,
    /// Rejection with its intervals.
    pub estimate: SeedRejectionEstimate,
}

impl fmt::Display for SeedRejection {
    /// `1785.7 [980, 3260] (28, 25, 31)`: total interval, background count of each seed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self.per_seed.iter().map(|r| r.background_count.to_string()).collect();
        let counts = counts.join(", ");
        let estimate = match self.estimate.clone() {
            SeedRejectionEstimate::Measured { parts } => {
                RejectionEstimate::Measured { interval: parts.total }
            }
            SeedRejectionEstimate::LowerLimit { limit, level, n, method } => {
                RejectionEstimate::LowerLimit { limit, level, n, method }
            }
        };
        estimate.write(f, &counts)
    }
}

impl SeedRejection {
    /// The value, or the lower limit where there is no value; for figures.
    pub fn value_or_limit(&self) -> f64 {
        match &self.estimate {
            SeedRejectionEstimate::Measured { parts } => parts.total.value,
            SeedRejectionEstimate::LowerLimit { limit, .. } => *limit,
        }
    }

    /// Combines networks, `scores[seed][event]`, over the same events. Event part: Clopper-Pearson with the
    /// effective counts of the share of networks that accept each background event. Seed part: Student's t of eps_B
    /// on the logarithmic scale. Total: both in quadrature on that scale. The thresholds are taken as they are; with
    /// fewer signal than background events and low rejection see [`Rejection::with_threshold_uncertainty`] for what
    /// that leaves out.
    ///
    /// # Errors
    /// Fewer than two networks, fewer than two background events, and as [`Rejection::at`] for each network.
    pub fn new<S: AsRef<[f64]>>(scores: &[S], labels: &[bool], target: f64, level: f64) -> Result<Self> {
        at_least("seeds", scores.len(), 2)?;
        let mut per_seed = Vec::with_capacity(scores.len());
        let mut rows = Vec::with_capacity(scores.len());
        for scores in scores {
            let scores = scores.as_ref();
            let rejection = Rejection::at(&Roc::new(scores, labels)?, target, level)?;
            let accepted = scores.iter().zip(labels).filter(|&(_, &signal)| !signal);
            rows.push(
                accepted.map(|(&s, _)| f64::from(u8::from(s >= rejection.threshold))).collect::<Vec<f64>>(),
            );
            per_seed.push(rejection);
        }
        let background_total = per_seed[0].background_total;
        at_least("background events", background_total as usize, 2)?;
        let efficiencies: Vec<f64> =
            per_seed.iter().map(|r| r.background_count as f64 / background_total as f64).collect();
        let (mean, variance) = mean_and_variance(&efficiencies);
        let estimate = if mean == 0.0 {
            let (limit, method) = lower_limit(background_total, level)?;
            SeedRejectionEstimate::LowerLimit { limit, level, n: background_total, method }
        } else {
            let k = rows.len();
            let shares = share_interval(&crate::seeds::column_means(&rows), k, level);
            let events = shares.map(|e| (e / mean).ln());
            let half = two_sided_t(level, k as f64 - 1.0) * (variance / k as f64).sqrt() / mean;
            let seeds =
                Interval::new(0.0, -half, half, level, k as u64, "Student t over seeds (logarithmic)");
            let total = combine(&seeds, &events, pure_event_share(&rows));
            let back = |log: f64| (-log).exp() / mean;
            let mut parts = SeedsAndEvents { total, seeds, events }.map(back);
            // From the integers, as for a single network.
            let counts: u64 = per_seed.iter().map(|r| r.background_count).sum();
            let value = (background_total * k as u64) as f64 / counts as f64;
            for interval in [&mut parts.total, &mut parts.seeds, &mut parts.events] {
                interval.value = value;
                interval.low = interval.low.max(1.0);
            }
            SeedRejectionEstimate::Measured { parts }
        };
        Ok(Self { per_seed, mean_background_efficiency: mean, background_total, estimate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_background_is_a_limit_not_infinity() {
        let mut scores = vec![1.0; 10];
        let mut labels = vec![true; 10];
        scores.extend(vec![0.0; 50_000]);
        labels.extend(vec![false; 50_000]);
        let rejection = Rejection::at(&Roc::new(&scores, &labels).expect("valid"), 0.5, 0.95).expect("valid");
        assert_eq!(rejection.to_string(), "> 16700 (0), 95 % CL");
        assert_eq!(rejection.estimate.interval(), None);
        let both = SeedRejection::new(&[&scores[..], &scores[..]], &labels, 0.5, 0.95).expect("valid");
        assert_eq!(both.to_string(), "> 16700 (0, 0), 95 % CL");
        let json = serde_json::to_string(&both).expect("no infinities");
        assert_eq!(serde_json::from_str::<SeedRejection>(&json).expect("reads back"), both);
    }

    #[test]
    fn printed_with_its_count() {
        // 28 of 50 000 background events above the signal's median.
        let mut scores: Vec<f64> = (0..100).map(|i| 10.0 + f64::from(i)).collect();
        let mut labels = vec![true; 100];
        scores.extend((0..50_000).map(|i| if i < 28 { 1e3 } else { 0.0 }));
        labels.extend(vec![false; 50_000]);
        let roc = Roc::new(&scores, &labels).expect("valid");
        let rejection = Rejection::at(&roc, 0.5, 0.95).expect("valid");
        assert_eq!(rejection.to_string(), "1785.7 [1240, 2690] (28)");
        assert_eq!((rejection.signal_count, rejection.signal_efficiency), (50, 0.5));
        // Identical networks: no seed part, and the effective count is the count.
        let three = SeedRejection::new(&[&scores[..]; 3], &labels, 0.5, 0.95).expect("valid");
        assert_eq!(three.to_string(), "1785.7 [1240, 2690] (28, 28, 28)");
    }

    #[test]
    fn the_first_threshold_that_reaches_the_target() {
        let scores = [0.9, 0.8, 0.8, 0.7, 0.6, 0.8];
        let labels = [true, true, true, true, true, false];
        let roc = Roc::new(&scores, &labels).expect("valid");
        // 0.4 of five is two events; the tie at 0.8 brings the third and one background event.
        let rejection = Rejection::at(&roc, 0.4, 0.9).expect("valid");
        assert_eq!((rejection.signal_count, rejection.background_count, rejection.threshold), (3, 1, 0.8));
        // Everything passes: rejection one, still no infinity.
        assert_eq!(rejection.estimate.interval().map(|i| i.value), Some(1.0));
        assert!(matches!(Rejection::at(&roc, 0.0, 0.9), Err(StatsError::OutOfRange { .. })));
        assert!(matches!(Rejection::at(&roc, f64::NAN, 0.9), Err(StatsError::OutOfRange { .. })));
        let weighted = Roc::with_weights(&scores, &labels, &[1.0; 6]).expect("valid");
        assert!(matches!(Rejection::at(&weighted, 0.5, 0.9), Err(StatsError::Weighted { .. })));
    }
}
