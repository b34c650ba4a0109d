//! How does the error fall with the number of labelled events, and what would more of them buy?
//!
//! A curve holds, for each training size, the error of every seed; "error" is any quantity above zero that falls with
//! training, 1 - accuracy or 1 - AUC for example.
//!
//! Intervals come from a multiplier bootstrap over seeds. Replicate r moves the mean error at size j by
//! delta_j = f sum_s g_s (e_sj - mean_j) / sqrt(K (K - 1)), with standard normal g_s and f^2 = (K - 1) / chi^2(K - 1).
//! So a single mean gets exactly Student's t interval, and the correlation between sizes (nested subsets of one seed)
//! and between plans (the same seeds) is kept, because all share g and f. Drawing three seeds with repetition, the
//! textbook bootstrap, knows ten outcomes only and is far too short. The mean is moved on the logarithmic scale,
//! mean exp(delta / mean), and so stays above zero.

use crate::bootstrap::{Bootstrap, sorted_quantile};
use crate::error::{Result, StatsError, all_finite, at_least};
use crate::interval::Interval;
use crate::random::Stream;
use serde::{Deserialize, Serialize};

/// Errors of all seeds at one training size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Labelled training events.
    pub labels: u64,
    /// Error of each seed; where all sizes have the same number of seeds, entry s belongs to seed s throughout.
    pub errors: Vec<f64>,
}

impl CurvePoint {
    /// Mean over seeds.
    pub fn mean(&self) -> f64 {
        self.errors.iter().sum::<f64>() / self.errors.len() as f64
    }
}

/// Error against number of labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<CurvePoint>", into = "Vec<CurvePoint>")]
pub struct LearningCurve {
    points: Vec<CurvePoint>,
}

impl TryFrom<Vec<CurvePoint>> for LearningCurve {
    type Error = StatsError;

    fn try_from(points: Vec<CurvePoint>) -> Result<Self> {
        Self::new(points)
    }
}

impl From<LearningCurve> for Vec<CurvePoint> {
    fn from(curve: LearningCurve) -> Self {
        curve.points
    }
}

/// Where a curve reaches an error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Position {
    /// At or below the wanted error already with its smallest size.
    BeforeSmallest {
        /// The smallest size.
        smallest: f64,
    },
    /// Between two sizes.
    At {
        /// Labels, interpolated.
        labels: f64,
    },
    /// Not even with its largest size.
    AfterLargest {
        /// The largest size.
        largest: f64,
    },
}

impl LearningCurve {
    /// Sorts the points by size.
    ///
    /// # Errors
    /// No point, a point without seeds, a size of zero or twice the same, an error that is negative or not finite, a
    /// mean error of zero (index -> position after sorting).
    pub fn new(mut points: Vec<CurvePoint>) -> Result<Self> {
        at_least("training sizes", points.len(), 1)?;
        points.sort_by_key(|p| p.labels);
        for (index, point) in points.iter().enumerate() {
            at_least("seeds at a training size", point.errors.len(), 1)?;
            all_finite("error of seed", &point.errors)?;
            if let Some(s) = point.errors.iter().position(|&e| e < 0.0) {
                return Err(StatsError::Negative { what: "error of seed", index: s, value: point.errors[s] });
            }
            if point.labels == 0 {
                return Err(StatsError::NotPositive { what: "training size", index, value: 0.0 });
            }
            if point.mean() <= 0.0 {
                return Err(StatsError::NotPositive { what: "mean error", index, value: point.mean() });
            }
            if index > 0 && points[index - 1].labels == point.labels {
                let size = point.labels as f64;
                return Err(StatsError::BadEdges { index, left: size, right: size });
            }
        }
        Ok(Self { points })
    }

    /// Points by rising size.
    pub fn points(&self) -> &[CurvePoint] {
        &self.points
    }

    /// Smallest training size.
    pub fn smallest(&self) -> f64 {
        self.points[0].labels as f64
    }

    /// Largest training size.
    pub fn largest(&self) -> f64 {
        self.points[self.points.len() - 1].labels as f64
    }

