"""A table of simulations as a source: what it draws, what it scores, and when training on it ends."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import inference as inf
import ppl
from ppl import dist, sample
from surrogates.cases import Cases
from surrogates.simulations import Simulations, settled

KEY, NUM = jax.random.key(0), 400


@ppl.model
def shifted():
    theta = sample("theta", dist.Normal(0.0, 1.0))
    sample("x", dist.Normal(theta, 1.0))


@inf.expectation
def line(source, net):
    """The log density of theta, if it is Normal around a line in x; at its best the posterior, Normal(x / 2, sqrt(1/2))."""
    case, _ = ppl.draw(source)
    law = dist.Normal(net["slope"] * case["data"]["x"], jnp.exp(net["log_sd"]))
    return law.log_prob(case["position"][0])


@inf.expectation
def bumps(source, net):
    """The same with a bump on every one of many places in x: as many numbers as there are cases, and more."""
    case, _ = ppl.draw(source)
    near = jnp.exp(-0.5 * ((case["data"]["x"] - jnp.linspace(-4.0, 4.0, 2 * NUM)) / 0.01) ** 2)
    return dist.Normal(near @ net["heights"], jnp.exp(net["log_sd"])).log_prob(case["position"][0])


LINE = {"slope": jnp.zeros(()), "log_sd": jnp.zeros(())}


@pytest.fixture(scope="module")
def table():
    return Simulations.of(Cases.of(shifted() | {"x": 0.0}), NUM, key=KEY)


def test_every_case_is_one_of_the_table_and_all_come_up(table):
    """Of 8,000 draws, each of 400 cases comes up 20 +- 4.5 times; chi-square of 399 degrees has the deviation 28."""
    drawn = np.asarray(jax.vmap(table.simulate)(jax.random.split(KEY, 20 * NUM)).choices["data"]["x"])
    values, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(values, np.unique(table.cases["data"]["x"]))
    assert len(values) == table.num == NUM
    assert abs(np.sum((counts - 20.0) ** 2 / 20.0) - (NUM - 1)) < 5.0 * 28.0


def test_a_score_is_the_mean_over_all_cases_each_once(table):
    net = {"slope": jnp.float32(0.3), "log_sd": jnp.float32(-0.2)}
    theta, x = table.cases["position"][:, 0], table.cases["data"]["x"]
    known = dist.Normal(0.3 * x, np.exp(-0.2)).log_prob(theta).mean()
    np.testing.assert_allclose(table.score(line, net), known, rtol=1e-5)
    part = table.rows(slice(7))
    assert part.num == 7
    np.testing.assert_allclose(
        part.score(line, net), dist.Normal(0.3 * x[:7], np.exp(-0.2)).log_prob(theta[:7]).mean(), rtol=1e-5
    )


def test_training_comes_to_the_fit_of_what_is_not_held_out(table):
    """Maximum likelihood of the 360 cases that are shown is a regression through the origin."""
    net, fit, scores = settled(line, table, LINE, key=KEY, steps=400, batch=360, progress=False)
    theta, x = table.cases["position"][40:, 0], table.cases["data"]["x"][40:]
    slope = float(x @ theta / (x @ x))
    assert abs(float(net["slope"]) - slope) < 0.03  # batches are drawn: 360 of 360 with replacement, over the last steps
    assert len(fit.values) == 400
    assert scores.max() > scores[0] + 0.2  # of the exact posterior over the prior: log(2) / 2
    assert table.rows(slice(40)).score(line, net) == pytest.approx(scores.max(), abs=1e-6)


def test_it_ends_when_cases_are_learned_by_heart(table):
    """The network that is returned is the one of the best round, though a later one fits the cases shown better."""
    begin = {"heights": jnp.zeros(2 * NUM), "log_sd": jnp.zeros(())}
    net, _, scores = settled(bumps, table, begin, key=KEY, steps=150, batch=64, most=30, progress=False)
    assert scores[-1] <= scores[:-1].max() and 2 <= len(scores) < 31
    assert table.rows(slice(40)).score(bumps, net) == pytest.approx(scores.max(), abs=1e-5)


def test_sentences(table):
    with pytest.raises(ValueError, match="num must be a whole number of at least 1"):
        Simulations.of(table, 0, key=KEY)
    for held in (0.0, 1.0, 0.01, 0.99):
        with pytest.raises(ValueError, match=f"settled: held={held} of 400 cases must leave at least 20 to be scored"):
            settled(line, table, LINE, key=KEY, held=held)
    with pytest.raises(ValueError, match="a round of 1 steps took the score of 40 held-out cases from .* to"):
        settled(line, table, LINE, key=KEY, steps=1, batch=8, optimizer=optax.sgd(100.0), progress=False)
