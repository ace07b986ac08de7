"""Play: one run of an objective, with every random site drawn by its strategy, and what strategies added on the way.

A play is a pure function of its key and of what sites are forced to. So the same key plays the same game again, but for the
forced sites and what follows from them.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ppl import Program, dist, distributions
from ppl.averaged import draw_averaged
from ppl.choices import paths, put
from ppl.drawing import Drawing
from ppl.interpreter import Inputs, activate, current
from ppl.interpreters import Assess, Soften
from ppl.log_sums import NOTHING
from ppl.site import SiteInfo

from .strategies import Eliminate, default_strategy
from .strategies.eliminate import ToEliminate
from .strategies.strategy import Alternative, Chosen, Strategy, zero

LOGITS = dist.BernoulliLogits | dist.CategoricalLogits


class Number(eqx.Module):
    """A site is forced to the value of this number, of the `num` that it can take: integers, one a batch element.

    `possible`: where it has no probability another value is played in its place, though its own probability counts.
    """

    number: jax.Array
    num: int = eqx.field(static=True)
    possible: bool = eqx.field(static=True, default=False)


class Swap(NamedTuple):
    """A site is forced to `value` where `where` holds, one flag a batch element."""

    where: jax.Array
    value: jax.Array


class Choice(NamedTuple):
    """What is known of a random site without running it: its strategy, how many values it is enumerated over; and whether
    the probability of a value that has none has no slope either, as where it is the exponential of a logit."""

    strategy: Strategy
    num: int | None
    flat: bool


class Played(NamedTuple):
    """What a play came to.

    - `value`: what the objective returned, a scalar.
    - `score`, `extra`: of all sites; `free_score`: of those that have no baseline.
    - `log_tried`: of the enumerated values.
    - `misfit`: of learned baselines: how far their guesses are from the value, squared; its gradient matters alone.
    - `alternatives`: what other values to try, by path of the site.
    """

    value: jax.Array
    score: jax.Array
    free_score: jax.Array
    extra: jax.Array
    log_tried: jax.Array
    misfit: jax.Array
    alternatives: dict[tuple[str, ...], Alternative]

    @property
    def estimate(self) -> jax.Array:
        """Of this play alone: the value, with the gradient that its strategies gave it."""
        climb = -0.5 * zero(self.misfit)
        return self.value * jnp.exp(zero(self.score)) + zero(self.extra) + climb


class Play(Drawing):
    """Draw every site as its strategy says. `patterns` say what strategy sites have that are not as the model says."""

    keeps = ("choices", "alternatives", "guesses", "visited")
    passes = ("score", "free_score", "extra", "log_tried")

    def __init__(self, inputs: Inputs, *structure: Any) -> None:
        super().__init__(inputs, *structure)
        self.patterns: dict[str, Strategy] = {}
        self.used: set[str] = set()  # those that some site matched
        self.soft: set[str] = set()  # discrete sites whose values lie between the whole numbers
        self.known: tuple[Any, Any, Any] = (None, None, None)  # a distribution, a value, its log density
        self.one: Any = jnp.ones(())  # what log densities that are averaged are multiplied by

    def child(self, inputs, rules=None, name=""):
        child: Any = super().child(inputs, rules, name)
        child.patterns, child.used, child.soft, child.one = self.patterns, self.used, self.soft, self.one
        return child

    def draw(self, generative):
        eliminated: list[str] = []
        before = self.draws
        while True:
            try:
                if eliminated:
                    return draw_averaged(super().draw, generative, eliminated, self.one, Soften if self.soft else Assess)
                return super().draw(generative)
            except ToEliminate as found:
                if not isinstance(generative, Program) or found.address in eliminated:
                    raise
                self.draws = before
                eliminated.append(found.address)

    def apart(self, run: Callable[[Any], Any]) -> Any:
        """`run(key)`, with random numbers that no draw here has."""
        name = f"#{self.draws}"
        self.check(name, "an expectation called here")
        self.draws += 1
        self.table[name] = {}
        return run(self.key(name))

    def strategy(self, site) -> Strategy:
        address = self.address(site)
        for pattern, strategy in self.patterns.items():
            if fnmatchcase(address, pattern):
                self.used.add(pattern)
                return strategy
        return default_strategy(site.distribution) if site.strategy is None else site.strategy

    def log_prob(self, d, value, *, inside):
        of, at, log_p = self.known
        if of is d and at is value:
            return jnp.sum(log_p, axis=range(len(d.batch_shape), log_p.ndim)) if log_p.ndim > len(d.batch_shape) else log_p
        if self.soft and distributions.is_soft(d, value):
            return distributions.log_prob_soft(d, value)
        return distributions.log_prob_inside(d, value) if inside else distributions.log_prob(d, value)

    def latent(self, site):
        strategy, d = self.strategy(site), distributions.elements(site.distribution)
        address, forced = self.address(site), self.inputs.given.get(site.name)
        strategy.check(address, d)
        num = strategy.enumerates(address, d)
        row: SiteInfo = self.table[site.name]
        self.table[site.name] = replace(
            row, strategy=Choice(strategy, num, isinstance(distributions.base(d), LOGITS)), event_dim=len(d.event_shape)
        )
        if num is not None:
            return self._enumerated(site, d, forced, num)
        key = self.key(site.name)
        if isinstance(strategy, Eliminate):
            if site.address not in getattr(self, "ways", ()):
                raise ToEliminate(address)
            return d.sample(key)  # nothing depends on it
        chosen = strategy.choose(d, key)
        self._note(site, d, key, strategy, chosen)
        if distributions.is_soft(d, chosen.value):
            self.soft.add(address)
        if forced is None:
            return chosen.value
        where = jnp.reshape(forced.where, forced.where.shape + (1,) * len(d.event_shape))
        return jnp.where(where, lax.stop_gradient(forced.value), chosen.value)

    def _enumerated(self, site, d, forced: Number | None, num: int):
        """The value that an enumerated site is forced to, weighted by its probability."""
        if forced is None:  # a play that is only looked at
            value, log_p = distributions.value_number(d, jnp.zeros(d.batch_shape, int)), jnp.zeros(d.batch_shape)
        elif forced.num != num:
            raise ValueError(
                f"site '{self.address(site)}' has {forced.num} values in one branch of a ppl.cond or ppl.switch and {num} in "
                "another, so it cannot be enumerated. Give the sites different names."
            )
        else:
            value = distributions.value_number(d, forced.number)
            log_p = distributions.log_prob_inside(d, value)
            if forced.possible:
                value = jnp.where(log_p > math.log(NOTHING), value, distributions.value_number(d, _likeliest(d, num)))
        if not distributions.is_masked(site.distribution):
            self.known = site.distribution, value, log_p
        self.add("log_tried", self._latent_part(site, d, log_p))
        self.put("visited", site.name, self._latent_part(site, d, jnp.ones(d.batch_shape)))
        return value

    def _note(self, site, d, key, strategy: Strategy, chosen: Chosen) -> None:
        """Keep what a strategy adds to the objective."""
        score, extra = (self._latent_part(site, d, x) for x in (chosen.score, chosen.extra))
        self.add("score", score)
        if chosen.open:
            self.add("free_score", score)
        self.add("extra", extra)
        if chosen.guess is not None:
            self.put("guesses", site.name, chosen.guess)
        others = strategy.alternatives(d, key, chosen)
        if others is not None:
            latent = jax.vmap(lambda x: self._latent_part(site, d, x), -1, -1)
            self.put("alternatives", site.name, replace(others, coefficient=latent(others.coefficient)))

    def _latent_part(self, site, d, x):
        """Of one number a batch element those that belong to entries which are no data. A number of the whole site stays."""
        if site.missing is None or jnp.ndim(x) < len(d.batch_shape):
            return x
        missing = jnp.reshape(site.missing, site.missing.shape + (1,) * (len(d.batch_shape) - site.missing.ndim))
        return jnp.where(missing, x, 0.0)


def _likeliest(d, num: int):
    """The number of the likeliest value of each batch element. Of logits read off: to try all values takes long to trace."""
    base = distributions.base(d)
    if isinstance(base, LOGITS):
        logits = jnp.asarray(base.logits)
        numbers = logits > 0 if isinstance(base, dist.BernoulliLogits) else jnp.argmax(logits, -1)
        return jnp.broadcast_to(numbers, d.batch_shape)
    every = jax.vmap(lambda i: distributions.log_prob_inside(d, distributions.value_number(d, i)))(jnp.arange(num))
    return jnp.argmax(every, 0)


def play(fn, key, args: tuple, patterns: dict[str, Strategy], forced: dict, one: Any = 1.0) -> tuple[Played, dict, set[str]]:
    """`fn(*args)`, its random sites drawn with `key`, but for those `forced` (by path, to a Number or a Swap).

    `one`: a one, that log densities averaged over eliminated sites are multiplied by.

    Returns what it came to, the table of its sites, and the patterns that some site matched.
    """
    given: dict = {}
    for path, value in forced.items():
        put(given, path, value)
    interpreter = Play(Inputs(key, given=given))
    interpreter.patterns, interpreter.one = patterns, jnp.asarray(one)
    around = current()
    if isinstance(around, Play):  # it may have given this one soft values
        interpreter.soft = around.soft
    with activate(interpreter):
        value = fn(*args)
    value = _scalar(fn, value)
    record, total = interpreter.record, interpreter.total
    guesses = [x for _, x in paths(record.trees.get("guesses", {}))]
    misfit = sum((jnp.sum((lax.stop_gradient(value) - guess) ** 2) for guess in guesses), jnp.zeros(()))
    # a site in a branch not taken is not forced: of its numbers only one counts
    idle = {path: 1.0 - x for path, x in paths(record.trees.get("visited", {}))}
    repeated = sum((jnp.sum(idle[path] * x.number) for path, x in forced.items() if isinstance(x, Number)), jnp.zeros(()))
    played = Played(
        value=value,
        score=total("score"),
        free_score=total("free_score"),
        extra=total("extra"),
        log_tried=jnp.where(repeated > 0, -jnp.inf, total("log_tried")),
        misfit=misfit,
        alternatives=dict(paths(record.trees.get("alternatives", {}))),
    )
    return played, interpreter.table, interpreter.used


def _scalar(fn, value):
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        array = None
    if array is None or array.shape != () or not jnp.issubdtype(array.dtype, jnp.floating):
        what = type(value).__name__ if array is None else f"an array of dtype {array.dtype} and shape {array.shape}"
        raise ValueError(
            f"the expectation {fn.__name__} must return one number of floating point, to be averaged, but returned {what}."
        )
    return array
