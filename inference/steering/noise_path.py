"""From much noise to none: the path of a diffusion, level by level, through targets gamma_k at noise levels sigma_k.

    sigma_0 > sigma_1 > ... > sigma_K >= 0

Particles begin at a Gaussian as wide as the noise of the first level, or at a distribution that is given, and are weighted for
the target there; so the evidence is the integral of the last target itself, not a ratio. Two paths:

- `DenoisingPath`: densities are known, so it is a bridge, and any kernel may move its particles at every level (`Denoise`).
- `CorrectedPath`: only scores are (`Correct`).

The ways to them are `Denoising(levels, shape)` and `Correcting(levels, shape)`; their program is a law such as `q ** 3`.
"""

import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl.distributions import is_traced

from ..population import Population
from ..smc.path import Bridge, Level, Path
from .noised import Noised, Score


class Noisy(NamedTuple):
    """A particle: its `position`, flat (dim,)."""

    position: jax.Array


class ThroughNoise(Path):
    """What the two have in common. A level is the number of noise levels passed."""

    law: eqx.AbstractVar[Noised]
    levels: eqx.AbstractVar[jax.Array]
    shape: eqx.AbstractVar[tuple[int, ...]]

    level_name: ClassVar[str] = "noise_levels_passed"

    @property
    def length(self) -> int:
        return len(self.levels)

    def ended(self, level):
        return level >= len(self.levels) - 1

    def told(self, level) -> str:
        return f"noise level {int(level)} of {len(self.levels) - 1} (sigma {float(self.levels[int(level)]):.3g})"

    def seen(self, position) -> jax.Array:
        """A position as the law's functions see it."""
        return position.reshape(self.shape)


class DenoisingPath(ThroughNoise, Bridge):
    """A law whose density is known at every level."""

    target: ppl.Target
    law: Noised
    levels: jax.Array
    shape: tuple[int, ...] = eqx.field(static=True)
    first: Any

    def start(self, key, num: int) -> Population:
        first = _gaussian(self) if self.first is None else self.first
        x = jax.vmap(first.sample)(jax.random.split(key, num))
        log_weights = jax.vmap(lambda x: self.law.log_density(x, self.levels[0]) - first.log_prob(x).sum())(x)
        flat = Noisy(x.reshape(num, -1))
        return Population.of(flat, jnp.zeros_like(log_weights), level=jnp.int32(0)).reweighted(log_weights)

    def at(self, position) -> Noisy:
        return Noisy(position)

    def log_density(self, particle: Noisy, level):
        return self.law.log_density(self.seen(particle.position), self.levels[level])

    def at_level(self, level) -> Any:
        return Level(self, level)

    def furthest(self, population, fits):
        """The next one: levels are passed one by one."""
        return jnp.minimum(population.level + 1, len(self.levels) - 1)

    def check_levels(self, levels) -> None:
        last = len(self.levels) - 1
        if levels[0] < 1 or levels[-1] != last or levels.dtype.kind not in "iu":
            raise ValueError(
                f"smc: numbers of noise levels passed must be whole and increase from at least 1 to exactly {last}, but they "
                f"go from {levels[0]} to {levels[-1]}."
            )


class CorrectedPath(ThroughNoise):
    """A law of which perhaps only scores are known. At the first level every factor counts as N(0, sigma_0^2)."""

    law: Noised
    levels: jax.Array
    shape: tuple[int, ...] = eqx.field(static=True)

    def start(self, key, num: int) -> Population:
        first, sigma = _gaussian(self), self.levels[0]
        x = jax.vmap(first.sample)(jax.random.split(key, num))

        def log_weight(x):
            noise = jnp.sum(-0.5 * (x / sigma) ** 2 - jnp.log(sigma) - 0.5 * math.log(2 * math.pi))
            parts = [e * (noise if part.is_law else part.value(x, sigma)) for part, e in self.law.weighed(sigma)]
            return sum(parts, start=jnp.zeros(())) - first.log_prob(x).sum()

        log_weights = jax.vmap(log_weight)(x)
        flat = Noisy(x.reshape(num, -1))
        return Population.of(flat, jnp.zeros_like(log_weights), level=jnp.int32(0)).reweighted(log_weights)

    def choices(self, particle: Noisy):
        return {"x": self.seen(particle.position)}


