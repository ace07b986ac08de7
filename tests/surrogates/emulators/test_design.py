"""Designs: what a call is given, runs spread as its arguments are, and no run twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import ppl
from ppl import dist, sample
from surrogates.emulators.design import CallSite, fresh, laws, quantiles, spread
from surrogates.emulators.runs import unpack

KEY = jax.random.key(2)


def curve(a, b):
    return jnp.sin(a) * jnp.arange(3.0) + jnp.sum(b)


@ppl.model
def inner():
    a = sample("a", dist.Normal(1.0, 2.0))
    b = sample("b", dist.Uniform(-1.0, 1.0).expand([2]))
    sample("y", dist.Normal(ppl.call("curve", curve, jnp.exp(a), b), 0.1))


@ppl.model
def outer():
    sample("part", inner())


@pytest.mark.parametrize("program, address, prefix", [(inner(), "curve", ""), (outer(), "part.curve", "part.")])
def test_what_a_call_is_given(program, address, prefix):
    program = program | ({"y": np.zeros(3)} if not prefix else {"part": {"y": np.zeros(3)}})
    site = CallSite.of(program, address)
    assert site.shapes == ((), (2,)) and site.out == (3,) and site.fn is curve
    choices = {"a": jnp.array([0.3, -1.0]), "b": jnp.array([[0.1, 0.2], [0.5, -0.5]])}
    rows = site.rows(choices if not prefix else {"part": choices})
    np.testing.assert_allclose(rows, [[np.exp(0.3), 0.1, 0.2], [np.exp(-1.0), 0.5, -0.5]], rtol=1e-6)
    a, b = unpack(site.shapes, rows[0])
    assert a.shape == () and b.shape == (2,)


def test_the_only_call_need_not_be_named():
    assert CallSite.of(inner()).address == "curve"


def test_prior_rows_are_the_arguments_of_prior_draws():
    """log of the first argument is Normal(1, 2): mean and sd of 2048 within 4 errors."""
    rows = np.asarray(CallSite.of(inner() | {"y": np.zeros(3)}).prior_rows(KEY))
    log_a = np.log(rows[:, 0])
    assert rows.shape == (2048, 3)
    assert abs(log_a.mean() - 1.0) < 4 * 2.0 / 2048**0.5 and abs(log_a.std() / 2.0 - 1) < 4 / (2 * 2048) ** 0.5
    assert (np.abs(rows[:, 1:]) < 1).all()


def test_nothing_costly_is_called():
    def never(a, b):
        return jax.pure_callback(lambda *_: 1 / 0, jax.ShapeDtypeStruct((3,), a.dtype), a, b)

    site = CallSite.of(inner().intervene({"curve": never}) | {"y": np.zeros(3)})
    assert site.fn is never and site.prior_rows(KEY, 8).shape == (8, 3)


def test_a_call_in_a_plate_is_made_in_every_lane():
    @ppl.model
    def plate():
        a = sample("a", dist.Normal(0.0, 1.0))
        ppl.vmap(lambda t: sample("y", dist.Normal(ppl.call("curve", lambda a, t: a * t, a, t), 1.0)))(jnp.arange(3.0))

    rows = CallSite.of(plate() | {"y": np.zeros(3)}).rows({"a": jnp.array([2.0, 5.0])})
    np.testing.assert_allclose(rows, [[2, 0], [2, 1], [2, 2], [5, 0], [5, 1], [5, 2]])


def test_spread_covers_every_dimension_evenly():
    """Of 16 points of Sobol's sequence, shifted, every sixteenth part of every axis holds at most two, and few hold none; as
    many independent points leave a third of the parts empty."""
    u = spread(KEY, 16, lambda u: u, 3)
    counts = np.stack([np.bincount((u[:, j] * 16).astype(int), minlength=16) for j in range(3)])
    assert u.shape == (16, 3) and counts.max() <= 2
    assert (spread(KEY, 16, lambda u: u, 3) == u).all() and not (spread(jax.random.key(9), 16, lambda u: u, 3) == u).any()
    assert spread(KEY, 5, lambda u: u, 2).shape == (5, 2)


def test_quantiles_of_draws():
    draws = np.stack([np.arange(100.0), -np.arange(100.0)], 1)
    found = quantiles(draws)(np.array([[0.5, 0.5], [0.005, 0.995]]))
    np.testing.assert_allclose(found, [[49.5, -49.5], [0.0, 0.0]], atol=1e-9)


def test_laws_of_arguments():
    over = {"x": dist.Uniform(0.0, 2.0), "z": dist.Normal(0.0, 1.0).expand([2])}
    names, shapes, quantile = laws(over, KEY)
    assert names == ("x", "z") and shapes == ((), (2,))
    u = np.array([[0.25, 0.5, 0.9], [0.5, 0.1, 0.2]])
    np.testing.assert_allclose(quantile(u), np.column_stack([2 * u[:, 0], norm.ppf(u[:, 1:])]), rtol=1e-4, atol=1e-6)


def test_a_law_without_quantiles_is_drawn_from():
    _, shapes, quantile = laws({"w": dist.Dirichlet(jnp.ones(2))}, KEY)
    found = quantile(np.array([[0.5, 0.5], [0.9, 0.1]]))
    assert shapes == ((2,),) and abs(found[0] - 0.5).max() < 0.05 and abs(found[1] - [0.9, 0.1]).max() < 0.05


def test_no_run_twice():
    x = jnp.array([[0.1, 0.2], [0.3, 0.4]])
    candidates = jnp.array([[0.1, 0.2], [0.5, 0.6], [0.5, 0.6], [0.3, 0.4], [jnp.nan, 0.0], [0.7, -0.0], [0.7, 0.0]])
    found = fresh(KEY, candidates, x, 10)
    assert sorted(map(tuple, np.round(found, 3))) == [(0.5, 0.6), (0.7, 0.0)]
    assert len(fresh(KEY, candidates, x, 1)) == 1 and fresh(KEY, candidates[:1], x, 3).shape == (0, 2)


def test_what_is_wrong_is_said():
    @ppl.model
    def two():
        a = sample("a", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(ppl.call("f", jnp.sin, a) + ppl.call("g", lambda a, *, k: a * k, a, k=2.0), 1.0))

    @ppl.model
    def several():
        sample("y", dist.Normal(ppl.call("f", lambda a: (a, a), sample("a", dist.Normal(0.0, 1.0)))[0], 1.0))

    for make, sentence in (
        (lambda: CallSite.of(two()), "no call is named; its calls are 'f', 'g'"),
        (lambda: CallSite.of(two(), "h"), "'h' is no call of the program; its calls are 'f', 'g'"),
        (lambda: CallSite.of(two(), "g"), "the call 'g' has the keyword arguments k"),
        (lambda: CallSite.of(several()), "the call 'f' must return one array"),
        (lambda: laws({}, KEY), "over must be like"),
        (lambda: laws({"x": 3.0}, KEY), r"over\['x'\] must be a distribution"),
    ):
        with pytest.raises(ValueError, match=sentence):
            make()
