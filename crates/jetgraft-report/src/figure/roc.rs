//! Background rejection against signal efficiency.

use serde::{Deserialize, Serialize};

use super::{Context, Estimate, Figure, count, decimals_for, increasing, not_empty, percent};
use crate::error::ReportError;
use crate::plot::colour::{Dash, Paint, plan_styles};
use crate::plot::frame::{ErrorPoint, Layer, Legend, Panel, Plot, Swatch, guide, linear_range, log_range};
use crate::plot::scale::Axis;
use crate::plot::scene::Stroke;
use crate::plot::text::escape;

/// Input of [`roc`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roc {
    /// The data.
    pub context: Context,
    /// Target jets used in training, for the legend; none leaves it out.
    pub target_size: Option<u64>,
    /// A curve for each plan, in the plans' order.
    pub curves: Vec<RocCurve>,
    /// The plan that the ratio panel divides by; none draws no ratio panel.
    pub reference: Option<String>,
    /// Probability content of the bands.
    pub level: f64,
    /// What the bands are over: `5 seeds`, `bootstrap of the test jets`.
    pub over: String,
    /// Signal jets in the test set.
    pub n_signal: u64,
    /// Background jets in the test set.
    pub n_background: u64,
    /// Below this many background jets above the threshold a curve is drawn faded and dashed.
    pub min_background: f64,
    /// Signal efficiencies marked by a vertical line and, on each curve, a point.
    pub working_points: Vec<f64>,
    /// Replaces the caption that the figure writes itself (markup).
    pub caption: Option<String>,
}

/// The curve of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RocCurve {
    /// Name of the plan.
    pub plan: String,
    /// By rising signal efficiency.
    pub points: Vec<RocPoint>,
    /// Area under the curve, for the legend.
    pub auc: Option<Estimate>,
}

/// A point of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RocPoint {
    /// eps_S.
    pub signal_efficiency: f64,
    /// 1/eps_B with its interval.
    pub rejection: Estimate,
    /// Background jets above the threshold (a mean over seeds need not be whole).
    pub n_background: f64,
    /// Ratio to the reference with its paired interval; where it is missing the figure divides the plan's value and
    /// interval by the reference's value.
    #[serde(default)]
    pub ratio: Option<Estimate>,
}

