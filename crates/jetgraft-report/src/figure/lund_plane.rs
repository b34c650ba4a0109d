//! Densities of emissions in the Lund plane.

use serde::{Deserialize, Serialize};

use super::{Context, Figure, count, counts, edges, not_empty, picture_width, same_length};
use crate::error::ReportError;
use crate::plot::colour::{ColourMap, Paint};
use crate::plot::frame::{ColourBar, Layer, Legend, Panel, Plot};
use crate::plot::scale::Axis;
use crate::plot::scene::Scene;
use crate::plot::text::escape;

/// Input of [`lund_plane`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LundPlane {
    /// The data.
    pub context: Context,
    /// Edges in ln(1/Delta).
    pub x_edges: Vec<f64>,
    /// Edges in ln(kt / GeV).
    pub y_edges: Vec<f64>,
    /// One picture for each class, on a common colour scale.
    pub classes: Vec<LundClass>,
    /// A last picture that divides one class by another.
    pub ratio: Option<LundRatio>,
    /// What an emission is, as markup: `primary declusterings`.
    pub emissions: String,
    /// Replaces the caption that the figure writes itself (markup).
    pub caption: Option<String>,
}

/// The emissions of a class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LundClass {
    /// Name of the class, plain.
    pub name: String,
    /// Emissions in each cell, the row of lowest kt first, within a row by rising ln(1/Delta).
    pub emissions: Vec<f64>,
    /// Jets that they come from.
    pub jets: u64,
}

/// Which classes to divide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LundRatio {
    /// Name of the class above the line.
    pub numerator: String,
    /// Name of the class below the line.
    pub denominator: String,
    /// Cells with fewer emissions in either class are left blank.
    pub min_emissions: u32,
}

/// Shades of a heat map: few enough that neighbours of equal shade become one rectangle.
const SHADES: f64 = 48.0;

/// Draws (1/N_jets) d²n / dln(1/Delta) dln kt of each class, and their ratio.
///
/// # Errors
/// Where there is no class or a class has no jet or emission, edges do not increase, a table has another length, a count
/// is negative, or the ratio names no class.
pub fn lund_plane(input: &LundPlane) -> Result<Figure, ReportError> {
    const ITEM: &str = "lund plane";
    not_empty(ITEM, "classes", &input.classes)?;
    let n_x = edges(ITEM, "x_edges", &input.x_edges)?;
    let n_y = edges(ITEM, "y_edges", &input.y_edges)?;
    let area = |cell: usize| {
        let (column, row) = (cell % n_x, cell / n_x);
        (input.x_edges[column + 1] - input.x_edges[column]) * (input.y_edges[row + 1] - input.y_edges[row])
    };
    let mut densities = Vec::new();
    for class in &input.classes {
        let what = format!("emissions of `{}`", class.name);
        same_length(ITEM, &what, class.emissions.len(), n_x * n_y)?;
        counts(ITEM, &what, &class.emissions)?;
        if class.jets == 0 {
            return Err(ReportError::Empty {
                item: ITEM.to_owned(),
                what: format!("jets of `{}`", class.name),
            });
        }
        let density: Vec<f64> =
            class.emissions.iter().enumerate().map(|(i, n)| n / (class.jets as f64 * area(i))).collect();
        densities.push(density);
    }
    let highest = densities.iter().flatten().copied().fold(0.0, f64::max);
    let shade = |position: f64| (position.clamp(0.0, 1.0) * SHADES).round() / SHADES;
    let width = picture_width(input.classes.len() + usize::from(input.ratio.is_some()));

    let picture = |colours: Vec<Option<Paint>>, bar: ColourBar, header: Vec<String>, title: &str| -> Scene {
        let y = Axis::linear(input.y_edges[0], input.y_edges[n_y], "ln(\\it{k}_{t} / GeV)");
        let mut panel = Panel::new(y, 300.0);
        panel.stretch = false;
        panel.layers.push(Layer::Cells {
            x_edges: input.x_edges.clone(),
            y_edges: input.y_edges.clone(),
            colours,
        });
        panel.legend = Legend { header, entries: Vec::new() };
        panel.colour_bar = Some(bar);
        let plot = Plot {
            width,
            data: input.context.data.clone(),
            note: String::new(),
            x: Axis::linear(input.x_edges[0], input.x_edges[n_x], "ln(1/\\Delta)"),
            panels: vec![panel],
        };
        plot.scene(title)
    };

    let mut pictures = Vec::new();
    let density_title = "emissions per jet and unit area";
    for (i, (class, density)) in input.classes.iter().zip(&densities).enumerate() {
        let map = ColourMap::Viridis;
        let colours = density.iter().map(|d| (*d > 0.0).then(|| map.at(shade(d / highest)))).collect();
        let mut header = vec![format!("\\bf{{{}}}, {} jets", escape(&class.name), count(class.jets))];
        if i == 0 {
            header.extend(input.context.selection.iter().cloned());
        }
        let bar = ColourBar { map, axis: Axis::linear(0.0, highest, density_title) };
        let title = format!("Lund plane density of {} jets", class.name);
        pictures.push(picture(colours, bar, header, &title));
    }
    if let Some(ratio) = &input.ratio {
        let find = |name: &str| {
            input.classes.iter().position(|c| c.name == name).ok_or_else(|| ReportError::Unknown {
                item: ITEM.to_owned(),
                what: "class",
                name: name.to_owned(),
                known: input.classes.iter().map(|c| c.name.clone()).collect(),
            })
        };
        let (above, below) = (find(&ratio.numerator)?, find(&ratio.denominator)?);
        let least = f64::from(ratio.min_emissions.max(1));
        let values: Vec<Option<f64>> = (0..n_x * n_y)
            .map(|i| {
                let enough = [above, below].iter().all(|c| input.classes[*c].emissions[i] >= least);
                enough.then(|| densities[above][i] / densities[below][i])
            })
            .collect();
        let furthest = values.iter().flatten().map(|v| v.max(1.0 / v)).fold(1.0, f64::max);
        let reach = furthest.clamp(2.0, 10.0);
        let title = format!("{} / {}", escape(&ratio.numerator), escape(&ratio.denominator));
        let axis = Axis::log(1.0 / reach, reach, title.clone());
        let map = ColourMap::Diverging;
        let colours =
            values.iter().map(|v| v.map(|v| map.at(shade(axis.position(v).unwrap_or(0.5))))).collect();
        let header = vec![format!("\\bf{{{title}}}"), format!("cells with ≥ {least} emissions")];
        let title = format!("Ratio of Lund plane densities, {} to {}", ratio.numerator, ratio.denominator);
        pictures.push(picture(colours, ColourBar { map, axis }, header, &title));
    }
    let caption = input.caption.clone().unwrap_or_else(|| {
        let what = if input.emissions.is_empty() { "emissions" } else { input.emissions.as_str() };
        let ratio = match &input.ratio {
            Some(r) => format!(
                "; red cells of the last picture are richer in {} jets",
                escape(&r.numerator)
            ),
            None => String::new(),
        };
        format!("Average density of {what} in the Lund plane for each class, on one colour scale: a heavy decay leaves a ridge at wide angle and high \\it{{k}}_{{t}}{ratio}.")
    });
    Ok(Figure { id: "lund-plane".into(), title: "Lund plane".into(), caption, pictures })
}
