"""Tempering: from a reference that can be sampled to the posterior, by powers of their ratio.

    gamma_b = reference x (posterior density / reference)^b,  0 <= b <= 1

The reference is the prior, and the ratio the likelihood; or any program or `ppl.Generative` over the same sites, such as a
guide; or the posterior of another program (see `other_posterior.py`). The nearer it is to the posterior, the shorter the way
(Neal, Statistics and Computing 11, 2001; Gelman and Meng, Statistical Science 13, 1998).

```python
path = Tempering().of(program | data)
path = Tempering(guide(phi)).of(program | data)
path = Tempering(posterior).of(program | data)
```
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

import ppl
from ppl.choices import flatten
from ppl.distributions import is_traced
from ppl.importance import leaves_out

from ..mcmc.tempering import TemperedTarget, power
from ..population import Population
from ..posterior import Posterior
from .other_posterior import OtherPosterior
from .path import Bridge, Level


class Tempering(eqx.Module):
    """Which way to go: from the prior, from a `reference` program (or guide) with the same latent sites, or from the posterior
    of one; and to which `last` inverse temperature: 1, the posterior, unless a power of the likelihood is what is wanted."""

    reference: ppl.Program | ppl.Generative | Posterior | None = None
    last: jax.Array | float = 1.0

    def __check_init__(self):
        if not is_traced(self.last) and not 0.0 <= float(self.last) <= 1.0:
            raise ValueError(f"Tempering: the last inverse temperature must be a number from 0 to 1, got {self.last!r}.")

    def of(self, program) -> "TemperingPath":
        """The path to the posterior of a conditioned program, or to a `ppl.Target`.

        Raises:
            ValueError: where the prior is improper, the reference has other sites, or its draws are not of all of them.
        """
        target = ppl.as_target(program)
        if self.reference is None:
            _check_prior(target)
            return TemperingPath(target, None, None, self.last)
        if not isinstance(self.reference, Posterior):
            check_drawn(target, self.reference)
            _check_reach(target, self.reference)
            return TemperingPath(target, self.reference, None, self.last)
        if self.reference.program is None:
            raise ValueError(
                "smc: the reference is a posterior that does not know its program, so the density of its draws is not known. "
                "Run a filter with history=Paths(), for its last steps alone are no draws of the program. Give any other back "
                "what was conditioned: dataclasses.replace(posterior, program=program)."
            )
        _check_reference(target, self.reference.program, "the reference's program")
        return TemperingPath(target, self.reference.program, OtherPosterior.of(self.reference, target), self.last)


def _check_prior(target: ppl.Target) -> None:
    for address, row in _latent(target.program).items():
        if "ImproperUniform" in row.family:
            raise ValueError(
                f"smc: the prior of site '{address}' is improper, so no particles can be drawn from it. Give it "
                "a proper one, or begin at a program over the same sites: tempering(reference=...)."
            )


def check_drawn(target: ppl.Target, reference) -> None:
    """Raise ValueError, with a sentence, for a reference that is not drawn over the target's sites by its own density."""
    _check_reference(target, reference, "the reference")
    if isinstance(reference, ppl.Generative):
        return
    weighted = [name for name, row in reference.sites().items() if row.kind in ("observed", "factor")]
    if weighted:
        raise ValueError(
            f"smc: the reference has data or factors at {', '.join(weighted)}, so its draws do not follow its density. Give a "
            "program that is sampled as it stands, such as a guide; or a posterior of this one."
        )


def _check_reach(target: ppl.Target, reference) -> None:
    """What a reference never draws is in no answer; only of programs are the supports known."""
    if not isinstance(reference, ppl.Program):
        return
    there = _latent(reference)
    for name, row in _latent(target.program).items():
        if leaves_out(row, there[name]):
            raise ValueError(
                f"smc: site '{name}' is {row.support_name}, but {there[name].support_name} in the reference, whose draws "
                "never reach all of what the site can be: the answer would be wrong. Take one that does, or the prior."
            )


