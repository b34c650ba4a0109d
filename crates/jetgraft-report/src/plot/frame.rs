//! A plot: panels over one another on one x axis, each with its layers and legend, as the field draws them: ticks inward
//! on all four sides, titles at the ends of the axes, the experiment's label above the frame.
//!
//! All panels of a plot take their x positions from the same rectangle edges and the same axis, so a ratio panel agrees
//! with the panel above it to the pixel.

use std::borrow::Cow;

use super::colour::{ColourMap, Dash, Marker, Paint};
use super::scale::{Axis, Scale, Ticks};
use super::scene::{Anchor, Draw, Item, Rect, Scene, Segment, Stroke};
use super::text::{TextBox, escape, layout_markup};

const TICK_SIZE: f64 = 14.0;
const TITLE_SIZE: f64 = 16.5;
const LEGEND_SIZE: f64 = 13.5;
const LABEL_SIZE: f64 = 16.5;
const NOTE_SIZE: f64 = 13.5;
const FRAME_WIDTH: f64 = 1.2;
const MAJOR_TICK: f64 = 8.5;
const MINOR_TICK: f64 = 4.5;
const PANEL_GAP: f64 = 13.0;
const TOP: f64 = 32.0;
const SWATCH: f64 = 28.0;
const SWATCH_GAP: f64 = 8.0;
const LINE_HEIGHT: f64 = 19.0;

/// A data point with its interval; an end that is not finite is drawn as an arrow towards it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErrorPoint {
    /// Abscissa.
    pub x: f64,
    /// Value; where it is not finite only the interval is drawn.
    pub y: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// Something drawn inside a panel.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer {
    /// A line through points; gaps where one is not a number.
    Line {
        /// Points.
        points: Vec<(f64, f64)>,
        /// Line.
        stroke: Stroke,
    },
    /// The area between two curves.
    Band {
        /// Abscissa, lower curve, upper curve.
        points: Vec<(f64, f64, f64)>,
        /// Colour.
        paint: Paint,
        /// Opacity.
        opacity: f64,
    },
    /// A histogram as steps.
    Steps {
        /// Bin edges, one more than values.
        edges: Vec<f64>,
        /// Heights.
        values: Vec<f64>,
        /// Line.
        stroke: Stroke,
        /// Area below it.
        fill: Option<(Paint, f64)>,
        /// True: the ends go down to the axis.
        closed: bool,
    },
    /// The area between two histograms.
    StepBand {
        /// Bin edges, one more than ranges.
        edges: Vec<f64>,
        /// Lower and upper height of each bin.
        ranges: Vec<(f64, f64)>,
        /// Colour.
        paint: Paint,
        /// Opacity.
        opacity: f64,
    },
    /// Points with error bars.
    Points {
        /// Points.
        points: Vec<ErrorPoint>,
        /// Colour.
        paint: Paint,
        /// Shape; none draws the bars alone.
        marker: Option<Marker>,
        /// Opacity.
        opacity: f64,
    },
    /// A line across at a height.
    Horizontal {
        /// Height.
        y: f64,
        /// Line.
        stroke: Stroke,
    },
    /// A line from bottom to top.
    Vertical {
        /// Abscissa.
        x: f64,
        /// Line.
        stroke: Stroke,
    },
    /// A heat map.
    Cells {
        /// Edges in x.
        x_edges: Vec<f64>,
        /// Edges in y.
        y_edges: Vec<f64>,
        /// Colours, the rows of lowest y first; none leaves the paper.
        colours: Vec<Option<Paint>>,
    },
}

/// What stands before an entry of a legend.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Swatch {
    /// A line.
    pub line: Option<Stroke>,
    /// A marker on it.
    pub marker: Option<(Marker, Paint)>,
    /// A band behind it.
    pub band: Option<(Paint, f64)>,
    /// True: the outline of a box instead of a line, for histograms.
    pub boxed: bool,
}

/// The legend of a panel. It is put where it hides nothing; if there is no such place the y axis is extended upwards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Legend {
    /// Lines above the entries, as markup: what the data are, the selection, the number of events.
    pub header: Vec<String>,
    /// Entries, as markup.
    pub entries: Vec<(Swatch, String)>,
}

/// The scale of a heat map's colours, drawn to the right of its panel.
#[derive(Clone, Debug, PartialEq)]
pub struct ColourBar {
    /// Colours.
    pub map: ColourMap,
    /// Numbers and title.
    pub axis: Axis,
}

