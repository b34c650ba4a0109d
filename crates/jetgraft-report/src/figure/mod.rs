//! The figures of a report: one file each, from a typed input to a [`Figure`].

mod data_efficiency;
mod loss;
mod lund_plane;
mod mass_sculpting;
mod roc;
mod scores;

pub use data_efficiency::{
    DataEfficiency, Metric, MetricPanel, PlanCurve, Reference, SizePoint, data_efficiency,
};
pub use loss::{EpochPoint, Loss, LossCurve, loss};
pub use lund_plane::{LundClass, LundPlane, LundRatio, lund_plane};
pub use mass_sculpting::{MassCut, MassSculpting, mass_sculpting};
pub use roc::{Roc, RocCurve, RocPoint, roc};
pub use scores::{ScorePlan, Scores, scores};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::ReportError;
use crate::plot::scene::Scene;
use crate::plot::{png, svg, text};

/// A number with its interval. An end may be infinite (a one-sided limit): JSON then holds `"inf"` or `"-inf"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Central value.
    #[serde(with = "number")]
    pub value: f64,
    /// Lower end.
    #[serde(with = "number")]
    pub low: f64,
    /// Upper end.
    #[serde(with = "number")]
    pub high: f64,
}

impl Estimate {
    /// A number with its interval.
    pub fn new(value: f64, low: f64, high: f64) -> Self {
        Self { value, low, high }
    }

    /// `0.951 [0.948, 0.954]`; `> 812` where only a lower limit exists.
    pub fn show(&self, decimals: usize) -> String {
        let show = |v: f64| decimal(v, decimals);
        if !self.value.is_finite() && self.low.is_finite() {
            return format!("> {}", show(self.low));
        }
        if !self.value.is_finite() {
            return "–".to_owned();
        }
        if !(self.low.is_finite() || self.high.is_finite()) {
            return show(self.value);
        }
        let end = |v: f64| if v == f64::INFINITY { "∞".to_owned() } else { show(v) };
        format!("{} [{}, {}]", show(self.value), end(self.low), end(self.high))
    }
}

/// Floating-point numbers that JSON can hold even when they are not finite: as `"inf"`, `"-inf"`, `"nan"`.
mod number {
    use super::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Shown {
        Number(f64),
        Word(String),
    }

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            serializer.serialize_f64(*value)
        } else if value.is_nan() {
            serializer.serialize_str("nan")
        } else {
            serializer.serialize_str(if *value > 0.0 { "inf" } else { "-inf" })
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Shown::deserialize(deserializer)? {
            Shown::Number(value) => Ok(value),
            Shown::Word(word) => match word.as_str() {
                "inf" => Ok(f64::INFINITY),
                "-inf" => Ok(f64::NEG_INFINITY),
                "nan" => Ok(f64::NAN),
                other => Err(serde::de::Error::custom(format!(
                    "expected a number, `inf`, `-inf` or `nan`, found `{other}`"
                ))),
            },
        }
    }
}

/// What every figure says about the data it shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    /// What the data are, behind the name at the top left, as plain text: `simulation, 13 TeV`.
    pub data: String,
    /// The selection, one line of markup each: `\it{R} = 1.0, \it{p}_{T} > 500 GeV`.
    pub selection: Vec<String>,
}

/// A finished figure: one or more pictures side by side, with a caption.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Name of its files and its anchor on the page: letters, digits, hyphens.
    pub id: String,
    /// Short name, as a heading.
    pub title: String,
    /// One sentence (markup) that says what to see.
    pub caption: String,
    /// The pictures. A page puts them side by side or under one another as its width allows.
    pub pictures: Vec<Scene>,
}

/// Distance between pictures in a file.
const GAP: f64 = 18.0;

/// Pictures side by side in a file.
fn columns(pictures: usize) -> usize {
    match pictures {
        0..=3 => pictures,
        4 => 2,
        _ => 3,
    }
}

/// Width of a picture, by how many stand side by side.
fn picture_width(pictures: usize) -> f64 {
    if columns(pictures) > 2 { 440.0 } else { 540.0 }
}

impl Figure {
    /// The file: all pictures, light, text as outlines.
    pub fn svg(&self) -> String {
        let (mut x, mut y, mut row_height) = (0.0f64, 0.0, 0.0f64);
        let mut width = 0.0f64;
        let mut placed = Vec::new();
        for (i, scene) in self.pictures.iter().enumerate() {
            if i > 0 && i.is_multiple_of(columns(self.pictures.len())) {
                (x, y, row_height) = (0.0, y + row_height + GAP, 0.0);
            }
            placed.push((scene, x, y));
            width = width.max(x + scene.width);
            row_height = row_height.max(scene.height);
            x += scene.width + GAP;
        }
        let size = (width, y + row_height);
        svg::write(&placed, size, &self.id, &self.title, &self.description(), svg::Look::File)
    }

