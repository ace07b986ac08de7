"""Splines: monotone maps of the line that are quotients of two parabolas in each of K bins, and the identity outside.

`spline(x, raw)` and `unspline(y, raw)`, elementwise, with their log slopes; `raw` (..., 3 K - 1) are free numbers: widths
and heights of the bins, slopes at the knots between them. Zeros make the identity. (Gregory and Delbourgo, IMA Journal of
Numerical Analysis 2, 1982; Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", NeurIPS 2019.)

Law: `unspline(spline(x, raw), raw) == x`, and log slopes are each other's negative.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

EDGE = 4.0  # splines bend what lies in [-EDGE, EDGE]
LEAST = 1e-3  # of a bin's share of the width or height, and of a slope


class Bin(NamedTuple):
    """The bin that a number is in: where it begins, how large it is, and the slopes at its ends."""

    x: jax.Array
    y: jax.Array
    width: jax.Array
    height: jax.Array
    left: jax.Array
    right: jax.Array

    @property
    def secant(self):
        return self.height / self.width

    def log_slope(self, t):
        """At a share `t` of the width."""
        s = self.secant
        top = s**2 * (self.right * t**2 + 2.0 * s * t * (1.0 - t) + self.left * (1.0 - t) ** 2)
        return jnp.log(top) - 2.0 * jnp.log(s + (self.left + self.right - 2.0 * s) * t * (1.0 - t))


def spline(x, raw):
    """`y`, and log dy/dx."""
    inside, here = jnp.abs(x) < EDGE, _knots(raw)
    b = _bin(jnp.where(inside, x, 0.0), here, here[0])
    t = (jnp.where(inside, x, 0.0) - b.x) / b.width
    s = b.secant
    y = b.y + b.height * (s * t**2 + b.left * t * (1.0 - t)) / (s + (b.left + b.right - 2.0 * s) * t * (1.0 - t))
    return jnp.where(inside, y, x), jnp.where(inside, b.log_slope(t), 0.0)


def unspline(y, raw):
    """`x`, and log dx/dy."""
    inside, here = jnp.abs(y) < EDGE, _knots(raw)
    b = _bin(jnp.where(inside, y, 0.0), here, here[1])
    rise, s = jnp.where(inside, y, 0.0) - b.y, b.secant
    bend = rise * (b.left + b.right - 2.0 * s)
    a2, a1, a0 = b.height * (s - b.left) + bend, b.height * b.left - bend, -s * rise
    t = 2.0 * a0 / (-a1 - jnp.sqrt(jnp.maximum(a1**2 - 4.0 * a2 * a0, 0.0)))
    return jnp.where(inside, b.x + t * b.width, y), jnp.where(inside, -b.log_slope(t), 0.0)


def _knots(raw):
    """x and y of the knots, and the slopes there, each (..., K + 1)."""
    num = (raw.shape[-1] + 1) // 3
    x, y = (_edges(part) for part in (raw[..., :num], raw[..., num : 2 * num]))
    inner = LEAST + (1.0 - LEAST) * jax.nn.softplus(raw[..., 2 * num :] + _ONE)
    ends = jnp.ones((*inner.shape[:-1], 1), inner.dtype)
    return x, y, jnp.concatenate([ends, inner, ends], -1)


_ONE = 0.5413248546129181  # softplus of it is 1


def _edges(raw):
    shares = LEAST + (1.0 - LEAST * raw.shape[-1]) * jax.nn.softmax(raw, -1)
    inner = EDGE * (2.0 * jnp.cumsum(shares, -1)[..., :-1] - 1.0)
    end = jnp.full((*raw.shape[:-1], 1), EDGE, raw.dtype)
    return jnp.concatenate([-end, inner, end], -1)


def _bin(value, knots, along) -> Bin:
    x, y, slope = knots
    i = jnp.sum(value[..., None] >= along[..., 1:-1], -1, keepdims=True)

    def at(array, i):
        return jnp.take_along_axis(array, i, -1)[..., 0]

    left, low = at(x, i), at(y, i)
    return Bin(left, low, at(x, i + 1) - left, at(y, i + 1) - low, at(slope, i), at(slope, i + 1))