/// One frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// The y axis.
    pub y: Axis,
    /// Height of the frame.
    pub height: f64,
    /// Contents, in the order in which they are painted.
    pub layers: Vec<Layer>,
    /// Legend.
    pub legend: Legend,
    /// True: the y axis may be extended upwards to make room for the legend.
    pub stretch: bool,
    /// Colour scale.
    pub colour_bar: Option<ColourBar>,
}

impl Panel {
    /// An empty frame.
    pub fn new(y: Axis, height: f64) -> Self {
        Self { y, height, layers: Vec::new(), legend: Legend::default(), stretch: true, colour_bar: None }
    }
}

/// Panels over one another on one x axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// Width of the whole picture.
    pub width: f64,
    /// What the data are, set behind the name: "simulation, 13 TeV"; plain text.
    pub data: String,
    /// A note above the right end of the frame, as markup.
    pub note: String,
    /// The x axis of all panels.
    pub x: Axis,
    /// Panels from top to bottom.
    pub panels: Vec<Panel>,
}

/// Where the frames of a plot are.
#[derive(Clone, Debug, PartialEq)]
pub struct Frames {
    /// One rectangle for each panel.
    pub panels: Vec<Rect>,
    /// Size of the whole picture.
    pub size: (f64, f64),
}

impl Plot {
    /// Where the frames are; they share their left and right edges.
    pub fn frames(&self) -> Frames {
        let tick_width = |panel: &Panel| {
            y_ticks(panel).major.iter().map(|t| layout_markup(&t.label, TICK_SIZE).width).fold(0.0, f64::max)
        };
        let left = self.panels.iter().map(tick_width).fold(0.0, f64::max) + 8.0 + TITLE_SIZE + 14.0;
        let right = self
            .panels
            .iter()
            .map(|panel| match &panel.colour_bar {
                Some(bar) => {
                    let ticks = bar.axis.ticks(bar_target(panel.height));
                    let labels = ticks.major.iter().map(|t| layout_markup(&t.label, TICK_SIZE).width);
                    10.0 + 15.0 + 6.0 + labels.fold(0.0, f64::max) + TITLE_SIZE + 14.0
                }
                None => 16.0,
            })
            .fold(0.0, f64::max);
        let width = (self.width - left - right).max(40.0);
        let mut y = TOP;
        let mut panels = Vec::new();
        for panel in &self.panels {
            panels.push(Rect { x: left, y, width, height: panel.height });
            y += panel.height + PANEL_GAP;
        }
        let height = y - PANEL_GAP + 8.0 + TICK_SIZE + 10.0 + TITLE_SIZE + 4.0;
        Frames { panels, size: (self.width, height) }
    }

    /// Draws the plot. `title` says in words what it is.
    pub fn scene(&self, title: &str) -> Scene {
        let mut plot = self.clone();
        for i in 0..plot.panels.len() {
            plot.make_room(i);
        }
        let frames = plot.frames();
        let mut items: Vec<Item> = Vec::new();
        for (i, (panel, rect)) in plot.panels.iter().zip(&frames.panels).enumerate() {
            let view = View { x: &plot.x, y: &panel.y, rect: *rect };
            let mut inside: Vec<Item> = Vec::new();
            for layer in &panel.layers {
                view.draw(&mut inside, layer);
            }
            items.add(Item::Clip { window: *rect, items: inside });
            let last = i + 1 == plot.panels.len();
            draw_frame(&mut items, &view, last, &y_ticks(panel));
            if let Some(bar) = &panel.colour_bar {
                draw_bar(&mut items, bar, *rect);
            }
            draw_legend(&mut items, &panel.legend, &view, &panel.layers);
        }
        if let Some(first) = frames.panels.first() {
            let baseline = first.y - 9.0;
            let name =
                layout_markup(&format!("\\bf{{jetgraft}}  \\it{{{}}}", escape(&plot.data)), LABEL_SIZE);
            let name_width = name.width;
            items.label((first.x, baseline), Anchor::Start, Paint::Ink, name);
            let note = layout_markup(&plot.note, NOTE_SIZE);
            if name_width + note.width + 10.0 < first.width + 14.0 {
                items.label((first.right(), baseline), Anchor::End, Paint::Muted, note);
            }
        }
        Scene { width: frames.size.0, height: frames.size.1, title: title.to_owned(), items }
    }

