"""Grade a class: run every submission in a guarded process, let nbgrader keep the grades, write what a teacher reads.

An interrupted run goes on with the same command: verdicts that still hold are kept.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import report
from .ask import Limits
from .course import Course
from .verdict import HERE, Verdict, key_of, nothing, write
from .workers import Worker, run_all


class Refused(Exception):
    """The command cannot be carried out; the message says why, in one line."""


@dataclass(frozen=True)
class Student:
    """A student and the file that was handed in."""

    name: str
    safe: str
    file: Path
    problem: str = ""


def master_of(assignment: str) -> Path:
    """Return the master notebook of an assignment."""
    masters = sorted(HERE.glob("*_*.ipynb"))
    known = [master for master in masters if master.stem.partition("_")[0] == assignment]
    if not known:
        names = ", ".join(master.stem.partition("_")[0] for master in masters)
        raise Refused(f"assignment: expected one of {names}, found {assignment}")
    return known[0]


def students(folder: Path, stem: str) -> list[Student]:
    """Find the submissions: NAME.ipynb, or NAME/ with one notebook or with the one that was handed out; or one file."""
    if not folder.exists():
        raise Refused(f"submissions: expected a folder or a notebook, found {folder}")
    found: dict[str, Student] = {}
    for place in sorted(folder.iterdir()) if folder.is_dir() else [folder]:
        if place.name.startswith(".") or place.name == "__MACOSX":
            continue
        if not (place.is_dir() or place.suffix.lower() == ".ipynb"):
            continue
        name = (place.name if place.is_dir() else place.stem).encode(errors="replace").decode()
        safe = re.sub(r"[^\w.@-]", "_", name)
        while safe in found:
            safe += "_"
        file, problem = place, ""
        if place.is_dir():
            every = [book for book in sorted(place.rglob("*")) if book.suffix.lower() == ".ipynb"]
            books = [book for book in every if not {".ipynb_checkpoints", "__MACOSX"} & set(book.parts)]
            named = [book for book in books if book.stem == stem] or books
            file = named[0] if named else place / f"{stem}.ipynb"
            if len(books) != 1:
                problem = f"{len(books)} notebooks were handed in" + (f", {file.name} was graded" if books else "")
        if any(other.name == name for other in found.values()):
            problem = "; ".join(filter(None, [problem, "another submission has the same name"]))
        found[safe] = Student(name, safe, file, problem)
    if not found:
        raise Refused(f"submissions: expected files STUDENT.ipynb or folders STUDENT/ in {folder}, found none")
    return list(found.values())


def strangers(folder: Path) -> list[str]:
    """Return the names of the files that are no notebooks, and so get no grade."""
    files = [place for place in sorted(folder.iterdir()) if not place.is_dir()] if folder.is_dir() else []
    return [file.name for file in files if file.suffix.lower() != ".ipynb" and not file.name.startswith(".")]


def seed_of(out: Path, assignment: str, submissions: Path, seed: int | None) -> int:
    """Return the seed of this report, drawn when it is begun."""
    file, whose = out / "batch.json", str(submissions.resolve())
    if file.exists():
        begun = json.loads(file.read_text(encoding="utf-8"))
        if (begun["assignment"], begun["submissions"]) != (assignment, whose) or seed not in (None, begun["seed"]):
            raise Refused(
                f"out: {out} holds the grades of {begun['assignment']} from {begun['submissions']} with seed "
                f"{begun['seed']}; choose another folder for --out"
            )
        return int(begun["seed"])
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Refused(f"out: expected a new or empty folder, or a report to go on with, found {out}")
    seed = secrets.randbelow(2**31) if seed is None else seed
    write(file, json.dumps({"assignment": assignment, "submissions": whose, "seed": seed}))
    return seed


def verdict_of(worker: Worker, assignment: str, student: Student, release: Path, out: Path, seed: int) -> Verdict:
    """Return the stored verdict if it still holds, or a new one."""
    place = out / "verdicts" / student.safe
    stored, key = place / "verdict.json", key_of(assignment, release, student.file, seed)
    if stored.exists() and (verdict := Verdict.load(stored)).key == key:
        return verdict
    stored.unlink(missing_ok=True)
    if why := worker.grade(student.file, place):
        return nothing(assignment, seed, f"THE GRADER FAILED, grade by hand: {why}")
    return Verdict.load(stored)


def enter(course: Course, assignment: str, graded: list[tuple[Student, Verdict]], release: Path, out: Path) -> str:
    """Hand the notebooks to nbgrader; return its complaints."""
    for student, verdict in graded:
        handed_in = course.root / "submitted" / student.safe / assignment / release.name
        mark = out / "verdicts" / student.safe / "entered.txt"
        if not mark.exists() or mark.read_text(encoding="utf-8") != verdict.key or not verdict.key:
            course.forget(assignment, student.safe)
            notebook = out / "verdicts" / student.safe / "notebook.ipynb"
            write(handed_in, (notebook if notebook.exists() else release).read_text(encoding="utf-8"))
            write(mark, verdict.key)
            if not verdict.key:  # the grader failed: nbgrader gets the reason, and the next run tries again
                verdict.save(out / "verdicts" / student.safe / "verdict.json")
    return course.grade(assignment)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="grade.py", description="Grade all submissions of an assignment.")
    parser.add_argument("assignment", help="a1, a2, …")
    parser.add_argument(
        "submissions", type=Path, help="folder with STUDENT.ipynb, or with STUDENT/….ipynb; or one notebook"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--jobs", type=int, default=2, help="submissions at a time (2)")
    parser.add_argument("--seed", type=int, help="seed of the hidden tests (drawn when the report is begun)")
    parser.add_argument("--limits", default="{}", help='other limits as JSON: {"cell": 120, "total": 300}')
    chosen = parser.parse_args(arguments)
    try:
        master = master_of(chosen.assignment)
        found = students(chosen.submissions, master.stem)
        if chosen.jobs < 1 or (chosen.seed or 0) < 0:
            raise Refused(f"jobs and seed: expected positive numbers, found {chosen.jobs} and {chosen.seed}")
        try:
            Limits(**json.loads(chosen.limits))
        except (ValueError, TypeError):
            raise Refused(f"limits: expected JSON with {', '.join(vars(Limits()))}, found {chosen.limits}") from None
        seed = seed_of(chosen.out, chosen.assignment, chosen.submissions, chosen.seed)
    except (Refused, OSError) as reason:
        print(f"grade.py: {reason}", file=sys.stderr)
        return 2
    if odd := strangers(chosen.submissions):
        print(f"grade.py: not graded, for they are no notebooks: {', '.join(odd)}", file=sys.stderr)
    course = Course(chosen.out / "course", chosen.out / "verdicts")
    try:
        release = course.release(chosen.assignment, master)
    except RuntimeError as reason:  # for instance a master with other cells than those that were graded before
        write(chosen.out / "nbgrader.log", str(reason))
        print(f"grade.py: nbgrader could not use the master, see {chosen.out / 'nbgrader.log'}", file=sys.stderr)
        return 1
    longest = Limits(**json.loads(chosen.limits)).total + 300
    workers = [Worker(chosen.assignment, release, seed, chosen.limits, longest=longest) for _ in range(chosen.jobs)]

    def grade(worker: Worker, student: Student) -> Verdict:
        return verdict_of(worker, chosen.assignment, student, release, chosen.out, seed)

    graded = []
    try:
        for student, verdict in run_all(workers, found, grade):
            graded.append((student, verdict))
            total = sum(line.of for line in verdict.results)
            print(f"{len(graded):4d}/{len(found)}  {verdict.points:2d} of {total}  {student.name}", flush=True)
    except KeyboardInterrupt:
        print("grade.py: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    graded.sort(key=lambda one: one[0].name)
    for student, verdict in graded:
        verdict.notes += [student.problem] if student.problem else []
    complaints = enter(course, chosen.assignment, graded, release, chosen.out)
    again = [
        ".venv/bin/python",
        "book/assignments/grade.py",
        chosen.assignment,
        str(chosen.submissions),
        "--out",
        "REPORT",
    ]
    again += ["--seed", str(seed)] + (["--limits", chosen.limits] if chosen.limits != "{}" else [])
    report.write_all(chosen.out, chosen.assignment, [(s.name, s.safe, v) for s, v in graded], shlex.join(again))
    failed = [student.name for student, verdict in graded if not verdict.key]
    if complaints:
        write(chosen.out / "nbgrader.log", complaints)
        print(f"grade.py: nbgrader complained, see {chosen.out / 'nbgrader.log'}", file=sys.stderr)
    if failed:
        print(f"grade.py: to be graded by hand: {', '.join(failed)}", file=sys.stderr)
    print(f"grades: {chosen.out / 'grades.csv'}\nreport: {chosen.out / 'report.html'}")
    return 1 if complaints or failed else 0
