//! How many background jets does one accepted background jet cost?
//!
//! Rejection is 1 / eps_B at a wanted signal efficiency. The threshold is the first one, from the highest score
//! down, with eps_S >= target: no interpolation, so an integer number of background events stands behind every
//! number and is shown with it. (LundNet's evaluation takes the ROC point after the nearest one instead; both agree
//! for many events.) No accepted background gives a lower limit, never infinity.
//!
//! Two samples are finite, and both count: the background, of which k of n events pass, and the signal, which sets the
//! threshold. The first gives an exact binomial interval of eps_B; the second an interval of the threshold between
//! two signal events, with eps_B read off at both. The two are added in quadrature on the scale of ln eps_B, each side
//! by itself. Without the second, 3000 background and 300 signal events at a rejection of 5 give a "95 %" interval
//! that holds the truth in 48 % of cases.
//!
//! Source for the interval of a quantile between order statistics: H. David, H. Nagaraja, Order Statistics (2003),
//! section 7.1.

use crate::bootstrap::{Bootstrap, sorted_quantile};
use crate::error::{Result, StatsError, at_least, good_level};
use crate::interval::{Interval, format_level, format_point, format_significant};
use crate::proportion::{clopper_pearson, clopper_pearson_upper};
use crate::roc::Roc;
use crate::seeds::{
    SeedsAndEvents, column_means, combine, mean_and_variance, pure_event_share, share_interval,
};
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

/// Interval of ln eps_B about zero from the two ends of the threshold, given the mean background counts there and at
/// the threshold itself. `share` is the share of that change that is left when the networks do not move together.
/// No background counts half an event (half the mean where that is below one), since its logarithm must exist.
fn threshold_interval(fewest: f64, here: f64, most: f64, share: f64, level: f64, n: u64) -> Interval {
    let fewest = fewest.max(0.5 * here.min(1.0));
    let (low, high) = (share * (fewest / here).ln(), share * (most / here).ln());
    Interval::new(0.0, low.min(0.0), high.max(0.0), level, n, "order statistics of the threshold")
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
    /// 1 / eps_B; interval from the background count and the signal sample that set the threshold.
    pub estimate: RejectionEstimate,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.estimate.write(f, &self.background_count.to_string())
    }
}

