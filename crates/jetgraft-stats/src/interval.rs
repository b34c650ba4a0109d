//! How is a number with its uncertainty held and printed?

use serde::{Deserialize, Serialize};
use std::fmt;

/// A value with its confidence interval. Every number that leaves jetgraft has this form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Confidence level, 0.68 or 0.95 for example.
    pub level: f64,
    /// Number of independent things behind it: events, or seeds, as `method` says.
    pub n: u64,
    /// How the ends were found.
    pub method: String,
}

impl Interval {
    /// Puts the parts together.
    pub fn new(value: f64, low: f64, high: f64, level: f64, n: u64, method: impl Into<String>) -> Self {
        Self { value, low, high, level, n, method: method.into() }
    }

    /// Distance from the value to the upper end.
    pub fn plus(&self) -> f64 {
        self.high - self.value
    }

    /// Distance from the value to the lower end.
    pub fn minus(&self) -> f64 {
        self.value - self.low
    }

    /// Half the length of the interval.
    pub fn half_width(&self) -> f64 {
        0.5 * (self.high - self.low)
    }

    /// Whether `x` lies inside, ends included.
    pub fn contains(&self, x: f64) -> bool {
        self.low <= x && x <= self.high
    }

    /// The interval of `f(parameter)` for a monotone `f`; a falling one exchanges the ends.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        let (a, b) = (f(self.low), f(self.high));
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        Self { value: f(self.value), low, high, ..self.clone() }
    }

    /// The interval of `1 - parameter`: error rate from accuracy, and back.
    pub fn complement(&self) -> Self {
        self.map(|x| 1.0 - x)
    }

    /// In per cent, for tables: `93.12 ± 0.21 %`.
    pub fn percent(&self) -> String {
        format!("{} %", self.map(|x| 100.0 * x))
    }

    /// With brackets, for strongly asymmetric intervals: `12.4 [8.1, 21]`.
    pub fn bracket(&self) -> String {
        format_bracket(self.value, self.low, self.high)
    }
}

impl fmt::Display for Interval {
    /// `0.9312 ± 0.0021`, or `0.93 +0.01 -0.02` when the two sides differ after rounding. The alternate form `{:#}`
    /// adds level, number and method.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format_asymmetric(self.value, self.plus(), self.minus()))?;
        if f.alternate() {
            write!(f, " ({} % CL, n = {}, {})", format_level(self.level), self.n, self.method)?;
        }
        Ok(())
    }
}

/// Level in per cent without trailing zeros: `95`, `68.27`.
pub fn format_level(level: f64) -> String {
    let text = format!("{:.2}", 100.0 * level);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Number of decimals that an uncertainty deserves (negative: tens, hundreds), after the rule of the Particle Data
/// Group: three leading digits 100 to 354 keep two digits, 355 to 949 one, 950 to 999 round up to 1000 and keep two.
///
/// Source: PDG, Review of Particle Physics, Introduction, section 5.3.
pub fn decimals_for(uncertainty: f64) -> i32 {
    if !uncertainty.is_finite() || uncertainty <= 0.0 {
        return 4;
    }
    let exponent = uncertainty.log10().floor() as i32;
    let leading = (uncertainty / 10_f64.powi(exponent - 2)).round();
    // From 950 on the number rounds up by a power of ten, 0.0097 to 0.010, and its second digit stands where the
    // first one stood.
    if leading < 355.0 { 1 - exponent } else { -exponent }
}

/// `value` with a fixed number of decimals; negative numbers of decimals round to tens, hundreds and so on.
pub fn format_decimals(value: f64, decimals: i32) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "undefined".into()
        } else if value > 0.0 {
            "inf".into()
        } else {
            "-inf".into()
        };
    }
    let text = if decimals >= 0 {
        format!("{value:.*}", decimals.min(15) as usize)
    } else {
        let unit = 10_f64.powi(-decimals);
        format!("{:.0}", (value / unit).round() * unit)
    };
    // No negative zero in a table.
    if text.starts_with('-') && !text.bytes().any(|b| b.is_ascii_digit() && b != b'0') {
        text[1..].to_string()
    } else {
        text
    }
}

