"""Placements: where chains run. A policy object, given to `mcmc(..., placement=)`.

- `Threads()`: one compiled single-chain program, driven by one thread per core. Chains do not wait for each other's
  longer trajectories. The default on CPUs.
- `Vectorized()`: all chains in one program under `vmap`. The default on accelerators, and where a call runs on the host,
  which is then asked once for all chains.
- `Sharded()`: the chains shared out among several devices, and among several processes that run the same script.

The same key gives the same draws on every placement, up to rounding. Measurements: docs/decisions/0002-chains-on-cpu.md.
"""

import abc
import functools
import os
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

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

    def spread(self, lane: Callable) -> Callable:
        """The same for a function that advances a lane's chains by itself, not one of them."""
        return lane

    @property
    def together(self) -> bool:
        """Whether all chains run in one program, as kernels that look at the other chains need it."""
        return False

    @abc.abstractmethod
    def workers(self) -> int:
        """How many lanes run at a time."""

    def laid_out(self, state):
        """The shapes of a lane's state, with the devices that hold it where the placement says so."""
        return state

    def gather(self, rows):
        """From the rows (chain, step, ...) of this process's chains, in every leaf of a pytree, those of all chains."""
        return rows


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


class Sharded(Placement):
    """The chains of one lane, shared out among devices: `Sharded()` for all devices of this process, or `Sharded(mesh)` for
    those of a `jax.sharding.Mesh` of one axis. The number of chains must be a multiple of the number of devices.

    Kernels that move chains by themselves do not wait for the other devices; for kernels that look at all chains the compiler
    inserts what they have to say to each other.

    *Several hosts.* Where `jax.distributed.initialize` has been called, every process runs its own share of the chains on its
    own devices, and at the end all return the same posterior, that of a run in one process. An error in one process leaves
    the others waiting for it. Kernels that look at all chains are refused there. A `store` needs a directory for each process.

    Raises:
        ValueError: when the chains cannot be shared out evenly, or the mesh has several axes or devices of other processes.
    """

    mesh: Mesh | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.mesh is not None and len(self.mesh.axis_names) != 1:
            raise ValueError(f"Sharded: the mesh must have one axis, and it has {len(self.mesh.axis_names)}.")
        if self.mesh is not None and any(d.process_index != jax.process_index() for d in self.mesh.devices.flat):
            raise ValueError(
                "Sharded: the mesh holds devices of other processes. Leave it out: every process uses its own devices, and "
                "the draws are gathered."
            )

    @property
    def together(self) -> bool:
        return jax.process_count() == 1

    def lanes(self, chains: int) -> list[list[int]]:
        devices, processes = self.mesh_of_devices().size, jax.process_count()
        if chains % (devices * processes):
            where = f"{devices} devices" + (f" in each of {processes} processes" if processes > 1 else "")
            least = devices * processes * -(-chains // (devices * processes))
            raise ValueError(f"Sharded: {chains} chains cannot be shared out evenly among {where}; ask for chains={least}.")
        share = chains // processes
        first = share * jax.process_index()
        return [list(range(first, first + share))]

    def program(self, chunk: Callable) -> Callable:
        return self.spread(Vectorized().program(chunk))

    def spread(self, lane: Callable) -> Callable:
        mesh = self.mesh_of_devices()
        rows, same = P(*mesh.axis_names), P()
        apart = jax.shard_map(
            lane,
            mesh=mesh,
            in_specs=(same, same, rows, same, rows, same, same),
            out_specs=rows,
            check_vma=False,  # a loop's carry begins with zeros, which are the same on all devices
        )

        @functools.wraps(lane)
        def shared_out(kernel, *args):
            made = lane(kernel, *args) if kernel.together else apart(kernel, *args)
            return jax.lax.with_sharding_constraint(made, self._rows())

        return shared_out

    def workers(self) -> int:
        return 1

    def laid_out(self, state):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._rows()), state)

    def gather(self, rows):
        if jax.process_count() == 1:
            return rows
        steps = process_allgather(jax.tree.map(lambda x: np.shape(x)[1], rows))
        rows = jax.tree.map(lambda x, num: np.asarray(x)[:, : np.min(num)], rows, steps)
        return jax.tree.map(np.asarray, process_allgather(rows, tiled=True))

    def mesh_of_devices(self) -> Mesh:
        """The mesh given, or that of all devices of this process."""
        return Mesh(np.array(jax.local_devices()), ("devices",)) if self.mesh is None else self.mesh

    def _rows(self) -> NamedSharding:
        """Chains, the leading axis, over the devices."""
        return NamedSharding(self.mesh_of_devices(), P(*self.mesh_of_devices().axis_names))


def cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_placement(kernel: Kernel, target: Any) -> Placement:
    """`Threads()` where JAX runs on CPUs; `Vectorized()` on accelerators, for kernels that move all chains together, and for
    targets that ask the host."""
    alone = jax.default_backend() == "cpu" and not kernel.together and not target.on_host
    return Threads() if alone else Vectorized()


def check_shares(who: str, placement: "Sharded | None", num: int, things: str, each: str = "", ask: str = "") -> None:
    """Raise ValueError, with a sentence, for a placement among whose devices `num` things cannot be shared out."""
    if placement is None:
        return
    if not isinstance(placement, Sharded):
        raise ValueError(f"{who}: {things} can be shared out among devices by Sharded(), got {type(placement).__name__}.")
    devices = placement.mesh_of_devices().size
    if num % devices:
        least = devices * -(-num // devices)
        raise ValueError(
            f"{who}: {num} {things}{each} cannot be shared out evenly among {devices} devices; ask for {ask}{least}."
        )


def on_one_device(placement: "Sharded | None", tree):
    """The same arrays on one device, where they were shared out."""
    return tree if placement is None else jax.device_put(tree, jax.local_devices()[0])
