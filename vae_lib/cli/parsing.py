"""The words of a command line become the options of a command; what does not fit is said in one line."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, Protocol, TypeVar, get_args

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

PROGRAM = "python -m vae_lib"

# What help calls a value, what a message calls it, and what reads it.
_KINDS: dict[Any, tuple[str, str, Callable[[str], Any]]] = {
    int: ("N", "an integer", int),
    float: ("X", "a number", float),
    str: ("NAME", "a word", str),
    Path: ("PATH", "a path", Path),
}
_REGISTRY = ConstructorRegistry()


class BadInput(ValueError):
    """What was typed does not fit; one line says what was expected and what was found."""


class Command(Protocol):
    """The options of a command: a dataclass whose docstring is the help. Its name is the command's."""

    examples: ClassVar[str]


AnyCommand = TypeVar("AnyCommand", bound=Command)


def read(command: type[AnyCommand], words: Sequence[str], *, default: AnyCommand | None = None) -> AnyCommand:
    """Read the words after the name of a command.

    Parameters
    ----------
    command
        Its options.
    words
        What was typed.
    default
        Options to begin with, instead of the dataclass's defaults.

    Raises
    ------
    BadInput
        If a word does not fit.
    SystemExit
        With 0, after showing the help that was asked for.
    """
    program = f"{PROGRAM} {command.__name__.lower()}"
    helped, complained = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(helped), contextlib.redirect_stderr(complained):
            return tyro.cli(
                command,
                prog=program,
                args=list(words),
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.FlagCreatePairsOff,),
                registry=_REGISTRY,
            )
    except SystemExit as end:
        if not end.code:
            print(f"{_wrapped(helped.getvalue())}\nExamples:\n{command.examples}")
            raise
    raise BadInput(f"{one_line(complained.getvalue())}; see {program} --help")


@_REGISTRY.primitive_rule
def _reader(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read ``T``, ``T | None`` and ``tuple[T, ...]``; None is there only where nothing was typed."""
    parts = [part for part in get_args(info.type) if part not in (NoneType, ...)] or [info.type]
    is_list = info.type_origin is tuple or ... in get_args(parts[0])
    kind = (get_args(parts[0]) or parts)[0]
    if kind not in _KINDS:
        return None
    metavar, name, make = _KINDS[kind]

    def one(word: str) -> Any:
        try:
            return make(word)
        except ValueError:
            raise ValueError(f"expected {name}, found {word!r}") from None

    return PrimitiveConstructorSpec(
        nargs="*" if is_list else 1,
        metavar=f"{metavar} [{metavar} ...]" if is_list else metavar,
        instance_from_str=lambda words: tuple(map(one, words)) if is_list else one(words[0]),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(part) for part in (value if isinstance(value, tuple) else (value,))],
    )


def _wrapped(text: str) -> str:
    """Break the lines of the description as well; the parser breaks those in its boxes."""
    width = min(80, shutil.get_terminal_size().columns)
    lines = [line.rstrip() if line.startswith(" ") else textwrap.fill(line, width) for line in text.splitlines()]
    return "\n".join(lines) + "\n"


def one_line(box: str) -> str:
    """Say in one line what the parser says in a box: a title, what is wrong, what might have been meant.

    Wordings that are not known are taken over as they are; it stays one line.
    """
    parts = [" ".join(part.split()) for part in re.split(r"[-─]{10,}", re.sub(r"[╭╮╰╯│]", " ", box))]
    said, *rest = [part for part in parts[1:] if part] or parts
    for pattern, words in _WORDINGS.items():
        said = re.sub(pattern, words, said)
    found = said.rpartition(" ")[2]
    near = re.search(rf"(?:Perhaps you meant|Arguments similar to {re.escape(found)}): (--\S+)", " ".join(rest))
    return f"{said}; did you mean {near[1]}" if near else said


# What the parser says, and what is said instead: what was expected, and what was found.
_WORDINGS = {
    r"^Unrecognized options: ([^,]*).*": r"expected options of this command, found \1",
    r"^Error parsing ": "",
    r"^Missing from [^:]*: (\S+).*": r"expected \1, found nothing",
    r"^Missing value for argument '([^']*)'.*": r"\1: expected a value, found none",
}
