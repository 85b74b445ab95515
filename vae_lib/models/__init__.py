"""Models made of networks: encoders, decoders, likelihood heads."""

from vae_lib.models.decoder_model import DecoderModel, fair_bits, standard_normal
from vae_lib.models.encoders import BernoulliEncoder, NormalEncoder
from vae_lib.models.likelihoods import BernoulliLikelihood, BinomialLikelihood, Likelihood, NormalLikelihood
from vae_lib.models.networks import mlp

__all__ = [
    "BernoulliEncoder",
    "BernoulliLikelihood",
    "BinomialLikelihood",
    "DecoderModel",
    "Likelihood",
    "NormalEncoder",
    "NormalLikelihood",
    "fair_bits",
    "mlp",
    "standard_normal",
]
