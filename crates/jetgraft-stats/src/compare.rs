//! Is the grafted network better than the one trained from scratch, and by how much?
//!
//! Every comparison is paired: both networks answer for the same test events in the same order.

use crate::bootstrap::Bootstrap;
use crate::error::{Result, at_least, good_level, same_length};
use crate::interval::Interval;
use crate::proportion::{clopper_pearson_ends, clopper_pearson_upper, wilson_ends};
use crate::roc::{Placements, crossed_variances, weighted_mean_variance};
use crate::seeds::{
    SeedsAndEvents, column_means, combine, correctness_rows, mean_and_variance, mean_interval,
    pure_event_share,
};
use crate::special::{binomial_half_cdf, binomial_half_pmf, two_sided_p, two_sided_t, two_sided_z};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Difference of two AUCs on the same events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AucDifference {
    /// AUC of the first network.
    pub auc_a: f64,
    /// AUC of the second.
    pub auc_b: f64,
    /// First minus second.
    pub difference: Interval,
    /// Two-sided p-value of no difference; 1 when the variance of the difference is zero.
    pub p_value: f64,
}

/// AUC(a) - AUC(b) with DeLong's paired variance. When both separate the classes completely the variance is zero though
/// neither AUC is known exactly; unless the scores are the same, the difference then gets the length of the interval of
/// one such AUC ([`crate::roc::Roc::auc_interval`]).
///
/// # Errors
/// Fewer than two events of a class, and as [`crate::roc::Roc::new`].
///
/// Source: E. DeLong et al., Biometrics 44 (1988) 837.
pub fn auc_difference(a: &[f64], b: &[f64], labels: &[bool], level: f64) -> Result<AucDifference> {
    good_level(level)?;
    let (pa, pb) = (Placements::new(a, labels, None)?, Placements::new(b, labels, None)?);
    at_least("signal events", pa.signal.len(), 2)?;
    at_least("background events", pa.background.len(), 2)?;
    let part = |x: &[f64], y: &[f64], w: &[f64]| {
        weighted_mean_variance(&x.iter().zip(y).map(|(x, y)| x - y).collect::<Vec<f64>>(), w)
    };
    let variance = part(&pa.signal, &pb.signal, &pa.signal_weights)
        + part(&pa.background, &pb.background, &pa.background_weights);
    let difference = pa.auc - pb.auc;
    let separable = [pa.auc, pb.auc].iter().all(|&auc| auc == 0.0 || auc == 1.0);
    let half = if separable && difference == 0.0 && a != b {
        1.0 - separable_auc_low(pa.signal.len().min(pa.background.len()), level)
    } else {
        two_sided_z(level) * variance.sqrt()
    };
    let p_value = if variance > 0.0 { two_sided_p(difference / variance.sqrt()) } else { 1.0 };
    let n = labels.len() as u64;
    let interval = Interval::new(
        difference,
        difference - half,
        difference + half,
        level,
        n,
        "paired DeLong over events",
    );
    Ok(AucDifference { auc_a: pa.auc, auc_b: pb.auc, difference: interval, p_value })
}

/// Lower end of the AUC when all of so many independent pairs are in order.
fn separable_auc_low(pairs: usize, level: f64) -> f64 {
    clopper_pearson_ends(pairs as f64, pairs as f64, level).0
}

/// Mean over seeds of AUC(a) - AUC(b), `a[seed]` paired with `b[seed]`, all on the same events. When all networks
/// separate the classes completely, both parts are zero and say nothing.
///
/// # Errors
/// Fewer than two seeds, different numbers of seeds, and as [`auc_difference`].
pub fn auc_difference_over_seeds<A, B>(
    a: &[A],
    b: &[B],
    labels: &[bool],
    level: f64,
) -> Result<SeedsAndEvents>
where
    A: AsRef<[f64]>,
    B: AsRef<[f64]>,
{
    at_least("seeds", a.len(), 2)?;
    same_length("seeds of the first network", a.len(), "seeds of the second", b.len())?;
    let (mut differences, mut signal, mut background) = (Vec::new(), Vec::new(), Vec::new());
    for (a, b) in a.iter().zip(b) {
        let (pa, pb) =
            (Placements::new(a.as_ref(), labels, None)?, Placements::new(b.as_ref(), labels, None)?);
        at_least("signal events", pa.signal.len(), 2)?;
        at_least("background events", pa.background.len(), 2)?;
        let minus = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x - y).collect::<Vec<f64>>();
        differences.push(pa.auc - pb.auc);
        signal.push(minus(&pa.signal, &pb.signal));
        background.push(minus(&pa.background, &pb.background));
    }
    let seeds = mean_interval(&differences, level)?;
    let (full, pure) = crossed_variances(&signal, &background);
    let half = two_sided_z(level) * full.sqrt();
    let (value, n) = (seeds.value, labels.len() as u64);
    let events = Interval::new(value, value - half, value + half, level, n, "paired DeLong over events");
    let total = combine(&seeds, &events, if full > 0.0 { pure / full } else { 1.0 });
    Ok(SeedsAndEvents { total, seeds, events })
}

