"""Neural posteriors from 10,000 simulations on five tasks of sbibm, as they are and corrected, against exact posteriors.

    python -m benchmarks.npe [--tasks slcp ...] [--observations 5] [--draws 4000]
    python -m benchmarks.npe --write

How well a classifier tells draws from exact ones (C2ST; 0.5 is perfect) is the mean over observations. Tasks, and how their
exact posteriors are drawn: `npe_tasks.py`. `published` is the mean of neural posterior estimation at 10,000 simulations over
sbibm's ten observations (Lueckmann et al., AISTATS 2021, the benchmark's table of results), by 10,000 draws and another
classifier; ours (`c2st` with 6000 steps and little decay) sees more where both were tried. Rows are kept in
`build/benchmarks/npe.jsonl` as they are made; `--write` makes `results/npe.md` of all that are there.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import optax

import surrogates as sur
from benchmarks.npe_tasks import TASKS, Task
from benchmarks.report import machine, table, write
from surrogates.c2st import c2st

KEPT = Path("build/benchmarks/npe.jsonl")
SIMULATIONS, ROUND, ROUNDS, BATCH, RATE = 10_000, 1500, 4, 32, 3e-3
WIDTH, DEPTH = 32, 2
RUNGS = (sur.ByImportance(200_000, ess=12_000.0), sur.ByImportance(4_000_000, ess=4000.0), sur.ByTempering(4000), sur.ByMCMC())


def network(task: Task, x: np.ndarray, key: jax.Array):
    """Trained on `SIMULATIONS` draws of the program, and no more. Where data are rows, all of them are always shown."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(RATE, weight_decay=1e-4))
    return sur.neural_posterior(
        task.program | {"x": x}, simulations=SIMULATIONS, steps=ROUND, most=ROUNDS, batch=BATCH, optimizer=optimizer,
        width=WIDTH, depth=DEPTH, least=task.rows, key=key, progress=False,
    )  # fmt: skip


def corrected(program, q, num: int, key: jax.Array) -> tuple[np.ndarray, str]:
    """`num` of the draws of `sur.correct`, and the rung."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        posterior = sur.correct(program, q, key=key, rungs=RUNGS)
    drawn = np.asarray(posterior["theta"]).reshape(-1, *np.shape(posterior["theta"])[2:])
    which = jax.random.choice(jax.random.fold_in(key, 1), len(drawn), (num,), replace=num > len(drawn))
    return drawn[np.asarray(which)], str(posterior.provenance["rung"])


def accuracy(draws: np.ndarray, exact: np.ndarray, key: jax.Array) -> float:
    return c2st(draws, exact, key, mixtures=0, steps=6000, decay=0.01).accuracy


def row(name: str, observations: int, num: int) -> list[str]:
    task, key, rng = TASKS[name], jax.random.key(0), np.random.default_rng(0)
    xs = [np.asarray(task.program.simulate(jax.random.fold_in(key, 100 + i)).choices["x"]) for i in range(observations)]
    begun = time.process_time()
    net = network(task, xs[0], key)
    spent = time.process_time() - begun
    draw = jax.jit(jax.vmap(lambda x, key: net.given(task.program | {"x": x}).simulate(key).choices["theta"], (None, 0)))
    found: list[list[float]] = [[], [], []]
    rungs = []
    for i, x in enumerate(xs):
        one, two, three = jax.random.split(jax.random.fold_in(key, i), 3)
        known, other = np.split(task.exact(rng, np.asarray(x, np.float64), 2 * num), 2)
        program = task.program | {"x": x}
        mended, rung = corrected(program, net.given(program), num, two)
        for kept, draws in zip(found, (np.asarray(draw(x, jax.random.split(one, num))), mended, other), strict=True):
            kept.append(accuracy(draws, known, three))
        rungs.append(rung.removeprefix("By").lower())
    means = [f"{np.mean(kept):.3f}" for kept in found]
    spread = f"{min(found[0]):.2f} to {max(found[0]):.2f}"
    used = ", ".join(f"{rung} {rungs.count(rung)}" for rung in sorted(set(rungs)))
    cells = [name, f"{task.published:.3f}", means[0], spread, means[1], means[2], used, f"{spent:.0f}"]
    print(*cells, sep=" | ", flush=True)
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    with KEPT.open("a") as file:
        file.write(json.dumps({"task": name, "cells": cells, "observations": observations, "draws": num}) + "\n")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=None, choices=list(TASKS))
    parser.add_argument("--observations", type=int, default=5)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--write", action="store_true", help="write results/npe.md")
    asked = parser.parse_args()
    for name in asked.tasks or ([] if asked.write else TASKS):
        row(name, asked.observations, asked.draws)
    lines = [json.loads(line) for line in KEPT.read_text().splitlines()]
    kept = {line["task"]: line["cells"] for line in lines if line["observations"] == asked.observations}
    rows = [kept[name] for name in TASKS if name in kept]
    header = ["task", "published", "network", "least, most", "corrected", "exact against exact", "rungs", "CPU s to train"]
    tabled = table(header, rows)
    if asked.write:
        what = (
            f"Mean accuracy of a classifier (C2ST, {asked.draws} draws of each) over {asked.observations} observations, which "
            f"each program drew. One network a task, trained on {SIMULATIONS:,} simulations, a tenth of them held out; exact "
            "posteriors as `benchmarks/npe_tasks.py` says. Published: neural posterior estimation at as many simulations "
            "(sbibm; its own observations, classifier and 10,000 draws)."
        )
        write("npe", "Neural posteriors from 10,000 simulations", f"{what} {machine(('jax', 'optax'))}", tabled)
    print(tabled)


if __name__ == "__main__":
    main()
