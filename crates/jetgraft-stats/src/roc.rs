//! How well do scores separate signal from background?

use crate::error::{Result, StatsError, all_finite, at_least, good_level, same_length};
use crate::interval::Interval;
use crate::proportion::clopper_pearson_ends;
use crate::seeds::{SeedsAndEvents, combine, mean_interval, pure_event_share};
use crate::special::{binomial_quantile, two_sided_z};
use serde::{Deserialize, Serialize};

/// One working point: events with `score >= threshold` are called signal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RocPoint {
    /// Score at which to cut.
    pub threshold: f64,
    /// Share of signal kept, eps_S.
    pub signal_efficiency: f64,
    /// Share of background kept, eps_B.
    pub background_efficiency: f64,
    /// Signal events kept (not weighted).
    pub signal_count: u64,
    /// Background events kept (not weighted).
    pub background_count: u64,
}

/// One point of a curve with its pointwise band.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BandPoint {
    /// eps_S asked for.
    pub signal_efficiency: f64,
    /// eps_B at the first threshold that keeps at least that share.
    pub background_efficiency: f64,
    /// Lower end of the Clopper-Pearson interval of eps_B; 0 without background.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Background events behind it.
    pub background_count: u64,
}

/// A ROC curve with every distinct threshold, and its area.
///
/// ```
/// use jetgraft_stats::roc::Roc;
/// let roc = Roc::new(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true])?;
/// assert_eq!(roc.auc(), 0.75);
/// # Ok::<(), jetgraft_stats::StatsError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Roc {
    points: Vec<RocPoint>,
    auc: f64,
    variance: f64,
    signal_count: u64,
    background_count: u64,
    /// (sum of weights)^2 / sum of squared weights of the background; its count without weights.
    background_effective: f64,
    weighted: bool,
}

impl Roc {
    /// From scores (higher: more signal-like) and labels (true: signal).
    ///
    /// # Errors
    /// No events, one class only, lengths that differ, a score that is NaN or infinite (its index is named).
    pub fn new(scores: &[f64], labels: &[bool]) -> Result<Self> {
        Self::build(scores, labels, None)
    }

    /// With a weight of zero or more for each event.
    ///
    /// # Errors
    /// As [`Roc::new`]; negative weights, since the curve would turn back; a class of total weight zero.
    pub fn with_weights(scores: &[f64], labels: &[bool], weights: &[f64]) -> Result<Self> {
        Self::build(scores, labels, Some(weights))
    }

    fn build(scores: &[f64], labels: &[bool], weights: Option<&[f64]>) -> Result<Self> {
        let placements = Placements::new(scores, labels, weights)?;
        let weight = |i: usize| weights.map_or(1.0, |w| w[i]);
        let mut points: Vec<RocPoint> = Vec::new();
        let (mut signal, mut background) = (0.0, 0.0);
        let (mut signal_count, mut background_count) = (0, 0);
        for &i in placements.order.iter().rev() {
            if labels[i] {
                signal += weight(i);
                signal_count += 1;
            } else {
                background += weight(i);
                background_count += 1;
            }
            let point = RocPoint {
                threshold: scores[i],
                // Summation in another order may end a rounding above one.
                signal_efficiency: (signal / placements.signal_weight).min(1.0),
                background_efficiency: (background / placements.background_weight).min(1.0),
                signal_count,
                background_count,
            };
            match points.last_mut() {
                Some(last) if last.threshold == point.threshold => *last = point,
                _ => points.push(point),
            }
        }
        let background_squares: f64 =
            (0..labels.len()).filter(|&i| !labels[i]).map(|i| weight(i).powi(2)).sum();
        Ok(Self {
            points,
            auc: placements.auc,
            variance: placements.variance(),
            signal_count,
            background_count,
            background_effective: placements.background_weight.powi(2) / background_squares,
            weighted: weights.is_some(),
        })
    }

    /// Working points from the highest threshold to the lowest; the origin (nothing kept) is not among them.
    pub fn points(&self) -> &[RocPoint] {
        &self.points
    }

    /// Signal events.
    pub fn signal_count(&self) -> u64 {
        self.signal_count
    }

    /// Background events.
    pub fn background_count(&self) -> u64 {
        self.background_count
    }

