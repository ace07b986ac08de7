"""Involutive MCMC: jumps between one mean and two, and of a change-point, against exact posteriors; swaps; and the two
classic mistakes, a Jacobian or a way back forgotten, are found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import inference as inf
import ppl
from inference.mcmc import involutive
from ppl import dist

# Two groups of data have one mean or two, with prior Normal(0, 2) each; the posterior odds are known.
A, B = np.array([0.4, 1.3, 0.1, 0.7]), np.array([1.5, 0.6, 1.9])


def log_evidence(y):
    """Of data y ~ Normal(m, 1) with m ~ Normal(0, 2)."""
    return stats.multivariate_normal(np.zeros(len(y)), np.eye(len(y)) + 4.0).logpdf(y)


ONE, TWO = log_evidence(np.concatenate([A, B])), log_evidence(A) + log_evidence(B)
EXACT = 1.0 / (1.0 + np.exp(ONE - TWO))  # of two means, prior probability 1/2


@ppl.model
def groups():
    two = ppl.sample("two", dist.Bernoulli(0.5))
    a = ppl.sample("a", dist.Normal(0.0, 2.0))
    b = ppl.sample("b", dist.Normal(0.0, 2.0).mask(two == 1))  # of no meaning, and of no density, when there is one mean
    ppl.sample("y_a", dist.Normal(a * jnp.ones(4), 1.0).to_event(1))
    ppl.sample("y_b", dist.Normal(jnp.where(two == 1, b, a) * jnp.ones(3), 1.0).to_event(1))


PROGRAM = groups() | {"y_a": A, "y_b": B}


@ppl.model
def half_gap(choices):
    ppl.sample("w", dist.Normal(0.3, 0.7).mask(choices["two"] == 0))  # needed for a split; a merge throws no dice


def split_or_merge(choices, auxiliary):
    """(a, w) to (a - w, a + w), and back; what is left over, b or w, goes where there is room."""
    two, a, b, w = choices["two"], choices["a"], choices["b"], auxiliary["w"]
    split = {"two": 1 - two, "a": a - w, "b": a + w}, {"w": b}
    merge = {"two": 1 - two, "a": (a + b) / 2, "b": w}, {"w": (b - a) / 2}
    return jax.tree.map(lambda s, m: jnp.where(two == 0, s, m), split, merge)


@ppl.model
def walk(choices):
    ppl.sample("step", dist.Normal(jnp.zeros(2), 0.8).to_event(1))


def forward_or_back(choices, auxiliary):
    step = auxiliary["step"]
    return choices | {"a": choices["a"] + step[0], "b": choices["b"] + step[1]}, {"step": -step}


KERNEL = inf.cycle(inf.involutive(half_gap, split_or_merge), inf.involutive(walk, forward_or_back))


def ends(num=20_000, steps=3):
    """(two, a, b), each (num,), after some steps from exact draws."""
    rng = np.random.default_rng(0)
    two = rng.random(num) < EXACT

    def mean(y):
        variance = 1.0 / (0.25 + len(y))
        return rng.normal(variance * y.sum(), np.sqrt(variance), size=num)

    a = np.where(two, mean(A), mean(np.concatenate([A, B])))
    target = ppl.Target(PROGRAM)
    assert target.names == ("two", "a", "b")
    starts = jnp.asarray(np.column_stack([two, a, mean(B)]), float)

    def chain(position, key):
        state = KERNEL.init(key, target, position)
        return jax.lax.scan(lambda s, k: (KERNEL.step(k, s, target)[0], None), state, jax.random.split(key, steps))[0].position

    move = jax.jit(jax.vmap(chain), compiler_options={"xla_backend_optimization_level": 0})
    return np.asarray(move(starts, jax.random.split(jax.random.key(1), num)), np.float64).T


def surprise(two, a, b):
    """The smallest of four p-values: the number of means, and each mean where it is one."""

    def of_mean(values, y):
        variance = 1.0 / (0.25 + len(y))
        return stats.kstest(values, stats.norm(variance * y.sum(), np.sqrt(variance)).cdf).pvalue

    return min(
        stats.binomtest(int(two.sum()), len(two), EXACT).pvalue,
        of_mean(a[two == 1], A),
        of_mean(b[two == 1], B),
        of_mean(a[two == 0], np.concatenate([A, B])),
    )


def test_jumps_between_dimensions_keep_the_exact_posterior():
    assert surprise(*ends()) > 1e-5


BUGS = {"Jacobian forgotten": ("log_volume", 0.0), "way back forgotten": ("back_and_forth", 0.0)}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(monkeypatch, bug):
    name, value = BUGS[bug]
    monkeypatch.setattr(involutive, name, lambda *_: value)
    assert surprise(*ends()) < 1e-8


@pytest.mark.slow
def test_the_front_door_finds_how_many_means_there_are():
    """From arbitrary starts; the standard error is that of the chains' own frequencies."""
    settings = {"chains": 16, "draws": 2000, "warmup": 200, "progress": False, "check": False}
    posterior = inf.mcmc(PROGRAM, KERNEL, key=jax.random.key(3), placement=inf.Vectorized(), **settings)
    frequency = np.asarray(posterior["two"], float).mean(1)
    assert abs(frequency.mean() - EXACT) < 5 * frequency.std(ddof=1) / np.sqrt(16)
    assert 0.05 < posterior.stats["acceptance_rate_0"].mean() < 1


