"""How long programs of many sites take to trace and compile for variational inference, against NumPyro's SVI.

    python -m benchmarks.vi_compile [--rounds 7] [--write]

1. A Python loop of 50 sites, each with a datum; a mean-field guide. A step of Adam on the ELBO: ours as `inf.maximize` has it,
   with the guide of `inf.guide_for`; NumPyro's `SVI.update` with `AutoNormal`. And the gradient of the log density alone.
2. Twelve Bernoulli sites, enumerated jointly (4096 values): an estimate of the ELBO and its gradient. NumPyro has no peer for
   it whose guide is enumerated, so the target is in seconds: less than 1.

Seconds from nothing to a program that can be run, tracing included, in turn in one process; ours with the compiler's options
that `inf.maximize` and `inf.mcmc` give it. Each round makes new functions, so that nothing is remembered.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import log_density

import inference as inf
import ppl
from benchmarks.report import machine, table, write
from inference.compiled import OPTIONS
from inference.vi import Enumerate, elbo
from ppl import dist, sample

SITES, COINS = 50, 12
Y = jnp.asarray(np.random.default_rng(0).normal(size=SITES))


def ours():
    @ppl.model
    def walk(y):
        x = 0.0
        for i in range(SITES):
            x = sample(f"x{i}", dist.Normal(0.9 * x, 1.0))
            sample(f"y{i}", dist.Normal(x, 0.5), obs=y[i])

    return walk


def theirs():
    def walk(y):
        x = 0.0
        for i in range(SITES):
            x = numpyro.sample(f"x{i}", numpyro.distributions.Normal(0.9 * x, 1.0))
            numpyro.sample(f"y{i}", numpyro.distributions.Normal(x, 0.5), obs=y[i])

    return walk


def our_step() -> Callable[[], object]:
    program, optimizer = ours()(Y), optax.adam(1e-2)
    guide = inf.guide_for(program)

    def step(key, guide, state):
        slope = jax.grad(lambda guide: -elbo.estimate(key, program, guide))(guide)
        updates, state = optimizer.update(slope, state)
        return optax.apply_updates(guide, updates), state

    return lambda: jax.jit(step, compiler_options=OPTIONS).lower(jax.random.key(0), guide, optimizer.init(guide)).compile()


def their_step() -> Callable[[], object]:
    walk = theirs()
    svi = SVI(walk, AutoNormal(walk), numpyro.optim.Adam(1e-2), Trace_ELBO())
    state = svi.init(jax.random.key(0), Y)
    return lambda: jax.jit(svi.update).lower(state, Y).compile()


def our_density() -> Callable[[], object]:
    program = ours()(Y)
    choices = {f"x{i}": jnp.zeros(()) for i in range(SITES)}
    return lambda: jax.jit(jax.value_and_grad(program.log_density), compiler_options=OPTIONS).lower(choices).compile()


def their_density() -> Callable[[], object]:
    walk, choices = theirs(), {f"x{i}": jnp.zeros(()) for i in range(SITES)}
    return lambda: jax.jit(jax.value_and_grad(lambda x: log_density(walk, (Y,), {}, x)[0])).lower(choices).compile()


def enumerated() -> Callable[[], object]:
    @ppl.model
    def coins(y):
        found = [sample(f"z{i}", dist.Bernoulli(0.3)) for i in range(COINS)]
        sample("y", dist.Normal(sum(found), 1.0), obs=y)

    @ppl.model
    def guide(logits):
        for i in range(COINS):
            sample(f"z{i}", dist.Bernoulli(logits=logits[i]), strategy=Enumerate())

    def loss(logits, key):
        return -elbo.estimate(key, coins(3.0), guide(logits))

    return lambda: (
        jax.jit(jax.value_and_grad(loss), compiler_options=OPTIONS).lower(jnp.zeros(COINS), jax.random.key(0)).compile()
    )


CASES = {
    "50 sites: a step on the ELBO": (our_step, their_step),
    "50 sites: gradient of the density": (our_density, their_density),
    "12 sites enumerated: ELBO and gradient": (enumerated, None),
}


def seconds(make: Callable[[], Callable[[], object]]) -> float:
    build = make()
    begun = time.perf_counter()
    build()
    return time.perf_counter() - begun


def measure(rounds: int) -> list[list[str]]:
    seconds(our_density), seconds(their_density)  # what a first compilation alone must do
    spent: dict[tuple[str, int], list[float]] = {}
    for i in range(rounds):
        for name, pair in CASES.items():
            for j in (0, 1) if i % 2 else (1, 0):
                if pair[j] is not None:
                    spent.setdefault((name, j), []).append(seconds(pair[j]))
    rows = []
    for name in CASES:
        mine, peers = spent[name, 0], spent.get((name, 1))
        ratios = [a / b for a, b in zip(mine, peers, strict=True)] if peers else None
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else ""
        rows.append([name, f"{statistics.median(mine):.2f}", f"{statistics.median(peers):.2f}" if peers else "", ratio])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    rows = measure(args.rounds)
    print("\n".join(" | ".join(row) for row in rows))
    if args.write:
        note = (
            f"`python -m benchmarks.vi_compile --rounds {args.rounds}`: seconds to trace and compile; medians, in brackets "
            "the range of the ratio over rounds. Targets: at most NumPyro's; less than 1 s. "
            + machine(("jax", "numpyro", "optax"))
        )
        write("vi_compile", "Tracing and compiling variational inference", note, table(["", "ours", "NumPyro", "ratio"], rows))


if __name__ == "__main__":
    main()
