//! How does any statistic vary when the events, or the seeds, are drawn again?
//!
//! Replicate r has its own ChaCha8 stream (seed, r): the result is the same for any number of threads.

use crate::error::{Result, StatsError, at_least, good_level};
use crate::interval::Interval;
use crate::random::Stream;
use crate::special::{normal_cdf, normal_quantile};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How replicates become an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootstrapKind {
    /// Quantiles of the replicates.
    Percentile,
    /// Bias corrected and accelerated (B. Efron, J. Am. Stat. Assoc. 82 (1987) 171): second-order accurate, at the
    /// cost of a jackknife of at most 200 groups.
    Bca,
}

/// Settings of a bootstrap.
///
/// ```
/// use jetgraft_stats::bootstrap::Bootstrap;
/// let x = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
/// let mean = |rows: &[usize]| rows.iter().map(|&i| x[i]).sum::<f64>() / rows.len() as f64;
/// let interval = Bootstrap::default().events(x.len(), mean)?;
/// assert!(interval.contains(10.5));
/// # Ok::<(), jetgraft_stats::StatsError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Number of replicates, 100 or more. Default 1000.
    pub replicates: usize,
    /// Seed of all replicates. Default 0.
    pub seed: u64,
    /// Confidence level. Default 0.95.
    pub level: f64,
    /// Kind of interval. Default percentile.
    pub kind: BootstrapKind,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { replicates: 1000, seed: 0, level: 0.95, kind: BootstrapKind::Percentile }
    }
}

impl Bootstrap {
    pub(crate) fn check(&self) -> Result<()> {
        good_level(self.level)?;
        at_least("bootstrap replicates", self.replicates, 100)
    }

    /// Replicates of a function of a private random stream, in order.
    pub(crate) fn run<F>(&self, replicate: F) -> Result<Vec<f64>>
    where
        F: Fn(&mut Stream) -> f64 + Sync,
    {
        let values = self.run_each(replicate)?;
        crate::error::all_finite("bootstrap replicate", &values)?;
        Ok(values)
    }

    /// As [`Bootstrap::run`] for replicates of any type, unchecked.
    pub(crate) fn run_each<T, F>(&self, replicate: F) -> Result<Vec<T>>
    where
        T: Send,
        F: Fn(&mut Stream) -> T + Sync,
    {
        self.check()?;
        let streams = (0..self.replicates as u64).into_par_iter();
        Ok(streams.map(|r| replicate(&mut Stream::new(self.seed, r))).collect())
    }

    /// Interval of `statistic(rows)` over `n` events; `rows` are indices into the events, `n` of them, with
    /// repetition. A paired comparison is a statistic that reads two columns at the same rows.
    ///
    /// # Errors
    /// Fewer than two events, fewer than 100 replicates, a statistic that is not finite (index -> replicate).
    pub fn events<F>(&self, n: usize, statistic: F) -> Result<Interval>
    where
        F: Fn(&[usize]) -> f64 + Sync,
    {
        self.stratified(&vec![0; n], statistic)
    }

    /// As [`Bootstrap::events`], with events drawn inside their stratum, so that each stratum keeps its size:
    /// classes of a test set, for example. `strata[i]` names the stratum of event i.
    ///
    /// # Errors
    /// As [`Bootstrap::events`].
    pub fn stratified<F>(&self, strata: &[u32], statistic: F) -> Result<Interval>
    where
        F: Fn(&[usize]) -> f64 + Sync,
    {
        at_least("events", strata.len(), 2)?;
        self.check()?;
        let groups = group_rows(strata);
        let all: Vec<usize> = (0..strata.len()).collect();
        let value = statistic(&all);
        finite("statistic on all events", 0, value)?;
        let replicates = self.run(|stream| {
            let mut rows = Vec::with_capacity(strata.len());
            for group in &groups {
                rows.extend((0..group.len()).map(|_| group[stream.index(group.len())]));
            }
            statistic(&rows)
        })?;
        let n = strata.len() as u64;
        match self.kind {
            BootstrapKind::Percentile => {
                self.percentile(value, replicates, n, "percentile bootstrap over events")
            }
            BootstrapKind::Bca => {
                let acceleration = jackknife_acceleration(&groups, strata.len(), &statistic);
                self.bca(value, replicates, acceleration, n)
            }
        }
    }

