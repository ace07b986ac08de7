"""Tempering: a posterior with two far modes, which NUTS gets wrong and parallel tempering right; the law of every rung;
evidence by stepping stones; and swaps that are planted wrong are found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import inference as inf
import ppl
from inference.mcmc import parallel_tempering as parallel
from inference.mcmc.tempering import TemperedTarget
from ppl import dist

# x ~ Normal(1, 5), one datum of a mixture: modes at -4 and 4, of known weights and evidence.
CENTRES, SHARES, PRIOR, NOISE = np.array([-4.0, 4.0]), np.array([0.5, 0.5]), stats.norm(1.0, 5.0), 0.3
PARTS = SHARES * stats.norm(1.0, np.hypot(5.0, NOISE)).pdf(CENTRES)
WEIGHT, LOG_EVIDENCE = PARTS[1] / PARTS.sum(), np.log(PARTS.sum())


@ppl.model
def two_modes():
    x = ppl.sample("x", dist.Normal(1.0, 5.0))
    parts = dist.Normal(x - jnp.asarray(CENTRES), NOISE)
    ppl.factor("datum", jax.nn.logsumexp(parts.log_prob(0.0) + jnp.log(jnp.asarray(SHARES))))


def draws(kernel, **settings):
    settings = {"key": jax.random.key(1), "chains": 8, "progress": False, "check": False} | settings
    return inf.mcmc(two_modes(), kernel, placement=inf.Vectorized(), **settings)


@pytest.mark.slow
def test_parallel_tempering_finds_the_weights_of_modes_where_nuts_does_not():
    """Errors from the chains' own frequencies; with eight of them, six standard errors are passed once in 1800."""
    stuck = (np.asarray(draws(inf.NUTS(), draws=500, warmup=300)["x"]) > 0).mean(1)
    assert set(stuck) == {0.0, 1.0}  # no chain has seen both modes

    posterior = draws(inf.parallel_tempering(inf.RandomWalk(), 5), draws=2000)
    x = np.asarray(posterior["x"])
    share = (x > 0).mean(1)
    assert abs(share.mean() - WEIGHT) < 6 * share.std(ddof=1) / np.sqrt(8) < 0.15
    assert abs(x[x > 0].mean() - 4.0) < 0.05 and abs(x[x > 0].std() - NOISE) < 0.03

    last = {name: values[:, -1] for name, values in posterior.stats.items()}
    evidence = np.exp(last["log_evidence"] - LOG_EVIDENCE)
    assert abs(evidence.mean() - 1.0) < 6 * evidence.std(ddof=1) / np.sqrt(8) < 0.3
    assert (last["round_trips"] > 20).all() and (last["swap_rate_min"] > 0.2).all()
    # On the ladder that was learned all pairs reject about equally often.
    np.testing.assert_allclose(last["barrier"], 4 * (1.0 - last["swap_rate"]), rtol=1e-4)
    assert (last["swap_rate"] - last["swap_rate_min"] < 0.2).all()


# The law of every rung: prior Normal(0, 1), datum 1 with variance 1/2: at inverse temperature b, precision 1 + 2 b.
LADDER, NUM, STEPS = np.array([0.0, 0.2, 1.0]), 20_000, 8


@ppl.model
def normal():
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    ppl.sample("y", dist.Normal(x, np.sqrt(0.5)), obs=1.0)


def law(inverse_temperature):
    precision = 1.0 + 2.0 * inverse_temperature
    return stats.norm(2.0 * inverse_temperature / precision, precision**-0.5)


def surprise():
    """The smallest p-value, over the rungs, of exact draws that stay exact when replicas move and swap."""
    target = ppl.Target(normal())
    kernel = inf.parallel_tempering(inf.RandomWalk(1.0, inf.metrics.Diagonal(jnp.ones(1))), ladder=LADDER)

    def chain(starts, key):
        state = kernel.init(key, target, starts[0])
        cold, hot = parallel._apart(starts)
        state = state._replace(inner=state.inner._replace(position=cold), hot=state.hot._replace(position=hot))
        state = jax.lax.scan(lambda s, k: (kernel.step(k, s, target)[0], None), state, jax.random.split(key, STEPS))[0]
        return parallel._together(state.inner, state.hot).position[:, 0]

    starts = np.column_stack([law(b).rvs(NUM, random_state=i) for i, b in enumerate(LADDER)])[..., None]
    move = jax.jit(jax.vmap(chain), compiler_options={"xla_backend_optimization_level": 0})
    ends = np.asarray(move(jnp.asarray(starts, float), jax.random.split(jax.random.key(0), NUM)), np.float64)
    assert abs(np.corrcoef(ends[:, 0], ends[:, 2])[0, 1]) < 6 / np.sqrt(NUM)  # replicas are independent
    assert np.mean(ends[:, 2] == starts[:, 2, 0]) < 0.2
    return min(stats.kstest(x, law(b).cdf).pvalue for x, b in zip(ends.T, LADDER, strict=True))


