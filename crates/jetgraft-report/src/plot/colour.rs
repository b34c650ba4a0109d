//! Colours, line styles and markers: one fixed look per plan.

/// A colour by its role, so that a page can swap the roles between light and dark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Paint {
    /// Frame, ticks, titles.
    Ink,
    /// Secondary text and reference lines.
    Muted,
    /// The paper.
    Surface,
    /// A data series, by its place in [`SERIES_LIGHT`].
    Series(usize),
    /// A fixed colour: cells of a heat map.
    Rgb(u8, u8, u8),
}

/// The six-colour palette of M. Petroff, "Accessible Color Sequences for Data Visualization" (arXiv:2107.02270), in its
/// published order, which that paper optimised for colour-vision deficiency.
pub const SERIES_LIGHT: [&str; 6] = ["#5790fc", "#f89c20", "#e42536", "#964a8b", "#9c9ca1", "#7a21dd"];

/// The same hues, the dark ones raised so that they stand out on a dark page.
pub const SERIES_DARK: [&str; 6] = ["#6ea1ff", "#f9a836", "#ff5c69", "#cd86c3", "#b4b4ba", "#b385ff"];

/// Ink, muted and surface of the light look, which files always have.
pub const LIGHT: [&str; 3] = ["#16181d", "#5c6370", "#ffffff"];

/// Ink, muted and surface of the dark look.
pub const DARK: [&str; 3] = ["#e9ebf0", "#a3abb8", "#15171c"];

/// Pattern of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dash {
    /// Unbroken.
    Solid,
    /// Long strokes.
    Dashed,
    /// Points.
    Dotted,
    /// Stroke, point.
    DashDot,
    /// Long stroke, two points.
    LongDashDot,
    /// Short strokes.
    Short,
}

impl Dash {
    /// Lengths of stroke and gap in line widths.
    pub fn pattern(self) -> &'static [f64] {
        match self {
            Self::Solid => &[],
            Self::Dashed => &[4.5, 2.2],
            Self::Dotted => &[1.1, 1.7],
            Self::DashDot => &[5.5, 1.8, 1.1, 1.8],
            Self::LongDashDot => &[7.0, 1.6, 1.1, 1.6, 1.1, 1.6],
            Self::Short => &[2.4, 1.8],
        }
    }
}

/// Shape of a data point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Filled circle.
    Circle,
    /// Filled square.
    Square,
    /// Filled triangle on its base.
    Triangle,
    /// Filled square on its corner.
    Diamond,
    /// Filled triangle on its tip.
    Down,
    /// Plus sign.
    Plus,
}

/// How a plan looks in every figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanStyle {
    /// Colour.
    pub paint: Paint,
    /// Line pattern, the second cue.
    pub dash: Dash,
    /// Marker, the second cue of points.
    pub marker: Marker,
}

impl PlanStyle {
    /// The look of a slot; after six the colours return with other patterns.
    pub fn slot(slot: usize) -> Self {
        const DASHES: [Dash; 6] =
            [Dash::Solid, Dash::Dashed, Dash::DashDot, Dash::Dotted, Dash::LongDashDot, Dash::Short];
        const MARKERS: [Marker; 6] =
            [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::Down, Marker::Plus];
        let n = SERIES_LIGHT.len();
        let turn = slot / n;
        Self {
            paint: Paint::Series(slot % n),
            dash: DASHES[(slot + turn) % n],
            marker: MARKERS[(slot + turn) % n],
        }
    }
}

/// Plans in their fixed order. A name is compared without case and punctuation.
const KNOWN_PLANS: [&[&str]; 6] = [
    &["scratch", "fromscratch"],
    &["finetune", "finetuned", "finetuning"],
    &["frozen", "freeze", "frozenbackbone"],
    &["partial", "partiallyfrozen"],
    &["probe", "linearprobe", "probethenfinetune", "linearprobethenfinetune"],
    &["layerwise", "layerwisedecay", "layerwiseratedecay"],
];

/// The look of each plan: a known plan has the same look in every figure whatever stands beside it; others take the
/// slots that are left, in the order in which they come.
pub fn plan_styles<S: AsRef<str>>(plans: &[S]) -> Vec<PlanStyle> {
    let known: Vec<Option<usize>> = plans
        .iter()
        .map(|plan| {
            let key: String =
                plan.as_ref().chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
            KNOWN_PLANS.iter().position(|names| names.contains(&key.as_str()))
        })
        .collect();
    let mut free = (0..).filter(|slot| !known.contains(&Some(*slot)));
    known.iter().map(|slot| PlanStyle::slot(slot.or_else(|| free.next()).unwrap_or(0))).collect()
}

