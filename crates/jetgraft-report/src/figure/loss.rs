//! Training and validation loss by epoch.

use serde::{Deserialize, Serialize};

use super::{Context, Estimate, Figure, count, increasing, not_empty, percent};
use crate::error::ReportError;
use crate::plot::colour::{Dash, Marker, Paint, plan_styles};
use crate::plot::frame::{ErrorPoint, Layer, Legend, Panel, Plot, Swatch, axis, linear_range};
use crate::plot::scale::{Axis, Scale};
use crate::plot::scene::Stroke;
use crate::plot::text::escape;

/// Input of [`loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// The data.
    pub context: Context,
    /// A pair of curves for each plan, in the plans' order.
    pub curves: Vec<LossCurve>,
    /// What the loss is, as markup: `cross-entropy`.
    pub title: String,
    /// Linear or log axis.
    pub scale: Scale,
    /// Target jets used in training, for the legend.
    pub target_size: Option<u64>,
    /// Probability content of the bands.
    pub level: f64,
    /// What the bands are over: `5 seeds`.
    pub over: String,
    /// Replaces the caption that the figure writes itself (markup).
    pub caption: Option<String>,
}

/// The curves of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossCurve {
    /// Name of the plan.
    pub plan: String,
    /// Training loss by rising epoch; may be empty.
    pub training: Vec<EpochPoint>,
    /// Validation loss by rising epoch; may be empty.
    pub validation: Vec<EpochPoint>,
    /// The epoch whose weights were kept (a mean over seeds need not be whole).
    pub chosen_epoch: Option<f64>,
}

/// The loss at an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochPoint {
    /// Epochs finished.
    pub epoch: f64,
    /// Mean over seeds and its band.
    #[serde(flatten)]
    pub loss: Estimate,
}

/// Draws validation loss (solid, with band) and training loss (dashed) against epoch.
///
/// # Errors
/// Where there is no curve, a plan has neither training nor validation points, or epochs do not increase.
pub fn loss(input: &Loss) -> Result<Figure, ReportError> {
    const ITEM: &str = "loss";
    not_empty(ITEM, "curves", &input.curves)?;
    for curve in &input.curves {
        let what = format!("points of `{}`", curve.plan);
        if curve.training.is_empty() {
            not_empty(ITEM, &what, &curve.validation)?;
        }
        increasing(ITEM, &what, curve.training.iter().map(|p| p.epoch))?;
        increasing(ITEM, &what, curve.validation.iter().map(|p| p.epoch))?;
    }
    let styles = plan_styles(&input.curves.iter().map(|c| c.plan.as_str()).collect::<Vec<_>>());
    let all = || input.curves.iter().flat_map(|c| c.training.iter().chain(&c.validation));
    let (x_low, x_high) = linear_range(all().map(|p| p.epoch), 0.03);
    let x = Axis { whole: true, ..Axis::linear(x_low, x_high, "epoch") };
    // A diverging band would flatten the curves: values set the range, bands are cut to it.
    let (low, high) = linear_range(all().map(|p| p.loss.value), 0.25);
    let ends = all().flat_map(|p| [p.loss.value, p.loss.low.max(low), p.loss.high.min(high)]);
    let y = axis(input.scale, ends.collect::<Vec<_>>().into_iter(), 0.05, input.title.clone());
    let mut panel = Panel::new(y, 330.0);
    let mut legend = Legend { header: input.context.selection.clone(), ..Legend::default() };
    if let Some(n) = input.target_size {
        legend.header.push(format!("{} target jets in training", count(n)));
    }
    for (curve, style) in input.curves.iter().zip(&styles) {
        panel.layers.push(Layer::Band {
            points: curve.validation.iter().map(|p| (p.epoch, p.loss.low, p.loss.high)).collect(),
            paint: style.paint,
            opacity: 0.2,
        });
    }
    let solid = |paint| Stroke::solid(paint, 2.0);
    let dashed = |paint| Stroke { dash: Dash::Short, opacity: 0.9, ..Stroke::solid(paint, 1.5) };
    let line = |points: &[EpochPoint]| points.iter().map(|p| (p.epoch, p.loss.value)).collect::<Vec<_>>();
    for (curve, style) in input.curves.iter().zip(&styles) {
        panel.layers.push(Layer::Line { points: line(&curve.training), stroke: dashed(style.paint) });
        panel.layers.push(Layer::Line { points: line(&curve.validation), stroke: solid(style.paint) });
    }
    let mut any_chosen = false;
    for (curve, style) in input.curves.iter().zip(&styles) {
        let shown = if curve.validation.is_empty() { &curve.training } else { &curve.validation };
        let chosen = curve.chosen_epoch.and_then(|epoch| Some((epoch, at(shown, epoch)?)));
        any_chosen |= chosen.is_some();
        panel.layers.push(Layer::Points {
            points: chosen.iter().map(|(x, y)| ErrorPoint { x: *x, y: *y, low: *y, high: *y }).collect(),
            paint: style.paint,
            marker: Some(style.marker),
            opacity: 1.0,
        });
        legend.entries.push((
            Swatch {
                line: Some(solid(style.paint)),
                marker: chosen.map(|_| (style.marker, style.paint)),
                band: Some((style.paint, 0.2)),
                boxed: false,
            },
            escape(&curve.plan),
        ));
    }
    let key = |line: Option<Stroke>, marker: Option<(Marker, Paint)>, text: &str| {
        (Swatch { line, marker, ..Swatch::default() }, text.to_owned())
    };
    if input.curves.iter().any(|c| !c.validation.is_empty()) {
        legend.entries.push(key(Some(solid(Paint::Ink)), None, "validation"));
    }
    if input.curves.iter().any(|c| !c.training.is_empty()) {
        legend.entries.push(key(Some(dashed(Paint::Ink)), None, "training"));
    }
    panel.legend = legend;
    let plot =
        Plot { width: 540.0, data: input.context.data.clone(), note: String::new(), x, panels: vec![panel] };
    let caption = input.caption.clone().unwrap_or_else(|| {
        let over =
            if input.over.is_empty() { String::new() } else { format!(" of {}", escape(&input.over)) };
        let marks = if any_chosen { "; a marker shows the epoch whose weights were kept" } else { "" };
        format!(
            "Validation loss (solid) against training loss (dashed) by epoch: a plan over-fits where they part; bands hold {}{over}{marks}.",
            percent(input.level)
        )
    });
    let scene = plot.scene("Training and validation loss against epoch");
    Ok(Figure { id: "loss".into(), title: "Loss".into(), caption, pictures: vec![scene] })
}

/// The loss at an epoch, linear between the points.
fn at(points: &[EpochPoint], epoch: f64) -> Option<f64> {
    let after = points.partition_point(|p| p.epoch < epoch);
    match (after.checked_sub(1).and_then(|i| points.get(i)), points.get(after)) {
        (_, Some(next)) if next.epoch == epoch => Some(next.loss.value),
        (Some(a), Some(b)) => {
            Some(a.loss.value + (epoch - a.epoch) / (b.epoch - a.epoch) * (b.loss.value - a.loss.value))
        }
        _ => None,
    }
}
