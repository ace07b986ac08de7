"""Emulators: cheap functions in the place of costly ones, fitted to runs of them. `sur.emulate` makes one.

A family says of what kind: `GaussianProcess()`, `Ensemble()`, `Informed(equations)`, `Autoregressive(...)`, or tries several:
`Halving.over(Ensemble(), width=(16, 64))`. Charts say in what
form inputs are read, components in what form outputs are said.
"""

from .charts import BoxCox, Given, Identity, Log, Logit, Monotone, Reciprocal, Search
from .components import Principal
from .emulator import Emulator, Family, LeaveOneOut, Prediction
from .ensemble import Ensemble
from .fidelity import Autoregressive
from .gaussian_process import GaussianProcess
from .halving import Halving
from .kernels import Matern52, SquaredExponential
from .physics import Equations, Informed, Level, slope
from .runs import Runs
from .trend import Constant, Linear, Quadratic

__all__ = [
    "Autoregressive",
    "BoxCox",
    "Constant",
    "Emulator",
    "Ensemble",
    "Equations",
    "Family",
    "GaussianProcess",
    "Given",
    "Halving",
    "Identity",
    "Informed",
    "LeaveOneOut",
    "Level",
    "Linear",
    "Log",
    "Logit",
    "Matern52",
    "Monotone",
    "Prediction",
    "Principal",
    "Quadratic",
    "Reciprocal",
    "Runs",
    "Search",
    "SquaredExponential",
    "slope",
]
