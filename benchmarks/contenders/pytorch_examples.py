"""The VAE of pytorch/examples: its file, run as it is, with its loader, its loss and its loop.

The file is not part of this project. It is read from a path, or downloaded once and verified by its hash. It reads
MNIST through torchvision.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from contenders.contract import SkippedError, Task
from vae_lib.data import DatasetError, data_folder
from vae_lib.data.download import RemoteFile
from vae_lib.data.folder import DataFolder

COMMIT = "cd01f93000a6679e768700dd29e417a1e5fd10e5"
FILE = RemoteFile(
    "pytorch-examples/vae.py",
    (f"https://raw.githubusercontent.com/pytorch/examples/{COMMIT}/vae/main.py",),
    "sha256:8ff804246558b153a4134c83940e50967ffbbd02f44a43fc120004d0d2a3ec85",
    4816,
)


class PytorchExamples:
    """The published script, from its first line to the definition of ``train``, which then is called epoch by epoch.

    Parameters
    ----------
    task
        Where its sizes differ from the published 400 units with relu, the two words are replaced in the text.
    path
        The file; if not given, it is downloaded.
    """

    def __init__(self, task: Task, path: Path | None = None) -> None:
        if find_spec("torchvision") is None:
            raise SkippedError("pip install torchvision, in the version that fits this torch")
        source = _source(path).replace("400", str(task.hidden)).replace("F.relu", f"torch.{task.activation}")
        self.space: dict[str, Any] = {"__name__": "pytorch_examples_vae"}
        arguments = ["main.py", "--no-cuda", "--batch-size", str(task.batch_size)]
        with _folder(task.images), patch.object(sys, "argv", arguments):
            exec(compile(source, "pytorch/examples/vae/main.py", "exec"), self.space)
        self.done = 0

    def linears(self) -> list[nn.Linear]:
        """The layers."""
        return [getattr(self.space["model"], name) for name in ("fc1", "fc21", "fc22", "fc3", "fc4")]

    def epoch(self) -> None:
        """Call its ``train``."""
        self.done += 1
        self.space["train"](self.done)


def _source(path: Path | None) -> str:
    if path is not None:
        return path.read_text(encoding="utf-8")
    try:
        return DataFolder(data_folder()).fetch(FILE, lambda data: data.decode())
    except DatasetError as error:
        raise SkippedError(f"--pytorch-examples FILE, a copy of vae/main.py; {error}") from error


@contextmanager
def _folder(images: Tensor) -> Iterator[None]:
    """Lay the images where the script looks for MNIST, ``../data``, in MNIST's own format; for the time of a block."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        raw, work = Path(folder, "data/MNIST/raw"), Path(folder, "work")
        raw.mkdir(parents=True)
        work.mkdir()
        for part in ("train", "t10k"):
            labels = torch.zeros(len(images), dtype=torch.uint8)
            for name, values in ((f"{part}-images-idx3", images.view(-1, 28, 28)), (f"{part}-labels-idx1", labels)):
                # Two zeros, the code of bytes, the number of axes; then each size in four bytes.
                sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
                (raw / f"{name}-ubyte").write_bytes(bytes([0, 0, 8, values.dim()]) + sizes + values.numpy().tobytes())
        os.chdir(work)
        try:
            yield
        finally:
            os.chdir(here)