/// `value` with so many significant digits, without an exponent.
pub fn format_significant(value: f64, digits: u32) -> String {
    if value == 0.0 || !value.is_finite() {
        return format_decimals(value, 0);
    }
    let exponent = value.abs().log10().floor() as i32;
    format_decimals(value, digits as i32 - 1 - exponent)
}

/// `0.9312 ± 0.0021`; the uncertainty sets the rounding ([`decimals_for`]).
pub fn format_symmetric(value: f64, uncertainty: f64) -> String {
    let decimals = decimals_for(uncertainty);
    let width = if uncertainty == 0.0 { "0".to_string() } else { format_decimals(uncertainty, decimals) };
    format!("{} ± {width}", format_decimals(value, decimals))
}

/// `0.931 +0.012 -0.021`, or the symmetric form when both sides round to the same. The smaller side that is not
/// zero sets the rounding.
pub fn format_asymmetric(value: f64, plus: f64, minus: f64) -> String {
    let smaller = match (plus > 0.0, minus > 0.0) {
        (true, true) => plus.min(minus),
        _ => plus.max(minus),
    };
    let decimals = decimals_for(smaller);
    let (up, down) = (format_decimals(plus, decimals), format_decimals(minus, decimals));
    if up == down {
        return format_symmetric(value, plus.max(minus));
    }
    format!("{} +{up} -{down}", format_decimals(value, decimals))
}

/// `1785.7 [1240, 2690]`: value with at least three significant digits and one decimal, ends with three digits.
pub fn format_bracket(value: f64, low: f64, high: f64) -> String {
    format!("{} [{}, {}]", format_point(value), format_significant(low, 3), format_significant(high, 3))
}

/// A positive number for a table: one decimal from 10 to 10 000, integer above, three significant digits below.
pub(crate) fn format_point(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => format_decimals(value, 0),
        v if v >= 10.0 => format_decimals(value, 1),
        _ => format_significant(value, 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_follows_the_uncertainty() {
        assert_eq!(format_symmetric(0.931_234, 0.002_14), "0.9312 ± 0.0021");
        assert_eq!(format_symmetric(0.931_234, 0.004_14), "0.931 ± 0.004");
        assert_eq!(format_symmetric(0.931_234, 0.009_71), "0.931 ± 0.010");
        assert_eq!(format_symmetric(1785.7, 312.0), "1790 ± 310");
        assert_eq!(format_symmetric(1785.7, 700.0), "1800 ± 700");
        assert_eq!(format_symmetric(0.5, 0.0), "0.5000 ± 0");
        assert_eq!(format_asymmetric(0.93, 0.0104, 0.0206), "0.930 +0.010 -0.021");
        assert_eq!(format_asymmetric(0.0, 0.0104, 0.0), "0.000 +0.010 -0.000");
        assert_eq!(format_decimals(-0.000_01, 2), "0.00");
        assert_eq!(format_significant(16_683.3, 3), "16700");
        assert_eq!(format_bracket(1785.714, 1236.0, 2686.9), "1785.7 [1240, 2690]");
        assert_eq!(format_level(0.6827), "68.27");
        assert_eq!(format_level(0.95), "95");
    }

    #[test]
    fn display_and_maps() {
        let interval = Interval::new(0.9, 0.88, 0.92, 0.95, 1000, "Wilson");
        assert_eq!(interval.to_string(), "0.900 ± 0.020");
        assert_eq!(format!("{interval:#}"), "0.900 ± 0.020 (95 % CL, n = 1000, Wilson)");
        assert_eq!(interval.percent(), "90.0 ± 2.0 %");
        let error = interval.complement();
        assert!(error.low < error.value && error.value < error.high && error.contains(0.1));
        let json = serde_json::to_string(&interval).expect("finite numbers serialise");
        assert_eq!(serde_json::from_str::<Interval>(&json).expect("what was written reads"), interval);
    }
}
