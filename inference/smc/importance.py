"""Importance sampling: independent draws from a proposal, weighted by the posterior density over that of the proposal.

```python
posterior = inf.importance(program | data, proposal=guide(phi), key=key)
posterior.log_evidence, posterior.log_evidence_error, posterior.stages["pareto_k"]
```
The evidence is the mean of the raw weights, and unbiased. The draws are resampled to equal weights by weights whose largest
are smoothed by a Pareto distribution; its shape k says whether there were enough draws: above 0.7 there were not, and weights
not seen yet may change everything (Vehtari, Simpson, Gelman, Yao and Gabry, JMLR 25, 2024, arXiv:1507.02646).
"""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np

import ppl

from ..diagnostics import SamplingWarning
from ..findings import array_stats, findings, heavy_weights
from ..posterior import Posterior
from ..resampling import Systematic
from .loop import Method
from .result import SLOTS, posterior_of
from .reweight import Ladder, Reweight
from .sample import smc
from .tempering_path import Tempering


def importance(
    program, proposal: ppl.Program | ppl.Generative | None = None, *, key: jax.Array, num: int = 10_000
) -> Posterior:
    """Importance sampling with Pareto-smoothed weights.

    - `program`: a conditioned program, or a `ppl.Target`.
    - `proposal`: a program (or a `ppl.Generative`) over the same latent sites that is easily sampled, such as a guide, whose
      density is known; by default the prior.
    - `num`: of draws from the proposal, and so of draws (1, num) of the posterior, many of them the same.

    `posterior.stages["pareto_k"]` (2,) has Pareto's k last; `posterior.run.population` the raw weights. Where k is above 0.7
    there is a `SamplingWarning`.

    Raises:
        ValueError: for a proposal that is no program, has other sites or data of its own; when all weights are zero.

    Example:
        `importance(coin(3.0) | {"y": y}, key=jax.random.key(0)).log_evidence`
    """
    if not (proposal is None or isinstance(proposal, ppl.Program | ppl.Generative)):
        raise ValueError(
            f"importance: the proposal must be a program over the same latent sites, got {type(proposal).__name__}. Draws "
            "alone have no density: fit a guide to them."
        )
    posterior = weighed(program, Tempering(proposal), key=key, num=num)
    made = posterior.provenance | {"method": "prior" if proposal is None else "proposal"}
    for finding in findings(posterior, (heavy_weights,)):
        warnings.warn(str(finding), SamplingWarning, stacklevel=2)
    return dataclasses.replace(posterior, provenance=made)


def weighed(program, way, *, key: jax.Array, num: int) -> Posterior:
    """The draws that a way begins with, weighed for its end, all at once: `num` densities of the program, and no more.

    - `way`: its `of(program)` is a path of inverse temperatures.
    """
    at_once = Method(way, Reweight(Ladder(jnp.ones(1))))
    weighted = smc(program, at_once, key=key, particles=num, progress=False, check=False)
    run, made = weighted.run, weighted.provenance
    smoothed, k = smooth(run.population.log_weights)
    slots = Systematic().ancestors(jax.random.fold_in(key, SLOTS), smoothed, num)
    posterior = posterior_of(run, slots, program, key, made["sampling_seconds"], made["compile_seconds"])
    stages = posterior.stages | {"pareto_k": np.array([np.nan, k])}
    return dataclasses.replace(posterior, stages=stages, provenance=posterior.provenance | {"algorithm": "importance"})


def smooth(log_weights) -> tuple[jax.Array, float]:
    """Pareto-smoothed log weights (N,), and k: NaN where fewer than 25 draws say nothing of their tail, infinite where so few
    of more have any weight, -inf where they are all the same. Weights of zero stay zero."""
    raw = np.asarray(log_weights, np.float64)
    alive = raw > max(np.max(raw) - 700.0, -np.inf)  # the others are zero beside the largest, whatever they are
    if alive.sum() < 25:
        return jnp.asarray(log_weights), float("nan" if len(raw) < 25 else "inf")
    if np.ptp(raw[alive]) < 1e-6:
        return jnp.asarray(log_weights), float("-inf")
    out = raw.copy()
    try:
        out[alive], k = array_stats().psislw(-raw[alive])  # it is made for leave-one-out, and so takes the negative
    except ValueError:  # the largest are all the same: a tail of a few values, and no more
        k = -np.inf
    return jnp.asarray(out, log_weights.dtype), float(k)