/// Draws 1/eps_B (log) against eps_S with bands, and the ratio to a reference plan below.
///
/// # Errors
/// Where there is no curve or point, signal efficiencies do not increase, or the reference is no plan of the input.
pub fn roc(input: &Roc) -> Result<Figure, ReportError> {
    const ITEM: &str = "roc";
    not_empty(ITEM, "curves", &input.curves)?;
    for curve in &input.curves {
        let what = format!("points of `{}`", curve.plan);
        not_empty(ITEM, &what, &curve.points)?;
        increasing(ITEM, &what, curve.points.iter().map(|p| p.signal_efficiency))?;
    }
    let reference = match &input.reference {
        None => None,
        Some(name) => {
            let found =
                input.curves.iter().find(|c| c.plan == *name).ok_or_else(|| ReportError::Unknown {
                    item: ITEM.to_owned(),
                    what: "plan",
                    name: name.clone(),
                    known: input.curves.iter().map(|c| c.plan.clone()).collect(),
                })?;
            Some(found)
        }
    };
    let styles = plan_styles(&input.curves.iter().map(|c| c.plan.as_str()).collect::<Vec<_>>());
    let all = || input.curves.iter().flat_map(|c| c.points.iter());
    let (x_low, x_high) = linear_range(all().map(|p| p.signal_efficiency), 0.0);
    let x = Axis::linear(x_low, x_high, "signal efficiency \\epsilon_{S}");
    let (y_low, y_high) = log_range(all().flat_map(|p| [p.rejection.value, p.rejection.low]), 0.03);
    let y = Axis::log(y_low.max(0.9), y_high * 1.15, "background rejection 1/\\epsilon_{B}");
    let mut main = Panel::new(y, if reference.is_some() { 310.0 } else { 350.0 });
    let mut legend = Legend::default();
    legend.header.push(format!(
        "{} signal, {} background jets",
        count(input.n_signal),
        count(input.n_background)
    ));
    legend.header.extend(input.context.selection.iter().cloned());
    if let Some(n) = input.target_size {
        legend.header.push(format!("{} target jets in training", count(n)));
    }
    for point in &input.working_points {
        main.layers.push(Layer::Vertical { x: *point, stroke: guide(Paint::Muted) });
    }
    for (curve, style) in input.curves.iter().zip(&styles) {
        let band = |p: &RocPoint| (p.signal_efficiency, p.rejection.low, p.rejection.high);
        main.layers.push(Layer::Band {
            points: curve.points.iter().map(band).collect(),
            paint: style.paint,
            opacity: 0.2,
        });
    }
    for (curve, style) in input.curves.iter().zip(&styles) {
        let stroke = Stroke { dash: style.dash, ..Stroke::solid(style.paint, 2.0) };
        let line = curve.points.iter().map(|p| (p.signal_efficiency, p.rejection.value, p.n_background));
        push_faded(&mut main, &line.collect::<Vec<_>>(), stroke, input.min_background);
        let auc = curve.auc.map(|e| format!(", AUC {}", super::decimal(e.value, 3))).unwrap_or_default();
        legend.entries.push((
            Swatch { line: Some(stroke), band: Some((style.paint, 0.2)), ..Swatch::default() },
            format!("{}{auc}", escape(&curve.plan)),
        ));
    }
    for (curve, style) in input.curves.iter().zip(&styles) {
        for eps in &input.working_points {
            let Some(y) = at(curve, *eps) else { continue };
            let near = curve.points.partition_point(|p| p.signal_efficiency < *eps);
            let few = curve.points.get(near).is_some_and(|p| p.n_background < input.min_background);
            main.layers.push(Layer::Points {
                points: vec![ErrorPoint { x: *eps, y, low: y, high: y }],
                paint: style.paint,
                marker: Some(style.marker),
                opacity: if few { 0.45 } else { 1.0 },
            });
        }
    }
    main.legend = legend;
    let mut panels = vec![main];
    if let Some(reference) = reference {
        panels.push(ratio_panel(input, reference, &styles));
    }
    let note = reference.map(|r| ratio_title(&r.plan).1).unwrap_or_default();
    let plot = Plot { width: 540.0, data: input.context.data.clone(), note, x, panels };
    let scene = plot.scene("Background rejection against signal efficiency");
    let caption = input.caption.clone().unwrap_or_else(|| caption(input));
    Ok(Figure {
        id: "roc".into(),
        title: "Rejection against efficiency".into(),
        caption,
        pictures: vec![scene],
    })
}

/// A line whose parts with few background jets are thin, faded and dotted.
fn push_faded(panel: &mut Panel, points: &[(f64, f64, f64)], stroke: Stroke, least: f64) {
    let mut start = 0;
    while start < points.len() {
        let few = points[start].2 < least;
        let end = (start..points.len()).find(|i| (points[*i].2 < least) != few).unwrap_or(points.len());
        // One point more, so that the parts meet.
        let part = points[start..(end + 1).min(points.len())].iter().map(|p| (p.0, p.1)).collect();
        let faded = Stroke { dash: Dash::Dotted, opacity: 0.55, width: stroke.width * 0.8, ..stroke };
        panel.layers.push(Layer::Line { points: part, stroke: if few { faded } else { stroke } });
        start = end;
    }
}

/// Title of the ratio panel and, where the plan's name is too long for it, a note above the frame.
fn ratio_title(plan: &str) -> (String, String) {
    let full = format!("ratio to {}", escape(plan));
    if plan.chars().count() <= 10 { (full, String::new()) } else { ("ratio".to_owned(), full) }
}