    /// Extends the y axis of a panel until its legend hides nothing, up to twice its length.
    fn make_room(&mut self, index: usize) {
        let original = self.panels[index].y.clone();
        if !self.panels[index].stretch || self.panels[index].legend.is_empty() {
            return;
        }
        for step in 0..=20 {
            let mut axis = original.clone();
            axis.high = original.value(1.0 + 0.05 * f64::from(step));
            if !axis.high.is_finite() {
                break;
            }
            self.panels[index].y = axis;
            let frames = self.frames();
            let panel = &self.panels[index];
            let view = View { x: &self.x, y: &panel.y, rect: frames.panels[index] };
            if arrange(&panel.legend, &view, &panel.layers).1 == 0 {
                return;
            }
        }
        self.panels[index].y = original;
    }
}

fn y_ticks(panel: &Panel) -> Ticks {
    panel.y.ticks((panel.height / if panel.height < 160.0 { 26.0 } else { 36.0 }) as usize)
}

fn bar_target(height: f64) -> usize {
    (height / 40.0) as usize
}

/// One panel's way from numbers to the page.
struct View<'a> {
    x: &'a Axis,
    y: &'a Axis,
    rect: Rect,
}

impl View<'_> {
    fn px(&self, x: f64) -> f64 {
        self.x.position(x).map_or(f64::NAN, |p| self.rect.x + p * self.rect.width)
    }

    fn py(&self, y: f64) -> f64 {
        self.y.position(y).map_or(f64::NAN, |p| self.rect.bottom() - p * self.rect.height)
    }

    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (self.px(x), self.py(y))
    }

    /// As [`Self::at`], with a gap instead of a place far outside for an infinite value.
    fn at_finite(&self, (x, y): (f64, f64)) -> (f64, f64) {
        if y.is_finite() { self.at((x, y)) } else { (f64::NAN, f64::NAN) }
    }

    /// Corners of a histogram's upper line.
    fn corners(&self, edges: &[f64], values: impl Iterator<Item = f64>) -> Vec<(f64, f64)> {
        values
            .zip(edges.windows(2))
            .flat_map(|(v, e)| [(self.px(e[0]), self.py(v)), (self.px(e[1]), self.py(v))])
            .collect()
    }

    fn area(&self, out: &mut Vec<Item>, upper: &[(f64, f64)], lower: &[(f64, f64)], fill: (Paint, f64)) {
        // Each run of points where both curves are numbers is an area of its own.
        let good = |i: usize| [upper[i], lower[i]].iter().all(|(x, y)| x.is_finite() && y.is_finite());
        let n = upper.len().min(lower.len());
        let mut start = 0;
        while start < n {
            if !good(start) {
                start += 1;
                continue;
            }
            let end = (start..n).find(|i| !good(*i)).unwrap_or(n);
            let mut segments: Vec<Segment> =
                upper[start..end].iter().map(|&(x, y)| Segment::Line(x, y)).collect();
            segments.extend(lower[start..end].iter().rev().map(|&(x, y)| Segment::Line(x, y)));
            if let Some(Segment::Line(x, y)) = segments.first().copied() {
                segments[0] = Segment::Move(x, y);
            }
            segments.push(Segment::Close);
            if end - start > 1 {
                out.path(segments, Some(fill), None);
            }
            start = end;
        }
    }

    fn draw(&self, out: &mut Vec<Item>, layer: &Layer) {
        match layer {
            Layer::Line { points, stroke } => {
                let points: Vec<_> = points.iter().map(|p| self.at_finite(*p)).collect();
                out.polyline(&points, *stroke);
            }
            Layer::Band { points, paint, opacity } => {
                let upper: Vec<_> = points.iter().map(|(x, _, high)| self.at_finite((*x, *high))).collect();
                let lower: Vec<_> = points.iter().map(|(x, low, _)| self.at_finite((*x, *low))).collect();
                self.area(out, &upper, &lower, (*paint, *opacity));
            }
            Layer::Steps { edges, values, stroke, fill, closed } => {
                let corners = self.corners(edges, values.iter().copied());
                let bottom = self.rect.bottom() + 2.0 * stroke.width;
                if let Some(fill) = fill {
                    let floor: Vec<_> = corners.iter().map(|(x, _)| (*x, bottom)).collect();
                    self.area(out, &corners, &floor, *fill);
                }
                let mut line = corners;
                if let (true, Some(first), Some(last)) =
                    (*closed, line.first().copied(), line.last().copied())
                {
                    line.insert(0, (first.0, bottom));
                    line.push((last.0, bottom));
                }
                out.polyline(&line, *stroke);
            }
            Layer::StepBand { edges, ranges, paint, opacity } => {
                let upper = self.corners(edges, ranges.iter().map(|r| r.1));
                let lower = self.corners(edges, ranges.iter().map(|r| r.0));
                self.area(out, &upper, &lower, (*paint, *opacity));
            }
            Layer::Points { points, paint, marker, opacity } => {
                for point in points {
                    self.error_point(out, point, *paint, *marker, *opacity);
                }
            }
            Layer::Horizontal { y, stroke } => {
                let y = self.py(*y);
                out.line((self.rect.x, y), (self.rect.right(), y), *stroke);
            }
            Layer::Vertical { x, stroke } => {
                let x = self.px(*x);
                out.line((x, self.rect.y), (x, self.rect.bottom()), *stroke);
            }
            Layer::Cells { x_edges, y_edges, colours } => self.cells(out, x_edges, y_edges, colours),
        }
    }

    fn error_point(
        &self,
        out: &mut Vec<Item>,
        point: &ErrorPoint,
        paint: Paint,
        marker: Option<Marker>,
        opacity: f64,
    ) {
        let x = self.px(point.x);
        let stroke = Stroke { opacity, ..Stroke::solid(paint, 1.4) };
        let (low, high) = (self.py(point.low), self.py(point.high));
        let open_above = point.high == f64::INFINITY;
        // An open interval is an arrow: as long as the room above allows, at most 34 pixels.
        let tip = if open_above { (low - 34.0).max(self.rect.y + 3.0) } else { high };
        out.line((x, low), (x, tip), stroke);
        let cap = |out: &mut Vec<Item>, y: f64| out.line((x - 3.0, y), (x + 3.0, y), stroke);
        cap(out, low);
        if open_above {
            out.path(
                vec![
                    Segment::Move(x - 4.0, tip + 6.0),
                    Segment::Line(x, tip),
                    Segment::Line(x + 4.0, tip + 6.0),
                ],
                None,
                Some(stroke),
            );
        } else {
            cap(out, high);
        }
        if let (Some(marker), true) = (marker, point.y.is_finite()) {
            let centre = (x, self.py(point.y));
            out.marker(centre, marker, 5.4, Paint::Surface, opacity);
            out.marker(centre, marker, 4.2, paint, opacity);
        }
    }

    /// One path for each colour; cells of equal colour in a row become one rectangle.
    fn cells(&self, out: &mut Vec<Item>, x_edges: &[f64], y_edges: &[f64], colours: &[Option<Paint>]) {
        let columns = x_edges.len().saturating_sub(1);
        if columns == 0 {
            return;
        }
        let xs: Vec<f64> = x_edges.iter().map(|x| self.px(*x)).collect();
        let ys: Vec<f64> = y_edges.iter().map(|y| self.py(*y)).collect();
        let mut paths: Vec<(Paint, Vec<Segment>)> = Vec::new();
        for (row, line) in colours.chunks(columns).enumerate().take(ys.len().saturating_sub(1)) {
            let mut start = 0;
            while start < line.len() {
                let Some(paint) = line[start] else {
                    start += 1;
                    continue;
                };
                let end = (start..line.len()).find(|i| line[*i] != Some(paint)).unwrap_or(line.len());
                // Cells overlap a little, so that no renderer leaves seams between them.
                let rect = Rect {
                    x: xs[start],
                    y: ys[row + 1],
                    width: xs[end] - xs[start] + 0.35,
                    height: ys[row] - ys[row + 1] + 0.35,
                };
                match paths.iter_mut().find(|(p, _)| *p == paint) {
                    Some((_, segments)) => segments.extend(rect.segments()),
                    None => paths.push((paint, rect.segments())),
                }
                start = end;
            }
        }
        // Renderers that smooth edges show the ground along the seams: put the commonest colour there, not paper.
        if let Some((paint, _)) = paths.iter().max_by_key(|(_, segments)| segments.len()) {
            let ground = paths.iter().flat_map(|(_, segments)| segments.iter().copied()).collect();
            out.path(ground, Some((*paint, 1.0)), None);
        }
        for (paint, segments) in paths {
            out.add(Item::Path { segments, fill: Some((paint, 1.0)), stroke: None, crisp: true });
        }
    }

    /// Points that a legend must not cover, about four pixels apart.
    fn obstacles(&self, layers: &[Layer]) -> Vec<(f64, f64)> {
        let mut out = Vec::new();
        let inside = |out: &mut Vec<(f64, f64)>, p: (f64, f64)| {
            if self.rect.contains(p) {
                out.push(p);
            }
        };
        let along = |out: &mut Vec<(f64, f64)>, points: &[(f64, f64)]| {
            for pair in points.windows(2) {
                let (a, b) = (pair[0], pair[1]);
                let length = (b.0 - a.0).hypot(b.1 - a.1);
                if length.is_finite() {
                    let n = (length / 4.0).ceil().clamp(1.0, 2000.0);
                    for k in 0..=n as usize {
                        let t = k as f64 / n;
                        inside(out, (a.0 + t * (b.0 - a.0), a.1 + t * (b.1 - a.1)));
                    }
                }
            }
            if let [only] = points {
                inside(out, *only);
            }
        };
        for layer in layers {
            match layer {
                Layer::Line { points, .. } => {
                    along(&mut out, &points.iter().map(|p| self.at_finite(*p)).collect::<Vec<_>>());
                }
                Layer::Band { points, .. } => {
                    for side in [|p: &(f64, f64, f64)| (p.0, p.1), |p: &(f64, f64, f64)| (p.0, p.2)] {
                        along(&mut out, &points.iter().map(|p| self.at_finite(side(p))).collect::<Vec<_>>());
                    }
                    for p in points {
                        along(&mut out, &[self.at_finite((p.0, p.1)), self.at_finite((p.0, p.2))]);
                    }
                }
                Layer::Steps { edges, values, fill, .. } => {
                    let corners = self.corners(edges, values.iter().copied());
                    along(&mut out, &corners);
                    if fill.is_some() {
                        for (x, y) in corners {
                            along(&mut out, &[(x, y), (x, self.rect.bottom())]);
                        }
                    }
                }
                Layer::StepBand { edges, ranges, .. } => {
                    along(&mut out, &self.corners(edges, ranges.iter().map(|r| r.1)));
                    along(&mut out, &self.corners(edges, ranges.iter().map(|r| r.0)));
                }
                Layer::Points { points, .. } => {
                    for p in points {
                        let (x, low) = self.at((p.x, p.low));
                        let high = if p.high == f64::INFINITY {
                            (low - 34.0).max(self.rect.y)
                        } else {
                            self.py(p.high)
                        };
                        along(&mut out, &[(x - 4.0, low), (x - 4.0, high)]);
                        along(&mut out, &[(x + 4.0, low), (x + 4.0, high)]);
                        inside(&mut out, self.at((p.x, p.y)));
                    }
                }
                Layer::Horizontal { y, .. } => {
                    let y = self.py(*y);
                    along(&mut out, &[(self.rect.x, y), (self.rect.right(), y)]);
                }
                // A vertical guide may pass behind a legend.
                Layer::Vertical { .. } => {}
                Layer::Cells { x_edges, y_edges, colours } => {
                    let columns = x_edges.len().saturating_sub(1).max(1);
                    for (i, _) in colours.iter().enumerate().filter(|(_, c)| c.is_some()) {
                        let (column, row) = (i % columns, i / columns);
                        if let (Some(x), Some(y)) =
                            (x_edges.get(column..column + 2), y_edges.get(row..row + 2))
                        {
                            inside(&mut out, self.at(((x[0] + x[1]) / 2.0, (y[0] + y[1]) / 2.0)));
                        }
                    }
                }
            }
        }
        out
    }
}