/// accuracy(a) - accuracy(b) on the same events: adjusted Wald interval, one event added to each of the four cells'
/// discordant pairs.
///
/// # Errors
/// No events, different lengths, a level outside (0, 1).
///
/// Source: D. Bonett, R. Price, J. Educ. Behav. Stat. 37 (2012) 479.
pub fn accuracy_difference(correct_a: &[bool], correct_b: &[bool], level: f64) -> Result<Interval> {
    good_level(level)?;
    let cells = Discordance::count(correct_a, correct_b)?;
    let n = cells.n as f64;
    let (pa, pb) = ((cells.only_a + 1) as f64 / (n + 2.0), (cells.only_b + 1) as f64 / (n + 2.0));
    let half = two_sided_z(level) * ((pa + pb - (pa - pb).powi(2)) / (n + 2.0)).sqrt();
    let value = (cells.only_a as f64 - cells.only_b as f64) / n;
    let (low, high) = ((pa - pb - half).max(-1.0).min(value), (pa - pb + half).min(1.0).max(value));
    Ok(Interval::new(value, low, high, level, cells.n, "adjusted Wald over paired events"))
}

/// Outcome of McNemar's test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Events that only the first network gets right.
    pub only_a: u64,
    /// Events that only the second gets right.
    pub only_b: u64,
    /// Two-sided exact binomial p-value: never too small, often too large.
    pub p_exact: f64,
    /// Mid-p value: close to nominal (M. Fagerland et al., BMC Med. Res. Methodol. 13 (2013) 91).
    pub p_mid: f64,
}

/// Do two networks err equally often? Sign test on the events where they differ.
///
/// # Errors
/// No events, different lengths.
///
/// Source: Q. McNemar, Psychometrika 12 (1947) 153.
pub fn mcnemar(correct_a: &[bool], correct_b: &[bool]) -> Result<McNemar> {
    let cells = Discordance::count(correct_a, correct_b)?;
    let (few, n) = (cells.only_a.min(cells.only_b), cells.only_a + cells.only_b);
    let tail = binomial_half_cdf(few, n);
    let p_exact = (2.0 * tail).min(1.0);
    let p_mid =
        if cells.only_a == cells.only_b { p_exact.min(1.0) } else { p_exact - binomial_half_pmf(few, n) };
    Ok(McNemar { only_a: cells.only_a, only_b: cells.only_b, p_exact, p_mid })
}

/// Agreement of two networks, event by event.
struct Discordance {
    n: u64,
    only_a: u64,
    only_b: u64,
    both_wrong: u64,
}

impl Discordance {
    fn count(a: &[bool], b: &[bool]) -> Result<Self> {
        at_least("events", a.len(), 1)?;
        same_length("correctness of the first network", a.len(), "that of the second", b.len())?;
        let mut cells = Self { n: a.len() as u64, only_a: 0, only_b: 0, both_wrong: 0 };
        for pair in a.iter().zip(b) {
            match pair {
                (true, false) => cells.only_a += 1,
                (false, true) => cells.only_b += 1,
                (false, false) => cells.both_wrong += 1,
                (true, true) => {}
            }
        }
        Ok(cells)
    }
}