    pub(crate) fn means(&self) -> Vec<f64> {
        self.points.iter().map(CurvePoint::mean).collect()
    }

    /// The number of seeds, where all sizes have the same.
    pub(crate) fn common_seeds(&self) -> Option<usize> {
        let k = self.points[0].errors.len();
        self.points.iter().all(|p| p.errors.len() == k).then_some(k)
    }

    pub(crate) fn check_seeds(&self) -> Result<()> {
        self.points.iter().try_for_each(|p| at_least("seeds at a training size", p.errors.len(), 2))
    }

    /// Error at `labels` by monotone interpolation: rising stretches are pooled (isotonic regression), then straight
    /// lines in ln error against ln labels. None outside the measured sizes.
    pub fn at(&self, labels: f64) -> Option<f64> {
        Monotone::new(self, &self.means()).at(labels)
    }

    /// Labels at which the interpolated curve first reaches `error`.
    pub fn position_of(&self, error: f64) -> Position {
        Monotone::new(self, &self.means()).position_of(error)
    }

    /// One replicate of the mean errors; `shared` is used at sizes with that many seeds.
    pub(crate) fn replicate(&self, stream: &mut Stream, shared: Option<&SeedDraw>) -> Vec<f64> {
        let own = match (shared, self.common_seeds()) {
            (None, Some(k)) => Some(SeedDraw::new(stream, k)),
            _ => None,
        };
        let draw = shared.or(own.as_ref());
        self.points
            .iter()
            .map(|point| match draw {
                Some(draw) if draw.normals.len() == point.errors.len() => draw.shift(point),
                _ => SeedDraw::new(stream, point.errors.len()).shift(point),
            })
            .collect()
    }

    /// Least-squares fit of [`CurveModel`] to the mean errors, relative deviations weighted by the number of seeds.
    /// Three sizes and more: power law with floor. Two: power law.
    ///
    /// # Errors
    /// One size only.
    pub fn fit(&self) -> Result<CurveFit> {
        at_least("training sizes", self.points.len(), 2)?;
        Ok(self.fit_means(&self.means()))
    }

    /// The fit to other mean errors at the same sizes, of which there are two or more.
    pub(crate) fn fit_means(&self, means: &[f64]) -> CurveFit {
        let model = if self.points.len() >= 3 { CurveModel::PowerLawWithFloor } else { CurveModel::PowerLaw };
        let sizes: Vec<f64> = self.points.iter().map(|p| p.labels as f64).collect();
        let weights: Vec<f64> =
            self.points.iter().zip(means).map(|(p, m)| p.errors.len() as f64 / (m * m)).collect();
        fit_power_law(model, &sizes, means, &weights)
    }

    fn replicate_fits(&self, bootstrap: &Bootstrap) -> Result<(CurveFit, Vec<CurveFit>)> {
        let fit = self.fit()?;
        self.check_seeds()?;
        let fits = bootstrap.run_each(|stream| self.fit_means(&self.replicate(stream, None)))?;
        Ok((fit, fits))
    }

    /// The fit with intervals of its parameters. They are honest about how little three sizes say: an interval of
    /// the exponent may span the whole allowed range.
    ///
    /// # Errors
    /// One size only, fewer than two seeds at a size, fewer than 100 replicates.
    pub fn fit_intervals(&self, bootstrap: &Bootstrap) -> Result<CurveFitIntervals> {
        let (fit, fits) = self.replicate_fits(bootstrap)?;
        let interval =
            |of: fn(&CurveFit) -> f64| self.seed_interval(of(&fit), fits.iter().map(of), bootstrap);
        Ok(CurveFitIntervals {
            fit,
            floor: (fit.model == CurveModel::PowerLawWithFloor).then(|| interval(|f| f.floor)),
            amplitude: interval(|f| f.amplitude),
            exponent: interval(|f| f.exponent),
        })
    }

