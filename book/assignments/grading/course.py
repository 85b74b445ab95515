"""An nbgrader course in a folder, through nbgrader's own interface: release, grades, feedback."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from pathlib import Path

from nbgrader.apps import NbGraderAPI
from sqlalchemy.exc import SAWarning
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from .verdict import HERE


class Course:
    """A folder with nbgrader's layout: source, release, submitted, autograded, feedback, gradebook.db."""

    def __init__(self, root: Path, verdicts: Path | None = None) -> None:
        self.root = root.resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        config = Config(PyFileConfigLoader("nbgrader_config.py", str(HERE)).load_config())
        config.CourseDirectory.root = str(self.root)
        if verdicts is not None:
            config.ExecuteGuarded.verdicts = str(verdicts.resolve())
        own = self.root / "nbgrader_config.py"
        own.write_text(
            f"c = get_config()\nload_subconfig({str(HERE / 'nbgrader_config.py')!r})\n"
            f"c.ExecuteGuarded.verdicts = {config.ExecuteGuarded.get('verdicts', '')!r}\n",
            encoding="utf-8",
        )
        # nbgrader calls alembic by its name, which lies beside the Python that runs.
        os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        self.api = NbGraderAPI(config=config)

    def release(self, assignment: str, master: Path) -> Path:
        """Make the students' notebook from the master; return it."""
        source = self.root / "source" / assignment / master.name
        source.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(master, source)
        self._demand(self.api.generate_assignment(assignment), f"nbgrader could not make {master.stem}")
        return self.root / "release" / assignment / master.name

    def grade(self, assignment: str) -> str:
        """Enter new submissions into the gradebook and write their feedback; return nbgrader's complaints."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)  # of nbgrader's own queries
            graded = self.api.autograde(assignment, "*", force=False)
            feedback = self.api.generate_feedback(assignment, force=False)
        failed = [step for step in (graded, feedback) if not step["success"]]
        return "\n".join(str(step.get("log") or step.get("error")) for step in failed)

    def forget(self, assignment: str, student: str) -> None:
        """Remove what was made of an earlier version of a submission."""
        for step in ("submitted", "autograded", "feedback"):
            shutil.rmtree(self.root / step / student / assignment, ignore_errors=True)

    @staticmethod
    def _demand(result: dict[str, object], what: str) -> None:
        if not result["success"]:
            raise RuntimeError(f"{what}: {result.get('log') or result.get('error')}")
