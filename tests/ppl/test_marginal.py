"""Sites removed from programs: against sums over all joint choices, closed forms, and structure that must be refused."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from ppl import dist, sample
from ppl.choices import flatten
from ppl.interpreters import Assess
from ppl.stepwise import Stepwise

KEY = jax.random.key(0)
QUICKLY = {"xla_backend_optimization_level": 0}
DRAWS = 2000
WEIGHTS = jnp.array([0.2, 0.3, 0.5])
MOVES = jnp.array([[0.7, 0.3], [0.2, 0.8]])
Y = jnp.array([0.1, 2.0, 1.5])


@ppl.model
def mixture(y):
    weights = sample("weights", dist.Dirichlet(jnp.ones(3)))
    mu = sample("mu", dist.Normal(0.0, 5.0).expand([3]))

    def point(y):
        z = sample("z", dist.Categorical(weights))
        sample("y", dist.Normal(mu[z], 1.0), obs=y)
        return z

    return ppl.vmap(point)(y)


@ppl.model
def dirichlet_process(y, num=6):
    alpha = sample("alpha", dist.Gamma(2.0, 2.0))
    sticks = ppl.vmap(lambda _: sample("stick", dist.Beta(1.0, alpha)))(jnp.arange(num - 1))
    rest = jnp.cumprod(jnp.append(1.0, 1.0 - sticks))
    weights = rest * jnp.append(sticks, 1.0)
    mu = sample("mu", dist.Normal(0.0, 5.0).expand([num]))

    def point(y):
        z = sample("z", dist.Categorical(weights))
        sample("y", dist.Normal(mu[z], 1.0), obs=y)

    ppl.vmap(point)(y)


@ppl.model
def hidden_markov(y):
    scale = sample("scale", dist.HalfNormal(1.0))

    def step(z, y):
        z = sample("z", dist.Categorical(MOVES[z]))
        sample("y", dist.Normal(2.0 * z, scale), obs=y)
        return z, z

    return ppl.scan(step, 0, y)


@ppl.model
def change_point(counts):
    early, late = sample("early", dist.Exponential(1.0)), sample("late", dist.Exponential(1.0))
    when = sample("when", dist.DiscreteUniform(0, len(counts) - 1))
    sample("y", dist.Poisson(jnp.where(jnp.arange(len(counts)) < when, early, late)), obs=counts)


@ppl.model
def remembering(y):
    """The carry tells of the last two values."""

    def step(last, y):
        z = sample("z", dist.Bernoulli(jnp.array([[0.1, 0.4], [0.7, 0.9]])[last]))
        sample("y", dist.Normal(z + 0.5 * last[0], 1.0), obs=y)
        return (z, last[0]), None

    ppl.scan(step, (0, 0), y)


@ppl.model
def switching(y):
    """Two sites in a step, one before the loop, a continuous one that is kept, deterministic ones."""
    q = sample("q", dist.Beta(1.0, 1.0))
    k = sample("k", dist.Bernoulli(q))

    def step(last, y):
        z, x = last
        z = sample("z", dist.Bernoulli(jnp.where(z == 1, q, 0.2)))
        w = sample("w", dist.Categorical(WEIGHTS))
        x = sample("x", dist.Normal(0.9 * x + z + k, 1.0))
        ppl.deterministic("gone", x * z)
        ppl.deterministic("there", 2.0 * x)
        sample("y", dist.Normal(x + w, 1.0), obs=y)
        return (z, x), x

    return ppl.scan(step, (0, 0.0), y)[1]


@ppl.model
def nested(y):
    """A plate in a scan in a program in a program, with sites of two plates."""

    @ppl.model
    def inner(y):
        def step(z, y):
            z = sample("z", dist.Categorical(MOVES[z]))

            def lane(y):
                w = sample("w", dist.Bernoulli(0.3))
                sample("y", dist.Normal(z + 3.0 * w, 1.0), obs=y)

            ppl.vmap(lane)(y)
            return z, None

        ppl.scan(step, 1, y)

    sample("part", inner(y))


@ppl.model
def batch(y):
    """Entries of one site, not of a plate."""
    z = sample("z", dist.Bernoulli(jnp.array([0.3, 0.6, 0.5])))
    sample("y", dist.Normal(jnp.sum(z) + 0.0 * y, 1.0), obs=y)


# program, choices that are kept, removed sites with shape and number of values
CASES = {
    "mixture": (mixture(Y), {"weights": WEIGHTS, "mu": jnp.array([-1.0, 0.5, 2.0])}, {"z": ((3,), 3)}),
    "hidden Markov": (hidden_markov(Y), {"scale": 0.7}, {"z": ((3,), 2)}),
    "change point": (change_point(jnp.array([4, 3, 0, 1])), {"early": 3.0, "late": 0.5}, {"when": ((), 4)}),
    "remembering": (remembering(jnp.array([0.1, 1.0, 0.5, -0.5])), {}, {"z": ((4,), 2)}),
    "switching": (
        switching(Y[:2]),
        {"q": 0.4, "x": jnp.array([0.3, 0.1])},
        {"z": ((2,), 2), "w": ((2,), 3), "k": ((), 2)},
    ),
    "nested": (nested(jnp.array([[0.3, 1.0], [2.0, -1.0]])), {}, {"part.z": ((2,), 2), "part.w": ((2, 2), 2)}),
    "batch": (batch(Y), {}, {"z": ((3,), 2)}),
}


SLOW = {"hidden Markov", "change point", "mixture", "nested"}


def _every(program, kept, removed):
    """Log prior and joint log density of all joint values of the removed sites, and these: the oracle."""
    sizes = [int(np.prod(shape)) for shape, _ in removed.values()]
    digits = [range(num) for (_, num), size in zip(removed.values(), sizes, strict=True) for _ in range(size)]
    parts = jnp.split(jnp.array(list(product(*digits))), np.cumsum(sizes)[:-1], axis=1)
    values = {a: x.reshape(-1, *shape) for (a, (shape, _)), x in zip(removed.items(), parts, strict=True)}

    def densities(values):
        run = program.interpret(Assess, given=program.complete({**kept, **values}))[0]
        return run.total("log_prior"), run.total("log_prior", "log_likelihood")

    return *jax.jit(jax.vmap(densities), compiler_options=QUICKLY)(values), values


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CASES])
def test_summed_out_is_the_sum_over_all_values(name):
    program, kept, removed = CASES[name]
    marginal = program.marginal(*removed)
    assert not set(removed) & set(marginal.sites())
    prior, every, values = _every(program, kept, removed)
    log_density, pointwise, draws = jax.jit(_asked, compiler_options=QUICKLY)(marginal, kept)
    np.testing.assert_allclose(log_density, jax.nn.logsumexp(every), rtol=1e-5)
    # what data tell one after the other is what they tell together
    together = jax.nn.logsumexp(every) - jax.nn.logsumexp(prior)
    np.testing.assert_allclose(sum(jnp.sum(x) for x in pointwise.values()), together, rtol=1e-4)
    # draws of the removed sites: means, and products of neighbours, within 5 standard errors
    share, flat = jax.nn.softmax(every), flatten(draws)
    for address, x in values.items():
        for moment in (lambda x: x, lambda x: x * jnp.roll(x, 1, -1) if x.ndim > 1 else x * x):
            true = moment(x.astype(float))
            want = jnp.tensordot(share, true, 1)
            spread = jnp.sqrt(jnp.tensordot(share, (true - want) ** 2, 1))
            got = jnp.mean(moment(flat[address].astype(float)), 0)
            assert jnp.all(jnp.abs(got - want) <= 5.0 * spread / DRAWS**0.5 + 1e-6), (address, got, want)


def _asked(marginal, kept):
    draws = jax.vmap(lambda key: marginal.draw_removed(key, kept))(jax.random.split(KEY, DRAWS))
    return marginal.log_density(kept), marginal.log_likelihoods(kept), draws


# -- a program like any other ----------------------------------------------------------------------------------------------


def test_deterministic_sites_and_return_values_go_with_what_they_depend_on():
    program, kept, removed = CASES["switching"]
    marginal = program.marginal(*removed)
    assert set(marginal.sites()) == {"q", "x", "there", "y"}
    values, retval = jax.jit(lambda m: (m.values(kept), m.retval(kept)), compiler_options=QUICKLY)(marginal)
    assert set(values) == {"q", "x", "there", "y"}
    np.testing.assert_array_equal(retval, kept["x"])
    assert "removed" in repr(mixture(Y).marginal("z").retval(CASES["mixture"][1]))


def test_simulation_runs_forward_and_knows_the_density():
    marginal = mixture(Y).marginal("z")
    trace = jax.jit(lambda m: m.simulate(KEY), compiler_options=QUICKLY)(marginal)
    assert set(trace.choices) == {"weights", "mu"}
    np.testing.assert_allclose(trace.log_density, marginal.log_density(trace.choices), rtol=1e-6)
    assert ppl.predict(marginal, KEY, num=2)["y"].shape == (2, 3)


@pytest.mark.slow
def test_generate_weighs_given_choices_without_noise_of_the_removed():
    marginal = mixture(Y).marginal("z")
    trace, log_weight = marginal.generate(KEY, {"mu": jnp.array([-1.0, 0.5, 2.0])})
    prior = dist.Dirichlet(jnp.ones(3)).log_prob(trace["weights"])
    np.testing.assert_allclose(log_weight, trace.log_density - prior, rtol=1e-5)


def test_a_marginal_of_a_marginal_and_one_inside_a_program():
    program, kept, removed = CASES["switching"]
    one, other = program.marginal(*removed), program.marginal("z").marginal("k", "w")
    assert dict(one.fn.ways).keys() == dict(other.fn.ways).keys() and one.sites().keys() == other.sites().keys()

    @ppl.model
    def outer():
        sample("sub", mixture(Y).marginal("z"))

    kept = CASES["mixture"][1]
    np.testing.assert_allclose(outer().log_density({"sub": kept}), mixture(Y).marginal("z").log_density(kept), rtol=1e-6)


def test_tempering_begins_at_the_prior_of_what_is_kept():
    target = ppl.Target(mixture(Y).marginal("z"))
    u = jnp.array([0.1, -0.2, 0.3, 0.4, 0.5])
    prior, likelihood = target.log_prior_and_likelihood(u)
    c = target.constrain(u)
    want = dist.Normal(0.0, 5.0).log_prob(c["mu"]).sum() + dist.Dirichlet(jnp.ones(3)).log_prob(c["weights"])
    np.testing.assert_allclose(prior - target.log_jacobian(u), want, rtol=1e-5)
    each = jax.nn.logsumexp(jnp.log(c["weights"]) + dist.Normal(c["mu"], 1.0).log_prob(Y[:, None]), axis=1)
    np.testing.assert_allclose(likelihood, each.sum(), rtol=1e-5)


def test_gradients_are_finite_where_values_are_impossible():
    @ppl.model
    def half():
        a = sample("a", dist.Normal(0.0, 1.0))

        def step(z, _):
            z = sample("z", dist.Categorical(logits=jnp.where(jnp.array([True, False]), a, -jnp.inf)))
            sample("y", dist.Uniform(z - 1.0, z + a), obs=5.0)  # impossible whatever z is
            return z, None

        ppl.scan(step, 0, length=3)

    target = ppl.Target(half().marginal("z"))
    value, slope = jax.jit(jax.value_and_grad(target.log_density), compiler_options=QUICKLY)(jnp.ones(1))
    assert value == -jnp.inf and jnp.isfinite(slope).all()


@pytest.mark.slow
def test_steps_of_a_filter_sum_for_themselves():
    """What happens in one step of a loop that is taken step by step is summed there, and weighs exactly."""

    @ppl.model
    def outliers(y):
        def step(x, y):
            x = sample("x", dist.Normal(0.9 * x, 1.0))
            out = sample("out", dist.Bernoulli(0.1))
            sample("y", dist.Normal(x, jnp.where(out == 1, 10.0, 1.0)), obs=y)
            return x, x

        ppl.scan(step, 0.0, y)

    opened = Stepwise(outliers(Y).marginal("out"))
    assert opened.latent == ("x",)
    new = opened.step(KEY, 1, {}, jnp.array(0.5))
    x = new.choices["x"]
    want = jnp.log(0.9 * jnp.exp(dist.Normal(x, 1.0).log_prob(Y[1])) + 0.1 * jnp.exp(dist.Normal(x, 10.0).log_prob(Y[1])))
    np.testing.assert_allclose(new.log_weight, want, rtol=1e-5)
    np.testing.assert_allclose(new.log_prior, dist.Normal(0.45, 1.0).log_prob(x), rtol=1e-5)


def test_a_marginal_is_a_value():
    traced = []
    density = jax.jit(lambda m, kept: traced.append(1) or m.log_density(kept))
    kept = CASES["mixture"][1]
    for y in (Y, 2.0 * Y):
        density(mixture(y).marginal("z"), kept)
    assert len(traced) == 1
    slope = jax.grad(lambda y: density(mixture(y).marginal("z"), kept))(Y)
    assert jnp.isfinite(slope).all()


class By:
    def marginal(self, program, addresses):
        return program, addresses


def test_by_is_whoever_has_a_method():
    program = mixture(Y)
    assert program.marginal("z", by=By()) == (program, ("z",))


# -- sampled with NUTS -----------------------------------------------------------------------------------------------------


def test_a_change_point_is_sampled_with_nuts():
    counts = jnp.array([5, 4, 6, 3, 5, 0, 1, 0, 2, 1])
    program = change_point(counts).marginal("when")
    posterior = inf.mcmc(program, inf.NUTS(), key=KEY, chains=4, draws=500, progress=None)
    grid = jnp.linspace(0.05, 12.0, 120)
    early, late = jnp.meshgrid(grid, grid, indexing="ij")
    log_p = jax.jit(jax.vmap(jax.vmap(lambda a, b: program.log_density({"early": a, "late": b}))))(early, late)
    share = jax.nn.softmax(log_p.ravel()).reshape(log_p.shape)
    for name, values in {"early": early, "late": late}.items():
        mean = jnp.sum(share * values)
        sd = jnp.sqrt(jnp.sum(share * (values - mean) ** 2))
        got = posterior.draws[name]
        assert abs(got.mean() - mean) < 5.0 * sd / 500**0.5, (name, got.mean(), mean)  # at least 500 effective draws of 2000


@pytest.mark.slow
@pytest.mark.parametrize("program", [mixture, dirichlet_process, hidden_markov])
def test_mixtures_and_chains_are_sampled_with_nuts(program):
    y = jnp.concatenate([jax.random.normal(KEY, (20,)), 4.0 + jax.random.normal(jax.random.key(1), (20,))])
    posterior = inf.mcmc(program(y).marginal("z"), inf.NUTS(), key=KEY, chains=2, draws=300, progress=None)
    assert all(np.isfinite(np.asarray(x)).all() for x in posterior.draws.values())


# -- what can not be done --------------------------------------------------------------------------------------------------


@ppl.model
def wrong(kind):
    z = sample("z", dist.Bernoulli(0.3))
    if kind == "infinite":
        sample("n", dist.Poisson(3.0))
    if kind == "many":
        sample("many", dist.Bernoulli(0.5).expand([30]))
    if kind == "lane":
        zs = ppl.vmap(lambda y: sample("w", dist.Bernoulli(0.3)))(Y)
        ppl.factor("count", 1.0 * jnp.sum(zs))
    if kind == "sum":
        ppl.scan(lambda c, _: ((c := c + sample("w", dist.Bernoulli(0.3))), ppl.factor("f", 0.1 * c))[0:1] + (None,), 0, Y)
    if kind == "support":
        sample("x", dist.Uniform(0.0, 1.0 + z))
    sample("y", dist.Normal(z, 1.0), obs=1.0)


@pytest.mark.parametrize(
    ("kind", "address", "sentence"),
    [
        ("", "q", "marginal names a site 'q', but the program has none of that name."),
        ("", "y", "site 'y' cannot be removed: it is observed"),
        ("infinite", "n", "site 'n' cannot be summed out: Poisson can take infinitely many values"),
        ("many", "many", r"site 'many' has 2\^30 joint values, too many"),
        ("lane", "w", "site 'w' cannot be removed: its value leaves the lane of ppl.vmap"),
        (
            "sum",
            "w",
            "site 'w' cannot be summed out along ppl.scan: the carry depends on its values at more than 3 steps back",
        ),
    ],
)
def test_what_cannot_be_removed_gets_a_sentence(kind, address, sentence):
    with pytest.raises(ValueError, match=sentence):
        wrong(kind).marginal(address)


def test_no_address_and_nothing_removed():
    with pytest.raises(ValueError, match="marginal needs the address of a site"):
        wrong("").marginal()
    with pytest.raises(ValueError, match="no site was removed from this program"):
        wrong("").draw_removed(KEY, {"z": 1})


def test_a_support_that_depends_on_a_removed_site_has_no_unconstrained_space():
    target = ppl.Target(wrong("support").marginal("z"))
    with pytest.raises(ValueError, match="site 'z' cannot be removed: the value or the support of another site"):
        target.log_density(jnp.zeros(1))


def test_a_returned_value_that_is_not_known_says_so_when_used():
    @ppl.model
    def outer():
        states = sample("sub", hidden_markov(Y).marginal("z"))[1]
        sample("x", dist.Normal(jnp.sum(states), 1.0))

    with pytest.raises(ValueError, match="depends on site 'sub.z', which was removed"):
        outer().log_density({"sub": {"scale": 1.0}, "x": 0.0})
