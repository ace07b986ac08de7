"""Log densities averaged over a law: against sums over all joint values, written out; and what it refuses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import inference as inf
import ppl
from inference.vi import Concrete, Eliminate, Enumerate, elbo, iwelbo
from ppl import dist, sample
from tests.ppl.test_program import KEY

STEPS, K = 4, 3
Y = jnp.array([0.3, -1.0, 2.0, 0.5])
MU = jnp.array([-1.0, 0.0, 2.0])
MOVES = jax.random.normal(jax.random.key(1), (K, K))
TWO_BACK = jax.random.normal(jax.random.key(2), (K, K, K))
PHI = {"moves": jax.random.normal(jax.random.key(3), (K, K)), "w": jax.random.normal(jax.random.key(4), (STEPS, K))}


def chain(logits, *, back=1, reverse=False):
    """Of `back` steps the values go into `logits(values, y, w)` of the next state."""

    def run(y, w, data):
        scale = sample("scale", dist.LogNormal(0.0, 0.5))

        def step(before, x):
            y, w = x
            z = sample("z", dist.Categorical(logits=logits(before, y, w)))
            if data:
                sample("y", dist.Normal(MU[z], scale), obs=y)
            return (z, *before)[:back], None

        ppl.scan(step, (0,) * back, (y, w), reverse=reverse)

    return run


@ppl.model
def first_order(y):
    chain(lambda before, y, w: MOVES[before[0]])(y, jnp.zeros((STEPS, K)), True)


@ppl.model
def second_order(y):
    chain(lambda before, y, w: TWO_BACK[before], back=2)(y, jnp.zeros((STEPS, K)), True)


@ppl.model
def mixture(y):
    chain(lambda before, y, w: MOVES[0])(y, jnp.zeros((STEPS, K)), True)


@ppl.model
def backward(y):
    chain(lambda before, y, w: MOVES[before[0]], reverse=True)(y, jnp.zeros((STEPS, K)), True)


@ppl.model
def chain_guide(phi, y):
    chain(lambda before, y, w: phi["moves"][before[0]] + w * y)(y, phi["w"], False)


@ppl.model
def long_guide(phi, y):
    chain(lambda before, y, w: phi["moves"][before[0]] - phi["moves"][before[1]] * w, back=2)(y, phi["w"], False)


@ppl.model
def mean_field(phi, y):
    sample("scale", dist.LogNormal(0.0, 0.5))
    ppl.scan(lambda c, w: (c, sample("z", dist.Categorical(logits=phi["moves"][0] + w))), None, phi["w"])


@ppl.model
def in_lanes(phi, y):
    sample("scale", dist.LogNormal(0.0, 0.5))
    ppl.vmap(lambda w: sample("z", dist.Categorical(logits=phi["moves"][0] + w)))(phi["w"])


@ppl.model
def backward_guide(phi, y):
    chain(lambda before, y, w: phi["moves"][before[0]] + w * y, reverse=True)(y, phi["w"], False)


PAIRS = [
    (first_order, chain_guide),
    (first_order, long_guide),  # the law remembers more than the model
    (second_order, chain_guide),  # and less
    (second_order, in_lanes),
    (mixture, chain_guide),  # the model has no chain
    (mixture, mean_field),
    (backward, backward_guide),
    (backward, in_lanes),
]


@pytest.mark.parametrize("model, guide", PAIRS, ids=lambda x: x.__name__)
def test_the_elbo_of_a_chain_is_that_of_all_its_joint_values(model, guide):
    estimate = elbo.using({"z": Eliminate()}).estimate

    def ours(phi):
        return estimate(KEY, model(Y), guide(phi, Y))

    value, slope = jax.jit(jax.value_and_grad(ours))(PHI)
    log_q = dist.LogNormal(0.0, 0.5).log_prob
    scale = _scale(model, guide)

    def written(phi):
        every = jnp.array(list(itertools.product(range(K), repeat=STEPS)))
        choices = {"scale": jnp.full(len(every), scale), "z": every}
        log_p, q = jax.vmap(model(Y).log_density)(choices), jax.vmap(guide(phi, Y).log_density)(choices)
        return jnp.sum(jnp.exp(q - log_q(scale)) * (log_p - q))

    wanted, wanted_slope = jax.jit(jax.value_and_grad(written))(PHI)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    for name in PHI:
        np.testing.assert_allclose(slope[name], wanted_slope[name], atol=1e-4)


def _scale(model, guide):
    """The one random number of the test above: what the guide draws with this key."""
    found = []

    @inf.expectation
    def look(model, guide):
        choices, log_q = ppl.draw(guide)
        found.append(choices["scale"])
        return log_q

    look.using({"z": Eliminate()}).estimate(KEY, model(Y), guide(PHI, Y))
    return float(found[0])


@pytest.mark.slow
def test_lanes_chains_side_by_side_and_a_nested_program():
    @ppl.model
    def many(y):
        ppl.vmap(lambda y: sample("one", first_order(y)))(y)

    @ppl.model
    def guides(phi, y):
        ppl.vmap(lambda y: sample("one", chain_guide(phi, y)))(y)

    series = jnp.stack([Y, -Y, Y + 1.0])
    together = elbo.using({"one.z": Eliminate()}).estimate(KEY, many(series), guides(PHI, series))

    @inf.expectation
    def look(model, guide):
        found.append(ppl.draw(guide)[0]["one"]["scale"])
        return jnp.zeros(())

    found = []
    look.using({"one.z": Eliminate()}).estimate(KEY, many(series), guides(PHI, series))
    every = jnp.array(list(itertools.product(range(K), repeat=STEPS)))
    wanted = 0.0
    for y, scale in zip(series, found[0], strict=True):
        choices = {"scale": jnp.full(len(every), scale), "z": every}
        log_p = jax.vmap(first_order(y).log_density)(choices)
        q = jax.vmap(chain_guide(PHI, y).log_density)(choices)
        wanted += jnp.sum(jnp.exp(q - dist.LogNormal(0.0, 0.5).log_prob(scale)) * (log_p - q))
    np.testing.assert_allclose(together, wanted, rtol=1e-5)


def test_a_value_without_probability_counts_nothing(x64):
    @ppl.model
    def coin():
        sample("z", dist.Categorical(probs=jnp.array([0.5, 0.5, 0.0])))

    @ppl.model
    def sure(p):
        sample("z", dist.Categorical(probs=jnp.array([p, 1.0 - p, 0.0])))

    def ours(p):
        return elbo.using({"z": Eliminate()}).estimate(KEY, coin(), sure(p))

    p = 0.3
    value, slope = jax.value_and_grad(ours)(p)
    np.testing.assert_allclose(value, -p * np.log(2 * p) - (1 - p) * np.log(2 * (1 - p)), rtol=1e-6)
    np.testing.assert_allclose(slope, np.log((1 - p) / p), rtol=1e-6)


def test_a_chain_is_fitted_to_its_posterior():
    """The best guide is the posterior: the bound is the evidence then, which the forward algorithm knows."""
    y = jnp.tile(Y, 3)

    @ppl.model
    def hidden(y):
        def step(z, y):
            z = sample("z", dist.Categorical(logits=MOVES[z]))
            sample("y", dist.Normal(MU[z], 1.0), obs=y)
            return z, None

        ppl.scan(step, 0, y)

    @ppl.model
    def guide(logits):
        def step(z, logits):
            z = sample("z", dist.Categorical(logits=logits[z]))
            return z, None

        ppl.scan(step, 0, logits)

    objective = elbo.using({"z": Eliminate()})
    how = {"free": "guide", "optimizer": optax.adam(0.1), "key": KEY, "steps": 500, "progress": False}
    fit = inf.maximize(objective, hidden(y), guide(jnp.zeros((len(y), K, K))), **how)
    evidence = float(hidden(y).marginal("z").log_density({}))
    assert fit.values[0] < evidence - 1.0
    assert abs(fit.values[-1] - evidence) < 1e-3


def test_what_is_impossible_has_no_slope_either():
    """The density of an impossible value has an infinite derivative here."""

    @ppl.model
    def narrow(t):
        z = sample("z", dist.Bernoulli(0.5))
        sample("y", dist.Normal(0.0, t * (1.0 - z)), obs=0.3)

    @ppl.model
    def never():
        sample("z", dist.Bernoulli(0.0))

    def of(strategy):
        return jax.value_and_grad(lambda t: elbo.using({"z": strategy}).estimate(KEY, narrow(t), never()))(1.5)

    wanted = np.log(0.5) + dist.Normal(0.0, 1.5).log_prob(0.3), -1 / 1.5 + 0.3**2 / 1.5**3
    np.testing.assert_allclose(of(Eliminate()), wanted, rtol=1e-5)
    np.testing.assert_allclose(of(Enumerate()), wanted, rtol=1e-5)


@pytest.mark.slow
def test_a_mask_hides_a_density_and_not_a_law():
    on = jnp.array([True, False, True])

    @ppl.model
    def some(y):
        def one(y, on):
            z = sample("z", dist.Categorical(logits=MOVES[0]).mask(on))
            sample("y", dist.Normal(MU[z], 1.0).mask(on), obs=y)

        ppl.vmap(one)(y[:3], on)

    @ppl.model
    def masked(phi):
        ppl.vmap(lambda w, on: sample("z", dist.Categorical(logits=w).mask(on)))(phi["w"][:3], on)

    found = elbo.using({"z": Eliminate()}).estimate(KEY, some(Y), masked(PHI))
    q = jax.nn.softmax(PHI["w"][:3], axis=1)
    log_p = jax.nn.log_softmax(MOVES[0]) + dist.Normal(MU, 1.0).log_prob(Y[:3, None])
    np.testing.assert_allclose(found, jnp.sum(on * jnp.sum(q * (log_p - jnp.log(q)), axis=1)), rtol=1e-5)


def test_a_relaxed_site_beside_an_eliminated_one():
    @ppl.model
    def two(y):
        b, z = sample("b", dist.Bernoulli(0.3)), sample("z", dist.Categorical(logits=MOVES[0]))
        sample("y", dist.Normal(MU[z] + b, 1.0), obs=y[0])

    @ppl.model
    def guide(phi, y):
        sample("b", dist.Bernoulli(0.4))
        sample("z", dist.Categorical(logits=phi["w"][0]))

    found = [elbo.using({"z": s, "b": Concrete(0.5)}).estimate(KEY, two(Y), guide(PHI, Y)) for s in (Eliminate(), Enumerate())]
    np.testing.assert_allclose(*found, rtol=1e-5)


@ppl.model
def in_a_branch(y):
    scale = sample("scale", dist.LogNormal(0.0, 0.5))

    def step(c, y):
        def body():
            z = sample("z", dist.Categorical(logits=MOVES[0]))
            sample("y", dist.Normal(MU[z], scale), obs=y)

        return c, ppl.cond(y > 0, body, body)

    ppl.scan(step, 0, y)


@ppl.model
def shared(y):
    scale, w = sample("scale", dist.LogNormal(0.0, 0.5)), sample("w", dist.Bernoulli(0.5))

    def one(y):
        z = sample("z", dist.Categorical(logits=MOVES[0]))
        sample("y", dist.Normal(MU[z] + w, scale), obs=y)

    ppl.vmap(one)(y)


@inf.expectation
def unchecked(model, guide):
    choices, log_q = ppl.draw(guide)
    return model.log_density(choices) - log_q


def counted_from_one(y):
    def run():
        sample("scale", dist.LogNormal(0.0, 0.5))
        ppl.vmap(lambda y: sample("z", dist.DiscreteUniform(1, K)))(y)

    return ppl.model(run)()


def partly_known(y):
    return mixture(y) | {"z": np.ma.masked_array(np.array([0, 1, 2, 0]), mask=[True, False, True, True])}


SENTENCES = {
    "another objective": (iwelbo(3), first_order, chain_guide, "is not linear in log densities"),
    "the other way": (elbo, first_order, backward_guide, "Let both run the same way"),
    "a branch in the step": (elbo, in_a_branch, chain_guide, "does not know what came before"),
    "a sum around": (elbo, lambda y: shared(y).marginal("w"), in_lanes, "site 'w' is summed out around"),
    "other values": (unchecked, counted_from_one, in_lanes, r"the least value of site 'z' is \(1,\) here"),
    "another length": (unchecked, lambda y: shared(y[:2]).marginal("w"), in_lanes, r"site 'z' has shape \(2,\) here"),
    "partly data": (unchecked, partly_known, in_lanes, "site 'z' is partly data"),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_what_cannot_be_averaged_gets_a_sentence(name):
    objective, model, guide, sentence = SENTENCES[name]
    with pytest.raises(ValueError, match=sentence):
        objective.using({"z": Eliminate()}).estimate(KEY, model(Y), guide(PHI, Y))


def test_values_of_an_eliminated_site_are_not_there():
    @inf.expectation
    def uses(model, guide):
        choices, log_q = ppl.draw(guide)
        return model.log_density(choices) - log_q + jnp.sum(choices["z"] * 1.0)

    @inf.expectation
    def compares(model, guide):
        choices, log_q = ppl.draw(guide)
        return model.log_density(choices) - log_q + jnp.sum(jnp.where(choices["z"] == 1, 1.0, 0.0))

    for objective in (uses, compares):
        with pytest.raises(ValueError, match="the value of site 'z' is used"):
            objective.using({"z": Eliminate()}).estimate(KEY, first_order(Y), chain_guide(PHI, Y))

    @inf.expectation
    def by_itself(model):
        return model.log_density({"scale": 1.0, "z": sample("z", dist.Categorical(logits=jnp.zeros(K)), strategy=Eliminate())})

    with pytest.raises(ValueError, match="which is for sites of a program that is drawn"):
        by_itself.estimate(KEY, first_order(Y))


def test_a_site_that_another_is_drawn_from_is_refused():
    @ppl.model
    def downstream(phi, y):
        z = sample("z", dist.Categorical(logits=phi["moves"][0]))
        sample("scale", dist.LogNormal(1.0 * z, 0.5))

    @ppl.model
    def two(y):
        z = sample("z", dist.Categorical(logits=MOVES[0]))
        scale = sample("scale", dist.LogNormal(0.0, 0.5))
        sample("y", dist.Normal(MU[z], scale), obs=y[0])

    with pytest.raises(ValueError, match="site 'z' cannot be removed"):
        elbo.using({"z": Eliminate()}).estimate(KEY, two(Y), downstream(PHI, Y))
    exact = elbo.using({"z": Enumerate()}).estimate(KEY, two(Y), downstream(PHI, Y))
    assert np.isfinite(exact)
