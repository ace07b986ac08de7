"""Guides made from programs: laws that every family keeps, fits that are exact, and sentences."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import inference as inf
import ppl
from inference.fixed import Fixed
from inference.vi import (
    Amortised,
    Autoregressive,
    Coupling,
    FullRank,
    LowRank,
    MaskedAutoregressive,
    MeanField,
    Mixture,
    PriorDraws,
    Score,
    expectation,
    guide_for,
    prior_of,
)
from inference.vi.guides import full_rank
from inference.vi.guides.law import Transport, simulated
from inference.vi.guides.spline import spline, unspline
from ppl import dist, sample
from tests.inference.vi.guides import FAMILIES, pair, plane, shaken, space, supports

SLOW = ("coupling", "mixture of flows", "masked autoregressive", "low rank")  # to compile; the others stand for them
families = pytest.mark.parametrize(
    "family", [pytest.param(f, id=n, marks=[pytest.mark.slow] if n in SLOW else []) for n, f in FAMILIES.items()]
)
Y = {"y": 0.7}


@expectation
def elbo(model, guide):
    choices, log_q = ppl.draw(guide)
    return model.log_density(choices) - log_q


def fitted(program, guide, *, steps=1500, rate=0.05, samples=16, objective=elbo):
    """Climbed by Adam, the rate falling to zero."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    free, rest = eqx.partition(guide, eqx.is_inexact_array, is_leaf=lambda x: isinstance(x, Fixed))

    def step(carry, key):
        free, state = carry
        loss = lambda free: -objective.estimate(key, program, eqx.combine(free, rest), samples=samples)  # noqa: E731
        updates, state = optimizer.update(jax.grad(loss)(free), state)
        return (optax.apply_updates(free, updates), state), None

    keys = jax.random.split(jax.random.key(1), steps)
    (free, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))((free, optimizer.init(free)))
    return eqx.combine(free, rest)


# -- laws ------------------------------------------------------------------------------------------------------------------


def law_of(family):
    """The law of a family for `space`, away from where it begins, as a pytree of arrays."""
    return shaken(guide_for(space() | Y, family, scale=0.5), jax.random.key(1), 0.2).law


@jax.jit
def drawn(law, keys):
    """Positions, what `drawn` says of their density, and what `density` does."""
    positions, log_q = jax.vmap(lambda key: simulated(law, key))(keys)
    return positions, log_q, jax.vmap(law.density)(positions)


def check_the_same_density(family):
    _, said, densities = drawn(law_of(family), jax.random.split(jax.random.key(2), 64))
    np.testing.assert_allclose(densities, said, atol=1e-8)


@families
def test_the_density_is_that_of_the_draws(family):
    with jax.enable_x64(True):
        check_the_same_density(family)


def test_a_forgotten_scale_would_be_seen(monkeypatch):
    """Planted: a triangular law that forgets its scale in one direction."""
    inverse = full_rank.Triangular.inverse
    monkeypatch.setattr(full_rank.Triangular, "inverse", lambda self, x: (inverse(self, x)[0], 0.0))
    drawn.clear_cache()
    with jax.enable_x64(True), pytest.raises(AssertionError):
        check_the_same_density(FullRank())
    drawn.clear_cache()


@families
def test_transports_have_inverses_and_their_jacobians(family):
    with jax.enable_x64(True):
        law = law_of(family)
        law = getattr(law, "law", law)
        if not isinstance(law, Transport):
            return
        noise = 1.5 * jax.random.normal(jax.random.key(3), (20, law.dim))

        @jax.jit
        def both(law, noise):
            position, log_jacobian = jax.vmap(law.forward)(noise)
            slopes = jax.vmap(jax.jacfwd(lambda z: law.forward(z)[0]))(noise)
            return log_jacobian, *jax.vmap(law.inverse)(position), jnp.linalg.slogdet(slopes)[1]

        log_jacobian, back, log_back, exact = both(law, noise)
        np.testing.assert_allclose(back, noise, atol=1e-7)
        np.testing.assert_allclose(log_back, -log_jacobian, atol=1e-7)
        np.testing.assert_allclose(log_jacobian, exact, atol=1e-7)