fn draw_frame(out: &mut Vec<Item>, view: &View<'_>, last: bool, y_ticks: &Ticks) {
    let rect = view.rect;
    let stroke = Stroke::solid(Paint::Ink, FRAME_WIDTH);
    let thin = Stroke::solid(Paint::Ink, 1.0);
    out.path(rect.segments(), None, Some(stroke));
    let x_ticks = view.x.ticks((rect.width / 52.0) as usize);

    let lengths = |ticks: &Ticks| -> Vec<(f64, f64)> {
        let major = ticks.major.iter().map(|t| (t.value, MAJOR_TICK));
        major.chain(ticks.minor.iter().map(|v| (*v, MINOR_TICK))).collect()
    };
    let mut marks = Vec::new();
    let mut mark = |from: (f64, f64), to: (f64, f64)| {
        marks.extend([Segment::Move(from.0, from.1), Segment::Line(to.0, to.1)]);
    };
    for (value, length) in lengths(&x_ticks) {
        let x = view.px(value);
        mark((x, rect.bottom()), (x, rect.bottom() - length));
        mark((x, rect.y), (x, rect.y + length));
    }
    for (value, length) in lengths(y_ticks) {
        let y = view.py(value);
        mark((rect.x, y), (rect.x + length, y));
        mark((rect.right(), y), (rect.right() - length, y));
    }
    out.path(marks, None, Some(thin));

    for tick in &y_ticks.major {
        let text = layout_markup(&tick.label, TICK_SIZE);
        out.label((rect.x - 8.0, view.py(tick.value) + TICK_SIZE * 0.36), Anchor::End, Paint::Ink, text);
    }
    if let Some(factor) = &y_ticks.factor {
        out.label(
            (rect.x - 8.0, rect.y - 10.0),
            Anchor::End,
            Paint::Ink,
            layout_markup(factor, TICK_SIZE * 0.9),
        );
    }
    let title = fit(&view.y.title, TITLE_SIZE, rect.height + 8.0);
    out.add(Item::Label {
        x: TITLE_SIZE + 4.0,
        y: rect.y,
        anchor: Anchor::End,
        upright: true,
        paint: Paint::Ink,
        text: title,
    });
    if !last {
        return;
    }
    let below = rect.bottom() + 8.0 + TICK_SIZE * 0.9;
    let mut reached = f64::NEG_INFINITY;
    for tick in &x_ticks.major {
        let text = layout_markup(&tick.label, TICK_SIZE);
        let x = view.px(tick.value);
        // Labels that would touch the one before are left out; the tick stays.
        if x - text.width / 2.0 > reached + 4.0 {
            reached = x + text.width / 2.0;
            out.label((x, below), Anchor::Middle, Paint::Ink, text);
        }
    }
    let mut title = view.x.title.clone();
    if let Some(factor) = &x_ticks.factor {
        title = format!("{title}  {factor}");
    }
    let title = fit(&title, TITLE_SIZE, rect.right());
    out.label((rect.right(), below + 10.0 + TITLE_SIZE), Anchor::End, Paint::Ink, title);
}