    /// Error that the fit predicts for each number of labels, inside or beyond the measured sizes.
    ///
    /// # Errors
    /// As [`LearningCurve::fit_intervals`]; a number of labels that is not above zero.
    pub fn predict(&self, labels: &[f64], bootstrap: &Bootstrap) -> Result<Vec<Interval>> {
        if let Some(index) = labels.iter().position(|n| !(n.is_finite() && *n > 0.0)) {
            return Err(StatsError::NotPositive { what: "number of labels", index, value: labels[index] });
        }
        let (fit, fits) = self.replicate_fits(bootstrap)?;
        let one = |&n: &f64| self.seed_interval(fit.at(n), fits.iter().map(|f| f.at(n)), bootstrap);
        Ok(labels.iter().map(one).collect())
    }

    /// How many labels the fit asks for to reach `error`; subtract those at hand for "how many more".
    ///
    /// # Errors
    /// As [`LearningCurve::fit_intervals`]; an error that is not above zero.
    pub fn labels_needed(&self, error: f64, bootstrap: &Bootstrap) -> Result<LabelsNeeded> {
        if !(error.is_finite() && error > 0.0) {
            return Err(StatsError::NotPositive { what: "wanted error", index: 0, value: error });
        }
        let (fit, fits) = self.replicate_fits(bootstrap)?;
        let value = fit.labels_for(error);
        let mut needed: Vec<f64> =
            fits.iter().map(|f| f.labels_for(error).unwrap_or(f64::INFINITY)).collect();
        needed.sort_by(f64::total_cmp);
        let tail = 0.5 * (1.0 - bootstrap.level);
        let (low, high) = (sorted_quantile(&needed, tail), sorted_quantile(&needed, 1.0 - tail));
        Ok(match value {
            _ if low.is_infinite() => LabelsNeeded::Unreachable { floor: fit.floor, level: bootstrap.level },
            Some(value) if high.is_finite() => {
                let (low, high) = (low.min(value), high.max(value));
                let labels =
                    Interval::new(value, low, high, bootstrap.level, self.seeds_behind(), SEED_METHOD);
                LabelsNeeded::Finite { labels }
            }
            value => LabelsNeeded::AtLeast { value, at_least: low, level: bootstrap.level },
        })
    }

    fn seed_interval(
        &self,
        value: f64,
        replicates: impl Iterator<Item = f64>,
        bootstrap: &Bootstrap,
    ) -> Interval {
        let mut replicates: Vec<f64> = replicates.collect();
        replicates.sort_by(f64::total_cmp);
        let tail = 0.5 * (1.0 - bootstrap.level);
        let (low, high) = (sorted_quantile(&replicates, tail), sorted_quantile(&replicates, 1.0 - tail));
        Interval::new(
            value,
            low.min(value),
            high.max(value),
            bootstrap.level,
            self.seeds_behind(),
            SEED_METHOD,
        )
    }

    /// Smallest number of seeds of any size.
    pub(crate) fn seeds_behind(&self) -> u64 {
        self.points.iter().map(|p| p.errors.len() as u64).min().unwrap_or(0)
    }
}

pub(crate) const SEED_METHOD: &str = "multiplier bootstrap over seeds";

/// Random factors of one replicate, common to all sizes and plans with the same seeds.
pub(crate) struct SeedDraw {
    normals: Vec<f64>,
    /// f / sqrt(K (K - 1)).
    scale: f64,
}

impl SeedDraw {
    pub(crate) fn new(stream: &mut Stream, seeds: usize) -> Self {
        let normals: Vec<f64> = (0..seeds).map(|_| stream.normal()).collect();
        let chi_square: f64 = (1..seeds).map(|_| stream.normal().powi(2)).sum();
        let k = seeds as f64;
        Self { normals, scale: 1.0 / (chi_square * k).sqrt() }
    }

    fn shift(&self, point: &CurvePoint) -> f64 {
        let mean = point.mean();
        let sum: f64 = self.normals.iter().zip(&point.errors).map(|(g, e)| g * (e - mean)).sum();
        // Student's t with one degree of freedom reaches far; the exponential must stay finite.
        mean * (sum * self.scale / mean).clamp(-30.0, 30.0).exp()
    }
}

