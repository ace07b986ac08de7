"""Expectation: an objective is a program, and its value is the mean of what the program returns.

```python
@inf.expectation
def elbo(model, guide):
    choices, log_q = ppl.draw(guide)
    return model.log_density(choices) - log_q

elbo.estimate(key, program | data, guide(phi))                     # unbiased, of the mean
jax.grad(lambda phi: elbo.estimate(key, program | data, guide(phi)))(phi)   # unbiased, of the gradient of the mean
```
In the function random choices are made by `ppl.draw(program)`, or by `ppl.sample(name, distribution)`; control flow that holds
any is `ppl.vmap`, `ppl.scan`, `ppl.cond`. How the gradient comes through a random choice is the strategy of its site: given in
the model, `sample(..., strategy=Score())`; or from outside, `elbo.using({"z": Enumerate()})`; else by default (see
`strategies/`).

An expectation that is called in another one is averaged by itself: its sites are nobody else's affair, each lane of
`ppl.vmap(elbo, ...)` is enumerated apart, scores multiply their own lane alone. Use what it returns linearly (sum it, scale
it): a function of a mean is not the mean of the function. To share its sites instead, call it as a function, `elbo.fn(...)`.

Law: the mean of `estimate` is that of the function, and the mean of its gradient is the gradient of that mean, whatever the
strategies are (but for those that say they are biased). (Lew, Huot, Staton and Mansinghka, "ADEV: sound automatic
differentiation of expected values of probabilistic programs", POPL 2023, state what is wanted; here it is had without
rewriting programs, by surrogates whose derivative is the estimate: Schulman, Heess, Weber and Abbeel, NeurIPS 2015.)
"""

import math
from collections.abc import Callable, Mapping
from functools import update_wrapper
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ppl._errors import nearest
from ppl._keys import check_key
from ppl.choices import paths
from ppl.interpreter import current

from .play import Number, Play, Played, Swap, play
from .strategies import Strategy
from .strategies.strategy import zero

MOST = 2**16  # joint values of enumerated sites
NOTHING = 1e-36  # less is the weight of what is impossible: a density says -85, for the slope's sake
LEVELS = 4  # of vmaps, one in another, for as many sites; more sites have two, as each makes compilation slower


class Expectation:
    """See the file's docstring; made by `expectation`."""

    def __init__(self, fn: Callable[..., Any], patterns: Mapping[str, Strategy] | None = None) -> None:
        update_wrapper(self, fn)
        self.fn, self.patterns = fn, dict(patterns or {})
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)

    def estimate(self, key: jax.Array, *args: Any, samples: int = 1) -> jax.Array:
        """An estimate of the mean, a scalar, whose gradient by any of `args` is one of the mean's gradient. Both unbiased.

        - `key`: a typed key. Pure: for use under `jit`, `vmap`, `grad` and `scan`.
        - `args`: those of the function: programs, arrays, pytrees.
        - `samples`: how many plays are averaged. Where there are several, sites with `Score()` have the mean of the others for
          a baseline.

        Raises:
            ValueError: for a strategy that its site's distribution does not allow, or more than 2^16 joint values of
                sites that are enumerated; where the function does not return one number.

        Example:
            `jax.value_and_grad(elbo.estimate, argnums=2)(key, program | data, guide(phi))`
        """
        key = check_key(key, self.__name__)
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise ValueError(f"{self.__name__}: samples must be a whole number of at least 1, got {samples!r}.")
        if samples == 1:
            return _one(self, key, args)[0]
        values, scores = jax.vmap(lambda k: _one(self, k, args))(jax.random.split(key, samples))
        total = lax.stop_gradient(jnp.sum(values))
        others = (total - lax.stop_gradient(values)) / (samples - 1)
        return jnp.mean(values) - jnp.mean(others * jnp.expm1(zero(scores)))

    def using(self, strategies: Mapping[str, Strategy]) -> "Expectation":
        """The same expectation, with other strategies at some sites: by address, or by a pattern with `*`, as "encoder.*". The
        first that fits a site counts. An address is the site's in the program that is drawn.

        Raises:
            ValueError: for what is not a strategy. A pattern that fits no site is found when the expectation is estimated.
        """
        for pattern, strategy in strategies.items():
            if not isinstance(strategy, Strategy):
                what = f"the class {strategy.__name__}" if isinstance(strategy, type) else type(strategy).__name__
                raise ValueError(f"using: site '{pattern}' was given {what}, and not a strategy such as Score().")
        return Expectation(self.fn, {**strategies, **self.patterns} if not self.patterns else {**self.patterns, **strategies})

    def __call__(self, *args: Any) -> Any:
        """In a running expectation: an unbiased estimate, its gradient too."""
        parent = current()
        if not isinstance(parent, Play):
            raise ValueError(
                f"{self.__name__} is an expectation: it has a value in another expectation, and outside one needs a key, "
                f"{self.__name__}.estimate(key, ...)."
            )
        inner = Expectation(self.fn, {**parent.patterns, **self.patterns})
        return parent.apart(lambda key: _one(inner, key, args, parent.used)[0])

    def __repr__(self) -> str:
        using = "".join(f", {name}: {strategy}" for name, strategy in self.patterns.items())
        return f"Expectation {self.__name__}{using}"


def expectation(fn: Callable[..., Any]) -> Expectation:
    """Turn a function that draws into an objective. See `inference/vi/expectation.py`.

    Example:
        ```python
        @inf.expectation
        def elbo(model, guide):
            choices, log_q = ppl.draw(guide)
            return model.log_density(choices) - log_q
        ```
    """
    return Expectation(fn)


