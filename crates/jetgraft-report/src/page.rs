//! One self-contained HTML page: the answer first, then the figure that shows it, tables, provenance.
//!
//! The page holds its style, its font and its figures and asks for nothing else; it has no script. Everything that comes
//! from outside is escaped, by the template engine or by [`crate::plot::text::html`].

use std::collections::BTreeSet;
use std::fmt::Write as _;

use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, context};

use crate::error::ReportError;
use crate::figure::Figure;
use crate::plot::colour::{DARK, LIGHT, SERIES_DARK, SERIES_LIGHT};
use crate::plot::font::Face;
use crate::plot::{svg, text};
use crate::table::{Cell, Table};

/// What a page says, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Title (plain).
    pub title: String,
    /// A line under the title: what was run, on what, when (markup); may be empty.
    pub subtitle: String,
    /// The answer, a sentence each (markup): the first words that a reader sees.
    pub answer: Vec<String>,
    /// Numbers shown large beside the answer; may be empty.
    pub numbers: Vec<KeyNumber>,
    /// The rest, the figure that shows the answer first.
    pub sections: Vec<Section>,
    /// Last line (markup): program, version; may be empty.
    pub footer: String,
}

/// A number shown large.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyNumber {
    /// The number with its unit (markup): `3.1 ×`.
    pub value: String,
    /// What it is (markup).
    pub label: String,
    /// Its interval and how it was found (markup).
    pub note: String,
}

/// A part of the page under a heading.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Anchor; made from the heading by [`Section::new`].
    pub id: String,
    /// Heading (plain).
    pub heading: String,
    /// Contents.
    pub blocks: Vec<Block>,
}

impl Section {
    /// A section whose anchor comes from its heading.
    pub fn new(heading: impl Into<String>, blocks: Vec<Block>) -> Self {
        let heading = heading.into();
        Self { id: svg::slug(&heading), heading, blocks }
    }
}

/// A piece of a section.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// A figure.
    Figure(Figure),
    /// A table.
    Table(Table),
    /// A paragraph (markup).
    Text(String),
    /// Names and values: provenance (names markup, values plain).
    Facts(Vec<(String, String)>),
    /// A file or a command, as it is.
    Code {
        /// What it is (markup).
        caption: String,
        /// The text.
        text: String,
    },
    /// Pieces folded away under a line (markup) that opens them.
    Folded {
        /// The line.
        summary: String,
        /// The pieces.
        blocks: Vec<Block>,
    },
}

impl Page {
    /// All figures in the order in which they stand.
    pub fn figures(&self) -> Vec<&Figure> {
        fn collect<'a>(blocks: &'a [Block], out: &mut Vec<&'a Figure>) {
            for block in blocks {
                match block {
                    Block::Figure(figure) => out.push(figure),
                    Block::Folded { blocks, .. } => collect(blocks, out),
                    _ => {}
                }
            }
        }
        let mut out = Vec::new();
        for section in &self.sections {
            collect(&section.blocks, &mut out);
        }
        out
    }

    /// The page as HTML. `figures` is the folder, seen from the page, that holds `ID.svg` and `ID.png` of each figure;
    /// without it the page has no links to files.
    ///
    /// # Errors
    /// [`ReportError::Empty`] for a page without title or answer, [`ReportError::DuplicateId`] for two items of one name,
    /// and what [`Table::check`] finds.
    pub fn html(&self, figures: Option<&str>) -> Result<String, ReportError> {
        self.check()?;
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment.add_template("page", include_str!("../assets/page.html"))?;
        let sections: Vec<Value> = self
            .sections
            .iter()
            .map(|section| {
                let blocks: Vec<Value> = section.blocks.iter().map(|b| block_value(b, figures)).collect();
                context! { id => svg::slug(&section.id), heading => section.heading.as_str(), blocks }
            })
            .collect();
        let numbers: Vec<Value> = self
            .numbers
            .iter()
            .map(|n| context! { value => markup(&n.value), label => markup(&n.label), note => markup(&n.note) })
            .collect();
        let page = environment.get_template("page")?;
        Ok(page.render(context! {
            title => self.title.as_str(),
            subtitle => markup(&self.subtitle),
            answer => self.answer.iter().map(|s| markup(s)).collect::<Vec<_>>(),
            numbers,
            sections,
            footer => markup(&self.footer),
            style => Value::from_safe_string(style()),
        })?)
    }

    fn check(&self) -> Result<(), ReportError> {
        for (what, empty) in [("title", self.title.is_empty()), ("answer", self.answer.is_empty())] {
            if empty {
                return Err(ReportError::Empty { item: "page".to_owned(), what: what.to_owned() });
            }
        }
        fn walk(blocks: &[Block], ids: &mut Vec<String>) -> Result<(), ReportError> {
            for block in blocks {
                match block {
                    Block::Figure(figure) => ids.push(svg::slug(&figure.id)),
                    Block::Table(table) => {
                        table.check()?;
                        ids.push(svg::slug(&table.id));
                    }
                    Block::Folded { blocks, .. } => walk(blocks, ids)?,
                    Block::Text(_) | Block::Facts(_) | Block::Code { .. } => {}
                }
            }
            Ok(())
        }
        let mut ids = Vec::new();
        for section in &self.sections {
            ids.push(format!("section-{}", svg::slug(&section.id)));
            walk(&section.blocks, &mut ids)?;
        }
        let mut seen = BTreeSet::new();
        match ids.into_iter().find(|id| !seen.insert(id.clone())) {
            Some(id) => Err(ReportError::DuplicateId { id }),
            None => Ok(()),
        }
    }
}