/// A title at the given size, or smaller where it would be longer than there is room.
fn fit(markup: &str, size: f64, room: f64) -> TextBox {
    let text = layout_markup(markup, size);
    if text.width <= room { text } else { layout_markup(markup, (size * room / text.width).max(size * 0.6)) }
}

fn draw_bar(out: &mut Vec<Item>, bar: &ColourBar, panel: Rect) {
    const STEPS: usize = 64;
    let rect = Rect { x: panel.right() + 10.0, y: panel.y, width: 15.0, height: panel.height };
    for k in 0..STEPS {
        let position = (k as f64 + 0.5) / STEPS as f64;
        let step = rect.height / STEPS as f64;
        let y = rect.bottom() - (k as f64 + 1.0) * step;
        // Steps overlap by half a pixel, so that no seam shows at any zoom.
        let cell = Rect { x: rect.x, y, width: rect.width, height: if k == 0 { step } else { step + 0.5 } };
        out.path(cell.segments(), Some((bar.map.at(position), 1.0)), None);
    }
    out.path(rect.segments(), None, Some(Stroke::solid(Paint::Ink, FRAME_WIDTH)));
    let ticks = bar.axis.ticks(bar_target(panel.height));
    let mut widest = 0.0f64;
    let y = |value: f64| rect.bottom() - bar.axis.position(value).unwrap_or(0.0) * rect.height;
    for tick in &ticks.major {
        let text = layout_markup(&tick.label, TICK_SIZE);
        widest = widest.max(text.width);
        let at = y(tick.value);
        out.line((rect.right(), at), (rect.right() - 4.0, at), Stroke::solid(Paint::Ink, 1.0));
        out.label((rect.right() + 6.0, at + TICK_SIZE * 0.36), Anchor::Start, Paint::Ink, text);
    }
    let title = match &ticks.factor {
        Some(factor) => format!("{}  {factor}", bar.axis.title),
        None => bar.axis.title.clone(),
    };
    out.add(Item::Label {
        x: rect.right() + 6.0 + widest + 6.0 + TITLE_SIZE * 0.9,
        y: rect.y,
        anchor: Anchor::End,
        upright: true,
        paint: Paint::Ink,
        text: fit(&title, TITLE_SIZE, rect.height + 8.0),
    });
}

