"""Checks of whole pipelines: simulation-based calibration."""
