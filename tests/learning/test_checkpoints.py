"""Checkpoints: what is read is what was written, or one line says why not; what was there survives a failing disk."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.learning.runs import MODEL, same_bits, small_run, small_vae, weights
from vae_lib.learning import CheckpointError, load_vae, save_vae
from vae_lib.learning.checkpoints import read_checkpoint, write_checkpoint, write_whole
from vae_lib.rng import make_generator

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.tensor(7),
    "c": torch.tensor([1, 2], dtype=torch.uint8),
    "d": torch.zeros(0, 3, dtype=torch.float16),
}
HEADER = {"step": 3, "notes": {"who": "é", "rate": 0.1}}


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    write_checkpoint(path, TENSORS, HEADER)
    tensors, header = read_checkpoint(path)
    assert same_bits(tensors, TENSORS)
    assert [tensors[name].dtype for name in "abcd"] == [TENSORS[name].dtype for name in "abcd"]
    assert header == HEADER | {"format": "vae_lib checkpoint 1"}
    assert listing(path.parent) == ["file"]


def test_tensors_may_share_memory_or_be_views(tmp_path: Path) -> None:
    a = torch.arange(12.0).reshape(3, 4).requires_grad_()
    tensors = {"a": a, "again": a, "turned": a.mT, "row": a[1], "strided": a[:, ::2]}
    write_checkpoint(tmp_path / "file", tensors, {})
    assert same_bits(read_checkpoint(tmp_path / "file").tensors, tensors)


@pytest.mark.parametrize("length", [*range(0, 40), 100, 200, 300, -1, -2, -7, -100])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "file"
    write_checkpoint(path, TENSORS, HEADER)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"^\S+: expected a (whole )?checkpoint, found.*$"):
        read_checkpoint(path)


def test_no_flipped_bit_changes_what_is_read(tmp_path: Path) -> None:
    """One bit of every byte of the file in turn; a flip from white space to white space may pass."""
    path = tmp_path / "file"
    write_checkpoint(path, TENSORS, HEADER)
    whole, expected = path.read_bytes(), read_checkpoint(path)
    passed = 0
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1 << (place * 5 % 8)
        path.write_bytes(bytes(broken))
        try:
            tensors, header = read_checkpoint(path)
        except CheckpointError:
            continue
        passed += 1
        assert same_bits(tensors, expected.tensors)
        assert header == expected.header
    assert passed < len(whole) / 20


def test_a_flip_of_meaning_is_seen(tmp_path: Path) -> None:
    """A step, a type and a shape that are other ones of the same length: safetensors itself is content."""
    path = tmp_path / "file"
    write_checkpoint(path, TENSORS, HEADER)
    whole = path.read_bytes()
    for old, new in [(b'step\\": 3', b'step\\": 4'), (b'"F32"', b'"I32"'), (b"[2,3]", b"[3,2]")]:
        assert whole.count(old) == 1
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(CheckpointError, match="expected contents with the SHA-256 in the header"):
            read_checkpoint(path)


def a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": 1}))


def a_torch_pickle(path: Path) -> None:
    torch.save({"a": torch.ones(2)}, path)


def other_safetensors(path: Path) -> None:
    save_file({"a": torch.ones(2)}, path)


def other_metadata(path: Path) -> None:
    save_file({"a": torch.ones(2)}, path, metadata={"vae_lib": "no JSON"})


def a_list(path: Path) -> None:
    save_file({"a": torch.ones(2)}, path, metadata={"vae_lib": "[]"})


def a_later_format(path: Path) -> None:
    save_file({"a": torch.ones(2)}, path, metadata={"vae_lib": json.dumps({"format": "vae_lib checkpoint 2"})})


def no_digest(path: Path) -> None:
    save_file({"a": torch.ones(2)}, path, metadata={"vae_lib": json.dumps({"format": "vae_lib checkpoint 1"})})


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "expected a whole checkpoint, found a truncated or foreign file"),
        (a_pickle, "expected a whole checkpoint, found a truncated or foreign file"),
        (a_torch_pickle, "expected a whole checkpoint, found a truncated or foreign file"),
        (other_safetensors, "expected a checkpoint of vae_lib, found safetensors of another kind"),
        (other_metadata, "expected a checkpoint of vae_lib, found safetensors of another kind"),
        (a_list, "expected a checkpoint of vae_lib, found safetensors of another kind"),
        (a_later_format, "expected the format 'vae_lib checkpoint 1', found 'vae_lib checkpoint 2'"),
        (no_digest, "expected contents with the SHA-256 in the header, found others: it is damaged"),
        (lambda path: None, "expected a checkpoint, found: No such file or directory"),
        (lambda path: path.mkdir(), "expected a checkpoint, found: Is a directory"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "file"
    write(path)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(("place", "number"), [("open", errno.EROFS), ("fsync", errno.ENOSPC), ("replace", errno.EIO)])
def test_a_disk_that_refuses_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    path = tmp_path / "file"
    write_checkpoint(path, TENSORS, HEADER)

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path if place == "open" else os, place, refuse)
        with pytest.raises(CheckpointError) as caught:
            write_checkpoint(path, {"a": torch.ones(2)}, {"step": 4})
    assert str(caught.value) == f"{path}: expected a place that can be written to, found: {os.strerror(number)}"
    assert read_checkpoint(path).header["step"] == 3
    assert listing(tmp_path) == ["file"]


def test_a_disk_that_is_full_in_the_middle_of_a_file(tmp_path: Path) -> None:
    """The kernel itself breaks the write off, at 4096 bytes."""
    path = tmp_path / "file"
    write_checkpoint(path, TENSORS, HEADER)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(CheckpointError) as caught:
            write_checkpoint(path, {"a": torch.ones(2000)}, {"step": 4})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value) == f"{path}: expected a place that can be written to, found: {os.strerror(errno.EFBIG)}"
    assert read_checkpoint(path).header["step"] == 3
    assert listing(tmp_path) == ["file"]


def test_a_place_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(CheckpointError, match=r"^\S+: expected a place that can be written to, found: .+$"):
        write_whole(tmp_path / "file" / "inside", b"new")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / ".file.0123abcd.part").write_bytes(b"half")
    (tmp_path / ".other.0123abcd.part").write_bytes(b"somebody else's")
    write_whole(tmp_path / "file", b"new")
    assert listing(tmp_path) == [".other.0123abcd.part", "file"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_the_file_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(number: int) -> None:
        events.append(f"fsync of {os.fstat(number).st_size}")
        fsync(number)

    def noted_replace(source: Path, target: Path) -> None:
        events.append(f"replace by {source.stat().st_size}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_whole(tmp_path / "file", b"12345")
    assert events == ["fsync of 5", "replace by 5"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_vae_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    vae, path = small_vae(dtype), tmp_path / "vae"
    save_vae(path, vae, MODEL, remark="hello")
    again = load_vae(path, dtype=dtype)
    assert same_bits(again.state_dict(), vae.state_dict())
    assert read_checkpoint(path).header["notes"]["remark"] == "hello"
    x = torch.ones(2, 12, dtype=dtype)
    z = [model(x).sample(3, generator=make_generator(1)) for model in (vae, again)]
    assert torch.equal(*z)


def test_a_vae_in_half_the_bytes(tmp_path: Path) -> None:
    vae = small_vae()
    save_vae(tmp_path / "half", vae, MODEL, dtype=torch.float16)
    halves = {name: value.half().float() for name, value in vae.state_dict().items()}
    assert same_bits(load_vae(tmp_path / "half").state_dict(), halves)
    assert {value.dtype for value in read_checkpoint(tmp_path / "half").tensors.values()} == {torch.float16}


def test_the_best_weights_of_a_training_or_the_last(tmp_path: Path) -> None:
    # At this rate the bound goes up and down, so the best look is not the last one.
    run = small_run(tmp_path, epochs=4, learning_rate=1.0, notes={"model": MODEL.__dict__})
    bounds = [row["validation_elbo"] for row in run.history]
    number = bounds.index(max(bounds)) + 1
    assert number < 4
    best, last = load_vae_of(run)
    assert same_bits(last, weights(run))
    assert same_bits(best, weights(small_run(epochs=number, learning_rate=1.0)))


def load_vae_of(run: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    best = load_vae(run.checkpoint, dtype=torch.float64).state_dict()
    return best, load_vae(run.checkpoint, best=False, dtype=torch.float64).state_dict()


@pytest.mark.parametrize(
    ("notes", "found"),
    [
        ({}, "none; a model of your own takes its weights by load_trained"),
        ({"model": 3}, ".*must be a mapping.*"),
        ({"model": MODEL.__dict__ | {"colour": 1}}, ".*unexpected keyword argument 'colour'"),
        ({"model": MODEL.__dict__ | {"latent_dim": 0}}, "latent_dim: expected a positive integer, found 0"),
    ],
)
def test_a_header_without_a_configuration(tmp_path: Path, notes: dict[str, Any], found: str) -> None:
    write_checkpoint(tmp_path / "file", {}, {"notes": notes})
    expected = "expected the configuration of a VAE in its header, found"
    with pytest.raises(CheckpointError, match=rf"^\S+: {expected} {found}$"):
        load_vae(tmp_path / "file")


def test_weights_of_another_model_change_nothing(tmp_path: Path) -> None:
    vae = small_vae()
    own = {f"model.{name}": value for name, value in vae.state_dict().items()}
    first = "model.decoder.0.bias"
    cases = {
        rf"expected the weights of this model, found {first[6:]} only in the model": own.keys() - {first},
        r"expected the weights of this model, found more only in the file": own.keys() | {"model.more"},
    }
    for number, (message, names) in enumerate(cases.items()):
        path = tmp_path / str(number)
        write_checkpoint(path, {n: own.get(n, torch.ones(2)) for n in names}, {"notes": {"model": MODEL.__dict__}})
        with pytest.raises(CheckpointError, match=rf"^\S+: {message}$"):
            load_vae(path)
    path = tmp_path / "shape"
    write_checkpoint(path, own | {first: torch.ones(6)}, {"notes": {"model": MODEL.__dict__}})
    message = r"expected decoder.0.bias of shape \(5,\) as in this model, found \(6,\)"
    with pytest.raises(CheckpointError, match=rf"^\S+: {message}$"):
        load_vae(path)


def test_weights_alone_are_no_training(tmp_path: Path) -> None:
    save_vae(tmp_path / "checkpoint.safetensors", small_vae(), MODEL)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=r"^\S+: expected the state of a training, found weights alone$"):
        small_run(tmp_path, resume=True)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
