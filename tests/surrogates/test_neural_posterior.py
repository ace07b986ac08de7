"""Neural posteriors against exact ones; how they are used, kept, and trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from ppl import dist, sample
from surrogates.heads import Mixture, Spline
from surrogates.neural_posterior import neural_posterior
from tests.surrogates.programs import normal_rows, rates

KEY, NUM = jax.random.key(0), 5


def exact(y):
    """Conjugate: the posterior of mu."""
    precision = 1.0 + len(y) / 4.0
    return dist.Normal((1.0 + jnp.sum(y) / 4.0) / precision, precision**-0.5)


def settings(**more):
    return {"key": KEY, "steps": 700, "batch": 128, "width": 16, "depth": 2, "heads": 2, "seeds": 1, "progress": False} | more


PROGRAM = normal_rows(NUM) | {"y": jnp.zeros(NUM)}


@pytest.fixture(scope="module")
def net():
    return neural_posterior(PROGRAM, **settings(head=Mixture(1, 2)))


def gaps(net, num, draws=2000):
    """log exact - log q at the truth, for data sets of `num` rows: its mean is the mean KL."""
    program = normal_rows(num)

    @jax.jit
    def run(net, keys):
        def one(key):
            choices = program.simulate(key).choices
            q = net.given(program | {"y": choices["y"]})
            return exact(choices["y"]).log_prob(choices["mu"]) - q.log_density({"mu": choices["mu"]})

        return jax.vmap(one)(keys)

    return np.asarray(run(net, jax.random.split(jax.random.key(3), draws)))


@pytest.mark.parametrize("num", [0, 1, NUM])
def test_it_is_the_exact_posterior_whatever_the_number_of_rows(net, num):
    """The mean KL is below 0.02 nats, and (4 errors) not below 0; of the prior, which ignores the data, it is 0.4 and more."""
    found = gaps(net, num)
    error = found.std() / len(found) ** 0.5
    assert -4.0 * error < found.mean() < 0.02 + 2.0 * error, (found.mean(), error)


def test_importance_makes_it_exact(net):
    y = jnp.array([2.0, -1.0, 0.5, 3.0, 1.0])
    program = normal_rows(NUM) | {"y": y}
    posterior = inf.importance(program, proposal=net.given(program), key=KEY, num=4000)
    cov = 4.0 * np.eye(NUM) + 1.0
    known = -0.5 * ((y - 1.0) @ np.linalg.solve(cov, y - 1.0) + np.linalg.slogdet(2.0 * np.pi * cov)[1])
    assert posterior.stages["pareto_k"][-1] < 0.7
    assert abs(posterior.log_evidence - known) < 5.0 * posterior.log_evidence_error + 1e-4
    assert posterior.log_evidence_error < 0.01
    assert abs(posterior["mu"].mean() - exact(y).mean) < 0.05


def test_it_is_a_generative_under_jit_and_in_programs(net):
    q = net.given(normal_rows(NUM) | {"y": jnp.ones(NUM)})
    trace = jax.jit(lambda key, y: net.given(normal_rows(NUM) | {"y": y}).simulate(key))(KEY, jnp.ones(NUM))
    np.testing.assert_allclose(trace.log_density, q.log_density(trace.choices), rtol=1e-5)

    @ppl.model
    def tomorrow(prior):
        return sample("before", prior)["mu"]

    again = tomorrow(inf.vi.prior_of(q)).simulate(KEY)
    mu = tomorrow(inf.vi.prior_of(q)).retval(again.choices)
    np.testing.assert_allclose(again.log_density, q.log_density({"mu": mu}), rtol=1e-4)
    assert "NeuralPosterior of mu given y, of 0 to 5 rows" in repr(net)


@ppl.model
def two_sources(num):
    """Entries as rows, and entries of a whole; all of them say the same of mu."""
    mu = sample("mu", dist.Normal(1.0, 1.0))
    ppl.vmap(lambda _: sample("y", dist.Normal(mu, 2.0)))(jnp.arange(num))
    sample("z", dist.Normal(mu, 2.0).expand([num]))


FEW = 3
SOURCES = two_sources(FEW) | {"y": jnp.zeros(FEW), "z": jnp.zeros(FEW)}


@pytest.fixture(scope="module")
def gapped():
    return neural_posterior(SOURCES, **settings(head=Mixture(1, 2), gaps=0.4, least=FEW, steps=1500))


@pytest.mark.parametrize("share", [0.0, 0.4, 0.7])
def test_entries_that_are_missing_do_not_count(gapped, share):
    """The mean KL of the exact posterior given the others, by 2,000 data sets: below 0.02 nats. Where many are missing, one
    that reads the prior's mean in their place is farther off, by more than 4 errors."""

    @jax.jit
    def run(net, keys):
        def one(key):
            one, two = jax.random.split(key)
            choices = two_sources(FEW).simulate(one).choices
            both = jnp.stack([choices["y"], choices["z"]])
            there = jax.random.uniform(two, both.shape) >= share
            told = jnp.where(there, both, jnp.nan)
            q = net.given(two_sources(FEW) | {"y": told[0], "z": told[1]})
            precision = 1.0 + there.sum() / 4.0
            known = dist.Normal((1.0 + jnp.where(there, both, 0.0).sum() / 4.0) / precision, precision**-0.5)
            ignoring = exact(jnp.where(there, both, 1.0).ravel())
            mu = choices["mu"]
            return known.log_prob(mu) - q.log_density({"mu": mu}), ignoring.log_prob(mu) - q.log_density({"mu": mu})

        return jax.vmap(one)(keys)

    found, ignoring = map(np.asarray, run(gapped, jax.random.split(jax.random.key(3), 2000)))
    error = found.std() / len(found) ** 0.5
    assert -4.0 * error < found.mean() < 0.02 + 2.0 * error, (found.mean(), error)
    if share == 0.7:
        assert ignoring.mean() < -4.0 * ignoring.std() / len(ignoring) ** 0.5


