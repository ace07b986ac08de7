"""Heads: laws that every member keeps, what each can do beyond, planted bugs, and sentences."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist, sample
from surrogates.heads import Bar, Categories, Flow, LowRankMixture, Mixture, Scaled, Spline, Supported
from surrogates.heads.bar import Bars
from surrogates.heads.supported import Carried
from tests.surrogates.heads import MEMBERS, SCALAR, signs

KEY, N = jax.random.key(0), 20_000
every = pytest.mark.parametrize("name", MEMBERS)
SIBLINGS = ("mixture of vectors of one", "flow of one", "interval", "low rank")  # others stand for them
most = pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SIBLINGS)) for n in MEMBERS])
DRAWS_ERR = 5.5  # standard deviations: false alarms at 4e-8 a number, of which there are about 60
GRID_ERR = 4e-3  # of sums for integrals; half a cell's mass at a jump of the density


def sums(head, raw, points, measure):
    """The integral of the density, and of bounded functions by it, beside their averages over draws."""
    law = head.law(raw)
    draws = law.sample(KEY, (N,))
    density = jnp.exp(law.log_prob(jnp.asarray(points, draws.dtype))) * measure

    def looks(x):
        x = jnp.tanh(jnp.atleast_2d(x.reshape(x.shape[0], -1)) - 0.3)
        return jnp.concatenate([x, jnp.prod(x, -1, keepdims=True), jnp.sin(3.0 * x)], -1)

    looked = looks(draws)
    return jnp.sum(density), density @ looks(jnp.asarray(points, float)), jnp.mean(looked, 0), jnp.std(looked, 0)


def is_lawful(member) -> bool:
    total, expected, found, deviations = jax.jit(lambda *args: sums(*args))(
        member.head, member.raw(0.5), *member[1:]
    )  # traced anew
    close = np.abs(found - expected) < DRAWS_ERR * deviations / np.sqrt(N) + GRID_ERR
    return bool(abs(total - 1.0) < GRID_ERR and close.all())


@every
def test_density_integrates_to_one_and_is_that_of_draws(name, x64):
    assert is_lawful(MEMBERS[name]())


def flat(self, value):
    return jnp.log(jax.nn.softmax(self.logits))[self._bucket(value)[0]]


def stiff(self, value):
    return self.base_dist.log_prob(self.transforms[0].inv(value))


@pytest.mark.parametrize("name, law, bug", [("bar", Bars, flat), ("interval", Carried, stiff), ("simplex", Carried, stiff)])
def test_planted_bugs_are_caught(name, law, bug, x64, monkeypatch):
    """Widths of buckets forgotten; a Jacobian."""
    monkeypatch.setattr(law, "log_prob", bug)
    assert not is_lawful(MEMBERS[name]())


def checked(head, raw, far, key):
    """Of a law: draws, and whether they lie inside; whether densities there and far out are finite, and their slopes."""
    law = head.law(raw)
    x = law.sample(key, (500,))
    y = jnp.concatenate([x, far.astype(x.dtype)])
    log_prob, pull = jax.vjp(lambda raw, y: head.law(raw).log_prob(y), raw, x if x.dtype == int else y)
    by_raw, by_value = pull(jnp.ones_like(log_prob))
    slopes = by_raw.sum() + (0.0 if x.dtype == int else by_value[500:].sum())
    return x, jnp.all(law.support(x)), log_prob, slopes


FAR = {  # of members whose values are no reals
    "positive": [1e-20, 1e4, 1e20],
    "interval": [2.0, 2.000001, 5.0],
    "simplex": [[1, 0, 0], [0.5, 0.5, 0], [1e-6, 0, 1 - 1e-6]],
    "ordered": [[-1e4, 1e4], [0.0, 1e-3], [1e4, 1e4 + 0.1]],
}


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@most
def test_extreme_raw_numbers(name, dtype, x64):
    """Raw numbers of +-50: draws inside, densities and slopes finite, also far out; all in the precision of the raw numbers,
    though doubles are on. And the law of the start is broad."""
    member = MEMBERS[name]()
    head, event = member.head, len(member.head.event_shape)
    far = jnp.array(FAR.get(name, np.array([-1e4, 1e2, 1e4]).reshape(3, *(1,) * event)), dtype)
    far = jnp.broadcast_to(far, (3, *head.event_shape))
    raws = jnp.stack([head.start(), member.raw(1.0), signs(head, 2), signs(head, 3), signs(head, 4)]).astype(dtype)
    x, inside, log_prob, slopes = jax.jit(jax.vmap(checked, (None, 0, None, None)))(head, raws, far, KEY)
    assert name == "categories" or x.dtype == log_prob.dtype == dtype
    assert inside.all() and jnp.isfinite(log_prob).all() and jnp.isfinite(slopes).all()
    if name in ("scalar mixture", "mixture", "low rank", "spline"):
        x = np.asarray(x[0]).reshape(500, -1)
        assert np.abs(x.mean(0)).max() < 0.4 and 0.7 < x.std(0).min() and x.std(0).max() < 1.8


@most
def test_laws_are_sites_and_batches(name):
    """In a model: a law of (3, 4, size) is twelve sites of a plate, and the same in a scan."""
    member = MEMBERS[name]()
    head = member.head
    raw = member.raw(0.5) + 0.1 * jnp.arange(12.0).reshape(3, 4, 1)

    @ppl.model
    def model(raw):
        sample("x", head.law(raw))
        ppl.vmap(lambda row: sample("y", head.law(row)))(raw[0])

    @jax.jit
    def run(key, raw):
        x, y = (model(raw).simulate(key).choices[name] for name in "xy")
        rows = jax.lax.scan(lambda c, row: (c, head.law(row[0]).log_prob(row[1])), 0, (raw, x))[1]
        return x, model(raw).log_density({"x": x, "y": y}), rows, head.law(raw).log_prob(x), head.law(raw[0]).log_prob(y)

    law, (x, assessed, rows, twelve, four) = jax.eval_shape(head.law, raw), run(KEY, raw)
    assert law.batch_shape == (3, 4) and law.event_shape == head.event_shape and x.shape == (3, 4, *head.event_shape)
    np.testing.assert_allclose(rows, twelve, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(assessed, twelve.sum() + four.sum(), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", SCALAR)
def test_quantiles_are_the_inverse_of_the_cdf(name, x64):
    """And draws have this cdf, by Kolmogorov and Smirnov: false alarms at 1e-6 a member."""
    member, q = MEMBERS[name](), jnp.linspace(1e-4, 1.0 - 1e-4, 501)

    @jax.jit
    def run(raw):
        law = member.head.law(raw)
        x, slope = jax.jvp(law.icdf, (q,), (jnp.ones_like(q),))
        p = law.cdf(x)
        return x, slope * jnp.exp(law.log_prob(x)), p, law.icdf(p), jnp.sort(law.cdf(law.sample(KEY, (N,))))

    x, one, p, again, u = run(member.raw(1.0))
    np.testing.assert_allclose(p, q, atol=1e-9)
    np.testing.assert_allclose(again, x, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(one, 1.0, rtol=1e-5)
    assert np.abs(u - (np.arange(N) + 0.5) / N).max() < np.sqrt(np.log(2.0 / 1e-6) / (2.0 * N)) + 0.5 / N


@pytest.mark.parametrize("name", ["bar", "scalar mixture"])
def test_draws_move_with_their_raw_numbers(name, x64):
    """The mean slope of x^2 / 2 over draws is that of the second moment; and moments are those of draws."""
    member = MEMBERS[name]()
    raw, head = member.raw(1.0), member.head

    def moment(raw):
        law = head.law(raw)
        return 0.5 * (law.variance + law.mean**2)

    def one(key):
        return jax.grad(lambda raw: 0.5 * head.law(raw).sample(key) ** 2)(raw)

    slopes = jax.jit(jax.vmap(one))(jax.random.split(KEY, N))
    slopes = np.asarray(slopes)
    z = (slopes.mean(0) - jax.jit(jax.grad(moment))(raw)) / (slopes.std(0) / np.sqrt(N))
    x, mean, variance = jax.jit(lambda raw: (lambda law: (law.sample(KEY, (N,)), law.mean, law.variance))(head.law(raw)))(raw)
    assert np.abs(z).max() < DRAWS_ERR
    assert head.law(raw).has_rsample == (name != "bar")  # whose density jumps, so that an ELBO's slopes would be wrong
    assert abs(x.mean() - mean) < DRAWS_ERR * np.sqrt(variance / N)


def test_modes_begin_apart_and_flows_as_normal():
    head = Mixture(dim=3, num=5)
    means = head.tokens(head.start())[:, 1:4]
    assert (jnp.linalg.norm(means[:, None] - means, axis=-1) + 10.0 * jnp.eye(5)).min() > 0.5
    flow, x = Flow(dim=3, layers=2, key=KEY), jnp.array([[0.3, -1.0, 2.0]])
    np.testing.assert_allclose(
        jax.jit(lambda flow: flow.law(flow.start()).log_prob(x))(flow), dist.Normal().log_prob(x).sum(-1), rtol=1e-5
    )


@pytest.mark.parametrize("dim", [None, 3])
def test_encode_is_the_way_back(dim, x64):
    head = Mixture(dim, num=4)

    @jax.jit
    def run(raw):
        law: Any = head.law(raw)
        parts, x = law.component_distribution, law.sample(KEY, (50,))
        tril = parts.scale if dim is None else parts.scale_tril
        again = head.encode(law.mixing_distribution.probs, parts.loc, tril)
        return again, head.law(again).log_prob(x), law.log_prob(x), head.encode(jnp.eye(4)[0], parts.loc, 0.0 * tril)

    raw = jax.random.normal(KEY, (2, head.size))
    again, found, expected, edge = run(raw)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(head.tokens(again)[..., 1:], head.tokens(raw)[..., 1:], rtol=1e-9, atol=1e-9)
    assert np.isfinite(edge).all() and head.tokens(raw).shape == (2, 4, head.token_size)


def test_a_mixture_is_its_formula(x64):
    """Against sums of densities written out."""
    rng = np.random.default_rng(0)
    weights, means, factors = rng.dirichlet(np.ones(3)), rng.normal(size=(3, 2)), rng.normal(size=(3, 2, 2))
    covs = factors @ np.swapaxes(factors, -1, -2) + 0.2 * np.eye(2)
    head, x = Mixture(dim=2, num=3), rng.normal(size=2)
    parts = [
        w * np.exp(-0.5 * (x - m) @ np.linalg.solve(c, x - m)) / (2 * np.pi * np.sqrt(np.linalg.det(c)))
        for w, m, c in zip(weights, means, covs, strict=True)
    ]
    found = jax.jit(lambda *mixture: head.law(head.encode(*mixture)).log_prob(x))(weights, means, np.linalg.cholesky(covs))
    np.testing.assert_allclose(found, np.log(sum(parts)), rtol=1e-12)


def test_edges_from_samples_hold_equal_shares():
    y = np.asarray(jax.random.normal(KEY, (5000,)))
    head = Bar.from_samples(y, 50)
    counts = np.histogram(y, head.edges)[0]
    assert head.size == 50 and counts.min() >= 99 and counts.max() <= 101
    ties = Bar.from_samples(np.repeat([0.0, 1.0, 1.0, 5.0], 100), 20)
    assert ties.size == 20 and np.diff(ties.edges).min() > 0.0
    assert jnp.isfinite(ties.law(ties.start()).log_prob(jnp.array([0.0, 1.0, 5.0, 1e6]))).all()


def test_half_precision_is_computed_in_single():
    log_prob = jax.eval_shape(lambda raw: Spline(4).law(raw).log_prob(0.5), jnp.zeros((2, 13), jnp.bfloat16))
    assert log_prob.dtype == jnp.float32 and log_prob.shape == (2,)


def test_heads_are_settings():
    """Equal settings are one compilation, and only flows have something to learn."""
    a, b = (Supported(Mixture(2, num=3), dist.constraints.interval(0.0, 1.0)) for _ in range(2))
    assert jax.tree.structure(a) == jax.tree.structure(b) and hash(jax.tree.structure(a)) == hash(jax.tree.structure(b))
    assert not jax.tree.leaves(a) and jax.tree.leaves(MEMBERS["flow"]().head)
    assert jax.tree.structure(a) != jax.tree.structure(Supported(Mixture(2, num=3), dist.constraints.interval(0.0, 2.0)))
    assert jnp.isneginf(Supported(Spline(4), dist.constraints.positive).law(jnp.zeros(13)).log_prob(-1.0))


NO_HEAD: Any = Spline
WRONG = {
    "made of 4 raw numbers, (..., 4), but came an array of shape (2, 3)": lambda: Categories(4).law(jnp.zeros((2, 3))),
    "but came an array of shape ()": lambda: Categories(4).law(jnp.ones(())),
    "edges must increase, but edge 2 is 0.0 after 1.0": lambda: Bar([0.0, 1.0, 0.0]),
    "at least 3 numbers": lambda: Bar([0.0, 1.0]),
    "edges must be finite": lambda: Bar([0.0, 1.0, np.inf]),
    "two edges are the same number in float32": lambda: Bar([1e9, 1e9 + 1.0, 2e9]).law(jnp.zeros(2)),
    "all samples are 3.0": lambda: Bar.from_samples(np.full(10, 3.0), 4),
    "1 of 2 are not": lambda: Bar.from_samples([1.0, np.nan], 4),
    "Bar.from_samples: num must be a whole number of at least 2, got 1": lambda: Bar.from_samples([1.0, 2.0], 1),
    "from outside jit": lambda: jax.jit(lambda y: Bar.from_samples(y, 4).start())(jnp.arange(9.0)),
    "Mixture: num must be a whole number of at least 1, got 0": lambda: Mixture(2, 0),
    "Mixture: dim must be a whole number of at least 1, got 0": lambda: Mixture(0, 2),
    "means must end in the axes (2, 3), got shape (2, 2)": lambda: Mixture(3, 2).encode(
        jnp.ones(2), jnp.ones((2, 2)), jnp.eye(3)
    ),
    "weights must be finite": lambda: Mixture(None, 2).encode(-jnp.ones(2), jnp.ones(2), jnp.ones(2)),
    "between e^-7 and e^7, got 1 to 1e+04": lambda: Mixture(None, 2).encode(jnp.ones(2), jnp.ones(2), jnp.array([1.0, 1e4])),
    "rank 2 is not below dim 2. Take Mixture": lambda: LowRankMixture(2, 1, 2),
    "Flow: layers must be a whole number of at least 1, got 0": lambda: Flow(2, 0, key=KEY),
    "Flow: bins must be a whole number of at least 2, got True": lambda: Flow(2, 3, True, key=KEY),
    "Spline: bins must be a whole number of at least 2, got 1.5": lambda: Spline(1.5),  # pyright: ignore
    "Categories: num must be a whole number of at least 2, got 1": lambda: Categories(1),
    "expected a head of reals such as Mixture(dim=2, num=5), got the class": lambda: Supported(NO_HEAD, dist.constraints.real),
    "expected a support such as dist.constraints.positive, got the class HalfNormal": lambda: Supported(
        Spline(4), dist.HalfNormal
    ),
    "support of whole numbers. Take Categories(num)": lambda: Supported(Spline(4), dist.constraints.boolean),
    "simplex values are made of vectors of reals, and this Spline": lambda: Supported(Spline(4), dist.constraints.simplex),
    "must be known when the head is made": lambda: jax.jit(
        lambda low: Supported(Spline(4), dist.constraints.greater_than(low)).law(jnp.zeros(13)).log_prob(3.0)
    )(1.0),
}


@pytest.mark.parametrize("told", WRONG)
def test_sentences(told):
    with pytest.raises(ValueError) as error:
        WRONG[told]()
    assert told in str(error.value)


def test_scaled_within_a_support_draws_what_its_density_says():
    """NumPyro joins the transforms of both: all must be gone through. Shares of draws err by sqrt(p (1 - p) / n) each."""
    law = Supported(Scaled(Mixture(None, num=1), 3.0, 0.1), dist.constraints.positive).law(jnp.array([0.0, 0.2, -0.1]))
    assert isinstance(law, Carried)
    draws, p = law.sample(KEY, (N,)), jnp.array([0.1, 0.5, 0.9])
    known = dist.LogNormal(3.02, 0.1 * jnp.exp(-0.1))  # softly clamped: exp(-0.1) but for 1e-5
    np.testing.assert_allclose(law.log_prob(draws[:50]), known.log_prob(draws[:50]), atol=1e-2)
    below = jnp.mean(draws[:, None] < known.icdf(p), 0)
    assert (jnp.abs(below - p) < DRAWS_ERR * jnp.sqrt(p * (1.0 - p) / N)).all(), below
