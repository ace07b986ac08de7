"""Steering: models with a costly step (language models, diffusions) led to where a score wants them, with exact weights."""

from .correct import Correct
from .denoise import Denoise, FirstOrder, SecondOrder
from .diffusion import correcting, denoising
from .language import Sentence, language_model
from .lookahead import LookAhead
from .noised import Density, Reward, Score, from_denoiser, preserving, sigma_of
from .reverse_diffusion import Ancestral, Tweedie, reverse_diffusion
from .speaker import OnHost, Prefixes, Speaker, Stateful
from .twisted import by_conditioning, by_gradient, first_order, linear_gaussian, second_order, twisted

__all__ = [
    "Ancestral",
    "Correct",
    "Denoise",
    "Density",
    "FirstOrder",
    "LookAhead",
    "OnHost",
    "Prefixes",
    "Reward",
    "Score",
    "SecondOrder",
    "Sentence",
    "Speaker",
    "Stateful",
    "Tweedie",
    "by_conditioning",
    "by_gradient",
    "correcting",
    "denoising",
    "first_order",
    "from_denoiser",
    "language_model",
    "linear_gaussian",
    "preserving",
    "reverse_diffusion",
    "second_order",
    "sigma_of",
    "twisted",
]