    /// Two-level bootstrap: seeds are drawn again, then events, the same events for every seed. The statistic gets
    /// the rows of seeds and the rows of events.
    ///
    /// The seed part is that of a resampled mean: with K seeds its variance is short by (K-1)/K and it knows nothing
    /// of Student's t. With fewer than about ten seeds the interval is too short (measured in the tests);
    /// [`crate::seeds::combine`] is the better choice there and the one that [`crate::compare`] makes.
    ///
    /// # Errors
    /// Fewer than two seeds or events, and as [`Bootstrap::events`].
    pub fn seeds_and_events<F>(&self, seeds: usize, events: usize, statistic: F) -> Result<Interval>
    where
        F: Fn(&[usize], &[usize]) -> f64 + Sync,
    {
        at_least("seeds", seeds, 2)?;
        at_least("events", events, 2)?;
        let all_seeds: Vec<usize> = (0..seeds).collect();
        let all_events: Vec<usize> = (0..events).collect();
        let value = statistic(&all_seeds, &all_events);
        finite("statistic on all events", 0, value)?;
        let replicates = self.run(|stream| {
            let seed_rows: Vec<usize> = (0..seeds).map(|_| stream.index(seeds)).collect();
            let event_rows: Vec<usize> = (0..events).map(|_| stream.index(events)).collect();
            statistic(&seed_rows, &event_rows)
        })?;
        self.percentile(
            value,
            replicates,
            seeds as u64,
            "two-level percentile bootstrap over seeds and events",
        )
    }

    pub(crate) fn percentile(
        &self,
        value: f64,
        mut replicates: Vec<f64>,
        n: u64,
        method: &str,
    ) -> Result<Interval> {
        replicates.sort_by(f64::total_cmp);
        let tail = 0.5 * (1.0 - self.level);
        let (low, high) = (sorted_quantile(&replicates, tail), sorted_quantile(&replicates, 1.0 - tail));
        Ok(Interval::new(value, low, high, self.level, n, method))
    }

    fn bca(&self, value: f64, mut replicates: Vec<f64>, acceleration: f64, n: u64) -> Result<Interval> {
        replicates.sort_by(f64::total_cmp);
        let below = replicates.partition_point(|&r| r < value);
        let at = replicates.partition_point(|&r| r <= value) - below;
        let share = (below as f64 + 0.5 * at as f64) / replicates.len() as f64;
        if share <= 0.0 || share >= 1.0 || !acceleration.is_finite() {
            return self.percentile(value, replicates, n, "percentile bootstrap over events (BCa undefined)");
        }
        let bias = normal_quantile(share);
        let end = |tail: f64| {
            let z = bias + normal_quantile(tail);
            // The correction has a pole; beyond it the end is the extreme replicate.
            let stretch = (1.0 - acceleration * z).max(1e-3);
            sorted_quantile(&replicates, normal_cdf(bias + z / stretch))
        };
        let tail = 0.5 * (1.0 - self.level);
        Ok(Interval::new(value, end(tail), end(1.0 - tail), self.level, n, "BCa bootstrap over events"))
    }
}

fn finite(what: &'static str, index: usize, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(StatsError::NotFinite { what, index, value }) }
}

/// Quantile of sorted values at the position (n + 1) p, clamped; the convention of Davison and Hinkley.
pub(crate) fn sorted_quantile(sorted: &[f64], p: f64) -> f64 {
    let position = (p * (sorted.len() as f64 + 1.0) - 1.0).clamp(0.0, sorted.len() as f64 - 1.0);
    let (below, share) = (position.floor() as usize, position.fract());
    let above = (below + 1).min(sorted.len() - 1);
    let (left, right) = (sorted[below], sorted[above]);
    if share == 0.0 || left == right || left == f64::NEG_INFINITY {
        return left;
    }
    // Infinities mark censored replicates: an end that touches one is censored, on either side.
    left + share * (right - left)
}