@families
def test_the_density_integrates_to_one(family):
    """By importance, from a wide Student's t with 5 degrees of freedom: within 4 standard errors, which are below 0.05."""
    law, num = law_of(family), 40_000
    wide = dist.StudentT(5.0, 0.0, 1.2).expand([3]).to_event(1)
    draws = wide.sample(jax.random.key(5), (num,))
    weights = np.asarray(jax.jit(lambda law, x: jnp.exp(jax.vmap(law.density)(x) - wide.log_prob(x)))(law, draws))
    error = weights.std() / math.sqrt(num)
    assert error < 0.05
    assert abs(weights.mean() - 1.0) < 4 * error


def test_choices_lie_in_their_supports_and_their_density_has_the_jacobian():
    """Of a site of every kind. Beside what `drawn` says: a positive site has the density of the law over its value."""
    with jax.enable_x64(True):
        program = supports() | Y
        guide = shaken(guide_for(program), jax.random.key(1))
        traces = jax.jit(jax.vmap(guide.simulate))(jax.random.split(jax.random.key(2), 64))
        densities = jax.jit(jax.vmap(guide.log_density))(traces.choices)
        np.testing.assert_allclose(densities, traces.log_density, atol=1e-6)
        for name in ("positive", "simplex", "cholesky"):
            assert np.all(program.sites()[name].support(traces.choices[name])), name
        assert np.all(traces.choices["interval"] > -traces.choices["positive"]) and np.all(traces.choices["interval"] < 1.0)
        guide = shaken(guide_for(plane() | Y), jax.random.key(1))
        scale, x = 0.7, -0.3
        normal = dist.Normal(guide.law.location, jnp.exp(guide.law.log_scale))
        exact = normal.log_prob(jnp.array([math.log(scale), x])).sum() - math.log(scale)
        np.testing.assert_allclose(guide.log_density({"scale": scale, "x": x}), exact)


@pytest.mark.slow
def test_splines_are_monotone_and_have_inverses():
    with jax.enable_x64(True):
        raw = 2.0 * jax.random.normal(jax.random.key(0), (200, 11))
        x = jnp.linspace(-6.0, 6.0, 200)
        y, log_slope = spline(x, raw)
        back, log_back = unspline(y, raw)
        slope = jax.vmap(jax.grad(lambda x, raw: spline(x, raw)[0]))(x, raw)
        np.testing.assert_allclose(back, x, atol=1e-9)
        np.testing.assert_allclose(log_back, -log_slope, atol=1e-9)
        np.testing.assert_allclose(slope, np.exp(log_slope), rtol=1e-9)
        np.testing.assert_allclose(spline(x, jnp.zeros((200, 11)))[0], x, atol=1e-9)


@families
def test_guides_go_through_jit_vmap_and_grad_in_float32(family):
    """As arguments; the gradient is finite, and that of some parameter is not zero."""
    program, guide = space() | Y, guide_for(space() | Y, family)
    leaves, _ = jax.tree.flatten(guide)
    assert all(hasattr(x, "dtype") or isinstance(x, float) for x in leaves)

    def value(guide, key):
        return elbo.estimate(key, program, guide)

    keys = jax.random.split(jax.random.key(0), 3)
    values, slopes = jax.jit(jax.vmap(eqx.filter_value_and_grad(value), (None, 0)))(guide, keys)
    assert values.dtype == jnp.float32 and np.all(np.isfinite(values))
    slopes = jax.tree.leaves(eqx.filter(slopes.law, eqx.is_inexact_array, is_leaf=lambda x: isinstance(x, Fixed)))
    assert all(np.all(np.isfinite(x)) for x in slopes)
    assert any(np.any(x != 0) for x in slopes)


