"""Sequential Monte Carlo against hand-written JAX, `particles` and BlackJAX.

    python -m benchmarks.smc [--rounds 7] [--particles /path/to/python] [--write] [--long]

1. A bootstrap filter, 100,000 particles, 50 steps of a linear-Gaussian model, systematic resampling at every step: ours, the
   same by hand in JAX (`jnp.searchsorted`), and `particles` (of another Python, for it needs NumPy below 2).
2. Adaptive tempering, linear regression, 8 dimensions, 100 data, 1000 particles, ESS 0.5. Random-walk moves: ours, with ten
   moves a stage, by default (until particles have forgotten where they were), and waste-free; against BlackJAX with ten, and
   with sixty, its best of 10, 30 and 60; its proposals are given the posterior's standard deviations. Moves by gradients
   (MALA): ours by default; BlackJAX with ten of step .02, its best of 3, 10 and 30 moves and steps .003, .005, .01 and .02.
   Seconds at equal error: seconds x mean squared error.
3. Indices of systematic resampling, a million weights, against `jnp.searchsorted` of cumulated weights.
4. With `--long`: a series of 100,000 steps, 10,000 particles, whole smoothing paths from a tree of ancestors: memory.

In one process, in turn; medians over rounds (and the range). The first call compiles; ours as `inf.smc` does it.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import time
from collections.abc import Callable

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import inference as inf
import ppl
from benchmarks.report import machine, table, write
from inference.compiled import OPTIONS, compiled
from inference.smc.loop import begin, finish
from ppl import dist, sample

N, T = 100_000, 50
SEEDS = 400

PARTICLES = """
import json, sys, time
import numpy as np, particles
from particles import distributions as d, state_space_models as ssm
class Walk(ssm.StateSpaceModel):
    def PX0(self): return d.Normal()
    def PX(self, t, xp): return d.Normal(loc=0.9 * xp)
    def PY(self, t, xp, x): return d.Normal(loc=x, scale=0.7)
y, rounds = json.loads(sys.stdin.read())
for i in range(rounds + 1):
    run = particles.SMC(fk=ssm.Bootstrap(ssm=Walk(), data=np.array(y)), N=100_000, ESSrmin=1.0, resampling="systematic")
    begun = time.perf_counter()
    run.run()
    print(time.perf_counter() - begun, run.logLt)
