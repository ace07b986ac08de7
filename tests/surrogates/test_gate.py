"""The gate: its false alarms, what it refuses, planted bugs, and sentences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from surrogates.gate import Gate

FIT, FRESH = 20_000, 2_000


def features(key, num, shift=0.0):
    """Heavy tails, a curve, scales far apart, and a number that is always the same."""
    z = jax.random.t(key, 4.0, (num, 3)) + jnp.array([shift, 0.0, 0.0])
    return jnp.stack([z[:, 0], 1e3 * (z[:, 0] + 0.1 * z[:, 1] ** 2), 1e-3 * z[:, 2], jnp.full(num, 5.0)], -1)


def gate(seed=0, num=FIT):
    return Gate.fit(features(jax.random.key(seed), num))


def alarms(gate, shift=0.0, seed=1):
    return float((gate(features(jax.random.key(seed), FRESH, shift)) <= 0.05).mean())


def test_false_alarms():
    """Both the 10,000 distances and the 2,000 fresh points err: by 0.53 % together, so 1.5 % is 2.8 of these."""
    assert abs(alarms(gate()) - 0.05) < 0.015


def test_p_values_are_valid_for_small_numbers_too():
    """The mean over fits of few simulations is at most the level: 300 fits of 20 distances, 100 fresh points each."""
    fit = [Gate.fit(features(jax.random.key(i), 40)) for i in range(300)]
    p = np.array([np.asarray(g(features(jax.random.key(1000 + i), 100))) for i, g in enumerate(fit)])
    for level in (0.05, 0.1, 0.2):
        per_fit = (p <= level).mean(axis=1)
        assert per_fit.mean() < level + 4 * per_fit.std() / np.sqrt(len(fit))
        assert per_fit.mean() > 0.5 * level


def test_shifted_data_are_refused_the_more_the_farther():
    refused = [alarms(gate(), shift) for shift in (0.0, 2.0, 4.0, 8.0, 16.0)]
    assert np.all(np.diff(refused) > 0) and refused[-1] > 0.95, refused


def test_what_never_varied_and_what_is_no_number_is_far_out():
    g, usual = gate(), features(jax.random.key(3), 1)[0]
    least = 1.0 / (len(g.distances) + 1)
    assert jnp.isclose(g(usual.at[3].set(6.0)), least) and jnp.isclose(g(usual.at[0].set(jnp.nan)), least)
    assert g(usual) > 0.05 and g(usual.at[3].add(1e-6)) > 0.05  # rounding is not far out


def test_the_threshold_is_the_p_value():
    g, fresh = gate(), features(jax.random.key(4), FRESH)
    for level in (0.01, 0.05, 0.5):
        np.testing.assert_array_equal(g(fresh) <= level, g.distance(fresh) >= g.threshold(level))
    assert gate(num=40).threshold(0.01) == jnp.inf  # twenty distances cannot say


def test_distances_do_not_depend_on_units():
    mixing = jnp.array(np.random.default_rng(0).normal(size=(3, 3)) + 2 * np.eye(3), jnp.float32)
    x = jax.random.normal(jax.random.key(5), (4000, 3))
    one, other = Gate.fit(x), Gate.fit(x @ mixing + 3.0)
    np.testing.assert_allclose(one.distance(x), other.distance(x @ mixing + 3.0), rtol=2e-3)


def test_distances_of_the_rows_that_were_fitted_are_too_small():
    """A planted bug: calibrated on its own rows, of few simulations with many features, it cries wolf."""
    x, fresh = jax.random.normal(jax.random.key(6), (160, 20)), jax.random.normal(jax.random.key(7), (4000, 20))
    honest = Gate.fit(x)
    own = eqx.tree_at(lambda g: g.distances, honest, jnp.sort(honest.distance(x[:80])))
    assert float((honest(fresh) <= 0.05).mean()) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 80)
    assert float((own(fresh) <= 0.05).mean()) > 0.05 + 4 * np.sqrt(0.05 * 0.95 / 80)


def test_it_goes_through_jit_and_vmap():
    g, fresh = gate(), features(jax.random.key(8), 10)
    np.testing.assert_allclose(jax.jit(jax.vmap(lambda g, x: g(x), (None, 0)))(g, fresh), g(fresh), atol=2e-4)
    assert all(eqx.is_array(x) for x in jax.tree.leaves(g))
    assert repr(g) == "Gate over 4 features, with the distances of 10000 simulations"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (jnp.zeros(5), "expected features as a table"),
        (jnp.full((100, 2), jnp.nan), "numbers that are not finite"),
        (jnp.zeros((50, 20)), "20 features need at least 80 simulations, got 50"),
    ],
)
def test_sentences(table, words):
    with pytest.raises(ValueError, match=words):
        Gate.fit(table)


def test_other_features_are_refused():
    with pytest.raises(ValueError, match=r"fitted to 4 features, but got shape \(3,\)"):
        gate()(jnp.zeros(3))
