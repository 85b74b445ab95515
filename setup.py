"""What pyproject.toml cannot say: a wheel carries the stored runs of the book.

A chapter that stands alone, as in Colab, has no folder ``runs`` beside it. So the records and weights of
book/runs are copied into the wheel as vae_lib/runs, where ``vae_lib.chapter.stored_file`` finds them.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

RUNS = Path("book/runs")  # a build runs in the folder of this file


class BuildWithRuns(build_py):
    """Build the package, and put the stored runs into it; an editable one reads them where they are."""

    def run(self) -> None:
        """Copy them beside the modules."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "vae_lib", "runs")
            self.mkpath(str(target))
            for path in sorted([*RUNS.glob("*.json"), *RUNS.glob("*.safetensors")]):
                self.copy_file(str(path), str(target / path.name))


setup(cmdclass={"build_py": BuildWithRuns})
