//! How much of the uncertainty comes from the training seed, how much from the finite test set, and what together?
//!
//! K networks (seeds) are scored on the same n test events. The seed part is Student's t over the K results. The
//! event part belongs to the mean of the K networks on n events. Half-lengths are added in quadrature, side by side:
//! the method of variance estimates recovery (W. Howe, Ann. Stat. 2 (1974) 36; G. Zou, A. Donner, Stat. Med. 27
//! (2008) 1693).
//!
//! Both parts contain the interaction of seed and event (an event that one network gets right and another does not).
//! The share of the event variance that is interaction is estimated by the two-way analysis of variance and taken out
//! of the event part before adding, so that it is not counted twice.

use crate::error::{Result, all_finite, at_least, good_level, same_length};
use crate::interval::Interval;
use crate::proportion::clopper_pearson_ends;
use crate::special::two_sided_t;
use serde::{Deserialize, Serialize};

/// A mean over seeds with its total interval and the two parts of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedsAndEvents {
    /// Seeds and test events together: what a new seed on new events would be compared with.
    pub total: Interval,
    /// Seeds alone, on these test events.
    pub seeds: Interval,
    /// Test events alone, for these networks.
    pub events: Interval,
}

impl SeedsAndEvents {
    /// All three through a monotone function.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self { total: self.total.map(&f), seeds: self.seeds.map(&f), events: self.events.map(&f) }
    }
}

/// Mean over seeds with Student's t interval: mean ± t s / sqrt(K).
///
/// # Errors
/// Fewer than two seeds, values that are not finite, a level outside (0, 1).
pub fn mean_interval(values: &[f64], level: f64) -> Result<Interval> {
    good_level(level)?;
    at_least("seeds", values.len(), 2)?;
    all_finite("value of seed", values)?;
    let (mean, variance) = mean_and_variance(values);
    let k = values.len() as f64;
    let half = two_sided_t(level, k - 1.0) * (variance / k).sqrt();
    Ok(Interval::new(mean, mean - half, mean + half, level, values.len() as u64, "Student t over seeds"))
}

/// Mean and variance with n - 1.
pub(crate) fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, variance)
}

/// Adds a seed part and an event part of the same quantity in quadrature, side by side. `event_share` is the
/// share of the event variance to add: 1 when nothing is known, less when part of it is in the seed part already.
pub fn combine(seeds: &Interval, events: &Interval, event_share: f64) -> Interval {
    let value = seeds.value;
    let low = value - (seeds.minus().powi(2) + event_share * events.minus().powi(2)).sqrt();
    let high = value + (seeds.plus().powi(2) + event_share * events.plus().powi(2)).sqrt();
    let method = format!("{} and {}, in quadrature", seeds.method, events.method);
    Interval::new(value, low, high, seeds.level, seeds.n, method)
}

/// 1 - MS(interaction) / MS(events) of a two-way layout `rows[seed][event]`, at least 0: the share of the variance
/// of the event means that is not interaction of seed and event. One seed: 1.
pub(crate) fn pure_event_share(rows: &[Vec<f64>]) -> f64 {
    let k = rows.len();
    let n = rows.first().map_or(0, Vec::len);
    if k < 2 || n < 2 {
        return 1.0;
    }
    let seed_means: Vec<f64> = rows.iter().map(|r| r.iter().sum::<f64>() / n as f64).collect();
    let grand = seed_means.iter().sum::<f64>() / k as f64;
    let (mut event_squares, mut interaction_squares) = (0.0, 0.0);
    for event in 0..n {
        let mean = rows.iter().map(|r| r[event]).sum::<f64>() / k as f64;
        event_squares += k as f64 * (mean - grand).powi(2);
        for (row, seed_mean) in rows.iter().zip(&seed_means) {
            interaction_squares += (row[event] - mean - seed_mean + grand).powi(2);
        }
    }
    if event_squares == 0.0 {
        return 1.0;
    }
    (1.0 - interaction_squares / ((k - 1) as f64 * event_squares)).clamp(0.0, 1.0)
}

/// Interval of a mean of per-event shares in [0, 1] (for example the share of networks that err on the event):
/// Clopper-Pearson with the effective number of events p (1 - p) / variance of the mean.
pub(crate) fn share_interval(shares: &[f64], networks: usize, level: f64) -> Interval {
    let n = shares.len() as f64;
    let (p, variance) = mean_and_variance(shares);
    let mut effective = p * (1.0 - p) * n / variance;
    if !effective.is_finite() {
        // All events alike: none or all of the networks, or one event.
        effective = n;
    }
    // K networks on n events are at most K n independent answers.
    let effective = effective.clamp(1.0, n * networks as f64);
    let (low, high) = clopper_pearson_ends(p * effective, effective, level);
    let method = "Clopper-Pearson over events (effective counts)";
    Interval::new(p, low.min(p), high.max(p), level, shares.len() as u64, method)
}

