"""Families and laws: what a guide may look like, and what it looks like now. The contracts; a member a file.

A *family* is a settings object, such as `LowRank(rank=3)`. For a target it makes a *law*: a distribution of positions (the
target's unconstrained vectors), whose parameters are all its inexact arrays, to be learned. A law speaks twice inside a
program, as every `ppl.Generative` does: `drawn()` and `density(position)`; and in a model once, `placed()`, where it is the
prior of what follows.

Most laws are a *transport*: standard normal noise, moved by a smooth and invertible map,

    position = forward(noise),    log q(position) = log Normal(noise; 0, 1) - log |d forward / d noise|

Laws, of every member (`tests/inference/vi/test_guides.py`): `inverse(forward(noise)) == noise`, the two log Jacobians are
each other's negative and those of `jax.jacobian`, and the density integrates to one.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import ppl
from ppl import dist

from ...mcmc.initial import Initial


class Law(eqx.Module):
    """The contract of what a guide draws positions (dim,) from."""

    @abc.abstractmethod
    def drawn(self) -> tuple[jax.Array, jax.Array]:
        """A position, and its log density: in a program that draws."""

    @abc.abstractmethod
    def density(self, position) -> jax.Array:
        """The log density of a position, exactly; a scalar."""

    @abc.abstractmethod
    def placed(self) -> jax.Array:
        """A position, as random choices of the model that runs."""

    def given(self, target: ppl.Target) -> "Law":
        """The law for a target with other data; most do not look at them."""
        return self


class Family(eqx.Module):
    """The contract of settings that make a law."""

    @abc.abstractmethod
    def law(self, key, target: ppl.Target, location, scale) -> Law:
        """The law that is learned from: about Normal(location, scale), both (dim,). Networks get their numbers from `key`."""

    def begins(self) -> Initial | None:
        """Where a guide of the family begins, if nobody says so; None: at the origin."""
        return None


class Transport(Law):
    """The contract of laws that move standard normal noise (dim,)."""

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """Of positions and noise."""

    @abc.abstractmethod
    def forward(self, noise) -> tuple[jax.Array, jax.Array]:
        """The position, and log |d position / d noise|."""

    @abc.abstractmethod
    def inverse(self, position) -> tuple[jax.Array, jax.Array]:
        """The noise, and log |d noise / d position|."""

    def drawn(self):
        noise = _noise(self.dim)
        position, log_jacobian = self.forward(noise)
        return position, _normal(noise) - log_jacobian

    def density(self, position):
        noise, log_jacobian = self.inverse(position)
        return _normal(noise) + log_jacobian

    def placed(self):
        return self.forward(_noise(self.dim))[0]


class Positions(dist.Distribution):
    """A law as a distribution of vectors, for laws that are no transport of continuous noise."""

    support: Any = dist.constraints.real_vector
    pytree_data_fields = ("law",)

    def __init__(self, law: Law, dim: int, *, validate_args=None) -> None:
        self.law = law
        super().__init__((), (dim,), validate_args=validate_args)

    def sample(self, key: Any, sample_shape=()):
        def one(key):
            return simulated(self.law, key)[0]

        keys = jax.random.split(key, sample_shape)
        for _ in sample_shape:
            one = jax.vmap(one)
        return one(keys)

    def log_prob(self, value, intermediates: Any = None):
        return jnp.vectorize(self.law.density, signature="(n)->()")(value)


class _Drawn(ppl.Generative):
    def __init__(self, law: Law) -> None:
        self.law = law

    def drawn(self):
        position, log_q = self.law.drawn()
        return {"position": position}, log_q

    def density(self, choices):
        return self.law.density(choices["position"])


def simulated(law: Law, key) -> tuple[jax.Array, jax.Array]:
    """A position from outside a program, and its log density."""
    trace = _Drawn(law).simulate(key)
    return trace.choices["position"], trace.log_density


def _noise(dim: int):
    return ppl.sample("whitened", dist.Normal(jnp.zeros(dim), 1.0).to_event(1))


def _normal(noise):
    return jnp.sum(dist.Normal(0.0, 1.0).log_prob(noise))
