"""Ranks: simulation-based calibration. The rank of the truth among draws is uniform, of whatever number.

Of every latent scalar; and of the log likelihood and the log joint density of truth and draws. Those two look at the data: a
posterior that ignores them (the prior) passes for every latent, but the truth explains its data far better than draws of the
prior do (Talts et al., arXiv:1804.06788; Modrak et al., Bayesian Analysis 2023).

Truths that equal some draws are ranked among them at random, so whole numbers are calibrated too.
"""

import jax
import numpy as np

from inference.checks.sbc import uniformity
from inference.checks.verdict import FALSE_ALARM, Verdict

from .check import Check, Outcome, smallest
from .study import Simulated

LIKELIHOOD, JOINT = "log likelihood (of the data)", "log joint (of all)"


class Ranks(Check):
    """Uniform ranks, by `uniformity` of every quantity."""

    def __call__(self, study, simulated, key):
        found = ranks(simulated, key)
        verdict = Verdict({name: uniformity(values, simulated.shape[1]) for name, values in found.items()}, found)
        return Outcome("ranks (SBC)", smallest(verdict.p_values), "uniform", verdict, _advice(verdict, simulated.shape[1]))


def ranks(simulated: Simulated, key: jax.Array) -> dict[str, np.ndarray]:
    """Ranks (S,) from 0 to D by name: of every latent scalar, the log likelihood, the log joint density."""
    truth, draws = simulated.at_truth, simulated.at_draws
    quantities = simulated.scalars()
    quantities[LIKELIHOOD] = (truth.likelihood, draws.likelihood)
    quantities[JOINT] = (truth.prior + truth.likelihood, draws.prior + draws.likelihood)
    keys = jax.random.split(key, len(quantities))
    return {name: rank(*pair, key) for (name, pair), key in zip(quantities.items(), keys, strict=True)}


def rank(truth: np.ndarray, draws: np.ndarray, key: jax.Array) -> np.ndarray:
    """How many of the draws (S, D) are smaller than the truth (S,), and of those that equal it a random part."""
    below, equal = (draws < truth[:, None]).sum(axis=1), (draws == truth[:, None]).sum(axis=1)
    share = np.asarray(jax.random.uniform(key, truth.shape))
    return below + np.minimum((share * (equal + 1)).astype(int), equal)


def _advice(verdict: Verdict, largest: int) -> str:
    """What the ranks look like."""
    latents = {name: p for name, p in verdict.p_values.items() if name not in (LIKELIHOOD, JOINT)}
    worst = min(latents, key=lambda name: latents[name])
    if latents[worst] >= FALSE_ALARM / len(verdict.p_values):
        return "Latents by themselves do not show it, as where data are ignored: does the network read all of them?"
    values = verdict.values[worst] / largest
    shift = (values.mean() - 0.5) * np.sqrt(12 * len(values))
    spread = (values.var() * 12 - 1) * np.sqrt(len(values) / 0.8)  # a variance of n uniform ones errs by sqrt(0.8 / n)
    if abs(shift) > abs(spread):
        return f"'{worst}' is drawn too {'small' if shift > 0 else 'large'}: train longer, or look for swapped sites."
    return f"'{worst}' is drawn too {'narrowly' if spread > 0 else 'widely'}: train longer, or on more simulations."