"""


@ppl.model
def walk(length):
    def step(z, _):
        z = sample("z", dist.Normal(0.9 * z, 1.0))
        sample("y", dist.Normal(z, 0.7))
        return z, None

    ppl.scan(step, 0.0, length=length)


@ppl.model
def regression(x):
    b = sample("b", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    sample("y", dist.Normal(x @ b, 1.0).to_event(1))


def series() -> list[float]:
    rng, z, out = np.random.default_rng(0), 0.0, []
    for _ in range(T):
        z = 0.9 * z + rng.normal()
        out.append(float(z + 0.7 * rng.normal()))
    return out


def timed(call: Callable, rounds: int) -> tuple[float, list[float]]:
    """Seconds of the first call, and of each of the later ones."""
    times = []
    for i in range(rounds + 1):
        begun = time.perf_counter()
        jax.block_until_ready(call(jax.random.key(i)))
        times.append(time.perf_counter() - begun)
    return times[0], times[1:]


def in_turn(calls: dict[str, Callable], rounds: int) -> dict[str, tuple[float, list[float]]]:
    """As `timed`, for several, in turn."""
    firsts = {name: timed(call, 0)[0] for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds):
        for name, call in calls.items():
            begun = time.perf_counter()
            jax.block_until_ready(call(jax.random.key(i + 1)))
            times[name].append(time.perf_counter() - begun)
    return {name: (firsts[name], times[name]) for name in calls}


def finished(method, program, size: int) -> Callable:
    """The log evidence of a whole run, compiled when first called, as a function of a key."""
    path = method.way.of(program)

    def run(path, key):
        return finish(method.stage, path, key, begin(method.stage, path, key, size)).population.log_evidence

    return lambda key: compiled(run, ("benchmark", method, size), path, key)(path, key)


def by_hand(y) -> Callable:
    def log_weights(y, z):
        return -0.5 * ((y - z) / 0.7) ** 2 - jnp.log(0.7) - 0.5 * jnp.log(2 * jnp.pi)

    @jax.jit
    def run(y, key):
        def step(carry, now):
            z, log_w, log_z = carry
            y, t = now
            key_choose, key_draw = jax.random.split(jax.random.fold_in(key, t))
            cumulated = jnp.cumsum(jax.nn.softmax(log_w))
            z = z[jnp.searchsorted(cumulated, (jnp.arange(N) + jax.random.uniform(key_choose)) / N)]
            z = 0.9 * z + jax.random.normal(key_draw, (N,))
            log_w = log_weights(y, z)
            return (z, log_w, log_z + jax.nn.logsumexp(log_w) - jnp.log(N)), None

        z = jax.random.normal(key, (N,))
        log_w = log_weights(y[0], z)
        start = (z, log_w, jax.nn.logsumexp(log_w) - jnp.log(N))
        return lax.scan(step, start, (y[1:], jnp.arange(1, T)))[0][2]

    return lambda key: run(y, key)


def filters(rounds: int, python: str | None) -> list[tuple]:
    y = series()
    program = walk(T) | {"y": jnp.array(y)}
    calls = {
        "Evidentia": finished(inf.particle_filter(resample=inf.Systematic()), program, N),
        "JAX by hand, searchsorted": by_hand(jnp.array(y)),
    }
    found = in_turn(calls, rounds)
    if python:
        lines = subprocess.run(
            [python, "-c", PARTICLES], input=json.dumps([y, rounds]), capture_output=True, text=True, check=True
        ).stdout.split("\n")
        times = [float(line.split()[0]) for line in lines if line]
        found["particles"] = times[0], times[1:]
    ours = statistics.median(found["Evidentia"][1])
    return [
        (
            name,
            f"{N * T / statistics.median(times):.2e}",
            f"{statistics.median(times) / ours:.2f} ({min(times) / ours:.2f}-{max(times) / ours:.2f})",
            f"{first - statistics.median(times):.1f}",
        )
        for name, (first, times) in found.items()
    ]


def blackjax_walk(scales) -> tuple[Callable, Callable, dict]:
    """A kernel for BlackJAX: step, init, parameters."""
    kernel = blackjax.mcmc.random_walk.build_additive_step()
    propose = blackjax.mcmc.random_walk.normal(jnp.asarray(2.38 / 8**0.5 * scales))

    def step(key, state, log_density):
        return kernel(key, state, log_density, propose)

    return step, blackjax.mcmc.random_walk.init, {}


def blackjax_mala(step_size: float) -> tuple[Callable, Callable, dict]:
    return blackjax.mcmc.mala.build_kernel(), blackjax.mcmc.mala.init, {"step_size": jnp.array([step_size])}


def blackjax_tempering(x, y, kernel, moves: int) -> Callable:
    step, init, parameters = kernel

    def log_prior(b):
        return jnp.sum(-0.5 * b**2) - 4 * jnp.log(2 * jnp.pi)

    def log_likelihood(b, x=x, y=y):
        return jnp.sum(-0.5 * (y - x @ b) ** 2) - 0.5 * len(y) * jnp.log(2 * jnp.pi)

    method = blackjax.adaptive_tempered_smc(
        log_prior, log_likelihood, step, init, parameters, blackjax.smc.resampling.systematic, 0.5, num_mcmc_steps=moves
    )

    @jax.jit
    def run(key):
        key_start, key = jax.random.split(key)
        state = method.init(jax.random.normal(key_start, (1000, 8)))

        def body(carry):
            i, state, log_z = carry
            state, info = method.step(jax.random.fold_in(key, i), state)
            return i + 1, state, log_z + info.log_likelihood_increment

        return lax.while_loop(lambda carry: carry[1].tempering_param < 1, body, (0, state, jnp.zeros(())))[2]

    return run


def tempered(rounds: int) -> list[tuple]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 8))
    y = x @ rng.normal(size=8) + rng.normal(size=100)
    scales = np.sqrt(np.linalg.inv(np.eye(8) + x.T @ x).diagonal())
    x, y = jnp.asarray(x), jnp.asarray(y)
    exact = float(dist.MultivariateNormal(jnp.zeros(100), jnp.eye(100) + x @ x.T).log_prob(y))
    calls = {
        "Evidentia, default": finished(inf.tempering(), regression(x) | {"y": y}, 1000),
        "Evidentia, 10 moves": finished(inf.tempering(moves=10), regression(x) | {"y": y}, 1000),
        "Evidentia, waste-free, 400 chains of 50": finished(inf.waste_free(), regression(x) | {"y": y}, 20_000),
        "Evidentia, MALA": finished(inf.tempering(inf.mala()), regression(x) | {"y": y}, 1000),
        "BlackJAX, 10 moves": blackjax_tempering(x, y, blackjax_walk(scales), 10),
        "BlackJAX, 60 moves": blackjax_tempering(x, y, blackjax_walk(scales), 60),
        "BlackJAX, MALA, 10 moves": blackjax_tempering(x, y, blackjax_mala(0.02), 10),
    }
    found = in_turn(calls, rounds)
    rows, costs = [], {}
    for name, (first, times) in found.items():
        errors = np.array([float(calls[name](jax.random.key(100 + seed))) - exact for seed in range(SEEDS)])
        middle = statistics.median(times)
        costs[name] = middle * float(np.mean(errors**2))
        rows.append(
            (
                name,
                f"{1000 * middle:.1f} ({1000 * min(times):.1f}-{1000 * max(times):.1f})",
                f"{errors.mean():+.3f}",
                f"{errors.std():.3f}",
                f"{costs[name] / costs['Evidentia, default']:.2f}",
                f"{first - middle:.1f}",
            )
        )
    return rows


def resampling(rounds: int) -> list[tuple]:
    size = 1_000_000
    log_w = jax.random.normal(jax.random.key(0), (size,))

    def plain(log_w, key):
        points = (jnp.arange(size) + jax.random.uniform(key)) / size
        return jnp.searchsorted(jnp.cumsum(jax.nn.softmax(log_w)), points)

    def ours(log_w, key):
        return inf.Systematic().ancestors(key, log_w, size)

    ways = {
        "Evidentia": jax.jit(ours, compiler_options=OPTIONS),
        "searchsorted": jax.jit(plain),
        "searchsorted, with our compiler options": jax.jit(plain, compiler_options=OPTIONS),
        "Evidentia, with JAX's own compiler options": jax.jit(ours),
    }
    found = in_turn({name: lambda key, way=way: way(log_w, key) for name, way in ways.items()}, rounds)
    base = statistics.median(found["Evidentia"][1])
    rows = []
    for name, (_, times) in found.items():
        milliseconds, ratios = 1000 * statistics.median(times), [t / base for t in times]
        rows.append((name, f"{milliseconds:.1f}", f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"))
    return rows


def long_series(steps: int = 100_000, particles: int = 10_000) -> tuple:
    """Seconds, the most memory that the process has held, how far log evidence is off, and the error that it states."""
    y = np.random.default_rng(0).normal(size=steps).astype(np.float32)
    begun, before = time.perf_counter(), memory()
    program, tree = walk(steps) | {"y": jnp.asarray(y)}, inf.steps.AncestorTree()
    posterior = inf.smc(
        program, inf.particle_filter(), key=jax.random.key(0), particles=particles, history=tree, progress=False
    )
    seconds = time.perf_counter() - begun
    shape, off = "x".join(map(str, posterior["z"].shape[1:])), float(posterior.log_evidence) - exact(y)
    return f"{seconds:.0f}", f"{before:.2f}", f"{memory():.2f}", shape, f"{off:+.2f}", f"{posterior.log_evidence_error:.2f}"


def exact(y: np.ndarray) -> float:
    """Log evidence of `walk`, by Kalman's filter. Single precision would not keep the sum of 100,000 terms."""
    mean, variance, total = 0.0, 1.0, 0.0
    for i, value in enumerate(y.astype(float)):
        mean, variance = (mean, variance) if i == 0 else (0.9 * mean, 0.81 * variance + 1.0)
        spread = variance + 0.49
        total -= 0.5 * (math.log(2 * math.pi * spread) + (value - mean) ** 2 / spread)
        mean, variance = mean + variance / spread * (value - mean), variance * 0.49 / spread
    return total


