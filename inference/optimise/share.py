"""The samples of a step shared out among devices: `inf.maximize(..., samples=256, placement=inf.Sharded())`.

One program runs on all devices. Each plays its share of the samples and takes their part of the gradient; the compiler inserts
the sum over devices, once a step. The free numbers and the optimiser's state lie on every device.

Law: the keys are those of one device, so the numbers are, too, but for sums that are taken in another order.
"""

from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ..placement import Sharded


def apart(placement: Sharded | None, keys: jax.Array) -> jax.Array:
    """Inside a compiled program: keys (samples,), each with the device that is to play with it."""
    if placement is None:
        return keys
    mesh = placement.mesh_of_devices()
    return jax.lax.with_sharding_constraint(keys, NamedSharding(mesh, P(*mesh.axis_names)))


def everywhere(placement: Sharded | None, tree: Any) -> Any:
    """The same arrays on every device, inside a compiled program and outside."""
    return tree if placement is None else jax.device_put(tree, NamedSharding(placement.mesh_of_devices(), P()))
