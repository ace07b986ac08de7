"""Programmable variational inference: objectives are programs, gradients are choices."""

from .expectation import Expectation, expectation
from .strategies import DisARM, Enumerate, Learned, MeasureValued, Reparameterised, Score, Strategy

__all__ = [
    "DisARM",
    "Enumerate",
    "Expectation",
    "Learned",
    "MeasureValued",
    "Reparameterised",
    "Score",
    "Strategy",
    "expectation",
]
