"""Break the library on purpose, one line at a time: every break must turn a test red.

    python tests/mutations.py [--only TEXT]... [--jobs 2]

Each mutation in mutations.toml is a piece of `vae_lib`, given by its exact text, and what replaces it. A copy of the
library is broken in a temporary folder, and the tests of that room run on it until the first failure. Before that the
tests must pass on an unbroken copy, and every statement of the rooms in `COMPLETE` must be touched by some mutation.
The exit status is 1 if a mutation survives, or its text is no longer found exactly once.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


def _of_gradients(*names: str) -> list[str]:
    return [f"tests/gradients/test_{name}" for name in names]


def _of_learning(*names: str) -> list[str]:
    return [f"tests/learning/test_{name}" for name in names]


# Which tests guard a file, in the order in which they run: the first entry that its path starts with. Those of the
# gradients are named one by one, the quick and the telling first, because all of them take twenty seconds.
GUARDS = [
    ("densities/", ["tests/densities"]),
    ("divergences.py", ["tests/divergences", "tests/densities/test_beta.py"]),
    ("bounds.py", ["tests/bounds"]),
    ("gradients/baselines.py", _of_gradients("baselines.py", "mistakes.py", "exact_mean.py")),
    (
        "gradients/contract.py",
        _of_gradients(
            "mistakes.py",
            "contract.py::test_regroup_splits_the_first_axis_of_every_part",
            "contract.py::test_nested_noise",
            "contract.py::test_a_parameter_that_nothing_depends_on_has_gradient_zero",
            "contract.py::test_leaves_of_the_caller_are_left_alone",
            "contract.py::test_no_graph_is_made_outside",
            "strangers.py::test_a_model_that_cannot_be_vectorised",
            "strangers.py::test_branches_by_the_loop_are_exact",
            "strangers.py::test_a_mistake_that_is_not_vmaps_is_told_as_it_is",
            "exact_mean.py",
        ),
    ),
    ("gradients/meter.py", _of_gradients("meter.py", "exact_variance.py", "mistakes.py", "strangers.py")),
    ("gradients/objective.py", _of_gradients("mistakes.py", "exact_mean.py", "pathwise.py", "strangers.py")),
    (
        "gradients/pathwise.py",
        _of_gradients(
            "pathwise.py", "mistakes.py", "strangers.py", "contract.py::test_estimates_are_independent", "exact_mean.py"
        ),
    ),
    ("gradients/relaxation.py", _of_gradients("relaxation.py", "mistakes.py", "biased.py")),
    (
        "gradients/score_function.py",
        _of_gradients(
            "mistakes.py",
            "exact_variance.py",
            "exact_mean.py",
            "pathwise.py",
            "biased.py::test_leave_one_out_of_antithetic_pairs_is_refused_for_it_is_biased",
            "contract.py::test_an_estimate_is_the_mean_of_its_samples",
            "baselines.py",
            "strangers.py",
        ),
    ),
    ("gradients/importance.py", _of_gradients("importance.py")),
    ("learning/amortisation.py", ["tests/learning/test_amortisation.py"]),
    (
        "learning/average_bound.py",
        _of_learning(
            "scheduled.py", "run.py", "training.py", "compiled.py::test_the_noise_is_drawn_outside", "wake_sleep.py"
        ),
    ),
    ("learning/batches.py", _of_learning("batches.py")),
    (
        "learning/checkpoints.py",
        _of_learning("checkpoints.py", "run.py"),
    ),
    ("learning/compiled.py", _of_learning("wake_sleep.py::test_it_is_not_compiled", "compiled.py")),
    ("learning/diagnosis.py", _of_learning("diagnosis.py")),
    (
        "learning/distributed.py",
        _of_learning("training.py::test_a_q_without_differentiable_draws_is_told", "distributed.py"),
    ),
    (
        "learning/interrupts.py",
        _of_learning("interrupts.py", "resume.py::test_outside_the_main_thread_it_trains_as_well"),
    ),
    ("learning/reports.py", _of_learning("reports.py")),
    ("learning/run.py", _of_learning("run.py")),
    ("learning/schedules.py", _of_learning("settings.py")),
    ("learning/settings.py", _of_learning("settings.py")),
    (
        "learning/state.py",
        _of_learning(
            "training.py::test_five_steps_by_hand",
            "checkpoints.py::test_weights_alone_are_no_training",
            "checkpoints.py::test_the_best_weights_of_a_training_or_the_last",
            "resume.py",
            "diagnosis.py",
        ),
    ),
    (
        "learning/training.py",
        _of_learning(
            "scheduled.py",
            "training.py",
            "run.py",
            "checkpoints.py::test_the_best_weights_of_a_training_or_the_last",
            "resume.py",
            "diagnosis.py",
            "reports.py",
            "interrupts.py",
            "distributed.py",
            "compiled.py",
        ),
    ),
    ("learning/monte_carlo_em.py", _of_learning("monte_carlo_em_runs.py", "monte_carlo_em.py")),
    ("learning/wake_sleep.py", _of_learning("wake_sleep.py")),
    ("learning/diffusion.py", _of_learning("diffusion_training.py")),
    ("learning/objectives.py", _of_learning("objectives.py")),
    ("learning/", ["tests/learning/test_em.py"]),
    (
        "evaluation/annealed.py",
        ["tests/evaluation/test_annealed.py::test_only_the_pilot_adapts", "tests/evaluation/test_annealed.py"],
    ),
    (
        "evaluation/chains.py",
        ["tests/evaluation/test_annealed.py::test_only_the_pilot_adapts", "tests/evaluation/test_annealed.py"],
    ),
    ("evaluation/diagnostics.py", ["tests/evaluation/test_diagnostics.py"]),
    ("evaluation/disentanglement.py", ["tests/evaluation/test_disentanglement.py"]),
    ("evaluation/information.py", ["tests/evaluation/test_information.py"]),
    ("evaluation/rate_distortion.py", ["tests/evaluation/test_rate_distortion.py"]),
    ("evaluation/posterior_samples.py", ["tests/evaluation/test_posterior_samples.py"]),
    ("evaluation/proposals.py", ["tests/evaluation/test_proposals.py"]),
    ("evaluation/", ["tests/evaluation"]),
    (
        "experiments/curves.py",
        [
            "tests/experiments/test_curves.py",
            "tests/experiments/test_every_experiment.py::test_a_curve_that_stops_being_a_number_ends_there",
            "tests/experiments/test_iwae_table1.py::test_a_cell_by_hand",
        ],
    ),
    ("experiments/images.py", ["tests/experiments/test_images_and_pixels.py"]),
    ("experiments/iwae_table1.py", ["tests/experiments/test_iwae_table1.py"]),
    ("experiments/pixels.py", ["tests/experiments/test_images_and_pixels.py"]),
    ("experiments/records.py", ["tests/experiments/test_records.py", "tests/experiments/test_iwae_table1.py"]),
    ("experiments/runner.py", ["tests/experiments/test_runner.py"]),
    ("experiments/", ["tests/experiments/test_every_experiment.py"]),
    ("mcmc.py", ["tests/mcmc/test_kernel.py", "tests/mcmc/test_moments.py", "tests/mcmc/test_calibration.py"]),
    ("models/hierarchical.py", ["tests/models/test_hierarchical.py"]),
    ("models/linear_chain.py", ["tests/models/test_hierarchical.py"]),
    ("models/denoisers.py", ["tests/models/test_diffusion.py"]),
    ("models/diffusion.py", ["tests/models/test_diffusion.py"]),
    ("models/diffusion_exact.py", ["tests/models/test_diffusion.py"]),
    ("models/diffusion_schedule.py", ["tests/models/test_diffusion.py"]),
    ("models/reconstructions.py", ["tests/models/test_diffusion.py"]),
    ("models/", ["tests/models"]),
    ("data/moons.py", ["tests/data/test_moons.py"]),
    ("plots/", ["tests/plots/test_ellipses_and_gaps.py"]),
    ("exact/linear_vae.py", ["tests/exact/test_linear_vae.py"]),
    ("exact/", ["tests/exact", "tests/protocols"]),
    ("rng.py", ["tests/test_rng.py"]),
    ("checks.py", ["tests/test_checks.py"]),
    ("estimate.py", ["tests/test_estimate.py"]),
]
# Every statement of these must be touched by a mutation.
COMPLETE = ("densities/", "divergences.py", "bounds.py", "learning/")


class Mutation(NamedTuple):
    """`old` becomes `new` at its first place after `anchor`, a text that occurs once in the file."""

    file: str
    name: str
    anchor: str
    old: str
    new: str

    def span(self, source: str) -> tuple[int, int]:
        """Where the old text stands.

        Raises
        ------
        LookupError
            If it is not found exactly once.
        """
        if source.count(self.anchor) != 1:
            raise LookupError(
                f"{self.file}: {self.name}: anchor found {source.count(self.anchor)} times: {self.anchor!r}"
            )
        start = source.find(self.old, source.index(self.anchor))
        if start < 0 or (self.anchor == self.old and source.count(self.old) != 1):
            raise LookupError(f"{self.file}: {self.name}: text not found: {self.old!r}")
        return start, start + len(self.old)


def read_mutations() -> list[Mutation]:
    """Read the list in mutations.toml."""
    files = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    # With two texts the old one is its own anchor.
    return [
        Mutation(file, name, texts[0], *texts[-2:])
        for file, entries in files.items()
        for name, texts in entries.items()
    ]


def untouched_statements(mutations: list[Mutation]) -> list[str]:
    """Statements of the complete files that no mutation touches: docstrings, imports and headers do not count."""
    missing = []
    for path in sorted((ROOT / "vae_lib").rglob("*.py")):
        file = path.relative_to(ROOT / "vae_lib").as_posix()
        if not file.startswith(COMPLETE) or path.name == "__init__.py":
            continue
        source = path.read_text(encoding="utf-8")
        touched = set()
        for mutation in mutations:
            if mutation.file == file:
                start, end = mutation.span(source)
                # A line break at its end belongs to the line before.
                touched |= set(range(source.count("\n", 0, start) + 1, source.count("\n", 0, end - 1) + 2))
        for function in ast.walk(ast.parse(source)):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                if not isinstance(node, ast.stmt) or isinstance(node, ast.FunctionDef) or is_text:
                    continue
                last = node.body[0].lineno - 1 if isinstance(node, ast.If) else node.end_lineno or node.lineno
                if not touched & set(range(node.lineno, last + 1)):
                    missing.append(f"{file}:{node.lineno}: {source.splitlines()[node.lineno - 1].strip()}")
    return missing


def run_tests(job: tuple[Mutation | None, list[str]]) -> tuple[int, float]:
    """Run tests on a copy of the tree with one mutation, in a process of its own; return pytest's code and the seconds."""
    mutation, tests = job
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "vae_lib", copy / "vae_lib")
        (copy / "tests").mkdir()
        # Of a test file the whole folder: it may have helpers there.
        for path in {"tests/conftest.py", "tests/oracles.py", *("/".join(test.split("/")[:2]) for test in tests)}:
            if (ROOT / path).is_dir():
                shutil.copytree(ROOT / path, copy / path)
            else:
                shutil.copy(ROOT / path, copy / path)
        # The settings of pyproject.toml that matter here, without the plugins: loading those is most of a short run.
        (copy / "pytest.ini").write_text(
            "[pytest]\naddopts = --import-mode=importlib\nmarkers = equation\nfilterwarnings = error\n",
            encoding="utf-8",
        )
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        if mutation is not None:
            target = copy / "vae_lib" / mutation.file
            source = target.read_text(encoding="utf-8")
            begin, end = mutation.span(source)
            target.write_text(source[:begin] + mutation.new + source[end:], encoding="utf-8")
        os.chdir(copy)
        sys.path.insert(0, str(copy))
        import pytest

        with (copy / "log.txt").open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            try:
                code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", *tests]))
            except pytest.PytestUnraisableExceptionWarning:
                code = 1  # something was left open, and warnings are errors
        import vae_lib

        if Path(vae_lib.__file__).parent != copy / "vae_lib":
            raise RuntimeError(f"the tests ran on {vae_lib.__file__}, not on the copy")
        if mutation is None and code:
            sys.stderr.write((copy / "log.txt").read_text())
        os.chdir(ROOT)
    return code, time.monotonic() - start


