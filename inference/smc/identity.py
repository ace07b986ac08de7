"""What makes two runs of sequential Monte Carlo the same run: as `inference.mcmc.identity`, for populations."""

from contextlib import nullcontext

import jax
import numpy as np

from ..mcmc.identity import digest, values

ENDLESS = 1 << 40  # stages of a path whose length is not known before


def opened(store, method, path, key, particles: int, islands: int, like, text: str):
    """A context with the store opened for this run; with None where there is no store.

    Raises:
        ValueError: when the store holds another run, or cannot be used.
    """
    if store is None:
        return nullcontext()
    state, row = like
    identity = {
        "key": f"{jax.random.key_impl(key)} {np.asarray(jax.random.key_data(key)).tolist()}",
        "number of particles": str(particles),
        "number of islands": str(islands),
        "precision": str(state.population.log_weights.dtype),
        "JAX": f"{jax.__version__} on {jax.devices()[0].device_kind}",
        "data": values(jax.tree.leaves(path)),
        "settings": values(method),
        "method and model": digest(text, str(jax.tree.structure(state))),
    }
    return store.open(identity, like, islands, 0, ENDLESS if path.length is None else path.length - 1)
