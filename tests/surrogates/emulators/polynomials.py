"""A family whose fits can be checked by hand: polynomials by least squares, exact where the truth is one."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from surrogates.emulators.emulator import Emulator, Family, Prediction
from surrogates.emulators.runs import Runs, Shapes, pack


def powers(x, degree: int):
    """1, x, x^2, ... of each number of a row (d,)."""
    return jnp.concatenate([jnp.ones(1), *(x**k for k in range(1, degree + 1))])


class Polynomial(Emulator):
    coefficients: Array  # (terms, *out)
    sd: Array  # (*out)
    degree: int = eqx.field(static=True)
    shapes: Shapes = eqx.field(static=True)

    def __call__(self, *args: Any) -> Array:
        return jnp.tensordot(powers(pack(self.shapes, *args), self.degree), self.coefficients, 1)

    def predict(self, *args: Any) -> Prediction:
        mean = self(*args)
        return Prediction(mean, self.sd[..., None], jnp.zeros_like(mean))

    def outside(self, *args: Any) -> Array:
        return jnp.array(False)

    def report(self) -> str:
        return f"polynomial of degree {self.degree}"


class Polynomials(Family):
    degree: int = 3

    def fit(self, key: Array, runs: Runs) -> Polynomial:
        here = np.asarray(runs.here)
        x, y = np.asarray(runs.x, np.float64)[here], np.asarray(runs.y, np.float64)[here]
        table = np.concatenate([np.ones((len(x), 1)), *(x**k for k in range(1, self.degree + 1))], 1)
        flat = y.reshape(len(y), -1)
        found, *_ = np.linalg.lstsq(table, flat, rcond=None)
        sd = np.std(flat - table @ found, axis=0)
        return Polynomial(
            jnp.asarray(found.reshape(-1, *y.shape[1:]), float), jnp.asarray(sd.reshape(y.shape[1:]), float), self.degree,
            runs.shapes,
        )  # fmt: skip
