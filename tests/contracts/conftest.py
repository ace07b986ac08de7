"""Laws are about values, not speed: XLA leaves out its optimisations here, which halves the time to compile."""

import jax
import pytest

from tests.conftest import _doubles


@pytest.fixture(autouse=True, scope="package")
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def x64():
    """Double precision from the first test that asks for it to the end of its module: each switch empties JAX's caches."""
    with _doubles(True):
        yield
