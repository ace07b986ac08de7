"""A run as a distribution: its laws on programs with eight outcomes, by enumeration; gradients against differences.

False-alarm rates: some forty margins of five standard errors.
"""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from inference.mcmc.discrete_gibbs import DiscreteGibbs
from inference.resampling import Multinomial, Systematic, When
from inference.smc.collapse import Collapsed, Collapsing, collapse
from inference.smc.data_order import DataOrder
from inference.smc.extend import Extend
from inference.smc.loop import Method
from inference.smc.move import Move
from inference.smc.particle_filter import particle_filter
from inference.smc.program_path import ByStep
from inference.smc.resample import Resample
from inference.smc.reweight import ByESS, Ladder, Reweight
from inference.smc.step import sequence
from inference.smc.tempering_path import Tempering
from inference.vi import expectation
from ppl import dist, normalize, sample

NUM = 20_000
Y = jnp.array([0.4, -0.9, 1.3])
QUICKLY = {"xla_backend_optimization_level": 0}


@ppl.model
def markov():
    def step(z, _):
        z = sample("z", dist.Bernoulli(logits=1.6 * z - 0.7))
        sample("y", dist.Normal(1.0 * z, 0.8))
        return z, None

    ppl.scan(step, 0, length=3)


@ppl.model
def three_coins():
    z = sample("z", dist.Bernoulli(jnp.array([0.3, 0.5, 0.6])))
    ppl.factor("odd", 1.2 * jnp.where(jnp.sum(z) % 2 == 1, 1.0, -1.0) * (1 + z[0]))


@ppl.model
def guide():
    sample("z", dist.Bernoulli(jnp.array([0.5, 0.4, 0.7])))


HALFWAY = sequence(Reweight(Ladder(jnp.array([0.5, 1.0]))), Resample(Multinomial()))
METHODS = {
    "a filter": (markov() | {"y": Y}, particle_filter(resample=When(Systematic(), ess=0.8))),
    "importance from a guide": (three_coins(), Method(Tempering(guide()), Reweight(Ladder(jnp.ones(1))))),
    "two levels": (three_coins(), Method(Tempering(), HALFWAY)),
}
ALWAYS = ("a filter", "importance from a guide")
CASES = [pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.slow]) for name in METHODS]


def enumerated(program):
    """All outcomes (8, 3), and their densities."""
    grid = jnp.asarray(list(itertools.product((0, 1), repeat=3)))
    return grid, np.exp(jax.jit(jax.vmap(lambda z: program.log_density({"z": z})))(grid))


def mean_and_error(x):
    return x.mean(0), x.std(0) / np.sqrt(len(x))


def surprises(name: str) -> dict[str, float]:
    """By law: the largest deviation, in standard errors."""
    program, method = METHODS[name]
    run = collapse(program, method, particles=3)
    grid, gamma = enumerated(program)
    keys = jax.random.split(jax.random.key(0), NUM)
    new = jax.jit(jax.vmap(run.simulate), compiler_options=QUICKLY)(keys)
    density = jax.jit(jax.vmap(jax.vmap(lambda key, z: run.log_density(key, {"z": z}), (None, 0)), (0, None)),
                      compiler_options=QUICKLY)  # fmt: skip
    given = np.exp(np.asarray(density(keys[:4000], grid), float))  # (key, outcome)
    which = np.asarray(new.choices["z"]) @ np.array([4, 2, 1])
    hit = which[:, None] == np.arange(8)

    proper, error = mean_and_error(np.exp(np.asarray(new.log_evidence, float))[:, None] * hit)
    out = {"properly weighted": np.abs(proper - gamma) / error}
    total, error = mean_and_error(given.sum(axis=1))
    out["densities add up to one"] = np.abs(total - 1) / error
    share, own = mean_and_error(1.0 * hit)
    found, error = mean_and_error(given)
    out["density of given choices"] = np.abs(found - share) / np.hypot(error, own)
    reciprocal, error = mean_and_error(np.exp(-np.asarray(new.log_density, float))[:, None] * hit)
    out["reciprocal of the drawn one's density"] = np.abs(reciprocal - 1) / error
    return {law: float(np.max(x)) for law, x in out.items()}


@pytest.mark.parametrize("name", CASES)
def test_laws(name):
    assert max(surprises(name).values()) < 5


def test_a_given_path_weighed_by_a_run_without_it_is_found(monkeypatch):
    """Planted: the evidence of a free run, as in defect D4, where the given choices must be among the particles."""
    monkeypatch.setattr(importlib.import_module("inference.smc.collapse"), "in_front", lambda population, particle: population)
    found = surprises("importance from a guide")
    assert found["densities add up to one"] > 10 and found["density of given choices"] > 10
    assert found["properly weighted"] < 5


