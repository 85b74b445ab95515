"""Models made of networks: encoders, decoders, likelihood heads, and the VAE that they make."""

from vae_lib.models.configurations import VAEConfig, build, configuration, configuration_names
from vae_lib.models.convolutional import OverLeadingAxes, conv_decoder, conv_encoder
from vae_lib.models.decoder_model import DecoderModel, fair_bits, standard_normal
from vae_lib.models.denoisers import LinearDenoiser, MLPDenoiser
from vae_lib.models.diffusion import DiffusionTerms, GaussianDiffusion
from vae_lib.models.diffusion_exact import NormalDataDiffusion
from vae_lib.models.diffusion_schedule import (
    NoiseSchedule,
    cosine_schedule,
    linear_beta_schedule,
    linear_log_snr_schedule,
)
from vae_lib.models.encoders import BernoulliEncoder, NormalEncoder
from vae_lib.models.hierarchical import ChainEncoder, HierarchicalModel, MarkovChain, NormalLink, SampledMarkovChain
from vae_lib.models.likelihoods import (
    BernoulliLikelihood,
    BinomialLikelihood,
    CategoricalLikelihood,
    DiscretisedLogisticLikelihood,
    Likelihood,
)
from vae_lib.models.linear_chain import LinearGaussianChain, LinearLink
from vae_lib.models.networks import Divide, NormalInit, fan_in_uniform, glorot_uniform, mlp
from vae_lib.models.normal_likelihoods import LearnedNormalLikelihood, NormalLikelihood, PredictedNormalLikelihood
from vae_lib.models.reconstructions import (
    DiscretisedNormalReconstruction,
    LearnedReconstruction,
    NormalReconstruction,
    Reconstruction,
    bits_per_dim,
)
from vae_lib.models.vae import VAE, FunctionalVAE, StandardNormal

__all__ = [
    "VAE",
    "BernoulliEncoder",
    "BernoulliLikelihood",
    "BinomialLikelihood",
    "CategoricalLikelihood",
    "ChainEncoder",
    "DecoderModel",
    "DiffusionTerms",
    "DiscretisedLogisticLikelihood",
    "DiscretisedNormalReconstruction",
    "Divide",
    "FunctionalVAE",
    "GaussianDiffusion",
    "HierarchicalModel",
    "LearnedNormalLikelihood",
    "LearnedReconstruction",
    "Likelihood",
    "LinearDenoiser",
    "LinearGaussianChain",
    "LinearLink",
    "MLPDenoiser",
    "MarkovChain",
    "NoiseSchedule",
    "NormalDataDiffusion",
    "NormalEncoder",
    "NormalInit",
    "NormalLikelihood",
    "NormalLink",
    "NormalReconstruction",
    "OverLeadingAxes",
    "PredictedNormalLikelihood",
    "Reconstruction",
    "SampledMarkovChain",
    "StandardNormal",
    "VAEConfig",
    "bits_per_dim",
    "build",
    "configuration",
    "configuration_names",
    "conv_decoder",
    "conv_encoder",
    "cosine_schedule",
    "fair_bits",
    "fan_in_uniform",
    "glorot_uniform",
    "linear_beta_schedule",
    "linear_log_snr_schedule",
    "mlp",
    "standard_normal",
]
