"""The densities of every model of the registry in single precision, JAX's default."""

import jax.numpy as jnp
import pytest

from . import laws
from .models import CASES


@pytest.mark.parametrize("name", CASES)
def test_density_is_the_oracles(name):
    run = laws.simulate(CASES[name])
    assert run.traces.log_density.dtype == jnp.float32
    laws.density_is_the_oracles(run)
