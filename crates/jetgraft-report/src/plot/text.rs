//! Short mathematical labels: `_{}`, `^{}`, `\it{}`, `\bf{}`, `\sqrt{}`, Greek and a few symbols by name.
//!
//! `\it{p}_{T} > 500 GeV`, `1/\epsilon_{B}`, `10^{-3}`, `\sqrt{\it{s}} = 13 TeV`. Everything else stands for itself, and
//! no text is an error: an unknown command or an unclosed brace is shown as it was written. Names that come from outside
//! go through [`escape`] first, so that `fine_{tune}` keeps its braces.

use super::font::Face;

/// A piece of a label.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Characters of one face.
    Text(String, Face),
    /// A subscript.
    Sub(Vec<Node>),
    /// A superscript.
    Sup(Vec<Node>),
    /// A square root over its contents.
    Sqrt(Vec<Node>),
}

/// Nesting beyond this depth is shown as written.
const MAX_DEPTH: usize = 8;

const SYMBOLS: &[(&str, &str)] = &[
    ("alpha", "α"),
    ("beta", "β"),
    ("gamma", "γ"),
    ("delta", "δ"),
    ("epsilon", "ε"),
    ("zeta", "ζ"),
    ("eta", "η"),
    ("theta", "θ"),
    ("kappa", "κ"),
    ("lambda", "λ"),
    ("mu", "μ"),
    ("nu", "ν"),
    ("xi", "ξ"),
    ("pi", "π"),
    ("rho", "ρ"),
    ("sigma", "σ"),
    ("tau", "τ"),
    ("phi", "φ"),
    ("chi", "χ"),
    ("psi", "ψ"),
    ("omega", "ω"),
    ("Gamma", "Γ"),
    ("Delta", "Δ"),
    ("Theta", "Θ"),
    ("Lambda", "Λ"),
    ("Xi", "Ξ"),
    ("Pi", "Π"),
    ("Sigma", "Σ"),
    ("Phi", "Φ"),
    ("Psi", "Ψ"),
    ("Omega", "Ω"),
    ("times", "×"),
    ("cdot", "·"),
    ("pm", "±"),
    ("leq", "≤"),
    ("geq", "≥"),
    ("neq", "≠"),
    ("approx", "≈"),
    ("infty", "∞"),
    ("to", "→"),
    ("ell", "ℓ"),
    ("sum", "∑"),
    ("int", "∫"),
    ("partial", "∂"),
];

/// Reads a label.
pub fn parse(markup: &str) -> Vec<Node> {
    let characters: Vec<char> = markup.chars().collect();
    let mut parser = Parser { characters: &characters, at: 0 };
    let mut nodes = Vec::new();
    while parser.at < characters.len() {
        parser.sequence(&mut nodes, Face::Regular, 0);
        // A closing brace without an opening one stands for itself.
        if parser.peek(0) == Some('}') {
            parser.at += 1;
            push_text(&mut nodes, "}", Face::Regular);
        }
    }
    nodes
}

struct Parser<'a> {
    characters: &'a [char],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.characters.get(self.at + ahead).copied()
    }

    /// Reads up to the end or an unmatched `}`, which is left in place.
    fn sequence(&mut self, out: &mut Vec<Node>, face: Face, depth: usize) {
        while let Some(c) = self.peek(0) {
            match c {
                '}' => return,
                '_' | '^' if self.peek(1) == Some('{') && depth < MAX_DEPTH => {
                    self.at += 2;
                    let mut inside = Vec::new();
                    self.group(&mut inside, face, depth + 1);
                    out.push(if c == '_' { Node::Sub(inside) } else { Node::Sup(inside) });
                }
                '\\' => self.command(out, face, depth),
                _ => {
                    self.at += 1;
                    push_text(out, c.encode_utf8(&mut [0; 4]), face);
                }
            }
        }
    }

    /// Reads a group whose opening brace has been read, with its closing brace; the end of the text closes it too.
    fn group(&mut self, out: &mut Vec<Node>, face: Face, depth: usize) {
        self.sequence(out, face, depth);
        if self.peek(0) == Some('}') {
            self.at += 1;
        }
    }

    fn command(&mut self, out: &mut Vec<Node>, face: Face, depth: usize) {
        let name: String =
            self.characters[self.at + 1..].iter().take_while(|c| c.is_ascii_alphabetic()).collect();
        let after = 1 + name.chars().count();
        let opens = self.peek(after) == Some('{') && depth < MAX_DEPTH;
        match name.as_str() {
            "" => {
                // `\` before another character: that character, as it is.
                self.at += 1;
                let shown = self.peek(0);
                push_text(out, shown.unwrap_or('\\').encode_utf8(&mut [0; 4]), face);
                self.at += usize::from(shown.is_some());
            }
            "it" | "bf" | "rm" if opens => {
                self.at += after + 1;
                let inner = match name.as_str() {
                    "it" => Face::Italic,
                    "bf" => Face::Bold,
                    _ => Face::Regular,
                };
                self.group(out, inner, depth + 1);
            }
            "sqrt" if opens => {
                self.at += after + 1;
                let mut inside = Vec::new();
                self.group(&mut inside, face, depth + 1);
                out.push(Node::Sqrt(inside));
            }
            other => {
                self.at += after;
                match SYMBOLS.iter().find(|(symbol, _)| *symbol == other) {
                    Some((_, shown)) => push_text(out, shown, face),
                    None => {
                        push_text(out, "\\", face);
                        push_text(out, other, face);
                    }
                }
            }
        }
    }
}

