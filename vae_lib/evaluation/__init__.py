"""Evaluation: how good a trained model is on data that it has not seen, in nats (chapter 5)."""

from vae_lib.evaluation.annealed import Annealed, annealed_log_p_x, reverse_annealed_log_p_x, simulate
from vae_lib.evaluation.chains import AnnealedPath
from vae_lib.evaluation.diagnostics import ActiveUnits, active_units, kl_per_dimension
from vae_lib.evaluation.held_out import HeldOut, held_out_elbo
from vae_lib.evaluation.marginal_likelihood import MarginalLikelihood, log_p_x
from vae_lib.evaluation.posterior_samples import FromPosterior, log_p_x_from_posterior
from vae_lib.evaluation.proposals import Defensive, TwoNormals, Widened

__all__ = [
    "ActiveUnits",
    "Annealed",
    "AnnealedPath",
    "Defensive",
    "FromPosterior",
    "HeldOut",
    "MarginalLikelihood",
    "TwoNormals",
    "Widened",
    "active_units",
    "annealed_log_p_x",
    "held_out_elbo",
    "kl_per_dimension",
    "log_p_x",
    "log_p_x_from_posterior",
    "reverse_annealed_log_p_x",
    "simulate",
]
