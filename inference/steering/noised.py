"""Noised: what is known of a law at every noise level, and the algebra that steers it.

A diffusion model knows a law q_0 of data with noise added: q_sigma, the law of x = x0 + sigma z, for every sigma. It is
steered by going from the largest sigma down to the smallest along another sequence of targets, such as

```python
q ** 3                                # annealing: more of what is likely
a ** (1 - w) * b ** w                 # guidance: the geometric average, for w > 1 away from a
a * b                                 # a product: what both models think likely
q * Reward(r) ** (lambda sigma: ...)  # tilted by exp(reward), the more the less noise there is
q ** (lambda sigma: ...)              # an exponent that changes along the way
```
with `q = Density(log_q)` where the density is known, and `q = Score(s)` where only its gradient is. The functions are of
(x, sigma). A model that keeps the variance (x_t = a x0 + sqrt(1 - a^2) z) is the same diffusion in other units:
`preserving(log_q)` has it in the units used here (Karras, Aittala, Aila and Laine, NeurIPS 2022, arXiv:2206.00364).
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp


class Function(eqx.Module):
    """A callable as a pytree: the arrays of a network are leaves, everything else is structure."""

    arrays: list[Any]
    rest: tuple[Any, ...] = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    def __init__(self, fn: Callable) -> None:
        leaves, self.structure = jax.tree.flatten(fn)
        self.arrays = [x if eqx.is_array(x) else None for x in leaves]
        self.rest = tuple(None if eqx.is_array(x) else x for x in leaves)

    def __call__(self, *args):
        parts = zip(self.arrays, self.rest, strict=True)
        return jax.tree.unflatten(self.structure, [rest if x is None else x for x, rest in parts])(*args)


class Noised(eqx.Module):
    """The contract: a product of factors to powers. `x` has the shape of the data, `sigma` is a scalar."""

    factors: eqx.AbstractVar[tuple["Factor", ...]]
    exponents: eqx.AbstractVar[tuple[Any, ...]]  # numbers, or functions of sigma

    def __mul__(self, other: "Noised") -> "Noised":
        if not isinstance(other, Noised):
            raise ValueError(f"steering: a law is multiplied by another one, not by {type(other).__name__}; q * Reward(r).")
        return Product(self.factors + other.factors, self.exponents + other.exponents)

    def __pow__(self, exponent) -> "Noised":
        return Product(self.factors, tuple(_times(e, exponent) for e in self.exponents))

    def weighed(self, sigma) -> list[tuple["Factor", jax.Array]]:
        """The factors and their exponents at a noise level."""
        values = [jnp.asarray(_at(e, sigma), float) for e in self.exponents]
        return list(zip(self.factors, values, strict=True))

    def power(self, sigma) -> jax.Array:
        """By how much the whole is narrower than one law: the sum of exponents. A Gaussian to the power p has its variance
        divided by p; the noise has too."""
        return sum((e for factor, e in self.weighed(sigma) if factor.is_law), start=jnp.zeros(()))

    def log_density(self, x, sigma) -> jax.Array:
        """+log of the unnormalised density, a scalar."""
        return sum((e * factor.value(x, sigma) for factor, e in self.weighed(sigma)), start=jnp.zeros(()))

    def score(self, x, sigma) -> jax.Array:
        """Its gradient, of the shape of `x`."""
        return sum((e * factor.gradient(x, sigma) for factor, e in self.weighed(sigma)), start=jnp.zeros_like(x))


class Factor(Noised):
    """One factor: a law (`is_law`), or a reward, on which no noise was put."""

    is_law: ClassVar[bool] = True
    fn: eqx.AbstractVar[Function]

    @property
    def factors(self):
        return (self,)

    @property
    def exponents(self):
        return (1.0,)

    @abc.abstractmethod
    def value(self, x, sigma) -> jax.Array:
        """+log density, a scalar."""

    @abc.abstractmethod
    def gradient(self, x, sigma) -> jax.Array:
        """Its gradient."""

    @abc.abstractmethod
    def check(self, x, sigma) -> None:
        """Raise ValueError for a function that returns another shape."""


class Product(Noised):
    """Factors to powers; made by `*` and `**`."""

    factors: tuple[Factor, ...]
    exponents: tuple[Any, ...]


class _Known(Factor):
    """A factor whose value is known: its gradient follows."""

    def value(self, x, sigma):
        return self.fn(x, sigma)

    def gradient(self, x, sigma):
        return jax.grad(self.fn)(x, sigma)

    def check(self, x, sigma) -> None:
        _check_shape(type(self).__name__, self.fn, x, sigma, (), "one number: +log density or reward of one x. Sum over x")


class Density(_Known):
    """A law of which `log_density(x, sigma)` is known at every noise level; a scalar, +log density of x of any shape.

    The evidence of a run is an integral of what is given: with normalised densities, of q^3 for `Density(log_q) ** 3`.

    Example:
        `Density(lambda x, sigma: dist.Normal(1.0, jnp.sqrt(4 + sigma**2)).log_prob(x))`
    """

    fn: Function

    def __init__(self, log_density: Callable) -> None:
        self.fn = Function(_checked("Density", log_density))


class Reward(_Known):
    """exp(reward(x, sigma)), the exponent a scalar. To a power that is a function of sigma it comes in by and by.

    Example:
        `q * Reward(lambda x, sigma: r(denoiser(x, sigma))) ** (lambda sigma: 1 / (1 + sigma**2))`
    """

    is_law: ClassVar[bool] = False
    fn: Function

    def __init__(self, reward: Callable) -> None:
        self.fn = Function(_checked("Reward", reward))


class Score(Factor):
    """A law of which only `score(x, sigma)`, the gradient of its log density, of the shape of x, is known.

    Example:
        `Score(network)`, an Equinox module or any function; `from_denoiser(network)` where it gives E[x0 | x].
    """

    fn: Function

    def __init__(self, score: Callable) -> None:
        self.fn = Function(_checked("Score", score))

    def value(self, x, sigma):
        raise ValueError(
            "steering: of a Score no density is known, so no exact weights. Give a Density(log_density), or steer by "
            "Feynman-Kac correctors, correcting(levels, shape)."
        )

    def gradient(self, x, sigma):
        return self.fn(x, sigma)

    def check(self, x, sigma) -> None:
        _check_shape("Score", self.fn, x, sigma, x.shape, "the gradient, of the shape of x")


def from_denoiser(denoiser: Callable) -> Score:
    """A `Score` from `denoiser(x, sigma)` = E[x0 | x]: the score at x is (denoiser(x) - x) / sigma^2 (Tweedie's formula)."""
    return Score(_ScoreOf(Function(_checked("from_denoiser", denoiser))))


class _ScoreOf(eqx.Module):
    denoiser: Function

    def __call__(self, x, sigma):
        return (self.denoiser(x, sigma) - x) / sigma**2


def preserving(law: Factor) -> Factor:
    """A law whose function is of x_t = a x0 + s z with a^2 + s^2 = 1, in units of x0: a function of x_t / a and sigma = s / a.

    The function given is of (x_t, s). `sigma_of(s)` are its noise levels.
    """
    return eqx.tree_at(lambda law: law.fn, law, Function(_InUnits(law.fn, isinstance(law, Score), law.is_law)))


def sigma_of(s) -> jax.Array:
    """The noise level, in units of x0, of x_t = sqrt(1 - s^2) x0 + s z; 0 <= s < 1."""
    return s / jnp.sqrt(1 - jnp.asarray(s) ** 2)


class _InUnits(eqx.Module):
    fn: Function
    is_score: bool = eqx.field(static=True)
    is_law: bool = eqx.field(static=True)

    def __call__(self, x, sigma):
        a = 1 / jnp.sqrt(1 + sigma**2)
        value = self.fn(a * x, a * sigma)
        if self.is_score:
            return a * value
        return value + x.size * jnp.log(a) if self.is_law else value


def _times(a: Any, b: Any) -> Any:
    if any(map(callable, (a, b))):
        return Function(lambda sigma: _at(a, sigma) * _at(b, sigma))
    return a * b


def _at(exponent: Any, sigma) -> Any:
    return exponent(sigma) if callable(exponent) else exponent


def _checked(who: str, fn):
    if not callable(fn):
        raise ValueError(f"{who}: expected a function of (x, sigma), got {type(fn).__name__}.")
    return fn


def _check_shape(who: str, fn, x, sigma, wanted, words: str) -> None:
    found = jax.eval_shape(fn, x, sigma)
    if getattr(found, "shape", None) != wanted:
        raise ValueError(
            f"{who}: for x of shape {x.shape} the function returned shape {getattr(found, 'shape', None)}, but it is to "
            f"return {words}."
        )
