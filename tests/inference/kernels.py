"""The registry of kernels, the laws that all of them keep, and how to look whether they do. A new kernel is one line here."""

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import stats

import inference as inf
import ppl
from inference.kernel import CHAINS
from inference.metrics import Dense
from ppl import dist
from tests.inference.targets import COVARIANCE, correlated


def metric(dim: int) -> inf.metrics.Metric:
    """Not diagonal, so that a map of the metric that is forgotten or taken for its transpose shows."""
    return Dense.from_covariance(0.5 + 0.5 * jnp.eye(dim))


def proposal(dim: int):
    """Wider than a standard normal."""
    return dist.Normal(jnp.zeros(dim), 1.4).to_event(1)


def wrong(dim: int, log_density=lambda x: -0.5 * jnp.sum(x**2)) -> ppl.Target:
    """A surrogate that is not the law, but wider."""
    return ppl.Target.from_log_density(lambda c: 0.6 * log_density(c["x"]), {"x": jnp.zeros(dim)})


def stretched(dim: int):
    """A proposal whose scale depends on where it is made, and an involution that changes volumes."""

    @ppl.model
    def stretch(choices):
        ppl.sample("log_factor", dist.Normal(0.0, 0.3 + 0.2 * jax.nn.sigmoid(choices["x"])).to_event(1))

    def apply(choices, auxiliary):
        return {"x": choices["x"] * jnp.exp(auxiliary["log_factor"])}, {"log_factor": -auxiliary["log_factor"]}

    return inf.involutive(stretch, apply)


class Member(NamedTuple):
    """A kernel in two forms: with settings that suit a density about as wide as a standard normal, of `dim` coordinates; and
    as `mcmc` is given it, where it has something to learn."""

    fixed: Callable[[int], inf.Kernel]
    front: Callable[[], inf.Kernel] | None


KERNELS = {
    "ChEES": Member(lambda dim: inf.ChEES(0.8, metric(dim), 2.0), inf.ChEES),
    "MEADS": Member(lambda dim: inf.MEADS(), None),
    "NUTS": Member(lambda dim: inf.NUTS(0.8, metric(dim), max_depth=2), inf.NUTS),
    "RandomWalk": Member(lambda dim: inf.RandomWalk(1.0, metric(dim)), inf.RandomWalk),
    "HMC": Member(lambda dim: inf.HMC(3, 0.8, metric(dim)), inf.HMC),
    "mala": Member(lambda dim: inf.mala(1.0, metric(dim)), inf.mala),
    "Barker": Member(lambda dim: inf.Barker(1.5, metric(dim)), inf.Barker),
    "Slice": Member(lambda dim: inf.Slice(metric(dim), 1.0, max_expansions=3), inf.Slice),
    "MAMS": Member(lambda dim: inf.MAMS(0.6, metric(dim), 1.2), inf.MAMS),
    "LatentSlice": Member(lambda dim: inf.LatentSlice(metric(dim), 3.0), inf.LatentSlice),
    "EllipticalSlice": Member(lambda dim: inf.EllipticalSlice(0.5, Dense.from_covariance(1.0 + jnp.eye(dim))), None),
    "Independence": Member(lambda dim: inf.Independence(proposal(dim)), None),
    "cycle": Member(
        lambda dim: inf.cycle(inf.mala(0.7, metric(dim)), inf.RandomWalk(1.0, metric(dim)), inf.Barker(1.0, metric(dim))),
        lambda: inf.cycle(inf.RandomWalk(), inf.NUTS()),
    ),
    "mixture": Member(
        lambda dim: inf.mixture([inf.HMC(2, 0.8, metric(dim)), inf.RandomWalk(1.0, metric(dim))], [0.4, 0.6]),
        lambda: inf.mixture([inf.Slice(), inf.mala()], [1, 3]),
    ),
    "involutive": Member(stretched, None),
    "tempered": Member(
        lambda dim: inf.tempered(inf.mala(0.8, metric(dim)), 1.0),
        lambda: inf.tempered(inf.NUTS(), 1.0),
    ),
    "parallel_tempering": Member(  # all rungs have the law, so that exact draws of it are exact for all replicas
        lambda dim: inf.parallel_tempering(inf.mala(0.8, metric(dim)), ladder=jnp.ones(3)),
        lambda: inf.parallel_tempering(inf.RandomWalk(), 3, hottest=0.3),
    ),
    "delayed_acceptance": Member(
        lambda dim: inf.delayed_acceptance(inf.RandomWalk(0.8, metric(dim)), wrong(dim), 2),
        lambda: inf.delayed_acceptance(inf.NUTS(), wrong(3, correlated().log_density), 2),
    ),
    "gibbs": Member(lambda dim: inf.gibbs({"x": inf.mala(0.7, metric(dim))}), None),  # several blocks: test_gibbs.py
    "repeat": Member(
        lambda dim: inf.repeat(inf.RandomWalk(1.0, metric(dim)), 2),
        lambda: inf.repeat(inf.RandomWalk(), 3),
    ),
}

