"""Exact inference, where there is a formula: the siblings of sequential Monte Carlo, and what it is tested against."""

from .associative import associative_filter, associative_smoother
from .enumeration import Enumeration, Marginal, enumerate_choices
from .hidden_markov import BestPath, HiddenStates, forward_backward, sample_hidden_path, viterbi
from .kalman import Filtered, Smoothed, kalman_filter, kalman_smoother, sample_kalman_path
from .linear_gaussian import Affine, Gaussian, LinearGaussian, predict, reverse, update

__all__ = [
    "Affine",
    "BestPath",
    "Enumeration",
    "Filtered",
    "Gaussian",
    "HiddenStates",
    "LinearGaussian",
    "Marginal",
    "Smoothed",
    "associative_filter",
    "associative_smoother",
    "enumerate_choices",
    "forward_backward",
    "kalman_filter",
    "kalman_smoother",
    "predict",
    "reverse",
    "sample_hidden_path",
    "sample_kalman_path",
    "update",
    "viterbi",
]
