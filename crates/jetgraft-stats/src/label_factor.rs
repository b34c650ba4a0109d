//! How many times fewer labels does the grafted network need?
//!
//! The label factor at n labels is n / m, where the grafted network reaches with m labels the error that the scratch
//! network has with n: the horizontal distance of the two learning curves on a logarithmic axis.

use crate::bootstrap::{Bootstrap, sorted_quantile};
use crate::curve::{LearningCurve, Monotone, Position, SEED_METHOD, SeedDraw};
use crate::error::{Result, StatsError};
use crate::interval::{Interval, format_level, format_significant};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Label factor, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum LabelFactor {
    /// Fewer labels suffice, and the interval lies above one.
    Gain {
        /// The factor.
        interval: Interval,
    },
    /// A gain whose upper end lies beyond the measured sizes: the grafted network is as good already with its
    /// smallest size, for the central value or for the upper end of the interval.
    Beyond {
        /// Lower end of the interval, above one.
        at_least: f64,
        /// Central value, where it lies inside the measured sizes.
        value: Option<f64>,
        /// Smallest size of the grafted network.
        smallest: f64,
        /// Level of the interval.
        level: f64,
        /// Seeds.
        n: u64,
        /// How it was found.
        method: String,
    },
    /// The interval reaches down to one or below.
    NoSignificantGain {
        /// Central value, where it lies inside the measured sizes.
        value: Option<f64>,
        /// Lower end; none when the grafted network may not get there with its largest size.
        low: Option<f64>,
        /// Upper end; none when it lies beyond the smallest size.
        high: Option<f64>,
        /// Level of the interval.
        level: f64,
        /// Seeds.
        n: u64,
        /// How it was found.
        method: String,
    },
}

impl fmt::Display for LabelFactor {
    /// `3.2 [2.1, 4.8]`, `at least 8`, or `no significant gain`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = |x: f64| format_significant(x, 2);
        match self {
            Self::Gain { interval: i } => {
                write!(f, "{} [{}, {}]", digits(i.value), digits(i.low), digits(i.high))
            }
            Self::Beyond { at_least, level, .. } => {
                write!(f, "at least {} ({} % CL)", digits(*at_least), format_level(*level))
            }
            Self::NoSignificantGain { .. } => f.write_str("no significant gain"),
        }
    }
}

/// How the curves are read between their points.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Between {
    /// Monotone interpolation in ln labels; assumes no shape.
    #[default]
    Interpolation,
    /// The fitted power laws ([`LearningCurve::fit`]); smooths, and is wrong if the shape is. Read inside the
    /// measured sizes of the grafted network only. Where the true floor is near zero the fit holds it there, and the
    /// interval at 0.95 covers about 0.89 (measured in the tests); with a floor clear of zero it covers its level.
    Fit,
}

/// Label factor at the largest size of the scratch network. Interval: multiplier bootstrap over seeds
/// ([`crate::curve`]); seeds are paired between the curves when both have the same number at every size. The finite
/// test set, common to all networks, is not part of it.
///
/// # Errors
/// Fewer than two seeds at a size; one size only with [`Between::Fit`]; fewer than 100 replicates.
pub fn label_factor(
    scratch: &LearningCurve,
    grafted: &LearningCurve,
    between: Between,
    bootstrap: &Bootstrap,
) -> Result<LabelFactor> {
    label_factor_at(scratch, grafted, scratch.largest(), between, bootstrap)
}

/// Label factor at every size of the scratch network: the horizontal distance of the curves.
///
/// # Errors
/// As [`label_factor`].
pub fn label_factors(
    scratch: &LearningCurve,
    grafted: &LearningCurve,
    between: Between,
    bootstrap: &Bootstrap,
) -> Result<Vec<(u64, LabelFactor)>> {
    let sizes = scratch.points().iter().map(|p| p.labels);
    sizes.map(|n| Ok((n, label_factor_at(scratch, grafted, n as f64, between, bootstrap)?))).collect()
}

