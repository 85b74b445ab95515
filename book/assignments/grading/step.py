"""nbgrader's step: a preprocessor in the place of `Execute`, so that the rest of nbgrader works unchanged."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill as fill_lines

from nbconvert.exporters.exporter import ResourcesDict
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Integer, Unicode

from . import cells
from .here import MASTER_SEED
from .verdict import Verdict, run


class ExecuteGuarded(NbGraderPreprocessor):  # type: ignore[misc]
    """Run a submission in a guarded process; put what it printed, and the points with their reasons, into the cells."""

    verdicts = Unicode("", help="Folder with the stored verdict of each student; without one the cells run now.").tag(
        config=True
    )
    seed = Integer(MASTER_SEED, help="Seed of the hidden tests.").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: ResourcesDict) -> tuple[NotebookNode, ResourcesDict]:
        """Grade the notebook or take the stored verdict, and fill the cells."""
        about = resources["nbgrader"]
        stored = Path(self.verdicts) / about["student"] / "verdict.json"
        if self.verdicts and stored.exists():
            verdict = Verdict.load(stored)
        else:
            verdict = run(about["assignment"], cells.to_run(nb), self.seed)
        fill(nb, verdict)
        return nb, resources


def fill(notebook: NotebookNode, verdict: Verdict) -> None:
    """Write outputs as a kernel would: streams, errors, and the points of a graded cell as its value."""
    ran = {cell.number: cell for cell in verdict.cells}
    for number, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
        cell.outputs, cell.execution_count = [], number
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("grade"):
            lines = verdict.part(marks["grade_id"])
            points = float(sum(line.points for line in lines))
            told = [fill_lines(row, 88, subsequent_indent=" " * 8) for line in lines for row in str(line).splitlines()]
            cell.outputs.append(new_output("stream", name="stdout", text="\n".join(told) + "\n"))
            cell.outputs.append(new_output("execute_result", data={"text/plain": str(points)}, execution_count=number))
        elif number in ran:
            if ran[number].output:
                cell.outputs.append(new_output("stream", name="stdout", text=ran[number].output))
            if error := ran[number].error:
                trace = error[2].splitlines() or error[:1]
                cell.outputs.append(new_output("error", ename=error[0], evalue=error[1], traceback=trace))
