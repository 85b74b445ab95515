"""`evaluate` and `sample`: numbers and pictures of what was stored."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from safetensors.torch import save_file
from torch.distributions import Binomial as BinomialDistribution

from tests.cli.asking import Ask
from vae_lib.data import load_dataset
from vae_lib.evaluation import Widened, active_units, held_out_elbo, log_p_x
from vae_lib.learning import load_vae, save_vae
from vae_lib.learning.checkpoints import read_checkpoint, read_config, write_checkpoint
from vae_lib.models import build, configuration
from vae_lib.rng import make_generator

QUICK = ("--images", 7, "--draws", 20, "--json")


def test_numbers_are_those_of_the_library(ask: Ask, run_folder: Path) -> None:
    """Digits are counts: nothing is drawn but z, so another stream of draws must agree within the errors."""
    facts = ask("evaluate", run_folder, "--images", 60, "--draws", 200, "--json").facts
    vae = load_vae(run_folder / "checkpoint.safetensors", dtype=torch.float32)
    x = load_dataset("digits").test.x.float()
    held_out = held_out_elbo(vae, vae, x, num_samples=50, generator=make_generator(5))
    assert facts["images"] == len(x) == 360
    # The images are the same, so the draws alone make a difference; their spread is bounded by that over the images.
    noise = held_out_elbo(vae, vae, x, num_samples=1, generator=make_generator(6)).elbo - held_out.elbo
    tolerance = 5 * float(noise.std()) * (1 / 10 + 1 / 50) ** 0.5 / len(x) ** 0.5
    mean = float(held_out.elbo.mean())
    assert abs(facts["elbo"]["mean"] - mean) < tolerance < 0.01 * abs(mean)
    assert facts["elbo"]["standard_error"] == pytest.approx(float(held_out.elbo.std() / len(x) ** 0.5), rel=0.05)
    # The KL is in closed form: nothing is drawn, and what is left is rounding.
    assert facts["kl"]["mean"] == pytest.approx(float(held_out.kl.double().mean()), rel=1e-5)
    some = x[::6]
    there = log_p_x(vae, vae, some, num_samples=200, generator=make_generator(7))
    error = float(there.standard_error.square().sum().sqrt()) / len(some)
    assert facts["log_p_x"]["error_of_the_draws"] == pytest.approx(error, rel=0.5)
    assert abs(facts["log_p_x"]["mean"] - float(there.value.mean())) < 5 * 2**0.5 * error < 0.02 * abs(mean)
    assert (facts["log_p_x"]["images"], facts["log_p_x"]["draws"]) == (60, 200)
    assert facts["log_p_x"]["gap_to_elbo"]["mean"] > 0


def test_words_say_what_the_numbers_are(ask: Ask, run_folder: Path) -> None:
    answer = ask("evaluate", run_folder, "--images", 5, "--draws", 10)
    assert (answer.code, answer.err) == (0, "")
    for part in ("(best)", "digits, test split, 360 images", "test ELBO", "test KL", "log p(x)", "±", "nats", "gap"):
        assert part in answer.out
    assert "warning     too few draws" in answer.out  # ten can never be more than ten effective ones
    assert "on 5 of the images with 10 draws" in answer.out
    facts = ask("evaluate", run_folder, "--images", 5, "--draws", 10, "--json").facts["log_p_x"]
    assert f"their ELBO  {facts['elbo_of_the_same_images']['mean']:.0f}"[:-1] in answer.out
    gap = facts["mean"] - facts["elbo_of_the_same_images"]["mean"]
    assert facts["gap_to_elbo"]["mean"] == pytest.approx(gap, abs=1e-4)
    assert facts["warning"].startswith("too few draws")


def test_of_few_images_all_are_taken(ask: Ask, run_folder: Path) -> None:
    """And if the posterior is the prior, every draw counts in full: nothing to warn of."""
    checkpoint = read_checkpoint(run_folder / "checkpoint.safetensors")
    tensors = {name: value * 0 if name.startswith("best") else value for name, value in checkpoint.tensors.items()}
    write_checkpoint(Path("c.safetensors"), tensors, checkpoint.header)
    facts = ask("evaluate", "c.safetensors", "--draws", 20, "--json").facts
    assert facts["log_p_x"]["images"] == facts["images"] == 360
    assert facts["log_p_x"]["elbo_of_the_same_images"] == facts["elbo"]
    assert facts["log_p_x"]["median_effective_sample_size"] == pytest.approx(20)
    assert facts["log_p_x"]["warning"] is None
    answer = ask("evaluate", "c.safetensors", "--draws", 20)
    assert "warning" not in answer.out
    assert "their ELBO" not in answer.out
    assert (
        ask("evaluate", "c.safetensors", "--draws", 2, "--split", "train", "--json").facts["log_p_x"]["images"] == 100
    )


def test_a_wider_proposal_has_another_error_and_the_same_mean(ask: Ask, run_folder: Path) -> None:
    words = ("--images", 60, "--draws", 200)
    plain, wide = (ask("evaluate", run_folder, *words, "--widen", factor, "--json").facts for factor in (1.0, 2.0))
    assert plain == ask("evaluate", run_folder, *words, "--json").facts
    assert (plain["log_p_x"]["widen"], wide["log_p_x"]["widen"]) == (1.0, 2.0)
    assert wide["elbo"] == plain["elbo"]  # that of q as it is
    errors = [facts["log_p_x"]["error_of_the_draws"] for facts in (plain, wide)]
    assert errors[0] != errors[1]
    assert abs(plain["log_p_x"]["mean"] - wide["log_p_x"]["mean"]) < 5 * sum(error**2 for error in errors) ** 0.5
    vae = load_vae(run_folder / "checkpoint.safetensors", dtype=torch.float32)
    x = load_dataset("digits").test.x.float()[::6]
    there = log_p_x(vae, Widened(vae, 2.0), x, num_samples=200, generator=make_generator(8))
    assert wide["log_p_x"]["median_effective_sample_size"] == pytest.approx(
        float(there.effective_sample_size.median()), rel=0.2
    )
    assert "draws each of q with 2 times its width" in ask("evaluate", run_folder, *words, "--widen", 2).out
    assert "width" not in ask("evaluate", run_folder, *words).out


def test_active_units_are_counted(ask: Ask, run_folder: Path) -> None:
    """Those of a run as the library counts them; and of three latents two, if one mean does not depend on the image."""
    facts = ask("evaluate", run_folder, "--images", 0, "--json").facts
    run = load_vae(run_folder / "checkpoint.safetensors", dtype=torch.float32)
    count = active_units(run, load_dataset("digits").test.x.float()).num_active
    assert (facts["latents"], facts["active_units"]) == (2, count)
    config = configuration("digits", hidden=(8,), latent_dim=3)
    vae = build(config, generator=make_generator(0), dtype=torch.float32)
    *_, weight, _ = vae.encoder.parameters()  # of the last layer; its rows are the means and then the log-variances
    with torch.no_grad():
        weight[[0, 2]] *= 100.0
        weight[1] = 0.0
    save_vae("w.safetensors", vae, config, data="digits")
    facts = ask("evaluate", "w.safetensors", "--images", 0, "--json").facts
    assert (facts["latents"], facts["active_units"]) == (3, 2)
    assert "3, of which 2 active" in ask("evaluate", "w.safetensors", "--images", 0).out


def test_answers_repeat(ask: Ask, run_folder: Path) -> None:
    assert ask("evaluate", run_folder, *QUICK).out == ask("evaluate", run_folder, *QUICK).out


def test_log_p_x_can_be_left_out(ask: Ask, run_folder: Path) -> None:
    facts = ask("evaluate", run_folder, "--images", 0, "--json").facts
    assert facts["log_p_x"] is None
    assert facts["elbo"] == ask("evaluate", run_folder, *QUICK).facts["elbo"]


def test_one_image_has_no_error_bar(ask: Ask, run_folder: Path) -> None:
    facts = ask("evaluate", run_folder, "--images", 1, "--draws", 10, "--json").facts
    assert facts["log_p_x"]["standard_error"] is None


def test_splits_differ(ask: Ask, run_folder: Path) -> None:
    sizes = {split: ask("evaluate", run_folder, "--split", split, *QUICK).facts for split in ("train", "validation")}
    assert {split: facts["images"] for split, facts in sizes.items()} == {"train": 1257, "validation": 180}


def test_best_and_last_are_different_weights(ask: Ask, run_folder: Path) -> None:
    checkpoint = read_checkpoint(run_folder / "checkpoint.safetensors")
    worse = {name: value * 0 if name.startswith("model.") else value for name, value in checkpoint.tensors.items()}
    write_checkpoint(Path("c.safetensors"), worse, checkpoint.header)
    best, last = (ask("evaluate", "c.safetensors", "--weights", kind, *QUICK).facts for kind in ("best", "last"))
    assert (best["weights"], last["weights"]) == ("best", "last")
    # With all weights zero every pixel is a fair coin, thrown 16 times, and q is the prior.
    x = load_dataset("digits").test.x.double()
    zeros = BinomialDistribution(16, torch.full_like(x, 0.5)).log_prob(x).sum(1).mean()
    assert last["elbo"]["mean"] == pytest.approx(float(zeros), rel=1e-5)
    assert last["kl"]["mean"] == 0.0
    assert best["elbo"] == ask("evaluate", run_folder, *QUICK).facts["elbo"]


def test_a_file_with_weights_is_as_good(ask: Ask) -> None:
    config = configuration("digits", hidden=(8,))
    save_vae("w.safetensors", build(config, generator=make_generator(0), dtype=torch.float32), config, data="digits")
    assert ask("evaluate", "w.safetensors", *QUICK).facts["weights"] == "only"
    assert ask("sample", "w.safetensors").out == "w-means.png\n"


def test_a_file_that_names_no_data_wants_to_be_told(ask: Ask) -> None:
    config = configuration("digits", hidden=(8,))
    save_vae("w.safetensors", build(config, generator=make_generator(0), dtype=torch.float32), config)
    refused = ask("evaluate", "w.safetensors", *QUICK)
    assert refused.code == 2
    assert refused.err.startswith("vae-lib: --data: expected")
    assert ask("evaluate", "w.safetensors", "--data", "digits", *QUICK).code == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--weights", "x"), "--weights: expected best or last, found 'x'"),
        (("--split", "x"), "--split: expected train, validation, test, found 'x'"),
        (("--split", "tset"), "found 'tset'; did you mean test?"),
        (("--images", -1), "--images: expected at least 0, found -1"),
        (("--draws", 1), "--draws: expected at least 2"),
        (("--widen", 0.9), "--widen: expected a number of at least 1, found 0.9"),
        (("--widen", "nan"), "--widen: expected a number of at least 1, found nan"),
        (("--widen", "inf"), "--widen: expected a number of at least 1, found inf"),
        (("--widen", "x"), "--widen: expected a number, found 'x'"),
        (("--data", "sprites"), "--data: expected images of 8 x 8 pixels, as the model has, found 28 x 28"),
        (("--data", "x"), "unknown data set"),
        (("--device", "x"), "--device: expected a device of this machine (cpu"),
    ],
)
def test_evaluate_refuses_in_one_line(ask: Ask, run_folder: Path, words: tuple[object, ...], expected: str) -> None:
    answer = ask("evaluate", run_folder, *words)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert expected in answer.err


def test_a_checkpoint_that_is_none(ask: Ask, run_folder: Path) -> None:
    whole = (run_folder / "checkpoint.safetensors").read_bytes()
    Path("short.safetensors").write_bytes(whole[:-9])
    Path("flipped.safetensors").write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    Path("empty.safetensors").write_bytes(b"")
    save_file({"a": torch.ones(2)}, "foreign.safetensors")
    for name in ("short", "flipped", "empty", "foreign", "nothing"):
        for command in ("evaluate", "sample"):
            answer = ask(command, f"{name}.safetensors")
            assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
            assert f"{name}.safetensors: expected" in answer.err


def test_what_is_no_run_is_told_apart(ask: Ask, run_folder: Path) -> None:
    for name in ("digits-2", "digits-10", "digits-1"):
        shutil.copytree(run_folder, Path("runs") / name)
    Path("runs/notes").mkdir()
    shutil.copy(run_folder / "checkpoint.safetensors", "renamed.bin")
    expected = {
        "runs": "found a folder without checkpoint.safetensors; runs in it: digits-1, digits-2, digits-10\n",
        "runs/notes": "found a folder without checkpoint.safetensors\n",
        "runs/digit-2": "found no such file; did you mean digits-2?\n",
        **{
            f"runs/digits-1/{name}": "expected a checkpoint (.safetensors)" for name in ("samples.png", "metrics.jsonl")
        },
    }
    for place, words in expected.items():
        answer = ask("evaluate", place)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
        assert f"vae-lib: {place}: " in answer.err
        assert words in answer.err
    assert ask("evaluate", "renamed.bin", *QUICK).code == 0


def size_of(path: str | Path) -> tuple[int, int]:
    height, width, _ = plt.imread(path).shape
    return width, height


@pytest.mark.parametrize("kind", ["means", "draws", "reconstructions", "manifold"])
def test_every_kind_of_picture(ask: Ask, run_folder: Path, kind: str) -> None:
    shutil.copytree(run_folder, "mine")
    facts = ask("sample", "mine", "--kind", kind, "--json").facts
    assert facts["picture"] == f"mine/sample-{kind}.png"
    assert {path.name: path.read_bytes() for path in run_folder.iterdir()}.items() <= {
        path.name: path.read_bytes() for path in Path("mine").iterdir()
    }.items()
    assert min(size_of(facts["picture"])) > 100


def test_a_picture_can_be_named_and_repeats(ask: Ask, run_folder: Path) -> None:
    for name, words in {"a": (), "b": (), "c": ("--seed", 1), "d": ("--count", 7)}.items():
        answer = ask("sample", run_folder, "--out", f"{name}.png", *words)
        assert (answer.code, answer.out) == (0, f"{name}.png\n")
    a, b, c, d = (Path(f"{name}.png").read_bytes() for name in "abcd")
    assert a == b
    assert len({a, c, d}) == 3
    assert size_of("a.png")[0] == size_of("a.png")[1]  # eight rows of eight
    assert size_of("d.png")[0] == size_of("d.png")[1]  # seven fill three rows of three, the last with white


def test_draws_are_noisier_than_means(ask: Ask, run_folder: Path) -> None:
    ask("sample", run_folder, "--out", "means.png")
    ask("sample", run_folder, "--kind", "draws", "--out", "draws.png")
    assert Path("means.png").read_bytes() != Path("draws.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--kind", "x"), "--kind: expected one of means, draws, reconstructions, manifold, found 'x'"),
        (("--kind", "manifold", "--count", 10), "--count: expected a square number for a manifold, found 10"),
        (("--kind", "reconstructions", "--count", 361), "--count: expected at most 360"),
        (("--count", 0), "--count: expected 1 to 10000, found 0"),
        (("--count", 10**9), "--count: expected 1 to 10000"),
        (("--seed", -1), "--seed: expected an integer of at least 0"),
        (("--out", "x.jpg"), "--out: expected a name that ends in .png"),
        (("--out", "file/x.png"), "expected a place that can be written to"),
    ],
)
def test_sample_refuses_in_one_line(ask: Ask, run_folder: Path, words: tuple[object, ...], expected: str) -> None:
    Path("file").write_text("")
    answer = ask("sample", run_folder, *words)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert expected in answer.err


def test_a_manifold_needs_two_latents(ask: Ask) -> None:
    config = configuration("digits", hidden=(8,))
    save_vae("w.safetensors", build(config, generator=make_generator(0)), config, data="digits")
    assert "expected a model with 2 latents" in ask("sample", "w.safetensors", "--kind", "manifold").err


def test_the_header_names_data_and_model(run_folder: Path) -> None:
    path = run_folder / "checkpoint.safetensors"
    header = read_checkpoint(path).header
    assert header["notes"]["data"] == "digits"
    assert header["notes"]["configuration"] == "digits"
    assert read_config(path, header).latent_dim == 2
