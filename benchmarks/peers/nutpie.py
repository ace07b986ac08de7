"""nutpie, with a diagonal metric or a low-rank one.

Its fast densities come from PyMC or BridgeStan, neither of which these posteriors are written for. A compiled JAX function
called back from Python is far slower, so only gradients are counted, and the time of the run is left out.
"""

import time
from functools import partial

import jax
import numpy as np
import nutpie
from nutpie.compiled_pyfunc import from_pyfunc

from benchmarks.peers.density import parameters, starts, target
from benchmarks.peers.measure import CHAINS, DRAWS, WARMUP, Run


def run(name: str, seed: int, low_rank: bool) -> Run:
    density = target(name)
    start = time.perf_counter()
    both = jax.jit(jax.value_and_grad(density.log_density))
    both(np.zeros(density.dim))

    def log_density():
        def call(position):
            value, gradient = both(position)
            return float(value), np.asarray(gradient)

        return call

    def expand(seed1, seed2, chain):
        return lambda position: {"position": np.asarray(position)}

    def first(seed):  # of 64 bits, more than JAX takes
        return np.asarray(starts(density, jax.random.key(seed % 2**31))[0])

    model = from_pyfunc(
        density.dim,
        log_density,
        expand,
        [np.dtype("float64")],
        [(density.dim,)],
        ["position"],
        make_initial_point_fn=first,
    )
    trace = nutpie.sample(
        model,
        draws=DRAWS,
        tune=WARMUP,
        chains=CHAINS,
        seed=seed,
        progress_bar=False,
        low_rank_modified_mass_matrix=low_rank,
    )
    whole = time.perf_counter() - start
    gradients = sum(int(stats["n_steps"].sum()) for stats in (trace.sample_stats, trace.warmup_sample_stats))
    return Run(whole, None, gradients, parameters(density, trace.posterior["position"].values))


diagonal = partial(run, low_rank=False)
low_rank = partial(run, low_rank=True)
