//! Distributions of the score for signal and background.

use serde::{Deserialize, Serialize};

use super::{
    Context, Estimate, Figure, count, counts, decimal, edges, not_empty, picture_width, same_length,
};
use crate::error::ReportError;
use crate::plot::colour::{Dash, Paint, plan_styles};
use crate::plot::frame::{Layer, Legend, Panel, Plot, Swatch, axis};
use crate::plot::scale::{Axis, Scale};
use crate::plot::scene::Stroke;
use crate::plot::text::escape;

/// Input of [`scores`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The data.
    pub context: Context,
    /// Bin edges of the score, the same for all plans.
    pub edges: Vec<f64>,
    /// One picture for each plan, in the plans' order.
    pub plans: Vec<ScorePlan>,
    /// Name of the signal class, plain: `top`.
    pub signal: String,
    /// Name of the background class, plain: `QCD`.
    pub background: String,
    /// Linear or log axis.
    pub scale: Scale,
    /// Replaces the caption that the figure writes itself (markup).
    pub caption: Option<String>,
}

/// The histograms of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScorePlan {
    /// Name of the plan.
    pub plan: String,
    /// Signal jets in each bin.
    pub signal: Vec<f64>,
    /// Background jets in each bin.
    pub background: Vec<f64>,
    /// Area under the ROC curve, for the legend.
    pub auc: Option<Estimate>,
}

/// Draws normalised score histograms, one picture for each plan on common axes. Bands are the square root of the count.
///
/// # Errors
/// Where there is no plan or no jet in a class, edges do not increase, a histogram has another length, or a count is
/// negative.
pub fn scores(input: &Scores) -> Result<Figure, ReportError> {
    const ITEM: &str = "scores";
    not_empty(ITEM, "plans", &input.plans)?;
    let n_bins = edges(ITEM, "edges", &input.edges)?;
    let styles = plan_styles(&input.plans.iter().map(|p| p.plan.as_str()).collect::<Vec<_>>());
    let mut shapes = Vec::new();
    for plan in &input.plans {
        let mut shape = Vec::new();
        for (class, values) in [(&input.signal, &plan.signal), (&input.background, &plan.background)] {
            let what = format!("{class} jets of `{}`", plan.plan);
            same_length(ITEM, &what, values.len(), n_bins)?;
            let total = counts(ITEM, &what, values)?;
            shape.push((density(&input.edges, values, total), total));
        }
        shapes.push(shape);
    }
    let heights =
        || shapes.iter().flatten().flat_map(|(d, _)| d.iter().map(|(v, _)| *v)).filter(|v| *v > 0.0);
    let highest = heights().fold(0.0, f64::max);
    let title = "normalised / unit score";
    let y = match input.scale {
        Scale::Log => axis(
            Scale::Log,
            heights().flat_map(|v| [v, 0.6 * v]).collect::<Vec<_>>().into_iter(),
            0.06,
            title,
        ),
        Scale::Linear => Axis::linear(0.0, highest * 1.05, title),
    };
    let x = Axis::linear(input.edges[0], input.edges[n_bins], format!("{} score", escape(&input.signal)));
    let width = picture_width(input.plans.len());

    let mut panels = Vec::new();
    for ((plan, style), shape) in input.plans.iter().zip(&styles).zip(&shapes) {
        let mut panel = Panel::new(y.clone(), 300.0);
        let solid = Stroke::solid(style.paint, 2.0);
        let dashed = Stroke { dash: Dash::Short, ..Stroke::solid(Paint::Ink, 1.6) };
        let [(signal, n_signal), (background, n_background)] = shape.as_slice() else { continue };
        for (values, stroke, fill, paint) in
            [(signal, solid, Some((style.paint, 0.18)), style.paint), (background, dashed, None, Paint::Ink)]
        {
            panel.layers.push(Layer::StepBand {
                edges: input.edges.clone(),
                ranges: values.iter().map(|(v, e)| (v - e, v + e)).collect(),
                paint,
                opacity: 0.25,
            });
            panel.layers.push(Layer::Steps {
                edges: input.edges.clone(),
                values: values.iter().map(|(v, _)| *v).collect(),
                stroke,
                fill,
                closed: true,
            });
        }
        let auc = plan.auc.map(|e| format!(", AUC {}", decimal(e.value, 3))).unwrap_or_default();
        let mut header = vec![format!("\\bf{{{}}}{auc}", escape(&plan.plan))];
        header.extend(input.context.selection.iter().cloned());
        let named = |name: &str, n: f64| format!("{}, {} jets", escape(name), count(n.round() as u64));
        let swatch = |line, band| Swatch { line: Some(line), band, boxed: true, marker: None };
        panel.legend = Legend {
            header,
            entries: vec![
                (swatch(solid, Some((style.paint, 0.25))), named(&input.signal, *n_signal)),
                (swatch(dashed, None), named(&input.background, *n_background)),
            ],
        };
        panels.push((plan, panel));
    }
    let scenes: Vec<_> = panels
        .into_iter()
        .map(|(plan, panel)| {
            let plot = Plot {
                width,
                data: input.context.data.clone(),
                note: String::new(),
                x: x.clone(),
                panels: vec![panel],
            };
            plot.scene(&format!("Score of {} and {} jets, {}", input.signal, input.background, plan.plan))
        })
        .collect();
    let caption = input.caption.clone().unwrap_or_else(|| {
        format!(
            "Score of {} (filled) and {} (dashed) test jets, each normalised to one: the less they overlap, the better a plan tells them apart; bands are the square root of the count.",
            escape(&input.signal),
            escape(&input.background)
        )
    });
    Ok(Figure { id: "scores".into(), title: "Scores".into(), caption, pictures: scenes })
}

/// Density and its error in each bin: counts over their sum and the bin's width.
pub(super) fn density(edges: &[f64], values: &[f64], total: f64) -> Vec<(f64, f64)> {
    values
        .iter()
        .zip(edges.windows(2))
        .map(|(n, e)| {
            let unit = total * (e[1] - e[0]);
            (n / unit, n.sqrt() / unit)
        })
        .collect()
}