def _one(self: Expectation, key, args: tuple, used: set[str] | None = None) -> tuple[jax.Array, jax.Array]:
    """One estimate; and the score of the sites that are open for a baseline."""

    def game(forced: dict) -> tuple[Played, dict, set[str]]:
        return play(self.fn, key, args, self.patterns, forced)

    played, table, found = game({})
    _check_patterns(self, table, found, used)
    enumerated = [(path, row) for path, row in paths(table) if row.strategy is not None and row.strategy.num is not None]
    if not enumerated:
        return _with_alternatives(game, {}, played, table)
    nums = _nums(enumerated)
    groups = [list(group) for group in np.array_split(np.arange(len(nums)), len(nums) if len(nums) <= LEVELS else 2)]

    def at(*rows):
        forced = _forced(enumerated, [row[i] for row in rows for i in range(len(row))])
        played = game(forced)[0]
        value, score = _with_alternatives(game, forced, played, table)
        weight = jnp.exp(played.log_weight)
        # what has next to no weight counts nothing where it is not finite
        counts = (weight > NOTHING) | jnp.isfinite(value)
        return jnp.where(counts, value, 0.0) * weight, lax.stop_gradient(weight) * score

    # every group is a vmap of its own: what depends on the first sites alone is computed for these alone
    for i in reversed(range(len(groups))):
        at = jax.vmap(at, tuple(0 if j == i else None for j in range(len(groups))))
    values, scores = at(*(_joint([nums[i] for i in group]) for group in groups))
    return jnp.sum(values), jnp.sum(scores)


def _with_alternatives(game, forced: dict, played: Played, table: dict) -> tuple[jax.Array, jax.Array]:
    """The estimate of a play, with the differences that come of trying other values."""
    estimate = played.estimate
    tries = [(path, a) for path, alternatives in sorted(played.alternatives.items()) for a in alternatives]
    if not tries:
        return estimate, played.free_score
    rows = dict(paths(table))
    turns = [_turns(rows[path], alternative) for path, alternative in tries]
    swaps: dict[tuple[str, ...], list[Swap]] = {path: [] for path, _ in tries}
    coefficients = []
    for (path, alternative), axes in zip(tries, turns, strict=True):
        coefficient = alternative.coefficient
        size = math.prod(coefficient.shape[axis] for axis in axes)
        for other in swaps:  # of the runs of this alternative, only its own site is forced
            mine = other == path
            like = alternative if mine else next(a for p, a in tries if p == other)
            where = _masks(like.coefficient.shape, size, axes if mine else None)
            swaps[other].append(Swap(where, jnp.broadcast_to(like.value, (size, *like.value.shape))))
        coefficients.append(jnp.sum(coefficient, axis=[i for i in range(coefficient.ndim) if i not in axes]).reshape(-1))
    every = {path: jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts) for path, parts in swaps.items()}
    values = jax.vmap(lambda swap: game({**forced, **swap})[0].value)(every)
    differences = lax.stop_gradient(values - played.value)
    return estimate + jnp.vdot(differences, zero(jnp.concatenate(coefficients))), played.free_score


def _turns(row, alternative) -> tuple[int, ...]:
    """The axes of a site whose elements are forced one in its turn: all, or of those that go together the steps of loops."""
    if not alternative.together:
        return tuple(range(alternative.coefficient.ndim))
    loops = [label.startswith("scan") for label in row.plates if "[" in label]
    return tuple(i for i, loop in enumerate(loops) if loop)


def _masks(shape: tuple[int, ...], size: int, axes: tuple[int, ...] | None):
    """(size, *shape): which elements are forced in each of `size` runs: those at one index of the axes; or none at all."""
    if axes is None:
        return jnp.zeros((size, *shape), bool)
    one = jnp.eye(size, dtype=bool).reshape(size, *(n if i in axes else 1 for i, n in enumerate(shape)))
    return jnp.broadcast_to(one, (size, *shape))


def _batch(row) -> tuple[int, ...]:
    return row.shape[: len(row.shape) - row.event_dim]


def _nums(enumerated) -> list[int]:
    """The number of values of every element of every site."""
    sizes = {".".join(p for p in path if p[0] != "#"): (row.strategy.num, math.prod(_batch(row))) for path, row in enumerated}
    if math.prod(num**size for num, size in sizes.values()) > MOST:
        said = ", ".join(f"{num}^{size} of '{address}'" for address, (num, size) in sizes.items())
        raise ValueError(
            f"the enumerated sites have too many joint values ({said}); at most {MOST} are tried. Where lanes of a ppl.vmap "
            "are summed, make an expectation of what happens in one lane, and map that; or give some site another strategy."
        )
    return [row.strategy.num for _, row in enumerated for _ in range(math.prod(_batch(row)))]


def _joint(nums: list[int]) -> jax.Array:
    """All joint numbers of some elements, a row each; the last runs fastest."""
    return jnp.asarray(np.indices(nums).reshape(len(nums), -1).T)


def _forced(enumerated, digits: list) -> dict:
    """Each enumerated site forced to its own digits."""
    out, at = {}, 0
    for path, row in enumerated:
        shape = _batch(row)
        mine = digits[at : at + math.prod(shape)]
        out[path] = Number(jnp.stack(mine).reshape(shape) if shape else mine[0], row.strategy.num)
        at += len(mine)
    return out


def _check_patterns(self: Expectation, table: dict, found: set[str], used: set[str] | None) -> None:
    """Every pattern must fit some site, here or in an expectation that is called here."""
    if used is not None:
        used |= found
        return
    for pattern in self.patterns:
        if pattern not in found:
            known = {".".join(p for p in path if p[0] != "#"): None for path, _ in paths(table)}
            raise ValueError(f"using: no site of {self.__name__} fits '{pattern}'.{nearest(pattern, known)}")