    /// Each picture for a page, whose style sheet gives colours and font, with its natural width.
    pub fn page_svgs(&self) -> Vec<(String, f64)> {
        self.pictures
            .iter()
            .enumerate()
            .map(|(i, scene)| {
                let id = format!("{}-{}", self.id, i + 1);
                let size = (scene.width, scene.height);
                let shown = svg::write(
                    &[(scene, 0.0, 0.0)],
                    size,
                    &id,
                    &scene.title,
                    &self.description(),
                    svg::Look::Page,
                );
                (shown, scene.width)
            })
            .collect()
    }

    /// The file as pixels, `scale` to a unit.
    ///
    /// # Errors
    /// [`ReportError::Raster`] where the scale gives a picture that cannot be.
    pub fn png(&self, scale: f64) -> Result<Vec<u8>, ReportError> {
        png::render(&self.id, &self.svg(), scale)
    }

    /// The caption without markup.
    pub fn description(&self) -> String {
        text::plain(&text::parse(&self.caption))
    }
}

/// Whole numbers with thin groups of three: `20,000`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A number with a fixed count of decimals, groups of three and a true minus sign.
pub fn decimal(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return if value == f64::INFINITY { "∞".to_owned() } else { "–".to_owned() };
    }
    let text = crate::plot::scale::number(value, decimals);
    let (sign, rest) = match text.strip_prefix('−') {
        Some(rest) => ("−", rest),
        None => ("", text.as_str()),
    };
    let (whole, fraction) = rest.split_once('.').map_or((rest, None), |(a, b)| (a, Some(b)));
    let whole = whole.parse::<u64>().map_or_else(|_| whole.to_owned(), count);
    match fraction {
        Some(fraction) => format!("{sign}{whole}.{fraction}"),
        None => format!("{sign}{whole}"),
    }
}

/// Decimals that show `digits` significant digits of a number.
pub fn decimals_for(value: f64, digits: i32) -> usize {
    if value == 0.0 || !value.is_finite() {
        return 0;
    }
    (digits - 1 - value.abs().log10().floor() as i32).clamp(0, 9) as usize
}

fn not_empty<T>(item: &str, what: &str, list: &[T]) -> Result<(), ReportError> {
    if list.is_empty() {
        return Err(ReportError::Empty { item: item.to_owned(), what: what.to_owned() });
    }
    Ok(())
}

fn same_length(item: &str, what: &str, found: usize, expected: usize) -> Result<(), ReportError> {
    if found != expected {
        return Err(ReportError::Length { item: item.to_owned(), what: what.to_owned(), found, expected });
    }
    Ok(())
}

fn increasing(item: &str, what: &str, values: impl IntoIterator<Item = f64>) -> Result<(), ReportError> {
    let mut last = f64::NEG_INFINITY;
    for (index, value) in values.into_iter().enumerate() {
        if !(value.is_finite() && value > last) {
            return Err(ReportError::NotIncreasing { item: item.to_owned(), what: what.to_owned(), index });
        }
        last = value;
    }
    Ok(())
}

fn counts(item: &str, what: &str, values: &[f64]) -> Result<f64, ReportError> {
    if let Some(found) = values.iter().copied().find(|v| !(v.is_finite() && *v >= 0.0)) {
        return Err(ReportError::Value {
            item: item.to_owned(),
            what: what.to_owned(),
            found,
            expected: "a count, zero or more",
        });
    }
    let total: f64 = values.iter().sum();
    if total <= 0.0 {
        return Err(ReportError::Empty { item: item.to_owned(), what: what.to_owned() });
    }
    Ok(total)
}

fn edges(item: &str, what: &str, values: &[f64]) -> Result<usize, ReportError> {
    if values.len() < 2 {
        return Err(ReportError::Empty { item: item.to_owned(), what: what.to_owned() });
    }
    increasing(item, what, values.iter().copied())?;
    Ok(values.len() - 1)
}

/// The share of an interval in words: `68 %`.
fn percent(level: f64) -> String {
    format!("{} %", decimal(level * 100.0, if (level * 100.0).fract().abs() < 0.05 { 0 } else { 1 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_for_people() {
        assert_eq!(count(1234567), "1,234,567");
        assert_eq!(decimal(-12345.678, 1), "−12,345.7");
        assert_eq!(decimal(-0.0001, 2), "0.00");
        assert_eq!(Estimate::new(0.5, 0.4, 0.6).show(2), "0.50 [0.40, 0.60]");
        assert_eq!(Estimate::new(f64::INFINITY, 812.0, f64::INFINITY).show(0), "> 812");
        assert_eq!(decimals_for(123.0, 3), 0);
        assert_eq!(decimals_for(0.0123, 2), 3);
        assert_eq!(percent(0.68), "68 %");
    }

    #[test]
    fn estimates_survive_json() {
        let limit = Estimate::new(f64::INFINITY, 3.0, f64::INFINITY);
        let text = serde_json::to_string(&limit).expect("json");
        assert_eq!(text, r#"{"value":"inf","low":3.0,"high":"inf"}"#);
        assert_eq!(serde_json::from_str::<Estimate>(&text).expect("json"), limit);
    }
}
