//! Axes: from numbers to a place on the frame, and where the ticks are.

/// How numbers are spread along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// Equal steps, equal distances.
    Linear,
    /// Equal factors, equal distances; positive numbers only.
    Log,
}

/// A labelled tick.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// Where.
    pub value: f64,
    /// Label as markup; empty where ticks are too dense to label each.
    pub label: String,
}

/// The ticks of an axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ticks {
    /// Long, labelled ticks in rising order.
    pub major: Vec<Tick>,
    /// Short ticks in rising order; none coincides with a major one.
    pub minor: Vec<f64>,
    /// A factor common to all labels, such as `×10^{-3}`, shown at the end of the axis.
    pub factor: Option<String>,
}

/// One axis with its range.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Linear or logarithmic.
    pub scale: Scale,
    /// Number at the left or lower end.
    pub low: f64,
    /// Number at the right or upper end.
    pub high: f64,
    /// Title as markup, unit in brackets.
    pub title: String,
    /// No tick stands above this number, even where the axis goes on to make room: 1 for a probability.
    pub last_tick: f64,
    /// True: ticks stand at whole numbers only, for epochs and counts.
    pub whole: bool,
}

impl Axis {
    /// A linear axis. A range that is empty, reversed or not finite is widened to one that can be drawn.
    pub fn linear(low: f64, high: f64, title: impl Into<String>) -> Self {
        let (low, high) = match (low.is_finite(), high.is_finite()) {
            (true, true) if high - low > 1e-12 * low.abs().max(high.abs()).max(1e-300) => (low, high),
            (true, true) if low == high => {
                (low - 0.5 * low.abs().max(1e-9), high + 0.5 * high.abs().max(1e-9))
            }
            (true, true) => (high.min(low) - 0.5, high.max(low) + 0.5),
            (true, false) => (low, low + 1.0),
            (false, true) => (high - 1.0, high),
            (false, false) => (0.0, 1.0),
        };
        Self { scale: Scale::Linear, low, high, title: title.into(), last_tick: f64::INFINITY, whole: false }
    }

    /// A logarithmic axis, with the same care; the lower end is kept above zero.
    pub fn log(low: f64, high: f64, title: impl Into<String>) -> Self {
        let good = |v: f64| v.is_finite() && v > 1e-300;
        let (low, high) = match (good(low), good(high)) {
            (true, true) if high > low * (1.0 + 1e-9) => (low, high),
            (true, _) => (low / 2.0, low * 2.0),
            (false, true) => (high / 1000.0, high),
            (false, false) => (0.1, 10.0),
        };
        Self { scale: Scale::Log, low, high, title: title.into(), last_tick: f64::INFINITY, whole: false }
    }

    /// Where a number lies: 0 at the lower end, 1 at the upper; `None` where it has no place on the axis. Infinities
    /// and, on a log axis, zero lie far outside on their side.
    pub fn position(&self, value: f64) -> Option<f64> {
        if value.is_nan() {
            return None;
        }
        const FAR: f64 = 10.0;
        let fraction = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log if value <= 0.0 => -FAR,
            Scale::Log => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        Some(fraction.clamp(-FAR, FAR))
    }

    /// The number at a place; inverse of [`Self::position`].
    pub fn value(&self, position: f64) -> f64 {
        match self.scale {
            Scale::Linear => self.low + position * (self.high - self.low),
            Scale::Log => self.low * (position * (self.high / self.low).ln()).exp(),
        }
    }

    /// True where the number lies on the axis, ends included.
    pub fn contains(&self, value: f64) -> bool {
        self.position(value).is_some_and(|p| (-1e-9..=1.0 + 1e-9).contains(&p))
    }

    /// Ticks, with at most about `target` labels.
    pub fn ticks(&self, target: usize) -> Ticks {
        let target = target.clamp(2, 20);
        let mut ticks = match self.scale {
            Scale::Linear => linear_ticks(self.low, self.high, target, self.whole),
            Scale::Log => log_ticks(self, target),
        };
        let shown = |value: f64| value <= self.last_tick + 1e-9 * self.last_tick.abs();
        ticks.major.retain(|t| shown(t.value));
        ticks.minor.retain(|v| shown(*v));
        ticks
    }
}