# -- fits ------------------------------------------------------------------------------------------------------------------


def line(seed: int, num: int):
    """Regressors (num, 2) and data of `pair`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    return jnp.asarray(x), jnp.asarray(x @ np.array([0.5, -1.0]) + 0.5 * rng.normal(size=num))


def exact(x, y):
    """Mean, covariance, and log evidence of `pair`."""
    covariance = np.linalg.inv(np.eye(2) + x.T @ x / 0.25)
    mean = covariance @ x.T @ y / 0.25
    marginal = np.asarray(x @ x.T + 0.25 * np.eye(len(y)))
    log_evidence = -0.5 * (y @ np.linalg.solve(marginal, y) + np.linalg.slogdet(marginal)[1] + len(y) * math.log(2 * math.pi))
    return mean, covariance, log_evidence


@pytest.mark.parametrize("family", [FullRank(), LowRank(1)], ids=str)
def test_a_normal_in_the_family_is_found(family):
    """The path-wise gradient has no noise where the guide is exact, so there it ends."""
    stuck = expectation(lambda model, guide: _stuck(model, guide))
    with jax.enable_x64(True):
        x, y = line(0, 10)
        program = pair(x) | {"y": y}
        guide = fitted(program, guide_for(program, family), steps=2000, samples=4, objective=stuck)
        mean, covariance, log_evidence = exact(x, y)
        factor = jax.jacobian(lambda z: guide.law.forward(z)[0])(jnp.zeros(2))
        np.testing.assert_allclose(guide.law.location, mean, atol=1e-5)
        np.testing.assert_allclose(factor @ factor.T, covariance, atol=1e-6)
        np.testing.assert_allclose(elbo.estimate(jax.random.key(0), program, guide), log_evidence, atol=1e-4)


def _stuck(model, guide):
    choices, _ = ppl.draw(guide)
    return model.log_density(choices) - jax.lax.stop_gradient(guide).log_density(choices)


@ppl.model
def funnel():
    tau = sample("log_tau", dist.Normal(0.0, 1.0))
    ppl.deterministic("tau", jnp.exp(tau))
    ppl.vmap(lambda _: sample("theta", dist.Normal(0.0, jnp.exp(tau))))(jnp.arange(4.0))


def test_the_structure_of_a_program_holds_its_funnel():
    """log tau, and theta given it, are Normal, with a log scale that is linear in log tau: every draw has weight one."""
    with jax.enable_x64(True):
        program, guide = funnel(), guide_for(funnel(), Autoregressive(), scale=1.0)
        assert guide.law.spans[1].above == (0,)
        guide = eqx.tree_at(lambda g: g.law.sites[1].stretches, guide, jnp.ones((4, 1)))
        traces = jax.vmap(guide.simulate)(jax.random.split(jax.random.key(0), 20))
        np.testing.assert_allclose(jax.vmap(program.log_density)(traces.choices), traces.log_density, atol=1e-10)


def test_parents_are_found_through_deterministic_sites_and_plates():
    @ppl.model
    def layered():
        mu = sample("mu", dist.Normal(0.0, 1.0))
        tau = sample("tau", dist.HalfNormal(1.0))
        twice = ppl.deterministic("twice", 2.0 * tau)
        theta = ppl.vmap(lambda _: sample("theta", dist.Normal(0.0, twice)))(jnp.arange(3.0))
        sample("y", dist.Normal(mu + theta.sum(), 1.0))

    guide = guide_for(layered() | {"y": 1.0}, Autoregressive())
    assert [span.above for span in guide.law.spans] == [(), (), (1,)]


@ppl.model
def two_modes():
    x = sample("x", dist.Normal(0.0, 3.0))
    ppl.factor("modes", jnp.logaddexp(-0.5 * ((x - 3.0) / 0.4) ** 2, -0.5 * ((x + 3.0) / 0.4) ** 2))


@pytest.mark.parametrize(
    "family", [Mixture(2), pytest.param(Mixture(2, strategy=Score()), marks=pytest.mark.slow)], ids=["enumerated", "scored"]
)
def test_a_mixture_finds_both_modes(family):
    program = two_modes()
    guide = fitted(program, guide_for(program, family), steps=600, samples=8)
    locations = np.sort(np.asarray(guide.law.members.location)[:, 0])
    assert np.all(np.abs(locations - [-2.947, 2.947]) < 0.1)  # 3 / (1 + 0.4^2 / 3^2)
    np.testing.assert_allclose(jax.nn.softmax(guide.law.logits), 0.5, atol=0.05)


MODES = {  # of a mixture of Normals: weights, locations, and how many components the guide has
    "unequal": ([0.3, 0.7], [[-3.0], [3.0]], 2),
    "corners": ([0.2, 0.3, 0.25, 0.25], [[-3.0, -3.0], [3.0, -3.0], [-3.0, 3.0], [3.0, 3.0]], 4),
}


def begun(name, **settings):
    """The places (20, components, dim) where 20 mixtures begin, and in how many of them each mode has one near."""
    weights, modes, num = MODES[name]

    @ppl.model
    def model():
        normals = dist.Normal(jnp.asarray(modes), 0.7).to_event(1)
        sample("x", dist.MixtureSameFamily(dist.Categorical(jnp.asarray(weights)), normals))

    def places(key):
        return guide_for(model(), Mixture(num), key=key, **settings).law.members.location

    where = jax.jit(jax.vmap(places))(jax.random.split(jax.random.key(0), 20))
    distances = jnp.linalg.norm(where[:, :, None] - jnp.asarray(modes), axis=-1)
    return where, int(jnp.sum(jnp.all(jnp.any(distances < 2.5, axis=1), axis=1)))


@pytest.mark.parametrize("name", MODES)
def test_components_begin_in_all_modes(name):
    """Fitted from one place they found both modes of the first in 14 of 20 runs, and all of the second in 12."""
    assert begun(name)[1] >= 19
    where, num = begun(name, init=inf.At({"x": jnp.asarray(MODES[name][1])[0]}), scale=0.01)
    assert num == 0 and np.all(np.std(where, axis=1) < 0.05)  # an init that is given is kept to


def test_where_no_climb_succeeds_a_mixture_says_so():
    @ppl.model
    def nowhere():
        x = sample("x", dist.Normal(0.0, 1.0))
        ppl.factor("far", jnp.where(x > 100.0, 0.0, -jnp.inf))

    with pytest.raises(ValueError, match="not finite where the guide begins: site 'far'"):
        guide_for(nowhere(), Mixture(2))


def test_an_amortised_guide_is_right_for_all_data():
    """x given y is Normal(y / 2, 1 / 2): a linear network has it exactly, learned of many data at once."""

    @ppl.model
    def normal():
        x = sample("x", dist.Normal(0.0, 1.0))
        sample("y", dist.Normal(x, 1.0))

    ys = jnp.linspace(-2.0, 2.0, 5)
    net = eqx.nn.Linear(1, 2, key=jax.random.key(0))
    guide = guide_for(normal() | {"y": 0.0}, Amortised(net))

    @expectation
    def stuck(model, guide):
        def lane(y):
            here, there = model | {"y": y}, guide.given(model | {"y": y})
            return _stuck(here, there)

        return jnp.sum(ppl.vmap(lane)(ys))

    guide = fitted(normal(), guide, steps=600, samples=4, objective=stuck)
    there = guide.given(normal() | {"y": 1.5}).law.law
    np.testing.assert_allclose(there.location, 0.75, atol=1e-3)
    np.testing.assert_allclose(jnp.exp(there.log_scale), math.sqrt(0.5), atol=1e-3)
    assert guide.given(normal() | {"y": 1.5}).family == "Amortised of MeanField"


@pytest.mark.slow
def test_flax_networks_amortise_too():
    from flax import nnx

    guide = guide_for(plane() | Y, Amortised(nnx.Linear(1, 4, rngs=nnx.Rngs(0))))
    value, slope = jax.jit(jax.value_and_grad(lambda g: elbo.estimate(jax.random.key(0), plane() | Y, g)))(guide)
    assert np.isfinite(value) and all(np.all(np.isfinite(x)) for x in jax.tree.leaves(slope.law.net))


def test_a_guide_begins_where_it_is_told():
    @ppl.model
    def far():
        sample("x", dist.Normal(100.0, 5.0))

    begun = guide_for(far(), init=PriorDraws()).law
    assert abs(begun.location[0] - 100.0) < 3.0 and 3.5 < np.exp(begun.log_scale[0]) < 6.5
    begun = guide_for(far(), init=inf.At({"x": 90.0}), scale=0.5).law
    assert begun.location[0] == 90.0 and np.isclose(np.exp(begun.log_scale[0]), 0.5)
    begun = guide_for(far(), init=inf.Pathfinder()).law
    assert abs(begun.location[0] - 100.0) < 25.0 and 4.0 < np.exp(begun.log_scale[0]) < 6.0


# -- corrected -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_importance_and_tempering_correct_a_guide():
    """A mean field that is too narrow, against the exact evidence."""
    with jax.enable_x64(True):
        x, y = line(0, 10)
        program = pair(x) | {"y": y}
        mean, covariance, log_evidence = exact(x, y)
        guide = guide_for(program, init=inf.At({"theta": mean + 0.1}), scale=0.6)
        weighted = inf.importance(program, guide, key=jax.random.key(0), num=4000)
        assert abs(weighted.log_evidence - log_evidence) < 4 * weighted.log_evidence_error < 0.2
        way = inf.tempering(reference=guide)
        posterior = inf.smc(program, way, key=jax.random.key(0), particles=1000, progress=False)
        assert abs(posterior.log_evidence - log_evidence) < 4 * posterior.log_evidence_error + 0.02
        np.testing.assert_allclose(posterior["theta"].mean((0, 1)), mean, atol=4 * np.sqrt(covariance.max() / 200))


class Estimated(ppl.Generative):
    """A guide whose density is an estimate."""

    def drawn(self):
        z = sample("z", dist.Normal(0.0, 1.0))
        return {"theta": z * jnp.ones(2)}, jnp.zeros(())

    def density(self, choices):
        return jnp.sum(choices["theta"]) + sample("z", dist.Normal(0.0, 1.0))


def test_what_cannot_be_a_proposal_is_told():
    x, y = line(0, 10)
    program = pair(x) | {"y": y}
    with pytest.raises(ValueError, match=r"the reference must have a density that is known: site 'z' is random"):
        inf.importance(program, Estimated(), key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"the reference has the latent sites scale, x, but the program has theta\[2\]"):
        inf.importance(program, guide_for(plane() | Y), key=jax.random.key(0))


# -- posterior as prior ----------------------------------------------------------------------------------------------------


@ppl.model
def tomorrow(prior, x):
    theta = sample("theta", prior)["theta"]
    sample("y", dist.Normal(x @ theta, 0.5).to_event(1))


@pytest.mark.parametrize(
    "name",
    [
        "full rank",
        pytest.param("masked autoregressive", marks=pytest.mark.slow),
        "mixture",
        pytest.param("amortised", marks=pytest.mark.slow),
    ],
)
def test_a_guide_as_a_prior_has_its_density(name):
    """What the next program draws has the guide's law: mean and spread of draws, within 5 standard errors of 4000."""
    guide = shaken(guide_for(space() | Y, FAMILIES[name], scale=0.5), jax.random.key(1))
    prior = prior_of(guide)
    mine = jax.jit(jax.vmap(guide.simulate))(jax.random.split(jax.random.key(2), 4000)).choices
    theirs = jax.jit(jax.vmap(lambda p, k: p.retval(p.simulate(k).choices), (None, 0)))(
        prior, jax.random.split(jax.random.key(3), 4000)
    )
    for f in (lambda c: np.log(c["scale"]), lambda c: np.tanh(c["x"])):
        a, b = np.asarray(f(mine)), np.asarray(f(theirs))
        error = math.hypot(a.std(), b.std()) / math.sqrt(4000)
        assert abs(a.mean() - b.mean()) < 5 * error
        assert abs(a.std() / b.std() - 1.0) < 0.12


