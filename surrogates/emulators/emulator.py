"""Emulators: what a cheap function in the place of a costly one can say, and what makes one from runs.

```python
emulator = GaussianProcess().fit(key, Runs.of(x, y))     # a Family turns runs into an Emulator
emulator(2.0, 3.0)                                       # the mean: arguments and shape as the true function's
emulator.predict(2.0, 3.0)                               # with its error: a Prediction
program.intervene({"voltage": emulator})                 # an emulator is a pytree and a function: jit, vmap, grad
```
The law of a Prediction: the true output is Normal(mean, factor factor' + diag(residual)), outputs flattened. The factor has
few columns, one per component of the outputs, so a Gaussian likelihood takes the error in by Woodbury's identity. The error is
that of a run: where runs are not smooth, what the emulator cannot follow is part of it.

Kennedy and O'Hagan, "Bayesian calibration of computer models", JRSS B 63, 2001; Higdon, Gattiker, Williams and Rightley,
"Computer model calibration using high-dimensional output", JASA 103, 2008 (the covariance by components).
"""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from .runs import Runs


class Prediction(NamedTuple):
    """Of one input: `mean` (*out), `factor` (*out, p), `residual` (*out). See the file's docstring.

    Example:
        `mean, sd = p.mean, jnp.sqrt(p.variance)`
    """

    mean: Array
    factor: Array
    residual: Array

    @property
    def variance(self) -> Array:
        """Of each output, (*out)."""
        return jnp.sum(self.factor**2, -1) + self.residual

    @property
    def covariance(self) -> Array:
        """Of all outputs, flattened: (m, m), m the number of outputs."""
        factor = self.factor.reshape(-1, self.factor.shape[-1])
        return factor @ factor.T + jnp.diag(self.residual.ravel())

    def sample(self, key: Array) -> Array:
        """A draw of the outputs, (*out)."""
        common, own = jax.random.split(key)
        z = jax.random.normal(common, self.factor.shape[-1:], self.factor.dtype)
        return self.mean + self.factor @ z + jnp.sqrt(self.residual) * jax.random.normal(own, self.mean.shape)


class LeaveOneOut(NamedTuple):
    """What an emulator says of each of its runs without having seen it.

    - `mean`, `sd`: (n, *out), a row for each row of the runs; zeros and ones in rows without a run.
    - `nats`: the mean log predictive density of a run, in the components in which outputs are emulated. A scalar.
    """

    mean: Array
    sd: Array
    nats: Array


class Emulator(eqx.Module):
    """A cheap function in the place of a costly one. A pytree; every method but `report` works under jit, vmap and grad."""

    @abstractmethod
    def __call__(self, *args: Any) -> Array:
        """The mean (*out), of arguments as those of the true function."""

    @abstractmethod
    def predict(self, *args: Any) -> Prediction:
        """The mean and its error."""

    @abstractmethod
    def outside(self, *args: Any) -> Array:
        """Whether the arguments are beyond what the emulator was fitted to: a boolean scalar."""

    @abstractmethod
    def report(self) -> Any:
        """How good it is, by what it has not seen: prints well."""


class Known(Emulator):
    """An emulator, with something known of how it came about: it answers as the one inside does."""

    emulator: Emulator

    def __call__(self, *args: Any) -> Array:
        return self.emulator(*args)

    def predict(self, *args: Any) -> Prediction:
        return self.emulator.predict(*args)

    def outside(self, *args: Any) -> Array:
        return self.emulator.outside(*args)

    def report(self) -> Any:
        return self.emulator.report()


class Family(eqx.Module):
    """A kind of emulator, with its settings."""

    @abstractmethod
    def fit(self, key: Array, runs: Runs) -> Emulator:
        """The emulator of these runs."""