impl Rejection {
    /// Rejection at the first threshold with eps_S >= `target`. Its interval: two-sided Clopper-Pearson of eps_B, and
    /// the change of eps_B when the threshold moves inside its own interval between two signal events, added in
    /// quadrature on the logarithmic scale.
    ///
    /// A lower limit takes the threshold as it is: without accepted background there is no slope to move along.
    /// At its worst, three background events expected, interval or limit at 95 % hold the truth in 93 % of cases with
    /// 300 signal events and in 87 % with 30 (both measured in the tests).
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
        let mut rejection = Self::at_known_threshold(roc, target, level)?;
        let (fewest, most) = roc.threshold_range(target, level);
        let (here, n) = (rejection.background_count as f64, rejection.background_total);
        rejection.add_threshold(&threshold_interval(fewest as f64, here, most as f64, 1.0, level, n));
        Ok(rejection)
    }

    /// Interval from the background count alone.
    fn at_known_threshold(roc: &Roc, target: f64, level: f64) -> Result<Self> {
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

    /// Adds an interval of ln eps_B about zero in quadrature. A lower limit stays as it is.
    fn add_threshold(&mut self, threshold: &Interval) {
        let RejectionEstimate::Measured { interval } = &mut self.estimate else { return };
        let value = interval.value;
        let mut count = interval.map(|rejection| (value / rejection).ln());
        count.value = 0.0;
        *interval = combine(&count, threshold, 1.0).map(|log| value * (-log).exp());
        interval.value = value;
        // No rejection is below one.
        interval.low = interval.low.max(1.0);
    }

    /// As [`Rejection::at`], with the fluctuation of the threshold by bootstrap instead of order statistics, at some
    /// hundred times the cost: the signal is drawn again, the threshold found anew, and the change of ln eps_B added
    /// in quadrature to that from the background count. A replicate without background counts half an event. A lower
    /// limit stays as it is. The tests compare the two.
    ///
    /// # Errors
    /// As [`Rejection::at`]; fewer than 100 replicates.
    pub fn with_threshold_uncertainty(roc: &Roc, target: f64, bootstrap: &Bootstrap) -> Result<Self> {
        let mut rejection = Self::at_known_threshold(roc, target, bootstrap.level)?;
        if rejection.background_count == 0 {
            return Ok(rejection);
        }
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
            ((count as f64).max(0.5) / rejection.background_count as f64).ln()
        })?;
        changes.sort_by(f64::total_cmp);
        let tail = 0.5 * (1.0 - bootstrap.level);
        let threshold = Interval::new(
            0.0,
            sorted_quantile(&changes, tail).min(0.0),
            sorted_quantile(&changes, 1.0 - tail).max(0.0),
            bootstrap.level,
            rejection.background_total,
            "bootstrap of the threshold over signal events",
        );
        rejection.add_threshold(&threshold);
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

    /// Combines networks, `scores[seed][event]`, over the same events; all parts on the logarithmic scale of eps_B.
    ///
    /// Event part: Clopper-Pearson with the effective counts of the share of networks that accept each background
    /// event, and the thresholds inside their intervals between signal events (as [`Rejection::at`]), in quadrature.
    /// The networks see the same signal events: what is left of the change when all thresholds move together is
    /// sqrt(V) / mean_k(d_k s_k), with V the variance over signal events of mean_k(d_k a_k), where a_k tells whether
    /// network k accepts the event, s_k is its standard deviation and d_k the change of the background count of
    /// network k. It is one for networks that agree on every signal event, 1 / sqrt(K) for K independent ones.
    ///
    /// Seed part: Student's t of eps_B. Total: seed and event part in quadrature, the latter without the interaction
    /// of network and event, which the seed part holds already.
    ///
    /// A lower limit takes the thresholds as they are, see [`Rejection::at`].
    ///
    /// # Errors
    /// Fewer than two networks, fewer than two background events, and as [`Rejection::at`] for each network.
    pub fn new<S: AsRef<[f64]>>(scores: &[S], labels: &[bool], target: f64, level: f64) -> Result<Self> {
        at_least("seeds", scores.len(), 2)?;
        let mut per_seed = Vec::with_capacity(scores.len());
        let (mut accepted_signal, mut accepted_background) = (Vec::new(), Vec::new());
        let (mut fewest, mut most, mut changes) = (0, 0, Vec::new());
        for scores in scores {
            let scores = scores.as_ref();
            let roc = Roc::new(scores, labels)?;
            let rejection = Rejection::at(&roc, target, level)?;
            let accepted = |class: bool| -> Vec<f64> {
                let events = scores.iter().zip(labels).filter(|&(_, &signal)| signal == class);
                events.map(|(&s, _)| f64::from(u8::from(s >= rejection.threshold))).collect()
            };
            accepted_signal.push(accepted(true));
            accepted_background.push(accepted(false));
            let range = roc.threshold_range(target, level);
            fewest += range.0;
            most += range.1;
            changes.push((range.1 - range.0) as f64);
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
            let networks = scores.len();
            let k = networks as f64;
            let counts: u64 = per_seed.iter().map(|r| r.background_count).sum();
            let shares = share_interval(&column_means(&accepted_background), networks, level);
            let count = shares.map(|e| (e / mean).ln());
            let (left, interaction_free) = common_change(accepted_signal, &changes);
            let [fewest, here, most] = [fewest, counts, most].map(|sum| sum as f64 / k);
            let threshold = threshold_interval(fewest, here, most, left, level, background_total);
            let half = two_sided_t(level, k - 1.0) * (variance / k).sqrt() / mean;
            let seeds =
                Interval::new(0.0, -half, half, level, networks as u64, "Student t over seeds (logarithmic)");
            let events = combine(&count, &threshold, 1.0);
            let total = combine(&seeds, &count, pure_event_share(&accepted_background));
            let mut total = combine(&total, &threshold, interaction_free);
            total.method = format!("{}, {}", seeds.method, events.method);
            let back = |log: f64| (-log).exp() / mean;
            let mut parts = SeedsAndEvents { total, seeds, events }.map(back);
            // From the integers, as for a single network.
            let value = (background_total * networks as u64) as f64 / counts as f64;
            for interval in [&mut parts.total, &mut parts.seeds, &mut parts.events] {
                interval.value = value;
                interval.low = interval.low.max(1.0);
            }
            SeedRejectionEstimate::Measured { parts }
        };
        Ok(Self { per_seed, mean_background_efficiency: mean, background_total, estimate })
    }
}