@pytest.mark.slow
def test_a_mixture_is_a_prior_that_gradients_move():
    guide = shaken(guide_for(plane() | Y, Mixture(3), scale=0.5), jax.random.key(1))
    target = ppl.Target(prior_of(guide))
    position = jnp.array([0.3, -0.2])
    np.testing.assert_allclose(target.log_density(position), guide.law.density(position), rtol=1e-5)
    assert np.all(np.isfinite(jax.grad(target.log_density)(position)))


def normal_of(program, at):
    """The posterior of a linear Gaussian program, by Newton's step and the Hessian."""
    target = ppl.Target(program)
    at = jnp.zeros(target.dim) if at is None else at
    curvature = -jax.hessian(target.log_density)(at)
    mean = at + jnp.linalg.solve(curvature, jax.grad(target.log_density)(at))
    guide = guide_for(program, FullRank())
    covariance = jnp.linalg.inv(curvature)
    new = full_rank.Triangular.of(mean, jnp.linalg.cholesky(0.5 * (covariance + covariance.T)))
    return eqx.tree_at(lambda g: g.law, guide, new)


def check_a_stream(combine):
    with jax.enable_x64(True):
        x, y = line(1, 40)
        guide = normal_of(pair(x[:10]) | {"y": y[:10]}, None)
        prior = prior_of(guide)
        for part in range(10, 40, 10):
            here = slice(part, part + 10)
            guide = normal_of(tomorrow(prior, x[here]) | {"y": y[here]}, None)
            prior = combine(guide, prior)
        mean, covariance, _ = exact(x, y)
        law = prior.args[0]
        np.testing.assert_allclose(law.location, mean, atol=1e-8)
        np.testing.assert_allclose(law.factor @ law.factor.T, covariance, atol=1e-8)
        assert len(jax.tree.leaves(prior)) == len(jax.tree.leaves(prior_of(normal_of(pair(x[:10]) | {"y": y[:10]}, None))))


