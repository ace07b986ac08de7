"""Charts: the laws of every one, the search, and sentences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from surrogates.emulators.charts import (
    BoxCox,
    Charts,
    Given,
    Identity,
    Judged,
    Log,
    Logit,
    Monotone,
    Reciprocal,
    Search,
    identities,
)

LOW, HIGH = 0.5, 4.0


def effect(knots):
    return np.diff(np.exp(knots))


MAKERS = {
    "identity": Identity.of,
    "log": Log.of,
    "reciprocal": Reciprocal.of,
    "root": partial(BoxCox.of, power=0.5),
    "square": partial(BoxCox.of, power=2.0),
    "logit": Logit.of,
    "monotone": Monotone.of,
}
CHARTS = {name: make(LOW, HIGH, effect) for name, make in MAKERS.items()}
EVERYWHERE = np.concatenate([np.linspace(-3.0, LOW, 20), np.linspace(LOW, HIGH, 101), np.linspace(HIGH, 9.0, 20)])


@pytest.mark.parametrize("name", CHARTS)
def test_laws(name):
    chart = CHARTS[name]
    u = chart(EVERYWHERE)
    assert np.all(np.diff(u)[np.diff(EVERYWHERE) > 0] > 0.0)
    # the worst is the square near its vertex: rounding of u, 1e-15, over a slope of 0.05 far below the range
    np.testing.assert_allclose(chart.inverse(u), EVERYWHERE, atol=1e-11)
    np.testing.assert_allclose(chart(np.array([LOW, HIGH])), [0.0, 1.0], atol=1e-14)
    np.testing.assert_allclose(chart.inverse(np.array([0.0, 1.0])), [LOW, HIGH], atol=1e-14)


@pytest.mark.parametrize("name", CHARTS)
def test_slope_is_the_derivative_and_tangents_go_on(name, x64):
    chart = CHARTS[name]
    slopes = jax.vmap(jax.grad(chart))(jnp.asarray(EVERYWHERE))
    start, end = chart.form(np.array([LOW, HIGH]))
    inside = np.clip(EVERYWHERE, LOW, HIGH)
    np.testing.assert_allclose(slopes, chart.slope(inside) / (end - start), rtol=1e-9)
    ahead, behind = (chart(EVERYWHERE + step) for step in (1e-6, -1e-6))
    np.testing.assert_allclose(slopes, (ahead - behind) / 2e-6, rtol=2e-5)  # second derivatives times 1e-6, at the ends


def test_on_the_host_and_on_the_device():
    charts = Charts(tuple(CHARTS.values()))
    x = np.random.default_rng(0).uniform(LOW, HIGH, (5, len(CHARTS)))
    here, there = charts(x), charts(jnp.asarray(x))
    assert isinstance(here, np.ndarray) and isinstance(there, jax.Array)
    np.testing.assert_allclose(here, there, atol=3e-6)
    np.testing.assert_allclose(charts.inverse(here), x, atol=1e-12)


def test_ranges_that_a_chart_has_not():
    assert Log.of(0.0, 1.0) is None and Reciprocal.of(-1.0, 1.0) is None and BoxCox.of(0.0, 1.0) is None
    assert Monotone.of(0.0, 1.0) is None and Monotone.of(0.0, 1.0, lambda k: np.zeros(len(k) - 1)) is None
    assert (Logit.of(0.1, 0.9).bottom, Logit.of(0.0, 2.0).bottom) == (0.0, -0.1)
    never = identities(np.array([2.0]), np.array([2.0]))
    assert never(np.array([2.0])) == 0.0


def test_a_monotone_chart_climbs_where_outputs_change():
    """In its coordinate the outputs change about evenly: a tenth of evenness is mixed in."""
    u = Monotone.of(LOW, HIGH, effect)(np.linspace(LOW, HIGH, 9))
    even = np.exp(np.linspace(LOW, HIGH, 9))
    even = (even - even[0]) / (even[-1] - even[0])
    np.testing.assert_allclose(u, (even + 0.1 * np.linspace(0, 1, 9)) / 1.1, atol=1e-12)


def test_the_search_takes_what_brings_nats_and_nothing_else():
    seen = []

    def judge(charts):
        seen.append(str(charts))
        kinds = [type(c) for c in charts.charts]
        return Judged(10.0 * (kinds[0] is Reciprocal) + 1.0 * (kinds[1] is Log), lambda i: effect)

    low, high = np.array([LOW, LOW, 1.0]), np.array([HIGH, HIGH, 1.0])
    charts = Search().choose(low, high, ("a", "b", "c"), judge)
    assert str(charts) == "Reciprocal, Identity, Identity"  # one nat is not enough; the third never varied
    assert len(seen) == 1 + 2 * 2 * 6  # two sweeps of two inputs, and what each is already is not tried again
    assert str(Search(gain=0.5).choose(low, high, ("a", "b", "c"), judge)) == "Reciprocal, Log, Identity"
    assert str(Search((Log.of,)).choose(low, high, ("a", "b", "c"), judge)) == "Identity, Identity, Identity"


def test_given():
    low, high = np.array([LOW, -1.0]), np.array([HIGH, 1.0])
    charts = Given(a=Log.of).choose(low, high, ("a", "b"), lambda c: Judged(0.0, lambda i: effect))
    assert str(charts) == "Log, Identity"
    with pytest.raises(ValueError, match="no input is called 'c'; there are a, b"):
        Given(c=Log.of).choose(low, high, ("a", "b"), None)
    with pytest.raises(ValueError, match="chart of 'b' cannot be had on its range, -1 to 1"):
        Given(b=Log.of).choose(low, high, ("a", "b"), None)