fn push_text(out: &mut Vec<Node>, text: &str, face: Face) {
    match out.last_mut() {
        Some(Node::Text(last, last_face)) if *last_face == face => last.push_str(text),
        _ => out.push(Node::Text(text.to_owned(), face)),
    }
}

/// Makes a text from outside stand for itself in a label; control characters become spaces.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '_' | '^' | '{' | '}' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// The label without markup, for titles and screen readers: `p_T`, `10^-3`, `√s`.
pub fn plain(nodes: &[Node]) -> String {
    let mut out = String::new();
    for node in nodes {
        match node {
            Node::Text(text, _) => out.push_str(text),
            Node::Sub(inside) => {
                out.push('_');
                out.push_str(&plain(inside));
            }
            Node::Sup(inside) => {
                out.push('^');
                out.push_str(&plain(inside));
            }
            Node::Sqrt(inside) => {
                let inside = plain(inside);
                out.push_str(&if inside.chars().count() > 1 {
                    format!("√({inside})")
                } else {
                    format!("√{inside}")
                });
            }
        }
    }
    out
}

/// The label as HTML, escaped.
pub fn html(nodes: &[Node]) -> String {
    let mut out = String::new();
    for node in nodes {
        match node {
            Node::Text(text, Face::Regular) => out.push_str(&escape_xml(text)),
            Node::Text(text, Face::Italic) => out.push_str(&format!("<i>{}</i>", escape_xml(text))),
            Node::Text(text, Face::Bold) => out.push_str(&format!("<b>{}</b>", escape_xml(text))),
            Node::Sub(inside) => out.push_str(&format!("<sub>{}</sub>", html(inside))),
            Node::Sup(inside) => out.push_str(&format!("<sup>{}</sup>", html(inside))),
            Node::Sqrt(inside) => {
                out.push_str(&format!("√<span class=\"root\">{}</span>", html(inside)));
            }
        }
    }
    out
}

/// Escapes a text for XML and HTML, in elements and in attributes. Characters that XML forbids become U+FFFD.
pub fn escape_xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Characters of one face at one place, relative to the label's start on its baseline; y down.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Offset to the right.
    pub x: f64,
    /// Offset down.
    pub y: f64,
    /// Font size.
    pub size: f64,
    /// Face.
    pub face: Face,
    /// Characters.
    pub text: String,
}

/// A label with its measures, y down from the baseline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextBox {
    /// What to set.
    pub runs: Vec<Run>,
    /// Radical signs: corners of an open line, and its width.
    pub rules: Vec<(Vec<(f64, f64)>, f64)>,
    /// Width.
    pub width: f64,
    /// Height above the baseline.
    pub ascent: f64,
    /// Depth below the baseline.
    pub descent: f64,
}

/// Heights of the embedded face in ems.
const ASCENT: f64 = 0.74;
const DESCENT: f64 = 0.21;
const SCRIPT_SIZE: f64 = 0.7;
const SUB_DROP: f64 = 0.24;
const SUP_RISE: f64 = 0.38;

/// Places the pieces of a label at a font size.
pub fn layout(nodes: &[Node], size: f64) -> TextBox {
    let mut text_box = TextBox { ascent: size * ASCENT, descent: size * DESCENT, ..TextBox::default() };
    place(nodes, size, 0.0, &mut text_box);
    text_box
}

/// Places a label written as markup.
pub fn layout_markup(markup: &str, size: f64) -> TextBox {
    layout(&parse(markup), size)
}

