"""Laplace: a Normal at the mode, as wide as the density is curved there.

```python
posterior = inf.laplace(program | {"y": y}, key=jax.random.key(0))
exact = inf.importance(program | {"y": y}, proposal=posterior.run.guide, key=key)
```
In the unconstrained space: Normal(mode, H^-1) with H the Hessian of -log density, and

    log evidence ~ log density(mode) + (dim / 2) log 2 pi - log det(H) / 2

Both are exact where the posterior is Normal there. (Tierney and Kadane, JASA 81, 1986.)
"""

import dataclasses
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import ppl

from ..fixed import Fixed
from ..mcmc.initial import Initial
from ..numerics import select
from ..posterior import Posterior
from ..provenance import key_words, versions
from ..vi.approximation import posterior_of
from ..vi.guides.full_rank import Triangular
from ..vi.guides.guide import Guide
from .climb import check, highest

MOST = 2000  # dimensions: of so many the Hessian holds four million numbers


def laplace(
    program, *, key: jax.Array, draws: int = 1000, starts: int = 4, steps: int = 1000, init: Initial | None = None
) -> Posterior:
    """Draws, (1, draws), from the Normal approximation at the highest mode found.

    - `program`: a conditioned program, or a `ppl.Target`.
    - `starts`, `steps`, `init`: as for `find_mode`.

    `posterior.run.guide` is the Normal, a guide: for `inf.importance`, and (`inf.vi.prior_of`) the prior of the next
    program. `stages["pareto_k"]` says how good it is, `log_evidence` is by importance; the Laplace approximation of it is
    `provenance["log_evidence_laplace"]`.

    Raises:
        ValueError: for a discrete site, more than 2000 dimensions, a start without density, and where the density has no
            maximum: it is flat, or rises, in some direction.
    Warns:
        SamplingWarning: where Pareto's k is above 0.7, or the climb was not done.

    Example:
        `laplace(logistic(x) | {"y": y}, key=jax.random.key(0)).summary()`
    """
    began, target = time.monotonic(), ppl.as_target(program)
    check("laplace", target, key, draws=draws, starts=starts, steps=steps)
    check_dimension("laplace", target.dim)
    key_climb, key_draw = jax.random.split(key)
    top, _ = highest("laplace", target, _log_density, key=key_climb, starts=starts, steps=steps, init=init)
    mode, log_density, curvature = jax.jit(_sharpened)(target, top.position)
    law = Triangular.of(mode, factor_of("laplace", target.names, curvature))
    guide = Guide(law, Fixed(target), "FullRank")
    log_evidence = log_density + 0.5 * target.dim * math.log(2.0 * math.pi) + jnp.sum(law.log_scale)
    made = {
        "algorithm": "laplace",
        "key": key_words(key),
        "starts": starts,
        "steps": int(top.num),
        "log_evidence_laplace": float(log_evidence),
        "dtype": str(mode.dtype),
        "versions": versions(),
    }
    posterior = posterior_of(target.program, guide, key=key_draw, draws=draws, made=made)
    return dataclasses.replace(posterior, provenance=made | {"sampling_seconds": time.monotonic() - began})


def check_dimension(who: str, dim: int) -> None:
    """Refuse a Hessian that is too large."""
    if dim > MOST:
        raise ValueError(
            f"{who}: the Hessian of {dim} dimensions would hold {dim * dim / 1e6:.0f} million numbers; at most {MOST} "
            "dimensions are taken. Use pathfinder or dadvi, which need none, or a guide with maximize."
        )


def factor_of(who: str, names, curvature) -> jax.Array:
    """The lower triangle F with F F' the inverse of a positive definite matrix."""
    curvature = np.asarray(curvature)
    flat = ~(np.diagonal(curvature) > 0)
    scale = np.sqrt(np.where(flat, 1.0, np.diagonal(curvature)))
    alike = curvature / scale[:, None] / scale  # so that units do not matter
    values, vectors = np.linalg.eigh(alike) if np.isfinite(alike).all() else (np.full(len(flat), np.nan), np.eye(len(flat)))
    if flat.any() or not values[0] > 10.0 * np.finfo(values.dtype).eps * len(values):
        worst = int(np.argmax(flat)) if flat.any() else int(np.argmax(np.abs(vectors[:, 0])))
        raise ValueError(
            f"{who}: the density has no maximum where the climb ended: it does not fall along {names[worst]}, so there is no "
            "Normal with its curvature. Look for parameters that nothing determines; give a proper prior."
        )
    # of the matrix with its order turned around, so that the factor of the inverse is lower triangular
    turned = np.linalg.cholesky(alike[::-1, ::-1])[::-1, ::-1]
    return jnp.asarray(np.linalg.inv(turned).T / scale[:, None])


def _log_density(target: ppl.Target, position):
    return target.log_density(position)


def _sharpened(target: ppl.Target, position):
    """Two steps of Newton, each taken where the density does not fall; with the density and the curvature there."""
    near = 1e-6 if position.dtype == jnp.float32 else 1e-10

    def look(position):
        return target.log_density(position), -jax.hessian(target.log_density)(position)

    def newton(_, carry):
        position, before, curvature = carry
        there = position + jnp.linalg.solve(curvature, jax.grad(target.log_density)(position))
        after = look(there)
        return select(after[0] >= before - near * jnp.abs(before), (there, *after), carry)

    return lax.fori_loop(0, 2, newton, (position, *look(position)))
