"""nbgrader's settings for a course of one's own: `load_subconfig("…/book/assignments/nbgrader_config.py")`.

Submissions are never run by nbgrader itself. `grade.py` writes a file with this line into the course that it makes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

c = get_config()  # noqa: F821

c.Autograde.autograde_preprocessors = [
    "grading.step.ExecuteGuarded",  # in the place of nbgrader's Execute
    "nbgrader.preprocessors.IgnorePattern",
    "nbconvert.preprocessors.ClearMetadataPreprocessor",
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]
