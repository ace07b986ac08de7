"""The rotating share of slow tests: every test is in exactly one share, and a bad share is a usage error."""

import pytest

from tests.conftest import in_share, parse_share


def test_shares_partition_the_tests():
    ids = [f"tests/test_{i % 7}.py::test_case[{i}]" for i in range(500)]
    homes = [[k for k in range(1, 6) if in_share(i, k, 5)] for i in ids]
    assert all(len(home) == 1 for home in homes)
    assert all(sum(home == [k] for home in homes) > 60 for k in range(1, 6))


@pytest.mark.parametrize("text", ["0/5", "6/5", "1", "a/b", "1/0", ""])
def test_a_bad_share_is_refused(text):
    with pytest.raises(pytest.UsageError, match="for example 2/5"):
        parse_share(text)


def test_the_x64_fixture_gives_doubles(x64):
    import jax.numpy as jnp

    assert jnp.zeros(()).dtype == jnp.float64


def test_doubles_are_off_elsewhere():
    import jax.numpy as jnp

    assert jnp.zeros(()).dtype == jnp.float32
