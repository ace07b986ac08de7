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


def check(placement: Sharded | None, particles: int) -> None:
    """Raise ValueError, with a sentence, for a placement that particles cannot have."""
    if placement is None:
        return
    if not isinstance(placement, Sharded):
        raise ValueError(f"smc: particles can be shared out among devices by Sharded(), got {type(placement).__name__}.")
    devices = placement.mesh_of_devices().size
    if particles % devices:
        least = devices * -(-particles // devices)
        raise ValueError(
            f"smc: {particles} particles cannot be shared out evenly among {devices} devices; ask for particles={least}."
        )


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


def together(placement: Sharded | None, tree: Any) -> Any:
    """The same arrays on one device."""
    return tree if placement is None else jax.device_put(tree, jax.local_devices()[0])


def _sharding(placement: Sharded, x, particles: int) -> NamedSharding:
    mesh = placement.mesh_of_devices()
    return NamedSharding(mesh, P(*mesh.axis_names) if x.ndim and x.shape[0] == particles else P())
