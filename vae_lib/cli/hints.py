"""A refusal in the words of the command line: options instead of the library's names, and what may have been meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# What an option is called that the library calls by another name, and those that it calls the same.
_OPTIONS = {"latent_dim": "latents", "warmup_steps": "warmup", "num_samples": "samples"}
_SAME = ("batch_size", "compiled", "data", "device", "epochs", "folder", "seed", "tensorboard")


def option(name: str) -> str:
    """The option that sets what the library calls so."""
    return f"--{_OPTIONS.get(name, name).replace('_', '-')}"


def in_options(line: str) -> str:
    """The line; if it begins with the library's name of a setting, then with the option instead."""
    name, colon, words = line.partition(": ")
    return f"{option(name)}: {words}" if colon and name in (*_OPTIONS, *_SAME) else line


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Words to put after a name that is not known; none if no name is near."""
    near = difflib.get_close_matches(word.lower().replace("_", "-"), list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def with_suggestion(line: str) -> str:
    """The line; if it lists names and ends with one that is none of them, then with the nearest after it."""
    listed = re.search(r"expected (?:one of )?([\w-]+(?:, [\w-]+)+), found '([^']*)'$", line)
    return line + did_you_mean(listed[2], listed[1].split(", ")) if listed else line