fn ratio_panel(input: &Roc, reference: &RocCurve, styles: &[crate::plot::colour::PlanStyle]) -> Panel {
    let mut values = Vec::new();
    let mut layers = vec![Layer::Horizontal { y: 1.0, stroke: guide(Paint::Ink) }];
    let mut lines = Vec::new();
    for (curve, style) in input.curves.iter().zip(styles) {
        let points: Vec<(f64, Estimate, f64)> = curve
            .points
            .iter()
            .filter_map(|p| {
                let divided = || {
                    let r = at(reference, p.signal_efficiency)?;
                    Some(Estimate::new(p.rejection.value / r, p.rejection.low / r, p.rejection.high / r))
                };
                Some((p.signal_efficiency, p.ratio.or_else(divided)?, p.n_background))
            })
            .collect();
        values.extend(points.iter().filter(|p| p.2 >= input.min_background).map(|p| p.1));
        // Where few background jets are left the band would cover the panel: the faded line says enough.
        let sure = |n: f64, end: f64| if n >= input.min_background { end } else { f64::NAN };
        layers.push(Layer::Band {
            points: points.iter().map(|(x, e, n)| (*x, sure(*n, e.low), sure(*n, e.high))).collect(),
            paint: style.paint,
            opacity: 0.2,
        });
        lines.push((points, style));
    }
    // The range follows the values where statistics suffice, with bands cut to half as much again.
    let (low, high) = linear_range(values.iter().map(|e| e.value).chain([1.0]), 0.0);
    let reach = (high - low).max(0.1);
    let ends =
        values.iter().flat_map(|e| [e.low, e.high]).map(|v| v.clamp(low - 0.5 * reach, high + 0.5 * reach));
    let (low, high) = linear_range(ends.chain([1.0]), 0.06);
    let mut panel = Panel::new(Axis::linear(low.max(0.0), high, ratio_title(&reference.plan).0), 112.0);
    panel.stretch = false;
    panel.layers = layers;
    for point in &input.working_points {
        panel.layers.push(Layer::Vertical { x: *point, stroke: guide(Paint::Muted) });
    }
    for (points, style) in lines {
        let stroke = Stroke { dash: style.dash, ..Stroke::solid(style.paint, 2.0) };
        let line: Vec<_> = points.iter().map(|(x, e, n)| (*x, e.value, *n)).collect();
        push_faded(&mut panel, &line, stroke, input.min_background);
    }
    panel
}

/// Rejection of a curve at a signal efficiency, interpolated in its logarithm.
fn at(curve: &RocCurve, signal_efficiency: f64) -> Option<f64> {
    let points = &curve.points;
    let value = |i: usize| points.get(i).map(|p| p.rejection.value).filter(|v| v.is_finite() && *v > 0.0);
    let after = points.partition_point(|p| p.signal_efficiency < signal_efficiency - 1e-12);
    let next = points.get(after)?;
    if (next.signal_efficiency - signal_efficiency).abs() <= 1e-12 {
        return value(after);
    }
    let before = after.checked_sub(1)?;
    let (x0, x1) = (points[before].signal_efficiency, next.signal_efficiency);
    let t = (signal_efficiency - x0) / (x1 - x0);
    Some((value(before)?.ln() * (1.0 - t) + value(after)?.ln() * t).exp())
}

fn caption(input: &Roc) -> String {
    // The widest working point has the most background jets.
    let eps = input.working_points.iter().copied().reduce(f64::max).unwrap_or(0.5);
    let shown: Vec<String> = input
        .curves
        .iter()
        .filter_map(|c| at(c, eps).map(|v| (c, super::decimal(v, decimals_for(v, 3)))))
        .map(|(c, v)| format!("{v} for {}", escape(&c.plan)))
        .collect();
    let over = if input.over.is_empty() { String::new() } else { format!(" over {}", escape(&input.over)) };
    let few =
        format!("dotted where fewer than {} background jets pass", super::decimal(input.min_background, 0));
    let bands = format!("bands are {} intervals{over}, {few}", percent(input.level));
    if shown.is_empty() {
        return format!(
            "Background rejection of each plan against signal efficiency: higher is better; {bands}."
        );
    }
    format!(
        "At \\epsilon_{{S}} = {eps} one background jet passes out of {}: higher is better; {bands}.",
        shown.join(", ")
    )
}
