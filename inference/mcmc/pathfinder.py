"""Pathfinder: chains begin with draws from the best normal approximation that a climb to the mode passes.

From a random position the log density is climbed by L-BFGS. Its estimate H of the inverse Hessian makes a normal
approximation, Normal(x + H gradient, H), at every point x of the path; the one of largest ELBO, which lies where the path
enters the typical set and not at its end, gives the draw, and H is the first metric. Of several paths the one of largest ELBO
is taken: chains seldom begin in minor modes. (Zhang, Carpenter, Gelman and Vehtari, "Pathfinder", JMLR 23, 2022,
arXiv:2108.03782.)

```python
posterior = inf.mcmc(program, inf.NUTS(), key=key, init=inf.Pathfinder())
```
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ..numerics import finite_or, select
from .initial import Initial, Start, Uniform
from .lbfgs import Factor, Inverse, Pairs, inverse, remember

ENOUGH = 1e-4  # the share of the promised rise that a step must keep (Armijo)
SMALLEST = 1e-8  # a step that is halved below this ends the climb
STILL = 1e-8  # as does a rise below this, relative to the log density


class Best(NamedTuple):
    """The best normal approximation so far: a draw from it (dim,), its ELBO, its mean, and its covariance."""

    draw: jax.Array
    elbo: jax.Array
    mean: jax.Array
    factor: Factor


class Climb(NamedTuple):
    """Where the climb is, the step that is tried next, and what it has found."""

    position: jax.Array
    log_density: jax.Array
    gradient: jax.Array
    direction: jax.Array
    size: jax.Array
    pairs: Pairs
    best: Best
    num: jax.Array
    done: jax.Array


class Pathfinder(Initial):
    """See the file's docstring.

    - `paths`: how many are climbed for each chain, each by at most `steps` gradients.
    - `draws`: from each approximation, for its ELBO; each costs one log density.
    - `history`: how many steps L-BFGS remembers.
    - `start`: where paths begin.
    """

    paths: int = eqx.field(static=True, default=4)
    steps: int = eqx.field(static=True, default=200)
    draws: int = eqx.field(static=True, default=5)
    history: int = eqx.field(static=True, default=6)
    start: Initial = Uniform()

    def __check_init__(self):
        for name in ("paths", "steps", "draws", "history"):
            if getattr(self, name) < 1:
                raise ValueError(f"Pathfinder: {name} must be at least 1, got {getattr(self, name)}.")

    def position(self, key, target):
        return self.begin(key, target).position

    def begin(self, key, target):
        paths = self.climbs(key, target)
        best = jax.tree.map(lambda x: x[jnp.argmax(paths.best.elbo)], paths.best)
        return Start(best.draw, best.factor.metric(), jnp.sum(paths.num))

    def climbs(self, key, target) -> Climb:
        """All paths, leaves (paths, ...)."""
        # one by one: side by side they would wait for the longest, and compile for twice as long
        return lax.map(lambda k: self._path(k, target), jax.random.split(key, self.paths))

    def _path(self, key, target) -> Climb:
        key_start, key_draws = jax.random.split(key)
        position = self.start.position(key_start, target)
        # the same for all approximations of a path: so their ELBOs differ by what sets them apart, not by chance
        normals = jax.random.normal(key_draws, (self.draws + 1, *position.shape), position.dtype)
        zeros = jnp.zeros((self.history, *position.shape), position.dtype)
        pairs = Pairs(zeros, zeros, jnp.ones_like(position))
        lowest = jnp.asarray(-jnp.inf, position.dtype)
        climb = Climb(
            position=position,
            log_density=lowest,
            gradient=jnp.zeros_like(position),
            direction=jnp.zeros_like(position),
            size=jnp.ones((), position.dtype),
            pairs=pairs,
            best=Best(position, lowest, position, Factor.of_identity(position, 2 * self.history)),
            num=jnp.int32(0),
            done=jnp.bool_(False),
        )
        return lax.while_loop(lambda c: ~c.done, lambda c: self._climb(c, normals, target), climb)

    def _climb(self, climb: Climb, normals, target) -> Climb:
        """Try one step; the first, of no length, evaluates the start. The only place where the gradient is taken."""
        first = climb.num == 0
        step = climb.size * climb.direction
        position = climb.position + step
        log_density, gradient = jax.value_and_grad(target.log_density)(position)
        finite = jnp.isfinite(log_density) & jnp.all(jnp.isfinite(gradient))
        rise = log_density - climb.log_density
        good = finite & (first | (rise >= ENOUGH * jnp.vdot(step, climb.gradient)))

        pairs = select(good & ~first, remember(climb.pairs, step, climb.gradient - gradient), climb.pairs)
        inverse_hessian = inverse(pairs)
        newton = inverse_hessian @ gradient
        direction = jnp.where(first, gradient / jnp.maximum(jnp.linalg.norm(gradient), 1.0), newton)
        best = _approximate(normals, target, position + newton, inverse_hessian)
        moved = Climb(
            position, log_density, gradient, direction, jnp.ones_like(climb.size), pairs, best, climb.num, climb.done
        )
        moved = moved._replace(best=select(best.elbo > climb.best.elbo, best, climb.best))
        new = select(good, moved, climb._replace(size=0.5 * climb.size))
        # the first steps say little of the slope's scale: they may be far too short
        still = good & (climb.num > self.history) & (rise < STILL * jnp.abs(log_density))
        lost = (first & ~finite) | (new.size < SMALLEST)
        return new._replace(num=climb.num + 1, done=still | lost | (climb.num >= self.steps))


def _approximate(normals, target, mean, covariance: Inverse) -> Best:
    """A normal approximation: a draw, and its ELBO: mean log density of other draws plus entropy."""
    factor = covariance.factor()
    moves = jax.vmap(lambda normal: jnp.where(target.is_discrete, 0.0, factor @ normal))(normals)
    log_densities = jax.vmap(target.log_density)(mean + moves[1:])
    elbo = jnp.mean(log_densities) + 0.5 * factor.log_determinant()
    return Best(mean + moves[0], finite_or(elbo, -jnp.inf), mean, factor)
