"""One chain per host device: no chain waits for another's longer trajectory. The best placement of JAX samplers on a CPU.

The devices must be asked for before JAX starts: `jax.config.update("jax_num_cpu_devices", CHAINS)`.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.sharding import PartitionSpec

from benchmarks.peers.measure import CHAINS


def per_device(chain: Callable) -> Callable:
    """From `chain(own, shared)` to the same for all chains: `own` and the result gain a leading axis."""

    def device(own, shared):
        return jax.tree.map(lambda x: x[None], chain(jax.tree.map(lambda x: x[0], own), shared))

    mesh = jax.make_mesh((CHAINS,), ("chain",), axis_types=(jax.sharding.AxisType.Auto,))
    each, same = PartitionSpec("chain"), PartitionSpec()
    return jax.jit(jax.shard_map(device, mesh=mesh, in_specs=(each, same), out_specs=each, check_vma=False))


def twice(sampler: Callable, own: Any, shared: Any) -> tuple[Any, float, float]:
    """The result, and the seconds of the first call, which compiles, and of the second, which does not."""

    def once() -> tuple[Any, float]:
        start = time.perf_counter()
        result = jax.block_until_ready(sampler(own, shared))
        return result, time.perf_counter() - start

    _, first = once()
    result, second = once()
    return result, first, second


def keys(seed: int) -> Array:
    return jax.random.split(jax.random.key(seed), CHAINS)
