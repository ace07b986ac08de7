"""Placements: where chains run. A policy object, given to `mcmc(..., placement=)`.

- `Threads()`: one compiled single-chain program, driven by one thread per core. Chains do not wait for each other's
  longer trajectories. The default on CPUs.
- `Vectorized()`: all chains in one program under `vmap`. The default on accelerators.

The same key gives the same draws on every placement, up to rounding. Measurements: docs/decisions/0002-chains-on-cpu.md.
"""

import abc
import functools
import os
from collections.abc import Callable

import equinox as eqx
import jax

from .kernel import CHAINS, Kernel


class Placement(eqx.Module):
    """The contract: chains are grouped into lanes; a lane is advanced by one compiled program."""

    @abc.abstractmethod
    def lanes(self, chains: int) -> list[list[int]]:
        """Which chains each lane holds."""

    @abc.abstractmethod
    def program(self, chunk: Callable) -> Callable:
        """From `chunk(kernel, target, state, key, chain, start, num)` for one chain to the same for a lane: the state and
        the number of the chain gain a leading axis."""

    @property
    def together(self) -> bool:
        """Whether all chains run in one program, as kernels that look at the other chains need it."""
        return False

    @abc.abstractmethod
    def workers(self) -> int:
        """How many lanes run at a time."""


class Threads(Placement):
    """One lane per chain, `num` lanes at a time (default: the cores this process may use)."""

    num: int | None = None

    def lanes(self, chains: int) -> list[list[int]]:
        return [[c] for c in range(chains)]

    def program(self, chunk: Callable) -> Callable:
        @functools.wraps(chunk)
        def lane(kernel, target, state, key, chain, start, num):
            state, chain = jax.tree.map(lambda x: x[0], (state, chain))
            state, record = chunk(kernel, target, state, key, chain, start, num)
            return jax.tree.map(lambda x: x[None], (state, record))

        return lane

    def workers(self) -> int:
        return self.num or cores()


class Vectorized(Placement):
    """One lane of all chains."""

    @property
    def together(self) -> bool:
        return True

    def lanes(self, chains: int) -> list[list[int]]:
        return [list(range(chains))]

    def program(self, chunk: Callable) -> Callable:
        return jax.vmap(chunk, in_axes=(None, None, 0, None, 0, None, None), axis_name=CHAINS)

    def workers(self) -> int:
        return 1


def cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_placement(kernel: Kernel) -> Placement:
    """`Threads()` where JAX runs on CPUs; `Vectorized()` on accelerators, and for kernels that move all chains together."""
    return Threads() if jax.default_backend() == "cpu" and not kernel.together else Vectorized()