/// Markup as HTML that the template must not escape again.
fn markup(source: &str) -> Value {
    Value::from_safe_string(text::html(&text::parse(source)))
}

fn block_value(block: &Block, folder: Option<&str>) -> Value {
    match block {
        Block::Figure(figure) => {
            let id = svg::slug(&figure.id);
            let pictures: Vec<Value> = figure
                .page_svgs()
                .into_iter()
                .map(|(shown, width)| {
                    // A picture may shrink by a fifth before the next one moves below it, and grow by a fifth.
                    context! {
                        svg => Value::from_safe_string(shown),
                        least => svg::num(width * 0.8),
                        most => svg::num(width * 1.2),
                    }
                })
                .collect();
            let links = folder.map(|folder| {
                let folder = folder.trim_end_matches('/');
                let at = |extension: &str| {
                    let path = match folder {
                        "" => format!("{id}.{extension}"),
                        folder => format!("{folder}/{id}.{extension}"),
                    };
                    Value::from_safe_string(text::escape_xml(&path))
                };
                context! { svg => at("svg"), png => at("png") }
            });
            context! {
                kind => "figure", id, title => figure.title.as_str(), caption => markup(&figure.caption), links,
                single => pictures.len() == 1, pictures,
            }
        }
        Block::Table(table) => table_value(table),
        Block::Text(paragraph) => context! { kind => "text", text => markup(paragraph) },
        Block::Facts(facts) => {
            let facts: Vec<Value> =
                facts.iter().map(|(name, value)| context! { name => markup(name), value }).collect();
            context! { kind => "facts", facts }
        }
        Block::Code { caption, text } => context! { kind => "code", caption => markup(caption), text },
        Block::Folded { summary, blocks } => {
            let blocks: Vec<Value> = blocks.iter().map(|b| block_value(b, folder)).collect();
            context! { kind => "folded", summary => markup(summary), blocks }
        }
    }
}

fn table_value(table: &Table) -> Value {
    // A column with intervals is two: values to the right, intervals to the left, so that decimals stand in line.
    let split: Vec<bool> = (0..table.columns.len())
        .map(|i| table.rows.iter().any(|r| r.cells.get(i).is_some_and(|c| !c.parts().1.is_empty())))
        .collect();
    let columns: Vec<Value> = table
        .columns
        .iter()
        .zip(&split)
        .map(|(c, split)| context! { name => markup(&c.name), number => c.number, split => *split })
        .collect();
    let width = split.iter().map(|s| 1 + usize::from(*s)).sum::<usize>();
    let mut groups: Vec<(&str, Vec<Value>)> = Vec::new();
    for row in &table.rows {
        let cells: Vec<Value> = row
            .cells
            .iter()
            .zip(table.columns.iter().zip(&split))
            .map(|(cell, (column, split))| {
                let (value, interval) = cell.parts();
                let value = if let Cell::Markup(source) = cell { markup(source) } else { Value::from(value) };
                context! { value, interval, number => column.number, split => *split }
            })
            .collect();
        let row_value = context! { cells, strong => row.strong };
        match groups.last_mut() {
            Some((name, rows)) if *name == row.group => rows.push(row_value),
            _ => groups.push((&row.group, vec![row_value])),
        }
    }
    let groups: Vec<Value> = groups
        .into_iter()
        .map(|(name, rows)| context! { name => if name.is_empty() { Value::from("") } else { markup(name) }, rows })
        .collect();
    context! {
        kind => "table",
        id => svg::slug(&table.id),
        caption => markup(&table.caption),
        columns,
        width,
        groups,
        notes => table.notes.iter().map(|n| markup(n)).collect::<Vec<_>>(),
    }
}

/// The style sheet with the colours of both looks and the font in it.
fn style() -> String {
    let mut out = String::new();
    for face in Face::ALL {
        let (style, weight) = match face {
            Face::Regular => ("normal", 400),
            Face::Italic => ("italic", 400),
            Face::Bold => ("normal", 700),
        };
        let _ = writeln!(
            out,
            "@font-face{{font-family:\"Jetgraft Inter\";font-style:{style};font-weight:{weight};\
             src:url(data:font/ttf;base64,{}) format(\"truetype\")}}",
            base64(face.bytes())
        );
    }
    let _ = writeln!(out, ":root{{{}}}", svg::css_variables(&LIGHT, &SERIES_LIGHT));
    // On screen only: paper is light.
    let _ = writeln!(
        out,
        "@media screen and (prefers-color-scheme: dark){{:root{{{}}}}}",
        svg::css_variables(&DARK, &SERIES_DARK)
    );
    out.push_str(include_str!("../assets/page.css"));
    out
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| (word << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for k in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * k)) as usize & 63];
            out.push(if k <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn empty_pages_and_repeated_ids_are_refused() {
        assert!(matches!(Page::default().html(None), Err(ReportError::Empty { .. })));
        let table = || {
            let mut table = Table::new("same", "c");
            table.columns = vec![crate::table::Column::text("a")];
            table.push(vec![Cell::text("x")]);
            Block::Table(table)
        };
        let page = Page {
            title: "t".into(),
            answer: vec!["a".into()],
            sections: vec![Section::new("one", vec![table(), table()])],
            ..Page::default()
        };
        assert!(matches!(page.html(None), Err(ReportError::DuplicateId { .. })));
    }
}
