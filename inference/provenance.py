"""Where a posterior came from: what every algorithm writes down of itself."""

from importlib.metadata import PackageNotFoundError, version

import jax
import numpy as np


def versions() -> dict[str, str]:
    """The versions of what made the draws."""
    try:
        ours = version("evidentia")
    except PackageNotFoundError:
        ours = "not installed"
    return {"evidentia": ours, "jax": jax.__version__, "numpy": np.__version__}


def key_words(key) -> list[int]:
    """A typed key in plain numbers."""
    return np.asarray(jax.random.key_data(key)).tolist()
