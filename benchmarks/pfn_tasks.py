"""Curves as programs, and their exact predictives.

- A Gaussian process on [0, 1]: the kernel is exp(-(x - x')^2 / 2 l^2) with l = 0.6, places x are uniform, and y has noise.
- A Bayesian neural network on [-1, 1]: ten tanh units whose weights have Normal priors, and noise of sd 0.3. Its predictive is
  that of 100,000 draws of the weights, each weighed by the likelihood of the known points: after ten of them, effective draws
  are a thousand in the middle, so the error of a data set's log density is a few hundredths, and its bias below .002.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist, sample

LENGTH = 0.6
UNITS, SLOPE, SD, DRAWS = 10, 2.0, 0.3, 100_000


def smooth(x: Any, other: Any, length: Any = LENGTH) -> Any:
    """(..., n), (..., m) -> (..., n, m)."""
    far = ((x[..., :, None] - other[..., None, :]) / length) ** 2
    return (np if isinstance(x, np.ndarray) else jnp).exp(-0.5 * far)


@ppl.model
def process(num: int, noise: float):
    """A Gaussian process at `num` places, seen with a noise of variance `noise`."""
    x: Any = sample("x", dist.Uniform(0.0, 1.0).expand([num]))
    sample("y", dist.MultivariateNormal(jnp.zeros(num), smooth(x, x) + noise * jnp.eye(num)))


def exact(x: np.ndarray, y: np.ndarray, num: int, noise: float) -> np.ndarray:
    """Log predictive densities (S, m - num) of the points of data sets (S, m) after the first `num`; float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    known, new = x[:, :num], x[:, num:]
    across = smooth(known, new)
    solved = np.linalg.solve(smooth(known, known) + noise * np.eye(num), np.concatenate([y[:, :num, None], across], -1))
    mean = np.einsum("snm,sn->sm", across, solved[..., 0])
    variance = 1.0 + noise - np.einsum("snm,snm->sm", across, solved[..., 1:])
    return -0.5 * ((y[:, num:] - mean) ** 2 / variance + np.log(2.0 * np.pi * variance))


@ppl.model
def network(num: int):
    """A network of one layer with unknown weights, at `num` places."""
    x: Any = sample("x", dist.Uniform(-1.0, 1.0).expand([num]))
    a, b = (sample(name, dist.Normal(0.0, SLOPE).expand([UNITS])) for name in ("a", "b"))
    c: Any = sample("c", dist.Normal(0.0, UNITS**-0.5).expand([UNITS]))
    sample("y", dist.Normal(c @ jnp.tanh(a[:, None] * x + b[:, None]), SD))


@partial(jax.jit, static_argnums=2)
def _weighed(x: Any, y: Any, num: int) -> Any:
    """(m - num,): log predictive densities of a data set (m,) by draws of the prior."""
    keys = jax.random.split(jax.random.key(0), 3)
    a, b = (SLOPE * jax.random.normal(key, (DRAWS, UNITS)) for key in keys[:2])
    c = UNITS**-0.5 * jax.random.normal(keys[2], (DRAWS, UNITS))
    at = jax.lax.map(lambda x: jnp.sum(c * jnp.tanh(a * x + b), 1), x)
    each = dist.Normal(at, SD).log_prob(y[:, None])
    log_weights = jnp.sum(each[:num], 0)
    return jax.nn.logsumexp(log_weights + each[num:], 1) - jax.nn.logsumexp(log_weights)


def weighed(x: np.ndarray, y: np.ndarray, num: int) -> np.ndarray:
    """As `exact`, of the network."""
    return np.stack([np.asarray(_weighed(*each, num)) for each in zip(x, y, strict=True)])


def drawn(program: Any, num: int, key: jax.Array) -> dict[str, np.ndarray]:
    """`num` data sets of a program: its sites, leaves (num, ...)."""
    draw = jax.jit(jax.vmap(lambda program, key: program.simulate(key).choices, (None, 0)))
    return jax.tree.map(np.asarray, draw(program, jax.random.split(key, num)))


class Task(NamedTuple):
    """A `program(num)` with sites x and y; `exact(x, y, num)`; on how many data sets networks are tried."""

    program: Callable[[int], Any]
    exact: Callable[[np.ndarray, np.ndarray, int], np.ndarray]
    sets: int


TASKS = {
    **{
        f"Gaussian process, noise {noise:g}": Task(partial(process, noise=noise), partial(exact, noise=noise), 1500)
        for noise in (1e-2, 1e-4)
    },
    "neural network": Task(network, weighed, 400),
}
