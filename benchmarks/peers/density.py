"""For samplers that take a log density: the one our own sampler sees, so that all pay the same for it."""

import jax
import jax.numpy as jnp
from jax import Array

import ppl
from benchmarks.peers.measure import CHAINS
from tests.reference.models import program

TRIES = 100


def target(name: str) -> ppl.Target:
    return ppl.Target(program(name))


def starts(target: ppl.Target, key: Array) -> Array:
    """(chains, dim): uniform on [-2, 2] as everywhere; of 100 tries the first with a finite density and gradient."""

    @jax.jit
    def finite(position: Array) -> Array:
        value, gradient = jax.value_and_grad(target.log_density)(position)
        return jnp.isfinite(value) & jnp.isfinite(gradient).all()

    tries = jax.random.uniform(key, (TRIES, CHAINS, target.dim), minval=-2.0, maxval=2.0)
    found = jax.lax.map(jax.vmap(finite), tries)
    return tries[found.argmax(0), jnp.arange(CHAINS)]


def parameters(target: ppl.Target, positions: Array) -> dict:
    """Positions (chain, draw, dim) as choices and deterministic values by name."""
    return jax.jit(lambda x: jax.lax.map(jax.vmap(target.record), x))(positions)
