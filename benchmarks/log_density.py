"""Log density and gradient: the language against hand-written JAX, on six models.

    python -m benchmarks.log_density [--write]

Each round compiles both afresh (caches cleared) and times `value_and_grad`, a thousand evaluations inside one compiled
loop so that dispatch does not count; rounds alternate which goes first. Reported: median ratio ours / by hand and its spread.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.density_models import Pair, pairs
from benchmarks.report import machine, table, write

EVALUATIONS = 1000


def loop(value_and_grad: Callable) -> Callable:
    """A thousand dependent evaluations: each starts where the last gradient points, so none can be left out."""

    def run(u: Array, *data):
        def body(_, carry):
            u, total = carry
            value, grad = value_and_grad(u, *data)
            return u + 1e-12 * grad, total + value

        return jax.lax.fori_loop(0, EVALUATIONS, body, (u, jnp.zeros((), u.dtype)))

    return run


def measure(fn: Callable, args: tuple) -> tuple[float, float]:
    """(seconds to trace and compile, seconds to run: best of a third of a second of runs, and of at least five)."""
    jax.clear_caches()
    start = time.perf_counter()
    compiled = jax.jit(fn).lower(*args).compile()
    built = time.perf_counter() - start
    times = []
    while len(times) < 5 or sum(times) < 1 / 3:
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        times.append(time.perf_counter() - start)
    return built, min(times)


def compare(pair: Pair, rounds: int) -> tuple[list[float], list[float]]:
    """Ratios ours / by hand of compile times and of run times, one a round."""
    ours = (loop(jax.value_and_grad(lambda u, target: target.log_density(u))), (pair.target,))
    theirs = (loop(jax.value_and_grad(pair.by_hand)), pair.data)
    u = jnp.full(pair.target.dim, 0.1)
    a, b = pair.target.log_density(u), pair.by_hand(u, *pair.data)
    assert jnp.allclose(a, b, rtol=1e-9), f"{pair.name}: {a} is not {b}"
    built, ran = [], []
    for i in range(rounds):
        result = {}
        for who in (ours, theirs) if i % 2 else (theirs, ours):
            result[who[0]] = measure(who[0], (u, *who[1]))
        built.append(result[ours[0]][0] / result[theirs[0]][0])
        ran.append(result[ours[0]][1] / result[theirs[0]][1])
    return built, ran


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/log_density.md")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = []
    for pair in pairs():
        built, ran = compare(pair, args.rounds)
        rows.append([pair.name, *(f"{statistics.median(x):.3f} ({min(x):.2f}-{max(x):.2f})" for x in (ran, built))])
        print(*rows[-1], sep=" | ", flush=True)
    if args.write:
        note = f"Ratios ours / by hand, median (range) of {args.rounds} alternating rounds; float64. {machine()}"
        write(
            "log_density",
            "Log density and gradient against hand-written JAX",
            note,
            table(["model (dimension)", "run time", "trace + compile"], rows),
        )


if __name__ == "__main__":
    main()
