"""Make answers cheap, and exact again: networks trained from a program, checked, and corrected against it."""

from .artifact import load, save
from .correct import correct
from .defensive import Defensive
from .diagnose import Report, diagnose
from .distribution_transformer import DistributionTransformer, distribution_transformer
from .gate import Gate
from .neural_likelihood import NeuralLikelihood, neural_likelihood
from .neural_posterior import NeuralPosterior, neural_posterior
from .pfn import PFN, pfn
from .rungs import Attempt, ByImportance, ByMCMC, ByTempering, Rung, Task
from .training import muon

__all__ = [
    "PFN",
    "Attempt",
    "ByImportance",
    "ByMCMC",
    "ByTempering",
    "Defensive",
    "DistributionTransformer",
    "Gate",
    "NeuralLikelihood",
    "NeuralPosterior",
    "Report",
    "Rung",
    "Task",
    "correct",
    "diagnose",
    "distribution_transformer",
    "load",
    "muon",
    "neural_likelihood",
    "neural_posterior",
    "pfn",
    "save",
]