/// Error reduction 1 - Err(transfer) / Err(scratch): 0.2 means that a fifth of the errors is gone, below zero is a
/// loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ErrorReduction {
    /// One network against one.
    Single {
        /// The reduction.
        interval: Interval,
    },
    /// Several paired seeds.
    Seeds {
        /// The reduction of the mean error, with seed part and event part.
        parts: SeedsAndEvents,
    },
    /// The scratch networks make no error on these events, so the ratio does not exist.
    ScratchPerfect {
        /// Errors of the transferred network, or of all of them.
        transfer_errors: u64,
        /// Test events.
        n: u64,
        /// One-sided upper limit of the scratch error rate.
        scratch_error_limit: f64,
        /// Level of the limit.
        level: f64,
    },
}

impl ErrorReduction {
    /// The (total) interval, where the ratio exists.
    pub fn interval(&self) -> Option<&Interval> {
        match self {
            Self::Single { interval } => Some(interval),
            Self::Seeds { parts } => Some(&parts.total),
            Self::ScratchPerfect { .. } => None,
        }
    }

    /// Whether the interval lies above zero.
    pub fn is_significant_gain(&self) -> bool {
        self.interval().is_some_and(|i| i.low > 0.0)
    }
}

impl fmt::Display for ErrorReduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single { interval } | Self::Seeds { parts: SeedsAndEvents { total: interval, .. } } => {
                write!(f, "{}", interval.percent())
            }
            Self::ScratchPerfect { transfer_errors, n, .. } => {
                write!(f, "undefined (scratch errs on none of {n}, transfer on {transfer_errors})")
            }
        }
    }
}

/// Error reduction of one transferred network against one from scratch, from the correctness of each event.
///
/// The interval is that of a ratio of paired proportions: two Wilson intervals on the events where at least one of
/// the networks errs, at a level adjusted to their overlap.
///
/// # Errors
/// No events, different lengths, a level outside (0, 1).
///
/// Source: D. Bonett, R. Price, Stat. Med. 25 (2006) 3039.
pub fn error_reduction(transfer: &[bool], scratch: &[bool], level: f64) -> Result<ErrorReduction> {
    good_level(level)?;
    let cells = Discordance::count(transfer, scratch)?;
    // The network that is right alone leaves an error to the other.
    let (transfer_errors, scratch_errors) =
        (cells.both_wrong + cells.only_b, cells.both_wrong + cells.only_a);
    if scratch_errors == 0 {
        return scratch_perfect(transfer_errors, cells.n, level);
    }
    let (t, s) = (transfer_errors as f64, scratch_errors as f64);
    let total = (cells.both_wrong + cells.only_a + cells.only_b) as f64;
    let discordant = (cells.only_a + cells.only_b) as f64;
    let root = ((discordant + 2.0) / ((t + 1.0) * (s + 1.0))).sqrt();
    let single = |x: f64| ((1.0 - (x + 1.0) / (total + 2.0)) / (x + 1.0)).sqrt();
    let z = two_sided_z(level) * root / (single(t) + single(s));
    let (wt, ws) = (wilson_ends(t, total, z), wilson_ends(s, total, z));
    let ratio =
        Interval::new(t / s, wt.0 / ws.1, wt.1 / ws.0, level, cells.n, "Bonett-Price over paired events");
    Ok(ErrorReduction::Single { interval: ratio.complement() })
}

fn scratch_perfect(transfer_errors: u64, n: u64, level: f64) -> Result<ErrorReduction> {
    let scratch_error_limit = clopper_pearson_upper(0, n, level)?;
    Ok(ErrorReduction::ScratchPerfect { transfer_errors, n, scratch_error_limit, level })
}

