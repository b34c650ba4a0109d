//! How far apart are two distributions, the jet mass before and after a cut for example?

use crate::bootstrap::{Bootstrap, sorted_quantile};
use crate::error::{Result, StatsError, all_finite, at_least};
use crate::histogram::{Histogram, same_binning};
use crate::interval::Interval;
use crate::random::Stream;
use serde::{Deserialize, Serialize};

/// Jensen-Shannon divergence of two histograms with its interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JensenShannon {
    /// Divergence in bits, 0 (equal) to 1 (disjoint), bias taken off.
    pub divergence: Interval,
    /// Its square root, the distance (a metric).
    pub distance: Interval,
    /// Divergence as it comes from the bins, before the correction.
    pub raw_divergence: f64,
    /// Bias of the raw divergence: finite samples differ even when the distributions do not.
    pub bias: f64,
    /// Share of pairs of equal distributions with a raw divergence at least as large; the p-value of "no difference".
    pub p_value: f64,
}

/// Jensen-Shannon divergence in bits of two lists of weights, each normalised to one:
/// (KL(p | m) + KL(q | m)) / 2 with m = (p + q) / 2.
///
/// # Errors
/// Lengths that differ, a weight that is negative or not finite, a sum of zero.
///
/// Source: J. Lin, IEEE Trans. Inf. Theory 37 (1991) 145.
pub fn divergence(p: &[f64], q: &[f64]) -> Result<f64> {
    crate::error::same_length("first histogram", p.len(), "second histogram", q.len())?;
    for (what, values) in [("content of the first histogram", p), ("content of the second histogram", q)] {
        all_finite(what, values)?;
        if let Some(index) = values.iter().position(|&v| v < 0.0) {
            return Err(StatsError::Negative { what, index, value: values[index] });
        }
        if values.iter().sum::<f64>() <= 0.0 {
            return Err(StatsError::TooFew { what, found: 0, needed: 1 });
        }
    }
    Ok(raw(p, q))
}

fn raw(p: &[f64], q: &[f64]) -> f64 {
    let (sp, sq) = (p.iter().sum::<f64>(), q.iter().sum::<f64>());
    if sp <= 0.0 || sq <= 0.0 {
        // A replicate may be empty; nothing is then known of the difference.
        return 0.0;
    }
    let term = |x: f64, m: f64| if x > 0.0 { x * (x / m).log2() } else { 0.0 };
    let sum: f64 = p
        .iter()
        .zip(q)
        .map(|(p, q)| {
            let (p, q) = (p / sp, q / sq);
            let m = 0.5 * (p + q);
            term(p, m) + term(q, m)
        })
        .sum();
    (0.5 * sum).clamp(0.0, 1.0)
}

/// Divergence and distance of two histograms of different events.
///
/// Each bin is drawn again from a Poisson distribution of its effective entries, scaled by the mean weight (the scaled
/// Poisson of G. Bohm, G. Zech, Nucl. Instrum. Meth. A 748 (2014) 1). The raw divergence is biased upwards by about
/// (bins - 1) (1/n + 1/m) / (8 ln 2); the mean shift of the replicates measures it. It is taken off the value once and
/// off the replicates twice (they carry it twice), and the ends are cut at zero. Bins outside the edges do not count.
///
/// # Errors
/// Different edges, an empty histogram, a negative bin, fewer than 100 replicates.
pub fn jensen_shannon(a: &Histogram, b: &Histogram, bootstrap: &Bootstrap) -> Result<JensenShannon> {
    same_binning(a, b)?;
    let (p, q) = (cells(a)?, cells(b)?);
    estimate(&p, &q, false, bootstrap)
}

/// Divergence and distance between a histogram and the histogram of a part of its events: jet mass before and after a
/// cut. The events of the part are in both, so the rejected events are drawn again apart from the accepted ones.
///
/// # Errors
/// As [`jensen_shannon`]; a bin where the part holds more than the whole.
pub fn jensen_shannon_subset(
    whole: &Histogram,
    part: &Histogram,
    bootstrap: &Bootstrap,
) -> Result<JensenShannon> {
    same_binning(whole, part)?;
    for (bin, (w, p)) in whole.bins().iter().zip(part.bins()).enumerate() {
        if p.entries > w.entries {
            return Err(StatsError::NotASubset { bin, subset: p.entries as f64, whole: w.entries as f64 });
        }
    }
    let accepted = cells(part)?;
    let rejected: Vec<Cell> = cells(whole)?
        .iter()
        .zip(&accepted)
        .map(|(w, p)| Cell { sum: (w.sum - p.sum).max(0.0), squares: (w.squares - p.squares).max(0.0) })
        .collect();
    estimate(&accepted, &rejected, true, bootstrap)
}

