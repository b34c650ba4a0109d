//! The embedded font: three faces of Inter (SIL Open Font License, `assets/font/`), their widths and outlines.
//!
//! Figures set their own text, so that a file looks the same everywhere: the stand-alone SVG and the PNG draw glyphs as
//! paths from here, the page embeds the same font and sets the same advance widths (kerning off inside figures).
//! The reader knows just what the subset holds: `cmap` format 4 and simple `glyf` outlines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

/// A face of the embedded family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Face {
    /// Upright, normal weight.
    Regular,
    /// Slanted: variables.
    Italic,
    /// Upright, bold: the experiment's name.
    Bold,
}

impl Face {
    /// All faces.
    pub const ALL: [Self; 3] = [Self::Regular, Self::Italic, Self::Bold];

    /// The TrueType file.
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Self::Regular => include_bytes!("../../assets/font/Inter-Regular-subset.ttf"),
            Self::Italic => include_bytes!("../../assets/font/Inter-Italic-subset.ttf"),
            Self::Bold => include_bytes!("../../assets/font/Inter-Bold-subset.ttf"),
        }
    }

    /// The parsed face.
    pub fn font(self) -> &'static Font {
        static FONTS: LazyLock<[Font; 3]> =
            LazyLock::new(|| Face::ALL.map(|face| Font::parse(face.bytes()).unwrap_or_default()));
        match self {
            Self::Regular => &FONTS[0],
            Self::Italic => &FONTS[1],
            Self::Bold => &FONTS[2],
        }
    }
}

/// One glyph, in ems, y up.
#[derive(Clone, Debug, PartialEq)]
pub struct Glyph {
    /// Width that the pen moves on by, in font units.
    pub advance: f64,
    /// SVG path in font units, y up; empty for a space.
    pub path: String,
}

/// Widths and outlines of the characters of one face.
#[derive(Clone, Debug, PartialEq)]
pub struct Font {
    /// Font units per em.
    pub units_per_em: f64,
    glyphs: BTreeMap<char, Glyph>,
    missing: Glyph,
}

impl Default for Font {
    /// A font without characters: every glyph is a blank of 0.6 em.
    fn default() -> Self {
        Self {
            units_per_em: 1000.0,
            glyphs: BTreeMap::new(),
            missing: Glyph { advance: 600.0, path: String::new() },
        }
    }
}

impl Font {
    /// The glyph of a character, or the box that stands for a missing one.
    pub fn glyph(&self, character: char) -> &Glyph {
        self.glyphs.get(&character).unwrap_or(&self.missing)
    }

    /// True where the face has the character.
    pub fn has(&self, character: char) -> bool {
        self.glyphs.contains_key(&character)
    }

    /// Width of a text at `size`, in the unit of `size`.
    pub fn width(&self, text: &str, size: f64) -> f64 {
        text.chars().map(|c| self.glyph(c).advance).sum::<f64>() * size / self.units_per_em
    }

    /// Reads a TrueType file; `None` where it is not one that this reader knows.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let file = Bytes(bytes);
        let table = |tag: &[u8; 4]| -> Option<Bytes<'_>> {
            (0..usize::from(file.u16(4)?)).find_map(|i| {
                let entry = 12 + 16 * i;
                let found = bytes.get(entry..entry + 4)? == tag;
                let (start, length) = (file.u32(entry + 8)? as usize, file.u32(entry + 12)? as usize);
                found.then(|| bytes.get(start..start.checked_add(length)?).map(Bytes)).flatten()
            })
        };
        let head = table(b"head")?;
        let units_per_em = f64::from(head.u16(18)?);
        let long_offsets = head.u16(50)? == 1;
        let n_metrics = usize::from(table(b"hhea")?.u16(34)?).max(1);
        let (hmtx, loca, glyf) = (table(b"hmtx")?, table(b"loca")?, table(b"glyf")?);

        let glyph = |id: usize| -> Option<Glyph> {
            let advance = f64::from(hmtx.u16(4 * id.min(n_metrics - 1))?);
            let (start, end) = if long_offsets {
                (loca.u32(4 * id)? as usize, loca.u32(4 * id + 4)? as usize)
            } else {
                (2 * usize::from(loca.u16(2 * id)?), 2 * usize::from(loca.u16(2 * id + 2)?))
            };
            let path = if start == end { String::new() } else { outline(Bytes(glyf.0.get(start..end)?))? };
            Some(Glyph { advance, path })
        };
        let mut glyphs = BTreeMap::new();
        for (character, id) in characters(table(b"cmap")?)? {
            glyphs.insert(character, glyph(id)?);
        }
        Some(Self { units_per_em, glyphs, missing: glyph(0)? })
    }
}

/// Big-endian reads that answer `None` beyond the end.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn u8(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }
    fn u16(self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(self.0.get(at..at.checked_add(2)?)?.try_into().ok()?))
    }
    fn i16(self, at: usize) -> Option<i16> {
        self.u16(at).map(u16::cast_signed)
    }
    fn u32(self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(self.0.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }
}

