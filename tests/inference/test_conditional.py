"""Conditional SMC with two particles leaves the posterior of a small program as it is, whatever the policy; looked at by
enumerating all paths. Bugs that are planted are found.

False-alarm rates: some thirty chi-square tests at 1e-6 each.
"""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import inference.resampling as rs
import ppl
from inference.smc import conditional
from inference.smc import renewal as renewals
from inference.smc.conditional import conditional_smc
from inference.smc.loop import Method
from inference.smc.memory import memory
from inference.smc.particle_filter import particle_filter
from inference.smc.program_path import ByStep, ProgramPath
from inference.smc.renewal import AncestorSampling, BackwardSampling, Traced
from inference.smc.reweight import Ladder, Reweight
from ppl import dist, sample

ALPHA = 1e-6
NUM, ROUNDS = 20_000, 3
QUICKLY = {"xla_backend_optimization_level": 0}
Y = jnp.array([0.4, -0.9, 1.3])


def coin(name, logit):
    return sample(name, dist.Bernoulli(logits=logit))


@ppl.model
def markov():
    """Two states, three steps; the carry is the last state and a counter of steps."""

    def step(carry, _):
        z, n = carry
        z = coin("z", 1.6 * z - 0.7)
        sample("y", dist.Normal(1.0 * z, 0.8))
        return (z, n + 1), None

    ppl.scan(step, (0, 0), length=3)


@ppl.model
def second_order():
    def step(carry, _):
        older, old = carry
        z = coin("z", 1.5 * old - 1.8 * older + 0.2)
        sample("y", dist.Normal(1.0 * z, 0.8))
        return (old, z), None

    ppl.scan(step, (0, 0), length=3)


@ppl.model
def counting():
    """What is carried is the sum of all states: it is never forgotten. A parameter is drawn before the loop."""
    up = coin("up", 0.3)

    def step(total, _):
        z = coin("z", 1.2 * total - 0.9 + 0.8 * up)
        sample("y", dist.Normal(0.6 * total + z, 0.8))
        return total + z, total

    ppl.scan(step, 0, length=3)


@ppl.model
def twofold():
    """Two states a step, of which a guide proposes one."""

    def step(old, _):
        z = coin("z", 1.6 * old - 0.7)
        with_u = sample("part", part(z))
        sample("y", dist.Normal(1.0 * z + 0.7 * with_u, 0.8))
        return z, None

    ppl.scan(step, 0, length=2)


@ppl.model
def part(z):
    return coin("u", 0.9 - 1.1 * z)


def guide(carry, x, data):
    @ppl.model
    def proposal():
        coin("z", 0.8 * data["y"] - 0.3 + 0.4 * carry)

    return proposal()


def foresight(carry, x, data):
    z = carry[0] if isinstance(carry, tuple) else carry
    return -0.3 * (data["y"] - z) ** 2


@cache
def law(model):
    """The conditioned program, all its choices, leading with (state,), and their probabilities."""
    y = Y[:2] if model is twofold else Y
    program = model() | {"y": y}
    target = ppl.Target(program)
    grid = np.array(list(itertools.product((0, 1), repeat=target.dim)), np.float32)
    log_p = np.asarray(jax.vmap(target.log_density)(jnp.asarray(grid)), np.float64)
    p = np.exp(log_p - log_p.max())
    return program, jax.vmap(target.constrain)(jnp.asarray(grid)), p / p.sum()


def numbered(choices) -> np.ndarray:
    """Which state each of the choices (num, ...) is."""
    flat = [np.asarray(x).reshape(len(x), -1) for x in jax.tree.leaves(choices)]
    return np.concatenate(flat, axis=1)


def surprise(model, method, renewal, particles=2) -> tuple[float, float]:
    """The p-value of: exact draws, renewed, are exact draws; and the share of the paths that changed."""
    program, states, p = law(model)
    start = np.random.default_rng(0).choice(len(p), NUM, p=p)
    path = method.way.of(program)

    def renewed(choices, key):
        return conditional_smc(key, path, method, choices, particles=particles, renewal=renewal).choices, None

    def chain(choices, key):
        return jax.lax.scan(renewed, choices, jax.random.split(key, ROUNDS))[0]

    run = jax.jit(jax.vmap(chain), compiler_options=QUICKLY)
    begun = jax.tree.map(lambda x: x[start], states)
    ended = run(begun, jax.random.split(jax.random.key(1), NUM))
    rows, ends = numbered(states), numbered(ended)
    weights = 2 ** np.arange(rows.shape[1])
    order = np.argsort(rows @ weights)
    index = order[np.searchsorted((rows @ weights)[order], ends @ weights)]
    pvalue = stats.chisquare(np.bincount(index, minlength=len(p)), p * NUM).pvalue
    return float(pvalue), float(np.mean(index != start))


RENEWALS = {"traced": Traced(), "ancestor sampling": AncestorSampling(), "backward sampling": BackwardSampling()}
RESAMPLERS = {
    "multinomial": rs.Multinomial(),
    "systematic": rs.Systematic(),
    "killing": rs.Killing(),
    "when": rs.When(rs.Systematic(), ess=0.8),
}


def some(cases, always):
    """All cases; those that are not of `always` are slow."""
    return [pytest.param(*case, marks=[] if case in always else [pytest.mark.slow]) for case in cases]


EVERY_DAY = {("traced", "multinomial"), ("ancestor sampling", "when")}