/// Error reduction over several seeds, `transfer[seed]` paired with `scratch[seed]`, all on the same test events:
/// 1 - mean Err(transfer) / mean Err(scratch).
///
/// Two levels, both shown, on the scale of the logarithm of the ratio. Seeds: Student's t of the per-seed influence
/// e_t / mean e_t - e_s / mean e_s. Events: bootstrap of the events, the same rows for all networks. Total: both in
/// quadrature, less their common interaction ([`crate::seeds`]). A replicate without errors counts half an error.
/// The plain two-level bootstrap ([`Bootstrap::seeds_and_events`]) is too short for the few seeds of a study.
///
/// # Errors
/// Fewer than two seeds or events, numbers of seeds or lengths that differ, fewer than 100 replicates.
pub fn error_reduction_over_seeds<A, B>(
    transfer: &[A],
    scratch: &[B],
    bootstrap: &Bootstrap,
) -> Result<ErrorReduction>
where
    A: AsRef<[bool]>,
    B: AsRef<[bool]>,
{
    bootstrap.check()?;
    same_length("seeds of the transferred network", transfer.len(), "seeds from scratch", scratch.len())?;
    let wrong = |rows: Vec<Vec<f64>>| -> Vec<Vec<f64>> {
        rows.into_iter().map(|r| r.into_iter().map(|c| 1.0 - c).collect()).collect()
    };
    let (t, s) = (wrong(correctness_rows(transfer)?), wrong(correctness_rows(scratch)?));
    let (k, n) = (t.len(), t[0].len());
    same_length("test events of the transferred network", n, "test events of scratch", s[0].len())?;

    // Errors of all networks per event; sums of small integers are exact in any order.
    let sum = |rows: &[Vec<f64>]| -> Vec<f64> {
        column_means(rows).iter().map(|m| (m * k as f64).round()).collect()
    };
    let (t_events, s_events) = (sum(&t), sum(&s));
    let (t_sum, s_sum) = (t_events.iter().sum::<f64>(), s_events.iter().sum::<f64>());
    if s_sum == 0.0 {
        return scratch_perfect(t_sum as u64, n as u64, bootstrap.level);
    }
    let log_ratio = |t: f64, s: f64| (t.max(0.5) / s.max(0.5)).ln();
    let replicates = bootstrap.run(|stream| {
        let (mut t, mut s) = (0.0, 0.0);
        for _ in 0..n {
            let row = stream.index(n);
            t += t_events[row];
            s += s_events[row];
        }
        log_ratio(t, s)
    })?;
    let value = log_ratio(t_sum, s_sum);
    let mut events = bootstrap.percentile(value, replicates, n as u64, "bootstrap over paired events")?;
    (events.low, events.high) = (events.low.min(value), events.high.max(value));

    // Influence of a network's answer on the logarithm of the ratio, per seed and event.
    let (t_mean, s_mean) = (t_sum.max(0.5) / (k * n) as f64, s_sum / (k * n) as f64);
    let influence: Vec<Vec<f64>> = t
        .iter()
        .zip(&s)
        .map(|(t, s)| t.iter().zip(s).map(|(t, s)| t / t_mean - s / s_mean).collect())
        .collect();
    let per_seed: Vec<f64> = influence.iter().map(|r| r.iter().sum::<f64>() / n as f64).collect();
    let half =
        two_sided_t(bootstrap.level, k as f64 - 1.0) * (mean_and_variance(&per_seed).1 / k as f64).sqrt();
    let seeds = Interval::new(
        value,
        value - half,
        value + half,
        bootstrap.level,
        k as u64,
        "Student t over paired seeds",
    );
    let total = combine(&seeds, &events, pure_event_share(&influence));
    let mut parts = SeedsAndEvents { total, seeds, events }.map(|log| 1.0 - log.exp());
    for interval in [&mut parts.total, &mut parts.seeds, &mut parts.events] {
        interval.value = 1.0 - t_sum / s_sum;
        interval.high = interval.high.max(interval.value);
    }
    Ok(ErrorReduction::Seeds { parts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StatsError;

    fn pattern(cells: [(usize, bool, bool); 4]) -> (Vec<bool>, Vec<bool>) {
        cells.iter().flat_map(|&(n, a, b)| std::iter::repeat_n((a, b), n)).unzip()
    }

    #[test]
    fn a_fifth_of_the_errors_gone() {
        let (t, s) = pattern([(880, true, true), (40, true, false), (20, false, true), (60, false, false)]);
        let result = error_reduction(&t, &s, 0.95).expect("valid");
        let interval = result.interval().expect("defined");
        assert!((interval.value - 0.2).abs() < 1e-12 && interval.contains(0.2));
        assert!(interval.low > 0.0 && result.is_significant_gain());
        // Three identical seeds: no seed part, and the bootstrap agrees with the closed form.
        let seeds =
            error_reduction_over_seeds(&[&t[..]; 3], &[&s[..]; 3], &Bootstrap::default()).expect("valid");
        let ErrorReduction::Seeds { parts } = &seeds else { panic!("defined") };
        assert!(parts.seeds.half_width() < 1e-12);
        assert!(
            (parts.total.low - interval.low).abs() < 0.03 && (parts.total.high - interval.high).abs() < 0.03
        );
        let json = serde_json::to_string(&seeds).expect("finite");
        assert_eq!(serde_json::from_str::<ErrorReduction>(&json).expect("reads back"), seeds);
    }

    #[test]
    fn perfect_networks() {
        let (t, s) = pattern([(90, true, true), (10, false, true), (0, true, true), (0, true, true)]);
        let result = error_reduction(&t, &s, 0.95).expect("valid");
        assert!(matches!(result, ErrorReduction::ScratchPerfect { transfer_errors: 10, n: 100, .. }));
        assert!(result.to_string().starts_with("undefined"));
        let seeds =
            error_reduction_over_seeds(&[&t[..]; 2], &[&s[..]; 2], &Bootstrap::default()).expect("valid");
        assert!(matches!(seeds, ErrorReduction::ScratchPerfect { transfer_errors: 20, .. }));
        // The other way round all errors are gone; the interval is finite and ends at one.
        for result in [
            error_reduction(&s, &t, 0.95),
            error_reduction_over_seeds(&[&s[..]; 2], &[&t[..]; 2], &Bootstrap::default()),
        ] {
            let interval = result.expect("valid").interval().cloned().expect("defined");
            assert_eq!((interval.value, interval.high), (1.0, 1.0));
            assert!(interval.low.is_finite() && interval.low < 1.0, "{interval:?}");
        }
    }

    #[test]
    fn mcnemar_by_hand() {
        // 2 against 8: P(X <= 2 of 10) = 56/1024, P(X = 2) = 45/1024.
        let (a, b) = pattern([(5, true, true), (8, true, false), (2, false, true), (5, false, false)]);
        let test = mcnemar(&a, &b).expect("valid");
        assert_eq!((test.only_a, test.only_b), (8, 2));
        assert!((test.p_exact - 112.0 / 1024.0).abs() < 1e-12);
        assert!((test.p_mid - 67.0 / 1024.0).abs() < 1e-12);
        assert_eq!(mcnemar(&a, &a).expect("valid").p_exact, 1.0);
        let difference = accuracy_difference(&a, &b, 0.95).expect("valid");
        assert!((difference.value - 0.3).abs() < 1e-12 && difference.contains(0.3));
    }

    #[test]
    fn two_separable_networks_are_not_known_to_be_equal() {
        let labels: Vec<bool> = (0..40).map(|i| i >= 20).collect();
        let a: Vec<f64> = (0..40).map(f64::from).collect();
        let b: Vec<f64> = a.iter().map(|x| if *x >= 20.0 { 100.0 - x } else { *x }).collect();
        let result = auc_difference(&a, &b, &labels, 0.95).expect("valid");
        assert_eq!((result.difference.value, result.p_value), (0.0, 1.0));
        assert!(result.difference.high > 0.1 && result.difference.low < -0.1);
        assert_eq!(auc_difference(&a, &a, &labels, 0.95).expect("valid").difference.half_width(), 0.0);
    }

    #[test]
    fn unpaired_input_is_refused() {
        let e = |r: Result<ErrorReduction>| r.expect_err("must be refused");
        assert!(matches!(
            e(error_reduction(&[true], &[true, false], 0.9)),
            StatsError::LengthMismatch { .. }
        ));
        assert!(matches!(e(error_reduction(&[], &[], 0.9)), StatsError::TooFew { .. }));
        let b = Bootstrap::default();
        let (one, two) = (vec![true, false], vec![true, false, false]);
        assert!(matches!(
            e(error_reduction_over_seeds(&[&one, &one], &[&two, &two], &b)),
            StatsError::LengthMismatch { left_len: 2, right_len: 3, .. }
        ));
        assert!(matches!(e(error_reduction_over_seeds(&[&one], &[&one], &b)), StatsError::TooFew { .. }));
        assert!(matches!(
            e(error_reduction_over_seeds(&[&one], &[&one, &one], &b)),
            StatsError::LengthMismatch { .. }
        ));
    }
}
