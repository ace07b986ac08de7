"""Discrepancy: what no setting of a model explains, as a Gaussian process of the inputs (Kennedy and O'Hagan, 2001).

```python
@ppl.model
def drop(height):
    g, sigma = sample("g", dist.Uniform(4.0, 16.0)), sample("sigma", dist.Uniform(0.01, 0.5))
    delta = discrepancy("delta", height, amplitude=dist.HalfNormal(0.1), length=dist.LogNormal(0.7, 0.7))
    sample("time", delta.around(jnp.sqrt(2.0 * height / g), sigma))            # in place of dist.Normal(..., sigma)
```
    y_i = model(x_i, theta) + delta(x_i) + noise_i,       delta ~ GP(0, amplitude^2 k(x, x'; length))

Without delta, a wrong model gives a narrow posterior around a wrong theta: more data make it narrower, not better. With it,
theta is as uncertain as the model is wrong. That uncertainty stands on what is said of delta beforehand, of which data say
little: `amplitude` should be what an expert would expect the model to be wrong by, in the units of y, and `length` over what
distances of x that changes. Try others. (Kennedy and O'Hagan, JRSS B 63, 2001; Brynjarsdottir and O'Hagan, Inverse Problems
30, 2014.)

- `delta.around(mean, noise)`: the law of y, the process integrated out exactly; for normal noise.
- `delta.values()`: the process at the inputs, as a latent site, non-centred; for any other law of y.
- `delta.at(new, residuals, noise)`: what the process is elsewhere, given what was seen; for predictions.
- `delta.orthogonal_to(directions)`: without what theta could explain by itself.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

import ppl
from ppl import dist
from ppl.distributions import bounds, is_distribution, is_traced

Kernel = Callable[[Array, Array, Array], Array]
JITTER = 10.0  # of the diagonal, in roundings for each point: what keeps a factor of a nearly singular matrix real


def squared_exponential(x: Array, y: Array, length: Array) -> Array:
    """exp(-|x - y|^2 / (2 length^2)), of two points (d,): smooth. `length` is a scalar, or one for each input (d,)."""
    return jnp.exp(-0.5 * jnp.sum(((x - y) / length) ** 2))


def matern52(x: Array, y: Array, length: Array) -> Array:
    """(1 + r + r^2 / 3) exp(-r) with r = sqrt(5) |x - y| / length, of two points (d,): twice differentiable."""
    squared = 5.0 * jnp.sum(((x - y) / length) ** 2)
    r = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))  # a root has no slope at 0, where this has none either
    return jnp.where(squared > 0, (1.0 + r + squared / 3.0) * jnp.exp(-r), 1.0)


class Discrepancy(eqx.Module):
    """A Gaussian process at the inputs of data; see the file's docstring. Made by `discrepancy`.

    - `name`: of its site. `x` (n, d): the inputs. `amplitude`: its standard deviation. `length`: scalar or (d,).
    - `directions` (n, p): what it is orthogonal to at the inputs; p = 0 where nothing was asked for.
    """

    name: str = eqx.field(static=True)
    x: Array
    amplitude: Array
    length: Array
    kernel: Kernel = eqx.field(static=True)
    directions: Array

    def covariance(self, a: Array | None = None, b: Array | None = None) -> Array:
        """Of the process between points a (k, d) and b (l, d), by default the inputs; (k, l)."""
        a, b = (self.x if points is None else points for points in (a, b))
        plain = self._prior(a, b)
        if self.directions.shape[1] == 0:
            return plain
        # Conditioned on directions' delta(x) = 0. The jitter is of p x p, whose diagonal may be of any size.
        to_a, to_b = self._prior(a, self.x) @ self.directions, self._prior(b, self.x) @ self.directions
        middle = self.directions.T @ self._prior(self.x, self.x) @ self.directions
        middle += jnp.diag(_rounding(self.directions.shape[1], middle) * jnp.diag(middle))
        return plain - to_a @ jnp.linalg.solve(middle, to_b.T)

    def around(self, mean: ArrayLike, noise: ArrayLike, *, covariance: ArrayLike | None = None):
        """The law of data: mean + process + noise, the process integrated out. A `dist.MultivariateNormal` over (n,).

        - `mean` (n,): of the model. `noise`: standard deviation, a scalar or (n,).
        - `covariance` (n, n): of what the mean itself is uncertain by, such as an emulator's; left out where there is none.
        """
        self._check("mean", mean, ((len(self.x),),))
        total = self._noisy(noise)
        if covariance is not None:
            self._check("covariance", covariance, ((len(self.x),) * 2,))
            total = total + jnp.asarray(covariance)
        return dist.MultivariateNormal(mean, covariance_matrix=total)

    def values(self) -> Array:
        """The process at the inputs (n,): a latent site `<name>_white` of standard normals, taken to it. Inside a model."""
        white = ppl.sample(f"{self.name}_white", dist.Normal(0.0, 1.0).expand([len(self.x)]))
        plain = self.covariance()
        safe = plain + _rounding(len(self.x), plain) * self.amplitude**2 * jnp.eye(len(self.x), dtype=plain.dtype)
        return jnp.linalg.cholesky(safe) @ white

    def at(self, new: ArrayLike, residuals: ArrayLike, noise: ArrayLike):
        """The law of the process at inputs `new` (k,) or (k, d), given residuals (n,), data minus the model's mean.

        - `noise`: of the data, as in `around`. The law is of the process alone: add the model's mean, and noise.
        """
        self._check("residuals", residuals, ((len(self.x),),))
        new = _table("Discrepancy.at", new)
        across = self.covariance(new)
        factor = jnp.linalg.cholesky(self._noisy(noise))
        white = jax.scipy.linalg.solve_triangular(factor, across.T, lower=True)
        seen = jax.scipy.linalg.solve_triangular(factor, residuals, lower=True)
        left = self.covariance(new, new) - white.T @ white
        left += _rounding(len(self.x) + len(left), left) * self.amplitude**2 * jnp.eye(len(left), dtype=left.dtype)
        return dist.MultivariateNormal(white.T @ seen, covariance_matrix=left)

    def orthogonal_to(self, directions: ArrayLike) -> "Discrepancy":
        """The process given that its inner products with `directions` (n,) or (n, p) over the inputs are 0.

        With directions d model / d theta, `jax.jacfwd(model)(theta)`, delta takes nothing that a small change of theta
        explains. Then theta is what fits best: well determined, however wrong the model is, and no longer the quantity in
        nature that it is named after. Take it where theta serves to predict; leave it where theta is to be measured. (Plumlee,
        JASA 112, 2017: there over a continuum of inputs, here over those of the data.)
        """
        directions = jnp.asarray(directions)
        directions = directions[:, None] if directions.ndim == 1 else directions
        if directions.ndim != 2 or len(directions) != len(self.x) or directions.shape[1] >= len(self.x):
            raise ValueError(
                f"Discrepancy.orthogonal_to: at site '{self.name}', directions must be ({len(self.x)},) or ({len(self.x)}, p) "
                f"with fewer directions than inputs, got {directions.shape}."
            )
        return eqx.tree_at(lambda d: d.directions, self, jnp.concatenate([self.directions, directions], axis=1))

    def _prior(self, a: Array, b: Array) -> Array:
        pairs = jax.vmap(lambda p: jax.vmap(lambda q: self.kernel(p, q, self.length))(b))(a)
        return self.amplitude**2 * pairs

    def _noisy(self, noise: ArrayLike) -> Array:
        self._check("noise", noise, ((), (len(self.x),)))
        plain = self.covariance()
        return plain + jnp.diag(
            jnp.broadcast_to(noise, (len(self.x),)) ** 2 + _rounding(len(self.x), plain) * self.amplitude**2
        )

    def _check(self, what: str, value: ArrayLike, shapes: tuple) -> None:
        if jnp.shape(value) not in shapes:
            wanted = " or ".join(str(shape) for shape in shapes)
            raise ValueError(
                f"Discrepancy: at site '{self.name}', which has {len(self.x)} inputs, {what} must have shape {wanted}, got "
                f"{jnp.shape(value)}."
            )


def discrepancy(name: str, x, *, amplitude, length, kernel: Kernel = squared_exponential) -> Discrepancy:
    """A Gaussian process of the inputs, to stand beside a model inside a model; see the file's docstring.

    - `name`: the sites `amplitude` and `length` are nested under it, as in `posterior["delta.amplitude"]`.
    - `x` (n,) or (n, d): the inputs of the data; those that occur twice have the same discrepancy.
    - `amplitude`, `length`: distributions over positive numbers, `length` a scalar or (d,); or numbers, where they are known.
    - `kernel`: the correlation of two points (d,), such as `squared_exponential` or `matern52`.

    Raises:
        ValueError: for inputs that are no table of finite numbers, an amplitude or a length that can be below 0.

    Example:
        `discrepancy("delta", height, amplitude=dist.HalfNormal(0.1), length=dist.LogNormal(0.7, 0.7))`
    """
    table = _table(f"discrepancy '{name}'", x)
    settings = {"amplitude": amplitude, "length": length}
    for what, given in settings.items():
        _check_positive(name, what, given, table.shape[1])
    unknown = {what: given for what, given in settings.items() if is_distribution(given)}
    both = settings | (ppl.sample(name, _process(unknown)) if unknown else {})
    none = jnp.zeros((len(table), 0), table.dtype)
    return Discrepancy(name, table, jnp.asarray(both["amplitude"]), jnp.asarray(both["length"]), kernel, none)


@ppl.model
def _process(unknown):
    return {what: ppl.sample(what, law) for what, law in unknown.items()}


def _check_positive(name: str, what: str, given, num: int) -> None:
    shapes = ((),) if what == "amplitude" else ((), (num,))
    shape = given.shape() if is_distribution(given) else jnp.shape(given)
    if shape not in shapes:
        wanted = " or ".join(str(s) for s in shapes)
        raise ValueError(f"discrepancy '{name}': {what} must have shape {wanted}, got {shape}.")
    if is_distribution(given):
        known = not any(map(is_traced, jax.tree.leaves(given.support)))
        least = bounds(given.support) if known else None
        positive = least is None or bool((least[0] >= 0).all())
    else:
        positive = is_traced(given) or bool((np.asarray(given) > 0).all())
    if not positive:
        raise ValueError(
            f"discrepancy '{name}': {what} must be above 0, got {given!r}. Give a law over positive numbers, such as "
            "dist.HalfNormal(0.1), or a positive number."
        )


def _table(who: str, x) -> Array:
    shape, finite = jnp.shape(x), is_traced(x) or bool(np.isfinite(np.asarray(x)).all())
    if len(shape) not in (1, 2) or 0 in shape or not finite:
        what = f"shape {shape}" if finite else "some that are not finite"
        raise ValueError(f"{who}: inputs must be finite numbers (n,) or (n, d), got {what}.")
    return jnp.asarray(x, jnp.result_type(float)).reshape(shape[0], -1)


def _rounding(num: int, like: Array) -> float:
    return JITTER * num * float(jnp.finfo(like.dtype).eps)