/// Label factor at any number of labels inside the measured sizes of the scratch network.
///
/// # Errors
/// As [`label_factor`]; a number of labels outside those sizes.
pub fn label_factor_at(
    scratch: &LearningCurve,
    grafted: &LearningCurve,
    labels: f64,
    between: Between,
    bootstrap: &Bootstrap,
) -> Result<LabelFactor> {
    let (low, high) = (scratch.smallest(), scratch.largest());
    if !(labels >= low && labels <= high) {
        return Err(StatsError::OutOfRange {
            what: "labels of the scratch network",
            value: labels,
            low,
            high,
        });
    }
    scratch.check_seeds()?;
    grafted.check_seeds()?;
    if between == Between::Fit {
        scratch.fit()?;
        grafted.fit()?;
    }
    let factor = |scratch_means: &[f64], grafted_means: &[f64]| -> f64 {
        let position = match between {
            Between::Interpolation => {
                let target = Monotone::new(scratch, scratch_means).at(labels).unwrap_or(f64::NAN);
                Monotone::new(grafted, grafted_means).position_of(target)
            }
            Between::Fit => {
                let target = scratch.fit_means(scratch_means).at(labels);
                position_in_fit(grafted, grafted_means, target)
            }
        };
        // Outside the measured sizes only the side is known: infinities sort to the right end and stay there.
        match position {
            Position::At { labels: needed } => labels / needed,
            Position::BeforeSmallest { .. } => f64::INFINITY,
            Position::AfterLargest { .. } => f64::NEG_INFINITY,
        }
    };
    let value = factor(&scratch.means(), &grafted.means());
    let paired = scratch.common_seeds().filter(|&k| grafted.common_seeds() == Some(k));
    let mut replicates = bootstrap.run_each(|stream| {
        let shared = paired.map(|k| SeedDraw::new(stream, k));
        let s = scratch.replicate(stream, shared.as_ref());
        let g = grafted.replicate(stream, shared.as_ref());
        factor(&s, &g)
    })?;
    replicates.sort_by(f64::total_cmp);
    let (level, tail) = (bootstrap.level, 0.5 * (1.0 - bootstrap.level));
    let low = sorted_quantile(&replicates, tail).min(value);
    let high = sorted_quantile(&replicates, 1.0 - tail).max(value);
    let n = scratch.seeds_behind().min(grafted.seeds_behind());
    let pairing = if paired.is_some() { "paired" } else { "unpaired" };
    let reading = match between {
        Between::Interpolation => "monotone interpolation",
        Between::Fit => "fitted power laws",
    };
    let method = format!("{reading}, {SEED_METHOD} ({pairing})");
    let finite = |x: f64| x.is_finite().then_some(x);
    let smallest = grafted.smallest();
    Ok(if low <= 1.0 {
        let (value, low, high) = (finite(value), finite(low), finite(high));
        LabelFactor::NoSignificantGain { value, low, high, level, n, method }
    } else if high.is_finite() {
        LabelFactor::Gain { interval: Interval::new(value, low, high, level, n, method) }
    } else {
        // Even the lower end may be beyond; then all that is known is the smallest size.
        let at_least = finite(low).unwrap_or(labels / smallest);
        if at_least > 1.0 {
            LabelFactor::Beyond { at_least, value: finite(value), smallest, level, n, method }
        } else {
            // The scratch network was read at or below the smallest size of the grafted one.
            LabelFactor::NoSignificantGain {
                value: finite(value),
                low: Some(at_least),
                high: None,
                level,
                n,
                method,
            }
        }
    })
}

