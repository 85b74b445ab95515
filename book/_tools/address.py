"""Carry the repository's public address from pyproject.toml to every file that shows it.

    python book/_tools/address.py           rewrite _config.yml and the set-up cell of every chapter
    python book/_tools/address.py --check   rewrite nothing, name the files that disagree

The address is `Repository` under [project.urls]. While it is absent the book has no repository link and no
launch buttons, and the set-up cell says how to install the package instead of fetching it.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import notebooks

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "# address: begin", "# address: end"

# The theme builds links for these hosts and stops the build on any other; Colab opens notebooks of the first.
LINKED_HOSTS = ("github.com", "gitlab.com", "bitbucket.org")
COLAB_HOST = "github.com"

SETUP_UNSET = """\
# The chapters compute with the book's package, vae_lib.
import importlib.util

if importlib.util.find_spec("vae_lib") is None:
    raise ModuleNotFoundError(
        "no vae_lib: run `pip install .` in the book's folder, then restart"
    )"""

SETUP_KNOWN = """\
# The chapters compute with the book's package: fetched where it is missing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("vae_lib") is None:
    package = "git+{address}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", package]
    subprocess.run(command, check=True)"""


def read_address(root: Path) -> str | None:
    """Return the address in `root`/pyproject.toml, or None while it is unset."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository")
    if address is None:
        return None
    parts = urlsplit(str(address))
    if parts.scheme != "https" or not parts.netloc or not parts.path.strip("/"):
        raise ValueError(f"Repository in pyproject.toml: expected https://host/owner/name, found {address!r}")
    return str(address).rstrip("/").removesuffix(".git")


def config_block(address: str | None) -> str:
    """Return what stands between the two marks in _config.yml."""
    if address is None or urlsplit(address).netloc not in LINKED_HOSTS:
        return ""
    lines = ["repository:", f"  url: {address}", "  branch: main"]
    if urlsplit(address).netloc == COLAB_HOST:
        lines += ["launch_buttons:", "  colab_url: https://colab.research.google.com"]
    return "\n".join(lines) + "\n"


def setup_source(address: str | None) -> str:
    """Return the whole source of a notebook's set-up cell."""
    return SETUP_UNSET if address is None else SETUP_KNOWN.format(address=address)


def rewritten_config(text: str, address: str | None) -> str:
    """Return the text of _config.yml with the block between the marks written anew."""
    if text.count(f"{BEGIN}\n") != 1 or text.count(f"{END}\n") != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"_config.yml: expected the line {BEGIN!r} once and then {END!r} once")
    before, rest = text.split(f"{BEGIN}\n")
    after = rest.split(f"{END}\n")[1]
    return f"{before}{BEGIN}\n{config_block(address)}{END}\n{after}"


def rewritten_notebook(path: Path, address: str | None) -> str:
    """Return the text of a notebook with its set-up cell written anew."""
    notebook = notebooks.read(path)
    first = next((cell for cell in notebook.cells if cell.cell_type == "code"), None)
    if first is None or "setup" not in first.metadata.get("tags", []):
        raise ValueError(f"{path.name}: expected the first code cell to be tagged 'setup'")
    first.source = setup_source(address)
    return notebooks.dumps(notebook)


def disagreements(root: Path) -> dict[Path, str]:
    """Return every file that does not carry the address, with the text that it should have."""
    address = read_address(root)
    config = root / "_config.yml"
    wanted = {config: rewritten_config(config.read_text(encoding="utf-8"), address)}
    for path in sorted((root / "book").glob("*.ipynb")):  # assignments need no package
        wanted[path] = rewritten_notebook(path, address)
    return {path: text for path, text in wanted.items() if path.read_text(encoding="utf-8") != text}


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Run the command line; the exit status is 1 when a check finds a disagreement, 2 for bad input."""
    parser = argparse.ArgumentParser(description="Write the repository's address into every file that shows it.")
    parser.add_argument("--check", action="store_true", help="rewrite nothing, name the files that disagree")
    options = parser.parse_args(arguments)
    try:
        odd = disagreements(root)
    except ValueError as error:
        parser.error(str(error))
    for path, text in odd.items():
        name = path.relative_to(root)
        if options.check:
            print(f"{name}: not the address in pyproject.toml, run `make address`", file=sys.stderr)
        else:
            notebooks.write_text(path, text)
            print(f"{name}: rewritten")
    return 1 if odd and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