impl Legend {
    fn is_empty(&self) -> bool {
        self.header.is_empty() && self.entries.is_empty()
    }

    fn size(&self) -> (f64, f64) {
        let header = self.header.iter().map(|line| layout_markup(line, LEGEND_SIZE).width);
        let entries =
            self.entries.iter().map(|(_, text)| SWATCH + SWATCH_GAP + layout_markup(text, LEGEND_SIZE).width);
        let lines = (self.header.len() + self.entries.len()) as f64;
        (header.chain(entries).fold(0.0, f64::max), lines * LINE_HEIGHT)
    }
}

/// Where the parts of a legend go, and how many points of the contents they hide there: in one block where that hides
/// nothing, else header and entries each for itself if that hides less.
fn arrange<'a>(
    legend: &'a Legend,
    view: &View<'_>,
    layers: &[Layer],
) -> (Vec<(Cow<'a, Legend>, Rect)>, usize) {
    let mut obstacles = view.obstacles(layers);
    let (place, hidden) = place_block(legend, view, &obstacles);
    let whole = (vec![(Cow::Borrowed(legend), place)], hidden);
    if hidden == 0 || legend.header.is_empty() || legend.entries.is_empty() {
        return whole;
    }
    let entries = Legend { header: Vec::new(), entries: legend.entries.clone() };
    let header = Legend { header: legend.header.clone(), entries: Vec::new() };
    let (entries_place, entries_hidden) = place_block(&entries, view, &obstacles);
    for i in 0..=20 {
        for j in 0..=10 {
            let (u, v) = (f64::from(i) / 20.0, f64::from(j) / 10.0);
            obstacles.push((
                entries_place.x + u * entries_place.width,
                entries_place.y + v * entries_place.height,
            ));
        }
    }
    let (header_place, header_hidden) = place_block(&header, view, &obstacles);
    if entries_hidden + header_hidden < hidden {
        let parts = vec![(Cow::Owned(header), header_place), (Cow::Owned(entries), entries_place)];
        (parts, entries_hidden + header_hidden)
    } else {
        whole
    }
}

/// The best place of one block: the highest row of candidates that hides nothing, corners first.
fn place_block(legend: &Legend, view: &View<'_>, obstacles: &[(f64, f64)]) -> (Rect, usize) {
    const MARGIN: f64 = 14.0;
    const COLUMNS: [f64; 7] = [1.0, 0.0, 0.5, 0.83, 0.17, 0.67, 0.33];
    const ROWS: i32 = 12;
    let (width, height) = legend.size();
    let room = Rect {
        x: view.rect.x + MARGIN,
        y: view.rect.y + MARGIN,
        width: (view.rect.width - 2.0 * MARGIN - width).max(0.0),
        height: (view.rect.height - 2.0 * MARGIN - height).max(0.0),
    };
    let mut best = (Rect { x: room.x, y: room.y, width, height }, usize::MAX);
    for row in 0..=ROWS {
        for column in COLUMNS {
            let y = room.y + f64::from(row) / f64::from(ROWS) * room.height;
            let place = Rect { x: room.x + column * room.width, y, width, height };
            let guard =
                Rect { x: place.x - 6.0, y: place.y - 5.0, width: width + 12.0, height: height + 10.0 };
            let hidden = obstacles.iter().filter(|p| guard.contains(**p)).count();
            if hidden < best.1 {
                best = (place, hidden);
            }
        }
    }
    best
}

fn draw_legend(out: &mut Vec<Item>, legend: &Legend, view: &View<'_>, layers: &[Layer]) {
    if legend.is_empty() {
        return;
    }
    let (parts, hidden) = arrange(legend, view, layers);
    for (part, place) in parts {
        // A vertical guide may pass behind: it is covered there.
        let crossed = layers.iter().any(|layer| match layer {
            Layer::Vertical { x, .. } => (place.x - 5.0..place.right() + 5.0).contains(&view.px(*x)),
            _ => false,
        });
        draw_block(out, &part, place, hidden > 0 || crossed);
    }
}

fn draw_block(out: &mut Vec<Item>, legend: &Legend, place: Rect, backed: bool) {
    if backed {
        let back = Rect {
            x: place.x - 5.0,
            y: place.y - 3.0,
            width: place.width + 10.0,
            height: place.height + 6.0,
        };
        out.path(back.segments(), Some((Paint::Surface, 0.9)), None);
    }
    let mut baseline = place.y + LINE_HEIGHT * 0.72;
    for line in &legend.header {
        out.label((place.x, baseline), Anchor::Start, Paint::Ink, layout_markup(line, LEGEND_SIZE));
        baseline += LINE_HEIGHT;
    }
    for (swatch, text) in &legend.entries {
        let middle = baseline - LEGEND_SIZE * 0.34;
        let (left, right) = (place.x, place.x + SWATCH);
        if let Some((paint, opacity)) = swatch.band {
            let area = Rect { x: left, y: middle - 6.0, width: SWATCH, height: 12.0 };
            out.path(area.segments(), Some((paint, opacity)), None);
        }
        if let Some(stroke) = swatch.line {
            if swatch.boxed {
                let area = Rect { x: left + 1.0, y: middle - 5.5, width: SWATCH - 2.0, height: 11.0 };
                out.path(area.segments(), None, Some(stroke));
            } else {
                out.line((left, middle), (right, middle), stroke);
            }
        }
        if let Some((marker, paint)) = swatch.marker {
            out.marker(((left + right) / 2.0, middle), marker, 4.2, paint, 1.0);
        }
        out.label(
            (right + SWATCH_GAP, baseline),
            Anchor::Start,
            Paint::Ink,
            layout_markup(text, LEGEND_SIZE),
        );
        baseline += LINE_HEIGHT;
    }
}

/// A thin reference line.
pub fn guide(paint: Paint) -> Stroke {
    Stroke { paint, width: 1.1, dash: Dash::Dotted, opacity: 1.0 }
}

/// A linear range around values, with `share` of its length added on each side.
pub fn linear_range(values: impl Iterator<Item = f64>, share: f64) -> (f64, f64) {
    let (low, high) = extent(values);
    let pad = if high > low { (high - low) * share } else { low.abs().max(1e-6) * 0.05 };
    (low - pad, high + pad)
}

/// A logarithmic range around positive values, with `share` of its length added on each side.
pub fn log_range(values: impl Iterator<Item = f64>, share: f64) -> (f64, f64) {
    let (low, high) = extent(values.filter(|v| *v > 0.0));
    let pad = if high > low { (high / low).powf(share) } else { 1.5 };
    (low / pad, high * pad)
}

fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low <= high { (low, high) } else { (1.0, 1.0) }
}