/// A falling curve through means: pooled where they rise, straight in ln error against ln labels.
pub(crate) struct Monotone {
    ln_labels: Vec<f64>,
    ln_errors: Vec<f64>,
}

impl Monotone {
    pub(crate) fn new(curve: &LearningCurve, means: &[f64]) -> Self {
        let ln_labels: Vec<f64> = curve.points.iter().map(|p| (p.labels as f64).ln()).collect();
        // Pool adjacent violators; blocks of (weight, mean, length).
        let mut blocks: Vec<(f64, f64, usize)> = Vec::new();
        for (point, &mean) in curve.points.iter().zip(means) {
            let mut block = (point.errors.len() as f64, mean, 1);
            while let Some(&(w, m, l)) = blocks.last() {
                if m >= block.1 {
                    break;
                }
                let weight = w + block.0;
                block = (weight, (w * m + block.0 * block.1) / weight, l + block.2);
                blocks.pop();
            }
            blocks.push(block);
        }
        let ln_errors = blocks.iter().flat_map(|&(_, m, l)| std::iter::repeat_n(m.ln(), l)).collect();
        Self { ln_labels, ln_errors }
    }

    pub(crate) fn at(&self, labels: f64) -> Option<f64> {
        let x = labels.ln();
        let last = self.ln_labels.len() - 1;
        // NaN fails both comparisons.
        if !(x >= self.ln_labels[0] && x <= self.ln_labels[last]) {
            return None;
        }
        let right = self.ln_labels.partition_point(|&l| l < x).min(last);
        if right == 0 {
            return Some(self.ln_errors[0].exp());
        }
        let (x0, x1) = (self.ln_labels[right - 1], self.ln_labels[right]);
        let (y0, y1) = (self.ln_errors[right - 1], self.ln_errors[right]);
        Some((y0 + (x - x0) / (x1 - x0) * (y1 - y0)).exp())
    }

    pub(crate) fn position_of(&self, error: f64) -> Position {
        // A rounding of the logarithm must not move a curve off its own points.
        let y = error.ln() + 1e-12;
        let first = self.ln_errors.partition_point(|&e| e > y);
        if first == 0 {
            return Position::BeforeSmallest { smallest: self.ln_labels[0].exp().round() };
        }
        if first == self.ln_errors.len() {
            return Position::AfterLargest { largest: self.ln_labels[first - 1].exp().round() };
        }
        let (x0, x1) = (self.ln_labels[first - 1], self.ln_labels[first]);
        let (y0, y1) = (self.ln_errors[first - 1], self.ln_errors[first]);
        let share = ((y0 - y) / (y0 - y1)).clamp(0.0, 1.0);
        Position::At { labels: (x0 + share * (x1 - x0)).exp() }
    }
}

/// The family of curves that was fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CurveModel {
    /// error(n) = floor + amplitude n^-exponent; needs three sizes.
    PowerLawWithFloor,
    /// error(n) = amplitude n^-exponent, when there are two sizes only.
    PowerLaw,
}

impl CurveModel {
    /// One sentence for a report.
    pub fn describe(self) -> &'static str {
        match self {
            Self::PowerLawWithFloor => "power law with floor, error(n) = floor + a n^-b",
            Self::PowerLaw => "power law without floor (too few sizes for one), error(n) = a n^-b",
        }
    }
}

/// Range of the exponent b in a fit.
pub const EXPONENT_RANGE: (f64, f64) = (0.01, 4.0);

/// A fitted learning curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurveFit {
    /// What was fitted.
    pub model: CurveModel,
    /// Error with unlimited labels, 0 or more; 0 in a power law without floor.
    pub floor: f64,
    /// a, 0 or more.
    pub amplitude: f64,
    /// b, inside [`EXPONENT_RANGE`].
    pub exponent: f64,
    /// Weighted root mean square of (mean error - fit) / mean error.
    pub relative_residual: f64,
    /// The exponent stands at the border of its range: the sizes do not determine it.
    pub exponent_at_bound: bool,
}