@ppl.model
def rare():
    def step(z, _):
        z = sample("z", dist.Bernoulli(0.3))
        ppl.factor("alive", jnp.where(z == 1, 0.0, -jnp.inf))
        return z, None

    ppl.scan(step, 0, length=2)


def test_runs_that_die_out_count_as_zero():
    """With two particles half of the runs do; and choices that cannot be have density zero."""
    run = collapse(rare(), particle_filter(resample=Systematic()), particles=2)
    keys = jax.random.split(jax.random.key(0), 4000)
    new = jax.jit(jax.vmap(run.simulate), compiler_options=QUICKLY)(keys)
    evidence = np.exp(np.asarray(new.log_evidence, float))
    mean, error = mean_and_error(evidence)
    assert abs(mean - 0.3**2) < 5 * error
    np.testing.assert_array_equal(np.isposinf(new.log_density), evidence == 0)
    assert np.isfinite(new.log_density[evidence > 0]).all()
    impossible = {"z": jnp.array([1, 0])}
    density = jax.jit(jax.vmap(lambda key: run.log_density(key, impossible)), compiler_options=QUICKLY)(keys[:100])
    assert np.isneginf(density).all()


# -- gradients -------------------------------------------------------------------------------------------------------------


@ppl.model
def walk(q):
    def step(z, _):
        z = sample("z", dist.Normal(z, q))
        sample("y", dist.Normal(z, 0.7))
        return z, None

    ppl.scan(step, 0.0, length=3)


@ppl.model
def one_normal(shift):
    sample("x", dist.Normal(shift, 1.0))


@ppl.model
def one_datum():
    x = sample("x", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(x, 0.5), obs=0.8)


def filter_without_resampling(q, key):
    return collapse(walk(q) | {"y": Y}, Method(ByStep(), Extend()), particles=20).log_evidence(key)


def guided(q, key):
    def propose(z, x, data):
        return GUIDE(z, q, data["y"])

    return collapse(walk(1.0) | {"y": Y}, Method(ByStep(propose), Extend()), particles=20).log_evidence(key)


@ppl.model
def GUIDE(z, q, y):  # noqa: N802
    sample("z", dist.Normal(q * z + (1 - q) * y, 0.8))


STAGE = Reweight(Ladder(jnp.ones(1)))


def importance_weighted(shift, key):
    return collapse(one_datum(), Method(Tempering(one_normal(shift)), STAGE), particles=20).log_evidence(key)


@pytest.mark.parametrize(
    "objective", [pytest.param(filter_without_resampling, marks=pytest.mark.slow), guided, importance_weighted]
)
def test_gradients_are_those_of_the_estimate(objective):
    """Draws follow their parameters, so that differences with one key are exact up to rounding; also side by side."""
    keys, h = jax.random.split(jax.random.key(0), 3), 1e-2
    both = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(objective), (None, 0)), (0, None)), compiler_options=QUICKLY)
    (below, _, above), (_, slope, _) = both(jnp.array([0.6 - h, 0.6, 0.6 + h]), keys)
    differences = (above - below) / (2 * h)
    np.testing.assert_allclose(slope, differences, rtol=0.02, atol=5e-3)
    assert np.abs(slope).max() > 0.05


@pytest.mark.slow
def test_a_filter_that_resamples_has_a_gradient():
    def objective(q, key):
        return collapse(walk(q) | {"y": Y}, particle_filter(), particles=20).log_evidence(key)

    assert np.isfinite(jax.jit(jax.grad(objective))(0.6, jax.random.key(0)))


# -- wrong use -------------------------------------------------------------------------------------------------------------


def test_wrong_use_is_told():
    program, key = three_coins(), jax.random.key(0)
    with pytest.raises(ValueError, match=r"^collapse: particles must be a whole number of at least 2, got 1\.$"):
        collapse(program, METHODS["two levels"][1], particles=1)
    with pytest.raises(ValueError, match=r"^collapse: expected a method such as particle_filter\(\), got Tempering\.$"):
        collapse(program, Tempering(), particles=2)
    adaptive = collapse(program, Method(Tempering(), sequence(Reweight(ByESS(0.5)))), particles=4)
    with pytest.raises(ValueError, match=r"^collapse: Reweight\(ByESS\(\)\) has no conditional form here"):
        adaptive.log_density(key, {"z": jnp.zeros(3, int)})
    assert np.isfinite(jax.jit(adaptive.log_evidence, compiler_options=QUICKLY)(key))
    moving = collapse(program, Method(Tempering(), sequence(HALFWAY, Move(DiscreteGibbs(), 1))), particles=4)
    with pytest.raises(ValueError, match=r"^collapse: Move has no conditional form here"):
        moving.log_density(key, {"z": jnp.zeros(3, int)})
    regression = one_datum_each() | {"y": np.zeros(3)}
    with pytest.raises(ValueError, match=r"^collapse: a last particle of DataOrder is not a draw with a density\."):
        collapse(regression, Method(DataOrder(), STAGE), particles=4)
    with pytest.raises(ValueError, match="z"):
        collapse(program, METHODS["two levels"][1], particles=4).log_density(key, {"z": jnp.zeros(2, int)})


