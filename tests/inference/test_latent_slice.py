"""Latent slice sampling: what the registry's laws do not see. (That it keeps exact draws exact is in `test_kernels.py`.)"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats

import inference as inf
from inference.mcmc import latent_slice
from tests.inference.kernels import DIM, exact, metric, mover, surprise, target
from tests.inference.targets import correlated


def test_widths_keep_their_law_and_do_not_depend_on_the_position():
    """The smallest of 6 + 36 p-values; 1e-5 fails a right kernel for one key in 2400."""
    kernel, starts = inf.LatentSlice(metric(DIM), 3.0), jnp.asarray(exact(5_000), jnp.float32)

    @jax.jit
    def last(key, position):
        def one(state, key):
            return kernel.step(key, state, target())[0], None

        return lax.scan(one, kernel.init(key, target(), position), jax.random.split(key, 6))[0]

    state = jax.vmap(last)(jax.random.split(jax.random.key(0), len(starts)), starts)
    found = [stats.kstest(widths, stats.gamma(2.0, scale=1.5).cdf).pvalue for widths in np.asarray(state.widths).T]
    found += [stats.spearmanr(w, x).pvalue for w in np.asarray(state.widths).T for x in np.asarray(state.position).T]
    assert min(found) > 1e-5


def widths_of_their_own(key, centre, width):
    """At least as wide as they must be, but forgetting what the centre says of them."""
    return jnp.maximum(0.5 * width * jax.random.gamma(key, 2.0, centre.shape), 2.0 * jnp.abs(centre))


@pytest.mark.slow
def test_a_planted_bug_is_found(monkeypatch):
    monkeypatch.setattr(latent_slice, "longer", widths_of_their_own)
    move = mover(inf.LatentSlice(metric(DIM), 3.0), target(), 10)
    assert surprise(move(jnp.asarray(exact(20_000), jnp.float32), jax.random.key(1))[0]) < 1e-8


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match=r"^LatentSlice: width must be positive, got 0\.0\.$"):
        inf.LatentSlice(width=0.0)
    kernel = inf.LatentSlice()
    with pytest.raises(ValueError, match=r"^LatentSlice: the metric must be known to take a step; see inference.adapted\.$"):
        kernel.step(jax.random.key(0), kernel.init(jax.random.key(0), correlated(), jnp.zeros(3)), correlated())
