"""Strategies: how gradients are estimated at a site. See `strategy.py` for the contract."""

from .concrete import Concrete, StraightThrough
from .disarm import DisARM
from .eliminate import Eliminate
from .enumerate import Enumerate
from .measure_valued import MeasureValued
from .relax import Relax
from .reparameterised import Reparameterised
from .score import Learned, Score
from .strategy import Strategy

__all__ = [
    "Concrete",
    "DisARM",
    "Eliminate",
    "Enumerate",
    "Learned",
    "MeasureValued",
    "Relax",
    "Reparameterised",
    "Score",
    "StraightThrough",
    "Strategy",
    "default_strategy",
]


def default_strategy(d) -> Strategy:
    """What a site is given that nobody gave a strategy."""
    return Reparameterised() if d.has_rsample else Score()
