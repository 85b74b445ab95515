"""Grade submissions of one assignment, one after the other: the program of each worker of `grading.batch`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path

from . import cells
from .ask import Cell, Guarded, Limits
from .nursery import Nursery
from .rubric import Result, Rubric

HERE = Path(__file__).resolve().parents[1]  # the folder of the masters


@dataclass
class Verdict:
    """What a submission earned, line by line, and what is shown of its run."""

    assignment: str
    seed: int
    results: list[Result]
    notes: list[str] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    seconds: float = 0.0
    key: str = ""

    @property
    def points(self) -> int:
        """The sum of the points."""
        return sum(result.points for result in self.results)

    def part(self, name: str) -> list[Result]:
        """Return the lines of a part."""
        return [result for result in self.results if result.part == name]

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        write(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> Verdict:
        """Read what `save` wrote."""
        stored = json.loads(path.read_text(encoding="utf-8"))
        stored["results"] = [Result(**result) for result in stored["results"]]
        stored["cells"] = [Cell(**cell) for cell in stored["cells"]]
        return cls(**stored)


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def rubric_of(assignment: str) -> Rubric:
    """Return the hidden tests of an assignment."""
    found: Rubric = import_module(f"{__package__}.hidden.{assignment}").rubric
    return found


def nothing(assignment: str, seed: int, why: str) -> Verdict:
    """Return zero points, with the reason on every line."""
    results = [Result(line.part, line.text, 0, line.points, why) for line in rubric_of(assignment).lines]
    return Verdict(assignment, seed, results, [why])


def run(
    assignment: str,
    code: Sequence[tuple[int, str]],
    seed: int,
    limits: Limits | None = None,
    nursery: Nursery | None = None,
) -> Verdict:
    """Run cells in a guarded process and grade what they define."""
    begun = time.monotonic()
    with Guarded(code, limits, nursery) as ask:
        results = rubric_of(assignment).grade(ask, seed=seed)
        notes = [*ask.left_out.values(), *([ask.gone] if ask.gone else [])]
        verdict = Verdict(assignment, seed, results, notes, list(ask.cells.values()), ask.held)
    expected = {"LeftOut", "AssertionError", "NotImplementedError"}
    failed = [(cell.number, cell.error[0]) for cell in verdict.cells if cell.error and cell.error[0] not in expected]
    verdict.notes += [f"cell {number} raised {name}" for number, name in failed]
    verdict.seconds = round(time.monotonic() - begun, 1)
    return verdict


def grade(
    assignment: str,
    release: cells.Cell,
    submission: Path,
    seed: int,
    limits: Limits | None = None,
    nursery: Nursery | None = None,
) -> tuple[Verdict, cells.Cell]:
    """Grade a file in whatever state it is; return the verdict and the notebook that was graded."""
    try:
        notebook, notes = cells.assemble(release, cells.read(submission))
    except (cells.Unreadable, OSError) as reason:
        why = str(reason) if isinstance(reason, cells.Unreadable) else "the file cannot be read"
        return nothing(assignment, seed, why), cells.assemble(release, [])[0]
    verdict = run(assignment, cells.to_run(notebook), seed, limits, nursery)
    verdict.notes[:0] = notes
    return verdict, notebook


def key_of(assignment: str, release: Path, submission: Path, seed: int) -> str:
    """Return what a verdict depends on, as a hash: a stored one with the same key is still right."""
    rubric = Path(str(import_module(f"{__package__}.hidden.{assignment}").__file__))
    mark = hashlib.sha256(f"{assignment} {seed}".encode())
    for path in (release, rubric, submission):
        with contextlib.suppress(OSError):  # what cannot be read gets no points, and a reason
            mark.update(path.read_bytes())
    return mark.hexdigest()


def main(arguments: Sequence[str]) -> int:
    """Grade the submissions whose paths come in, one JSON list a line; say when each is done."""
    assignment, release, seed, limits = arguments
    given = cells.read_release(Path(release))
    nursery = Nursery()
    for line in sys.stdin:
        submission, place = map(Path, json.loads(line))
        verdict, notebook = grade(assignment, given, submission, int(seed), Limits(**json.loads(limits)), nursery)
        verdict.key = key_of(assignment, Path(release), submission, int(seed))
        write(place / "notebook.ipynb", json.dumps(notebook, indent=1))
        verdict.save(place / "verdict.json")
        print("done", flush=True)
    nursery.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
