"""Resampling: a file per scheme, one contract. See `resampler.py` for the laws."""

from .killing import Killing
from .metropolis import Metropolis
from .multinomial import Multinomial
from .optimal_transport import OptimalTransport
from .resampler import Resampled, Resampler, ess, logmeanexp, normalised
from .residual import Residual
from .sorted import Sorted
from .ssp import SSP
from .stop_gradient import StopGradient
from .stratified import Stratified
from .systematic import Systematic
from .when import When

__all__ = [
    "SSP",
    "Killing",
    "Metropolis",
    "Multinomial",
    "OptimalTransport",
    "Resampled",
    "Resampler",
    "Residual",
    "Sorted",
    "StopGradient",
    "Stratified",
    "Systematic",
    "When",
    "ess",
    "logmeanexp",
    "normalised",
]
