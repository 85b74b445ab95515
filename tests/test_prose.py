"""Every decimal number in a chapter's prose was printed by the chapter, to at least as many digits."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

CHAPTERS = sorted((Path(__file__).parents[1] / "book").glob("*.ipynb"))
DECIMAL = re.compile(r"(?<![\w.])[-−]?\d+\.\d+(?!\w|\.\d)")
# Mathematics and code state definitions, not results; a directive's options and a link's target are not prose.
NOT_PROSE = re.compile(
    r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|\{[a-z:]+\}`|\]\([^)]*\)|^:[a-z-]+:.*$", re.DOTALL | re.MULTILINE
)


def unsupported(prose: str, printed: str, source: str) -> list[str]:
    """Decimals of the prose that no printed number rounds to, and that no code sets."""
    found = {float(text.replace("−", "-")) for text in re.findall(r"[-−]?\d+\.\d+", printed + source)}
    missing = []
    for text in DECIMAL.findall(NOT_PROSE.sub(" ", prose)):
        number, places = float(text.replace("−", "-")), len(text.split(".")[1])
        if not any(round(abs(value), places) == abs(number) for value in found):
            missing.append(text)
    return missing


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_decimals_in_the_prose_were_printed(path):
    notebook = nbformat.read(path, as_version=4)
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = "\n".join(o.get("text", "") for cell in code for o in cell.outputs)
    assert unsupported(prose, printed, "\n".join(cell.source for cell in code)) == []


def test_the_lint_sees_an_invented_number():
    assert unsupported("The gap is 0.49 nats, not 0.52.", "gap 0.4875", "") == ["0.52"]
    assert unsupported("In $x = 0.52$ and `0.53`.", "", "") == []