@pytest.mark.slow
def test_masked_entries_are_drawn_and_weighed_with_the_rest(gapped):
    """The evidence is that of the seen entries. Draws of q: their mean and deviation err by 1 % of 4,000 draws, and the net
    by a mean KL of 0.02, which is a shift of a fifth of a deviation."""
    y, z = np.array([2.0, np.nan, 0.5]), np.array([np.nan, -1.0, np.nan])
    program = two_sources(FEW) | {"y": np.ma.masked_invalid(y), "z": np.ma.masked_invalid(z)}
    seen = np.concatenate([y, z])[~np.isnan(np.concatenate([y, z]))]
    q, known = gapped.given(program), exact(jnp.array(seen))
    draws = jax.jit(jax.vmap(q.simulate))(jax.random.split(KEY, 4000))
    np.testing.assert_allclose(draws.log_density, jax.jit(jax.vmap(q.log_density))(draws.choices), rtol=1e-3, atol=1e-3)
    assert abs(draws.choices["mu"].mean() - known.mean) < 0.2 * known.scale
    assert abs(draws.choices["mu"].std() / known.scale - 1.0) < 0.2
    posterior = inf.importance(program, proposal=q, key=KEY, num=4000)
    cov = 4.0 * np.eye(len(seen)) + 1.0
    evidence = -0.5 * ((seen - 1.0) @ np.linalg.solve(cov, seen - 1.0) + np.linalg.slogdet(2.0 * np.pi * cov)[1])
    assert posterior.stages["pareto_k"][-1] < 0.7
    assert abs(posterior.log_evidence - evidence) < 5.0 * posterior.log_evidence_error + 1e-4
    assert posterior.log_evidence_error < 0.02
    missing = np.isnan(z)
    np.testing.assert_array_equal(posterior["z"][..., ~missing], np.broadcast_to(z[~missing], (1, 4000, 1)))
    assert (
        abs(posterior["z"][..., missing].mean() - known.mean) < 0.15
    )  # 8,000 draws of deviation 2.1, two of which share a mu
    assert repr(gapped).startswith("NeuralPosterior of mu given y, z, of 3 to 3 rows, 40% missing")


@pytest.mark.slow
def test_draws_lie_in_the_support():
    program = rates(4) | {"y": jnp.zeros(4, int)}
    net = neural_posterior(program, **settings(steps=20, head=Mixture(1, 2)))
    q = net.given(rates(4) | {"y": jnp.array([0, 3, 100, 1])})
    draws = jax.vmap(lambda key: q.simulate(key).choices["rate"])(jax.random.split(KEY, 1000))
    assert (draws > 0.0).all() and jnp.isfinite(draws).all()


def test_broken_off_and_resumed_it_is_the_same(tmp_path):
    kinds = settings(steps=60, head=Mixture(1, 2), batch=16)
    whole = neural_posterior(PROGRAM, **kinds)
    store = inf.Store(tmp_path / "run", every=0.0)
    inner = neural_posterior(PROGRAM, **(kinds | {"store": store}))
    again = neural_posterior(PROGRAM, **(kinds | {"store": inf.Store(tmp_path / "run", every=0.0)}))  # only reads
    for other in (inner, again):
        for a, b in zip(jax.tree.leaves(whole.net), jax.tree.leaves(other.net), strict=True):
            np.testing.assert_array_equal(a, b)


@ppl.model
def with_kinds(num):
    z = sample("z", dist.Bernoulli(0.5))
    ppl.vmap(lambda _: sample("y", dist.Normal(z, 1.0)))(jnp.arange(num))


def test_sentences(net):
    with pytest.raises(ValueError, match="expected a program with data"):
        neural_posterior(normal_rows(3), **settings())
    with pytest.raises(ValueError, match="site 'z' is discrete"):
        neural_posterior(with_kinds(3) | {"y": jnp.zeros(3)}, **settings())
    with pytest.raises(ValueError, match=r"head must be of vectors \(1,\), got event shape \(\)"):
        neural_posterior(PROGRAM, **settings(head=Spline(4)))
    with pytest.raises(ValueError, match="rows: 'mu' is not among the data"):
        neural_posterior(PROGRAM, **settings(rows=("mu",)))
    with pytest.raises(ValueError, match="say steps=, or a budget="):
        neural_posterior(PROGRAM, **settings(budget="1s", head=Mixture(1, 2)))
    with pytest.raises(ValueError, match="site 'y' has 6 rows, and the network was trained on 0 to 5"):
        net.given(normal_rows(6) | {"y": jnp.zeros(6)})
    with pytest.raises(ValueError, match="the network reads y, but the program has no data at 'y'"):
        net.given(normal_rows(5) | {"mu": 0.0})
    with pytest.raises(ValueError, match=r"site 'y' has 2 of 5 entries missing.*without any\. Train it with gaps=, the share"):
        net.given(normal_rows(5) | {"y": np.ma.masked_invalid([np.nan, 0, 0, np.nan, 0])})
    with pytest.raises(ValueError, match=r"gaps must be a share of at least 0 and below 1, got 1\.0"):
        neural_posterior(PROGRAM, **settings(gaps=1.0))
