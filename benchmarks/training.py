"""Steps of training a network, ours and written by hand, in turn in one process.

    python -m benchmarks.training [--rounds 15] [--steps 600] [--write]

Two networks of width 64 and depth 2 learn from a program each, 64 cases a step: a prior-fitted network from curves of a
Gaussian process (16 points, kernel of a drawn length scale), and a neural posterior from a line with 16 points. Measured,
medians over rounds in which all take their turn:

- `by hand`: the same network and optimiser, cases drawn by `jax.random` as one would write them, `jax.jit` of a `lax.scan` of
  steps. `ours`: what `inf.maximize` runs, its loop on the host included, compiled with its own options.
- the parts of a step, each in a `lax.scan` of its own: drawing cases, the score of given ones, its gradient (the score
  included), the optimiser.

Processor seconds, of all threads: other work on the machine counts less in them than in seconds on the wall.

And AdamW beside Muon: the prior-fitted network after so many steps from the same weights on the same cases, each optimiser
annealed to zero; the mean log score of 4096 cases that neither saw, and the difference to AdamW, paired, with its error.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import inference as inf
import ppl
import surrogates as sur
from benchmarks.report import machine, table, write
from inference.fixed import Fixed
from inference.optimise.ascent import LENGTH, ascent
from inference.run import run
from inference.vi.free import Free
from ppl import dist, sample
from surrogates.neural_posterior import log_score as posterior_score
from surrogates.pfn import log_score as points_score
from surrogates.training import annealed, muon, trained

KEY, BATCH, STEPS, POINTS = jax.random.key(0), 64, 30, 16
SIZES: dict[str, Any] = {"key": KEY, "steps": 1, "batch": 2, "width": 64, "depth": 2, "progress": False}


def covariance(x, scale):
    return jnp.exp(-0.5 * ((x[:, None] - x) / scale) ** 2) + 0.01 * jnp.eye(POINTS)


@ppl.model
def curves():
    x = sample("x", dist.Uniform(0.0, 1.0).expand([POINTS]))
    scale = sample("scale", dist.LogNormal(-1.0, 0.5))
    sample("y", dist.MultivariateNormal(covariance_matrix=covariance(x, scale)))


@ppl.model
def line():
    slope, level = sample("slope", dist.Normal(0.0, 1.0)), sample("level", dist.Normal(0.0, 1.0))
    noise = sample("noise", dist.HalfNormal(1.0))

    def point(_):
        x = sample("x", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(level + slope * x, noise))

    ppl.vmap(point)(jnp.arange(POINTS))


def curve_by_hand(key):
    of_x, of_scale, of_y, of_num = jax.random.split(key, 4)
    x, scale = jax.random.uniform(of_x, (POINTS,)), jnp.exp(-1.0 + 0.5 * jax.random.normal(of_scale))
    y = jnp.linalg.cholesky(covariance(x, scale)) @ jax.random.normal(of_y, (POINTS,))
    known = jnp.arange(POINTS) < jax.random.randint(of_num, (), 0, POINTS)
    return {"data": {"x": x, "y": y}, "known": known, "answers": y}


def line_by_hand(key):
    of_latent, of_noise, of_x, of_y, of_num = jax.random.split(key, 5)
    latent, noise = jax.random.normal(of_latent, (2,)), jnp.abs(jax.random.normal(of_noise))
    x = jax.random.normal(of_x, (POINTS,))
    y = latent[1] + latent[0] * x + noise * jax.random.normal(of_y, (POINTS,))
    known = jnp.arange(POINTS) < jax.random.randint(of_num, (), 0, POINTS + 1)
    return {"data": {"x": x, "y": y}, "known": known, "position": jnp.append(latent, jnp.log(noise))}


def curve_score(net, case):
    return jnp.mean(net.rows(case["data"], case["known"]).log_prob(case["answers"]), where=~case["known"])


def line_score(net, case):
    return net.law(case["data"], case["known"]).log_prob(case["position"])


class Task(NamedTuple):
    """What is trained: by our objective, and by hand."""

    objective: inf.vi.Expectation
    cases: Any
    net: Any
    draw: Callable
    score: Callable


def tasks() -> dict[str, Task]:
    """By name."""
    points = sur.pfn(curves(), context=("x", "y"), query="y", **SIZES)
    data = {"x": jnp.zeros(POINTS), "y": jnp.zeros(POINTS)}
    posterior = sur.neural_posterior(line() | data, **SIZES)
    return {
        "prior-fitted network": Task(points_score, points.points, points.net, curve_by_hand, curve_score),
        "neural posterior": Task(posterior_score, posterior.cases, posterior.net, line_by_hand, line_score),
    }


def learned(net):
    """The numbers of a network that are learned, and the rest."""
    fixed = jax.tree.map(lambda x: not isinstance(x, Fixed) and eqx.is_inexact_array(x), net, is_leaf=_is_fixed)
    return eqx.partition(net, fixed, is_leaf=_is_fixed)


def _is_fixed(x) -> bool:
    return isinstance(x, Fixed)


def by_hand(task: Task) -> Callable[[], Any]:
    """`STEPS` steps as one would write them."""
    optimizer = annealed(1000)
    numbers, rest = learned(task.net)

    def cost(numbers, key):
        net, keys = eqx.combine(numbers, rest, is_leaf=_is_fixed), jax.random.split(key, BATCH)
        return -jnp.mean(jax.vmap(lambda k: task.score(net, task.draw(k)))(keys))

    def step(carry, key):
        numbers, state = carry
        value, slope = jax.value_and_grad(cost)(numbers, key)
        updates, state = optimizer.update(slope, state, numbers)
        return (optax.apply_updates(numbers, updates), state), value

    program = jax.jit(lambda carry, key: jax.lax.scan(step, carry, jax.random.split(key, STEPS)))
    return lambda: jax.block_until_ready(program((numbers, optimizer.init(numbers)), KEY))


def ours(task: Task) -> Callable[[], Any]:
    """The same steps of `inf.maximize`, its loop included."""
    given = {"cases": task.cases, "net": task.net}
    advance, begin = ascent(task.objective, Free("maximize", given, "net"), given, KEY, BATCH, annealed(1000))
    advance.wait()
    return lambda: run(lambda lane, state, start, num: advance(state, start, num), [begin], STEPS, most=LENGTH)


def parts(task: Task) -> dict[str, Callable[[], Any]]:
    """A step in parts."""
    numbers, rest = learned(task.net)
    keys = jax.random.split(KEY, (STEPS, BATCH))

    def draw(keys):
        return jax.vmap(lambda k: task.cases.simulate(k).choices)(keys)

    def score(numbers, cases):
        net = eqx.combine(numbers, rest, is_leaf=_is_fixed)
        return jnp.mean(jax.vmap(lambda case: task.score(net, case))(cases))

    def summed(fn):
        def some(xs, *fixed):
            first = jax.tree.map(jnp.zeros_like, jax.eval_shape(fn, jax.tree.map(lambda x: x[0], xs), *fixed))
            return jax.lax.scan(lambda s, x: (jax.tree.map(jnp.add, s, fn(x, *fixed)), None), first, xs)[0]

        return some

    def total(keys):
        return jax.tree.map(lambda x: jnp.sum(x.astype(float)), draw(keys))

    def update(slope, numbers, state):
        def one(carry, _):
            updates, state = optimizer.update(slope, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(one, (numbers, state), None, STEPS)[0]

    optimizer, cases = annealed(1000), jax.jit(jax.vmap(draw))(keys)
    state, slope = optimizer.init(numbers), jax.tree.map(lambda x: 0.1 * jnp.ones_like(x), numbers)
    made = {
        "cases": (summed(total), (keys,)),
        "score": (summed(lambda x, n: score(n, x)), (cases, numbers)),
        "gradient": (summed(lambda x, n: jax.grad(score)(n, x)), (cases, numbers)),
        "optimiser": (update, (slope, numbers, state)),
    }
    programs = {name: (jax.jit(fn), args) for name, (fn, args) in made.items()}
    return {name: lambda p=p, a=a: jax.block_until_ready(p(*a)) for name, (p, a) in programs.items()}


def spent(fn: Callable[[], Any]) -> float:
    """Processor seconds of a step."""
    begun = time.process_time()
    fn()
    return (time.process_time() - begun) / STEPS


def measured(name: str, task: Task, rounds: int) -> list[str]:
    """A row of the first table."""
    timed = {"by hand": by_hand(task), "ours": ours(task)} | parts(task)
    for fn in timed.values():
        fn()
    taken = [{what: spent(fn) for what, fn in (timed.items() if i % 2 else reversed(timed.items()))} for i in range(rounds)]
    middle = {what: 1e3 * float(np.median([row[what] for row in taken])) for what in timed}
    low, ratio, high = np.quantile([row["by hand"] / row["ours"] for row in taken], [0.25, 0.5, 0.75])
    shown = [f"{middle[what]:.2f}" for what in timed]
    return [name, *shown, f"{1e3 * BATCH / middle['ours']:,.0f}", f"{ratio:.2f} ({low:.2f}-{high:.2f})"]


def learning(task: Task, steps: int) -> list[list[str]]:
    """Rows of the second table."""
    optimizers = {"AdamW at 0.001": None, "Muon at 0.001": muon(), "Muon at 0.003": muon(3e-3)}
    cases = jax.jit(jax.vmap(lambda k: task.cases.simulate(k).choices))(jax.random.split(jax.random.key(1), 4096))
    scores = jax.jit(lambda net: jax.lax.map(lambda case: task.score(net, case), cases, batch_size=256))
    rows, first = [], None
    for name, optimizer in optimizers.items():
        begun = time.process_time()
        net, _ = trained(
            task.objective, task.cases, task.net, key=KEY, steps=steps, batch=BATCH, optimizer=optimizer, progress=False
        )
        seconds, score = time.process_time() - begun, np.asarray(scores(net))
        first = score if first is None else first
        error = np.std(score - first) / len(score) ** 0.5
        rows.append([name, f"{score.mean():.4f}", f"{np.mean(score - first):+.4f} ± {error:.4f}", f"{seconds:.0f}"])
        print(" | ".join(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    rows, todo = [], tasks()
    for name, task in todo.items():
        rows.append(measured(name, task, args.rounds))
        print(" | ".join(rows[-1]), flush=True)
    learned_rows = learning(todo["prior-fitted network"], args.steps)
    header = ["network", "by hand, ms", "ours, ms", "cases, ms", "score, ms", "gradient, ms", "optimiser, ms", "ours, cases/s"]
    note = (
        f"`python -m benchmarks.training --rounds {args.rounds} --steps {args.steps}`; float32; a step of {BATCH} cases, "
        "width 64, depth 2; medians of processor time, in brackets the quartiles over rounds. Target: at least 0.9 of "
        f"the speed by hand. {machine(('jax', 'optax', 'equinox', 'numpyro'))}"
    )
    after = f"The prior-fitted network after {args.steps} steps, nats a point on 4096 fresh cases; seconds with compilation."
    if args.write:
        second = table(["optimiser", "log score", "difference to AdamW", "processor seconds"], learned_rows)
        write("training", "Steps of training", note, table([*header, "speed / by hand"], rows), after, second)


if __name__ == "__main__":
    main()
