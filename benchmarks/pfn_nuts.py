"""A prior-fitted network against NUTS: a Gaussian process whose length scale and noise nobody knows.

    python -m benchmarks.pfn_nuts [--steps 12000] [--write]

Both predict eight new points of the same data sets after 20 others. The exact predictive is a mixture over a grid of the two
unknowns; the gap is the mean of log p_exact(y*) - log q(y*), in nats a point. NUTS is ours, a chain for each data set, all
in one program (`jax.vmap`); its prediction averages those of its draws. Its chains begin at a draw of the prior and learn step
size and metric in the warm-up. Longer and longer chains, until NUTS is as near as the network. Seconds, compiled before: of
one data set alone, and of 1000 in one call, for each.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import inference as inf
import ppl
import surrogates as sur
from benchmarks.pfn import ASKED, SHOWN, said, trained
from benchmarks.pfn_tasks import Task, drawn, smooth
from benchmarks.report import machine, table, write
from inference.compiled import OPTIONS
from inference.mcmc.chain import chunk
from ppl import dist, sample

SETS, MANY = 1500, 1000
CHAINS = ((10, 2), (20, 5), (50, 10), (50, 50), (100, 200), (200, 1000))  # warm-up, draws
KEPT = Path("build/benchmarks/pfn_nuts.npz")


@ppl.model
def process(num: int):
    """A Gaussian process on [0, 1] at `num` places; the sd of the noise is about 0.1."""
    x: Any = sample("x", dist.Uniform(0.0, 1.0).expand([num]))
    length, noise = sample("length", dist.LogNormal(-1.2, 0.5)), sample("noise", dist.LogNormal(-2.3, 0.5))
    sample("y", dist.MultivariateNormal(jnp.zeros(num), smooth(x, x, length) + noise**2 * jnp.eye(num)))


def exact(x: np.ndarray, y: np.ndarray, num: int, size: int = 30) -> np.ndarray:
    """(S, m - num): log densities of the points after the first `num`, by a grid of 4.5 sd each way; float64."""
    z = np.linspace(-4.5, 4.5, size)
    lengths, noises = (each.ravel()[:, None, None] for each in np.meshgrid(np.exp(-1.2 + 0.5 * z), np.exp(-2.3 + 0.5 * z)))
    log_prior = np.add.outer(-0.5 * z**2, -0.5 * z**2).ravel()
    found = []
    for x_all, y_all in zip(np.asarray(x, np.float64), np.asarray(y, np.float64), strict=True):
        (known, new), (seen, asked) = np.split(x_all, [num]), np.split(y_all, [num])
        root = np.linalg.cholesky(smooth(known, known, lengths) + noises**2 * np.eye(num))
        across = smooth(known, new, lengths)
        both = np.concatenate([np.broadcast_to(seen[:, None], (*across.shape[:2], 1)), across], -1)
        white = np.linalg.solve(root, both)
        first, rest = white[..., :1], white[..., 1:]
        log_evidence = -0.5 * np.sum(first**2, (1, 2)) - np.sum(np.log(np.diagonal(root, axis1=1, axis2=2)), 1)
        log_weights = log_evidence + log_prior
        mean, variance = np.sum(first * rest, 1), 1.0 + noises[:, 0] ** 2 - np.sum(rest**2, 1)
        each = -0.5 * ((asked - mean) ** 2 / variance + np.log(2.0 * np.pi * variance))
        found.append(np.logaddexp.reduce(log_weights[:, None] + each) - np.logaddexp.reduce(log_weights))
    return np.stack(found)


def predicted(x: Any, y: Any, new: Any, length: Any, noise: Any) -> tuple[Any, Any]:
    """Means and variances (m,) at `new`, given the unknowns."""
    root = jnp.linalg.cholesky(smooth(x, x, length) + noise**2 * jnp.eye(len(x)))
    both = jnp.concatenate([y[:, None], smooth(x, new, length)], 1)
    white = jax.scipy.linalg.solve_triangular(root, both, lower=True)
    return white[:, 0] @ white[:, 1:], 1.0 + noise**2 - jnp.sum(white[:, 1:] ** 2, 0)


def by_nuts(warmup: int, draws: int) -> Callable:
    """(S, ASKED) of a chain for each data set."""
    kernel = inf.adapted(inf.NUTS()).with_warmup(warmup)

    def one(x, y, key):
        target = ppl.as_target(process(SHOWN) | {"x": x[:SHOWN], "y": y[:SHOWN]})
        key_start, key_init, key_chain = jax.random.split(key, 3)
        state = kernel.init(key_init, target, target.draw(key_start))
        walk = partial(chunk, kernel, target, key=key_chain, chain=0)
        state, _ = walk(state=state, start=jnp.int32(0), num=jnp.int32(warmup), length=1)
        _, (positions, _) = walk(state=state, start=jnp.int32(warmup), num=jnp.int32(draws), length=draws)
        found = jax.vmap(target.constrain)(positions)
        mean, variance = jax.vmap(partial(predicted, x[:SHOWN], y[:SHOWN], x[SHOWN:]))(found["length"], found["noise"])
        return jax.nn.logsumexp(dist.Normal(mean, jnp.sqrt(variance)).log_prob(y[SHOWN:]), axis=0) - jnp.log(draws)

    return jax.jit(jax.vmap(one), compiler_options=OPTIONS)


def timed(method: Callable, x: np.ndarray, y: np.ndarray, rounds: int) -> float:
    """Milliseconds a data set, after compilation."""
    keys, times = jax.random.split(jax.random.key(5), len(x)), []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        jax.block_until_ready(method(x, y, keys))
        times.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(times[1:]) / len(x)


def row(name: str, method: Callable, sets: dict[str, np.ndarray], known: np.ndarray) -> tuple[str, float, float, float, float]:
    """Name, gap, its error, and milliseconds a data set, alone and with others."""
    x, y = sets["x"], sets["y"]
    gaps = (known - np.asarray(method(x, y, jax.random.split(jax.random.key(3), len(x))))).mean(1)
    alone, together = timed(method, x[:1], y[:1], 20), timed(method, x[:MANY], y[:MANY], 3)
    print(name, gaps.mean(), gaps.std() / len(x) ** 0.5, alone, together, flush=True)
    return name, float(gaps.mean()), float(gaps.std() / len(x) ** 0.5), alone, together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--write", action="store_true", help="write results/pfn_nuts.md")
    asked = parser.parse_args()
    program = process(SHOWN + ASKED)
    if KEPT.exists():
        net = sur.load(KEPT, program)
    else:
        net, _ = trained(Task(process, exact, SETS), asked.steps, jax.random.key(0))
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        sur.save(net, KEPT)
    sets = drawn(program, SETS, jax.random.key(1))
    known = exact(sets["x"], sets["y"], SHOWN)
    rows = [row("network", lambda x, y, _: said(net, x, y, SHOWN), sets, known)]
    for warmup, draws in CHAINS:
        rows.append(row(f"NUTS, {warmup} and {draws}", by_nuts(warmup, draws), sets, known))
        if rows[-1][1] <= rows[0][1]:
            break
    _, _, _, alone, together = rows[0]
    cells = [
        [name, f"{gap:.4f} +- {error:.4f}", f"{one:.3g}", f"{one / alone:.0f}", f"{many:.3g}", f"{many / together:.0f}"]
        for name, gap, error, one, many in rows
    ]
    header = ["", "gap, nats a point", "one data set, ms", "over the network's", f"one of {MANY}, ms", "over the network's"]
    tabled = table(header, cells)
    if asked.write:
        what = (
            f"Gaussian process with unknown length scale and noise: {ASKED} new points of {SETS} data sets, after {SHOWN}. "
            f"Gap to the exact predictive (mean negative log density {-known.mean():.3f}). NUTS: draws of warm-up, and kept. "
            f"The network, width 32 and depth 4, learned in {asked.steps} steps of 32 data sets. "
            "float32."
        )
        write("pfn_nuts", "A prior-fitted network against NUTS", f"{what} {machine(('jax', 'optax'))}", tabled)
    print(tabled)


if __name__ == "__main__":
    main()
