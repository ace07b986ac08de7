"""The particles of a population shared out among devices: `inf.smc(..., placement=inf.Sharded())`.

One program runs on all devices, each of which holds its share of the particles and of what is computed for each of them;
where particles look at each other (to resample, for the evidence, to learn a metric) the compiler inserts what the devices
have to say to each other. So the law, and the random numbers, are those of one device; only sums are taken in another order.
"""

from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ..placement import Sharded


def spread(placement: Sharded | None, tree: Any, particles: int) -> Any:
    """Inside a compiled program: arrays that lead with the particles lie on all devices, others on each of them."""
    if placement is None:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, _sharding(placement, x, particles)), tree)


def laid_out(placement: Sharded | None, shapes: Any, particles: int) -> Any:
    """The shapes of arrays that `spread` has laid out."""
    if placement is None:
        return shapes
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_sharding(placement, x, particles)), shapes)


def _sharding(placement: Sharded, x, particles: int) -> NamedSharding:
    mesh = placement.mesh_of_devices()
    return NamedSharding(mesh, P(*mesh.axis_names) if x.ndim and x.shape[0] == particles else P())