def test_data_one_after_the_other_are_data_all_at_once():
    check_a_stream(prior_of)


def test_a_stream_that_forgets_its_prior_would_be_seen():
    """Planted: the new law in place of the old one, not behind it."""
    with pytest.raises(AssertionError):
        check_a_stream(lambda guide, prior: ppl.Program(prior.fn, (guide.law, prior.args[1])))


@pytest.mark.slow
def test_a_prior_may_also_keep_the_program_in_it():
    with jax.enable_x64(True):
        x, y = line(1, 20)
        guide = normal_of(pair(x[:10]) | {"y": y[:10]}, None)
        guide = normal_of(tomorrow(prior_of(guide), x[10:]) | {"y": y[10:]}, None)
        kept = ppl.Target(prior_of(guide)).record(jnp.zeros(2))
        np.testing.assert_allclose(kept["theta"]["whitened"], guide.law.location)
        mean, _, _ = exact(x, y)
        np.testing.assert_allclose(guide.target.record(guide.law.location)["theta"]["theta"], mean, atol=1e-8)


@pytest.mark.slow
def test_flows_stream_too():
    """Two flows one behind the other have the density of the second in the noise of the first."""
    with jax.enable_x64(True):
        family = MaskedAutoregressive(layers=1, width=4)
        x, y = line(1, 10)
        first = shaken(guide_for(pair(x) | {"y": y}, family), jax.random.key(0))
        program = tomorrow(prior_of(first), x) | {"y": y}
        second = shaken(guide_for(program, family), jax.random.key(1))
        joined = prior_of(second, program.args[0]).args[0]
        noise = jnp.array([0.4, -1.2])
        np.testing.assert_allclose(joined.forward(noise)[0], first.law.forward(second.law.forward(noise)[0])[0])
        back, log_back = joined.inverse(joined.forward(noise)[0])
        np.testing.assert_allclose(back, noise, atol=1e-10)
        np.testing.assert_allclose(log_back, -joined.forward(noise)[1], atol=1e-10)


