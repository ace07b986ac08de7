"""Learning curves as a program, and the exact predictive of their rest, by importance sampling.

A curve is a sum of three that grow, each with a weight from 0 to 1, at steps t = 1 to 100:

    c1 - a1 t^-alpha,    c2 - a2 / log(t + 1),    a3 - (a3 - b3) exp(-k t^delta)

It stays in [0, 1] and ends above its start, and is seen with noise. (The prior of Adriaensen et al., "Efficient Bayesian
learning curve extrapolation using prior-data fitted networks", NeurIPS 2023, arXiv:2310.20447, with the bounds of their code.)
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr

import ppl
from inference.smc.importance import smooth
from ppl import dist, sample

STEPS, TRIES = 100, 24  # of 24 curves none is allowed once in 6,700 times
SPAN = {"a1": (-0.6, 0.6), "a2": (-0.5, 0.5), "a3": (0.0, 1.0), "b3": (0.0, 1.0), "c1": (0.0, 1.25), "c2": (0.0, 1.0)}
LINEAR, WIDE = ("a1", "a2", "a3", "b3"), 3.0
POWERS = {"alpha": (0.0, 2.0), "k": (-2.0, 1.0), "delta": (0.0, 0.5)}  # means and deviations of their logs
NOISE = (-4.0, 1.0)  # of its log
DIM = 9  # numbers that a curve and its noise are not linear in, and two levels
WIDER, PRIOR = 1.5, 0.2  # than what was found; the share of draws from the prior


@ppl.model
def curves():
    """The first of some curves that is allowed: a draw from the prior that refuses the others."""
    t = jnp.arange(1.0, STEPS + 1)
    ppl.deterministic("t", jnp.stack([t / STEPS, jnp.log(t)], -1))
    uniform = {name: (0.0, 1.0) for name in ("w1", "w2", "w3")} | SPAN
    at: dict[str, Any] = {name: sample(name, dist.Uniform(*ends).expand([TRIES, 1])) for name, ends in uniform.items()}
    at |= {name: sample(name, dist.LogNormal(*law).expand([TRIES, 1])) for name, law in POWERS.items()}
    first = at["c1"] - at["a1"] * t ** -at["alpha"]
    second = at["c2"] - at["a2"] / jnp.log(t + 1.0)
    third = at["a3"] - (at["a3"] - at["b3"]) * jnp.exp(-at["k"] * t ** at["delta"])
    tried = at["w1"] * first + at["w2"] * second + at["w3"] * third
    allowed = jnp.all((tried >= 0.0) & (tried <= 1.0), -1) & (tried[:, -1] > tried[:, 0])
    curve = ppl.deterministic("curve", tried[jnp.argmax(allowed)])
    sample("y", dist.Normal(curve, sample("noise", dist.LogNormal(*NOISE))))


class Rest(NamedTuple):
    """The exact predictive of what follows: `log_p` (STEPS - n,), by each half of the draws (2, STEPS - n), Pareto's k of the
    weights, and how many draws they are worth."""

    log_p: np.ndarray
    halves: np.ndarray
    k: float
    ess: float


class Found(NamedTuple):
    """Where draws have been found worth something: a Normal."""

    mean: np.ndarray  # (DIM,)
    root: np.ndarray  # of the covariance

    @staticmethod
    def of(z: np.ndarray, log_w: np.ndarray) -> "Found":
        """From weighted draws (M, DIM), their weights made even until they are worth fifty; somewhat wider."""
        power = 1.0
        while True:
            w = np.exp(power * (log_w - log_w.max()))
            if w.sum() ** 2 >= 50.0 * (w @ w) or power < 1e-3:
                break
            power *= 0.8
        mean = w @ z / w.sum()
        covariance = WIDER * (w * (z - mean).T) @ (z - mean) / w.sum()
        return Found(mean, np.linalg.cholesky(covariance + 1e-4 * np.eye(DIM)))

    def log_ratio(self, z: np.ndarray) -> np.ndarray:
        """Its log density (M,) over that of independent standard Normals."""
        white = np.linalg.solve(self.root, (z - self.mean).T)
        return 0.5 * (np.sum(z**2, 1) - np.sum(white**2, 0)) - np.sum(np.log(np.diag(self.root)))


def exact(y: np.ndarray, num: int, rng: np.random.Generator, draws: int, rounds: int = 4) -> Rest:
    """Of y (STEPS,) after its first `num`. What curves are linear in is drawn from its posterior under a Normal prior wide
    enough for the bounds; some of all else from its prior, the rest where rounds of fewer draws found it."""
    found = Found(np.zeros(DIM), np.eye(DIM))
    for _ in range(rounds):
        z, _, _, log_w = weighed(y, num, found, draws // rounds, rng)
        found = Found.of(z, log_w)
    _, noise, curve, log_w = weighed(y, num, found, draws, rng)
    near = np.flatnonzero(log_w > log_w.max() - 25.0)
    w, noise, curve = np.exp(log_w[near] - log_w.max()), noise[near, None], curve[near, num:]
    p = np.exp(normal(y[num:], curve, noise))
    halves = [w[near % 2 == i] @ p[near % 2 == i] / w[near % 2 == i].sum() for i in (0, 1)]
    return Rest(np.log(w @ p / w.sum()), np.log(halves), smooth(log_w)[1], w.sum() ** 2 / (w @ w))


def weighed(y: np.ndarray, num: int, found: Found, many: int, rng: np.random.Generator):
    """Draws z (M, DIM), noise (M,) and curve (M, STEPS) given the first `num` of y, with log weights (M,): minus infinity for
    curves that are refused."""
    z, mine = rng.normal(size=(many, DIM)), rng.random(many) > PRIOR
    z[mine] = found.mean + z[mine] @ found.root.T
    log_noise, level, columns = shapes(z)
    low, high = np.array([SPAN[name] for name in LINEAR]).T
    middle, precision = 0.5 * (low + high), 12.0 / (WIDE * (high - low) ** 2)
    seen, left = columns[:, :num] / np.exp(log_noise)[:, None, None], (y[:num] - level) / np.exp(log_noise)[:, None]
    matrix = np.einsum("mti,mtj->mij", seen, seen) + np.diag(precision)
    vector = np.einsum("mti,mt->mi", seen, left) + precision * middle
    root = np.linalg.cholesky(matrix)
    half = np.linalg.solve(root, vector[..., None])[..., 0]
    linear = np.linalg.solve(np.swapaxes(root, -1, -2), (half + rng.normal(size=half.shape))[..., None])[..., 0]
    curve = level + np.einsum("mti,mi->mt", columns, linear)
    allowed = np.all((linear >= low) & (linear <= high), -1) & (curve[:, -1] > curve[:, 0])
    allowed &= np.all((curve >= 0.0) & (curve <= 1.0), -1)
    evidence = 0.5 * (np.sum(half**2, -1) - np.sum(left**2, -1)) - np.sum(np.log(np.einsum("mii->mi", root)), -1)
    evidence = evidence - num * log_noise + 0.5 * np.sum(precision * (linear - middle) ** 2, -1)
    evidence -= np.logaddexp(np.log(PRIOR), np.log(1.0 - PRIOR) + found.log_ratio(z))
    return z, np.exp(log_noise), curve, np.where(allowed, evidence, -np.inf)


def shapes(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of standard Normals z (M, DIM): log noise (M,), and a level (M, 1) and columns (M, STEPS, 4) of what curves are linear
    in: curve = level + columns @ (a1, a2, a3, b3)."""
    t = np.arange(1.0, STEPS + 1)
    log_noise = NOISE[0] + NOISE[1] * z[:, 0]
    alpha, k, delta = (np.exp(mean + deviation * z[:, [i]]) for i, (mean, deviation) in enumerate(POWERS.values(), 1))
    w1, w2, w3, c1, c2 = np.moveaxis(ndtr(z[:, 4:, None]), 1, 0)
    gone = np.exp(-k * t**delta)
    columns = np.stack([-w1 * t**-alpha, -w2 / np.log(t + 1.0), w3 * (1.0 - gone), w3 * gone], -1)
    return log_noise, w1 * SPAN["c1"][1] * c1 + w2 * SPAN["c2"][1] * c2, columns


def normal(value: Any, mean: Any, deviation: Any) -> Any:
    """The log density of a Normal."""
    return -0.5 * ((value - mean) / deviation) ** 2 - np.log(deviation) - 0.5 * np.log(2.0 * np.pi)
