"""Evaluation: how good a trained model is on data that it has not seen, in nats (chapter 5)."""

from vae_lib.evaluation.held_out import HeldOut, held_out_elbo
from vae_lib.evaluation.marginal_likelihood import MarginalLikelihood, log_p_x

__all__ = ["HeldOut", "MarginalLikelihood", "held_out_elbo", "log_p_x"]
