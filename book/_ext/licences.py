"""Licences of what others made: the built book carries the text of each beside the files that it covers.

Each text is copied from the installed package; that of MathJax lies in ``book/_static/licences``, since its package
brings none. The fonts name theirs inside, and the file ``THIRD_PARTY.md`` says which covers what.
"""

from __future__ import annotations

from importlib.metadata import files
from pathlib import Path
from shutil import copyfile

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

# Whatever leaves a file in the built pages.
PACKAGES = (
    "accessible-pygments",
    "jupyter-book",
    "matplotlib",
    "myst-nb",
    "pydata-sphinx-theme",
    "Pygments",
    "Sphinx",
    "sphinx-book-theme",
    "sphinx-copybutton",
    "sphinx-design",
    "sphinx-exercise",
    "sphinx-proof",
    "sphinx-thebe",
    "sphinx-togglebutton",
)


def licence_of(package: str) -> Path:
    """Return the licence in the metadata of an installed package."""
    for file in files(package) or []:
        if file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING")) and ".dist-info" in file.parts[0]:
            return Path(str(file.locate()))
    raise ExtensionError(f"licences: expected a licence in the installed package {package}, found none")


def copy_licences(app: Sphinx, error: Exception | None) -> None:
    """Copy the texts into the built book."""
    if error is not None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / "licences"
    target.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        copyfile(licence_of(package), target / f"{package}.txt")
    copyfile(Path(app.srcdir) / "THIRD_PARTY.md", target / "THIRD_PARTY.md")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("build-finished", copy_licences)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
