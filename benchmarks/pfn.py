"""Prior-fitted networks for curves, against the exact predictive.

    python -m benchmarks.pfn [--steps 12000] [--only "neural network"]
    python -m benchmarks.pfn --write

A network is trained from the program for so many steps on fresh draws, and then predicts eight new points of data sets after n
others. The gap is the mean of log p_exact(y*) - log q(y*) on the same points, in nats a point: the mean KL from the exact
predictive. Its error is that of the mean over data sets. Programs and their exact predictives: `pfn_tasks.py`. (Mueller et
al., "Transformers can do Bayesian inference", ICLR 2022, arXiv:2112.10510, figure 3.) Rows are kept in
`build/benchmarks/pfn.jsonl` as they are made; `--write` makes `results/pfn.md` of all that are there.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np

import surrogates as sur
from benchmarks.pfn_tasks import TASKS, Task, drawn
from benchmarks.report import machine, table, write

KEPT = Path("build/benchmarks/pfn.jsonl")
SHOWN, ASKED = 20, 8
SIZES = (0, 1, 2, 5, 10, 20)
BATCH, RATE, WIDTH, DEPTH, HEADS = 32, 0.02, 32, 4, 2


def trained(task: Task, steps: int, key: jax.Array):
    """The network, and seconds of processor time, compilation included."""
    begun = time.process_time()
    net = sur.pfn(
        task.program(SHOWN + ASKED), context=("x", "y"), query="y", asked=ASKED, width=WIDTH, depth=DEPTH, heads=HEADS,
        steps=steps, batch=BATCH, optimizer=sur.muon(RATE), key=key, progress=False,
    )  # fmt: skip
    return net, time.process_time() - begun


@partial(jax.jit, static_argnums=3)
def said(net, x, y, num: int):
    """Log densities (S, ASKED) that the network gives the points after the first `num`."""

    def one(x, y):
        return net.given({"x": x[:num], "y": y[:num]}).at({"x": x[num:]}).log_prob(y[num:])

    return jax.vmap(one)(x, y)


def gap(net, task: Task, num: int, key: jax.Array) -> tuple[float, float, float]:
    """Of predictions after `num` points: the gap, its error, and the exact negative log density."""
    sets = drawn(task.program(num + ASKED), task.sets, key)
    known = task.exact(sets["x"], sets["y"], num)
    gaps = (known - np.asarray(said(net, sets["x"], sets["y"], num))).mean(1)
    return float(gaps.mean()), float(gaps.std() / task.sets**0.5), float(-known.mean())


def rows(name: str, steps: int) -> list[list[str]]:
    task = TASKS[name]
    net, spent = trained(task, steps, jax.random.key(0))
    found = [gap(net, task, num, jax.random.key(100 + num)) for num in SIZES]
    return [
        [f"gap, {name}", f"{spent:.0f}", *(f"{mean:.4f} +- {error:.4f}" for mean, error, _ in found)],
        [f"exact, {name}", "", *(f"{value:.3f}" for *_, value in found)],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--only", choices=TASKS)
    parser.add_argument("--write", action="store_true", help="write results/pfn.md")
    asked = parser.parse_args()
    header = ["nats a point", "CPU s", *(f"n = {num}" for num in SIZES)]
    for name in [asked.only] if asked.only else [] if asked.write else TASKS:
        found = rows(name, asked.steps)
        print(table(header, found), flush=True)
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        with KEPT.open("a") as file:
            file.write(json.dumps({"task": name, "steps": asked.steps, "rows": found}) + "\n")
    if asked.write:
        lines = [json.loads(line) for line in KEPT.read_text().splitlines()]
        kept = {line["task"]: line["rows"] for line in lines if line["steps"] == asked.steps}
        what = (
            "A Gaussian process on [0, 1], length scale 0.6; a Bayesian neural network of ten units on [-1, 1], noise sd 0.3. "
            f"Gap: mean of log exact - log network over {TASKS['neural network'].sets} (network) or 1500 data sets of {ASKED} "
            "new points each, after n points. Exact: its mean negative log density; of the network by weighing 100,000 "
            f"draws of the prior, of which a thousand count after ten points, and some hundreds after 20. One network for all "
            f"n, of width {WIDTH} and depth {DEPTH}: {asked.steps} steps of {BATCH} data sets, Muon at {RATE}; CPU seconds "
            "are of both cores together, compilation included."
        )
        tabled = table(header, [row for name in TASKS for row in kept.get(name, [])])
        write("pfn", "Prior-fitted networks against the exact predictive", f"{what} {machine(('jax', 'optax'))}", tabled)


if __name__ == "__main__":
    main()
