"""Objectives: bounds and divergences, each a few lines, as yours may be. All are maximised."""

from .dreg import dreg
from .elbo import elbo
from .f_divergence import f_divergence, symmetric_kl
from .forward_kl import forward_kl
from .iwelbo import iwelbo
from .match import same_sites
from .minibatch import by_row, minibatch, scaled, subsample
from .renyi import renyi
from .stl import stl, stopped
from .variational_smc import nasmc, variational_smc
from .vimco import vimco
from .wake_sleep import p_wake, q_wake, reweighted_wake_sleep, sleep, wake
from .watch import scored

__all__ = [
    "by_row",
    "dreg",
    "elbo",
    "f_divergence",
    "forward_kl",
    "iwelbo",
    "minibatch",
    "nasmc",
    "p_wake",
    "q_wake",
    "renyi",
    "reweighted_wake_sleep",
    "same_sites",
    "scaled",
    "scored",
    "sleep",
    "stl",
    "stopped",
    "subsample",
    "symmetric_kl",
    "variational_smc",
    "vimco",
    "wake",
]
