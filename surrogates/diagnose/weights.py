"""Weights: can what the posterior gets wrong be mended by reweighting its draws against the program?

For each data set Pareto's k of the importance weights: to 0.7 means over weighted draws can be relied on (Vehtari, Simpson,
Gelman, Yao and Gabry, JMLR 25, 2024, arXiv:1507.02646), and the effective sample size is what is left of the draws.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from inference.checks.verdict import Verdict
from inference.smc.importance import smooth

from .check import Check, Outcome, more_often

LARGEST = 0.7
KHAT, ESS = "Pareto k", "effective sample size"
ALLOWED = {KHAT: 0.05, ESS: 0.5}  # shares of data sets where it may be bad


class Weights(Check):
    """Of `datasets` simulated ones, with `draws` each: k is above 0.7 in no more than a twentieth, and the effective sample
    size below `ess` of the draws in no more than half. Below 500 draws k says little."""

    datasets: int = eqx.field(default=200, static=True)
    draws: int = eqx.field(default=500, static=True)
    ess: float = eqx.field(default=0.1, static=True)

    def __check_init__(self) -> None:
        for name, least in (("datasets", 20), ("draws", 100)):
            num = getattr(self, name)
            if isinstance(num, bool) or not isinstance(num, int) or num < least:
                raise ValueError(f"Weights: {name} must be a whole number of at least {least}, got {num!r}.")

    def __call__(self, study, simulated, key):
        if simulated.shape[1] < self.draws or simulated.shape[0] < self.datasets:
            simulated = study.simulate(key, self.datasets, self.draws)
        at = simulated.at_draws
        log_weights = (at.prior + at.likelihood - at.posterior)[: self.datasets]
        k, ess = np.transpose([_one(x) for x in log_weights])
        bad = {KHAT: ~(k <= LARGEST), ESS: ~(ess >= self.ess)}
        return Outcome(
            "importance weights",
            f"k <= {LARGEST} in {(k <= LARGEST).mean():.1%}; ESS {np.median(ess):.1%} of the draws (median)",
            f"95 %; {self.ess:.0%}",
            Verdict({name: more_often(bad[name], share) for name, share in ALLOWED.items()}, {KHAT: k, ESS: ess}),
            "Reweighting alone will not do for these data: temper from the network to the posterior.",
        )


def _one(log_weights: np.ndarray) -> tuple[float, float]:
    """Pareto's k of one data set, and the effective sample size as a share of the draws."""
    if np.isnan(log_weights).any() or log_weights.max() == -np.inf:
        return np.inf, 0.0
    k = -np.inf
    if np.ptp(log_weights) > 0.01:  # else there is no tail, only rounding
        with np.errstate(all="ignore"):
            _, k = smooth(jnp.asarray(log_weights))
    k = -np.inf if np.isnan(k) else k  # its fit breaks down where the largest are a few values, again and again
    weights = np.exp(log_weights.astype(float) - log_weights.max())
    return k, weights.sum() ** 2 / (weights**2).sum() / len(weights)