# Counts with a rate that changes at an unknown time: the time, and the rates' own laws, are known.
COUNTS = np.array([1, 2, 0, 1, 5, 3, 6, 4])


@ppl.model
def change():
    when = ppl.sample("when", dist.DiscreteUniform(1, 7))
    rates = ppl.sample("rates", dist.Gamma(2.0, 1.0).expand([2]).to_event(1))
    ppl.sample("counts", dist.Poisson(jnp.where(jnp.arange(8) < when, rates[0], rates[1])).to_event(1), obs=COUNTS)


@ppl.model
def elsewhere(choices):
    ppl.sample("when", dist.DiscreteUniform(1, 7))
    ppl.sample("log_factors", dist.Normal(jnp.zeros(2), 0.5).to_event(1))


def go(choices, auxiliary):
    """Times change places; rates, positive, are multiplied."""
    there = {"when": auxiliary["when"], "rates": choices["rates"] * jnp.exp(auxiliary["log_factors"])}
    return there, {"when": choices["when"], "log_factors": -auxiliary["log_factors"]}


@pytest.mark.slow
def test_a_change_point_moves():
    from scipy.special import gammaln

    def log_evidence(y):
        return gammaln(2.0 + y.sum()) - (2.0 + y.sum()) * np.log(1.0 + len(y))

    log_p = np.array([log_evidence(COUNTS[:k]) + log_evidence(COUNTS[k:]) for k in range(1, 8)])
    exact = np.exp(log_p - log_p.max())
    exact /= exact.sum()
    settings = {"chains": 16, "draws": 2000, "warmup": 100, "progress": False, "check": False}
    kernel = inf.involutive(elsewhere, go)
    posterior = inf.mcmc(change(), kernel, key=jax.random.key(4), placement=inf.Vectorized(), **settings)
    when = np.asarray(posterior["when"])
    frequency = np.stack([(when == k).mean(1) for k in range(1, 8)])
    error = frequency.std(1, ddof=1) / np.sqrt(16)
    assert (abs(frequency.mean(1) - exact) < 5 * error + 1e-4).all()


@ppl.model
def nothing(choices):
    pass


def test_a_swap_needs_no_dice():
    """Two coordinates change places: from one mode of a symmetric law to the other, always accepted."""
    target = ppl.Target.from_log_density(
        lambda x: jnp.sum(-0.5 * (jnp.abs(x[0] - x[1]) - 8.0) ** 2) - 0.5 * jnp.sum(x) ** 2, jnp.zeros(2)
    )
    kernel = inf.involutive(nothing, lambda choices, auxiliary: ({"x": choices["x"][::-1]}, auxiliary))
    kernel.check(target)
    start = jnp.array([4.0, -4.0])
    state, info = jax.jit(lambda key: kernel.step(key, kernel.init(key, target, start), target))(jax.random.key(0))
    np.testing.assert_array_equal(state.position, [-4.0, 4.0])
    assert info.acceptance_rate == 1.0


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda c, a: (c | {"a": c["a"] + a["step"][0]}, a),
            r"^involutive: the involution must undo itself, but .* takes a from",
        ),
        (lambda c, a: (c, {"step": a["step"] + 1.0}), r"it takes step\[0\] from \S+ to \S+ \(on the unconstrained scale\)\.$"),
        (lambda c, a: c, r"^involutive: the involution must return the pair .* but it returned a dict\."),
        (lambda c, a: ({"a": c["a"]}, a), r"two"),
    ],
)
def test_what_is_no_involution_is_said(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        inf.mcmc(PROGRAM, inf.involutive(walk, make), key=jax.random.key(0))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: inf.involutive(walk, None), r"^involutive: expected a model and a function, got NoneType\.$"),
        (
            lambda: inf.mcmc(PROGRAM, inf.involutive(lambda c: 1.0, go), key=jax.random.key(0)),
            r"^involutive: the proposal must be a model, decorated with ppl.model, got a function that returns float\.",
        ),
    ],
)
def test_what_is_no_proposal_is_said(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