def guards(mutation: Mutation) -> list[str]:
    return next(tests for prefix, tests in GUARDS if mutation.file.startswith(prefix))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", action="append", metavar="TEXT", help="mutations whose 'file: name' contains this; may be repeated"
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many to run at a time (2)")
    options = parser.parse_args()

    mutations = read_mutations()
    problems = []
    for mutation in mutations:
        try:
            mutation.span((ROOT / "vae_lib" / mutation.file).read_text(encoding="utf-8"))
        except LookupError as error:
            problems.append(str(error))
    if not problems:
        problems = [f"no mutation touches {statement}" for statement in untouched_statements(mutations)]
    if problems:
        print("\n".join(problems))
        return 1

    only = options.only or [""]
    chosen = [m for m in mutations if any(text in f"{m.file}: {m.name}" for text in only)]
    unbroken = [(None, tests) for _, tests in GUARDS if any(guards(m) == tests for m in chosen)]
    # The slow imports happen once; each run is a fork that has not yet imported vae_lib or the tests.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in (
        "torch",
        "torch.distributions",
        "scipy.stats",
        "scipy.integrate",
        "scipy.optimize",
        "sklearn.decomposition",
        "sklearn.mixture",
        "torch.func",
        "torch._dynamo",
        "torch.distributed",
        "safetensors.torch",
        "sklearn.datasets",
        "tqdm",
        "hypothesis",
        "pytest",
    ):
        importlib.import_module(name)
    start = time.monotonic()
    survivors: list[str] = []
    with multiprocessing.get_context("fork").Pool(options.jobs, maxtasksperchild=1) as pool:
        codes = [code for code, _ in pool.imap(run_tests, unbroken)]
        if any(codes):
            print("the tests fail without a mutation")
            return 1
        runs = pool.imap(run_tests, [(mutation, guards(mutation)) for mutation in chosen])
        for mutation, (code, seconds) in zip(chosen, runs, strict=True):
            # 1: a test failed; 2: the tests could not even be collected, because they use the broken line on import
            verdict = "killed" if code in (1, 2) else "SURVIVED"
            label = f"{mutation.file}: {mutation.name}"
            survivors += [label] if verdict == "SURVIVED" else []
            print(f"{verdict:9} {seconds:5.1f} s  {label}", flush=True)

    print(f"\n{'file':32} {'mutations':>9} {'killed':>7}")
    for file in dict.fromkeys(m.file for m in chosen):
        count = sum(m.file == file for m in chosen)
        alive = sum(label.startswith(f"{file}: ") for label in survivors)
        print(f"{file:32} {count:9} {count - alive:7}")
    print(f"{'all':32} {len(chosen):9} {len(chosen) - len(survivors):7}   in {time.monotonic() - start:.0f} s")
    for label in survivors:
        print(f"SURVIVED {label}")
    return 1 if survivors or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
