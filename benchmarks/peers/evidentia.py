"""Evidentia: `inf.NUTS()` as it comes."""

import time

import jax

import inference as inf
from benchmarks.peers.measure import CHAINS, DRAWS, Run
from tests.reference.models import program


def run(name: str, seed: int) -> Run:
    """The first time compiles, the second does not."""

    def sample():
        start = time.perf_counter()
        posterior = inf.mcmc(
            program(name),
            inf.NUTS(),
            key=jax.random.key(seed),
            chains=CHAINS,
            draws=DRAWS,
            progress=False,
        )
        return posterior, time.perf_counter() - start

    _, whole = sample()
    posterior, again = sample()
    gradients = posterior.provenance["gradients"] + posterior.provenance["gradients_to_start"]
    return Run(whole, again, gradients, posterior.draws)
