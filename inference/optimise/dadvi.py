"""DADVI: variational inference with the same draws all along, so that its objective is a plain function and has a top.

    (1 / num) sum over fixed noise z_i of  log density(position(z_i)) + log |d position / d z_i|

is climbed by L-BFGS until it is done: no step size, no noise, no rule for when to stop. A mean field is too narrow; how its
means answer to a tilt of the density (linear response) tells the covariances that it cannot hold.

```python
posterior = inf.dadvi(program | {"y": y}, key=jax.random.key(0))
wider = posterior.run.linear_response()                                   # a guide: full rank, with these covariances
exact = inf.importance(program | {"y": y}, proposal=wider, key=key)
```
(Giordano, Ingram and Broderick, "Black box variational inference with a deterministic objective", JMLR 25, 2024; linear
response: Giordano, Broderick and Jordan, JMLR 19, 2018.)
"""

import dataclasses
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import ppl

from ..fixed import Fixed
from ..mcmc.initial import Initial
from ..posterior import Posterior
from ..provenance import key_words, versions
from ..vi.approximation import posterior_of
from ..vi.guides.full_rank import Triangular
from ..vi.guides.guide import Guide, guide_for
from ..vi.guides.law import Family, Transport
from ..vi.guides.mean_field import Diagonal, MeanField
from .climb import check, highest
from .laplace import check_dimension, factor_of


@dataclasses.dataclass(frozen=True, eq=False)
class Deterministic:
    """`posterior.run`: the fitted guide, the log weight of each draw, and the noise (num, dim) of the objective."""

    guide: Guide
    log_weights: np.ndarray
    noise: jax.Array

    def linear_response(self) -> Guide:
        """A full-rank guide with the means of this mean field, and the covariance by which they answer to tilts.

        Raises:
            ValueError: for a guide that is no mean field, and more than 1000 dimensions.
        """
        if not isinstance(self.guide.law, Diagonal):
            raise ValueError(f"linear_response is for mean fields, and this guide is {self.guide.family}.")
        target, law = self.guide.target, self.guide.law
        check_dimension("linear_response", 2 * law.dim)
        flat, unravel = ravel_pytree(law)
        curvature = jax.jit(lambda target, x: -jax.hessian(lambda x: _mean(target, unravel(x), self.noise))(x))(target, flat)
        here, cross, rest = (curvature[a, b] for a, b in _parts(law.dim))
        # what is left of the means' curvature when scales follow: the inverse of their block of the inverse
        left = here - cross @ jnp.linalg.solve(rest, cross.T)
        factor = factor_of("linear_response", target.names, 0.5 * (left + left.T))
        return Guide(Triangular.of(law.location, factor), Fixed(target), "FullRank")


def dadvi(
    program,
    family: Family | None = None,
    *,
    key: jax.Array,
    num: int = 30,
    draws: int = 1000,
    steps: int = 2000,
    init: Initial | None = None,
) -> Posterior:
    """Fit a guide deterministically, and draw from it, (1, draws).

    - `program`: a conditioned program, or a `ppl.Target`.
    - `family`: of the guide, by default `MeanField()`. One that ties coordinates together needs more noise than dimensions.
    - `num`: of fixed draws; what they err by is as any other mean over so many.
    - `init`: where the guide begins, as for `guide_for`.

    `posterior.run.guide` is the guide; `posterior.run.linear_response()` one with better covariances. `stages["pareto_k"]`
    says how good the guide is, `log_evidence` is by importance.

    Raises:
        ValueError: for a discrete site, a start without density, a family that moves no noise, and one that the noise does not
            determine.
    Warns:
        SamplingWarning: where Pareto's k is above 0.7, or the climb was not done.

    Example:
        `dadvi(logistic(x) | {"y": y}, key=jax.random.key(0)).run.linear_response()`
    """
    began, target = time.monotonic(), ppl.as_target(program)
    check("dadvi", target, key, num=num, draws=draws, steps=steps)
    family = MeanField() if family is None else family
    key_noise, key_start, key_draw = jax.random.split(key, 3)
    guide = guide_for(target, family, init=init, key=key_start)
    if not isinstance(guide.law, Transport):
        raise ValueError(f"dadvi: {guide.family} does not move noise, so no fixed noise can stand for it. Use inf.maximize.")
    if not isinstance(family, MeanField) and num <= target.dim:
        raise ValueError(
            f"dadvi: {num} fixed draws in {target.dim} dimensions leave directions that none of them sees, along which a "
            f"{guide.family} guide would shrink or stretch without end. Give num above the dimension, or take MeanField()."
        )
    parameters, rest = eqx.partition(guide.law, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(parameters)
    noise = jax.random.normal(key_noise, (num, target.dim), flat.dtype)
    noise = noise - jnp.mean(noise, 0)  # the means of a Normal posterior are then exact

    def objective(target, x):
        return _mean(target, eqx.combine(unravel(x), rest), noise)

    top, _ = highest("dadvi", target, objective, key=key, starts=1, steps=steps, init=_Flat(flat))
    guide = Guide(eqx.combine(unravel(top.position), rest), guide.fixed, guide.family)
    made = {
        "algorithm": "dadvi",
        "family": guide.family,
        "key": key_words(key),
        "num": num,
        "steps": int(top.num),
        "dtype": str(flat.dtype),
        "versions": versions(),
    }
    posterior = posterior_of(target.program, guide, key=key_draw, draws=draws, made=made)
    made = made | {"sampling_seconds": time.monotonic() - began}
    return dataclasses.replace(posterior, provenance=made, run=Deterministic(guide, posterior.run.log_weights, noise))


class _Flat(Initial):
    """At these numbers."""

    numbers: Any

    def position(self, key, target):
        return self.numbers


def _mean(target: ppl.Target, law: Transport, noise):
    """The objective: the ELBO by fixed noise, without the entropy of the noise."""

    def one(z):
        position, log_jacobian = law.forward(z)
        return target.log_density(position) + log_jacobian

    return jnp.mean(jax.vmap(one)(noise))


def _parts(dim: int):
    means, scales = slice(0, dim), slice(dim, 2 * dim)
    return (means, means), (means, scales), (scales, scales)