/// Rows of each stratum, strata in order of their number.
fn group_rows(strata: &[u32]) -> Vec<Vec<usize>> {
    let mut groups = std::collections::BTreeMap::<u32, Vec<usize>>::new();
    for (row, &stratum) in strata.iter().enumerate() {
        groups.entry(stratum).or_default().push(row);
    }
    groups.into_values().collect()
}

/// Acceleration from a delete-a-group jackknife. Every 200th event of each stratum leaves together, so each group
/// holds the strata in proportion.
fn jackknife_acceleration<F>(groups: &[Vec<usize>], n: usize, statistic: &F) -> f64
where
    F: Fn(&[usize]) -> f64 + Sync,
{
    let parts = n.min(200);
    let mut part_of = vec![0; n];
    for (position, &row) in groups.iter().flatten().enumerate() {
        part_of[row] = position % parts;
    }
    let values: Vec<f64> = (0..parts)
        .into_par_iter()
        .map(|part| {
            let rows: Vec<usize> = (0..n).filter(|&row| part_of[row] != part).collect();
            statistic(&rows)
        })
        .collect();
    let mean = values.iter().sum::<f64>() / parts as f64;
    let square: f64 = values.iter().map(|v| (mean - v).powi(2)).sum();
    let cube: f64 = values.iter().map(|v| (mean - v).powi(3)).sum();
    if square == 0.0 { 0.0 } else { cube / (6.0 * square.powf(1.5)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_sorted_values() {
        let x: Vec<f64> = (1..=99).map(f64::from).collect();
        assert_eq!(sorted_quantile(&x, 0.5), 50.0);
        assert_eq!(sorted_quantile(&x, 0.0), 1.0);
        assert_eq!(sorted_quantile(&x, 1.0), 99.0);
        assert_eq!(sorted_quantile(&[f64::NEG_INFINITY, 1.0, f64::INFINITY], 0.99), f64::INFINITY);
    }

    #[test]
    fn the_thread_count_changes_nothing() {
        let x: Vec<f64> = (0..300).map(|i| f64::from(i % 17).sqrt()).collect();
        let mean = |rows: &[usize]| rows.iter().map(|&i| x[i]).sum::<f64>() / rows.len() as f64;
        let bootstrap = Bootstrap { kind: BootstrapKind::Bca, seed: 5, ..Bootstrap::default() };
        let mut results = Vec::new();
        for threads in [1, 2, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
            results.push(pool.install(|| bootstrap.events(x.len(), mean)).expect("valid input"));
        }
        assert_eq!(results[0], results[1]);
        assert_eq!(results[0], results[2]);
    }

    #[test]
    fn strata_keep_their_size() {
        let strata: Vec<u32> = (0..50).map(|i| u32::from(i % 5 == 0)).collect();
        let share = |rows: &[usize]| rows.iter().filter(|&&i| i % 5 == 0).count() as f64;
        let interval = Bootstrap::default().stratified(&strata, share).expect("valid input");
        assert_eq!((interval.low, interval.high), (10.0, 10.0));
    }

    #[test]
    fn hostile_input_is_refused() {
        let b = Bootstrap::default();
        assert!(matches!(b.events(1, |_| 0.0), Err(StatsError::TooFew { found: 1, .. })));
        assert!(matches!(b.events(5, |_| f64::NAN), Err(StatsError::NotFinite { .. })));
        let few = Bootstrap { replicates: 5, ..b };
        assert!(matches!(few.events(5, |_| 0.0), Err(StatsError::TooFew { found: 5, needed: 100, .. })));
        let level = Bootstrap { level: 95.0, ..b };
        assert!(matches!(level.events(5, |_| 0.0), Err(StatsError::OutOfRange { .. })));
        assert!(matches!(b.seeds_and_events(1, 5, |_, _| 0.0), Err(StatsError::TooFew { .. })));
    }
}
