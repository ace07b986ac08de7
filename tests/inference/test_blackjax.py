"""BlackJAX algorithms as kernels here: they keep the law, report under the usual names, and combine with ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
from tests.inference.kernels import DIM, exact, mover, surprise, target
from tests.inference.targets import COVARIANCE, MEAN, correlated

blackjax = pytest.importorskip("blackjax")

SCALE = jnp.ones(DIM)

ALGORITHMS = {  # and hmc and nuts in the registry
    "mala": lambda log_p: blackjax.mala(log_p, 0.15),
    "barker": lambda log_p: blackjax.barker(log_p, 1.0),
    "rmh": lambda log_p: blackjax.additive_step_random_walk.normal_random_walk(log_p, 0.7 * SCALE),
    "elliptical slice": lambda log_p: blackjax.elliptical_slice(
        lambda x: log_p(x) + 0.25 * jnp.sum(x**2), mean=jnp.zeros(DIM), cov=2.0 * jnp.eye(DIM)
    ),
    "ghmc": lambda log_p: blackjax.ghmc(log_p, step_size=0.5, momentum_inverse_scale=SCALE, alpha=0.7, delta=0.2),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_exact_draws_stay_exact(name):
    """See kernels.py for what is compared; a correct set of algorithms fails once in 5,000."""
    positions, moved, info = mover(inf.from_blackjax(ALGORITHMS[name]), target(), 6)(
        jnp.asarray(exact(5000), jnp.float32), jax.random.key(1)
    )
    assert surprise(positions) > 1e-6 and float(moved.mean()) > 0.1
    np.testing.assert_allclose(info.lp[:, -1], jax.vmap(target().log_density)(positions), rtol=1e-4, atol=1e-4)


def test_statistics_have_the_usual_names():
    kernel = inf.from_blackjax(lambda log_p: blackjax.nuts(log_p, 0.8, jnp.asarray(COVARIANCE)))

    def move(key):
        return kernel.step(key, kernel.init(key, correlated(), jnp.zeros(3)), correlated())[1]

    info = jax.eval_shape(move, jax.random.key(0))
    assert {"lp", "acceptance_rate", "energy", "diverging", "n_steps", "tree_depth"} <= set(info._fields)
    assert all(x.shape == () for x in info)


def test_it_combines_with_kernels_of_ours():
    """Three errors of an effective size of a tenth of the draws would be chance once in 60; six never."""
    theirs = inf.from_blackjax(lambda log_p: blackjax.hmc(log_p, 0.8, jnp.asarray(COVARIANCE), 4))
    kernel = inf.cycle(inf.repeat(theirs, 2), inf.RandomWalk())
    settings = {"draws": 1000, "warmup": 300, "progress": False, "check": False, "placement": inf.Vectorized()}
    posterior = inf.mcmc(correlated(), kernel, key=jax.random.key(0), **settings)
    x = np.asarray(posterior["x"]).reshape(-1, 3)
    assert (np.abs(x.mean(0) - MEAN) < 6 * np.sqrt(np.diag(COVARIANCE) / 400)).all()
    assert (np.abs(x.var(0) / np.diag(COVARIANCE) - 1.0) < 6 * np.sqrt(2.0 / 400)).all()
    assert {"lp", "diverging_0", "step_size_1"} <= set(posterior.stats)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda log_p: 3,
            r"^from_blackjax: expected a function from a log density to an algorithm with init and step, .* int\.",
        ),
        (
            lambda log_p: blackjax.base.SamplingAlgorithm(lambda x, key: jax.random.key(0), None),
            r"^from_blackjax: a state needs the field position, and PRNGKeyArray has none\.$",
        ),
    ],
)
def test_what_is_no_algorithm_is_said(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        inf.from_blackjax(make).init(jax.random.key(0), correlated(), jnp.zeros(3))


def test_an_algorithm_in_place_of_a_function_is_refused():
    with pytest.raises(ValueError, match=r"^from_blackjax: expected a function .* got SamplingAlgorithm\.$"):
        inf.from_blackjax(blackjax.nuts(correlated().log_density, 0.5, jnp.ones(3)))
