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

from collections.abc import Callable, Mapping
from functools import update_wrapper
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ppl._errors import nearest
from ppl._keys import check_key
from ppl.choices import paths
from ppl.drawing import undrawn
from ppl.interpreter import current
from ppl.linearity import AFFINE, how

from .forced import weighed
from .play import Play, Played, play
from .strategies import Eliminate, Strategy
from .strategies.strategy import zero


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
        return self.estimate_from(jax.random.split(key, samples), *args)

    def estimate_from(self, keys: jax.Array, *args: Any) -> jax.Array:
        """The same, of one play for each of `keys` (samples,), two or more: `estimate` splits its key into them.

        Example:
            `elbo.estimate_from(jax.random.split(key, 8), program | data, guide(phi))`
        """
        values, scores = jax.vmap(lambda k: _one(self, k, args))(keys)
        total = lax.stop_gradient(jnp.sum(values))
        others = (total - lax.stop_gradient(values)) / (len(keys) - 1)
        return jnp.mean(values) - jnp.mean(others * jnp.expm1(zero(scores)))

    def using(self, strategies: Mapping[str, Strategy]) -> "Expectation":
        """The same expectation, with other strategies at some sites: by address, or by a pattern with `*`, as "encoder.*".
        Of several that fit a site the first counts, and what is said later before what was said earlier. An address is the
        site's in the program that is drawn.

        Raises:
            ValueError: for what is not a strategy. A pattern that fits no site is found when the expectation is estimated.
        """
        if not isinstance(strategies, Mapping):
            raise ValueError(f'using: expected strategies by site, as in {{"z": Score()}}, got {type(strategies).__name__}.')
        for pattern, strategy in strategies.items():
            if not isinstance(strategy, Strategy):
                what = f"the class {strategy.__name__}" if isinstance(strategy, type) else type(strategy).__name__
                raise ValueError(f"using: site '{pattern}' was given {what}, and not a strategy such as Score().")
        return Expectation(self.fn, _first(strategies, self.patterns))

    def __call__(self, *args: Any) -> Any:
        """In a running expectation: an unbiased estimate, its gradient too."""
        parent = current()
        if not isinstance(parent, Play):
            raise ValueError(
                f"{self.__name__} is an expectation: it has a value in another expectation, and outside one needs a key, "
                f"{self.__name__}.estimate(key, ...)."
            )
        inner = Expectation(self.fn, _first(parent.patterns, self.patterns))
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
    eliminated = [
        undrawn(path)
        for path, row in paths(table)
        if row.strategy is not None and isinstance(row.strategy.strategy, Eliminate)
    ]
    if eliminated and how(lambda one, _: play(self.fn, key, args, self.patterns, {}, one)[0].value, jnp.ones(()), ()) > AFFINE:
        raise ValueError(
            f"site '{eliminated[0]}' has the strategy Eliminate(), which averages log densities over its values, but what "
            f"{self.__name__} returns is not linear in log densities. Use Enumerate() or Score()."
        )
    return weighed(game, played, table)


def _first(patterns: Mapping[str, Strategy], rest: Mapping[str, Strategy]) -> dict[str, Strategy]:
    """Both, the first of them before the others."""
    return {**patterns, **{pattern: strategy for pattern, strategy in rest.items() if pattern not in patterns}}


def _check_patterns(self: Expectation, table: dict, found: set[str], used: set[str] | None) -> None:
    """Every pattern must fit some site, here or in an expectation that is called here."""
    if used is not None:
        used |= found
        return
    for pattern in self.patterns:
        if pattern not in found:
            known = {undrawn(path): None for path, _ in paths(table)}
            raise ValueError(f"using: no site of {self.__name__} fits '{pattern}'.{nearest(pattern, known)}")
