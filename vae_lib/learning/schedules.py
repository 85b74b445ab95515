r"""Learning rates as functions of the step: nothing to store, nothing to restore.

- ``constant``.
- ``cosine``: from the full rate to zero along half a period.
- ``stages``: Burda, Grosse and Salakhutdinov (2016), section 5: stage :math:`i = 0 \dots 7` has :math:`3^i` passes over
  the data, at :math:`10^{-i/7}` of the full rate. Their 3280 passes are laid over the steps at hand.
"""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "cosine", "stages"]


def rate_factor(schedule: Schedule, step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """What the learning rate is multiplied by at a step.

    Parameters
    ----------
    schedule
        Which one.
    step
        0 ... ``total_steps`` - 1.
    total_steps
        The length of the whole training.
    warmup_steps
        Over so many first steps the rate grows to its value along a straight line.
    """
    factor = 1.0
    if schedule == "cosine":
        factor = 0.5 * (1.0 + math.cos(math.pi * step / total_steps))
    elif schedule == "stages":
        # Stages before stage i take 1 + 3 + ... + 3^(i-1) = (3^i - 1) / 2 of the 3280 passes.
        stage = max(i for i in range(8) if (3**i - 1) // 2 * total_steps <= 3280 * step)
        factor = 10.0 ** (-stage / 7.0)
    return factor * min(1.0, (step + 1) / warmup_steps) if warmup_steps else factor
