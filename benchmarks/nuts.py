"""NUTS against NumPyro's NUTS on the reference posteriors: effective samples per second, per gradient, and whole time.

    python -m benchmarks.nuts [--rounds 3] [--only eight_schools,garch] [--write]

Both with their defaults, 4 chains x (1000 warm-up + 1000 draws), float64; NumPyro with vectorised chains. Each run is a
fresh process, so that compile times are those of a user's first run; rounds alternate which library goes first. A process
samples twice with one key: the first time gives the whole time with tracing and compilation, the second, with nothing to
compile, the time of warm-up and sampling. Effective samples: bulk, the worst parameter of the constrained posterior.
Gradients: of warm-up and sampling together.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from math import exp, isnan, log, nan

CHAINS, WARMUP, DRAWS = 4, 1000, 1000
LONG_RUN = 30.0  # seconds; the difference of two runs longer than this says nothing about the time to compile


def ours(name: str, seed: int) -> dict:
    """One process of Evidentia."""
    import jax

    import inference as inf
    from tests.reference.models import program

    def sample(seed: int):
        start = time.perf_counter()
        posterior = inf.mcmc(
            program(name),
            inf.NUTS(),
            key=jax.random.key(seed),
            chains=CHAINS,
            draws=DRAWS,
            warmup=WARMUP,
            progress=False,
        )
        return posterior, time.perf_counter() - start

    _, whole = sample(seed)
    posterior, run = sample(seed)
    gradients = posterior.stats["n_steps"].sum() + posterior.warmup_stats["n_steps"].sum()
    return {"whole": whole, "run": run, "gradients": int(gradients), **worst(posterior.draws)}


def numpyro(name: str, seed: int) -> dict:
    """One process of NumPyro."""
    import jax
    from numpyro.infer import MCMC, NUTS

    from benchmarks.numpyro_models import MODELS
    from tests.reference.models import data

    model, args = MODELS[name](data(name))
    mcmc = MCMC(
        NUTS(model),
        num_warmup=WARMUP,
        num_samples=DRAWS,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )

    def sample(seed: int) -> float:
        start = time.perf_counter()
        mcmc.run(jax.random.key(seed), *args, extra_fields=("num_steps",))
        jax.block_until_ready(mcmc.get_samples())
        return time.perf_counter() - start

    whole = sample(seed)
    run = sample(seed)
    # NumPyro traces and compiles its search for a start anew in every run; that is no sampling, so it does not count
    start = time.perf_counter()
    jax.block_until_ready(mcmc.sampler.init(jax.random.split(jax.random.key(seed), CHAINS), WARMUP, None, args, {}))
    run -= time.perf_counter() - start
    draws, steps = mcmc.get_samples(group_by_chain=True), mcmc.get_extra_fields()["num_steps"].sum()
    mcmc.warmup(jax.random.key(seed), *args, extra_fields=("num_steps",), collect_warmup=True)
    gradients = int(steps + mcmc.get_extra_fields()["num_steps"].sum())
    return {"whole": whole, "run": run, "gradients": gradients, **worst(draws)}


def worst(draws: dict) -> dict:
    """The smallest bulk effective sample size and the largest R-hat over all scalars."""
    import numpy as np
    from arviz_stats.base import array_stats

    from ppl.choices import walk

    ess, rhat = [], []
    for _, values in walk(draws):
        values = np.asarray(values).reshape(*np.shape(values)[:2], -1)
        for i in range(values.shape[-1]):
            if values[..., i].std() > 0:
                ess.append(float(array_stats.ess(values[..., i], chain_axis=0, draw_axis=1)))
                rhat.append(float(array_stats.rhat(values[..., i], chain_axis=0, draw_axis=1)))
    return {"ess": min(ess), "rhat": max(rhat)}


def process(who: str, name: str, seed: int) -> dict:
    """Run one worker process and read its numbers."""
    command = [sys.executable, "-m", "benchmarks.nuts", "--worker", who, name, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{who} failed on {name}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def worker(who: str, name: str, seed: int) -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    print(json.dumps({"ours": ours, "numpyro": numpyro}[who](name, seed)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="comma-separated parts of names")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/nuts.md")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker[0], args.worker[1], int(args.worker[2]))

    from benchmarks.numpyro_models import MODELS

    names = [n for n in MODELS if any(part in n for part in args.only.split(","))]
    rows, ratios = [], []
    for name in names:
        runs: dict[str, list[dict]] = {"ours": [], "numpyro": []}
        for i in range(args.rounds):
            for who in ("ours", "numpyro") if i % 2 else ("numpyro", "ours"):
                runs[who].append(process(who, name, i))
        row, ratio = compare(name, runs)
        rows.append(row)
        ratios.append(ratio)
        print(" | ".join(row), flush=True)
    means = [exp(statistics.fmean(log(r[i]) for r in ratios if not isnan(r[i]))) for i in range(4)]
    rows.append(["**geometric mean**", *(f"**{m:.2f}**" for m in means), "", "", ""])
    print(" | ".join(rows[-1]))
    if args.write:
        from benchmarks.report import machine, write

        note = (
            f"Ratios Evidentia / NumPyro: above 1 is better for the first two, below 1 for the last two. Median (range) of "
            f"{args.rounds} alternating rounds, each a fresh process; {CHAINS} chains x ({WARMUP} + {DRAWS}), float64. "
            f"Trace + compile is whole time - run time; where a run takes over {LONG_RUN:.0f} s it is not measurable (-). "
            f"{machine()}"
        )
        write("nuts", "NUTS against NumPyro's NUTS", note, HEADER, rows)


HEADER = [
    "posterior", "ESS/s", "ESS/gradient", "trace + compile", "whole time",
    "ESS/s: ours, NumPyro", "ESS per 1000 gradients", "worst R-hat",
]  # fmt: skip


def compare(name: str, runs: dict[str, list[dict]]) -> tuple[list[str], list[float]]:
    """A row of the table, and its four ratios (medians over rounds)."""
    measures = [
        lambda r: r["ess"] / r["run"],
        lambda r: 1000 * r["ess"] / r["gradients"],
        lambda r: r["whole"] - r["run"],
        lambda r: r["whole"],
    ]
    per_round = [[m(a) / m(b) for a, b in zip(runs["ours"], runs["numpyro"], strict=True)] for m in measures]
    medians = [statistics.median(x) for x in per_round]
    if max(r["run"] for r in runs["numpyro"]) > LONG_RUN:
        medians[2] = nan

    def both(measure, digits: int) -> str:
        return ", ".join(f"{statistics.median(measure(r) for r in runs[who]):.{digits}f}" for who in ("ours", "numpyro"))

    cells = ["-" if isnan(m) else f"{m:.2f} ({min(x):.2f}-{max(x):.2f})" for m, x in zip(medians, per_round, strict=True)]
    rhat = ", ".join(f"{max(r['rhat'] for r in runs[who]):.3f}" for who in ("ours", "numpyro"))
    return [name, *cells, both(measures[0], 0), both(measures[1], 1), rhat], medians


if __name__ == "__main__":
    main()