def _check_reference(target: ppl.Target, reference, who: str) -> None:
    if not isinstance(reference, ppl.Program | ppl.Generative):
        raise ValueError(f"smc: {who} must be a program or a posterior of one, got {type(reference).__name__}.")
    rows = _latent(target.program)
    there = _latent(reference) if isinstance(reference, ppl.Program) else _drawn(reference, who)
    if there.keys() != rows.keys() or any(there[name].shape != row.shape for name, row in rows.items()):
        raise ValueError(
            f"smc: {who} has the latent sites {_told(there)}, but the program has {_told(rows)}. They must be the same."
        )


def _latent(program: ppl.Program) -> dict[str, Any]:
    return {name: row for name, row in program.sites().items() if row.kind == "latent"}


def _drawn(reference: ppl.Generative, who: str) -> dict[str, Any]:
    """What a Generative draws, by address: arrays' shapes."""
    choices = jax.eval_shape(lambda key: reference.simulate(key).choices, jax.random.key(0))
    try:
        jax.eval_shape(reference.log_density, choices)
    except ValueError as error:
        raise ValueError(f"smc: {who} must have a density that is known: {error}") from None
    return flatten(choices)


def _told(rows) -> str:
    return ", ".join(f"{name}{list(row.shape) if row.shape else ''}" for name, row in rows.items()) or "(none)"


class Point(NamedTuple):
    """A particle: `position` (dim,), log density of the reference there, and of the posterior over that of the reference."""

    position: jax.Array
    log_reference: jax.Array
    log_ratio: jax.Array


class TemperingPath(Bridge):
    """See the file's docstring. A level is an inverse temperature. Of a `reference` with `draws` of its own only
    `log_density(choices)` is asked, which may then lack a constant."""

    target: ppl.Target
    reference: Any
    draws: OtherPosterior | None = None
    last: jax.Array | float = 1.0

    level_name: ClassVar[str] = "inverse_temperature"

    def check_islands(self, islands: int) -> None:
        if self.draws is not None and islands > 1:
            raise ValueError(
                f"smc: {islands} islands would begin at the same draws of the reference, and so err together. Take one island "
                "of more particles."
            )

    def start(self, key, num: int) -> Population:
        if self.draws is not None:
            begun = self.draws.start(key, num, self.at)
            return begun._replace(level=jnp.zeros((), begun.particles.log_ratio.dtype))
        points = self.drawn(key, num, self.reference)
        return Population.of(points, level=jnp.zeros((), points.log_ratio.dtype))

    def ended(self, level):
        return level >= self.last

    def told(self, level) -> str:
        return f"inverse temperature {float(level):.3g}"

    def check_levels(self, levels) -> None:
        if levels[0] <= 0 or levels[-1] != self.last:
            raise ValueError(
                f"smc: inverse temperatures must increase from above 0 to exactly {float(self.last):.3g}, but they go from "
                f"{levels[0]:.3g} to {levels[-1]:.3g}."
            )

    def at(self, position) -> Point:
        log_prior, log_likelihood = self.target.log_prior_and_likelihood(position)
        if self.reference is None:
            return Point(position, log_prior, log_likelihood)
        log_reference = self.reference.log_density(self.target.constrain(position)) + self.target.log_jacobian(position)
        return Point(position, log_reference, log_prior + log_likelihood - log_reference)

    def log_density(self, particle: Point, level):
        return particle.log_reference + power(particle.log_ratio, level)

    def log_ratio(self, particles, old, new):
        return power(particles.log_ratio, new - old)

    def at_level(self, level) -> Any:
        return TemperedTarget(self.target, level) if self.reference is None else Level(self, level)

    def furthest(self, population, fits):
        """By bisection of the logarithm of the increment: the first ones may be 1e-8."""
        ratio, here = population.particles.log_ratio, population.level

        fit, rest = fits(ratio > -jnp.inf), self.last - here
        least, most = jnp.log(rest) - 60.0, jnp.log(rest)

        def halve(i, bounds):
            low, high = bounds
            middle = jnp.where(i == 0, most, 0.5 * (low + high))  # all the way first: `fit` is compiled once
            good = fit(power(ratio, jnp.where(middle < most, jnp.exp(middle), rest)))
            return jnp.where(good, middle, low), jnp.where(good, high, middle)

        low = lax.fori_loop(0, 37, halve, (least, most))[0]
        return jnp.where(low < most, jnp.minimum(here + jnp.exp(low), self.last), jnp.full_like(here, self.last))
