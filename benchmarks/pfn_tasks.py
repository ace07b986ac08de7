"""A Gaussian process on [0, 1] as a program, and its exact predictive.

The kernel is exp(-(x - x')^2 / 2 l^2) with l = 0.6, places x are uniform, and y has noise.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist, sample

LENGTH = 0.6


def smooth(x: Any, other: Any) -> Any:
    """(..., n), (..., m) -> (..., n, m)."""
    far = ((x[..., :, None] - other[..., None, :]) / LENGTH) ** 2
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


def drawn(program: Any, num: int, key: jax.Array) -> dict[str, np.ndarray]:
    """`num` data sets of a program: its sites, leaves (num, ...)."""
    draw = jax.jit(jax.vmap(lambda program, key: program.simulate(key).choices, (None, 0)))
    return jax.tree.map(np.asarray, draw(program, jax.random.split(key, num)))
