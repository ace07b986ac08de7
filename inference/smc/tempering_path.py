"""Tempering: from a reference that can be sampled to the posterior, by powers of their ratio.

    gamma_b = reference x (posterior density / reference)^b,  0 <= b <= 1

The reference is the prior, and the ratio the likelihood; or any program over the same sites, such as a guide: the nearer it
is to the posterior, the shorter the way (Neal, Statistics and Computing 11, 2001; Gelman and Meng, Statistical Science 13,
1998).

```python
path = Tempering().of(program | data)
path = Tempering(guide(phi)).of(program | data)
```
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

import ppl

from ..mcmc.tempering import TemperedTarget, power
from ..population import Population
from .path import Bridge, Level


class Tempering(eqx.Module):
    """Which way to go: from the prior, or from a `reference` program with the same latent sites."""

    reference: ppl.Program | None = None

    def of(self, program) -> "TemperingPath":
        """The path to the posterior of a conditioned program, or to a `ppl.Target`.

        Raises:
            ValueError: where the prior is improper, or the reference has other sites.
        """
        target = ppl.as_target(program)
        rows = {slot.address: target.program.sites()[slot.address] for slot in target.slots}
        if self.reference is None:
            for address, row in rows.items():
                if "ImproperUniform" in row.family:
                    raise ValueError(
                        f"smc: the prior of site '{address}' is improper, so no particles can be drawn from it. Give it "
                        "a proper one, or begin at a program over the same sites: tempering(reference=...)."
                    )
        else:
            there = {name: row for name, row in self.reference.sites().items() if row.kind == "latent"}
            weighted = [name for name, row in self.reference.sites().items() if row.kind in ("observed", "factor")]
            if weighted:
                raise ValueError(
                    f"smc: the reference has data or factors at {', '.join(weighted)}, so its draws do not follow its "
                    "density. Give a program that is sampled as it stands, such as a guide."
                )
            if there.keys() != rows.keys() or any(there[name].shape != row.shape for name, row in rows.items()):
                raise ValueError(
                    f"smc: the reference has the latent sites {_told(there)}, but the program has {_told(rows)}. They must be "
                    "the same."
                )
        return TemperingPath(target, self.reference)


def _told(rows) -> str:
    return ", ".join(f"{name}{list(row.shape) if row.shape else ''}" for name, row in rows.items()) or "(none)"


class Point(NamedTuple):
    """A particle: `position` (dim,), log density of the reference there, and of the posterior over that of the reference."""

    position: jax.Array
    log_reference: jax.Array
    log_ratio: jax.Array


class TemperingPath(Bridge):
    """See the file's docstring. A level is an inverse temperature."""

    target: ppl.Target
    reference: ppl.Program | None

    level_name: ClassVar[str] = "inverse_temperature"

    def start(self, key, num: int) -> Population:
        points = self.drawn(key, num, self.target.program if self.reference is None else self.reference)
        return Population.of(points, level=jnp.zeros((), points.log_ratio.dtype))

    def ended(self, level):
        return level >= 1

    def told(self, level) -> str:
        return f"inverse temperature {float(level):.3g}"

    def check_levels(self, levels) -> None:
        if levels[0] <= 0 or levels[-1] != 1:
            raise ValueError(
                f"smc: inverse temperatures must increase from above 0 to exactly 1, but they go from {levels[0]:.3g} to "
                f"{levels[-1]:.3g}."
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

        def halve(_, bounds):
            low, high = bounds
            middle = 0.5 * (low + high)
            good = fits(power(ratio, jnp.exp(middle)))
            return jnp.where(good, middle, low), jnp.where(good, high, middle)

        rest = 1 - here
        least, most = jnp.log(rest) - 60.0, jnp.log(rest)
        step = jnp.exp(lax.fori_loop(0, 36, halve, (least, most))[0])
        return jnp.where(fits(power(ratio, rest)), jnp.ones_like(here), jnp.minimum(here + step, 1.0))