#[derive(Clone, Copy)]
struct Cell {
    sum: f64,
    squares: f64,
}

impl Cell {
    fn draw(self, stream: &mut Stream) -> f64 {
        if self.sum <= 0.0 || self.squares <= 0.0 {
            return 0.0;
        }
        let weight = self.squares / self.sum;
        weight * stream.poisson(self.sum / weight)
    }
}

fn cells(h: &Histogram) -> Result<Vec<Cell>> {
    let sums = h.sums();
    divergence(&sums, &sums)?;
    Ok(h.bins().iter().map(|b| Cell { sum: b.sum, squares: b.squares }).collect())
}

fn estimate(a: &[Cell], b: &[Cell], nested: bool, bootstrap: &Bootstrap) -> Result<JensenShannon> {
    // Nested: the second histogram of the comparison is the sum of both parts.
    let compare = |a: &[f64], b: &[f64]| {
        if nested {
            let whole: Vec<f64> = a.iter().zip(b).map(|(a, b)| a + b).collect();
            raw(a, &whole)
        } else {
            raw(a, b)
        }
    };
    let sums = |c: &[Cell]| c.iter().map(|c| c.sum).collect::<Vec<f64>>();
    let value = compare(&sums(a), &sums(b));
    let draw =
        |cells: &[Cell], stream: &mut Stream| cells.iter().map(|c| c.draw(stream)).collect::<Vec<f64>>();
    let mut replicates = bootstrap.run(|stream| compare(&draw(a, stream), &draw(b, stream)))?;
    let mean = replicates.iter().sum::<f64>() / replicates.len() as f64;
    let bias = mean - value;

    // Equal distributions: both samples take the shape of their sum, each with its own size.
    let (na, nb) = (sums(a).iter().sum::<f64>(), sums(b).iter().sum::<f64>());
    let pooled = |share: f64, own: &[Cell]| -> Vec<Cell> {
        let squares: f64 = own.iter().map(|c| c.squares).sum();
        let sum: f64 = own.iter().map(|c| c.sum).sum();
        let weight = if sum > 0.0 { squares / sum } else { 0.0 };
        let mix = a.iter().zip(b).map(|(a, b)| share * (a.sum + b.sum) / (na + nb));
        mix.map(|sum| Cell { sum, squares: weight * sum }).collect()
    };
    let (null_a, null_b) = (pooled(na, a), pooled(nb, b));
    let null = Bootstrap { seed: bootstrap.seed ^ 0x6e75_6c6c, ..*bootstrap }
        .run(|stream| compare(&draw(&null_a, stream), &draw(&null_b, stream)))?;
    let above = null.iter().filter(|&&v| v >= value).count();
    let p_value = (above as f64 + 1.0) / (null.len() as f64 + 1.0);

    replicates.sort_by(f64::total_cmp);
    let tail = 0.5 * (1.0 - bootstrap.level);
    let end = |p: f64| (sorted_quantile(&replicates, p) - 2.0 * bias).clamp(0.0, 1.0);
    let corrected = (value - bias).clamp(0.0, 1.0);
    let (low, high) = (end(tail).min(corrected), end(1.0 - tail).max(corrected));
    let effective = |c: &[Cell]| {
        let (sum, squares) = c.iter().fold((0.0, 0.0), |(s, q), c| (s + c.sum, q + c.squares));
        if squares > 0.0 { sum * sum / squares } else { 0.0 }
    };
    let n = (effective(a) + effective(b)).round() as u64;
    let divergence = Interval::new(
        corrected,
        low,
        high,
        bootstrap.level,
        n,
        "Poisson bootstrap over events, bias taken off",
    );
    Ok(JensenShannon {
        distance: divergence.map(f64::sqrt),
        divergence,
        raw_divergence: value,
        bias,
        p_value,
    })
}

/// Outcome of the Kolmogorov-Smirnov test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KolmogorovSmirnov {
    /// Largest distance of the two distribution functions.
    pub statistic: f64,
    /// Asymptotic two-sided p-value with Stephens' correction for finite samples.
    pub p_value: f64,
}