# -- sentences -------------------------------------------------------------------------------------------------------------


@ppl.model
def coins():
    z = sample("z", dist.Bernoulli(0.3))
    sample("x", dist.Normal(1.0 * z, 1.0))


@ppl.model
def improper():
    sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: guide_for(coins()), r"site 'z' is discrete .*, and guide_for moves.*Sum it.*strategy=Enumerate\(\)"),
        (lambda: guide_for(plane() | Y, MeanField), r"expected a family such as MeanField\(\).*got the class MeanField"),
        (lambda: guide_for(plane() | Y, scale=0.0), r"scale must be a positive number, got 0.0"),
        (lambda: guide_for(plane() | Y, init=3), r"init must be one such as At.*got int"),
        (lambda: guide_for(plane() | Y, LowRank(3)), r"rank 3 is above the dimension 2"),
        (lambda: LowRank(0), r"rank must be a whole number of at least 1, got 0"),
        (lambda: Coupling(layers=0), r"Coupling: layers must be at least 1, got 0"),
        (lambda: MaskedAutoregressive(width=0), r"MaskedAutoregressive: width must be at least 1"),
        (lambda: Mixture(0), r"Mixture: num must be a whole number"),
        (lambda: Mixture(2, of=Mixture(2)), r"Mixture: of must be a family that moves noise"),
        (lambda: Mixture(2, of=MeanField), r"not the class"),
        (lambda: Amortised(3), r"Amortised: expected a network"),
        (lambda: guide_for(plane(), Amortised(lambda x: x)), r"the program has no data for the network to read"),
        (lambda: guide_for(plane() | Y, Amortised(lambda x: x)), r"MeanField has 4 parameters.*makes \(1,\).*a vector \(4,\)"),
        (lambda: guide_for(improper(), init=PriorDraws()), r"the prior of site 'x' is improper"),
        (lambda: guide_for(plane() | Y).given(pair(jnp.ones((1, 2)))), r"the guide is for the sites scale, x, but"),
        (lambda: prior_of(plane()), r"prior_of: expected a guide made by guide_for.*got Program"),
        (lambda: prior_of(guide_for(plane()), plane()), r"prior must be what prior_of returned before"),
        (lambda: prior_of(guide_for(plane() | Y), prior_of(guide_for(plane() | Y))), r"is for scale, x, and not for the site"),
    ],
)  # fmt: skip
def test_wrong_use_is_told(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_start_without_density_is_told():
    @ppl.model
    def narrow():
        x = sample("x", dist.Normal(0.0, 1.0))
        ppl.factor("far", jnp.where(x > 1.0, 0.0, -jnp.inf))

    with pytest.raises(ValueError, match=r"not finite where the guide begins: site 'far' has log density -inf.*init=At"):
        guide_for(narrow())
    assert guide_for(narrow(), init=inf.At({"x": 2.0})).law.location[0] == 2.0


def test_guides_print():
    shown = repr(guide_for(pair(jnp.ones((1, 2))) | {"y": jnp.ones(1)}, FullRank()))
    assert shown == "Guide FullRank of theta[2]: 2 coordinates, 5 parameters"
    assert "Mixture of Coupling" in repr(guide_for(plane() | Y, Mixture(2, of=Coupling(width=4))))