/// The range and scale that fit: used where an input may ask for either.
pub fn axis(scale: Scale, values: impl Iterator<Item = f64>, share: f64, title: impl Into<String>) -> Axis {
    match scale {
        Scale::Linear => {
            let (low, high) = linear_range(values, share);
            Axis::linear(low, high, title)
        }
        Scale::Log => {
            let (low, high) = log_range(values, share);
            Axis::log(low, high, title)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot() -> Plot {
        let line = |f: fn(f64) -> f64| {
            (0..=100).map(|i| f64::from(i) / 100.0).map(|x| (x, f(x))).collect::<Vec<_>>()
        };
        let mut main = Panel::new(Axis::log(1.0, 10_000.0, "long rejection title"), 300.0);
        main.layers.push(Layer::Line {
            points: line(|x| 1.0 / (x + 1e-4)),
            stroke: Stroke::solid(Paint::Series(0), 2.0),
        });
        main.legend.header = vec!["a header".into(), "another".into()];
        let mut ratio = Panel::new(Axis::linear(0.5, 1.5, "ratio"), 100.0);
        ratio.layers.push(Layer::Line { points: line(|x| 0.5 + x), stroke: Stroke::solid(Paint::Ink, 1.0) });
        Plot {
            width: 500.0,
            data: "simulation".into(),
            note: String::new(),
            x: Axis::linear(0.0, 1.0, "x"),
            panels: vec![main, ratio],
        }
    }

    #[test]
    fn ratio_panel_shares_its_x_axis() {
        let frames = plot().frames();
        assert_eq!(frames.panels[0].x.to_bits(), frames.panels[1].x.to_bits());
        assert_eq!(frames.panels[0].width.to_bits(), frames.panels[1].width.to_bits());
        assert!(frames.panels[1].y > frames.panels[0].bottom());
    }

    /// Whatever is in the way, the legend ends up where it hides nothing when the axis may be extended.
    #[test]
    fn legend_hides_nothing() {
        let mut plot = plot();
        for y in [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 9000.0] {
            plot.panels[0].layers.push(Layer::Horizontal { y, stroke: guide(Paint::Ink) });
        }
        plot.make_room(0);
        let frames = plot.frames();
        let panel = &plot.panels[0];
        let view = View { x: &plot.x, y: &panel.y, rect: frames.panels[0] };
        assert_eq!(arrange(&panel.legend, &view, &panel.layers).1, 0);
        assert!(panel.y.high > 10_000.0);
    }

    #[test]
    fn items_with_nan_are_left_out() {
        let mut plot = plot();
        plot.panels[0].layers.push(Layer::Line {
            points: vec![(0.1, f64::NAN), (f64::NAN, 2.0), (0.2, 3.0), (0.3, f64::INFINITY)],
            stroke: Stroke::solid(Paint::Ink, 1.0),
        });
        plot.panels[0].layers.push(Layer::Points {
            points: vec![ErrorPoint { x: 0.5, y: f64::INFINITY, low: 10.0, high: f64::INFINITY }],
            paint: Paint::Ink,
            marker: Some(Marker::Circle),
            opacity: 1.0,
        });
        let scene = plot.scene("t");
        let svg = super::super::svg::write(
            &[(&scene, 0.0, 0.0)],
            (scene.width, scene.height),
            "t",
            "t",
            "d",
            super::super::svg::Look::File,
        );
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