    /// Whether events carried weights.
    pub fn is_weighted(&self) -> bool {
        self.weighted
    }

    /// Area under eps_S against eps_B: the chance that a signal event scores above a background event, ties
    /// counting one half (rank statistic; equal to the trapezoid rule).
    pub fn auc(&self) -> f64 {
        self.auc
    }

    /// AUC with DeLong's variance, the ends found on the logit scale so that they stay between 0 and 1. An AUC of
    /// exactly 0 or 1 has variance zero; its interval is then Clopper-Pearson for min(signal, background)
    /// independent pairs, all of which agree.
    ///
    /// # Errors
    /// Fewer than two events of a class, a level outside (0, 1).
    ///
    /// Source: E. DeLong et al., Biometrics 44 (1988) 837; X. Sun, W. Xu, IEEE Sign. Proc. Lett. 21 (2014) 1389 for
    /// the computation by ranks; M. Pepe, The Statistical Evaluation of Medical Tests (2003), section 5.2.3, for the
    /// logit scale.
    pub fn auc_interval(&self, level: f64) -> Result<Interval> {
        good_level(level)?;
        at_least("signal events", self.signal_count as usize, 2)?;
        at_least("background events", self.background_count as usize, 2)?;
        let n = self.signal_count + self.background_count;
        Ok(auc_ends(self.auc, self.variance, self.signal_count.min(self.background_count), n, level))
    }

    /// First working point, from the highest threshold down, that keeps at least `target` of the signal. Rounding of
    /// the target by 1e-12 is forgiven, so that 0.1 * 3 means 3 of 10.
    ///
    /// # Errors
    /// A target outside (0, 1].
    pub fn at_signal_efficiency(&self, target: f64) -> Result<&RocPoint> {
        if !(target > 0.0 && target <= 1.0) {
            return Err(StatsError::OutOfRange {
                what: "signal efficiency",
                value: target,
                low: 0.0,
                high: 1.0,
            });
        }
        Ok(&self.points[self.index_at(target)])
    }

    pub(crate) fn index_at(&self, target: f64) -> usize {
        let index = self.points.partition_point(|p| p.signal_efficiency < target - 1e-12);
        index.min(self.points.len() - 1)
    }

    /// Background counts at the two ends of a distribution-free interval of the true threshold, fewest first.
    ///
    /// X of the m signal events lie above the threshold that keeps `target` of all signal; X is binomial with
    /// (m, target). So, with x and y its lower and upper quantiles, the threshold lies between the x-th and the
    /// (y+1)-th signal event from the top, at least as often as `level` says. Above the first event no background
    /// is known to be kept, below the last one all of it may be. Rounding goes outwards, by less than one event.
    pub(crate) fn threshold_range(&self, target: f64, level: f64) -> (u64, u64) {
        let tail = 0.5 * (1.0 - level);
        let background = |rank: u64| match rank {
            0 => 0,
            _ if rank > self.signal_count => self.background_count,
            _ => self.points[self.points.partition_point(|p| p.signal_count < rank)].background_count,
        };
        let fewest = background(binomial_quantile(tail, self.signal_count, target));
        (fewest, background(binomial_quantile(1.0 - tail, self.signal_count, target) + 1))
    }

    /// eps_B on the curve drawn with straight lines between the working points (and from the origin). Where the
    /// curve rises at constant eps_S, the smallest eps_B.
    ///
    /// # Errors
    /// A signal efficiency outside [0, 1].
    pub fn background_efficiency_at(&self, signal_efficiency: f64) -> Result<f64> {
        if !(0.0..=1.0).contains(&signal_efficiency) {
            let what = "signal efficiency";
            return Err(StatsError::OutOfRange { what, value: signal_efficiency, low: 0.0, high: 1.0 });
        }
        if signal_efficiency == 0.0 {
            return Ok(0.0);
        }
        let index = self.index_at(signal_efficiency);
        let right = self.points[index];
        let (s0, b0) = match index {
            0 => (0.0, 0.0),
            _ => (self.points[index - 1].signal_efficiency, self.points[index - 1].background_efficiency),
        };
        let width = right.signal_efficiency - s0;
        let share = if width > 0.0 { ((signal_efficiency - s0) / width).clamp(0.0, 1.0) } else { 1.0 };
        Ok(b0 + share * (right.background_efficiency - b0))
    }