def memory() -> float:
    """The most that this process has held, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--particles", default=None, help="a Python that has `particles`")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/smc.md")
    parser.add_argument("--long", action="store_true", help="the long series alone; writes benchmarks/results/smc_long.md")
    args = parser.parse_args()
    if args.long:
        rows = table(("seconds", "GB before", "GB at most", "paths", "log evidence off", "its error"), [long_series()])
        print(rows)
        title = "A particle filter of 100,000 steps with 10,000 particles, and its paths"
        note = "`history=AncestorTree()`, float32. The log of an unbiased estimate of error s is some s^2/2 low. "
        return write("smc_long", title, f"{note}{machine(('jax',))}", rows)
    parts = [
        "Bootstrap filter, 100,000 particles, 50 steps, systematic resampling at every step:",
        table(("", "particle-steps/s", "seconds over ours", "compile, s"), filters(args.rounds, args.particles)),
        "Adaptive tempering, linear regression in 8 dimensions, 1000 particles, random-walk moves where not said otherwise. "
        f"Errors of log evidence over {SEEDS} seeds; cost: seconds x mean squared error, over ours:",
        table(("", "milliseconds", "mean error", "sd", "cost over ours", "compile, s"), tempered(args.rounds)),
        "Ancestors of a million particles, systematic:",
        table(("", "milliseconds", "over ours"), resampling(args.rounds)),
    ]
    print("\n\n".join(parts))
    if args.write:
        note = f"Medians (range) of {args.rounds} rounds in turn, in one process; float32."
        write("smc", "Sequential Monte Carlo against its peers", f"{note} {machine(('jax', 'blackjax'))}", *parts)


if __name__ == "__main__":
    main()
