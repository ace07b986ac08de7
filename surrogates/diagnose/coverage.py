"""Coverage: how often a central interval of the draws holds the truth, for every latent scalar.

Of D draws and one truth, all alike if the posterior is right, the interval between the draws of rank c and D - c holds the
truth with probability 1 - 2 c / (D + 1), exactly; c is chosen so that this is nearest the level asked for. How often it did is
compared with the binomial law.
"""

import equinox as eqx
import jax
import numpy as np

from inference.checks.verdict import Verdict

from .check import Check, Outcome
from .ranks import rank


class Coverage(Check):
    """Central intervals of these `levels`."""

    levels: tuple[float, ...] = eqx.field(default=(0.5, 0.8, 0.95), static=True)

    def __call__(self, study, simulated, key):
        from scipy.stats import binomtest

        p_values, inside, shares = {}, {}, {}
        largest, scalars = simulated.shape[1], simulated.scalars()
        keys = jax.random.split(key, len(scalars))
        for (name, pair), key_rank in zip(scalars.items(), keys, strict=True):
            ranks = rank(*pair, key_rank)
            for level in self.levels:
                held, exact = central(ranks, largest, level)
                label = f"{name} at {level:.0%}"
                inside[label], shares[label] = held, (held.mean(), exact)
                p_values[label] = float(binomtest(int(held.sum()), len(held), exact).pvalue)
        worst = min(p_values, key=lambda name: p_values[name])
        found, wanted = shares[worst]
        return Outcome(
            "coverage of intervals",
            f"{found:.1%} of '{worst}'",
            f"{wanted:.1%} there",
            Verdict(p_values, inside),
            "Intervals hold the truth too " + ("seldom: it is overconfident." if found < wanted else "often: it is too wide."),
        )


def central(ranks: np.ndarray, largest: int, level: float) -> tuple[np.ndarray, float]:
    """Whether the truth of these ranks (S,), from 0 to `largest`, lies in the central interval; and the interval's level."""
    cut = round(0.5 * (1.0 - level) * (largest + 1))
    return (ranks >= cut) & (ranks <= largest - cut), 1.0 - 2.0 * cut / (largest + 1)