    /// eps_B with a pointwise Clopper-Pearson band on a grid of eps_S, for figures. With weights the counts are
    /// effective ones. The fluctuation of the threshold with the signal sample is not part of the band; it is
    /// part of [`crate::rejection::Rejection::at`].
    ///
    /// # Errors
    /// A grid value outside (0, 1], a level outside (0, 1).
    pub fn band(&self, grid: &[f64], level: f64) -> Result<Vec<BandPoint>> {
        good_level(level)?;
        let mut band = Vec::with_capacity(grid.len());
        for &target in grid {
            let point = self.at_signal_efficiency(target)?;
            let total = self.background_effective;
            let (low, high) = clopper_pearson_ends(point.background_efficiency * total, total, level);
            band.push(BandPoint {
                signal_efficiency: target,
                background_efficiency: point.background_efficiency,
                low,
                high,
                background_count: point.background_count,
            });
        }
        Ok(band)
    }
}

/// AUC of several networks on the same test events: mean over seeds, with seed part and event part. The event part
/// is DeLong's variance of the mean AUC, from placements averaged over the networks.
///
/// # Errors
/// Fewer than two networks, and as [`Roc::new`] for each.
pub fn auc_over_seeds<S: AsRef<[f64]>>(scores: &[S], labels: &[bool], level: f64) -> Result<SeedsAndEvents> {
    at_least("seeds", scores.len(), 2)?;
    let all = scores.iter().map(|s| Placements::new(s.as_ref(), labels, None)).collect::<Result<Vec<_>>>()?;
    let per_seed: Vec<f64> = all.iter().map(|p| p.auc).collect();
    let seeds = mean_interval(&per_seed, level)?;
    let signal: Vec<Vec<f64>> = all.iter().map(|p| p.signal.clone()).collect();
    let background: Vec<Vec<f64>> = all.iter().map(|p| p.background.clone()).collect();
    at_least("signal events", signal[0].len(), 2)?;
    at_least("background events", background[0].len(), 2)?;
    let (full, pure) = crossed_variances(&signal, &background);
    let pairs = signal[0].len().min(background[0].len()) as u64;
    let events = auc_ends(seeds.value, full, pairs, labels.len() as u64, level);
    let share = if full > 0.0 { pure / full } else { 1.0 };
    let mut total = combine(&seeds, &events, share);
    (total.low, total.high) = (total.low.max(0.0), total.high.min(1.0));
    Ok(SeedsAndEvents { total, seeds, events })
}

/// Event variance of a mean over networks of a two-sample statistic, whole and without the interaction of network
/// and event.
pub(crate) fn crossed_variances(signal: &[Vec<f64>], background: &[Vec<f64>]) -> (f64, f64) {
    let part = |rows: &[Vec<f64>]| {
        let means = crate::seeds::column_means(rows);
        let variance = crate::seeds::mean_and_variance(&means).1 / means.len() as f64;
        (variance, variance * pure_event_share(rows))
    };
    let (s, b) = (part(signal), part(background));
    (s.0 + b.0, s.1 + b.1)
}

/// Ends of an AUC on the logit scale.
fn auc_ends(auc: f64, variance: f64, pairs: u64, n: u64, level: f64) -> Interval {
    if auc <= 0.0 || auc >= 1.0 {
        let total = pairs as f64;
        let (low, high) = clopper_pearson_ends(auc * total, total, level);
        return Interval::new(auc, low, high, level, n, "Clopper-Pearson over independent pairs (separable)");
    }
    let centre = (auc / (1.0 - auc)).ln();
    let half = two_sided_z(level) * variance.sqrt() / (auc * (1.0 - auc));
    let back = |y: f64| 1.0 / (1.0 + (-y).exp());
    // Constant scores have variance zero; the round trip through the logit must not lose the value.
    let (low, high) = (back(centre - half).min(auc), back(centre + half).max(auc));
    Interval::new(auc, low, high, level, n, "DeLong over events, logit scale")
}

