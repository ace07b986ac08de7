"""Checks of whole pipelines: simulation-based calibration."""

from .sbc import Calibration, sbc

__all__ = ["Calibration", "sbc"]
