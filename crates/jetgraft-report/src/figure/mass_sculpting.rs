//! What a cut on the score does to the jet mass of the background.

use serde::{Deserialize, Serialize};

use super::scores::density;
use super::{Context, Estimate, Figure, count, counts, edges, not_empty, same_length};
use crate::error::ReportError;
use crate::plot::colour::{Paint, plan_styles};
use crate::plot::frame::{Layer, Legend, Panel, Plot, Swatch, guide, linear_range};
use crate::plot::scale::Axis;
use crate::plot::scene::Stroke;
use crate::plot::text::escape;

/// Input of [`mass_sculpting`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MassSculpting {
    /// The data.
    pub context: Context,
    /// Bin edges of the jet mass in GeV.
    pub edges: Vec<f64>,
    /// Background jets in each bin before the cut.
    pub before: Vec<f64>,
    /// Background jets that pass, for each plan in the plans' order.
    pub cuts: Vec<MassCut>,
    /// Signal efficiency of the cut.
    pub signal_efficiency: f64,
    /// Name of the background class, plain.
    pub background: String,
    /// Target jets used in training, for the legend.
    pub target_size: Option<u64>,
    /// Replaces the caption that the figure writes itself (markup).
    pub caption: Option<String>,
}

/// The background that passes the cut of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MassCut {
    /// Name of the plan.
    pub plan: String,
    /// Jets in each bin.
    pub after: Vec<f64>,
    /// Jensen-Shannon distance (base 2, 0 to 1) between the normalised spectra before and after.
    pub js_distance: Estimate,
}

/// Draws the normalised mass spectrum before and after the cut and the ratio after / before.
///
/// Bands are the square root of the count after the cut.
///
/// # Errors
/// Where there is no cut or no jet before it or after it, edges do not increase, a histogram has another length, or a
/// count is negative.
pub fn mass_sculpting(input: &MassSculpting) -> Result<Figure, ReportError> {
    const ITEM: &str = "mass sculpting";
    not_empty(ITEM, "cuts", &input.cuts)?;
    let n_bins = edges(ITEM, "edges", &input.edges)?;
    same_length(ITEM, "before", input.before.len(), n_bins)?;
    let total = counts(ITEM, "before", &input.before)?;
    let before = density(&input.edges, &input.before, total);
    let styles = plan_styles(&input.cuts.iter().map(|c| c.plan.as_str()).collect::<Vec<_>>());
    let mut after = Vec::new();
    for cut in &input.cuts {
        let what = format!("jets after the cut of `{}`", cut.plan);
        same_length(ITEM, &what, cut.after.len(), n_bins)?;
        let total = counts(ITEM, &what, &cut.after)?;
        after.push(density(&input.edges, &cut.after, total));
    }
    let highest = before.iter().chain(after.iter().flatten()).map(|(v, e)| v + e).fold(0.0, f64::max);
    let mut main = Panel::new(Axis::linear(0.0, highest * 1.05, "normalised [GeV^{−1}]"), 290.0);
    let outline = Stroke::solid(Paint::Ink, 1.5);
    main.layers.push(Layer::Steps {
        edges: input.edges.clone(),
        values: before.iter().map(|(v, _)| *v).collect(),
        stroke: outline,
        fill: Some((Paint::Ink, 0.1)),
        closed: true,
    });
    let mut legend = Legend::default();
    legend.header.push(format!("{} {} jets", count(total.round() as u64), escape(&input.background)));
    legend.header.extend(input.context.selection.iter().cloned());
    if let Some(n) = input.target_size {
        legend.header.push(format!("{} target jets in training", count(n)));
    }
    legend.entries.push((
        Swatch { line: Some(outline), band: Some((Paint::Ink, 0.1)), boxed: true, marker: None },
        "before the cut".to_owned(),
    ));
    let steps = |panel: &mut Panel, values: &[(f64, f64)], stroke: Stroke| {
        panel.layers.push(Layer::StepBand {
            edges: input.edges.clone(),
            ranges: values.iter().map(|(v, e)| (v - e, v + e)).collect(),
            paint: stroke.paint,
            opacity: 0.18,
        });
        panel.layers.push(Layer::Steps {
            edges: input.edges.clone(),
            values: values.iter().map(|(v, _)| *v).collect(),
            stroke,
            fill: None,
            closed: false,
        });
    };
    let mut ratios = Vec::new();
    for ((cut, style), shape) in input.cuts.iter().zip(&styles).zip(&after) {
        let stroke = Stroke { dash: style.dash, ..Stroke::solid(style.paint, 2.0) };
        steps(&mut main, shape, stroke);
        legend.entries.push((
            Swatch { line: Some(stroke), band: Some((style.paint, 0.18)), ..Swatch::default() },
            format!("{}, JSD {}", escape(&cut.plan), cut.js_distance.show(3)),
        ));
        // A bin that was empty before the cut has no ratio.
        let ratio: Vec<(f64, f64)> = shape
            .iter()
            .zip(&before)
            .map(|((v, e), (b, _))| if *b > 0.0 { (v / b, e / b) } else { (f64::NAN, f64::NAN) })
            .collect();
        ratios.push((ratio, stroke));
    }
    main.legend = legend;
    // Bins with a large error would set the range alone: those with less than 30 % do, if there are any.
    let bins = || ratios.iter().flat_map(|(r, _)| r.iter().copied());
    let sure: Vec<f64> = bins().filter(|(v, e)| *e < 0.3 * v).map(|(v, _)| v).collect();
    let shown = if sure.is_empty() { bins().map(|(v, _)| v.min(5.0)).collect() } else { sure };
    let (low, high) = linear_range(shown.into_iter().chain([0.8, 1.2]), 0.08);
    let mut ratio_panel = Panel::new(Axis::linear(low.max(0.0), high, "after / before"), 112.0);
    ratio_panel.stretch = false;
    ratio_panel.layers.push(Layer::Horizontal { y: 1.0, stroke: guide(Paint::Ink) });
    for (ratio, stroke) in &ratios {
        steps(&mut ratio_panel, ratio, *stroke);
    }
    let title = format!("{} jet mass [GeV]", escape(&input.background));
    let plot = Plot {
        width: 540.0,
        data: input.context.data.clone(),
        note: format!("cut at \\epsilon_{{S}} = {}", input.signal_efficiency),
        x: Axis::linear(input.edges[0], input.edges[n_bins], title),
        panels: vec![main, ratio_panel],
    };
    let caption = input.caption.clone().unwrap_or_else(|| {
        let most = input
            .cuts
            .iter()
            .filter(|c| c.js_distance.value.is_finite())
            .max_by(|a, b| a.js_distance.value.total_cmp(&b.js_distance.value));
        let most = most
            .map(|c| format!(", most for {} ({})", escape(&c.plan), c.js_distance.show(3)))
            .unwrap_or_default();
        format!(
            "Mass of {} jets before and after the cut at \\epsilon_{{S}} = {}: a bump after the cut can fake a resonance, and the Jensen-Shannon distance (JSD, 0 to 1) measures the change{most}.",
            escape(&input.background),
            input.signal_efficiency
        )
    });
    let scene = plot.scene("Background jet mass before and after the cut");
    Ok(Figure { id: "mass-sculpting".into(), title: "Mass sculpting".into(), caption, pictures: vec![scene] })
}
