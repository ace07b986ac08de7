"""Functions that a new process can import: what simulators in tests run."""

import os
import time

import numpy as np


def decay(rate, start):
    """A curve, (5,)."""
    return start * np.exp(-rate * np.arange(5.0))


def at_worst(x):
    """Fails as simulators do: raises below 0, returns NaN above 10, takes its process down at 5, and never ends at 6."""
    x = float(x)
    if x < 0.0:
        raise ArithmeticError(f"no steady state at {x:g}\nafter 100 iterations")
    if x == 5.0:
        os._exit(3)
    if x == 6.0:
        time.sleep(600.0)
    return np.nan if x > 10.0 else 2.0 * x


def noted(path, x):
    """The square; every run leaves a line in the file `path`."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()} {x!r}\n")
    return x * x


def with_jax(x):
    """Runs JAX."""
    import jax.numpy as jnp

    return np.asarray(jnp.sin(x))