impl CurveFit {
    /// Error at `labels`.
    pub fn at(&self, labels: f64) -> f64 {
        self.floor + self.amplitude * labels.powf(-self.exponent)
    }

    /// Labels at which the fit reaches `error`; none at or below the floor, for a flat fit above its error, and
    /// beyond 10^15.
    pub fn labels_for(&self, error: f64) -> Option<f64> {
        let excess = error - self.floor;
        if excess <= 0.0 {
            return None;
        }
        let labels = (self.amplitude / excess).powf(1.0 / self.exponent);
        (labels <= 1e15).then_some(labels)
    }
}

/// A fit with intervals of its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurveFitIntervals {
    /// The fit to the means.
    pub fit: CurveFit,
    /// Floor; none in a power law without floor.
    pub floor: Option<Interval>,
    /// a.
    pub amplitude: Interval,
    /// b.
    pub exponent: Interval,
}

/// How many labels reach a wanted error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum LabelsNeeded {
    /// So many.
    Finite {
        /// Labels in all.
        labels: Interval,
    },
    /// The upper end is open: some of the fits allowed by the seeds never get there.
    AtLeast {
        /// Answer of the central fit, if it gets there.
        value: Option<f64>,
        /// Lower end of the two-sided interval.
        at_least: f64,
        /// Its level.
        level: f64,
    },
    /// The wanted error lies below the floor, for the lower end too.
    Unreachable {
        /// Floor of the central fit.
        floor: f64,
        /// Level of the statement.
        level: f64,
    },
}

