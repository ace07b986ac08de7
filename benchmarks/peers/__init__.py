"""Samplers behind one interface: a file per library, each peer a function `run(name, seed) -> Run`.

A peer runs in a fresh process, with its library's defaults, 4 chains x (1000 + 1000), float64.

    PEERS["blackjax-low-rank"].run("arK-arK", seed=0)
"""

import importlib
from typing import NamedTuple

from benchmarks.peers.measure import CHAINS, Run


class Peer(NamedTuple):
    """Where a sampler's function is, what the tables call it, and how many devices JAX shall make of the CPU."""

    module: str
    function: str
    title: str
    devices: int = 1

    @property
    def library(self) -> str:
        """The distribution that has to be installed."""
        return {"evidentia": "jax", "stan": "pystan"}.get(self.module, self.module)

    def run(self, name: str, seed: int) -> Run:
        module = importlib.import_module(f"benchmarks.peers.{self.module}")
        return getattr(module, self.function)(name, seed)


PEERS = {
    "evidentia": Peer("evidentia", "run", "Evidentia"),
    "numpyro": Peer("numpyro", "vectorized", "NumPyro, vectorised"),
    "numpyro-devices": Peer("numpyro", "parallel", "NumPyro, a device per chain", CHAINS),
    "blackjax": Peer("blackjax", "diagonal", "BlackJAX, diagonal", CHAINS),
    "blackjax-low-rank": Peer("blackjax", "low_rank", "BlackJAX, low-rank", CHAINS),
    "nutpie": Peer("nutpie", "diagonal", "nutpie, diagonal"),
    "nutpie-low-rank": Peer("nutpie", "low_rank", "nutpie, low-rank"),
    "stan": Peer("stan", "run", "Stan"),
}
