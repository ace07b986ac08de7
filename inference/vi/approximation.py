"""From a guide to a `Posterior`: draws of the guide, weighed against the program that it stands for.

The weights say how good the guide is, by Pareto's k: below 0.7 they correct it (`inf.importance`), above they cannot, and its
draws are not to be trusted in the tails (Yao, Vehtari, Simpson and Gelman, "Yes, but did it work?", ICML 2018).
"""

import warnings
from typing import Any, NamedTuple

import jax
import numpy as np

import ppl

from ..diagnostics import SamplingWarning
from ..findings import findings, heavy_weights
from ..posterior import Posterior
from ..smc.importance import smooth
from ..smc.result import with_values


class Approximation(NamedTuple):
    """`posterior.run` of a fitted posterior: the guide, and of each draw the log of the program's density over the guide's."""

    guide: Any
    log_weights: np.ndarray


def posterior_of(program: ppl.Program, guide: Any, *, key: jax.Array, draws: int, made: dict[str, Any]) -> Posterior:
    """Independent draws of a guide, (1, draws), as a posterior of `program`.

    - `guide`: a program or a `ppl.Generative`, with the latent sites of the program.
    - `made`: its provenance.

    `stages["pareto_k"]` (1,) is Pareto's k of the weights, `stats["lp"]` the program's log density, `log_evidence` the mean of
    the weights, with its error. Where k is above 0.7 there is a SamplingWarning.
    """

    def one(program, guide, key):
        trace = guide.simulate(key)
        lp = program.log_density(trace.choices)
        return trace.choices, lp, lp - trace.log_density

    choices, lp, log_weights = jax.jit(jax.vmap(one, (None, None, 0)))(program, guide, jax.random.split(key, draws))
    choices = with_values(program, choices)
    log_weights = np.asarray(log_weights)
    k = smooth(log_weights)[1] if np.any(np.isfinite(log_weights)) else np.inf  # no draw is possible in the program
    log_evidence, error = _evidence(log_weights)
    posterior = Posterior(
        jax.tree.map(lambda x: np.asarray(x)[None], choices),
        {"lp": np.asarray(lp)[None]},
        provenance=made,
        program=program,
        log_evidence=log_evidence,
        log_evidence_error=error,
        stages={"pareto_k": np.array([k])},
        run=Approximation(guide, log_weights),
    )
    for finding in findings(posterior, (heavy_weights,)):
        warnings.warn(str(finding), SamplingWarning, stacklevel=3)
    return posterior


def _evidence(log_weights) -> tuple[float, float]:
    """Log of the mean weight, and its standard error by the delta method."""
    level = np.max(log_weights)
    if not np.isfinite(level):
        return float(level), float("nan")
    weights = np.exp(log_weights - level)
    return float(level + np.log(np.mean(weights))), float(np.std(weights) / np.mean(weights) / np.sqrt(len(weights)))
