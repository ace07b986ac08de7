"""Guides made from a program: families of approximations. See `guide.py`, and `law.py` for the contract of a family."""

from .amortised import Amortised
from .autoregressive import Autoregressive
from .coupling import Coupling
from .full_rank import FullRank
from .guide import Guide, guide_for
from .law import Family, Law, Transport
from .low_rank import LowRank
from .masked_autoregressive import MaskedAutoregressive
from .mean_field import MeanField
from .mixture import Mixture
from .prior import prior_of
from .prior_draws import PriorDraws

__all__ = [
    "Amortised",
    "Autoregressive",
    "Coupling",
    "Family",
    "FullRank",
    "Guide",
    "Law",
    "LowRank",
    "MaskedAutoregressive",
    "MeanField",
    "Mixture",
    "PriorDraws",
    "Transport",
    "guide_for",
    "prior_of",
]
