"""Checks of whole pipelines: simulation-based calibration, and the joint-distribution test."""

from .joint import joint
from .sbc import sbc
from .verdict import Verdict

__all__ = ["Verdict", "joint", "sbc"]