fn place(nodes: &[Node], size: f64, baseline: f64, out: &mut TextBox) {
    let mut previous_script: Option<(bool, f64)> = None;
    for node in nodes {
        let mut script = None;
        match node {
            Node::Text(text, face) => {
                out.runs.push(Run { x: out.width, y: baseline, size, face: *face, text: text.clone() });
                out.width += face.font().width(text, size);
                out.ascent = out.ascent.max(size * ASCENT - baseline);
                out.descent = out.descent.max(size * DESCENT + baseline);
            }
            Node::Sub(inside) | Node::Sup(inside) => {
                let is_sub = matches!(node, Node::Sub(_));
                let shift = if is_sub { size * SUB_DROP } else { -size * SUP_RISE };
                // A subscript and a superscript in a row stand above each other.
                let start = match previous_script {
                    Some((was_sub, start)) if was_sub != is_sub => start,
                    _ => out.width,
                };
                let reached = out.width;
                out.width = start + size * 0.02;
                place(inside, size * SCRIPT_SIZE, baseline + shift, out);
                out.width = out.width.max(reached) + size * 0.02;
                script = Some((is_sub, start));
            }
            Node::Sqrt(inside) => {
                let inner = layout(inside, size);
                let (left, sign) = (out.width, size * 0.52);
                let (top, bottom) = (baseline - inner.ascent - size * 0.12, baseline + inner.descent * 0.5);
                let end = left + sign + inner.width + size * 0.06;
                out.rules.push((
                    vec![
                        (left + sign * 0.08, baseline - size * 0.26),
                        (left + sign * 0.3, baseline - size * 0.34),
                        (left + sign * 0.58, bottom),
                        (left + sign * 0.95, top),
                        (end, top),
                    ],
                    size * 0.06,
                ));
                out.width = left + sign;
                place(inside, size, baseline, out);
                out.width = end + size * 0.04;
                out.ascent = out.ascent.max(size * 0.06 - top);
            }
        }
        previous_script = script;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator, so that the properties below are tried on many strings without another crate.
    fn strings(n: usize) -> Vec<String> {
        const PIECES: &[&str] = &[
            "a", "B", " ", "_{", "^{", "}", "{", "\\", "\\it{", "\\bf{", "\\sqrt{", "\\alpha", "\\nope", "_",
            "^", "<", "&", "\"", "é", "漢", "\u{0}", "\n", "T", "10", "\\\\", "\\_",
        ];
        let mut state = 7u64;
        let mut next = move |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        (0..n).map(|_| (0..next(24)).map(|_| PIECES[next(PIECES.len())]).collect()).collect()
    }

    #[test]
    fn reads_scripts_faces_and_symbols() {
        assert_eq!(
            parse("\\it{p}_{T}"),
            vec![
                Node::Text("p".into(), Face::Italic),
                Node::Sub(vec![Node::Text("T".into(), Face::Regular)])
            ]
        );
        assert_eq!(plain(&parse("1/\\epsilon_{B} at 10^{-3}, \\sqrt{s}")), "1/ε_B at 10^-3, √s");
        assert_eq!(plain(&parse("fine_tune a^b \\nope")), "fine_tune a^b \\nope");
        assert_eq!(html(&parse("10^{3} <b>")), "10<sup>3</sup> &lt;b&gt;");
    }

    #[test]
    fn any_string_is_a_label_with_finite_measures() {
        for text in strings(4000) {
            let nodes = parse(&text);
            let placed = layout(&nodes, 15.0);
            assert!(placed.width.is_finite() && placed.width >= 0.0, "{text:?}");
            assert!(placed.ascent > 0.0 && placed.descent > 0.0);
            assert!(placed.runs.iter().all(|r| r.x.is_finite() && r.y.is_finite() && r.size > 0.0));
            let shown = html(&nodes);
            for tag in ["<sub>", "<sup>", "<i>", "<b>", "<span class=\"root\">"] {
                let close =
                    format!("</{}>", tag.trim_matches(['<', '>']).split(' ').next().unwrap_or_default());
                assert_eq!(shown.matches(tag).count(), shown.matches(&close).count(), "{text:?}");
            }
        }
    }

    #[test]
    fn escaped_text_stands_for_itself() {
        for text in strings(4000) {
            let expected: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let nodes = parse(&escape(&text));
            assert_eq!(plain(&nodes), expected);
            assert!(nodes.len() <= 1, "{text:?} is one plain run");
        }
    }

    #[test]
    fn deep_nesting_ends() {
        let deep = "_{".repeat(10_000);
        assert!(layout(&parse(&deep), 10.0).width > 0.0);
    }

    #[test]
    fn scripts_are_small_and_shifted() {
        let placed = layout_markup("x^{2}_{i}", 20.0);
        let (base, sup, sub) = (&placed.runs[0], &placed.runs[1], &placed.runs[2]);
        assert!(sup.y < base.y && sub.y > base.y && sup.size < base.size);
        assert!((sup.x - sub.x).abs() < 1e-9, "scripts in a row are stacked");
    }

    #[test]
    fn xml_escape_leaves_no_markup() {
        let shown = escape_xml("<script>alert('x' & \"y\")</script>\u{1}");
        assert!(!shown.contains(['<', '>', '"', '\'', '\u{1}']));
    }
}
