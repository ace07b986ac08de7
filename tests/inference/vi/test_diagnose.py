"""Variances that are known, and what is said of them. The product decides, so costs are told apart by orders of magnitude."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference.vi as vi
import ppl
from inference.fixed import Fixed
from inference.vi.diagnose import Gradients, Tried
from ppl import dist, sample

SAMPLES = 4000


@ppl.model
def guide(phi, offset):
    sample("x", dist.Normal(phi, 1.0))
    sample("b", dist.Bernoulli(logits=phi + offset.value))


@vi.expectation
def objective(guide, data):
    choices, _ = ppl.draw(guide)
    return choices["x"] ** 2 + 3.0 * choices["b"] + 0.0 * data


@pytest.fixture(scope="module")
def report():
    now = objective.using({"b": vi.Enumerate()})
    return vi.diagnose_gradients(now, guide(0.0, Fixed(0.0)), jnp.zeros(()), key=jax.random.key(0), samples=SAMPLES)


def variances(report, site):
    return {type(row.strategy).__name__: row.variance for row in report.tried if row.site == site}


def test_variances_are_those_of_the_theory(report):
    """At phi = 0 the slope through x is 2x, of variance 4; by its score x (x^2 + 3/2) has E x^6 + 3 E x^4 + 9/4 = 26.25."""
    of_x = variances(report, "x")
    assert set(of_x) == {"Reparameterised", "Score", "MeasureValued"}  # enumeration of a normal is refused
    np.testing.assert_allclose(report.now.variance, 4.0, rtol=0.15)
    np.testing.assert_allclose(of_x["Reparameterised"], 4.0, rtol=0.15)
    np.testing.assert_allclose(of_x["Score"], 26.25, rtol=0.35)

    of_b = variances(report, "b")
    assert set(of_b) == {"Score", "Enumerate", "MeasureValued", "DisARM"}
    # by its score b has 2x + (b - 1/2) (x^2 + 3 b), of mean 3/4
    exact = 4.0 + 0.25 * np.mean([3.0, 3.0 + 6.0 + 9.0]) - 0.75**2
    np.testing.assert_allclose(of_b["Score"], exact, rtol=0.15)
    for name in ("Enumerate", "MeasureValued"):
        np.testing.assert_allclose(of_b[name], 4.0, rtol=0.15)  # that of 2x alone


def test_the_report(report):
    assert type(report.best["x"]) is not vi.Score
    assert type(report.best["b"]) is not vi.Score
    assert all(row.seconds > 0 for row in report.tried)
    best = objective.using(report.best)
    jax.eval_shape(lambda key: best.estimate(key, guide(0.0, Fixed(0.0)), jnp.zeros(())), jax.random.key(1))
    text = str(report)
    assert "as it is" in text and "DisARM" in text and text.count("best") == 2


def test_the_product_decides_and_bias_excludes():
    rows = (
        Tried("b", vi.Score(), 10.0, 1e-6),
        Tried("b", vi.Enumerate(), 1.0, 1e-3),
        Tried("b", vi.Concrete(0.5), 0.0, 1e-6),
        Tried("b", vi.DisARM(), float("nan"), 1e-6),
    )
    report = Gradients(Tried("(all)", None, 1.0, 1e-6), rows)
    assert type(report.best["b"]) is vi.Score
    assert "biased" in str(report)


def test_sites_of_expectations_that_are_called_and_patterns():
    @vi.expectation
    def lane(t):
        return 1.0 * sample("b", dist.Bernoulli(logits=t))

    @vi.expectation
    def total(t):
        return ppl.cond(t > 0, lane, lane, t) * sample("x", dist.Normal(1.0, 0.1))

    using = total.using({"*": vi.Score()})
    report = vi.diagnose_gradients(
        using, 0.0, key=jax.random.key(0), samples=5, strategies=(vi.Enumerate(), vi.Reparameterised())
    )
    assert [(row.site, type(row.strategy).__name__) for row in report.tried] == [("b", "Enumerate"), ("x", "Reparameterised")]


def test_sentences():
    key, args = jax.random.key(0), (guide(0.0, Fixed(0.0)), jnp.zeros(()))
    with pytest.raises(ValueError, match=r"objective has no argument 'gide'.*Did you mean 'guide'"):
        vi.diagnose_gradients(objective, *args, key=key, free="gide")
    with pytest.raises(ValueError, match="nothing to learn in guide"):
        vi.diagnose_gradients(objective, guide(0, Fixed(0.0)), jnp.zeros(()), key=key)
    with pytest.raises(ValueError, match="draws nothing"):
        vi.diagnose_gradients(vi.expectation(lambda t: t), 1.0, key=key)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        vi.diagnose_gradients(objective, *args, key=key, samples=1)
    with pytest.raises(ValueError, match="must return one number"):
        vi.diagnose_gradients(vi.expectation(lambda t: sample("x", dist.Normal(t, jnp.ones(2)))), 1.0, key=key)
