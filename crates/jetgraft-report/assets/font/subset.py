"""Cut the fonts of the figures out of Inter 3.19 (https://rsms.me/inter, SIL Open Font License 1.1).

    python3 subset.py INTER_FOLDER        # holds Inter-Regular.otf, Inter-Italic.otf, Inter-Bold.otf

Needs fonttools. Keeps the characters that figures and pages use, turns the cubic outlines into the quadratic ones of a
TrueType `glyf` table (the one outline format that `src/plot/font.rs` reads), decomposes composite glyphs, and keeps two
layout features for the page's own text: `kern` and `tnum` (figures of equal width in tables).
"""

import sys
from pathlib import Path

from fontTools import subset
from fontTools.pens.cu2quPen import Cu2QuPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont, newTable

CHARACTERS = (
    "".join(map(chr, range(0x20, 0x7F)))
    + "\u00a0°±²³µ·×÷§©äöüÄÖÜßéèêáàâçñóôåøæÅØÆíú¼½¾"
    + "αβγδεζηθικλμνξοπρστυφχψωϕΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩ"
    + "√−≤≥≈≠∞∂∑∫→←↑↓ℓ–—‘’“”…†‡•‰′\u2009\u2032"
)
MAX_ERROR = 1.0  # font units of 2816 to the em


def truetype(font):
    """Replace the CFF outlines by quadratic ones."""
    glyphs = font.getGlyphSet()
    table = newTable("glyf")
    table.glyphOrder = font.getGlyphOrder()
    table.glyphs = {}
    for name in table.glyphOrder:
        pen = TTGlyphPen(None)
        glyphs[name].draw(Cu2QuPen(pen, MAX_ERROR, reverse_direction=True))
        table.glyphs[name] = pen.glyph()
    font["loca"] = newTable("loca")
    font["glyf"] = table
    maxp = font["maxp"]
    maxp.tableVersion = 0x00010000
    for field in (
        "maxZones maxTwilightPoints maxStorage maxFunctionDefs maxInstructionDefs maxStackElements "
        "maxSizeOfInstructions maxComponentElements maxPoints maxContours maxCompositePoints maxCompositeContours "
        "maxComponentDepth"
    ).split():
        setattr(maxp, field, 1 if field == "maxZones" else 0)
    post = font["post"]
    post.formatType = 3.0
    del font["CFF "]
    if "VORG" in font:
        del font["VORG"]
    font.sfntVersion = "\x00\x01\x00\x00"


def main(folder):
    for face in ("Regular", "Italic", "Bold"):
        font = TTFont(Path(folder) / f"Inter-{face}.otf")
        options = subset.Options()
        options.layout_features = ["kern", "tnum"]
        options.hinting = False
        options.desubroutinize = True
        options.name_IDs = [0, 1, 2, 4, 5, 6, 13, 14]
        options.notdef_outline = True
        cutter = subset.Subsetter(options)
        cutter.populate(text=CHARACTERS)
        cutter.subset(font)
        truetype(font)
        out = Path(__file__).parent / f"Inter-{face}-subset.ttf"
        font.save(out)
        print(f"{out.name}: {out.stat().st_size} bytes, {len(font.getGlyphOrder())} glyphs")


main(*sys.argv[1:])
