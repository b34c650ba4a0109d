//! How good each plan is with so many target jets.

use serde::{Deserialize, Serialize};

use super::{Context, Estimate, Figure, count, decimals_for, increasing, not_empty, percent, picture_width};
use crate::error::ReportError;
use crate::plot::colour::{Paint, plan_styles};
use crate::plot::frame::{ErrorPoint, Layer, Legend, Panel, Plot, Swatch, axis};
use crate::plot::scale::Scale;
use crate::plot::scene::Stroke;
use crate::plot::text::escape;

/// Input of [`data_efficiency`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataEfficiency {
    /// The data.
    pub context: Context,
    /// One picture each.
    pub metrics: Vec<MetricPanel>,
    /// Probability content of the intervals, 0.68 as a rule.
    pub level: f64,
    /// What the intervals are over: `5 seeds`.
    pub over: String,
    /// Jets in the test set.
    pub n_test: u64,
    /// Replaces the caption that the figure writes itself (markup).
    pub caption: Option<String>,
}

/// One metric against the number of target jets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricPanel {
    /// Which metric.
    pub metric: Metric,
    /// A curve for each plan, in the plans' order.
    pub plans: Vec<PlanCurve>,
    /// A score that does not depend on the target size: the source network as it was.
    pub reference: Option<Reference>,
}

/// A metric and how its axis looks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Metric {
    /// Area under the ROC curve.
    Auc,
    /// Share of jets classified rightly.
    Accuracy,
    /// 1/eps_B at a signal efficiency, on a log axis.
    Rejection {
        /// The signal efficiency.
        signal_efficiency: f64,
    },
    /// Any other.
    Named {
        /// Axis title as markup, unit in brackets.
        title: String,
        /// Short name for sentences, plain.
        name: String,
        /// Log axis.
        log: bool,
    },
}

impl Metric {
    fn title(&self) -> String {
        match self {
            Self::Auc => "AUC".to_owned(),
            Self::Accuracy => "accuracy".to_owned(),
            Self::Rejection { signal_efficiency } => {
                format!("1/\\epsilon_{{B}} at \\epsilon_{{S}} = {signal_efficiency}")
            }
            Self::Named { title, .. } => title.clone(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Named { name, .. } => escape(name),
            other => other.title(),
        }
    }

    fn scale(&self) -> Scale {
        match self {
            Self::Rejection { .. } | Self::Named { log: true, .. } => Scale::Log,
            _ => Scale::Linear,
        }
    }
}

/// The scores of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanCurve {
    /// Name of the plan.
    pub plan: String,
    /// Scores by rising target size.
    pub points: Vec<SizePoint>,
    /// A fitted curve (target size, score), drawn instead of straight lines between the points.
    #[serde(default)]
    pub fit: Vec<(f64, f64)>,
}

/// A score at a target size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SizePoint {
    /// Labelled target jets used in training.
    pub target_size: f64,
    /// The score.
    #[serde(flatten)]
    pub score: Estimate,
}

/// A score drawn as a line across.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// What it is, plain: `source, untuned`.
    pub name: String,
    /// The score.
    #[serde(flatten)]
    pub score: Estimate,
}

/// Draws scores against target size, one picture for each metric.
///
/// # Errors
/// Where there is no metric, plan or point, or target sizes do not increase from above zero.
pub fn data_efficiency(input: &DataEfficiency) -> Result<Figure, ReportError> {
    const ITEM: &str = "data efficiency";
    not_empty(ITEM, "metrics", &input.metrics)?;
    let mut pictures = Vec::new();
    for (i, panel) in input.metrics.iter().enumerate() {
        not_empty(ITEM, "plans", &panel.plans)?;
        for curve in &panel.plans {
            let what = format!("points of `{}`", curve.plan);
            not_empty(ITEM, &what, &curve.points)?;
            increasing(ITEM, &what, curve.points.iter().map(|p| p.target_size))?;
            if curve.points[0].target_size <= 0.0 {
                return Err(ReportError::Value {
                    item: ITEM.to_owned(),
                    what: format!("target size of `{}`", curve.plan),
                    found: curve.points[0].target_size,
                    expected: "above zero",
                });
            }
        }
        pictures.push(picture(input, panel, i == 0));
    }
    let caption = input.caption.clone().unwrap_or_else(|| caption(input));
    Ok(Figure { id: "data-efficiency".into(), title: "Data efficiency".into(), caption, pictures })
}

