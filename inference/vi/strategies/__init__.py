"""Strategies: how gradients are estimated at a site. See `strategy.py` for the contract."""

from .disarm import DisARM
from .enumerate import Enumerate
from .measure_valued import MeasureValued
from .reparameterised import Reparameterised
from .score import Learned, Score
from .strategy import Strategy

__all__ = ["DisARM", "Enumerate", "Learned", "MeasureValued", "Reparameterised", "Score", "Strategy", "default_strategy"]


def default_strategy(d) -> Strategy:
    """What a site is given that nobody gave a strategy."""
    return Reparameterised() if d.has_rsample else Score()
