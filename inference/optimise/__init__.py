"""Find the best: climb objectives by stochastic gradients, and the modes of posteriors."""

from .fit import Fit
from .maximize import maximize
from .until import RelativeChange, Stalled

__all__ = ["Fit", "RelativeChange", "Stalled", "maximize"]