if importlib.util.find_spec("blackjax"):
    import blackjax

    KERNELS["from_blackjax"] = Member(
        lambda dim: inf.from_blackjax(lambda log_p: blackjax.hmc(log_p, 0.8, metric(dim).covariance, 3)),
        lambda: inf.from_blackjax(lambda log_p: blackjax.nuts(log_p, 0.8, jnp.asarray(COVARIANCE))),
    )

# The law: a target of four independent blocks, of which exact draws are easy, and which `normals` takes to standard normals.
# A correlated normal; the log of a Gamma(2, 1) variable, skewed; a bent normal; and a uniform on (-4, 4), with a density that
# is not a number below and infinite above.

DIM = 6
FACTOR, CENTRE = np.array([[1.0, 0.0], [-0.4, 0.8]]), np.array([0.5, -1.0])
EDGE = 4.0


def target():
    """The law as a target."""

    def log_density(choices):
        x = choices["x"]
        normal = -0.5 * jnp.sum((jnp.asarray(np.linalg.inv(FACTOR)) @ (x[:2] - jnp.asarray(CENTRE))) ** 2)
        log_gamma = 2.0 * x[2] - jnp.exp(x[2])
        bent = -0.5 * x[3] ** 2 - 0.5 * (x[4] - x[3] ** 2 + 1.0) ** 2
        uniform = jnp.where(x[5] < -EDGE, jnp.nan, jnp.where(x[5] > EDGE, jnp.inf, 0.0))
        return normal + log_gamma + bent + uniform

    return ppl.Target.from_log_density(log_density, {"x": jnp.zeros(DIM)})


def exact(num: int) -> np.ndarray:
    """Draws from the law (num, DIM)."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(num, 4))
    columns = [CENTRE + z[:, :2] @ FACTOR.T, np.log(rng.gamma(2.0, size=num)), z[:, 2], z[:, 3] + z[:, 2] ** 2 - 1.0]
    return np.column_stack([*columns, rng.uniform(-EDGE, EDGE, size=num)])


def normals(x: np.ndarray) -> np.ndarray:
    """Draws from the law as independent standard normals (num, DIM)."""
    log_gamma = stats.norm.ppf(stats.gamma(2.0).cdf(np.exp(x[:, 2])))
    uniform = stats.norm.ppf((x[:, 5] + EDGE) / (2.0 * EDGE))
    normal = (x[:, :2] - CENTRE) @ np.linalg.inv(FACTOR).T
    return np.column_stack([normal, log_gamma, x[:, 3], x[:, 4] - x[:, 3] ** 2 + 1.0, uniform])


def mover(kernel, target, steps: int):
    """A compiled function from starts (num, dim) and a key to the positions after `steps` moves; the share of the moves that
    went anywhere (num,); and their statistics (num, steps). One step more is taken: the first may only evaluate."""

    def chain(position, key):
        def move(state, key):
            new, info = kernel.step(key, state, target)
            return new, (jnp.any(new.position != state.position), info)

        state, rows = lax.scan(move, kernel.init(key, target, position), jax.random.split(key, steps + 1))
        moved, info = jax.tree.map(lambda x: x[1:], rows)
        return state.position, jnp.mean(moved), info

    quickly = {"xla_backend_optimization_level": 0}  # compiled, that is: it takes longer than to run
    side_by_side = jax.vmap(chain, axis_name=CHAINS)
    return jax.jit(lambda starts, key: side_by_side(starts, jax.random.split(key, len(starts))), compiler_options=quickly)


def surprise(positions) -> float:
    """The smallest p-value of the hypothesis that `positions` (num, DIM) are independent draws from the law: marginals by
    Kolmogorov and Smirnov, means and second moments by their normal limits. Zero where the law has no density."""
    with np.errstate(all="ignore"):
        z = normals(np.asarray(positions, np.float64))
    if not np.isfinite(z).all():
        return 0.0
    root = np.sqrt(len(z))
    found = [stats.kstest(column, "norm").pvalue for column in z.T]
    for i, a in enumerate(z.T):
        found += [two_sided(a.mean() * root), two_sided((np.mean(a**2) - 1.0) * root / np.sqrt(2.0))]
        found += [two_sided(np.mean(a * b) * root) for b in z.T[:i]]
    return float(min(found))


def two_sided(sds: float) -> float:
    """The p-value of a deviation of so many standard deviations."""
    return float(2.0 * stats.norm.sf(abs(sds)))
