"""Noise of a Metropolis step: each part has its law, alone and side by side, and they are independent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from inference import noise
from ppl._keys import Shared

NUM, DIM, KEY = 100_000, 3, jax.random.key(0)


def alone(key):
    return jax.vmap(lambda key: noise.normal_and_exponential(key, DIM, jnp.float32))(jax.random.split(key, NUM))


def side_by_side(key):
    shared = Shared(key, "chains", NUM)
    draw = jax.vmap(lambda _: noise.normal_and_exponential(shared, DIM, jnp.float32), axis_name="chains")
    return draw(jnp.arange(NUM))


@pytest.mark.parametrize("drawn", [alone, side_by_side])
def test_each_part_has_its_law(drawn):
    """Kolmogorov-Smirnov at 1e-4 a part; correlations of NUM draws have an error of NUM^-.5."""
    normal, exponential = (np.asarray(x, float) for x in drawn(KEY))
    assert normal.shape == (NUM, DIM) and exponential.shape == (NUM,)
    assert all(stats.kstest(column, "norm").pvalue > 1e-4 for column in normal.T)
    assert stats.kstest(exponential, "expon").pvalue > 1e-4
    columns = np.column_stack([normal, normal**2, stats.norm.ppf(np.exp(-exponential))])
    apart = np.corrcoef(columns.T) - np.eye(2 * DIM + 1)
    assert np.abs(apart).max() < 4.5 / NUM**0.5  # 21 of them: one false alarm in 7000 keys


def test_chains_beside_each_other_have_noise_of_their_own():
    normal, exponential = side_by_side(KEY)
    assert len(np.unique(np.asarray(normal))) > 0.9 * DIM * NUM  # of 2^24 values some are met twice
    assert np.isfinite(np.asarray(normal)).all() and (np.asarray(exponential) >= 0.0).all()