/// Placement values of the AUC: for each signal event the (weighted) share of background below it, for each
/// background event the share of signal above it, ties counting one half. Their means are the AUC.
pub(crate) struct Placements {
    /// In the order of the signal events.
    pub(crate) signal: Vec<f64>,
    /// In the order of the background events.
    pub(crate) background: Vec<f64>,
    pub(crate) signal_weights: Vec<f64>,
    pub(crate) background_weights: Vec<f64>,
    pub(crate) signal_weight: f64,
    pub(crate) background_weight: f64,
    pub(crate) auc: f64,
    /// Events by rising score.
    order: Vec<usize>,
}

impl Placements {
    pub(crate) fn new(scores: &[f64], labels: &[bool], weights: Option<&[f64]>) -> Result<Self> {
        at_least("events", scores.len(), 1)?;
        same_length("scores", scores.len(), "labels", labels.len())?;
        all_finite("score", scores)?;
        if let Some(weights) = weights {
            same_length("scores", scores.len(), "weights", weights.len())?;
            all_finite("weight", weights)?;
            if let Some(index) = weights.iter().position(|&w| w < 0.0) {
                return Err(StatsError::Negative { what: "weight", index, value: weights[index] });
            }
        }
        let weight = |i: usize| weights.map_or(1.0, |w| w[i]);
        let total = |class: bool| (0..labels.len()).filter(|&i| labels[i] == class).map(weight).sum::<f64>();
        let (signal_weight, background_weight) = (total(true), total(false));
        if signal_weight <= 0.0 {
            return Err(StatsError::OneClass { present: "background", total: labels.len() });
        }
        if background_weight <= 0.0 {
            return Err(StatsError::OneClass { present: "signal", total: labels.len() });
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));

        let mut placement = vec![0.0; scores.len()];
        // Twice the placements, summed before the division: integers without weights, so the AUC is exact.
        let mut doubled_sum = 0.0;
        let (mut signal_below, mut background_below) = (0.0, 0.0);
        let mut start = 0;
        while start < order.len() {
            let score = scores[order[start]];
            let end = start + order[start..].partition_point(|&i| scores[i] <= score);
            let tie = &order[start..end];
            let here =
                |class: bool| tie.iter().filter(|&&i| labels[i] == class).map(|&i| weight(i)).sum::<f64>();
            let (signal_here, background_here) = (here(true), here(false));
            for &i in tie {
                placement[i] = if labels[i] {
                    let doubled = 2.0 * background_below + background_here;
                    doubled_sum += weight(i) * doubled;
                    0.5 * doubled / background_weight
                } else {
                    (signal_weight - signal_below - 0.5 * signal_here) / signal_weight
                };
            }
            signal_below += signal_here;
            background_below += background_here;
            start = end;
        }
        let pick = |class: bool| -> (Vec<f64>, Vec<f64>) {
            (0..labels.len()).filter(|&i| labels[i] == class).map(|i| (placement[i], weight(i))).unzip()
        };
        let (signal, signal_weights) = pick(true);
        let (background, background_weights) = pick(false);
        let auc = (0.5 * doubled_sum / signal_weight / background_weight).clamp(0.0, 1.0);
        Ok(Self {
            signal,
            background,
            signal_weights,
            background_weights,
            signal_weight,
            background_weight,
            auc,
            order,
        })
    }

    /// DeLong's variance of the AUC; zero for a class of one event, where it is not defined.
    fn variance(&self) -> f64 {
        weighted_mean_variance(&self.signal, &self.signal_weights)
            + weighted_mean_variance(&self.background, &self.background_weights)
    }
}

/// Variance of a weighted mean, sum w^2 (v - mean)^2 / (sum w)^2 with n / (n - 1); the usual s^2 / n for weights of
/// one. Zero for one event.
pub(crate) fn weighted_mean_variance(values: &[f64], weights: &[f64]) -> f64 {
    let n = values.len() as f64;
    if n < 2.0 {
        return 0.0;
    }
    let total: f64 = weights.iter().sum();
    let mean = values.iter().zip(weights).map(|(v, w)| v * w).sum::<f64>() / total;
    let squares: f64 = values.iter().zip(weights).map(|(v, w)| (w * (v - mean)).powi(2)).sum();
    squares / (total * total) * n / (n - 1.0)
}
