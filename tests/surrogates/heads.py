"""Every head, with what its laws are tested by: points of equal measure that fill the support. A new head is a line here."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppl.distributions import dist
from surrogates.heads import Bar, Categories, Flow, Head, LowRankMixture, Mixture, Scaled, Spline, Supported

EDGES = (-2.5, -1.0, -0.7, 0.0, 0.2, 1.5, 2.0)
constraints = dist.constraints


class Member(NamedTuple):
    """`points` (n, *event), and the measure of the cell about each, (n,) or one number."""

    head: Head
    points: np.ndarray
    measure: Any

    def raw(self, size: float, key: int = 0):
        """Raw numbers near the start; `size` is how far."""
        start = self.head.start()
        return start + size * jax.random.normal(jax.random.key(key), start.shape, start.dtype)


def middles(low, high, num):
    step = (high - low) / num
    return low + step * (np.arange(num) + 0.5), step


def plane(low, high, num):
    x, step = middles(low, high, num)
    return np.stack(np.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2), step**2


def line_of_logs(low, high, num):
    logs, step = middles(low, high, num)
    return np.exp(logs), step * np.exp(logs)


def triangle(num):
    """Shares of three: the measure is that of the first two."""
    x, measure = plane(0.0, 1.0, num)
    x = x[x.sum(-1) < 1.0 - 1e-9]
    return np.concatenate([x, 1.0 - x.sum(-1, keepdims=True)], -1), measure


def shaken(flow):
    """With networks that are not zero."""
    leaves, form = jax.tree.flatten(flow)
    rng = np.random.default_rng(5)
    return jax.tree.unflatten(form, [x + 0.3 * rng.normal(size=x.shape).astype(x.dtype) for x in leaves])


def ordered(num):
    """A number and a gap: the measure of the second is that of the gap."""
    (x, step), (gap, steps) = middles(-12.0, 12.0, num), line_of_logs(-12.0, 16.0, num)
    x, gap, steps = np.repeat(x, num), np.tile(gap, num), np.tile(steps, num)
    return np.stack([x, x + gap], -1), step * steps


LINE, PLANE = middles(-40.0, 40.0, 40_000), plane(-14.0, 14.0, 200)


def flow(dim):
    return shaken(Flow(dim, layers=2, bins=4, context=5, width=8, key=jax.random.key(1)))


MEMBERS = {  # made when asked for, so that parameters have the precision of the test
    "bar": lambda: Member(Bar(EDGES), *LINE),
    "scalar mixture": lambda: Member(Mixture(None, num=3), *LINE),
    "mixture": lambda: Member(Mixture(dim=2, num=3), *PLANE),
    "mixture of vectors of one": lambda: Member(Mixture(dim=1, num=2), LINE[0][:, None], LINE[1]),
    "low rank": lambda: Member(LowRankMixture(dim=2, num=2, rank=1), *PLANE),
    "spline": lambda: Member(Spline(bins=5), *LINE),
    "flow": lambda: Member(flow(2), *PLANE),
    "flow of one": lambda: Member(flow(1), LINE[0][:, None], LINE[1]),
    "scaled": lambda: Member(Scaled(Mixture(dim=2, num=3), [0.5, -1.0], [1.5, 0.7]), *PLANE),
    "scaled spline": lambda: Member(Scaled(Spline(bins=5), 2.0, 3.0), *LINE),
    "categories": lambda: Member(Categories(4), np.arange(4), 1.0),
    "positive": lambda: Member(Supported(Mixture(None, num=2), constraints.positive), *line_of_logs(-25.0, 25.0, 4000)),
    "interval": lambda: Member(Supported(Bar(EDGES), constraints.interval(2.0, 5.0)), *middles(2.0, 5.0, 40_000)),
    "simplex": lambda: Member(Supported(Mixture(dim=2, num=2), constraints.simplex), *triangle(400)),
    "ordered": lambda: Member(Supported(Mixture(dim=2, num=2), constraints.ordered_vector), *ordered(200)),
}
SCALAR = ("bar", "scalar mixture", "spline", "scaled spline", "positive", "interval")  # laws with a cdf


def signs(head, key=2):
    """Extreme raw numbers."""
    return 50.0 * jax.random.rademacher(jax.random.key(key), (head.size,), jnp.result_type(float))
