"""Tests of accuracy with random points (TARP): coverage of all latents at once, as a joint law.

Choose a point that has nothing to do with the data; the share of draws that lie nearer to it than the truth does is uniform,
if the posterior is right, for every point and distance (Lemos, Coogan, Hezaveh and Perreault-Levasseur, ICML 2023,
arXiv:2302.03026). Its distribution function is the expected coverage probability at each credibility. The points are truths of
other simulations; distances are Euclidean, in units of what each scalar varies by under the prior.

Like ranks of latents this cannot see that data are ignored.
"""

import jax
import numpy as np

from inference.checks.verdict import Verdict

from .check import Check, Outcome
from .ranks import rank
from .study import Simulated


class RandomPoints(Check):
    """The largest deviation of expected coverage from credibility, by Kolmogorov and Smirnov's test."""

    def __call__(self, study, simulated, key):
        from scipy.stats import kstest

        shares = fractions(simulated, key)
        test = kstest(shares, "uniform")
        return Outcome(
            "random points (TARP)",
            f"coverage off by {test.statistic:.3f} at most",
            "coverage = credibility",
            Verdict({"all latents": float(test.pvalue)}, {"all latents": shares}),
            "The latents' joint law is off: where each alone is calibrated, look at how they depend on one another.",
        )


def fractions(simulated: Simulated, key: jax.Array) -> np.ndarray:
    """The shares (S,) of draws that are nearer to a random point than the truth is, made continuous."""
    key_points, key_ties, key_share = jax.random.split(key, 3)
    num, largest = simulated.shape
    step = int(jax.random.randint(key_points, (), 1, num))  # every simulation is another one's point
    of_truth, of_draws = np.zeros(num), np.zeros((num, largest))
    for truth, draws in simulated.scalars().values():
        low, high = np.quantile(truth, [0.16, 0.84])
        spread = 0.5 * (high - low) or float(truth.std()) or 1.0
        point = np.roll(truth, step)
        of_truth += _squared(truth, point, spread)
        of_draws += _squared(draws, point[:, None], spread)
    nearer = rank(of_truth, of_draws, key_ties)
    return (nearer + np.asarray(jax.random.uniform(key_share, (num,)))) / (largest + 1)


def _squared(x: np.ndarray, point: np.ndarray, spread: float) -> np.ndarray:
    """The part of one scalar in squared distances."""
    return ((x - point) / spread) ** 2
