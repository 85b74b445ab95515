"""``sample``: one picture of a stored model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from vae_lib.cli.experiment import ready_device
from vae_lib.cli.options import Sample
from vae_lib.cli.outcome import Outcome
from vae_lib.cli.parsing import BadInput
from vae_lib.cli.pictures import Painter, save
from vae_lib.cli.stored import Stored, facts_of, open_stored, split_of

# Kinds, and how many images each has if nothing is said.
_COUNTS = {"means": 64, "draws": 64, "reconstructions": 20, "manifold": 400}
_MOST = 10_000


def run(options: Sample, words: Sequence[str]) -> Outcome:
    """Draw it, and say where it lies."""
    if options.kind not in _COUNTS:
        raise BadInput(f"--kind: expected one of {', '.join(_COUNTS)}, found {options.kind!r}")
    count = _COUNTS[options.kind] if options.count is None else options.count
    if not 1 <= count <= _MOST:
        raise BadInput(f"--count: expected 1 to {_MOST}, found {count}")
    if options.seed < 0:
        raise BadInput(f"--seed: expected an integer of at least 0, found {options.seed}")
    if options.out is not None and options.out.suffix.lower() != ".png":
        raise BadInput(f"--out: expected a name that ends in .png, found {options.out}")
    ready_device("cpu")
    stored = open_stored(options.run, weights=options.weights, data=options.data)
    painter = Painter(stored.vae, stored.config)
    if options.kind == "manifold":
        side = math.isqrt(count)
        if stored.config.latent_dim != 2:
            raise BadInput(f"--kind: expected a model with 2 latents for a manifold, found {stored.config.latent_dim}")
        if side**2 != count:
            raise BadInput(f"--count: expected a square number for a manifold, found {count}")
        axes = painter.manifold(side)
    elif options.kind == "reconstructions":
        _, x = split_of(stored, options.split)
        if count > len(x):
            raise BadInput(f"--count: expected at most {len(x)}, the images of the split, found {count}")
        axes = painter.reconstructions(x[:count])
    else:
        axes = painter.prior_samples(count, seed=options.seed, draws=options.kind == "draws")
    path = save(axes, options.out or _place(options.run, stored, options.kind))
    facts = {**facts_of(stored), "kind": options.kind, "count": count, "seed": options.seed, "picture": str(path)}
    return Outcome(facts, [str(path)])


def _place(run: Path, stored: Stored, kind: str) -> Path:
    """In the folder of a run, under a name that no picture of a training has; for a file with weights, here."""
    return run / f"sample-{kind}.png" if run.is_dir() else Path(f"{stored.path.stem}-{kind}.png")
