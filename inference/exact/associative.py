"""The Kalman filter and smoother parallel in time: T observations in some log2(T) steps, where there are enough processors.

Filtering: element t holds the law of x_t given x_{t-1} and y_t, an `Affine`, and the likelihood of x_{t-1} from y_t as a
precision and what it multiplies; two neighbours combine into one, associatively. Smoothing: the laws of x_t given x_{t+1}
combine like functions. (Sarkka and Garcia-Fernandez, IEEE Trans. Automatic Control 66, 2021, arXiv:1905.13002.) On one
processor the sequential siblings do less work.

```python
associative_filter(model, y).log_evidence         # that of kalman_filter(model, y)
associative_smoother(model, y).means
```
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_solve

from ..numerics import select
from .kalman import Filtered, Smoothed, backwards, smoothed
from .linear_gaussian import Affine, Gaussian, LinearGaussian, all_digits, predict, prepared, reverse, root, seen, update


class Element(NamedTuple):
    """What the data from time i to j say: `law`, of x_j given x_{i-1} and these data, and their likelihood as a function of
    x_{i-1}, proportional to exp(information' x - x' precision x / 2)."""

    law: Affine
    information: jax.Array
    precision: jax.Array


def associative_filter(model: LinearGaussian, y) -> Filtered:
    """`kalman_filter`, parallel in time: the same arguments, results and errors.

    Example:
        `associative_filter(model, y).means`
    """
    return _filter(*prepared(model, y))


def associative_smoother(model: LinearGaussian, y) -> Smoothed:
    """`kalman_smoother`, parallel in time: the same arguments, results and errors.

    Example:
        `associative_smoother(model, y).cross_covariances`
    """
    return _smoother(*prepared(model, y))


@jax.jit
@all_digits
def _filter(model: LinearGaussian, y) -> Filtered:
    later = jnp.arange(1, len(y))

    def element(t):
        return _element(model.transition.at(t - 1), model.observation.at(t), y[t])

    def step(belief, t):
        """One step of the sequential filter, from the belief found: it tells the increment, and rounds as well."""
        return update(predict(belief, model.transition.at(t - 1)), model.observation.at(t), y[t])

    first = update(model.initial, model.observation.at(0), y[0])
    elements = _joined(_known(first[0]), jax.vmap(element)(later))
    laws = folded(jax.vmap(_combined), elements).law
    before = Gaussian(laws.offset[:-1], laws.covariance[:-1])
    beliefs, log_increments = _joined(first, jax.vmap(step)(before, later))
    return Filtered(beliefs.mean, beliefs.covariance, log_increments, jnp.sum(log_increments))


@jax.jit
@all_digits
def _smoother(model: LinearGaussian, y) -> Smoothed:
    filtered = _filter(model, y)
    last, back = backwards(model, filtered)
    ends = jax.tree.map(lambda x, end: jnp.concatenate([x, end[None]]), back, _known(last).law)
    laws = _reversed(folded(jax.vmap(_after), _reversed(ends)))
    return smoothed(Gaussian(laws.offset[:-1], laws.covariance[:-1]), last, back, filtered)


def folded(combined, elements):
    """Entry t of the result is elements 0 to t combined, for an associative `combined` of two batches of elements.

    After s rounds each entry holds 2^s elements, up to itself (Hillis and Steele, Comm. ACM 29, 1986). `lax.associative_scan`
    does fewer combinations in twice as many rounds, and compiles each of them apart, which took five times as long.
    """
    times = jnp.arange(len(jax.tree.leaves(elements)[0]))

    def double(s, elements):
        before = jax.tree.map(lambda x: jnp.roll(x, 2**s, 0), elements)  # who has nothing before is left as it is
        return jax.vmap(select)(times >= 2**s, combined(before, elements), elements)

    return lax.fori_loop(0, (len(times) - 1).bit_length(), double, elements)


def _reversed(rows):
    return jax.tree.map(lambda x: x[::-1], rows)


def _element(transition: Affine, observation: Affine, y) -> Element:
    """What one observation says of its state and of the one before."""
    observation, y, _ = seen(observation, y)
    noise = Gaussian(transition.offset, transition.covariance)
    back, expected = reverse(noise, observation), predict(noise, observation)
    through = observation.matrix @ transition.matrix  # from the state before to y
    weighted = cho_solve((root(expected.covariance), True), through).T
    law = Affine(transition.matrix - back.matrix @ through, back.covariance, back.mean(y))
    return Element(law, weighted @ (y - expected.mean), weighted @ through)


def _known(belief: Gaussian) -> Element:
    """The element of a state whose law is known, whatever was before."""
    none = jnp.zeros_like(belief.covariance)
    return Element(Affine(none, belief.covariance, belief.mean), jnp.zeros_like(belief.mean), none)


def _combined(i: Element, j: Element) -> Element:
    """The data of i, then those of j."""
    (early, information_i, precision_i), (late, information_j, precision_j) = i, j
    both = jnp.linalg.inv(jnp.eye(len(early.offset), dtype=early.offset.dtype) + early.covariance @ precision_j)
    forth, back = late.matrix @ both, (both @ early.matrix).T  # what j sees of the state between the two, then to its ends
    between = early.offset + early.covariance @ information_j
    covariance = forth @ early.covariance @ late.matrix.T
    precision = back @ precision_j @ early.matrix
    law = Affine(forth @ early.matrix, 0.5 * (covariance + covariance.T) + late.covariance, forth @ between + late.offset)
    return Element(
        law,
        back @ (information_j - precision_j @ early.offset) + information_i,
        0.5 * (precision + precision.T) + precision_i,
    )


def _after(first: Affine, second: Affine) -> Affine:
    """One affine law after another."""
    out = predict(Gaussian(first.offset, first.covariance), second)
    return Affine(second.matrix @ first.matrix, out.covariance, out.mean)


def _joined(first, rest):
    """One pytree in front of many."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)
