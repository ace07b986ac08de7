"""Make answers cheap, and exact again: networks and emulators trained from a program, checked, and corrected against it."""

from . import batch_conformal, conformal, emulators, unshrink
from .artifact import load, save
from .correct import correct
from .defensive import Defensive
from .diagnose import Report, diagnose
from .discrepancy import discrepancy
from .distribution_transformer import DistributionTransformer, distribution_transformer
from .emulators.door import emulate
from .emulators.gate import accuracy
from .emulators.noisy import noisy
from .gate import Gate
from .likelihood_rungs import ByDelayedAcceptance, ByPower, ByPowerTempering, Pilot
from .neural_likelihood import NeuralLikelihood, neural_likelihood
from .neural_posterior import NeuralPosterior, neural_posterior
from .pfn import PFN, pfn
from .powered import Nested, Tempered
from .rungs import Attempt, ByImportance, ByMCMC, ByTempering, Rung, Task
from .simulator import simulator
from .training import muon
from .workers import On, Processes

__all__ = [
    "PFN",
    "Attempt",
    "ByDelayedAcceptance",
    "ByImportance",
    "ByMCMC",
    "ByPower",
    "ByPowerTempering",
    "ByTempering",
    "Defensive",
    "DistributionTransformer",
    "Gate",
    "Nested",
    "NeuralLikelihood",
    "NeuralPosterior",
    "On",
    "Pilot",
    "Processes",
    "Report",
    "Rung",
    "Task",
    "Tempered",
    "accuracy",
    "batch_conformal",
    "conformal",
    "correct",
    "diagnose",
    "discrepancy",
    "distribution_transformer",
    "emulate",
    "emulators",
    "load",
    "muon",
    "neural_likelihood",
    "neural_posterior",
    "noisy",
    "pfn",
    "save",
    "simulator",
    "unshrink",
]
