"""Stan's NUTS through PyStan.

The time of a run is Stan's own: the seconds its chains report, spread over the cores; what PyStan adds to read the draws is
not Stan's speed. Programs are compiled once and kept, with the seconds that took.
"""

import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np

from benchmarks.peers.measure import CHAINS, DRAWS, WARMUP, Run
from benchmarks.stan_models import stan as program
from tests.reference.models import data

KEPT = Path("build/benchmarks/stan").absolute()
ELAPSED = [re.compile(rb"([0-9.e+-]+) seconds \(%s\)" % phase) for phase in (b"Warm-up", b"Sampling")]


def build(name: str, seed: int | None = None):
    """The compiled model with its data, and the seconds that its compilation took when it was first compiled."""
    os.environ["XDG_CACHE_HOME"] = str(KEPT)
    import stan
    from httpstan.models import calculate_model_name

    code, values = program(name, data(name))
    note = KEPT / f"{calculate_model_name(code).replace('/', '-')}.json"
    start = time.perf_counter()
    model = stan.build(code, data=values, random_seed=seed)
    if not note.exists():
        note.write_text(json.dumps(time.perf_counter() - start))
    for fits in KEPT.glob("**/fits"):  # PyStan would answer a seed it has seen with the fit it has kept
        shutil.rmtree(fits)
    return model, json.loads(note.read_text())


def run(name: str, seed: int) -> Run:
    model, built = build(name, seed + 1)
    start = time.perf_counter()
    fit = model.sample(num_chains=CHAINS, num_warmup=WARMUP, num_samples=DRAWS, save_warmup=True)
    whole = built + time.perf_counter() - start

    def chains(parameter: str) -> np.ndarray:
        values = fit[parameter]
        values = values.reshape(*values.shape[:-1], WARMUP + DRAWS, CHAINS)
        return np.moveaxis(values, (-1, -2), (0, 1))

    seconds = [float(phase.findall(output)[-1]) for output in fit.stan_outputs for phase in ELAPSED]
    cores = min(CHAINS, os.cpu_count() or 1)
    draws = {parameter: chains(parameter)[:, WARMUP:] for parameter in fit.param_names}
    scalar = {p: x[..., 0] if not dims else x for (p, x), dims in zip(draws.items(), fit.dims, strict=True)}
    return Run(whole, sum(seconds) / cores, int(chains("n_leapfrog__").sum()), scalar)
