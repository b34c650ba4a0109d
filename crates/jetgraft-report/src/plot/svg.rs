//! From scenes to SVG text: one writer, two looks.
//!
//! - [`Look::File`]: light, text as glyph outlines, needs nothing: the same picture in a browser, an editor or a paper.
//! - [`Look::Page`]: colours by CSS variables (`--jg-ink`, `--jg-s0`, ..., see [`css_variables`]) so that the page's light and dark
//!   looks apply, text as text in the font that the page embeds, so that it can be searched and copied.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::colour::{LIGHT, Paint, SERIES_LIGHT};
use super::font::Face;
use super::scene::{Anchor, Item, Rect, Scene, Segment};
use super::text::{TextBox, escape_xml};

/// Where the SVG will live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A file of its own.
    File,
    /// Inside a page.
    Page,
}

/// Writes scenes, each at its place, as one SVG. `id` becomes the prefix of the ids inside and must be unique on a page.
pub fn write(
    scenes: &[(&Scene, f64, f64)],
    (width, height): (f64, f64),
    id: &str,
    title: &str,
    description: &str,
    look: Look,
) -> String {
    let mut writer =
        Writer { look, id: slug(id), out: String::new(), glyphs: BTreeSet::new(), clips: Vec::new() };
    for (scene, x, y) in scenes {
        if *x != 0.0 || *y != 0.0 {
            let _ = write!(writer.out, "<g transform=\"translate({} {})\">", num(*x), num(*y));
            writer.items(&scene.items);
            writer.out.push_str("</g>\n");
        } else {
            writer.items(&scene.items);
        }
    }
    writer.finish(width, height, title, description)
}

/// Letters, digits and hyphens of a text: safe as an id, a file name and a CSS name.
pub fn slug(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.ends_with('-') && !out.is_empty() {
            out.push('-');
        }
    }
    let out = out.trim_end_matches('-');
    if out.is_empty() { "item".to_owned() } else { out.to_owned() }
}

struct Writer {
    look: Look,
    id: String,
    out: String,
    glyphs: BTreeSet<(Face, char)>,
    clips: Vec<Rect>,
}

