"""Linear-Gaussian state-space models, and the three things that are done with them: predict, reverse, update.

    x_0     ~ Normal(mean, covariance)                                  `initial`
    x_{t+1} | x_t ~ Normal(matrix x_t + offset, covariance)             `transition`
    y_t     | x_t ~ Normal(matrix x_t + offset, covariance)             `observation`, t = 0 ... T-1

Law: for a belief x ~ Normal and an affine law of y given x, `predict` is the law of y, `reverse` the affine law of x given y,
and `update` puts a value of y in, missing entries (NaN) left out. Filter, smoother and backward simulation are made of these.
Covariances are in Joseph's form, (1 - K H) P (1 - K H)' + K R K': a sum of squares, so it stays one in float32 too, whatever
the rounding of the gain K. (Kalman, J. Basic Eng. 82, 1960; Bucy and Joseph, "Filtering for Stochastic Processes with
Applications to Guidance", 1968; Sarkka, "Bayesian Filtering and Smoothing", 2013, chapters 4 and 8.)

```python
level = LinearGaussian(Gaussian(1000.0, 1e5), transition=Affine(1.0, 1469.1), observation=Affine(1.0, 15099.0))
belief, log_increment = update(level.initial, level.observation, jnp.array([1120.0]))
```
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular

# A GPU may multiply float32 with the digits of a shorter type; variances are differences, and need them all.
all_digits = jax.default_matmul_precision("highest")


class Gaussian(eqx.Module):
    """The law Normal(mean, covariance) of a vector: `Gaussian(mean, covariance)`.

    - `mean`: (d,).
    - `covariance`: (d, d), in squared units of the mean. Singular ones are welcome: what is known exactly has variance zero.

    Numbers are taken for vectors and matrices of one entry.
    """

    mean: jax.Array
    covariance: jax.Array

    def __init__(self, mean, covariance) -> None:
        self.covariance = _floats(covariance, 2)
        self.mean = _floats(mean, 1)


class Affine(eqx.Module):
    """The law of y given x: Normal(matrix x + offset, covariance). `Affine(matrix, covariance, offset)`.

    - `matrix`: (k, d), in units of y over units of x.
    - `covariance`: (k, k) of what is added, in squared units of y.
    - `offset`: (k,), in units of y; zero if not given.

    Each may change with time; it then leads with a time axis. Numbers are taken for vectors and matrices of one entry.
    """

    matrix: jax.Array
    covariance: jax.Array
    offset: jax.Array

    def __init__(self, matrix, covariance, offset=None) -> None:
        self.matrix = _floats(matrix, 2)
        self.covariance = _floats(covariance, 2)
        self.offset = jnp.zeros_like(self.matrix[..., 0]) if offset is None else _floats(offset, 1)

    def at(self, t) -> "Affine":
        """The law at time `t`."""
        now = [x[t] if lead else x for x, lead in zip(self._fields, self._led, strict=True)]
        return Affine(*now)

    def mean(self, x):
        """The mean of y given x (d,)."""
        return self.matrix @ x + self.offset

    @property
    def times(self) -> set[int]:
        """The lengths of the time axes of those fields that have one."""
        return {len(x) for x, lead in zip(self._fields, self._led, strict=True) if lead}

    @property
    def _fields(self) -> tuple:
        return self.matrix, self.covariance, self.offset

    @property
    def _led(self) -> tuple:
        return self.matrix.ndim == 3, self.covariance.ndim == 3, self.offset.ndim == 2


class LinearGaussian(eqx.Module):
    """A linear-Gaussian state-space model; see the file's docstring for what it says. A pytree of arrays.

    - `initial`: the law of the state at the time of the first observation, a `Gaussian` of d entries. For a diffuse start
      give it large variances.
    - `transition`: an `Affine` from d to d; where it changes with time, entry t leads from time t to t + 1 (T - 1 of them).
    - `observation`: an `Affine` from d to k; where it changes with time, entry t is that of y[t] (T of them).

    Make it inside `jax.vmap` or `jax.grad`, or pass it through them: gradients reach every field.

    Raises:
        ValueError: where shapes disagree.

    Example:
        `LinearGaussian(Gaussian(1000.0, 1e5), transition=Affine(1.0, 1469.1), observation=Affine(1.0, 15099.0))`
    """

    initial: Gaussian
    transition: Affine
    observation: Affine

    def __check_init__(self) -> None:
        d = self.initial.mean.shape[-1] if self.initial.mean.ndim else 0
        k = self.observation.matrix.shape[-2] if self.observation.matrix.ndim > 1 else 0
        _expect(self.initial.mean, (d,), "the initial mean", leads=False)
        _expect(self.initial.covariance, (d, d), "the initial covariance", leads=False)
        for name, law, size in (("transition", self.transition, d), ("observation", self.observation, k)):
            _expect(law.matrix, (size, d), f"the matrix of the {name}")
            _expect(law.covariance, (size, size), f"the covariance of the {name}")
            _expect(law.offset, (size,), f"the offset of the {name}")


@all_digits
def predict(belief: Gaussian, law: Affine) -> Gaussian:
    """The law of y, where x ~ `belief` and y | x ~ `law`: the belief a step later, or what the next observation may be.

    Args:
        belief: of d entries.
        law: from d to k entries, of one time.

    Returns:
        A `Gaussian` of k entries.

    Example:
        `predict(Gaussian(0.0, 1.0), Affine(0.9, 0.19))` is Normal(0, 1) again.
    """
    return Gaussian(law.mean(belief.mean), _carried(law.matrix, belief.covariance) + law.covariance)


@all_digits
def reverse(belief: Gaussian, law: Affine) -> Affine:
    """Bayes' rule: the affine law of x given y, where x ~ `belief` and y | x ~ `law`.

    Args:
        belief: of d entries.
        law: from d to k entries, of one time.

    Returns:
        An `Affine` from k to d entries; its matrix is the gain.

    Example:
        `reverse(Gaussian(0.0, 1.0), Affine(1.0, 1.0))` has matrix 1/2 and covariance 1/2.
    """
    gain = cho_solve((root(predict(belief, law).covariance), True), law.matrix @ belief.covariance).T
    rest = jnp.eye(len(belief.mean), dtype=gain.dtype) - gain @ law.matrix
    covariance = _carried(rest, belief.covariance) + _carried(gain, law.covariance)
    return Affine(gain, covariance, rest @ belief.mean - gain @ law.offset)


@all_digits
def update(belief: Gaussian, law: Affine, y) -> tuple[Gaussian, jax.Array]:
    """The belief once y is seen, and the log density of y under what was expected. One step of a filter.

    Args:
        belief: about the state, of d entries.
        law: of the observation, from d to k entries, of one time.
        y: (k,); entries that are NaN are missing: they teach nothing and count nothing.

    Returns:
        A `Gaussian` of d entries, and a scalar. It is NaN where the covariance that is expected of y is singular.

    Example:
        `update(Gaussian(0.0, 1.0), Affine(1.0, 1.0), jnp.array([2.0]))` is Normal(1, 1/2), and log Normal(2; 0, sqrt 2).
    """
    law, y, num = seen(law, y)
    expected, back = predict(belief, law), reverse(belief, law)
    # what is seen enters by how far it is from what was expected: two large numbers are never subtracted in the mean
    surprise = y - expected.mean
    triangle = jnp.linalg.cholesky(expected.covariance)
    white = solve_triangular(triangle, surprise, lower=True)
    log_increment = -0.5 * (jnp.vdot(white, white) + num * np.log(2 * np.pi)) - jnp.sum(jnp.log(jnp.diagonal(triangle)))
    return Gaussian(belief.mean + back.matrix @ surprise, back.covariance), log_increment


def seen(law: Affine, y) -> tuple[Affine, jax.Array, jax.Array]:
    """The law and the data with missing entries made harmless, zero seen as noise of variance one; and how many are left."""
    there = ~jnp.isnan(y)
    both = there[:, None] & there
    matrix = jnp.where(there[:, None], law.matrix, 0)
    covariance = jnp.where(both, law.covariance, jnp.eye(len(there), dtype=law.covariance.dtype))
    law = Affine(matrix, covariance, jnp.where(there, law.offset, 0))
    return law, jnp.where(there, y, 0), jnp.sum(there).astype(matrix.dtype)


def root(covariance):
    """The lower triangle L of covariance = L L', with some roundings added to the variances: singular ones have one too.

    A direction in which nothing varies is then solved for as zero, as a pseudo-inverse would.
    """
    variances = jnp.diagonal(covariance)
    few = 8 * len(variances) * jnp.finfo(covariance.dtype).eps
    return jnp.linalg.cholesky(covariance + few * jnp.diag(jnp.where(variances > 0, variances, 1)))


def prepared(model: LinearGaussian, y) -> tuple[LinearGaussian, jax.Array]:
    """The model and the data (T, k), of one floating type; masked entries are NaN.

    Raises:
        ValueError: where the data do not fit the model.
    """
    if isinstance(y, np.ma.MaskedArray):
        y = np.ma.filled(y.astype(float), np.nan)
    y = jnp.asarray(y)
    num = model.observation.matrix.shape[-2]
    if y.ndim == 1 and num == 1:
        y = y[:, None]
    if y.ndim != 2 or y.shape[1] != num or not len(y):
        raise ValueError(
            f"the observations must have shape (T, {num}): one row for each time, an entry for each row of the observation "
            f"matrix. They have shape {y.shape}."
        )
    for name, law, needed in (("transition", model.transition, len(y) - 1), ("observation", model.observation, len(y))):
        for times in law.times - {needed}:
            raise ValueError(
                f"the {name} changes with time and is given for {times} times, but {len(y)} observations need {needed}."
            )
    dtype = jnp.result_type(float, y, *jax.tree.leaves(model))
    return jax.tree.map(lambda x: x.astype(dtype), (model, y))


def _carried(matrix, covariance):
    """The covariance of matrix x. Symmetric to the last digit."""
    out = matrix @ covariance @ matrix.T
    return 0.5 * (out + out.T)


def _floats(x, ndim: int):
    """An array of floats; a number becomes one of `ndim` axes."""
    x = jnp.asarray(x)
    x = x.astype(jnp.result_type(x, float))
    return x.reshape((1,) * ndim) if x.ndim == 0 else x


def _expect(x, shape: tuple, what: str, leads: bool = True) -> None:
    if x.shape == shape or (leads and x.shape[1:] == shape):
        return
    led = f", or (times, {', '.join(map(str, shape))}) where it changes with time" if leads else ""
    raise ValueError(f"{what} must have shape {shape}{led}, but has {x.shape}.")
