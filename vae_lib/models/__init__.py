"""Models made of networks: encoders, decoders, likelihood heads, and the VAE that they make."""

from vae_lib.models.configurations import VAEConfig, build, configuration, configuration_names
from vae_lib.models.convolutional import OverLeadingAxes, conv_decoder, conv_encoder
from vae_lib.models.decoder_model import DecoderModel, fair_bits, standard_normal
from vae_lib.models.encoders import BernoulliEncoder, NormalEncoder
from vae_lib.models.likelihoods import (
    BernoulliLikelihood,
    BinomialLikelihood,
    CategoricalLikelihood,
    DiscretisedLogisticLikelihood,
    Likelihood,
)
from vae_lib.models.networks import Divide, NormalInit, fan_in_uniform, glorot_uniform, mlp
from vae_lib.models.normal_likelihoods import LearnedNormalLikelihood, NormalLikelihood, PredictedNormalLikelihood
from vae_lib.models.vae import VAE, FunctionalVAE, StandardNormal

__all__ = [
    "VAE",
    "BernoulliEncoder",
    "BernoulliLikelihood",
    "BinomialLikelihood",
    "CategoricalLikelihood",
    "DecoderModel",
    "DiscretisedLogisticLikelihood",
    "Divide",
    "FunctionalVAE",
    "LearnedNormalLikelihood",
    "Likelihood",
    "NormalEncoder",
    "NormalInit",
    "NormalLikelihood",
    "OverLeadingAxes",
    "PredictedNormalLikelihood",
    "StandardNormal",
    "VAEConfig",
    "build",
    "configuration",
    "configuration_names",
    "conv_decoder",
    "conv_encoder",
    "fair_bits",
    "fan_in_uniform",
    "glorot_uniform",
    "mlp",
    "standard_normal",
]
