"""Heads: what the raw numbers of a network become, a distribution. See `head.py` for the contract; a member a file."""

from .bar import Bar
from .categorical import Categories
from .flow import Flow
from .head import Head
from .low_rank import LowRankMixture
from .mixture import Mixture
from .scaled import Scaled
from .spline import Spline
from .supported import Supported

__all__ = ["Bar", "Categories", "Flow", "Head", "LowRankMixture", "Mixture", "Scaled", "Spline", "Supported"]
