"""Learning: EM and variational EM (chapter 2), and what amortised inference costs."""

from vae_lib.learning.amortisation import InferenceGap, inference_gap, maximise
from vae_lib.learning.em import BoundFellError, EMRun, exact, run_em

__all__ = ["BoundFellError", "EMRun", "InferenceGap", "exact", "inference_gap", "maximise", "run_em"]
