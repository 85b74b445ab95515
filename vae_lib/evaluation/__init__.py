"""Evaluation: how good a trained model is on data that it has not seen, in nats (chapter 5)."""

from vae_lib.evaluation.annealed import Annealed, annealed_log_p_x, reverse_annealed_log_p_x, simulate
from vae_lib.evaluation.chains import AnnealedPath
from vae_lib.evaluation.diagnostics import ActiveUnits, active_units, kl_per_dimension
from vae_lib.evaluation.disentanglement import (
    InformationGap,
    MajorityVotes,
    majority_vote_score,
    mutual_information_gap,
)
from vae_lib.evaluation.held_out import HeldOut, held_out_elbo
from vae_lib.evaluation.information import factor_entropies, mutual_information
from vae_lib.evaluation.marginal_likelihood import MarginalLikelihood, log_p_x
from vae_lib.evaluation.posterior_samples import FromPosterior, log_p_x_from_posterior
from vae_lib.evaluation.proposals import Defensive, TwoNormals, Widened
from vae_lib.evaluation.rate_distortion import RateDistortion, rate_distortion

__all__ = [
    "ActiveUnits",
    "Annealed",
    "AnnealedPath",
    "Defensive",
    "FromPosterior",
    "HeldOut",
    "InformationGap",
    "MajorityVotes",
    "MarginalLikelihood",
    "RateDistortion",
    "TwoNormals",
    "Widened",
    "active_units",
    "annealed_log_p_x",
    "factor_entropies",
    "held_out_elbo",
    "kl_per_dimension",
    "log_p_x",
    "log_p_x_from_posterior",
    "majority_vote_score",
    "mutual_information",
    "mutual_information_gap",
    "rate_distortion",
    "reverse_annealed_log_p_x",
    "simulate",
]
