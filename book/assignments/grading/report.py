"""What a teacher reads when a class is graded: grades.csv, report.html, and each student's feedback page."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from statistics import mean, median

from . import maths
from .verdict import Verdict, write

Graded = Sequence[tuple[str, str, Verdict]]

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; margin: 1rem 0 }} th, td {{ padding: .2rem .8rem .2rem 0; text-align: left;
vertical-align: top }} td.n {{ text-align: right }} .bar {{ background: #3b6ea5; height: 1rem }}
code {{ background: #f2f2f2; padding: .1rem .3rem }} tr {{ border-bottom: 1px solid #ddd }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def write_all(out: Path, assignment: str, graded: Graded, again: str) -> None:
    """Write the table, the page, and the copies of the feedback."""
    write(out / "grades.csv", "\ufeff" + table(graded))  # the mark tells a spreadsheet that this is UTF-8
    write(out / "report.html", page(assignment, graded, again))
    shutil.rmtree(out / "feedback", ignore_errors=True)
    for _, safe, verdict in graded:
        for made in sorted((out / "course" / "feedback" / safe / assignment).glob("*.html")):
            before, body, after = re.split("(<body[^>]*>)", made.read_text(encoding="utf-8"), maxsplit=1)
            write(out / "feedback" / f"{safe}.html", maths.offline(before + body + summary(verdict) + after))
    if (out / "feedback").is_dir():
        maths.copy_beside(out / "feedback")


def table(graded: Graded) -> str:
    """Return the grades as CSV: student, points of each part, total, feedback page, note."""
    parts = list(dict.fromkeys(line.part for line in graded[0][2].results))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["student", *parts, "total", "feedback", "note"])
    for name, safe, verdict in graded:
        points = [sum(line.points for line in verdict.part(part)) for part in parts]
        note = harmless("; ".join(verdict.notes))
        rows.writerow([harmless(name), *points, verdict.points, harmless(f"{safe}.html"), note])
    return text.getvalue()


def summary(verdict: Verdict) -> str:
    """Return what stands above a student's feedback: each line of the rubric, its points, and what went wrong."""
    told = [
        (
            f"{line.points} of {line.of}",
            escape(line.text) + (f"<br><b>{escape(line.message)}</b>" if line.message else ""),
        )
        for line in verdict.results
    ]
    total = f"{verdict.points} of {sum(line.of for line in verdict.results)} points"
    notes = "".join(f"<p>{escape(note)}</p>" for note in verdict.notes)
    style = "max-width: 60rem; margin: 1rem auto; padding: 0 1rem; font-size: 16px"
    lines = "".join(
        f'<tr><td style="padding: .2rem 1rem; white-space: nowrap">{n}</td><td>{t}</td></tr>' for n, t in told
    )
    return f'<section style="{style}"><h1>{total}</h1>{notes}<table>{lines}</table></section>'


def harmless(text: str) -> str:
    """Keep a spreadsheet from taking text for a formula."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def page(assignment: str, graded: Graded, again: str) -> str:
    """Return the report: the spread of the grades, where points were lost and why, and what was odd."""
    of = sum(line.of for line in graded[0][2].results)
    totals = [verdict.points for _, _, verdict in graded]
    spread = Counter(totals)
    most = max(spread.values())
    body = [
        f"<p>{len(graded)} submissions; mean {mean(totals):.1f} of {of}, median {median(totals):g}.</p>",
        "<h2>Points</h2>",
        rows(
            ("points", "submissions", ""),
            [
                (str(points), str(spread[points]), f'<div class="bar" style="width:{20 * spread[points] / most:g}rem">')
                for points in range(of, -1, -1)
                if spread[points]
            ],
        ),
        "<h2>Where points were lost</h2>",
        rows(("submissions", "part", "line of the rubric, and what they were told most often"), lost(graded)),
        "<h2>Notes</h2>",
        rows(
            ("student", "points", "note"),
            [
                (escape(name), str(verdict.points), escape("; ".join(verdict.notes)))
                for name, _, verdict in graded
                if verdict.notes
            ],
        ),
        "<h2>Walls</h2>",
        f"<p>{walls(graded)}</p>",
        "<h2>Once more</h2>",
        f"<p>The same models are drawn again by <code>{escape(again)}</code>.</p>",
    ]
    return PAGE.format(title=f"Assignment {assignment[1:]}: report", body="\n".join(body))


def walls(graded: Graded) -> str:
    """Say what held the submissions apart from the rest of the machine."""
    held = {tuple(verdict.held) for _, _, verdict in graded if verdict.seconds}
    kernel = sorted(set.intersection(*map(set, held))) if held else []
    if {"files", "calls"} <= set(kernel):
        return f"Every submission that ran was held by the kernel ({', '.join(kernel)}) and by Python's audit hook."
    return "Not every submission was held by the kernel (Landlock and seccomp): Python's audit hook stops no expert."


def lost(graded: Graded) -> list[tuple[str, str, str]]:
    """Return the lines on which points were lost, most often first, with their three most frequent messages."""
    messages: dict[tuple[str, str], Counter[str]] = {}
    for _, _, verdict in graded:
        for line in verdict.results:
            if line.points < line.of:
                messages.setdefault((line.part, line.text), Counter())[line.message] += 1
    found = sorted(messages.items(), key=lambda item: -item[1].total())
    return [
        (
            str(said.total()),
            escape(part),
            escape(text) + "".join(f"<br>{count} × {escape(message)}" for message, count in said.most_common(3)),
        )
        for (part, text), said in found
    ]


def rows(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return a table of HTML."""
    lines = ["<table><tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{item}</td>" for item in row) + "</tr>" for row in body]
    return "\n".join([*lines, "</table>"])
