"""What a training tells while it runs: a progress bar, one JSON line for each look at held-out data, TensorBoard."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vae_lib.learning.checkpoints import CheckpointError, write_whole

METRICS = "metrics.jsonl"


class Report:
    """The reports of one training; silent wherever it was not asked for them.

    Parameters
    ----------
    folder
        Where ``metrics.jsonl`` lies; nothing is written without one.
    history
        Lines of an earlier part of this training. The file is written anew with them, for it may hold lines from after
        the checkpoint.
    progress
        Whether to show a bar on stderr. If not given: where stderr is a terminal.
    tensorboard
        Whether to write event files as well; needs the package ``tensorboard``.
    total, done
        Images to be seen in all, and seen already.
    """

    def __init__(
        self,
        folder: Path | None,
        history: Iterable[dict[str, Any]],
        *,
        progress: bool | None,
        tensorboard: bool,
        total: int,
        done: int,
    ) -> None:
        self._path = None if folder is None else folder / METRICS
        shown = sys.stderr.isatty() if progress is None else progress
        if self._path is not None:
            write_whole(self._path, "".join(map(_line, history)).encode())
        self._writer: Any = _summary_writer(folder) if tensorboard and folder is not None else None
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="img",
            unit_scale=True,
            disable=not shown,
            file=sys.stderr,
            dynamic_ncols=True,
            # No throttling on top of tqdm's own clock: what the bar says is computed only when it is drawn.
            miniters=1,
            mininterval=0.5,
        )

    def advance(self, images: int) -> bool:
        """Count images; say whether the bar was just drawn, so that new words are worth computing."""
        return bool(self._bar.update(images))

    def say(self, **numbers: float) -> None:
        """Show numbers at the end of the bar."""
        self._bar.set_postfix({name: f"{value:.2f}" for name, value in numbers.items()}, refresh=False)

    def write(self, row: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``, and its numbers to TensorBoard.

        Raises
        ------
        CheckpointError
            If the disk does not take it.
        """
        if self._path is not None:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(_line(row))
            except OSError as error:
                expected = "expected a file that can be written to"
                raise CheckpointError(f"{self._path}: {expected}, found: {error.strerror}") from error
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(name, value, global_step=row["step"])

    def close(self) -> None:
        """Leave the bar as it stands, and flush."""
        self._bar.close()
        if self._writer is not None:
            self._writer.close()


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise CheckpointError("tensorboard: expected the package tensorboard, found none; pip install it") from error
    return SummaryWriter(str(folder))
