"""DelayedMove: particles move by delayed acceptance, so that a move costs one density of the level, however far it goes.

At inverse temperature b, on the way from a surrogate's power beta to the posterior,

    gamma_b = prior x s^(beta (1 - b)) x L^b,

several steps of a reversible kernel on prior x s^beta propose, which is all of these laws if beta is the power at which the
surrogate's likelihood s agrees with L; the law itself, evaluated once, accepts or not. What a particle holds of its densities
is kept from that evaluation, so a stage asks the truth exactly `num` times a particle. (Christen and Fox, J. Comput. Graph.
Stat. 14, 2005; Fearnhead and Taylor, Bayesian Analysis 8, 2013, for what the population teaches.)

```python
stage = sequence(Reweight(ByESS(0.5)), Resample(Systematic()), DelayedMove(cheap, 0.4, num=2, steps=10))
```
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ..kernel import Kernel
from ..mcmc.combine import repeat
from ..mcmc.delayed_acceptance import proposed
from ..mcmc.metropolis import accept
from ..mcmc.random_walk import RandomWalk
from ..mcmc.tempering import TemperedTarget
from ..population import Population
from .move import Halves, correlation, from_each_other
from .step import Step, Stepped
from .tempering_path import Point, TemperingPath


class DelayedMove(Step):
    """See the file's docstring.

    - `surrogate`: a target over the same sites, whose likelihood stands for the true one; `power`: at which particles began.
    - `num`: moves of a stage, each one true density a particle; `steps` of `kernel` on the surrogate propose in each.
    - `kernel`: reversible; each half of the particles teaches the other its metric, and the step size follows the acceptance
      rate on the surrogate.

    Statistics: `acceptance_rate` by the truth, and `acceptance_rate_surrogate`, means over particles and moves; `step_size`;
    `num_moves`; `correlation`, the largest over coordinates and the log density, between before and after.

    Raises:
        ValueError: for numbers below one; for a path that is not one of inverse temperatures.
    """

    surrogate: Any
    power: jax.Array | float
    num: int = eqx.field(static=True, default=2)
    steps: int = eqx.field(static=True, default=10)
    kernel: Kernel = RandomWalk()

    def __check_init__(self):
        for name in ("num", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"DelayedMove: {name} must be at least 1, got {getattr(self, name)}.")

    def check(self, path) -> None:
        if not isinstance(path, TemperingPath):
            raise ValueError(f"DelayedMove: {type(path).__name__} is not a path of inverse temperatures; use Move(kernel).")
        self.kernel.check(self.surrogate)

    def frozen(self, choices):
        raise ValueError(
            "DelayedMove: its run cannot be frozen, for at every stage it learns a metric from the particles as they are. Use "
            "Move(kernel), or begin anew with another key."
        )

    def init(self, population, path):
        """The log step size to begin with."""
        return jnp.log(jnp.asarray(2.38 / path.target.dim**0.5, population.log_weights.dtype))

    def __call__(self, key, population: Population, memory, path) -> Stepped:
        before = _looked_at(population.particles, path, population)
        halves, level = from_each_other(population), population.level

        def body(carry, key):
            points, log_step = carry
            points, rate, inner = self._moved(key, points, halves, log_step, level, path)
            return (points, log_step + inner - self.kernel.target_acceptance), (rate, inner)

        keys = jax.random.split(key, self.num)
        (points, log_step), (rates, inner) = lax.scan(body, (population.particles, memory), keys)
        info = {
            "acceptance_rate": jnp.mean(rates),
            "acceptance_rate_surrogate": jnp.mean(inner),
            "step_size": jnp.exp(log_step),
            "num_moves": jnp.int32(self.num),
            "correlation": correlation(population, before, _looked_at(points, path, population)),
        }
        return Stepped(population._replace(particles=points), log_step, info, log_step)

    def _moved(self, key, points: Point, halves: Halves, log_step, level, path: TemperingPath):
        """All particles after one move, and mean acceptance rates by the truth and on the surrogate."""
        surrogate = TemperedTarget(self.surrogate, self.power)

        def one(key, point: Point, metric):
            key_begin, key_propose, key_accept = jax.random.split(key, 3)
            kernel = dataclasses.replace(self.kernel, **_learned(self.kernel, jnp.exp(log_step), metric))
            state = kernel.init(key_begin, surrogate, point.position)
            proposal = proposed(key_propose, repeat(kernel, self.steps), state, point.position, surrogate)
            new = path.at(proposal.position)
            log_ratio = path.log_density(new, level) - path.log_density(point, level) - proposal.answered
            point, rate = accept(key_accept, log_ratio, new, point)
            return point, rate, kernel.acceptance(proposal.info)

        size = len(points.log_ratio)
        keys, split = jax.tree.map(lambda x: x.reshape(2, size // 2, *x.shape[1:]), (jax.random.split(key, size), points))
        moved = jax.vmap(jax.vmap(one, (0, 0, None)))(keys, split, halves.metric)
        points, rates, inner = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), moved)
        return points, jnp.mean(rates), jnp.mean(inner)


def _learned(kernel: Kernel, step_size, metric) -> dict[str, Any]:
    """The settings that the kernel leaves open."""
    known = {"step_size": step_size, "metric": metric}
    return {name: known[name] for name in kernel.learns if getattr(kernel, name) is None}


def _looked_at(points: Point, path, population: Population):
    """(N, dim + 1): positions, and log densities at the population's level."""
    log_density = jax.vmap(lambda p: path.log_density(p, population.level))(points)
    finite = jnp.where(jnp.isfinite(log_density), log_density, 0.0)
    return jnp.concatenate([points.position, finite[:, None]], axis=1)
