"""Learning: EM and variational EM (chapter 2), what amortised inference costs, and the trainer (chapter 5)."""

from vae_lib.learning.amortisation import InferenceGap, inference_gap, maximise
from vae_lib.learning.batches import Images, reading_for
from vae_lib.learning.checkpoints import CheckpointError, load_vae, save_vae
from vae_lib.learning.diagnosis import NonFiniteError
from vae_lib.learning.diffusion import DiffusionELBO, SimpleLoss
from vae_lib.learning.em import BoundFellError, EMRun, exact, run_em
from vae_lib.learning.interrupts import TrainingInterrupted
from vae_lib.learning.objectives import Warmup, beta_elbo, calibrated_elbo, free_bits, optimal_logvar
from vae_lib.learning.run import Run, load_trained
from vae_lib.learning.settings import TrainingConfig
from vae_lib.learning.training import train
from vae_lib.learning.wake_sleep import WakeSleep

__all__ = [
    "BoundFellError",
    "CheckpointError",
    "DiffusionELBO",
    "EMRun",
    "Images",
    "InferenceGap",
    "NonFiniteError",
    "Run",
    "SimpleLoss",
    "TrainingConfig",
    "TrainingInterrupted",
    "WakeSleep",
    "Warmup",
    "beta_elbo",
    "calibrated_elbo",
    "exact",
    "free_bits",
    "inference_gap",
    "load_trained",
    "load_vae",
    "maximise",
    "optimal_logvar",
    "reading_for",
    "run_em",
    "save_vae",
    "train",
]
