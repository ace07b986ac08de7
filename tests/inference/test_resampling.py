"""The laws of resampling, for every member of the registry; see `inference/resampling/resampler.py`.

False-alarm rates: each statistical test compares at most 20 numbers with their means at 5 standard errors, or a chi-square at
1e-6; there are some 60 such tests, so all together raise a false alarm less than once in ten thousand keys.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from inference import resampling as rs
from inference.resampling.cumulated import cumulated, repeated
from tests.inference.resamplers import RESAMPLERS, choosing

members = pytest.mark.parametrize("name", RESAMPLERS)
WEIGHTS = np.array([0.02, 0.3, 0.0, 0.11, 0.25, 0.12, 0.2])
KEYS = 20_000


def logs(weights):
    return jnp.log(jnp.asarray(weights, jnp.float32)) + 3.0  # the scale does not matter


def counts(ancestors, size):
    return np.stack([(np.asarray(ancestors) == j).sum(axis=-1) for j in range(size)], axis=-1)


def ancestors_of(resampler, weights, num=None, keys=KEYS, **pin):
    """(keys, num)."""
    call = resampler.pinned if pin else resampler
    run = jax.jit(jax.vmap(lambda key: call(key, jnp.arange(len(weights)), logs(weights), num, **pin).ancestors))
    return np.asarray(run(jax.random.split(jax.random.key(1), keys)))


@choosing
@pytest.mark.parametrize("num", [None, 3, 20])
def test_counts_are_right_in_the_mean(name, num):
    member = RESAMPLERS[name]
    if num is not None and not member.resizes:
        with pytest.raises(ValueError, match=f"{name}: .*{num}"):
            member.resampler(jax.random.key(0), jnp.arange(7), logs(WEIGHTS), num)
        return
    found = counts(ancestors_of(member.resampler, WEIGHTS, num), 7)
    expected = (num or 7) * WEIGHTS
    assert (found.sum(axis=1) == (num or 7)).all()
    assert (found[:, 2] == 0).all()
    errors = found.std(axis=0) / np.sqrt(KEYS) + 1e-6
    np.testing.assert_array_less(np.abs(found.mean(axis=0) - expected), 5 * errors + member.bias * 7)
    if member.close:
        assert (np.abs(found - expected) < 1 + 1e-4).all()


@choosing
def test_pinned_is_the_law_given_the_pinned_slot(name):
    """Given a slot drawn at random, weights say what its ancestor is; and given that, `pinned` says what the others are: so
    both together must have the law of the unpinned, counts of all particles jointly."""
    resampler, weights = RESAMPLERS[name].resampler, np.array([0.45, 0.05, 0.2, 0.3])
    free = counts(ancestors_of(resampler, weights), 4)
    pins = {j: ancestors_of(resampler, weights, pin=j) for j in range(4)}
    assert all((pins[j][:, 0] == j).all() for j in range(4))
    chosen = np.random.default_rng(0).choice(4, size=KEYS, p=weights)
    given = counts(np.stack([pins[j][i] for i, j in enumerate(chosen)]), 4)
    outcomes = [c for c in itertools.product(range(5), repeat=4) if sum(c) == 4]
    table = np.array([[(x == c).all(axis=1).sum() for c in outcomes] for x in (free, given)])
    table = table[:, table.sum(axis=0) > 0]
    rare = table.sum(axis=0) < 20
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)]) if rare.any() else table
    table = table[:, table.sum(axis=0) > 0]
    assert table.shape[1] == 1 or stats.chi2_contingency(table).pvalue > 1e-6


def test_a_wrong_conditional_law_would_be_seen():
    """Planted: systematic resampling, pinned by overwriting the first ancestor."""

    class Wrong(rs.Systematic):
        def ancestors_pinned(self, key, log_weights, num, pin):
            return self.ancestors(key, log_weights, num).at[0].set(pin)

    RESAMPLERS["Wrong"] = RESAMPLERS["Systematic"]._replace(resampler=Wrong())
    try:
        with pytest.raises(AssertionError):
            test_pinned_is_the_law_given_the_pinned_slot("Wrong")
    finally:
        del RESAMPLERS["Wrong"]


@members
def test_the_total_stays_and_particles_move_with_their_ancestors(name):
    member = RESAMPLERS[name]
    particles = {"x": jax.random.normal(jax.random.key(0), (7, 2)), "y": jnp.linspace(0.0, 1.0, 7)}
    new = member.resampler(jax.random.key(3), particles, logs(WEIGHTS))
    assert float(rs.logmeanexp(new.log_weights)) == pytest.approx(float(rs.logmeanexp(logs(WEIGHTS))), abs=1e-5)
    if member.indices:
        np.testing.assert_array_equal(new.particles["x"], particles["x"][new.ancestors])
    else:  # the weighted mean stays, not only in the mean
        np.testing.assert_allclose(new.particles["x"].mean(axis=0), WEIGHTS @ particles["x"], atol=1e-5)


@pytest.mark.parametrize("name", [n for n, m in RESAMPLERS.items() if m.indices and n not in ("SSP", "Metropolis")])
def test_a_million_particles_in_float32_are_counted_rightly(name):
    """Against counts expected in float64; systematic resampling leaves no room for an error of one."""
    num = 1_000_000
    log_weights = 2.0 * jax.random.normal(jax.random.key(0), (num,), jnp.float32)
    exact = np.exp(np.asarray(log_weights, np.float64))
    expected = num * exact / exact.sum()
    slots = jnp.arange(num)
    resample = jax.jit(lambda key, log_weights: RESAMPLERS[name].resampler(key, slots, log_weights).ancestors)
    ancestors = resample(jax.random.key(1), log_weights)
    found = np.bincount(ancestors, minlength=num)
    assert found.sum() == num
    if RESAMPLERS[name].close:
        assert (np.abs(found - expected) < 1 + 1e-3).all()
    blocks = np.abs((found - expected).reshape(100, -1).sum(axis=1))  # sums of 10,000 neighbours
    assert (blocks <= (2.0 if RESAMPLERS[name].close else 5 * np.sqrt(expected.reshape(100, -1).sum(axis=1)) + 5)).all()


def test_cumulated_weights_are_exact_to_a_thousandth_of_a_count():
    num = 1_000_000
    log_weights = 2.0 * jax.random.normal(jax.random.key(5), (num,), jnp.float32)
    heaps = cumulated(log_weights, num)
    exact = np.exp(np.asarray(log_weights, np.float64))
    exact = num * np.cumsum(exact) / exact.sum()
    found = np.asarray(heaps.whole, np.float64) + np.asarray(heaps.part, np.float64) / 2**32
    assert np.abs(found - exact).max() < 0.01
    naive = np.asarray(num * jnp.cumsum(jax.nn.softmax(log_weights)), np.float64)
    assert np.abs(naive - exact).max() > 0.03  # what it is better than


def test_repeated():
    np.testing.assert_array_equal(repeated(jnp.array([0, 2, 2, 5]), 5), [1, 1, 3, 3, 3])


@members
def test_one_particle_may_hold_all_the_weight(name):
    if name == "Metropolis":
        pytest.skip("its chains find it only in the long run")
    log_weights = jnp.full(5, -jnp.inf).at[3].set(-1e4)
    new = RESAMPLERS[name].resampler(jax.random.key(0), jnp.arange(5.0), log_weights)
    np.testing.assert_allclose(new.particles, 3.0, atol=1e-5)
    np.testing.assert_allclose(new.log_weights, -1e4 - np.log(5), rtol=1e-6)


@members
def test_equal_weights(name):
    new = RESAMPLERS[name].resampler(jax.random.key(0), jnp.arange(6.0), jnp.zeros(6))
    assert new.ancestors.shape == (6,)
    if RESAMPLERS[name].close and RESAMPLERS[name].indices:
        np.testing.assert_array_equal(np.sort(new.ancestors), np.arange(6))


def test_when_keeps_even_weights_as_they_are():
    uneven, even = logs(WEIGHTS), jnp.zeros(7).at[0].set(0.1)
    rule = rs.When(rs.Multinomial(), ess=0.9)
    assert len(np.unique(rule(jax.random.key(0), jnp.arange(7), uneven).log_weights)) == 1
    kept = rule(jax.random.key(0), jnp.arange(7), even)
    np.testing.assert_array_equal(kept.log_weights, even)
    np.testing.assert_array_equal(kept.ancestors, np.arange(7))
    np.testing.assert_array_equal(rule.pinned(jax.random.key(0), jnp.arange(7), even, pin=2).ancestors, [2, 1, 0, 3, 4, 5, 6])
    with pytest.raises(ValueError, match="When: ess must be a share"):
        rs.When(rs.Multinomial(), ess=1.5)


@pytest.mark.slow
def test_the_gradient_of_what_is_resampled_is_unbiased():
    """d/dt sum_i w_i(t) f(x_i) / sum_i w_i(t), by the mean over resamplings of weights that remember where they came from."""
    f = jnp.array([1.0, -2.0, 0.5, 3.0])

    def log_weights(t):
        return t * jnp.array([0.3, -1.0, 0.7, 0.1])

    def exact(t):
        return jax.nn.softmax(log_weights(t)) @ f

    def estimate(t, key):
        new = rs.StopGradient(rs.Multinomial())(key, f, log_weights(t))
        return jnp.mean(jnp.exp(new.log_weights - rs.logmeanexp(log_weights(t))) * new.particles)

    slopes = jax.vmap(jax.grad(estimate), (None, 0))(0.8, jax.random.split(jax.random.key(0), KEYS))
    assert abs(slopes.mean() - jax.grad(exact)(0.8)) < 5 * slopes.std() / np.sqrt(KEYS)


def test_optimal_transport_is_differentiable_and_smooth():
    x = jax.random.normal(jax.random.key(0), (20,))

    def spread(t):
        return jnp.var(rs.OptimalTransport(blur=0.3)(jax.random.key(0), x, t * x).particles)

    slope = (spread(0.501) - spread(0.499)) / 0.002
    assert float(jax.grad(spread)(0.5)) == pytest.approx(float(slope), rel=0.05, abs=1e-3)
    with pytest.raises(ValueError, match="OptimalTransport: it mixes particles"):
        rs.OptimalTransport()(jax.random.key(0), jnp.arange(3), jnp.zeros(3))
    with pytest.raises(ValueError, match="none can be pinned"):
        rs.OptimalTransport().pinned(jax.random.key(0), x, x)