/// Mean accuracy of several networks on the same test events, from the correctness of each event.
///
/// # Errors
/// Fewer than two seeds or two events, different lengths, a level outside (0, 1).
pub fn accuracy<S: AsRef<[bool]>>(correct: &[S], level: f64) -> Result<SeedsAndEvents> {
    let rows = correctness_rows(correct)?;
    let per_seed: Vec<f64> = rows.iter().map(|r| r.iter().sum::<f64>() / r.len() as f64).collect();
    let seeds = mean_interval(&per_seed, level)?;
    let events = share_interval(&column_means(&rows), rows.len(), level);
    let mut total = combine(&seeds, &events, pure_event_share(&rows));
    (total.low, total.high) = (total.low.max(0.0), total.high.min(1.0));
    Ok(SeedsAndEvents { total, seeds, events })
}

/// Rows of 0 and 1, one per seed, checked for equal length.
pub(crate) fn correctness_rows<S: AsRef<[bool]>>(correct: &[S]) -> Result<Vec<Vec<f64>>> {
    at_least("seeds", correct.len(), 2)?;
    let n = correct[0].as_ref().len();
    at_least("events", n, 2)?;
    let mut rows = Vec::with_capacity(correct.len());
    for row in correct {
        same_length("correctness of the first seed", n, "that of another seed", row.as_ref().len())?;
        rows.push(row.as_ref().iter().map(|&c| f64::from(u8::from(c))).collect());
    }
    Ok(rows)
}

/// Mean over seeds of each event.
pub(crate) fn column_means(rows: &[Vec<f64>]) -> Vec<f64> {
    let n = rows.first().map_or(0, Vec::len);
    (0..n).map(|i| rows.iter().map(|r| r[i]).sum::<f64>() / rows.len() as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StatsError;

    #[test]
    fn three_seeds_by_hand() {
        // Mean 2, s = 1, t(2 degrees, 95 %) = 4.3027.
        let interval = mean_interval(&[1.0, 2.0, 3.0], 0.95).expect("valid input");
        assert!((interval.plus() - 4.302_652_729_911_275 / 3.0_f64.sqrt()).abs() < 1e-9);
        assert!(matches!(mean_interval(&[1.0], 0.95), Err(StatsError::TooFew { .. })));
        assert!(matches!(mean_interval(&[1.0, f64::NAN], 0.95), Err(StatsError::NotFinite { index: 1, .. })));
    }

    #[test]
    fn identical_networks_have_no_seed_part() {
        let correct: Vec<bool> = (0..100).map(|i| i % 10 != 0).collect();
        let result =
            accuracy(&[correct.clone(), correct.clone(), correct.clone()], 0.95).expect("valid input");
        assert!(result.seeds.half_width() < 1e-12);
        let single = crate::proportion::accuracy(&correct, 0.95).expect("valid input");
        // The effective number of events uses n - 1, hence 1 %.
        assert!((result.total.low - single.low).abs() < 0.01 * single.half_width() + 1e-3);
        assert!((result.events.high - single.high).abs() < 1e-2);
    }

    #[test]
    fn perfect_networks_have_a_lower_limit() {
        let result = accuracy(&[[true; 50], [true; 50]], 0.95).expect("valid input");
        assert_eq!((result.total.value, result.total.high), (1.0, 1.0));
        assert!(result.total.low < 0.94 && result.total.low > 0.9);
    }

    #[test]
    fn independent_networks_share_no_event_variance() {
        // A checkerboard: each event is right for one network of two; event means do not vary at all.
        let rows: Vec<Vec<f64>> = (0..2).map(|s| (0..40).map(|i| f64::from((i + s) % 2)).collect()).collect();
        assert_eq!(pure_event_share(&rows), 1.0);
        let same: Vec<Vec<f64>> = (0..2).map(|_| (0..40).map(|i| f64::from(i % 2)).collect()).collect();
        assert_eq!(pure_event_share(&same), 1.0);
    }

    #[test]
    fn lengths_must_agree() {
        let bad: [&[bool]; 2] = [&[true, false, true], &[true, false]];
        assert!(matches!(
            accuracy(&bad, 0.9),
            Err(StatsError::LengthMismatch { left_len: 3, right_len: 2, .. })
        ));
    }
}
