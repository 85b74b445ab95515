"""MathJax's fonts with TrueType outlines, for print.

MathJax ships PostScript outlines, and Chromium writes those into a PDF as Type 3 fonts: drawings that viewers show
coarsely and that are hard to search. TrueType outlines are embedded as fonts.
"""

from __future__ import annotations

from pathlib import Path

from fontTools.pens.cu2quPen import Cu2QuPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont, newTable

# Of 1000 units an em: far below what a printer resolves.
LARGEST_ERROR = 0.5
NONE_OF_THESE = (
    "maxTwilightPoints maxStorage maxFunctionDefs maxInstructionDefs maxStackElements maxSizeOfInstructions "
    "maxComponentElements maxComponentDepth"
).split()


def convert(source: Path, target: Path) -> None:
    """Write every font of the folder ``source`` to the folder ``target``, with TrueType outlines."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.woff")):
        font = TTFont(path)
        if "CFF " in font:
            _to_truetype(font)
        font.save(target / path.name)


def _to_truetype(font: TTFont) -> None:
    glyphs, names, drawn = font.getGlyphSet(), font.getGlyphOrder(), {}
    for name in names:
        pen = TTGlyphPen(None)
        glyphs[name].draw(Cu2QuPen(pen, LARGEST_ERROR, reverse_direction=True))
        drawn[name] = pen.glyph()
    del font["CFF "]
    font["loca"], font["glyf"] = newTable("loca"), newTable("glyf")
    font["glyf"].glyphOrder, font["glyf"].glyphs = names, drawn
    for name, glyph in drawn.items():
        glyph.recalcBounds(font["glyf"])
        width, _ = font["hmtx"][name]
        font["hmtx"][name] = (width, getattr(glyph, "xMin", 0))
    largest = font["maxp"]
    largest.tableVersion, largest.maxZones = 0x00010000, 1
    for name in NONE_OF_THESE:
        setattr(largest, name, 0)
    font["post"].formatType, font["post"].extraNames, font["post"].mapping = 2.0, [], {}
    font.sfntVersion = "\x00\x01\x00\x00"
