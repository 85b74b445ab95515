"""Run the notebooks of the book in clean kernels and keep them in one normal form.

    python book/_tools/notebooks.py execute [paths]   run top to bottom, store the outputs
    python book/_tools/notebooks.py check [paths]     name every notebook that is not in the normal form

The normal form holds what was written and what was computed, and nothing of the machine or the day: sorted
JSON, kept cell ids, no timings, no kernel versions, one piece per printed stream. Two runs that compute the
same store the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
CELL_TIMEOUT = 300  # seconds; the same as nbval's in pyproject.toml

KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE_INFO = {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"}
NOTEBOOK_METADATA = {"accelerator", "mystnb"}
CELL_METADATA = {"mystnb", "nbgrader", "reason", "slideshow", "tags"}


def find(paths: list[Path] | None = None) -> list[Path]:
    """Return the notebooks at or below `paths` (by default the whole book), in reading order."""
    found: set[Path] = set()
    for path in paths or [BOOK]:
        if not path.exists():
            raise FileNotFoundError(f"no such notebook or folder: {path}")
        found |= {path} if path.is_file() else set(path.rglob("*.ipynb"))
    return sorted(path for path in found if ".ipynb_checkpoints" not in path.parts)


def read(path: Path) -> NotebookNode:
    """Read a notebook of any minor version as the newest one of format 4."""
    return cast("NotebookNode", nbformat.reads(path.read_text(encoding="utf-8"), as_version=4))


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Return a copy of `notebook` in the normal form; execution counts and outputs keep their values."""
    notebook = nbformat.from_dict(notebook)
    kept = {key: value for key, value in notebook.metadata.items() if key in NOTEBOOK_METADATA}
    notebook.metadata = nbformat.from_dict({**kept, "kernelspec": KERNELSPEC, "language_info": LANGUAGE_INFO})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    ids: set[str] = set()
    for cell in notebook.cells:
        cell.source = cell.source.rstrip()
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k in CELL_METADATA})
        cell.id = _unique_id(cell, ids)
        if cell.cell_type == "code":
            cell.outputs = _merge_streams(cell.outputs)
    return notebook


def _unique_id(cell: NotebookNode, taken: set[str]) -> str:
    """Keep an id that was given; derive a missing or doubled one from the cell's text."""
    name = str(cell.get("id") or "")
    for attempt in range(len(taken) + 2):
        if name and name not in taken:
            break
        name = hashlib.sha256(f"{attempt}\n{cell.source}".encode()).hexdigest()[:8]
    taken.add(name)
    return name


def _merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbours of one stream: where a print was cut into messages depends on timing alone."""
    merged: list[NotebookNode] = []
    for output in outputs:
        output.pop("transient", None)
        stream = output.get("name") if output.output_type == "stream" else None
        if stream and merged and merged[-1].get("name") == stream:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def dumps(notebook: NotebookNode) -> str:
    """Return the text that is stored: the normal form as sorted JSON with a final newline."""
    normal = normalise(notebook)
    nbformat.validate(normal)
    return cast("str", nbformat.writes(normal)).rstrip("\n") + "\n"


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step, so that no half-written one can stay."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        temporary.chmod(path.stat().st_mode if path.exists() else 0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write(path: Path, notebook: NotebookNode) -> bool:
    """Store a notebook in the normal form; tell whether the file changed."""
    text = dumps(notebook)
    changed = path.read_text(encoding="utf-8") != text
    if changed:
        write_text(path, text)
    return changed


def is_normal(path: Path) -> bool:
    """Tell whether the stored bytes are those of the normal form."""
    return path.read_text(encoding="utf-8") == dumps(read(path))


def execute(path: Path) -> NotebookNode:
    """Run a notebook top to bottom in a new kernel that starts in the notebook's folder, as nbval does."""
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=ERROR"],  # a kernel warns that it listens on the loopback unencrypted
    )
    client.execute()
    return notebook


def _execute_all(paths: list[Path]) -> int:
    """Run and store each notebook; one that fails keeps its stored form and is named."""
    failed = 0
    for path in paths:
        start = time.perf_counter()
        try:
            changed = write(path, execute(path))
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            failed += 1
            print(f"{path.name}: failed, left as it was\n{error}", file=sys.stderr)
            continue
        news = "new outputs stored" if changed else "unchanged"
        print(f"{path.name}: {news}, {time.perf_counter() - start:.0f} s")
    return failed


def _check_all(paths: list[Path]) -> int:
    """Name each notebook that is not in the normal form."""
    odd = [path for path in paths if not is_normal(path)]
    for path in odd:
        print(f"{path.name}: not in the normal form, run `make notebooks`", file=sys.stderr)
    return len(odd)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status is 1 when a notebook failed."""
    parser = argparse.ArgumentParser(description="Run the book's notebooks and keep them in one normal form.")
    parser.add_argument("command", choices=["execute", "check"])
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks or folders (default: book/)")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        paths = find([path.resolve() for path in options.paths])
    except FileNotFoundError as error:
        parser.error(str(error))
    if not paths:
        parser.error("there is no notebook to work on")
    command = _execute_all if options.command == "execute" else _check_all
    return 1 if command(paths) else 0


if __name__ == "__main__":
    sys.exit(main())