@pytest.mark.parametrize(("renewal", "resampler"), some(itertools.product(RENEWALS, RESAMPLERS), EVERY_DAY))
def test_two_particles_leave_the_posterior_as_it_is(renewal, resampler):
    pvalue, moved = surprise(markov, particle_filter(resample=RESAMPLERS[resampler]), RENEWALS[renewal])
    assert pvalue > ALPHA and moved > 0.3


REMEMBER = {"second order": second_order, "counting": counting}


@pytest.mark.parametrize(
    ("model", "renewal"),
    some(itertools.product(REMEMBER, RENEWALS), {("counting", "backward sampling")}),
)
def test_loops_that_remember_more(model, renewal):
    """A parameter that was drawn before the loop is renewed with the path."""
    pvalue, moved = surprise(REMEMBER[model], particle_filter(), RENEWALS[renewal])
    assert pvalue > ALPHA and moved > 0.3


@pytest.mark.parametrize("renewal", some([(name,) for name in RENEWALS], {("ancestor sampling",)}))
def test_proposals_and_twists(renewal):
    """The guide proposes one of two sites, and the other is drawn from the program."""
    method = particle_filter(proposal=guide, twist=foresight, resample=rs.When(rs.SSP(), ess=0.8))
    pvalue, moved = surprise(twofold, method, RENEWALS[renewal], particles=3)
    assert pvalue > ALPHA and moved > 0.3


# -- planted bugs -----------------------------------------------------------------------------------------------------------


def resampled_as_free(self, key, particles, log_weights, num=None):
    return self.resampler(key, particles, log_weights, num)


def joint_density_for_the_given(self, key, t, walker, given=None):
    """Defect D4 of GenJAX: the given particle is weighed with the density of its choices, and the others are not."""
    return ({}, 0.0, ()) if given is None else (given, 0.0, ())


BUGS = {
    "the given path in slot 0, but resampled as if free": (
        (conditional.With, "__call__", resampled_as_free), markov, Traced(),
    ),
    "the given particle weighed with its full density": (
        (ProgramPath, "proposed", joint_density_for_the_given), markov, Traced(),
    ),
    "one step ahead where the loop remembers": ((renewals, "memory", lambda _: 1), counting, BackwardSampling()),
    "ancestors by their weights alone": (
        (conditional, "log_ahead", lambda *_: jnp.zeros(())), markov, AncestorSampling(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("bug", some([(name,) for name in BUGS], {(name,) for name in list(BUGS)[:2]}))
def test_a_planted_bug_is_found(monkeypatch, bug):
    place, model, renewal = BUGS[bug]
    monkeypatch.setattr(*place)
    pvalue, _ = surprise(model, particle_filter(resample=rs.Multinomial()), renewal)
    assert pvalue < 1e-8


# -- parts ------------------------------------------------------------------------------------------------------------------


@ppl.model
def autoregression(order):
    """With a running sum that matters to nothing."""

    def step(carry, _):
        z = sample("z", dist.Normal(0.5 * jnp.sum(carry["last"]), 1.0))
        return {"last": jnp.append(carry["last"][1:], z), "sum": carry["sum"] + z}, None

    ppl.scan(step, {"last": jnp.zeros(order), "sum": 0.0}, length=9)


@ppl.model
def by_hand():
    def step(carry, _):
        a, b, c = carry
        z = sample("z", dist.Normal(a, 1.0))
        return (b, c, z), None

    ppl.scan(step, (0.0, 0.0, 0.0), length=9)


@ppl.model
def alone():
    ppl.scan(lambda carry, _: (carry, sample("z", dist.Normal(0.0, 1.0))), 0.0, length=9)


@pytest.mark.parametrize(
    ("program", "span"),
    [
        (markov(), 1),
        (second_order(), 2),
        (counting(), 3),
        (by_hand(), 3),
        (alone(), 0),
        (autoregression(2), 9),  # the entries of one array are not told apart
    ],
)
def test_how_long_a_loop_remembers(program, span):
    assert memory(ppl.Stepwise(program)) == span


@pytest.mark.slow
def test_the_evidence_of_a_path_that_the_filter_made():
    """Over paths from the posterior, the mean of 1 / evidence of conditional runs is 1 / evidence (the law of a filter's
    evidence, tilted by itself); 5 standard errors."""
    program, states, p = law(markov)
    method, num = particle_filter(), 20_000
    path = method.way.of(program)
    start = np.random.default_rng(0).choice(len(p), num, p=p)

    def one(choices, key):
        return conditional_smc(key, path, method, choices, particles=3, renewal=Traced()).log_evidence

    run = jax.jit(jax.vmap(one), compiler_options=QUICKLY)
    found = np.exp(-np.asarray(run(jax.tree.map(lambda x: x[start], states), jax.random.split(jax.random.key(2), num))))
    target = ppl.Target(program)
    grid = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=3)))
    exact = float(np.exp(-jax.nn.logsumexp(jax.vmap(target.log_density)(grid))))
    assert abs(found.mean() - exact) < 5 * found.std() / np.sqrt(num)


def test_what_cannot_be_is_said():
    program, states, _ = law(markov)
    path, choices = ByStep().of(program), jax.tree.map(lambda x: x[0], states)
    with pytest.raises(ValueError, match=r"^conditional_smc: particles must be at least 2, the given one counted, got 1\.$"):
        conditional_smc(jax.random.key(0), path, particle_filter(), choices, particles=1)
    method = Method(ByStep(), Reweight(Ladder(jnp.ones(1))))
    with pytest.raises(ValueError, match=r"^conditional_smc: Reweight has no conditional form; give a particle_filter"):
        conditional_smc(jax.random.key(0), path, method, choices, particles=2)