@ppl.model
def one_datum_each():
    x = sample("x", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(x, 0.5).expand([3]))


# -- a run as a Generative, and as what marginals are estimated by -----------------------------------------------------------


@ppl.model
def started():
    first = sample("first", dist.Bernoulli(0.4))

    def step(z, _):
        z = sample("z", dist.Bernoulli(logits=1.6 * z - 0.7))
        sample("y", dist.Normal(1.0 * z, 0.8))
        return z, None

    ppl.scan(step, first, length=2)


BY = Collapsing(particle_filter(resample=When(Systematic(), ess=0.8)), particles=2)


def marginals_by_a_filter():
    """Surprises, in standard errors, of densities; and of reciprocals of the densities of what is drawn, which integrated
    against a density give one."""
    by_hand = np.zeros(2)
    program = started() | {"y": Y[:2]}
    for first, *z in itertools.product((0, 1), repeat=3):
        by_hand[first] += np.exp(program.log_density({"first": first, "z": jnp.array(z)}))
    keys = jax.random.split(jax.random.key(0), 20_000)
    marginal, drawn = program.marginal("z", by=BY), started().marginal("z", by=BY)

    def both(key):
        new = drawn.simulate(key)
        weight = dist.Normal(0.5, 0.5).log_prob(new["y"]).sum() - jnp.log(2.0) - new.log_density
        return jax.vmap(lambda first: jnp.exp(marginal.log_density({"first": first}, key=key)))(jnp.arange(2)), jnp.exp(weight)

    densities, ones = (np.asarray(x, float) for x in jax.jit(jax.vmap(both), compiler_options=QUICKLY)(keys))
    mean, error = mean_and_error(densities)
    one, more = mean_and_error(ones)
    return np.abs((mean - by_hand) / error).max(), abs(one - 1) / more


def test_marginals_by_a_filter():
    assert max(marginals_by_a_filter()) < 5


def test_a_filter_that_does_not_hold_what_was_drawn_is_found(monkeypatch):
    """Planted: the reciprocal is estimated by a filter that is free. Densities of given choices need no other."""

    def free(self, key, choices):
        return self.program.log_density(choices) - self.log_evidence(key)

    monkeypatch.setattr(Collapsed, "_log_density", free)
    densities, reciprocals = marginals_by_a_filter()
    assert densities < 5 < 8 < reciprocals


def test_a_run_is_a_guide():
    """Its ELBO is the bound of variational SMC: the log evidence that the run says, and its gradient."""

    @expectation
    def elbo(model, guide):
        choices, log_q = ppl.draw(guide)
        return model.log_density(choices) - log_q

    def bound(q, key):
        program = walk(q) | {"y": Y}
        return elbo.estimate(key, program, normalize(program, by=Collapsing(Method(ByStep(), Extend()), particles=20)))

    keys, h = jax.random.split(jax.random.key(0), 300), 1e-2
    both = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(bound), (None, 0)), (0, None)), compiler_options=QUICKLY)
    (below, values, above), (_, slope, _) = both(jnp.array([0.6 - h, 0.6, 0.6 + h]), keys)
    np.testing.assert_allclose(slope, (above - below) / (2 * h), rtol=0.03, atol=2e-2)
    plain = jax.jit(jax.vmap(lambda key: filter_without_resampling(0.6, key)), compiler_options=QUICKLY)(keys)
    (mean, error), (other, more) = mean_and_error(np.asarray(values)), mean_and_error(np.asarray(plain))
    assert abs(mean - other) < 5 * np.hypot(error, more) < 0.5


def test_both_orders_of_density_and_key():
    program, method = METHODS["importance from a guide"]
    run, z = collapse(program, method, particles=3), {"z": jnp.array([0, 1, 1])}
    both = jax.jit(lambda key: (run.log_density(key, z), run.log_density(z, key=key)), compiler_options=QUICKLY)
    old, new = both(jax.random.key(0))
    assert old == new
    with pytest.raises(ValueError, match="^an estimate needs random numbers, and there are none"):
        run.log_density(z)