/// How much of the change of the mean over networks is left because their thresholds do not move together, as a factor
/// of the half-length, and the share of its square that is no interaction of network and event. `rows[network][event]`
/// is one for accepted signal events, `changes` weighs the networks. Both are one where nothing varies.
fn common_change(mut rows: Vec<Vec<f64>>, changes: &[f64]) -> (f64, f64) {
    let mut together = 0.0;
    for (row, &change) in rows.iter_mut().zip(changes) {
        together += change * mean_and_variance(row).1.sqrt() / changes.len() as f64;
        row.iter_mut().for_each(|accepted| *accepted *= change);
    }
    let left = mean_and_variance(&column_means(&rows)).1.sqrt() / together;
    // No change, all signal accepted, or one signal event (variance not defined).
    let left = if left.is_finite() { left.min(1.0) } else { 1.0 };
    (left, pure_event_share(&rows))
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

    #[test]
    fn a_threshold_below_all_signal_may_let_everything_pass() {
        // Twenty signal events, each background event just below one of the first ten.
        let mut scores: Vec<f64> = (0..20).map(|i| 20.0 - f64::from(i)).collect();
        let mut labels = vec![true; 20];
        scores.extend((0..10).map(|i| 19.5 - f64::from(i)));
        scores.extend([-1.0; 90]);
        labels.extend(vec![false; 100]);
        let roc = Roc::new(&scores, &labels).expect("valid");
        // Binomial (20, 0.5): 0.021 of it below 6, 0.021 above 14. Five background events lie above the sixth signal
        // event, ten above the fifteenth, nine above the tenth.
        assert_eq!(roc.threshold_range(0.5, 0.95), (5, 10));
        // All signal: the threshold may lie anywhere below.
        assert_eq!(roc.threshold_range(1.0, 0.95), (10, 100));
        let all = Rejection::at(&roc, 1.0, 0.95).expect("valid");
        let interval = all.estimate.interval().expect("background passes");
        assert_eq!((interval.value, interval.low), (10.0, 1.0));
        // Two of twenty: perhaps none, the threshold is then above all signal.
        assert_eq!(roc.threshold_range(0.1, 0.95), (0, 5));
    }

    #[test]
    fn networks_that_agree_move_together() {
        let agree = vec![vec![1.0, 0.0, 1.0, 0.0]; 3];
        let (left, pure) = common_change(agree.clone(), &[2.0, 2.0, 5.0]);
        assert!((left - 1.0).abs() < 1e-12 && pure > 0.0);
        // Two independent ones: all four combinations once.
        let (left, _) = common_change(vec![vec![1.0, 1.0, 0.0, 0.0], vec![1.0, 0.0, 1.0, 0.0]], &[3.0, 3.0]);
        assert!((left - 0.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!(common_change(agree, &[0.0; 3]), (1.0, 1.0));
        assert_eq!(common_change(vec![vec![1.0]; 2], &[4.0; 2]), (1.0, 1.0));
    }
}