/// Character to glyph number, from the `cmap` subtable of format 4 (OpenType specification, "cmap").
fn characters(cmap: Bytes<'_>) -> Option<Vec<(char, usize)>> {
    let subtable = (0..usize::from(cmap.u16(2)?)).find_map(|i| {
        let start = cmap.u32(4 + 8 * i + 4)? as usize;
        (cmap.u16(start)? == 4).then(|| cmap.0.get(start..).map(Bytes)).flatten()
    })?;
    let twice_segments = usize::from(subtable.u16(6)?);
    let (ends, starts) = (14, 16 + twice_segments);
    let (deltas, ranges) = (starts + twice_segments, starts + 2 * twice_segments);
    let mut found = Vec::new();
    for segment in (0..twice_segments).step_by(2) {
        let (start, end) = (subtable.u16(starts + segment)?, subtable.u16(ends + segment)?);
        let (delta, range) = (subtable.u16(deltas + segment)?, usize::from(subtable.u16(ranges + segment)?));
        for code in start..=end {
            let id = if range == 0 {
                code.wrapping_add(delta)
            } else {
                match subtable.u16(ranges + segment + range + 2 * usize::from(code - start)) {
                    Some(0) | None => 0,
                    Some(id) => id.wrapping_add(delta),
                }
            };
            if let (Some(character), true) = (char::from_u32(u32::from(code)), id != 0) {
                found.push((character, usize::from(id)));
            }
        }
    }
    Some(found)
}

/// A simple glyph as an SVG path. Two neighbouring off-curve points have an on-curve point half way between them.
fn outline(glyph: Bytes<'_>) -> Option<String> {
    const ON_CURVE: u8 = 1;
    const X_SHORT: u8 = 2;
    const Y_SHORT: u8 = 4;
    const REPEAT: u8 = 8;
    const X_SAME: u8 = 16;
    const Y_SAME: u8 = 32;

    let n_contours = usize::try_from(glyph.i16(0)?).ok()?;
    let ends: Vec<usize> =
        (0..n_contours).map(|i| glyph.u16(10 + 2 * i).map(usize::from)).collect::<Option<_>>()?;
    let n_points = ends.last().map_or(0, |end| end + 1);
    let mut at = 10 + 2 * n_contours;
    at += 2 + usize::from(glyph.u16(at)?);

    let mut flags = Vec::with_capacity(n_points);
    while flags.len() < n_points {
        let flag = glyph.u8(at)?;
        at += 1;
        let mut times = 1;
        if flag & REPEAT != 0 {
            times += usize::from(glyph.u8(at)?);
            at += 1;
        }
        flags.extend(std::iter::repeat_n(flag, times));
    }
    let mut coordinates = |short: u8, same: u8| -> Option<Vec<f64>> {
        let mut value = 0i32;
        flags
            .iter()
            .take(n_points)
            .map(|flag| {
                if flag & short != 0 {
                    let step = i32::from(glyph.u8(at)?);
                    at += 1;
                    value += if flag & same != 0 { step } else { -step };
                } else if flag & same == 0 {
                    value += i32::from(glyph.i16(at)?);
                    at += 2;
                }
                Some(f64::from(value))
            })
            .collect()
    };
    let xs = coordinates(X_SHORT, X_SAME)?;
    let ys = coordinates(Y_SHORT, Y_SAME)?;

    let mut path = String::new();
    let mut first = 0;
    for end in ends {
        let points: Vec<(f64, f64, bool)> = (first..=end)
            .map(|i| Some((*xs.get(i)?, *ys.get(i)?, flags.get(i)? & ON_CURVE != 0)))
            .collect::<Option<_>>()?;
        first = end + 1;
        contour(&mut path, &points);
    }
    Some(path)
}

fn contour(path: &mut String, points: &[(f64, f64, bool)]) {
    let n = points.len();
    if n < 2 {
        return;
    }
    let middle = |a: (f64, f64, bool), b: (f64, f64, bool)| ((a.0 + b.0) / 2.0, (a.1 + b.1) / 2.0);
    let begin = points.iter().position(|p| p.2);
    let (start, offset) = match begin {
        Some(i) => ((points[i].0, points[i].1), i + 1),
        None => (middle(points[n - 1], points[0]), 0),
    };
    let steps = if begin.is_some() { n - 1 } else { n };
    let _ = write!(path, "M{} {}", start.0, start.1);
    let mut k = 0;
    while k < steps {
        let point = points[(offset + k) % n];
        k += 1;
        if point.2 {
            let _ = write!(path, "L{} {}", point.0, point.1);
            continue;
        }
        let target = if k == steps {
            start
        } else {
            let next = points[(offset + k) % n];
            if next.2 {
                k += 1;
                (next.0, next.1)
            } else {
                middle(point, next)
            }
        };
        let _ = write!(path, "Q{} {} {} {}", point.0, point.1, target.0, target.1);
    }
    path.push('Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faces_parse_and_hold_what_figures_need() {
        for face in Face::ALL {
            let font = Font::parse(face.bytes()).expect("embedded font");
            for character in "ABCxyz0123456789−×·√±≤≥εΔηφτψχ[]()/".chars() {
                assert!(font.has(character), "{face:?} lacks {character:?}");
                let glyph = font.glyph(character);
                assert!(glyph.advance > 0.0 && glyph.path.starts_with('M') && glyph.path.ends_with('Z'));
            }
            assert!(font.glyph(' ').path.is_empty());
        }
    }

    #[test]
    fn widths_add_up_and_scale() {
        let font = Face::Regular.font();
        assert!((font.width("ab", 10.0) - font.width("a", 10.0) - font.width("b", 10.0)).abs() < 1e-12);
        assert!((font.width("ab", 20.0) - 2.0 * font.width("ab", 10.0)).abs() < 1e-12);
    }

    /// A damaged file answers `None` or another font, and never panics.
    #[test]
    fn damaged_files_do_not_panic() {
        let good = Face::Regular.bytes();
        for length in (0..good.len()).step_by(997) {
            let _ = Font::parse(&good[..length]);
        }
        let mut state = 1u64;
        for _ in 0..300 {
            let mut bad = good.to_vec();
            for _ in 0..20 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let at = (state >> 33) as usize % bad.len();
                bad[at] = (state >> 25) as u8;
            }
            let _ = Font::parse(&bad);
        }
    }
}