/// Steps of 1, 2 or 5 times a power of ten; four or five short ticks between two long ones.
fn linear_ticks(low: f64, high: f64, target: usize, whole: bool) -> Ticks {
    let raw = ((high - low) / target as f64).max(if whole { 1.0 } else { 0.0 });
    let exponent = raw.log10().floor();
    let magnitude = 10f64.powf(exponent);
    const STEPS: [(f64, i32); 5] = [(0.5, 5), (1.0, 5), (2.0, 4), (5.0, 5), (10.0, 5)];
    let count = |step: f64| ((low / step - 1e-6).ceil() as i64, (high / step + 1e-6).floor() as i64);
    let fitting = STEPS.iter().rposition(|(m, _)| m * magnitude < raw * (1.0 - 1e-9)).map_or(1, |i| i + 1);
    let mut choice = fitting.min(STEPS.len() - 1);
    // Two labels at least: one alone gives no scale.
    while choice > 0 && !whole && count(STEPS[choice].0 * magnitude).1 <= count(STEPS[choice].0 * magnitude).0
    {
        choice -= 1;
    }
    let (mantissa, parts) = STEPS[choice];
    let step = mantissa * magnitude;
    if !step.is_finite() || step <= 0.0 {
        return Ticks::default();
    }
    let (first, last) = count(step);
    if last - first > 100 {
        return Ticks::default();
    }
    let largest = low.abs().max(high.abs());
    let power = if (1e-2..1e5).contains(&largest) { 0 } else { largest.log10().floor() as i32 };
    let decimals = (f64::from(power) - step.log10() - 1e-9).ceil().clamp(0.0, 12.0) as usize;
    let scale = 10f64.powi(power);
    let major = (first..=last)
        .map(|k| {
            let value = k as f64 * step;
            Tick { value, label: number(value / scale, decimals) }
        })
        .collect();
    let small = step / f64::from(parts);
    let (first, last) = count(small);
    let minor = (first..=last).filter(|k| k % i64::from(parts) != 0).map(|k| k as f64 * small);
    let minor = minor.filter(|v| !whole || (v - v.round()).abs() < 1e-6).collect();
    Ticks { major, minor, factor: (power != 0).then(|| format!("×10^{{{}}}", signed(power))) }
}

/// Decades as powers of ten. Where the range holds fewer than two, factors 2 and 5 (or linear ticks, for a range below
/// a factor of about five) are labelled with plain numbers instead.
fn log_ticks(axis: &Axis, target: usize) -> Ticks {
    let (first, last) = (axis.low.log10().floor() as i32, axis.high.log10().ceil() as i32);
    let inside = |value: f64| axis.contains(value);
    let power = |k: i32| 10f64.powi(k);
    let decades: Vec<i32> = (first..=last).filter(|k| inside(power(*k))).collect();
    if decades.len() >= 2 {
        let stride = decades.len().div_ceil(target) as i32;
        let shown = |k: i32| k.rem_euclid(stride) == 0;
        let major = decades
            .iter()
            .filter(|k| shown(**k))
            .map(|k| Tick { value: power(*k), label: format!("10^{{{}}}", signed(*k)) })
            .collect();
        let minor = if stride == 1 {
            (first..=last)
                .flat_map(|k| (2..10).map(move |m| f64::from(m) * power(k)))
                .filter(|v| inside(*v))
                .collect()
        } else {
            decades.iter().filter(|k| !shown(**k)).map(|k| power(*k)).collect()
        };
        return Ticks { major, minor, factor: None };
    }
    let all = (first..=last)
        .flat_map(|k| (1..10).map(move |m| (m, k)))
        .filter(|(m, k)| inside(f64::from(*m) * power(*k)));
    let mut ticks = Ticks::default();
    for (m, k) in all {
        let value = f64::from(m) * power(k);
        if matches!(m, 1 | 2 | 5) {
            let label = if (-3..5).contains(&k) {
                number(value, (-k).max(0) as usize)
            } else {
                format!("{m}×10^{{{}}}", signed(k))
            };
            ticks.major.push(Tick { value, label });
        } else {
            ticks.minor.push(value);
        }
    }
    if ticks.major.len() < 3 {
        let linear = linear_ticks(axis.low, axis.high, target, axis.whole);
        if linear.major.len() > ticks.major.len() {
            ticks = linear;
            ticks.major.retain(|t| t.value > 0.0 && inside(t.value));
            ticks.minor.retain(|v| *v > 0.0 && inside(*v));
        }
    }
    ticks
}

/// A number with a true minus sign and no negative zero.
pub fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.bytes().any(|b| (b'1'..=b'9').contains(&b)) => format!("−{rest}"),
        Some(rest) => rest.to_owned(),
        None => text,
    }
}

