"""Prior and posterior predictive, and predictions for new groups, interventions and nested data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import ppl
from ppl import dist, sample

KEY = jax.random.key(0)


@ppl.model
def groups(sizes, mean=0.0):
    mu = sample("mu", dist.Normal(mean, 2.0))

    def group(s):
        theta = sample("theta", dist.Normal(mu, 0.5))
        ppl.deterministic("double", 2 * theta)
        return sample("y", dist.Normal(theta, s))

    return ppl.vmap(group)(sizes)


@pytest.fixture(scope="module")
def prior():
    return ppl.predict(groups(jnp.ones(2)), KEY, num=4000)


def test_the_prior_predictive(prior):
    """Kolmogorov-Smirnov at 1e-5 on exact marginals; fixed key."""
    assert {k: x.shape for k, x in prior.items()} == {"mu": (4000,), "theta": (4000, 2), "double": (4000, 2), "y": (4000, 2)}
    for name, sd in (("mu", 2.0), ("theta", 4.25**0.5), ("y", 5.25**0.5)):
        assert stats.kstest(np.asarray(prior[name]).reshape(4000, -1)[:, -1], stats.norm(0, sd).cdf).pvalue > 1e-5
    np.testing.assert_array_equal(prior["double"], 2 * prior["theta"])


def test_data_are_simulated_anew():
    program = groups(jnp.ones(2)) | {"y": np.array([50.0, -50.0])}
    assert float(np.abs(ppl.predict(program, KEY, num=100)["y"]).max()) < 20


def test_posterior_draws_are_used_and_the_rest_follows():
    draws = {"mu": np.zeros((2, 50)), "theta": np.broadcast_to([10.0, -10.0], (2, 50, 2)), "double": np.zeros((2, 50, 2))}
    out = ppl.predict(groups(1e-3 * jnp.ones(2)) | {"y": np.zeros(2)}, KEY, draws)
    assert set(out) == {"y", "double"} and out["y"].shape == (2, 50, 2)
    np.testing.assert_allclose(out["y"], draws["theta"], atol=0.01)
    np.testing.assert_allclose(out["double"], 2 * draws["theta"], atol=1e-4)  # computed, not taken from the draws
    assert np.unique(out["y"]).size > 190  # float32 near 10 holds few digits of 0.001


def test_new_groups_are_drawn_given_the_shared_parameters():
    draws = {"mu": 100.0 * np.ones((1, 30)), "theta": np.zeros((1, 30, 2))}
    out = ppl.predict(groups(jnp.ones(5)), KEY, draws)
    assert out["theta"].shape == out["y"].shape == (1, 30, 5)
    assert float(out["theta"].min()) > 90


def test_an_intervention_moves_what_depends_on_it():
    draws = {"mu": np.zeros(20), "theta": np.zeros((20, 2))}
    with pytest.raises(ValueError, match="no draw belongs"):
        ppl.predict(groups(jnp.ones(2)).intervene({"mu": 50.0}), KEY, draws)

    @ppl.model
    def model():
        a = sample("a", dist.Normal(0.0, 1.0))
        b = sample("b", dist.Normal(0.0, 1.0))
        return sample("y", dist.Normal(a + b, 0.001))

    out = ppl.predict(model().intervene({"a": 50.0}), KEY, {"a": np.zeros(20), "b": np.ones(20)})
    np.testing.assert_allclose(out["y"], 51.0, atol=0.01)


def test_data_inside_nested_programs_are_simulated_too():
    @ppl.model
    def outer():
        return sample("in", groups(jnp.ones(2)) | {"y": np.array([99.0, 99.0])})

    out = ppl.predict(outer(), KEY, num=10)
    assert out["in"]["y"].shape == (10, 2) and float(np.abs(out["in"]["y"]).max()) < 20


@pytest.mark.parametrize("obs", [np.array([99.0, 99.0]), np.ma.masked_array([99.0, 99.0], mask=[0, 1])], ids=["all", "part"])
def test_data_written_in_the_model_are_simulated_too(obs):
    @ppl.model
    def model(obs):
        mu = sample("mu", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(mu, 1.0), obs=obs)

    out = ppl.predict(model(obs), KEY, {"mu": np.zeros(30), "y": np.full((30, 2), 99.0)})
    assert out["y"].shape == (30, 2) and float(np.abs(out["y"]).max()) < 20


def test_missing_entries_do_not_stop_a_prediction():
    program = groups(jnp.ones(2)) | {"y": np.ma.masked_array([1.0, 0.0], mask=[0, 1])}
    draws = {"mu": np.zeros(10), "theta": np.zeros((10, 2)), "y": np.full((10, 2), 99.0)}
    assert float(np.abs(ppl.predict(program, KEY, draws)["y"]).max()) < 20


def test_every_draw_has_its_own_noise_and_the_key_decides():
    one = ppl.predict(groups(jnp.ones(2)), KEY, num=50)
    np.testing.assert_array_equal(one["y"], ppl.predict(groups(jnp.ones(2)), KEY, num=50)["y"])
    assert np.unique(one["mu"]).size == 50


def test_discrete_sites_and_branches():
    @ppl.model
    def model():
        p = sample("p", dist.Beta(1.0, 1.0))
        k = sample("k", dist.Binomial(5, p))
        ppl.cond(k > 2, lambda: sample("x", dist.Normal(100.0, 1.0)), lambda: sample("x", dist.Normal(-100.0, 1.0)))

    out = ppl.predict(model(), KEY, {"p": np.full((2, 20), 0.5)})
    assert out["k"].dtype == jnp.int32 and set(out) == {"k", "x"}
    np.testing.assert_array_equal(out["x"] > 0, out["k"] > 2)