def _gaussian(path: ThroughNoise):
    """The noise of the first level, as a distribution."""
    sigma = path.levels[0]
    return ppl.dist.Normal(jnp.zeros(path.shape), sigma / jnp.sqrt(path.law.power(sigma)))


class Denoising(eqx.Module):
    """The way through noise `levels` (num,), for densities of x of a `shape`; see the file's docstring.

    - `first`: a distribution of x to begin at in place of the noise of the first level.
    """

    levels: jax.Array
    shape: tuple[int, ...] = eqx.field(static=True)
    first: Any = None

    def of(self, law) -> DenoisingPath:
        """The path of a law whose factors are densities and rewards.

        Raises:
            ValueError: for levels that do not decrease, functions that return another shape, scores.
        """
        levels, shape = _checked(self, law, needs_power=self.first is None)
        for factor in law.factors:
            if isinstance(factor, Score):
                factor.value(None, None)
        target = ppl.Target.from_log_density(lambda x: law.log_density(x, levels[-1]), jnp.zeros(shape))
        return DenoisingPath(target, law, levels, shape, self.first)


class Correcting(eqx.Module):
    """The way through noise `levels` (num,), for laws of x of a `shape` of which scores are known."""

    levels: jax.Array
    shape: tuple[int, ...] = eqx.field(static=True)

    def of(self, law) -> CorrectedPath:
        """The path of a law.

        Raises:
            ValueError: for levels that do not decrease, functions that return another shape, exponents that are functions.
        """
        levels, shape = _checked(self, law, needs_power=True)
        if any(factor.is_law and callable(e) for factor, e in zip(law.factors, law.exponents, strict=True)):
            raise ValueError(
                "steering: where only scores are known, the exponent of a law must be a number: that of a function would need "
                "the log density. Give a Density and steer by denoising(levels, shape), or a number."
            )
        return CorrectedPath(law, levels, shape)


def _checked(way, law, *, needs_power: bool) -> tuple[jax.Array, tuple[int, ...]]:
    """The levels as an array and the shape, where they serve the law."""
    if not isinstance(law, Noised):
        raise ValueError(
            f"steering: expected a law at every noise level, such as Density(log_density) ** 3, got {type(law).__name__}."
        )
    if not isinstance(way.shape, tuple):
        raise ValueError(f"steering: shape must be a tuple, such as () or (2,), got {way.shape!r}.")
    levels, shape = jnp.asarray(way.levels, float), way.shape
    if levels.ndim != 1 or len(levels) < 2:
        raise ValueError(f"steering: levels are at least two noise levels in a row, got an array of shape {levels.shape}.")
    x = jnp.zeros(shape, levels.dtype)
    for factor in law.factors:
        factor.check(x, levels[0])
    if is_traced(levels):
        return levels, shape
    known = np.asarray(levels)
    if not (np.diff(known) < 0).all() or known[-1] < 0:
        raise ValueError(
            f"steering: noise levels must decrease, to at least 0, but they are {_few(known)}. Turn them round, and leave out "
            "those that come twice."
        )
    powers = [law.power(sigma) for sigma in known] if needs_power else []
    if powers and not any(map(is_traced, powers)) and min(powers) <= 0:
        raise ValueError(
            f"steering: the exponents of the laws sum to {float(min(powers)):.3g} at some level, and must sum to more than 0: "
            "otherwise nothing holds the particles together. Give exponents such as 1 - w and w."
        )
    return levels, shape


def _few(levels) -> str:
    return ", ".join(f"{x:.3g}" for x in levels[:5]) + (", ..." if len(levels) > 5 else "")
