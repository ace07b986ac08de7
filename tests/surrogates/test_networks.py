"""Columns, tokens and trunk: the laws of what networks are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist, sample
from ppl.choices import Partial
from surrogates.columns import Columns
from surrogates.tokens import Reader
from surrogates.trunk import MLP, Trunk

KEY = jax.random.key(0)


@ppl.model
def kinds(num):
    def row(_):
        sample("real", dist.Normal(3.0, 2.0))
        sample("positive", dist.LogNormal(1.0, 0.5))
        sample("kind", dist.Categorical(jnp.array([0.5, 0.3, 0.2])))
        sample("count", dist.Poisson(4.0))
        sample("shares", dist.Dirichlet(jnp.ones(3)))

    ppl.vmap(row)(jnp.arange(num))


def columns(num=5):
    program = kinds(num)
    draws = jax.vmap(lambda key: program.simulate(key).choices)(jax.random.split(KEY, 2000))
    return Columns.of(program.sites(), draws, axes=1), jax.tree.map(lambda x: x[0], draws)


def test_columns_are_standardised_on_the_supports():
    """Medians 0 and spreads 1 of 2,000 draws of 5 rows, to 4 errors of quantiles; one-hot columns; flags of presence."""
    read, values = columns()
    assert read.names == ("real", "positive", "kind", "count", "shares")
    assert read.size == 1 + 1 + 3 + 1 + 2 + 5
    draws = jax.vmap(lambda key: kinds(5).simulate(key).choices)(jax.random.split(jax.random.key(1), 2000))
    numbers = np.asarray(jax.vmap(lambda x: read(x, axes=1))(draws)).reshape(-1, read.size)
    for i in (0, 1, 6, 7):  # of continuous values
        assert abs(np.median(numbers[:, i])) < 0.06, i
        assert abs(np.subtract(*np.quantile(numbers[:, i], [0.84, 0.16])) - 2.0) < 0.1, i
    assert (numbers[:, -5:] == 1.0).all()
    kind = np.asarray(read(values, axes=1))[:, 2:5]
    assert (kind.argmax(-1) == values["kind"]).all()


def test_what_is_missing_is_read_as_the_middle():
    read, values = columns()
    plain = read(values, axes=1)
    gone = dict(values, real=values["real"].at[2].set(jnp.nan))
    masked = dict(values, real=Partial(values["real"], jnp.arange(5) != 2))
    for other in (gone, masked):
        found = read(other, axes=1)
        assert found[2, 0] == 0.0 and found[2, -5] == 0.0 and found[2, -4:].all()
        np.testing.assert_array_equal(np.delete(found, 2, 0), np.delete(plain, 2, 0))


def test_far_values_are_drawn_in_and_stay_finite():
    read, values = columns()
    far = [read(dict(values, real=jnp.full(5, x)), axes=1)[0, 0] for x in (13.0, 1e3, 1e30, jnp.inf)]
    assert np.all(np.diff(far[:3]) > 0.0) and np.isfinite(far).all() and far[3] < 40.0


def test_ends_of_an_interval_are_not_far():
    """A uniform number has its ends sqrt(3) deviations out; 2 with the spread by quantiles, and drawn in a little."""

    @ppl.model
    def places():
        sample("x", dist.Uniform(-1.0, 3.0))

    draws = jax.vmap(places().simulate)(jax.random.split(KEY, 2000)).choices
    read = Columns.of(places().sites(), draws)
    ends = np.array([read({"x": x})[0] for x in (-1.0, 3.0)])
    np.testing.assert_allclose(ends, [-1.4, 1.4], atol=0.1)


def trunk_and_tokens(num=6, width=16, depth=2):
    trunk = Trunk.of(width, depth, heads=4, key=KEY)
    shaken = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(5), x.shape), trunk)
    known = jax.random.normal(jax.random.key(1), (num, width))
    asked = jax.random.normal(jax.random.key(2), (3, width))
    return trunk, shaken, asked, known


def test_order_and_absent_tokens_do_not_matter():
    _, trunk, asked, known = trunk_and_tokens()
    there = jnp.array([True, True, False, True, False, True])
    found = trunk(asked, known, there)
    turned = jnp.array([5, 3, 2, 0, 1, 4])
    np.testing.assert_allclose(trunk(asked, known[turned], there[turned]), found, atol=1e-5)
    np.testing.assert_allclose(trunk(asked, known[there], jnp.ones(4, bool)), found, atol=1e-5)
    np.testing.assert_allclose(trunk(asked, known.at[2].set(1e3), there), found, atol=1e-5)
    assert abs(trunk(asked, known.at[0].multiply(-1.0), there) - found).max() > 1e-2  # and those that are there do


def test_it_begins_as_the_identity_and_asks_see_each_other():
    plain, trunk, asked, known = trunk_and_tokens()
    norm = (asked - asked.mean(-1, keepdims=True)) / asked.std(-1, keepdims=True)
    np.testing.assert_allclose(plain(asked, known, jnp.ones(6, bool)), norm, atol=1e-4)
    there = jnp.ones(6, bool)
    alone = jax.vmap(lambda token: trunk(token[None], known, there)[0])(asked)
    assert abs(alone - trunk(asked, known, there)).max() > 1e-2
    np.testing.assert_allclose(alone[0], trunk(asked[:1], known, there)[0], atol=1e-5)


@pytest.mark.slow
def test_nothing_known_has_finite_slopes():
    _, trunk, asked, known = trunk_and_tokens()
    slopes = jax.grad(lambda trunk: trunk(asked, known, jnp.zeros(6, bool)).sum())(trunk)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(slopes))
    assert jnp.isfinite(trunk(asked, known[:0], jnp.zeros(0, bool))).all()


def test_half_precision_is_near():
    _, trunk, asked, known = trunk_and_tokens()
    half = Trunk(trunk.blocks, jnp.dtype(jnp.bfloat16))
    exact, found = (t(asked, known, jnp.ones(6, bool)) for t in (trunk, half))
    assert found.dtype == jnp.float32 and 1e-5 < abs(found - exact).max() < 0.1


def test_a_reader_has_a_token_a_row_and_one_a_site():
    read, values = columns()
    whole = Columns.of({"real": kinds(5).sites()["real"]}, {"real": np.zeros((3, 5))})
    reader = Reader.of(read, (whole,), width=8, key=KEY)
    tokens, there = reader(values, jnp.arange(5) < 2)
    assert tokens.shape == (6, 8) and there.tolist() == [True, True, False, False, False, True]
    assert reader(values)[1].all()
    assert MLP.of(KEY, 3, 4, zero=True)(jnp.ones((2, 3))).tolist() == [[0.0] * 4] * 2


def test_sentences():
    with pytest.raises(ValueError, match="width must be a multiple of the heads, got 10 and 4"):
        Trunk.of(10, 2, 4, key=KEY)
    with pytest.raises(ValueError, match="Trunk: depth must be a whole number of at least 1, got 0"):
        Trunk.of(8, 0, 4, key=KEY)