fn signed(power: i32) -> String {
    if power < 0 { format!("−{}", power.unsigned_abs()) } else { power.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes() -> Vec<Axis> {
        let mut state = 3u64;
        let mut uniform = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let mut out = Vec::new();
        for _ in 0..3000 {
            let size = 10f64.powf(uniform() * 16.0 - 8.0);
            let low = (uniform() - 0.5) * 2.0 * size;
            out.push(Axis::linear(low, low + size * 10f64.powf(uniform() * 4.0 - 2.0), ""));
            let low = 10f64.powf(uniform() * 16.0 - 8.0);
            out.push(Axis::log(low, low * 10f64.powf(uniform() * 9.0 + 0.05), ""));
        }
        out
    }

    #[test]
    fn ticks_lie_inside_in_order_and_do_not_coincide() {
        for axis in axes() {
            for target in [3, 5, 8] {
                let ticks = axis.ticks(target);
                let values: Vec<f64> = ticks.major.iter().map(|t| t.value).collect();
                assert!(values.len() >= 2 && values.len() <= 2 * target + 3, "{axis:?} {values:?}");
                assert!(values.windows(2).all(|w| w[0] < w[1]), "{axis:?}");
                assert!(ticks.minor.windows(2).all(|w| w[0] < w[1]), "{axis:?}");
                let positions = |v: &f64| axis.position(*v).expect("finite");
                let minor: Vec<f64> = ticks.minor.iter().map(positions).collect();
                for p in values.iter().map(positions) {
                    assert!((-1e-5..=1.0 + 1e-5).contains(&p), "{axis:?}");
                    assert!(minor.iter().all(|q| (p - q).abs() > 1e-6), "{axis:?}");
                }
            }
        }
    }

    #[test]
    fn labels_of_an_axis_differ() {
        for axis in axes() {
            let ticks = axis.ticks(6);
            let mut labels: Vec<&str> = ticks.major.iter().map(|t| t.label.as_str()).collect();
            let n = labels.len();
            labels.sort_unstable();
            labels.dedup();
            assert_eq!(labels.len(), n, "{axis:?}");
        }
    }

    #[test]
    fn linear_ticks_are_equally_spaced() {
        for axis in axes().into_iter().filter(|a| a.scale == Scale::Linear) {
            let values: Vec<f64> = axis.ticks(6).major.iter().map(|t| t.value).collect();
            let step = values[1] - values[0];
            assert!(values.windows(2).all(|w| ((w[1] - w[0]) / step - 1.0).abs() < 1e-6), "{axis:?}");
        }
    }

    #[test]
    fn position_and_value_are_inverse() {
        for axis in axes() {
            for p in [0.0, 0.25, 1.0] {
                assert!((axis.position(axis.value(p)).expect("finite") - p).abs() < 1e-6, "{axis:?}");
            }
        }
    }

    #[test]
    fn known_labels() {
        let labels = |axis: Axis, n| axis.ticks(n).major.into_iter().map(|t| t.label).collect::<Vec<_>>();
        let epochs = Axis { whole: true, ..Axis::linear(0.9, 3.1, "") };
        assert_eq!(labels(epochs, 9), ["1", "2", "3"]);
        let bounded = Axis { last_tick: 1.0, ..Axis::linear(0.8, 1.2, "") };
        assert_eq!(labels(bounded, 4), ["0.8", "0.9", "1.0"]);
        assert_eq!(labels(Axis::linear(0.0, 1.0, ""), 5), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(Axis::linear(-2.0, 2.0, ""), 5), ["−2", "−1", "0", "1", "2"]);
        assert_eq!(
            labels(Axis::log(0.1, 1000.0, ""), 6),
            ["10^{−1}", "10^{0}", "10^{1}", "10^{2}", "10^{3}"]
        );
        assert_eq!(labels(Axis::log(300.0, 4000.0, ""), 6), ["500", "1000", "2000"]);
        let small = Axis::linear(0.0, 0.004, "").ticks(5);
        assert_eq!(small.factor.as_deref(), Some("×10^{−3}"));
        assert_eq!(small.major[1].label, "1");
    }

    #[test]
    fn hopeless_ranges_can_be_drawn() {
        for (low, high) in [
            (f64::NAN, 1.0),
            (1.0, 1.0),
            (0.0, 0.0),
            (5.0, -5.0),
            (f64::INFINITY, f64::NEG_INFINITY),
            (-1.0, 0.0),
        ] {
            for axis in [Axis::linear(low, high, ""), Axis::log(low, high, "")] {
                assert!(axis.low.is_finite() && axis.high.is_finite() && axis.low < axis.high, "{axis:?}");
                assert!(!axis.ticks(5).major.is_empty(), "{axis:?}");
            }
        }
    }
}
