"""Enumeration against sums done by hand, a transfer matrix, forward-backward, and conjugacy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from inference import exact
from inference.exact import enumeration
from ppl import dist, sample

RAIN, SPRINKLER, WET = 0.2, np.array([0.4, 0.01]), np.array([[0.02, 0.9], [0.8, 0.99]])  # WET[sprinkler, rain]


@ppl.model
def sprinkler(rain=RAIN):
    rain = sample("rain", dist.Bernoulli(rain))
    on = sample("sprinkler", dist.Bernoulli(jnp.asarray(SPRINKLER)[rain]))
    sample("wet", dist.Bernoulli(jnp.asarray(WET)[on, rain]))


def by_hand():
    """p(sprinkler, rain, wet) as a table (2, 2), rows by sprinkler."""
    rain, on = np.array([1 - RAIN, RAIN]), np.stack([1 - SPRINKLER, SPRINKLER])
    return rain * on * WET


def test_a_network_by_hand(precision):
    check_network(1e-5 if precision == "float32" else 1e-7)


def check_network(tolerance):
    found, joint = exact.enumerate_choices(sprinkler() | {"wet": 1}), by_hand()
    np.testing.assert_allclose(found.log_evidence, np.log(joint.sum()), rtol=tolerance)
    posterior = joint / joint.sum()
    marginals = found.marginals()
    assert np.array_equal(marginals["rain"].values, [0, 1])
    np.testing.assert_allclose(marginals["rain"].probabilities, posterior.sum(0), rtol=tolerance)
    np.testing.assert_allclose(marginals["sprinkler"].probabilities, posterior.sum(1), rtol=tolerance)
    both = found.mean(lambda c: {"both": c["rain"] * c["sprinkler"], "rain": c["rain"] > 0})
    np.testing.assert_allclose([both["both"], both["rain"]], [posterior[1, 1], posterior[:, 1].sum()], rtol=tolerance)
    table = found.choices(jnp.arange(4))
    np.testing.assert_allclose(jnp.exp(found.log_probabilities), posterior[table["sprinkler"], table["rain"]], rtol=tolerance)
    assert table["rain"].dtype == jnp.int32 or table["rain"].dtype == jnp.int64


@ppl.model
def ising(coupling, field):
    s = 2.0 * sample("s", dist.Bernoulli(0.5 * jnp.ones((4, 4)))) - 1.0
    ppl.factor("bonds", coupling * (jnp.sum(s[1:] * s[:-1]) + jnp.sum(s[:, 1:] * s[:, :-1])) + field * jnp.sum(s[0]))


def log_partition(coupling, field):
    """By transfer matrices from row to row of the grid."""
    rows = 2.0 * np.array(list(itertools.product(range(2), repeat=4))) - 1.0
    within = np.exp(coupling * np.sum(rows[:, 1:] * rows[:, :-1], axis=1))
    state = within * np.exp(field * rows.sum(1))
    for _ in range(3):
        state = (state @ np.exp(coupling * rows @ rows.T)) * within
    return np.log(state.sum()) - 16 * np.log(2.0)


def test_an_ising_grid_against_transfer_matrices(precision):
    check_ising(1e-5 if precision == "float32" else 1e-7)


def check_ising(tolerance):
    found = exact.enumerate_choices(ising(0.4, 0.3))
    assert len(found.log_probabilities) == 2**16
    np.testing.assert_allclose(found.log_evidence, log_partition(0.4, 0.3), rtol=tolerance)
    h = 1e-4
    magnetisation = (log_partition(0.4, 0.3 + h) - log_partition(0.4, 0.3 - h)) / (2 * h)
    of_row = found.mean(lambda c: jnp.sum(2.0 * c["s"][0] - 1.0))
    np.testing.assert_allclose(of_row, magnetisation, rtol=1e-5)
    marginal = found.marginals()["s"].probabilities
    assert marginal.shape == (4, 4, 2)
    np.testing.assert_allclose(jnp.sum(2.0 * marginal[0, :, 1] - 1.0), magnetisation, rtol=1e-5)
    np.testing.assert_allclose(marginal[3], marginal[3, ::-1], rtol=1e-4)  # left and right are alike


def test_the_evidence_is_differentiable_in_arguments(x64):
    slope = jax.grad(lambda field: exact.enumerate_choices(ising(0.4, field)).log_evidence)(0.3)
    numeric = (log_partition(0.4, 0.3 + 1e-5) - log_partition(0.4, 0.3 - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, numeric, rtol=1e-8)
    slopes = jax.jit(jax.grad(lambda target: exact.enumerate_choices(target).log_evidence))(ppl.Target(ising(0.4, 0.3)))
    np.testing.assert_allclose(slopes.program.args[1], numeric, rtol=1e-8)


def test_arguments_side_by_side():
    rains = jnp.array([0.1, 0.2, 0.9])
    found = jax.vmap(lambda rain: exact.enumerate_choices(sprinkler(rain) | {"wet": 1}).log_evidence)(rains)
    apart = [exact.enumerate_choices(sprinkler(float(rain)) | {"wet": 1}).log_evidence for rain in rains]
    np.testing.assert_allclose(found, jnp.stack(apart), rtol=1e-5)


START, MOVES = np.array([0.5, 0.3, 0.2]), np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]])
LOCATIONS, Y = np.array([-1.0, 0.0, 2.0]), np.array([0.1, -1.2, 1.7, 1.1, 0.2])


@ppl.model
def chain():
    def step(z, _):
        z = sample("z", dist.Categorical(jnp.asarray(MOVES)[z]))
        sample("y", dist.Normal(jnp.asarray(LOCATIONS)[z], 1.0))
        return z, None

    first = sample("first", dist.Categorical(jnp.asarray(START)))
    ppl.scan(step, first, length=5)


@pytest.mark.slow
def test_a_chain_against_forward_backward():
    found = exact.enumerate_choices(chain() | {"y": Y})
    table = np.r_[np.zeros((1, 3)), -0.5 * (Y[:, None] - LOCATIONS) ** 2 - 0.5 * np.log(2 * np.pi)]
    truth = exact.forward_backward(START, MOVES, table)
    digits = 1e-5
    np.testing.assert_allclose(found.log_evidence, truth.log_evidence, rtol=digits)
    np.testing.assert_allclose(found.marginals()["z"].probabilities, truth.smoothed[1:], atol=digits)
    best = found.choices(jnp.argmax(found.log_probabilities))
    assert np.array_equal(np.r_[best["first"], best["z"]], exact.viterbi(START, MOVES, table).path)
    drawn = found.sample(jax.random.key(0), 20_000)["z"]
    shares = np.mean(np.asarray(drawn)[..., None] == np.arange(3), axis=0)
    assert np.all(np.abs(shares - truth.smoothed[1:]) < 5 * 0.5 / np.sqrt(20_000))


@ppl.model
def bins():
    """Sites of different ranges, one of them in a nested program, and data some entries of which are missing."""

    @ppl.model
    def inner():
        return sample("n", dist.DiscreteUniform(2, 5))

    n = sample("in", inner())
    k = sample("k", dist.Binomial(3, 0.4))
    ppl.vmap(lambda p: sample("seen", dist.Binomial(6, p)))(jnp.array([0.1, 0.5, 0.9]) * n / 5)
    sample("sum", dist.Poisson(jnp.float32(1.0) + n + k))


def test_ranges_and_missing_entries():
    seen = np.ma.masked_array([1, 0, 4], mask=[False, True, False])
    program = bins() | {"seen": seen, "sum": 7}
    found = exact.enumerate_choices(program)
    assert len(found.log_probabilities) == 4 * 4 * 7
    marginals = found.marginals()
    assert np.array_equal(marginals["in.n"].values, [2, 3, 4, 5]) and marginals["seen"].probabilities.shape == (1, 7)
    from scipy import stats

    n, k, lost = np.meshgrid(np.arange(2, 6), np.arange(4), np.arange(7), indexing="ij")
    joint = stats.binom.pmf(k, 3, 0.4) * stats.poisson.pmf(7, 1.0 + n + k) / 4
    joint = (
        joint * stats.binom.pmf(1, 6, 0.1 * n / 5) * stats.binom.pmf(4, 6, 0.9 * n / 5) * stats.binom.pmf(lost, 6, 0.5 * n / 5)
    )
    np.testing.assert_allclose(found.log_evidence, np.log(joint.sum()), rtol=1e-5)
    joint = joint / joint.sum()
    np.testing.assert_allclose(marginals["in.n"].probabilities, joint.sum((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(marginals["k"].probabilities, joint.sum((0, 2)), rtol=1e-4)
    np.testing.assert_allclose(marginals["seen"].probabilities[0], joint.sum((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(found.mean(lambda c: c["k"] * c["in"]["n"]), np.sum(joint * n * k), rtol=1e-4)
    assert repr(found) == "Enumeration of 112 joint choices of in.n, k, seen[1]"


def test_values_where_nothing_is_do_not_matter():
    @ppl.model
    def dry():
        rain = sample("rain", dist.Bernoulli(0.5))
        ppl.factor("seen dry", jnp.where(rain == 1, -jnp.inf, 0.0))

    found = exact.enumerate_choices(dry())
    assert float(found.mean(lambda c: jnp.where(c["rain"] == 1, jnp.nan, 2.0))) == pytest.approx(2.0)


def test_impossible_data_have_no_evidence():
    @ppl.model
    def never():
        z = sample("z", dist.Bernoulli(0.5))
        ppl.factor("no", jnp.where(z < 2, -jnp.inf, 0.0))

    assert exact.enumerate_choices(never()).log_evidence == -np.inf


# -- planted bugs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def planted(monkeypatch):
    """Replace a name in the module for one test, with nothing compiled kept from before or for later."""
    jax.clear_caches()
    yield lambda name, value: monkeypatch.setattr(enumeration, name, value)
    monkeypatch.undo()
    jax.clear_caches()


def test_a_last_block_counted_twice_would_be_seen(planted):
    """A grid of 100 choices in blocks of 64: the rows that fill the second block are no choices."""
    planted("BLOCK", 64)
    test_ranges_and_missing_entries()
    planted("_table", lambda target, table=enumeration._table: jnp.append(table(target), table(target)[:16]))
    with pytest.raises(AssertionError):
        test_ranges_and_missing_entries()


def test_digits_read_backwards_would_be_seen(planted):
    def backwards(target, digits=enumeration._digits):
        return digits(target)._replace(stride=digits(target).stride[::-1])

    planted(
        "_position", lambda target, row, d=backwards: (d(target).low + row // d(target).stride % d(target).num).astype(float)
    )
    with pytest.raises(AssertionError):
        check_network(1e-3)


# -- wrong use -----------------------------------------------------------------------------------------------------------


def refused(choose, sentence):
    with pytest.raises(ValueError, match=sentence):
        exact.enumerate_choices(ppl.model(choose)())


def test_sentences():
    def mixed():
        sample("z", dist.Bernoulli(0.5))
        sample("mu", dist.Normal(0.0, 1.0))

    refused(mixed, r"site 'mu' is continuous \(Normal\), and enumerate_choices tries every value")
    refused(lambda: sample("n", dist.Poisson(3.0)), "site 'n' can take infinitely many values")

    def nested_range():
        n = sample("n", dist.DiscreteUniform(1, 3))
        sample("k", dist.Binomial(n, 0.5))

    refused(nested_range, "site 'k' can take infinitely many values, or their number depends on another site")
    many = r"too many joint choices \(2\^23 of 'z', 3\^1 of 'k'\); enumerate_choices tries at most 4194304"
    refused(lambda: (sample("z", dist.Bernoulli(0.5 * jnp.ones(23))), sample("k", dist.Categorical(jnp.ones(3) / 3))), many)
    with pytest.raises(ValueError, match="a program or a target was expected"):
        exact.enumerate_choices(sprinkler)
