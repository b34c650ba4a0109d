//! How sure is a fraction of counted events?

use crate::error::{Result, StatsError, at_least, good_level};
use crate::interval::Interval;
use crate::special::{beta_quantile, two_sided_z};

/// Exact ends of a binomial proportion for possibly effective (non-integer) counts.
pub(crate) fn clopper_pearson_ends(count: f64, total: f64, level: f64) -> (f64, f64) {
    let tail = 0.5 * (1.0 - level);
    let low = if count <= 0.0 { 0.0 } else { beta_quantile(tail, count, total - count + 1.0) };
    let high = if count >= total { 1.0 } else { beta_quantile(1.0 - tail, count + 1.0, total - count) };
    (low, high)
}

fn check(count: u64, total: u64, level: f64) -> Result<()> {
    good_level(level)?;
    at_least("trials", usize::try_from(total).unwrap_or(usize::MAX), 1)?;
    if count > total {
        return Err(StatsError::CountAboveTotal { count, total });
    }
    Ok(())
}

/// Two-sided Clopper-Pearson interval of `count / total`. Its coverage is never below the level.
///
/// Ends are quantiles of beta distributions: low = B(alpha/2; k, n-k+1), high = B(1-alpha/2; k+1, n-k).
///
/// # Errors
/// No trials, more successes than trials, a level outside (0, 1).
///
/// Source: C. Clopper, E. Pearson, Biometrika 26 (1934) 404.
///
/// ```
/// let e = jetgraft_stats::proportion::clopper_pearson(28, 50_000, 0.95)?;
/// assert!(e.low < 0.000_56 && 0.000_56 < e.high);
/// # Ok::<(), jetgraft_stats::StatsError>(())
/// ```
pub fn clopper_pearson(count: u64, total: u64, level: f64) -> Result<Interval> {
    check(count, total, level)?;
    let (low, high) = clopper_pearson_ends(count as f64, total as f64, level);
    Ok(Interval::new(count as f64 / total as f64, low, high, level, total, "Clopper-Pearson over events"))
}

/// One-sided Clopper-Pearson upper limit of `count / total`; for no success at all 1 - (1 - level)^(1/n), the
/// familiar 3/n at 95 %.
///
/// # Errors
/// As [`clopper_pearson`].
pub fn clopper_pearson_upper(count: u64, total: u64, level: f64) -> Result<f64> {
    check(count, total, level)?;
    if count == total {
        return Ok(1.0);
    }
    Ok(beta_quantile(level, count as f64 + 1.0, (total - count) as f64))
}

/// Wilson score interval of `count / total`: close to the level on average, shorter than Clopper-Pearson, sometimes
/// below the level.
///
/// # Errors
/// As [`clopper_pearson`].
///
/// Source: E. Wilson, J. Am. Stat. Assoc. 22 (1927) 209.
pub fn wilson(count: u64, total: u64, level: f64) -> Result<Interval> {
    check(count, total, level)?;
    let (low, high) = wilson_ends(count as f64, total as f64, two_sided_z(level));
    Ok(Interval::new(count as f64 / total as f64, low, high, level, total, "Wilson over events"))
}

pub(crate) fn wilson_ends(count: f64, total: f64, z: f64) -> (f64, f64) {
    let p = count / total;
    let z2 = z * z;
    let centre = (p + z2 / (2.0 * total)) / (1.0 + z2 / total);
    let half = z / (1.0 + z2 / total) * (p * (1.0 - p) / total + z2 / (4.0 * total * total)).sqrt();
    // At the borders the ends are exact; rounding must not push the value out of its interval.
    let low = if count <= 0.0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if count >= total { 1.0 } else { (centre + half).min(1.0) };
    (low, high)
}

/// Accuracy with its Clopper-Pearson interval, from the correctness of every event.
///
/// # Errors
/// No events, a level outside (0, 1).
pub fn accuracy(correct: &[bool], level: f64) -> Result<Interval> {
    at_least("events", correct.len(), 1)?;
    clopper_pearson(correct.iter().filter(|&&c| c).count() as u64, correct.len() as u64, level)
}