/// Where a fitted curve reaches an error, inside the measured sizes.
fn position_in_fit(curve: &LearningCurve, means: &[f64], error: f64) -> Position {
    let (smallest, largest) = (curve.smallest(), curve.largest());
    match curve.fit_means(means).labels_for(error) {
        Some(labels) if labels <= smallest => Position::BeforeSmallest { smallest },
        // The largest size itself is measured; rounding must not push it out.
        Some(labels) if labels <= largest * (1.0 + 1e-9) => Position::At { labels },
        _ => Position::AfterLargest { largest },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::CurvePoint;

    /// Power laws with a small common-mode seed effect.
    fn law(scale: f64, sizes: &[u64], spread: f64) -> LearningCurve {
        let points = sizes
            .iter()
            .map(|&n| CurvePoint {
                labels: n,
                errors: (0..4)
                    .map(|s| scale * (n as f64).powf(-0.4) * (1.0 + spread * (f64::from(s) - 1.5)))
                    .collect(),
            })
            .collect();
        LearningCurve::new(points).expect("valid")
    }

    const SIZES: [u64; 4] = [100, 1000, 10_000, 100_000];

    #[test]
    fn a_shifted_power_law() {
        // Half the error everywhere: 2^(1/0.4) = 5.657 times fewer labels.
        let (scratch, grafted) = (law(1.0, &SIZES, 0.01), law(0.5, &SIZES, 0.01));
        for between in [Between::Interpolation, Between::Fit] {
            let result = label_factor(&scratch, &grafted, between, &Bootstrap::default()).expect("valid");
            let LabelFactor::Gain { interval } = &result else { panic!("{result:?}") };
            assert!((interval.value - 2_f64.powf(2.5)).abs() < 0.01, "{interval:?}");
            // Both curves move together with the seed, so the pairing leaves almost nothing.
            assert!(interval.half_width() < 0.05, "{interval:?}");
            assert!(result.to_string().starts_with("5.7 ["));
        }
        let all =
            label_factors(&scratch, &grafted, Between::Interpolation, &Bootstrap::default()).expect("valid");
        // At the smallest size the grafted curve starts below.
        assert!(matches!(all[0], (100, LabelFactor::NoSignificantGain { high: None, .. })), "{:?}", all[0]);
        assert!(all[1..].iter().all(|(_, f)| matches!(f, LabelFactor::Gain { .. })));
    }

    #[test]
    fn beyond_and_no_gain() {
        let scratch = law(1.0, &SIZES, 0.01);
        let strong = law(0.001, &SIZES, 0.01);
        let result =
            label_factor(&scratch, &strong, Between::Interpolation, &Bootstrap::default()).expect("valid");
        assert!(
            matches!(&result, LabelFactor::Beyond { at_least, value: None, .. } if *at_least == 1000.0),
            "{result:?}"
        );
        assert_eq!(result.to_string(), "at least 1000 (95 % CL)");
        for weak in [law(1.0, &SIZES, 0.03), law(1.3, &SIZES, 0.01)] {
            for between in [Between::Interpolation, Between::Fit] {
                let result = label_factor(&scratch, &weak, between, &Bootstrap::default()).expect("valid");
                assert_eq!(result.to_string(), "no significant gain");
                let json = serde_json::to_string(&result).expect("no infinities");
                assert_eq!(serde_json::from_str::<LabelFactor>(&json).expect("reads back"), result);
            }
        }
    }

    #[test]
    fn hostile_input() {
        let scratch = law(1.0, &SIZES, 0.01);
        let b = Bootstrap::default();
        for labels in [10.0, 1e6, f64::NAN] {
            let result = label_factor_at(&scratch, &scratch, labels, Between::Interpolation, &b);
            assert!(matches!(result, Err(StatsError::OutOfRange { .. })));
        }
        let one_seed = LearningCurve::new(vec![CurvePoint { labels: 100, errors: vec![0.1] }])
            .expect("valid as a curve");
        assert!(matches!(
            label_factor(&scratch, &one_seed, Between::Interpolation, &b),
            Err(StatsError::TooFew { .. })
        ));
        let one_size = law(1.0, &[100], 0.01);
        assert!(matches!(
            label_factor(&scratch, &one_size, Between::Fit, &b),
            Err(StatsError::TooFew { .. })
        ));
    }
}
