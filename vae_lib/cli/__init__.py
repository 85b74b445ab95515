"""The command line: ``python -m vae_lib train``, ``evaluate``, ``sample``, ``reproduce`` and ``data``.

Exit codes: 0, all went well; 1, a failure while running; 2, bad input; 130, after Ctrl-C; 141, nobody reads stdout any
more. With ``--json`` stdout holds one JSON object, or nothing if the command failed. Errors are one line on stderr.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from vae_lib import __version__
from vae_lib.cli.hints import did_you_mean, with_suggestion

__all__ = ["main"]

_COMMANDS = {
    "train": "train a VAE and draw what it has learnt",
    "evaluate": "how good is it on images it has not seen?",
    "sample": "draw pictures from it",
    "reproduce": "run a figure, a table or a recipe of the book again",
    "data": "list and fetch data sets",
}
_HELP = "\n".join(
    [
        "usage: python -m vae_lib COMMAND ...      (or: vae-lib COMMAND ...)",
        "",
        'Variational autoencoders of the book "Not an Arbitrary Loss".',
        "",
        *(f"  {name:<10} {words}" for name, words in _COMMANDS.items()),
        "",
        "Every command explains itself: python -m vae_lib train --help",
        "",
        "To begin, and then to look at what was made:",
        "  python -m vae_lib train",
        "  python -m vae_lib evaluate runs/digits-1",
        "  python -m vae_lib sample runs/digits-1",
        "",
        "Exit codes: 0 well; 1 a failure while running; 2 bad input; 130 after Ctrl-C.",
    ]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv
        The words after the name of the program; those of the process if not given.

    Returns
    -------
    int
        The exit code.
    """
    try:
        code = _answer(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Python flushes stdout once more at its end; there it should find somebody who listens.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as interruption:
        _complain(str(interruption) or "interrupted")
        return 130


def _answer(words: list[str]) -> int:
    name, rest = (words[0], words[1:]) if words else ("", [])
    if name in ("-h", "--help", "help"):
        print(_HELP)
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name not in _COMMANDS:
        found = repr(name) + did_you_mean(name, _COMMANDS) if name else "none"
        _complain(f"expected a command out of {', '.join(_COMMANDS)}, found {found}; see python -m vae_lib --help")
        return 2
    if name != "train" and not _is_first():
        return 0  # several processes share a training; all else is done once
    from vae_lib.cli import options as all_options  # tyro is needed from here on, torch after it
    from vae_lib.cli import parsing

    if name == "train" and rest and _is_run(rest[0]):
        typed = shlex.quote(rest[0])
        _complain(f"expected options, found {typed}; to go on with a run: python -m vae_lib train --resume {typed}")
        return 2
    try:
        options = parsing.read(getattr(all_options, name.capitalize()), rest)
    except SystemExit:  # help was asked for, and shown
        return 0
    except parsing.BadInput as error:
        _complain(str(error))
        return 2
    try:
        outcome = importlib.import_module(f"vae_lib.cli.{name}").run(options, rest)
    except BrokenPipeError:
        raise
    except Exception as error:
        from vae_lib.cli.failures import failure

        known = failure(error)
        if known is None:
            raise
        _complain(with_suggestion(known.line))
        return known.code
    if outcome is not None:
        print(outcome.text(as_json=options.json))
    return 0


def _complain(line: str) -> None:
    """Say one line on stderr; of several processes the first speaks for all."""
    if _is_first():
        print(f"vae-lib: {line}", file=sys.stderr)


def _is_run(word: str) -> bool:
    return not word.startswith("-") and any(
        path.is_file() for path in (Path(word), Path(word) / "checkpoint.safetensors")
    )


def _is_first() -> bool:
    """Whether this process, of those that torchrun started, is the one that speaks."""
    return os.environ.get("RANK", "0") == "0"
