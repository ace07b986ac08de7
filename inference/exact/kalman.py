"""Kalman filter, Rauch-Tung-Striebel smoother and backward simulation, step after step; `associative.py` is parallel in time.

Filtering is `update` and `predict` in turn. Backwards in time a state given the next one is again an affine law, `reverse` of
the transition; smoothing is `predict` along these laws, and a path is drawn along them. (Kalman, J. Basic Eng. 82, 1960;
Rauch, Tung and Striebel, AIAA J. 3, 1965; Carter and Kohn, Biometrika 81, 1994; Fruhwirth-Schnatter, J. Time Series Analysis
15, 1994.)

```python
level = LinearGaussian(Gaussian(1000.0, 1e5), transition=Affine(1.0, 1469.1), observation=Affine(1.0, 15099.0))
kalman_filter(level, nile).log_evidence                 # -639.300724
kalman_smoother(level, nile).means                      # (100, 1)
sample_kalman_path(key, level, nile)                    # (100, 1), from the law of the whole path
```
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .linear_gaussian import Affine, Gaussian, LinearGaussian, all_digits, predict, prepared, reverse, root, update


class Filtered(NamedTuple):
    """The state at each time given the data until then.

    - `means`: (T, d).
    - `covariances`: (T, d, d).
    - `log_increments`: (T,), the log density of y[t] given y[:t]; 0 where all of y[t] is missing.
    - `log_evidence`: (), their sum.
    """

    means: jax.Array
    covariances: jax.Array
    log_increments: jax.Array
    log_evidence: jax.Array


class Smoothed(NamedTuple):
    """The state at each time given all data.

    - `means`: (T, d).
    - `covariances`: (T, d, d).
    - `cross_covariances`: (T-1, d, d); entry [t, i, j] is the covariance of x_t[i] and x_{t+1}[j].
    - `log_evidence`: ().
    """

    means: jax.Array
    covariances: jax.Array
    cross_covariances: jax.Array
    log_evidence: jax.Array


def kalman_filter(model: LinearGaussian, y) -> Filtered:
    """The Kalman filter: the law of x_t given y[:t + 1], and the exact log evidence.

    Args:
        model: see `LinearGaussian`.
        y: (T, k), or (T,) where k is one. NaN, and masked entries of a NumPy masked array, are missing.

    Returns:
        `Filtered`. Differentiable in all fields of the model.

    Raises:
        ValueError: where the data do not fit the model.

    Example:
        `jax.grad(lambda q: kalman_filter(model(q), y).log_evidence)(1469.1)`
    """
    return _filter(*prepared(model, y))


def kalman_smoother(model: LinearGaussian, y) -> Smoothed:
    """The Rauch-Tung-Striebel smoother: the law of x_t, and of neighbours in time, given all data.

    Args, errors: as those of `kalman_filter`.

    Example:
        `kalman_smoother(model, y).means`
    """
    return _smoother(*prepared(model, y))


def sample_kalman_path(key, model: LinearGaussian, y) -> jax.Array:
    """A path of states (T, d) from its law given all data, by backward simulation.

    Args:
        key: one typed key; `jax.vmap` over several for independent paths.
        model, y: as those of `kalman_filter`.

    Example:
        `jax.vmap(lambda key: sample_kalman_path(key, model, y))(jax.random.split(key, 1000))`
    """
    return _sample(key, *prepared(model, y))


@jax.jit
@all_digits
def _filter(model: LinearGaussian, y) -> Filtered:
    def step(belief, now):
        t, seen = now
        belief, log_increment = update(belief, model.observation.at(t), seen)
        return predict(belief, model.transition.at(t)), (belief, log_increment)  # the last prediction has no use

    _, (beliefs, log_increments) = lax.scan(step, model.initial, (jnp.arange(len(y)), y))
    return Filtered(beliefs.mean, beliefs.covariance, log_increments, jnp.sum(log_increments))


@jax.jit
@all_digits
def _smoother(model: LinearGaussian, y) -> Smoothed:
    filtered = _filter(model, y)
    last, back = backwards(model, filtered)

    def step(belief, law):
        belief = predict(belief, law)
        return belief, belief

    _, beliefs = lax.scan(step, last, back, reverse=True)
    return smoothed(beliefs, last, back, filtered)


@jax.jit
@all_digits
def _sample(key, model: LinearGaussian, y) -> jax.Array:
    last, back = backwards(model, _filter(model, y))
    noise = jax.random.normal(key, (len(y), len(last.mean)), y.dtype)
    end = last.mean + _spread(last.covariance) @ noise[-1]

    def step(x, now):
        law, white = now
        x = law.mean(x) + _spread(law.covariance) @ white
        return x, x

    _, path = lax.scan(step, end, (back, noise[:-1]), reverse=True)
    return jnp.concatenate([path, end[None]])


def backwards(model: LinearGaussian, filtered: Filtered) -> tuple[Gaussian, Affine]:
    """The law of the last state, and those of x_t given x_{t+1} and y[:t + 1] (T-1): the posterior, as a Markov chain."""
    before = Gaussian(filtered.means[:-1], filtered.covariances[:-1])
    laws = jax.vmap(lambda belief, t: reverse(belief, model.transition.at(t)))(before, jnp.arange(len(before.mean)))
    return Gaussian(filtered.means[-1], filtered.covariances[-1]), laws


def smoothed(beliefs: Gaussian, last: Gaussian, back: Affine, filtered: Filtered) -> Smoothed:
    """The result, from the smoothed beliefs but the last (T-1), the last, and the laws between them."""
    means = jnp.concatenate([beliefs.mean, last.mean[None]])
    covariances = jnp.concatenate([beliefs.covariance, last.covariance[None]])
    return Smoothed(means, covariances, back.matrix @ covariances[1:], filtered.log_evidence)


def _spread(covariance):
    """What turns white noise into noise of this covariance; what does not vary stays as it is."""
    return jnp.where(jnp.diagonal(covariance)[:, None] > 0, root(covariance), 0)
