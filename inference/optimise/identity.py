"""What makes two optimisations the same run: as `inference.mcmc.identity`, for objectives."""

from contextlib import nullcontext

import jax
import numpy as np

from ..mcmc.identity import digest, values
from ..placement import Sharded


def opened(store, text: str, named, key, like, steps: int, placement: Sharded | None):
    """A context with the store opened for this run; with None where there is no store.

    - `text`: of the compiled step, optimiser included.
    - `named`: the arguments that the run begins with; `like`: (state, record).

    Raises:
        ValueError: when the store holds another run, or cannot be used.
    """
    if store is None:
        return nullcontext()
    identity = {
        "key": f"{jax.random.key_impl(key)} {np.asarray(jax.random.key_data(key)).tolist()}",
        "JAX": f"{jax.__version__} on {jax.devices()[0].device_kind}",
        "placement": f"{1 if placement is None else placement.mesh_of_devices().size} devices",
        "data and first values": values(jax.tree.leaves(named)),
        "objective, model and optimizer": digest(text, str(jax.tree.structure(like[0]))),
    }
    return store.open(identity, like, 1, 0, steps)