fn picture(input: &DataEfficiency, panel: &MetricPanel, first: bool) -> crate::plot::scene::Scene {
    let styles = plan_styles(&panel.plans.iter().map(|p| p.plan.as_str()).collect::<Vec<_>>());
    let sizes = panel.plans.iter().flat_map(|p| p.points.iter().map(|q| q.target_size));
    let x = axis(Scale::Log, sizes, 0.07, "target jets for training");
    let points = panel.plans.iter().flat_map(|p| p.points.iter().map(|q| q.score));
    let scores = points.chain(panel.reference.as_ref().map(|r| r.score));
    let values = scores.flat_map(|e| [e.value, e.low, e.high]).collect::<Vec<_>>();
    let mut y = axis(panel.metric.scale(), values.into_iter(), 0.08, panel.metric.title());
    if matches!(panel.metric, Metric::Auc | Metric::Accuracy) {
        y.last_tick = 1.0;
    }
    let mut frame = Panel::new(y, 330.0);
    let mut legend = Legend::default();
    if first {
        legend.header.push(format!("{} test jets", count(input.n_test)));
        legend.header.extend(input.context.selection.iter().cloned());
    }
    if let Some(reference) = &panel.reference {
        let stroke = Stroke { dash: crate::plot::colour::Dash::Short, ..Stroke::solid(Paint::Muted, 1.6) };
        frame.layers.push(Layer::Band {
            points: vec![
                (x.low, reference.score.low, reference.score.high),
                (x.high, reference.score.low, reference.score.high),
            ],
            paint: Paint::Muted,
            opacity: 0.15,
        });
        frame.layers.push(Layer::Horizontal { y: reference.score.value, stroke });
        legend.entries.push((Swatch { line: Some(stroke), ..Swatch::default() }, escape(&reference.name)));
    }
    for (curve, style) in panel.plans.iter().zip(&styles) {
        frame.layers.push(Layer::Band {
            points: curve.points.iter().map(|p| (p.target_size, p.score.low, p.score.high)).collect(),
            paint: style.paint,
            opacity: 0.22,
        });
    }
    let n = panel.plans.len() as f64;
    for (k, (curve, style)) in panel.plans.iter().zip(&styles).enumerate() {
        let stroke = Stroke { dash: style.dash, ..Stroke::solid(style.paint, 2.0) };
        let line = if curve.fit.is_empty() {
            curve.points.iter().map(|p| (p.target_size, p.score.value)).collect()
        } else {
            curve.fit.clone()
        };
        frame.layers.push(Layer::Line { points: line, stroke });
        // Bands carry the intervals; bars are for what a band cannot show: one size alone, or an open end.
        let alone = curve.points.len() == 1;
        let dodge = if alone { (1.0 + 0.018 * (k as f64 - (n - 1.0) / 2.0)).max(0.1) } else { 1.0 };
        let points = curve.points.iter().map(|p| {
            let e = p.score;
            let bar = alone || !e.high.is_finite() || !e.value.is_finite();
            let (low, high) = if bar { (e.low, e.high) } else { (e.value, e.value) };
            ErrorPoint { x: p.target_size * dodge, y: e.value, low, high }
        });
        frame.layers.push(Layer::Points {
            points: points.collect(),
            paint: style.paint,
            marker: Some(style.marker),
            opacity: 1.0,
        });
        legend.entries.push((
            Swatch {
                line: Some(stroke),
                marker: Some((style.marker, style.paint)),
                band: Some((style.paint, 0.22)),
                boxed: false,
            },
            escape(&curve.plan),
        ));
    }
    frame.legend = legend;
    let plot = Plot {
        width: picture_width(input.metrics.len()),
        data: input.context.data.clone(),
        note: String::new(),
        x,
        panels: vec![frame],
    };
    let name = crate::plot::text::plain(&crate::plot::text::parse(&panel.metric.name()));
    plot.scene(&format!("{name} against the number of target jets"))
}

/// Compares the plans where labels are scarcest, by the first metric.
fn caption(input: &DataEfficiency) -> String {
    let panel = &input.metrics[0];
    let bands = if input.over.is_empty() {
        format!("bands are {} intervals", percent(input.level))
    } else {
        format!("bands are {} intervals over {}", percent(input.level), escape(&input.over))
    };
    let smallest = panel.plans.iter().map(|p| p.points[0].target_size).fold(f64::INFINITY, f64::min);
    let mut there: Vec<(&str, Estimate)> = panel
        .plans
        .iter()
        .filter(|p| p.points[0].target_size == smallest)
        .map(|p| (p.plan.as_str(), p.points[0].score))
        .filter(|(_, e)| e.value.is_finite())
        .collect();
    there.sort_by(|a, b| b.1.value.total_cmp(&a.1.value));
    let digits = |e: &Estimate| if panel.metric.scale() == Scale::Log { decimals_for(e.value, 3) } else { 3 };
    let one = |(plan, e): &(&str, Estimate)| format!("{} for {}", e.show(digits(e)), escape(plan));
    // A sentence holds three plans; of more, the best and the last.
    let shown = match there.as_slice() {
        [] => String::new(),
        [best, .., last] if there.len() > 3 => format!("lies between {} and {}", one(best), one(last)),
        all => format!("is {}", all.iter().map(one).collect::<Vec<_>>().join(", ")),
    };
    if shown.is_empty() {
        return format!("Score of each plan against the number of labelled target jets; {bands}.");
    }
    format!(
        "With {} target jets, {} {}: the further left a curve reaches a score, the fewer labels its plan needs; {bands}.",
        count(smallest.round() as u64),
        panel.metric.name(),
        shown,
    )
}