/// Variable projection: for each exponent the floor and the amplitude follow from linear least squares with both held
/// at zero or above, so that only the exponent is searched, first on a grid, then by golden section. Deterministic, and
/// without a start value to get wrong.
fn fit_power_law(model: CurveModel, sizes: &[f64], means: &[f64], weights: &[f64]) -> CurveFit {
    let largest = sizes[sizes.len() - 1];
    // In units of the largest size, so that no power leaves the range of numbers.
    let logs: Vec<f64> = sizes.iter().map(|n| (n / largest).ln()).collect();
    let weight: f64 = weights.iter().sum();
    let sy: f64 = weights.iter().zip(means).map(|(w, y)| w * y).sum();
    let syy: f64 = weights.iter().zip(means).map(|(w, y)| w * y * y).sum();
    let inner = |b: f64| -> (f64, f64, f64) {
        let (mut su, mut suu, mut suy) = (0.0, 0.0, 0.0);
        for ((log, w), y) in logs.iter().zip(weights).zip(means) {
            let u = (-b * log).exp();
            su += w * u;
            suu += w * u * u;
            suy += w * u * y;
        }
        let (mut floor, mut amplitude) = (0.0, suy / suu);
        if model == CurveModel::PowerLawWithFloor {
            let determinant = weight * suu - su * su;
            let free = ((suu * sy - su * suy) / determinant, (weight * suy - su * sy) / determinant);
            if free.1 <= 0.0 {
                (floor, amplitude) = (sy / weight, 0.0);
            } else if free.0 > 0.0 {
                (floor, amplitude) = free;
            }
        }
        let residual = |log: f64, y: f64| y - floor - amplitude * (-b * log).exp();
        let loss = logs.iter().zip(weights).zip(means).map(|((l, w), y)| w * residual(*l, *y).powi(2)).sum();
        (loss, floor, amplitude)
    };
    let (low, high) = (EXPONENT_RANGE.0.ln(), EXPONENT_RANGE.1.ln());
    const STEPS: usize = 30;
    let grid = |i: usize| low + (high - low) * i as f64 / STEPS as f64;
    let loss = |ln_b: f64| inner(ln_b.exp()).0;
    let mut best = (0, f64::INFINITY);
    for i in 0..=STEPS {
        let here = loss(grid(i));
        if here < best.1 {
            best = (i, here);
        }
    }
    let (mut a, mut d) = (grid(best.0.saturating_sub(1)), grid((best.0 + 1).min(STEPS)));
    let ratio = 0.5 * (5.0_f64.sqrt() - 1.0);
    let (mut b, mut c) = (d - ratio * (d - a), a + ratio * (d - a));
    let (mut loss_b, mut loss_c) = (loss(b), loss(c));
    // 36 steps narrow two grid steps of 0.2 to 1e-8.
    for _ in 0..36 {
        if loss_b <= loss_c {
            (d, c, loss_c) = (c, b, loss_b);
            b = d - ratio * (d - a);
            loss_b = loss(b);
        } else {
            (a, b, loss_b) = (b, c, loss_c);
            c = a + ratio * (d - a);
            loss_c = loss(c);
        }
    }
    let mut exponent = 0.5 * (a + d);
    if loss(exponent) > best.1 {
        exponent = grid(best.0);
    }
    let at_bound = exponent - low < 1e-6 || high - exponent < 1e-6;
    let exponent = exponent.exp();
    let (loss, floor, amplitude) = inner(exponent);
    let relative_residual = (loss / syy).sqrt();
    CurveFit {
        model,
        floor,
        amplitude: amplitude * largest.powf(exponent),
        exponent,
        relative_residual,
        exponent_at_bound: at_bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(u64, &[f64])]) -> LearningCurve {
        let points = points.iter().map(|&(labels, e)| CurvePoint { labels, errors: e.to_vec() }).collect();
        LearningCurve::new(points).expect("valid")
    }

    fn exact(sizes: &[u64], f: impl Fn(f64) -> f64) -> LearningCurve {
        let points = sizes.iter().map(|&n| CurvePoint { labels: n, errors: vec![f(n as f64); 3] }).collect();
        LearningCurve::new(points).expect("valid")
    }

    #[test]
    fn exact_curves_come_back() {
        for (floor, a, b) in [(0.05, 3.0, 0.5), (0.0, 1.0, 0.3), (0.02, 40.0, 1.1)] {
            for sizes in [&[500_u64, 2000, 8000][..], &[200, 500, 2000, 5000, 20_000]] {
                let fit = exact(sizes, |n| floor + a * n.powf(-b)).fit().expect("valid");
                assert_eq!(fit.model, CurveModel::PowerLawWithFloor);
                assert!((fit.floor - floor).abs() < 1e-5, "{fit:?}");
                assert!(
                    (fit.exponent / b - 1.0).abs() < 1e-3 && (fit.amplitude / a - 1.0).abs() < 1e-2,
                    "{fit:?}"
                );
                assert!(fit.relative_residual < 1e-6);
            }
        }
        let fit = exact(&[100, 1000], |n| 2.0 * n.powf(-0.4)).fit().expect("valid");
        assert_eq!(fit.model, CurveModel::PowerLaw);
        assert!((fit.exponent - 0.4).abs() < 1e-6 && (fit.amplitude - 2.0).abs() < 1e-4);
        assert!((fit.labels_for(fit.at(5e4)).expect("above the floor") / 5e4 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn flat_and_rising_curves_do_not_break_the_fit() {
        let flat = exact(&[100, 1000, 10_000], |_| 0.2).fit().expect("valid");
        assert!((flat.at(1e6) - 0.2).abs() < 1e-3 && flat.labels_for(0.1).is_none());
        let rising = exact(&[100, 1000, 10_000], |n| 0.1 + n * 1e-6).fit().expect("valid");
        assert!(rising.amplitude >= 0.0 && rising.floor > 0.09, "{rising:?}");
    }

    #[test]
    fn interpolation_is_monotone_and_exact_for_power_laws() {
        let law = exact(&[100, 1000, 10_000], |n| n.powf(-0.3));
        for n in [100.0, 250.0, 1000.0, 7000.0, 10_000.0] {
            assert!((law.at(n).expect("inside") - n.powf(-0.3)).abs() < 1e-12);
        }
        assert_eq!((law.at(99.0), law.at(10_001.0), law.at(f64::NAN)), (None, None, None));
        assert!(
            matches!(law.position_of(500_f64.powf(-0.3)), Position::At { labels } if (labels - 500.0).abs() < 1e-6)
        );
        assert_eq!(law.position_of(0.9), Position::BeforeSmallest { smallest: 100.0 });
        assert_eq!(law.position_of(0.01), Position::AfterLargest { largest: 10_000.0 });
        // A bump is pooled.
        let bump = curve(&[(100, &[0.3]), (200, &[0.1]), (400, &[0.2]), (800, &[0.05])]);
        assert!((bump.at(200.0).expect("inside") - 0.15).abs() < 1e-12);
        assert!((bump.at(400.0).expect("inside") - 0.15).abs() < 1e-12);
        assert!(matches!(bump.position_of(0.15), Position::At { labels } if (labels - 200.0).abs() < 1e-3));
    }

    #[test]
    fn what_more_labels_buy() {
        let noisy = |n: f64| 0.05 + 3.0 * n.powf(-0.5);
        let points: Vec<CurvePoint> = [250_u64, 500, 1000, 2000, 4000, 8000]
            .iter()
            .enumerate()
            .map(|(j, &n)| CurvePoint {
                labels: n,
                errors: (0..5)
                    .map(|s| noisy(n as f64) * (1.0 + 0.004 * f64::from((s * 7 + j as i32 * 3) % 5 - 2)))
                    .collect(),
            })
            .collect();
        let curve = LearningCurve::new(points).expect("valid");
        let b = Bootstrap::default();
        let fit = curve.fit_intervals(&b).expect("valid");
        assert!(
            fit.exponent.contains(0.5) && fit.floor.as_ref().is_some_and(|f| f.contains(0.05)),
            "{fit:?}"
        );
        let predicted = curve.predict(&[32_000.0], &b).expect("valid");
        assert!(predicted[0].contains(noisy(32_000.0)), "{predicted:?}");
        assert!(matches!(curve.labels_needed(0.07, &b).expect("valid"),
            LabelsNeeded::Finite { labels } if labels.contains(22_500.0)));
        assert!(matches!(curve.labels_needed(0.01, &b).expect("valid"), LabelsNeeded::Unreachable { .. }));
        assert!(matches!(curve.labels_needed(0.0, &b), Err(StatsError::NotPositive { .. })));
        let json = serde_json::to_string(&curve).expect("finite");
        assert_eq!(serde_json::from_str::<LearningCurve>(&json).expect("reads back"), curve);
    }

    #[test]
    fn hostile_curves_are_refused() {
        let make = |points: &[(u64, &[f64])]| {
            LearningCurve::new(
                points.iter().map(|&(n, e)| CurvePoint { labels: n, errors: e.to_vec() }).collect(),
            )
        };
        assert!(matches!(make(&[]), Err(StatsError::TooFew { .. })));
        assert!(matches!(make(&[(10, &[])]), Err(StatsError::TooFew { .. })));
        assert!(matches!(make(&[(0, &[0.1])]), Err(StatsError::NotPositive { .. })));
        assert!(matches!(
            make(&[(10, &[0.0, 0.0])]),
            Err(StatsError::NotPositive { what: "mean error", .. })
        ));
        assert!(matches!(make(&[(10, &[0.1, f64::NAN])]), Err(StatsError::NotFinite { index: 1, .. })));
        assert!(matches!(make(&[(10, &[0.1, -0.1])]), Err(StatsError::Negative { index: 1, .. })));
        assert!(matches!(make(&[(10, &[0.1]), (10, &[0.2])]), Err(StatsError::BadEdges { .. })));
        let one_seed = make(&[(10, &[0.2]), (20, &[0.1])]).expect("valid");
        assert!(one_seed.fit().is_ok());
        assert!(matches!(one_seed.fit_intervals(&Bootstrap::default()), Err(StatsError::TooFew { .. })));
        assert!(matches!(make(&[(10, &[0.2])]).expect("valid").fit(), Err(StatsError::TooFew { .. })));
    }
}