/// Two-sample Kolmogorov-Smirnov test of unbinned values.
///
/// # Errors
/// An empty sample, a value that is not finite.
///
/// Source: M. Stephens, J. R. Stat. Soc. B 32 (1970) 115.
pub fn kolmogorov_smirnov(a: &[f64], b: &[f64]) -> Result<KolmogorovSmirnov> {
    for (what, sample) in [("first sample", a), ("second sample", b)] {
        at_least(what, sample.len(), 1)?;
        all_finite(what, sample)?;
    }
    let sort = |sample: &[f64]| {
        let mut sorted = sample.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted
    };
    let (a, b) = (sort(a), sort(b));
    let (na, nb) = (a.len() as f64, b.len() as f64);
    let (mut i, mut j, mut statistic) = (0, 0, 0.0_f64);
    while i < a.len() && j < b.len() {
        let x = a[i].min(b[j]);
        i += a[i..].partition_point(|&v| v <= x);
        j += b[j..].partition_point(|&v| v <= x);
        statistic = statistic.max((i as f64 / na - j as f64 / nb).abs());
    }
    let root = (na * nb / (na + nb)).sqrt();
    let lambda = (root + 0.12 + 0.11 / root) * statistic;
    // Below 0.2 the alternating sum converges slowly, and the p-value is 1 to 10 digits.
    let p_value = if lambda < 0.2 {
        1.0
    } else {
        let term =
            |k: i32| f64::from(1 - 2 * ((k - 1) % 2)) * (-2.0 * f64::from(k * k) * lambda * lambda).exp();
        (2.0 * (1..=100).map(term).sum::<f64>()).clamp(0.0, 1.0)
    };
    Ok(KolmogorovSmirnov { statistic, p_value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Axis;

    fn histogram(counts: &[u32]) -> Histogram {
        let mut h = Histogram::new(Axis::regular(counts.len(), 0.0, counts.len() as f64).expect("valid"));
        for (bin, &count) in counts.iter().enumerate() {
            (0..count).for_each(|_| h.fill(bin as f64 + 0.5, 1.0));
        }
        h
    }

    #[test]
    fn known_divergences() {
        assert_eq!(divergence(&[1.0, 0.0], &[0.0, 2.0]).expect("valid"), 1.0);
        assert_eq!(divergence(&[1.0, 3.0], &[2.0, 6.0]).expect("valid"), 0.0);
        // (1, 0) against (1/2, 1/2): 3/4 log2(4/3) summed by hand, 0.311278...
        let d = divergence(&[1.0, 0.0], &[1.0, 1.0]).expect("valid");
        assert!((d - 0.311_278_124_459_132_8).abs() < 1e-14, "{d}");
        assert!(matches!(divergence(&[1.0], &[1.0, 2.0]), Err(StatsError::LengthMismatch { .. })));
        assert!(matches!(divergence(&[1.0, -1.0], &[1.0, 2.0]), Err(StatsError::Negative { index: 1, .. })));
        assert!(matches!(divergence(&[0.0, 0.0], &[1.0, 2.0]), Err(StatsError::TooFew { .. })));
        assert!(matches!(divergence(&[], &[]), Err(StatsError::TooFew { .. })));
    }

    #[test]
    fn bias_follows_the_formula() {
        let (a, b) = (histogram(&[400, 600, 500, 300, 200]), histogram(&[400, 600, 500, 300, 200]));
        let result = jensen_shannon(&a, &b, &Bootstrap::default()).expect("valid");
        let expected = 4.0 * (2.0 / 2000.0) / (8.0 * std::f64::consts::LN_2);
        assert!((result.bias / expected - 1.0).abs() < 0.15, "{} {expected}", result.bias);
        assert_eq!((result.raw_divergence, result.divergence.low), (0.0, 0.0));
        assert!(result.p_value > 0.9);
    }

    #[test]
    fn a_subset_is_checked() {
        let (whole, part) = (histogram(&[5, 6, 7]), histogram(&[1, 7, 0]));
        let error = jensen_shannon_subset(&whole, &part, &Bootstrap::default()).expect_err("must be refused");
        assert!(matches!(error, StatsError::NotASubset { bin: 1, .. }));
        let same = jensen_shannon_subset(&whole, &whole, &Bootstrap::default()).expect("valid");
        assert_eq!((same.divergence.value, same.divergence.high), (0.0, 0.0));
    }

    #[test]
    fn kolmogorov_smirnov_by_hand() {
        let a: Vec<f64> = (0..10).map(f64::from).collect();
        let b: Vec<f64> = (5..15).map(f64::from).collect();
        assert_eq!(kolmogorov_smirnov(&a, &b).expect("valid").statistic, 0.5);
        let same = kolmogorov_smirnov(&a, &a).expect("valid");
        assert_eq!((same.statistic, same.p_value), (0.0, 1.0));
        assert!(matches!(kolmogorov_smirnov(&a, &[f64::NAN]), Err(StatsError::NotFinite { .. })));
    }
}