def test_exact_replicas_stay_exact():
    assert surprise() > 1e-5


def test_swaps_in_the_wrong_direction_are_found(monkeypatch):
    right = parallel.log_swap_ratio
    monkeypatch.setattr(parallel, "log_swap_ratio", lambda *given: -right(*given))
    with pytest.raises(AssertionError):
        assert surprise() > 1e-8


def test_swaps_that_leave_densities_behind_are_found(monkeypatch):
    monkeypatch.setattr(parallel, "placed", lambda own, point, view: own._replace(position=point.position))
    assert surprise() < 1e-8


def test_tempered_draws_are_of_the_tempered_law():
    """Mean and variance, within five Monte Carlo errors for draws no worse than one in ten."""
    kernel = inf.tempered(inf.RandomWalk(), 0.2)
    settings = {"key": jax.random.key(0), "draws": 5000, "progress": False, "check": False, "placement": inf.Vectorized()}
    x = np.asarray(inf.mcmc(normal(), kernel, **settings)["x"])
    error = law(0.2).std() / np.sqrt(x.size / 10)
    assert abs(x.mean() - law(0.2).mean()) < 5 * error and abs(x.std() - law(0.2).std()) < 5 * error


def test_a_tempered_target_is_prior_times_a_power_of_the_likelihood():
    target, position = ppl.Target(normal()), jnp.array([0.7])
    log_prior, log_likelihood = target.log_prior_and_likelihood(position)
    twice = TemperedTarget(TemperedTarget(target, 0.5), 0.5)
    np.testing.assert_allclose(twice.log_density(position), log_prior + 0.25 * log_likelihood, rtol=1e-6)
    impossible = ppl.Target.from_log_density(lambda x: -jnp.inf * x[0], jnp.zeros(1))
    assert TemperedTarget(impossible, 0.0).log_density(position) == 0.0  # the prior, where the likelihood is zero
    assert (TemperedTarget(target, 0.3).dim, TemperedTarget(target, 0.3).names) == (1, ("x",))


def test_a_ladder_is_spread_so_that_pairs_reject_alike():
    ladder = parallel.spread(jnp.array([0.0, 0.5, 1.0]), jnp.array([0.89, 0.29]))
    np.testing.assert_allclose(ladder, [0.0, 1 / 3, 1.0], rtol=1e-5)


def test_even_and_odd_pairs_are_swapped_in_turn():
    levels, ladder = jnp.zeros(5), jnp.linspace(0.0, 1.0, 5)  # alike, so always accepted
    np.testing.assert_array_equal(parallel.swap(jax.random.key(0), ladder, levels, 0)[1], [1, 0, 3, 2, 4])
    np.testing.assert_array_equal(parallel.swap(jax.random.key(0), ladder, levels, 1)[1], [0, 2, 1, 4, 3])


def improper():
    return ppl.Target.from_log_density(lambda c: -0.5 * jnp.sum(c["x"] ** 2), {"x": jnp.zeros(2)})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: inf.tempered(inf.NUTS(), -0.5),
            r"^tempered: inverse_temperature must be a number of at least 0, got -0\.5\.$",
        ),
        (lambda: inf.tempered(inf.NUTS, 0.5), r"^tempered: expected kernels such as NUTS\(\), got the class NUTS\.$"),
        (lambda: inf.parallel_tempering(inf.NUTS(), 1), r"num must be a whole number of at least 2, got 1\.$"),
        (lambda: inf.parallel_tempering(inf.NUTS(), hottest=1.0), r"hottest must lie in \[0, 1\), got 1\.0\.$"),
        (
            lambda: inf.parallel_tempering(inf.NUTS(), ladder=[0.0, 0.9]),
            r"^parallel_tempering: a ladder rises from at least 0 to 1",
        ),
        (
            lambda: inf.mcmc(improper(), inf.parallel_tempering(inf.NUTS()), key=jax.random.key(0)),
            r"^parallel_tempering: the prior of site 'x' is improper, .* end the ladder before: hottest=0\.1\.$",
        ),
        (
            lambda: inf.mcmc(normal(), inf.cycle(inf.tempered(inf.Slice(), 0.5), inf.Slice()), key=jax.random.key(0)),
            r"^tempered: its law is not the posterior, .* Temper the combination: tempered\(cycle\(\.\.\.\), 0\.5\)\.",
        ),
    ],
)
def test_what_is_wrong_at_the_door_is_said(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