impl Writer {
    fn finish(self, width: f64, height: f64, title: &str, description: &str) -> String {
        let id = &self.id;
        let mut svg = String::with_capacity(self.out.len() + 4096);
        let (w, h) = (num(width), num(height));
        let size = match self.look {
            Look::File => format!(" width=\"{w}\" height=\"{h}\""),
            Look::Page => " class=\"plot\"".to_owned(),
        };
        let _ = writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\"{size} role=\"img\" \
             aria-labelledby=\"{id}-title {id}-desc\">"
        );
        let _ = writeln!(svg, "<title id=\"{id}-title\">{}</title>", escape_xml(title));
        let _ = writeln!(svg, "<desc id=\"{id}-desc\">{}</desc>", escape_xml(description));
        if !self.glyphs.is_empty() || !self.clips.is_empty() {
            svg.push_str("<defs>\n");
            for (i, r) in self.clips.iter().enumerate() {
                let _ = writeln!(
                    svg,
                    "<clipPath id=\"{id}-c{i}\"><rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/></clipPath>",
                    num(r.x),
                    num(r.y),
                    num(r.width),
                    num(r.height)
                );
            }
            for (face, character) in &self.glyphs {
                let path = &face.font().glyph(*character).path;
                let _ = writeln!(svg, "<path id=\"{}\" d=\"{path}\"/>", glyph_id(id, *face, *character));
            }
            svg.push_str("</defs>\n");
        }
        if self.look == Look::File {
            let _ = writeln!(svg, "<rect width=\"{w}\" height=\"{h}\" fill=\"{}\"/>", LIGHT[2]);
        }
        svg.push_str(&self.out);
        svg.push_str("</svg>\n");
        svg
    }

    fn items(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Path { segments, fill, stroke, crisp } => {
                    self.out.push_str("<path d=\"");
                    path_data(&mut self.out, segments);
                    self.out.push('"');
                    match fill {
                        Some((paint, opacity)) => {
                            let _ = write!(self.out, " fill=\"{}\"", self.paint(*paint));
                            if *opacity < 1.0 {
                                let _ = write!(self.out, " fill-opacity=\"{}\"", num(*opacity));
                            }
                        }
                        None => self.out.push_str(" fill=\"none\""),
                    }
                    if let Some(stroke) = stroke {
                        let _ = write!(
                            self.out,
                            " stroke=\"{}\" stroke-width=\"{}\"",
                            self.paint(stroke.paint),
                            num(stroke.width)
                        );
                        if stroke.opacity < 1.0 {
                            let _ = write!(self.out, " stroke-opacity=\"{}\"", num(stroke.opacity));
                        }
                        let pattern: Vec<String> =
                            stroke.dash.pattern().iter().map(|v| num(v * stroke.width)).collect();
                        if !pattern.is_empty() {
                            let _ = write!(self.out, " stroke-dasharray=\"{}\"", pattern.join(" "));
                        }
                        if segments.len() > 2 {
                            self.out.push_str(" stroke-linejoin=\"round\"");
                        }
                    }
                    if *crisp {
                        self.out.push_str(" shape-rendering=\"crispEdges\"");
                    }
                    self.out.push_str("/>\n");
                }
                Item::Label { x, y, anchor, upright, paint, text } => {
                    self.label((*x, *y), *anchor, *upright, *paint, text);
                }
                Item::Clip { window, items } => {
                    let number = self.clips.iter().position(|c| c == window).unwrap_or_else(|| {
                        self.clips.push(*window);
                        self.clips.len() - 1
                    });
                    let _ = writeln!(self.out, "<g clip-path=\"url(#{}-c{number})\">", self.id);
                    self.items(items);
                    self.out.push_str("</g>\n");
                }
            }
        }
    }

    fn label(&mut self, (x, y): (f64, f64), anchor: Anchor, upright: bool, paint: Paint, text: &TextBox) {
        let shift = match anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -text.width / 2.0,
            Anchor::End => -text.width,
        };
        let paint = self.paint(paint);
        let turn = if upright { " rotate(-90)" } else { "" };
        let _ = write!(self.out, "<g transform=\"translate({} {}){turn}\" fill=\"{paint}\"", num(x), num(y));
        if self.look == Look::File {
            let shown: String = text.runs.iter().map(|r| r.text.as_str()).collect();
            let _ = write!(self.out, " aria-label=\"{}\"", escape_xml(&shown));
        }
        self.out.push('>');
        for run in &text.runs {
            match self.look {
                Look::Page => {
                    let class = match run.face {
                        Face::Regular => "",
                        Face::Italic => " font-style=\"italic\"",
                        Face::Bold => " font-weight=\"700\"",
                    };
                    let _ = write!(
                        self.out,
                        "<text x=\"{}\" y=\"{}\" font-size=\"{}\"{class}>{}</text>",
                        num(run.x + shift),
                        num(run.y),
                        num(run.size),
                        escape_xml(&run.text)
                    );
                }
                Look::File => {
                    let font = run.face.font();
                    let scale = run.size / font.units_per_em;
                    let _ = write!(
                        self.out,
                        "<g transform=\"translate({} {}) scale({scale:.5} -{scale:.5})\">",
                        num(run.x + shift),
                        num(run.y)
                    );
                    let mut pen = 0.0;
                    for character in run.text.chars() {
                        let glyph = font.glyph(character);
                        if !glyph.path.is_empty() {
                            let known = if font.has(character) { character } else { '\u{fffd}' };
                            self.glyphs.insert((run.face, known));
                            let _ = write!(
                                self.out,
                                "<use href=\"#{}\" x=\"{}\"/>",
                                glyph_id(&self.id, run.face, known),
                                num(pen)
                            );
                        }
                        pen += glyph.advance;
                    }
                    self.out.push_str("</g>");
                }
            }
        }
        for (corners, width) in &text.rules {
            self.out.push_str("<path d=\"");
            let segments: Vec<Segment> = corners
                .iter()
                .enumerate()
                .map(
                    |(i, (px, py))| {
                        if i == 0 { Segment::Move(px + shift, *py) } else { Segment::Line(px + shift, *py) }
                    },
                )
                .collect();
            path_data(&mut self.out, &segments);
            let _ =
                write!(self.out, "\" fill=\"none\" stroke=\"{paint}\" stroke-width=\"{}\"/>", num(*width));
        }
        self.out.push_str("</g>\n");
    }

    fn paint(&self, paint: Paint) -> String {
        match (self.look, paint) {
            (_, Paint::Rgb(r, g, b)) => format!("#{r:02x}{g:02x}{b:02x}"),
            (Look::Page, Paint::Ink) => "var(--jg-ink)".to_owned(),
            (Look::Page, Paint::Muted) => "var(--jg-muted)".to_owned(),
            (Look::Page, Paint::Surface) => "var(--jg-surface)".to_owned(),
            (Look::Page, Paint::Series(i)) => format!("var(--jg-s{})", i % SERIES_LIGHT.len()),
            (Look::File, Paint::Ink) => LIGHT[0].to_owned(),
            (Look::File, Paint::Muted) => LIGHT[1].to_owned(),
            (Look::File, Paint::Surface) => LIGHT[2].to_owned(),
            (Look::File, Paint::Series(i)) => SERIES_LIGHT[i % SERIES_LIGHT.len()].to_owned(),
        }
    }
}

fn glyph_id(id: &str, face: Face, character: char) -> String {
    let face = match face {
        Face::Regular => 'r',
        Face::Italic => 'i',
        Face::Bold => 'b',
    };
    format!("{id}-{face}{:x}", u32::from(character))
}

fn path_data(out: &mut String, segments: &[Segment]) {
    for segment in segments {
        let _ = match *segment {
            Segment::Move(x, y) => write!(out, "M{} {}", num(x), num(y)),
            Segment::Line(x, y) => write!(out, "L{} {}", num(x), num(y)),
            Segment::Cubic(a, b, c, d, e, f) => {
                write!(out, "C{} {} {} {} {} {}", num(a), num(b), num(c), num(d), num(e), num(f))
            }
            Segment::Close => write!(out, "Z"),
        };
    }
}

/// A coordinate to a hundredth of a pixel, without idle zeros. Anything that is not a number becomes 0: scenes leave
/// such points out before they come here.
pub(crate) fn num(value: f64) -> String {
    if !value.is_finite() {
        return "0".to_owned();
    }
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// CSS variables of a look, for the page: `--jg-ink`, `--jg-muted`, `--jg-surface`, `--jg-s0` to `--jg-s5`.
pub fn css_variables(base: &[&str; 3], series: &[&str; 6]) -> String {
    let names: BTreeMap<&str, &str> =
        [("ink", base[0]), ("muted", base[1]), ("surface", base[2])].into_iter().collect();
    let mut out = String::new();
    for (name, value) in names {
        let _ = write!(out, "--jg-{name}:{value};");
    }
    for (i, value) in series.iter().enumerate() {
        let _ = write!(out, "--jg-s{i}:{value};");
    }
    out
}
