"""Maths without a network: copy the part of MathJax that the pages load, from an installed package.

The package ``sphinx-mathjax-offline`` holds all of MathJax 3 (24 MB). TeX in, HTML and fonts out, needs 2.7 MB of it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from shutil import copy2, copytree

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

PACKAGE = "sphinx-mathjax-offline"
NEEDED = ("tex-chtml.js", "output/chtml/fonts", "input/tex/extensions")


def mathjax_folder() -> Path:
    """Return the installed package's MathJax; say what to install when it is missing."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ExtensionError(f"the maths needs the package {PACKAGE}: pip install {PACKAGE}")
    return Path(spec.origin).parent / "static" / "mathjax"


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Copy what the pages load into the built book."""
    if error is not None or app.builder.format != "html":
        return
    source, target = mathjax_folder(), Path(app.outdir) / "_static" / "mathjax"
    for name in NEEDED:
        if (target / name).exists():
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (copytree if (source / name).is_dir() else copy2)(source / name, target / name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    mathjax_folder()
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
