"""Find the best: climb objectives by stochastic gradients, and the modes of posteriors."""

from .dadvi import dadvi
from .fit import Fit
from .laplace import laplace
from .maximize import maximize
from .mode import find_mode
from .pathfinder import pathfinder
from .svgd import svgd
from .until import RelativeChange, Stalled

__all__ = [
    "Fit",
    "RelativeChange",
    "Stalled",
    "dadvi",
    "find_mode",
    "laplace",
    "maximize",
    "pathfinder",
    "svgd",
]
