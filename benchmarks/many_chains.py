"""Many chains at once against NumPyro's vectorised NUTS: effective samples per second, after compilation.

    python -m benchmarks.many_chains [--rounds 3] [--chains 1024] [--only schools,logistic] [--write]

Both vectorise all chains in one program; float32, as on accelerators. all get 200 draws of warm-up and 200
more; those of MEADS are ten steps each. Each run is a fresh process that samples twice; the second time counts: warm-up and
sampling, nothing to compile. Effective samples: bulk, the worst parameter.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from math import exp, log

WARMUP, DRAWS = 200, 200
KEY = 20
SAMPLERS = ("ChEES", "MEADS", "NUTS")
NAMES = ("eight_schools-eight_schools_noncentered", "hierarchical_logistic", "mesquite-logmesquite")


def logistic_data():
    """500 answers of 20 groups, ten covariates."""
    import numpy as np

    rng = np.random.default_rng(0)
    x, group = rng.normal(size=(500, 10)), rng.integers(0, 20, 500)
    logits = x @ rng.normal(size=10) * 0.5 + rng.normal(size=20)[group]
    return x.astype("float32"), group, (rng.uniform(size=500) < 1 / (1 + np.exp(-logits))).astype("int32")


def our_program(name: str):
    """The model with its data in Evidentia."""
    if name != "hierarchical_logistic":
        from tests.reference.models import program

        return program(name)
    import jax.numpy as jnp

    import ppl
    from ppl import dist, sample

    x, group, y = logistic_data()

    @ppl.model
    def model():
        beta = sample("beta", dist.Normal(0.0, 1.0).expand([10]).to_event(1))
        tau = sample("tau", dist.HalfNormal(1.0))
        z = sample("z", dist.Normal(0.0, 1.0).expand([20]).to_event(1))
        sample("y", dist.Bernoulli(logits=x @ beta + tau * jnp.take(z, group)))

    return model() | {"y": y}


def their_model(name: str):
    """The same in NumPyro, and its arguments."""
    if name != "hierarchical_logistic":
        from benchmarks.numpyro_models import MODELS
        from tests.reference.models import data

        return MODELS[name](data(name))
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    x, group, y = logistic_data()

    def model():
        beta = numpyro.sample("beta", dist.Normal(0.0, 1.0).expand([10]).to_event(1))
        tau = numpyro.sample("tau", dist.HalfNormal(1.0))
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([20]).to_event(1))
        numpyro.sample("y", dist.Bernoulli(logits=x @ beta + tau * jnp.take(z, group)), obs=y)

    return model, ()


def ours(sampler: str, name: str, chains: int, seed: int) -> dict:
    """One process of Evidentia."""
    import jax

    import inference as inf

    kernel = {"ChEES": inf.ChEES(), "MEADS": inf.repeat(inf.MEADS(), 10), "NUTS": inf.NUTS()}[sampler]
    program = our_program(name)

    def sample():
        start = time.perf_counter()
        posterior = inf.mcmc(
            program, kernel, key=jax.random.key(seed + KEY), chains=chains, warmup=WARMUP, draws=DRAWS,
            placement=inf.Vectorized(), progress=False, check=False,
        )  # fmt: skip
        return posterior, time.perf_counter() - start

    _, whole = sample()
    posterior, run = sample()
    return {"whole": whole, "run": run, **worst(posterior.draws)}


def numpyro(name: str, chains: int, seed: int) -> dict:
    """One process of NumPyro."""
    import jax
    from numpyro.infer import MCMC, NUTS

    model, args = their_model(name)
    mcmc = MCMC(
        NUTS(model), num_warmup=WARMUP, num_samples=DRAWS, num_chains=chains, chain_method="vectorized", progress_bar=False
    )

    def sample() -> float:
        start = time.perf_counter()
        mcmc.run(jax.random.key(seed + KEY), *args)
        jax.block_until_ready(mcmc.get_samples())
        return time.perf_counter() - start

    whole = sample()
    run = sample()
    # NumPyro traces and compiles its search for a start anew in every run; that is no sampling, so it does not count
    start = time.perf_counter()
    jax.block_until_ready(mcmc.sampler.init(jax.random.split(jax.random.key(seed + KEY), chains), WARMUP, None, args, {}))
    run -= time.perf_counter() - start
    return {"whole": whole, "run": run, **worst(mcmc.get_samples(group_by_chain=True))}


def worst(draws: dict) -> dict:
    """The smallest bulk effective sample size and the largest R-hat over all scalars."""
    import numpy as np
    from arviz_stats.base import array_stats

    from ppl.choices import flatten

    ess, rhat = [], []
    for values in flatten(draws).values():
        values = np.asarray(values).reshape(*np.shape(values)[:2], -1)
        for x in np.moveaxis(values, -1, 0):
            if x.std() > 0:
                ess.append(float(array_stats.ess(x, chain_axis=0, draw_axis=1)))
                rhat.append(float(array_stats.rhat(x, chain_axis=0, draw_axis=1)))
    return {"ess": min(ess), "rhat": max(rhat)}


def process(who: str, name: str, chains: int, seed: int) -> dict:
    """Run one worker process and read its numbers."""
    command = [sys.executable, "-m", "benchmarks.many_chains", "--worker", who, name, str(chains), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{who} failed on {name}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def worker(who: str, name: str, chains: str, seed: str) -> None:
    made = numpyro(name, int(chains), int(seed)) if who == "NumPyro" else ours(who, name, int(chains), int(seed))
    print(json.dumps(made))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chains", type=int, default=1024)
    parser.add_argument("--only", default="", help="comma-separated parts of names")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/many_chains.md")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(*args.worker)

    rows, ratios = [], {who: [] for who in SAMPLERS}
    for name in [n for n in NAMES if any(part in n for part in args.only.split(","))]:
        runs: dict[str, list[dict]] = {who: [] for who in ("NumPyro", *SAMPLERS)}
        for i in range(args.rounds):
            for who in list(runs)[:: 1 if i % 2 else -1]:
                runs[who].append(process(who, name, args.chains, i))
        speed = {who: statistics.median(r["ess"] / r["run"] for r in made) for who, made in runs.items()}
        for who, made in runs.items():
            if who in ratios:
                ratios[who].append(speed[who] / speed["NumPyro"])
            seconds, rhat = statistics.median(r["run"] for r in made), max(r["rhat"] for r in made)
            compiling = statistics.median(r["whole"] - r["run"] for r in made)
            rows.append(
                [name, who, f"{speed[who]:.0f}", f"{speed[who] / speed['NumPyro']:.2f}", f"{seconds:.2f}", f"{compiling:.1f}",
                 f"{rhat:.3f}"]
            )  # fmt: skip
            print(" | ".join(rows[-1]), flush=True)
    for who, of_models in ratios.items():
        mean = exp(statistics.fmean(log(ratio) for ratio in of_models))
        rows.append(["**geometric mean**", who, "", f"**{mean:.2f}**", "", "", ""])
        print(" | ".join(rows[-1]))
    if args.write:
        from benchmarks.report import machine, table, write

        note = (
            f"{args.chains} chains x ({WARMUP} + {DRAWS}), vectorised, float32; medians of {args.rounds} alternating rounds, "
            f"each a fresh process. Effective samples: bulk, worst parameter. Seconds: without compilation. "
            f"{machine()}"
        )
        write("many_chains", "Many chains against NumPyro's vectorised NUTS", note, table(HEADER, rows))


HEADER = ["posterior", "sampler", "ESS/s", "ESS/s over NumPyro's", "seconds", "trace + compile, s", "worst R-hat"]


if __name__ == "__main__":
    main()
