"""Pathfinder: chains begin with draws from the best normal approximation that a climb to the mode passes.

From a random position the log density is climbed by L-BFGS. Its estimate H of the inverse Hessian makes a normal
approximation, Normal(x + H gradient, H), at every point x of the path; the one of largest ELBO, which lies where the path
enters the typical set and not at its end, gives the draw. Of several paths the one of largest ELBO is taken: chains seldom
begin in minor modes. (Zhang, Carpenter, Gelman and Vehtari, "Pathfinder", JMLR 23, 2022, arXiv:2108.03782.)

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
from .initial import Initial, Uniform

ENOUGH = 1e-4  # the share of the promised rise that a step must keep (Armijo)
SMALLEST = 1e-8  # a step that is halved below this ends the climb
STILL = 1e-8  # as does a rise below this, relative to the log density


class Pairs(NamedTuple):
    """What L-BFGS remembers, oldest first: steps and falls of the gradient (history, dim), one over their inner products
    (history,), zero where there is none yet; and a diagonal (dim,)."""

    steps: jax.Array
    falls: jax.Array
    rates: jax.Array
    diagonal: jax.Array


class Best(NamedTuple):
    """The best normal approximation so far: a draw from it (dim,), and its ELBO."""

    draw: jax.Array
    elbo: jax.Array


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
        found = jax.vmap(lambda k: self._path(k, target))(jax.random.split(key, self.paths))
        return found.draw[jnp.argmax(found.elbo)]

    def _path(self, key, target) -> Best:
        key_start, key_draws = jax.random.split(key)
        position = self.start.position(key_start, target)
        zeros = jnp.zeros((self.history, *position.shape), position.dtype)
        lowest = jnp.asarray(-jnp.inf, position.dtype)
        climb = Climb(
            position=position,
            log_density=lowest,
            gradient=jnp.zeros_like(position),
            direction=jnp.zeros_like(position),
            size=jnp.ones((), position.dtype),
            pairs=Pairs(zeros, zeros, zeros[:, 0], jnp.ones_like(position)),
            best=Best(position, lowest),
            num=jnp.int32(0),
            done=jnp.bool_(False),
        )
        return lax.while_loop(lambda c: ~c.done, lambda c: self._climb(c, key_draws, target), climb).best

    def _climb(self, climb: Climb, key, target) -> Climb:
        """Try one step; the first, of no length, evaluates the start. The only place where the gradient is taken."""
        first = climb.num == 0
        step = climb.size * climb.direction
        position = climb.position + step
        log_density, gradient = jax.value_and_grad(target.log_density)(position)
        finite = jnp.isfinite(log_density) & jnp.all(jnp.isfinite(gradient))
        rise = log_density - climb.log_density
        good = finite & (first | (rise >= ENOUGH * jnp.vdot(step, climb.gradient)))

        pairs = select(good & ~first, remember(climb.pairs, step, climb.gradient - gradient), climb.pairs)
        direction = multiply(pairs, gradient)
        size = jnp.where(first, 1.0 / jnp.maximum(jnp.linalg.norm(gradient), 1.0), 1.0).astype(position.dtype)
        best = self._approximate(jax.random.fold_in(key, climb.num), target, position, direction, pairs)
        moved = Climb(position, log_density, gradient, direction, size, pairs, best, climb.num, climb.done)
        moved = moved._replace(best=select(best.elbo > climb.best.elbo, best, climb.best))
        new = select(good, moved, climb._replace(size=0.5 * climb.size))
        still = good & ~first & (rise < STILL * jnp.abs(log_density))
        lost = (first & ~finite) | (new.size < SMALLEST)
        return new._replace(num=climb.num + 1, done=still | lost | (climb.num >= self.steps))

    def _approximate(self, key, target, position, direction, pairs) -> Best:
        """The normal approximation at a point: a draw, and its ELBO: mean log density of other draws plus entropy."""
        keys = jax.random.split(key, self.draws + 1)
        mean = position + direction
        moves = jax.vmap(lambda k: jnp.where(target.is_discrete, 0.0, displacement(k, pairs)))(keys)
        log_densities = jax.vmap(target.log_density)(mean + moves[1:])
        elbo = jnp.mean(log_densities) + 0.5 * log_determinant(pairs)
        return Best(mean + moves[0], finite_or(elbo, -jnp.inf))


# -- the inverse Hessian H of L-BFGS: the diagonal, changed by one pair after the other ----------------------------------


def remember(pairs: Pairs, step, fall) -> Pairs:
    """The newest pair in place of the oldest, if the gradient fell along it; and the diagonal fitted to it (Gilbert and
    Lemarechal, Mathematical Programming 45, 1989)."""
    diagonal = pairs.diagonal
    a, b, c = jnp.vdot(fall, diagonal * fall), jnp.vdot(fall, step), jnp.vdot(step, step / diagonal)
    fitted = 1.0 / (a / (b * diagonal) + fall**2 / b - a * (step / diagonal) ** 2 / (b * c))
    fitted = jnp.where(jnp.isfinite(fitted) & (fitted > 0), fitted, diagonal)
    rows = [jnp.concatenate([old[1:], new[None]]) for old, new in zip(pairs[:3], (step, fall, 1.0 / b), strict=True)]
    return select(b > jnp.finfo(step.dtype).eps * jnp.vdot(fall, fall), Pairs(*rows, fitted), pairs)


def multiply(pairs: Pairs, vector):
    """H vector."""

    def down(vector, pair):
        step, fall, rate = pair
        share = rate * jnp.vdot(step, vector)
        return vector - share * fall, share

    def up(vector, pair):
        (step, fall, rate), share = pair
        return vector + step * (share - rate * jnp.vdot(fall, vector)), None

    vector, shares = lax.scan(down, vector, pairs[:3], reverse=True)
    return lax.scan(up, pairs.diagonal * vector, (pairs[:3], shares))[0]


def displacement(key, pairs: Pairs):
    """A draw from Normal(0, H): each pair maps draws of the H before it, and adds its own direction."""
    dim, history = len(pairs.diagonal), len(pairs.rates)
    normal = jax.random.normal(key, (dim + history,), pairs.diagonal.dtype)

    def change(move, pair):
        (step, fall, rate), own = pair
        return move + step * (jnp.sqrt(rate) * own - rate * jnp.vdot(fall, move)), None

    return lax.scan(change, jnp.sqrt(pairs.diagonal) * normal[:dim], (pairs[:3], normal[dim:]))[0]


def log_determinant(pairs: Pairs):
    """log det H: each pair multiplies the determinant of H^-1 by fall . step / step . H^-1 step, H being that before it."""
    history = len(pairs.rates)
    known = pairs.rates > 0

    def change(earlier, i):
        """`earlier`: H^-1 step of the pairs so far (history, dim), each scaled to have inner product one with its step."""
        step = pairs.steps[i]
        before = step / pairs.diagonal - earlier.T @ (earlier @ step)
        used = jnp.where(jnp.arange(history) < i, pairs.rates, 0.0)
        before = before + pairs.falls.T @ (used * (pairs.falls @ step))
        length = jnp.where(known[i], jnp.vdot(step, before), 1.0)
        ratio = jnp.where(known[i], length * pairs.rates[i], 1.0)
        return earlier.at[i].set(jnp.where(known[i], before / jnp.sqrt(length), 0.0)), jnp.log(ratio)

    _, changes = lax.scan(change, jnp.zeros_like(pairs.steps), jnp.arange(history))
    return jnp.sum(jnp.log(pairs.diagonal)) + jnp.sum(changes)
