"""Sixty-three timed ball drops, with g known: models of them, and their exact posteriors by quadrature.

Without air the ball falls for sqrt(2 h / g) seconds; there was air, and a hand on the watch. With mean times m(h, theta)
linear in 1 / sqrt(g) or not, the likelihood of three timings a height depends on them by their means and their spread alone; a
Gaussian process with correlation R over 21 heights is diagonal in the eigenvectors of R. So the posterior of (g, sigma,
amplitude, length) is a sum over a grid of Gauss's nodes, with one small eigenproblem for each length. It shares no code with
the models.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist, sample
from surrogates.discrepancy import discrepancy

DATA = Path(__file__).parent / "data" / "ball_drop.csv"
TRUE_G = 9.81  # m / s^2
G, SIGMA = (4.0, 16.0), (0.01, 0.5)  # uniform
AMPLITUDE, LENGTH = 0.1, (np.log(2.0), 0.7)  # of a half-normal law, in seconds; of a log-normal one, in metres


def drops() -> tuple[np.ndarray, np.ndarray]:
    """Heights in metres, times in seconds, (63,) each: three rounds over 21 heights."""
    table = np.loadtxt(DATA, delimiter=",", skiprows=1)
    return table[:, 0], table[:, 1]


def vacuum(g, h):
    return jnp.sqrt(2.0 * h / g)


def drag(g, v, h):
    """(v / g) arccosh(exp(g h / v^2)): a drag as the square of speed, v its terminal speed."""
    u = g * h / v**2
    return v / g * (u + jnp.log1p(jnp.sqrt(-jnp.expm1(-2.0 * u))))  # arccosh(exp(u)), which does not overflow


def _common():
    return sample("g", dist.Uniform(*G)), sample("sigma", dist.Uniform(*SIGMA))


@ppl.model
def without(h):
    g, sigma = _common()
    sample("time", dist.Normal(vacuum(g, h), sigma))


@ppl.model
def with_offset(h):
    (g, sigma), offset = _common(), sample("offset", dist.TruncatedNormal(0.0, 0.1, low=-0.5, high=0.5))
    sample("time", dist.Normal(vacuum(g, h) + offset, sigma))


@ppl.model
def with_drag(h):
    (g, sigma), v = _common(), sample("v", dist.Uniform(1.0, 30.0))
    sample("time", dist.Normal(drag(g, v, h), sigma))


def _delta(h):
    return discrepancy("delta", h, amplitude=dist.HalfNormal(AMPLITUDE), length=dist.LogNormal(*LENGTH))


@ppl.model
def with_discrepancy(h):
    g, sigma = _common()
    sample("time", _delta(h).around(vacuum(g, h), sigma))


@ppl.model
def with_orthogonal(h):
    g, sigma = _common()
    # The slope of sqrt(2 h / g) in g is everywhere along sqrt(h).
    sample("time", _delta(h).orthogonal_to(jnp.sqrt(h)).around(vacuum(g, h), sigma))


class Exact(NamedTuple):
    """Moments of sites, the central 95 % of g, and the log evidence."""

    mean: dict[str, float]
    sd: dict[str, float]
    interval: tuple[float, float]
    log_evidence: float


def nodes(num: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    x, w = np.polynomial.legendre.leggauss(num)
    return 0.5 * (high - low) * x + 0.5 * (high + low), 0.5 * (high - low) * w


def by_grid(program: Any, ranges: dict[str, tuple[int, float, float]]) -> Exact:
    """The posterior of a program of few flat sites, by its own density at Gauss's nodes: so many in a range that holds it."""
    axes = [nodes(*ends) for ends in ranges.values()]
    grid = np.meshgrid(*(x for x, _ in axes), indexing="ij")
    weights = np.prod(np.meshgrid(*(w for _, w in axes), indexing="ij"), axis=0)
    points = {name: jnp.asarray(x.ravel()) for name, x in zip(ranges, grid, strict=True)}
    log_p = np.asarray(jax.jit(jax.vmap(program.log_density))(points), float)
    return _moments(dict(zip(ranges, (x for x, _ in axes), strict=True)), log_p.reshape(weights.shape), weights)


def by_eigenvectors(
    *,
    orthogonal: bool = False,
    correlation: Callable[[np.ndarray], np.ndarray] = lambda r: np.exp(-0.5 * r**2),
    amplitude: float = AMPLITUDE,
    num: tuple[int, int, int, int] = (120, 48, 60, 60),
) -> Exact:
    """Of `with_discrepancy` or `with_orthogonal`; nodes for g, sigma, amplitude and the log of length."""
    h, times = drops()
    h, times = h[:21], times.reshape(3, 21)
    means, spread = times.mean(axis=0), ((times - times.mean(axis=0)) ** 2).sum()
    ends = (G, (0.04, 0.2), (0.0, 6.0 * amplitude), (LENGTH[0] - 6.0 * LENGTH[1], LENGTH[0] + 6.0 * LENGTH[1]))
    (g, wg), (s, ws), (a, wa), (u, wu) = (nodes(n, *e) for n, e in zip(num, ends, strict=True))
    # of the means, with variance K + sigma^2 / 3, and of what is left around them
    inner = -42.0 * np.log(s) - 0.5 * spread / s**2 - 0.5 * 63 * np.log(2 * np.pi) - 0.5 * 21 * np.log(3.0)
    log_p = np.empty((len(u), len(a), len(s), len(g)))
    off = means - np.sqrt(2.0 * h / g[:, None])
    for i, length in enumerate(np.exp(u)):
        R = correlation(np.abs(h[:, None] - h) / length)
        if orthogonal:
            d = np.sqrt(h)
            R = R - np.outer(R @ d, R @ d) / (d @ R @ d)
        values, vectors = np.linalg.eigh(R)
        variance = a[:, None, None] ** 2 * np.maximum(values, 0.0) + s[:, None] ** 2 / 3.0
        square = np.einsum("ask,gk->asg", 1.0 / variance, (off @ vectors) ** 2)
        log_p[i] = inner[:, None] - 0.5 * np.log(variance).sum(-1)[..., None] - 0.5 * square
    log_p += (-0.5 * ((u - LENGTH[0]) / LENGTH[1]) ** 2 - np.log(LENGTH[1]) - 0.5 * np.log(2 * np.pi))[:, None, None, None]
    log_p += (0.5 * np.log(2 / np.pi) - np.log(amplitude) - 0.5 * (a / amplitude) ** 2)[:, None, None]
    log_p -= np.log(G[1] - G[0]) + np.log(SIGMA[1] - SIGMA[0])
    weights = wu[:, None, None, None] * wa[:, None, None] * ws[:, None] * wg
    return _moments({"delta.length": np.exp(u), "delta.amplitude": a, "sigma": s, "g": g}, log_p, weights)


def _moments(axes: dict[str, np.ndarray], log_p: np.ndarray, weights: np.ndarray) -> Exact:
    most = log_p.max()
    p = weights * np.exp(log_p - most)
    whole = p.sum()
    mean, sd, interval = {}, {}, (np.nan, np.nan)
    for i, (name, x) in enumerate(axes.items()):
        margin = p.sum(axis=tuple(j for j in range(p.ndim) if j != i)) / whole
        mean[name] = float(margin @ x)
        sd[name] = float(np.sqrt(margin @ (x - mean[name]) ** 2))
        if name == "g":
            below = np.cumsum(margin) - 0.5 * margin
            interval = (float(np.interp(0.025, below, x)), float(np.interp(0.975, below, x)))
    return Exact(mean, sd, interval, float(np.log(whole) + most))
