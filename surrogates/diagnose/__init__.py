"""Can an amortised posterior be trusted? Checks that can fail it, one file each; `diagnose` runs them all."""

from .alarms import Alarms
from .check import Check, Outcome
from .classifier import Classifier
from .coverage import Coverage
from .door import CHECKS, diagnose
from .finite import Finite
from .gap import Gap
from .random_points import RandomPoints
from .ranks import Ranks
from .report import Report
from .study import Simulated, Study
from .weights import Weights

__all__ = [
    "CHECKS",
    "Alarms",
    "Check",
    "Classifier",
    "Coverage",
    "Finite",
    "Gap",
    "Outcome",
    "RandomPoints",
    "Ranks",
    "Report",
    "Simulated",
    "Study",
    "Weights",
    "diagnose",
]