/// A colour scale for heat maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColourMap {
    /// Dark to bright at an even perceptual rate: matplotlib's viridis (CC0) at eleven stops.
    Viridis,
    /// Two hues of equal lightness that meet in a light grey, interpolated in Oklab.
    Diverging,
}

const VIRIDIS: [[u8; 3]; 11] = [
    [0x44, 0x01, 0x54],
    [0x48, 0x24, 0x75],
    [0x41, 0x44, 0x87],
    [0x35, 0x5f, 0x8d],
    [0x2a, 0x78, 0x8e],
    [0x21, 0x91, 0x8c],
    [0x22, 0xa8, 0x84],
    [0x44, 0xbf, 0x70],
    [0x7a, 0xd1, 0x51],
    [0xbd, 0xdf, 0x26],
    [0xfd, 0xe7, 0x25],
];

impl ColourMap {
    /// Colour at a place from 0 to 1; places outside take the end colours.
    pub fn at(self, position: f64) -> Paint {
        let p = if position.is_nan() { 0.0 } else { position.clamp(0.0, 1.0) };
        match self {
            Self::Viridis => {
                let scaled = p * (VIRIDIS.len() - 1) as f64;
                let i = (scaled as usize).min(VIRIDIS.len() - 2);
                let t = scaled - i as f64;
                let mix = |c: usize| {
                    let (a, b) = (f64::from(VIRIDIS[i][c]), f64::from(VIRIDIS[i + 1][c]));
                    (a + t * (b - a)).round() as u8
                };
                Paint::Rgb(mix(0), mix(1), mix(2))
            }
            Self::Diverging => {
                const LOW: [f64; 3] = [0.50, -0.045, -0.145];
                const MIDDLE: [f64; 3] = [0.955, 0.0, 0.0];
                const HIGH: [f64; 3] = [0.50, 0.135, 0.085];
                let (end, t) = if p < 0.5 { (LOW, 1.0 - 2.0 * p) } else { (HIGH, 2.0 * p - 1.0) };
                oklab([0, 1, 2].map(|i| MIDDLE[i] + t * (end[i] - MIDDLE[i])))
            }
        }
    }
}

/// Oklab to sRGB (B. Ottosson, "A perceptual color space for image processing", 2020).
fn oklab([lightness, a, b]: [f64; 3]) -> Paint {
    let l = (lightness + 0.3963377774 * a + 0.2158037573 * b).powi(3);
    let m = (lightness - 0.1055613458 * a - 0.0638541728 * b).powi(3);
    let s = (lightness - 0.0894841775 * a - 1.2914855480 * b).powi(3);
    let byte = |linear: f64| {
        let v = linear.clamp(0.0, 1.0);
        let v = if v <= 0.0031308 { 12.92 * v } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 };
        (v * 255.0).round() as u8
    };
    Paint::Rgb(
        byte(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
        byte(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
        byte(-0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_plan_looks_the_same_in_any_company() {
        let all = plan_styles(&["scratch", "fine-tune", "frozen"]);
        assert_eq!(plan_styles(&["frozen"])[0], all[2]);
        assert_eq!(plan_styles(&["Fine Tune", "mine", "scratch"])[0], all[1]);
        assert_eq!(plan_styles(&["Fine_tune", "mine", "scratch"])[2], all[0]);
    }

    #[test]
    fn styles_differ_and_never_run_out() {
        let names: Vec<String> = (0..30).map(|i| format!("plan {i}")).collect();
        let styles = plan_styles(&names);
        for i in 0..30 {
            for j in 0..i {
                assert_ne!(styles[i], styles[j], "{i} {j}");
            }
        }
    }

    #[test]
    fn viridis_rises_in_lightness() {
        let luma = |p: f64| match ColourMap::Viridis.at(p) {
            Paint::Rgb(r, g, b) => 0.2126 * f64::from(r) + 0.7152 * f64::from(g) + 0.0722 * f64::from(b),
            _ => f64::NAN,
        };
        assert!((0..100).all(|i| luma(f64::from(i + 1) / 100.0) >= luma(f64::from(i) / 100.0) - 0.5));
    }
}
