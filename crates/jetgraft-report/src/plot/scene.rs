//! What is drawn, before it is written: paths and labels with roles for colours, in units of CSS pixels, y down.

use super::colour::{Dash, Marker, Paint};
use super::text::TextBox;

/// A piece of an outline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Segment {
    /// Start anew here.
    Move(f64, f64),
    /// Straight to here.
    Line(f64, f64),
    /// Bezier curve by two control points to here.
    Cubic(f64, f64, f64, f64, f64, f64),
    /// Back to the last start.
    Close,
}

impl Segment {
    fn is_finite(self) -> bool {
        match self {
            Self::Move(x, y) | Self::Line(x, y) => x.is_finite() && y.is_finite(),
            Self::Cubic(a, b, c, d, e, f) => [a, b, c, d, e, f].iter().all(|v| v.is_finite()),
            Self::Close => true,
        }
    }
}

/// A line drawn along an outline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stroke {
    /// Colour.
    pub paint: Paint,
    /// Width.
    pub width: f64,
    /// Pattern.
    pub dash: Dash,
    /// 0 transparent, 1 opaque.
    pub opacity: f64,
}

impl Stroke {
    /// An opaque unbroken line.
    pub fn solid(paint: Paint, width: f64) -> Self {
        Self { paint, width, dash: Dash::Solid, opacity: 1.0 }
    }
}

/// Which point of a label is at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Left end.
    Start,
    /// Middle.
    Middle,
    /// Right end.
    End,
}

/// A rectangle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Extent to the right.
    pub width: f64,
    /// Extent down.
    pub height: f64,
}

impl Rect {
    /// Right edge.
    pub fn right(&self) -> f64 {
        self.x + self.width
    }
    /// Lower edge.
    pub fn bottom(&self) -> f64 {
        self.y + self.height
    }
    /// True where the point lies inside or on the edge.
    pub fn contains(&self, (x, y): (f64, f64)) -> bool {
        x >= self.x && x <= self.right() && y >= self.y && y <= self.bottom()
    }
    /// The outline.
    pub fn segments(&self) -> Vec<Segment> {
        vec![
            Segment::Move(self.x, self.y),
            Segment::Line(self.right(), self.y),
            Segment::Line(self.right(), self.bottom()),
            Segment::Line(self.x, self.bottom()),
            Segment::Close,
        ]
    }
}

/// Something drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// An outline, filled and stroked.
    Path {
        /// Outline.
        segments: Vec<Segment>,
        /// Colour and opacity of the inside.
        fill: Option<(Paint, f64)>,
        /// Line along it.
        stroke: Option<Stroke>,
        /// True where edges fall on pixel borders: cells without seams.
        crisp: bool,
    },
    /// A label.
    Label {
        /// Place of its anchor on the baseline.
        x: f64,
        /// Place of its baseline.
        y: f64,
        /// Which point is at the place.
        anchor: Anchor,
        /// True: read from bottom to top.
        upright: bool,
        /// Colour.
        paint: Paint,
        /// The placed text.
        text: TextBox,
    },
    /// Items seen inside a rectangle only.
    Clip {
        /// The window.
        window: Rect,
        /// The items.
        items: Vec<Item>,
    },
}

/// A picture of known size.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
    /// What it is, in words, for readers who do not see it.
    pub title: String,
    /// The items, in the order in which they are painted.
    pub items: Vec<Item>,
}

/// Adds items to a list; parts with a coordinate that is not finite are left out, so that no file holds one.
pub trait Draw {
    /// Adds an item.
    fn add(&mut self, item: Item);

    /// Adds an outline.
    fn path(&mut self, segments: Vec<Segment>, fill: Option<(Paint, f64)>, stroke: Option<Stroke>) {
        if !segments.is_empty() && segments.iter().all(|s| s.is_finite()) {
            self.add(Item::Path { segments, fill, stroke, crisp: false });
        }
    }

    /// Adds an open line. Gaps are where a point is not finite.
    fn polyline(&mut self, points: &[(f64, f64)], stroke: Stroke) {
        for piece in points.split(|(x, y)| !(x.is_finite() && y.is_finite())) {
            let thinned = thin(piece);
            if thinned.len() > 1 {
                let segments = thinned
                    .iter()
                    .enumerate()
                    .map(|(i, &(x, y))| if i == 0 { Segment::Move(x, y) } else { Segment::Line(x, y) })
                    .collect();
                self.path(segments, None, Some(stroke));
            }
        }
    }

    /// Adds a straight line.
    fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: Stroke) {
        self.path(vec![Segment::Move(from.0, from.1), Segment::Line(to.0, to.1)], None, Some(stroke));
    }

    /// Adds a data point.
    fn marker(&mut self, (x, y): (f64, f64), marker: Marker, radius: f64, paint: Paint, opacity: f64) {
        use Segment::{Close, Cubic, Line, Move};
        let r = radius;
        let polygon = |points: &[(f64, f64)]| {
            let mut out: Vec<Segment> = points
                .iter()
                .enumerate()
                .map(
                    |(i, (dx, dy))| {
                        if i == 0 { Move(x + dx * r, y + dy * r) } else { Line(x + dx * r, y + dy * r) }
                    },
                )
                .collect();
            out.push(Close);
            out
        };
        let segments = match marker {
            Marker::Circle => {
                let k = 0.5523 * r;
                vec![
                    Move(x + r, y),
                    Cubic(x + r, y + k, x + k, y + r, x, y + r),
                    Cubic(x - k, y + r, x - r, y + k, x - r, y),
                    Cubic(x - r, y - k, x - k, y - r, x, y - r),
                    Cubic(x + k, y - r, x + r, y - k, x + r, y),
                    Close,
                ]
            }
            Marker::Square => polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
            Marker::Triangle => polygon(&[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)]),
            Marker::Down => polygon(&[(0.0, 1.2), (1.1, -0.8), (-1.1, -0.8)]),
            Marker::Diamond => polygon(&[(0.0, -1.3), (1.1, 0.0), (0.0, 1.3), (-1.1, 0.0)]),
            Marker::Plus => polygon(&[
                (-0.35, -1.2),
                (0.35, -1.2),
                (0.35, -0.35),
                (1.2, -0.35),
                (1.2, 0.35),
                (0.35, 0.35),
                (0.35, 1.2),
                (-0.35, 1.2),
                (-0.35, 0.35),
                (-1.2, 0.35),
                (-1.2, -0.35),
                (-0.35, -0.35),
            ]),
        };
        self.path(segments, Some((paint, opacity)), None);
    }

    /// Adds a label.
    fn label(&mut self, (x, y): (f64, f64), anchor: Anchor, paint: Paint, text: TextBox) {
        if x.is_finite() && y.is_finite() && !text.runs.is_empty() {
            self.add(Item::Label { x, y, anchor, upright: false, paint, text });
        }
    }
}

impl Draw for Vec<Item> {
    fn add(&mut self, item: Item) {
        self.push(item);
    }
}

/// Leaves out points closer than a third of a pixel to the last one kept; the last point stays.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut out: Vec<(f64, f64)> = Vec::with_capacity(points.len());
    for (i, point) in points.iter().enumerate() {
        let near = out.last().is_some_and(|last| (last.0 - point.0).abs() + (last.1 - point.1).abs() < 0.33);
        if !near || i + 1 == points.len() {
            out.push(*point);
        }
    }
    out
}
