"""What single strategies say beyond the law: soft values, controls, baselines, derivatives of second order, sentences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.legendre import leggauss

import inference.vi as vi
import ppl
from inference.vi import (
    Concrete,
    DisARM,
    Enumerate,
    MeasureValued,
    Relax,
    Reparameterised,
    Score,
    StraightThrough,
    expectation,
)
from ppl import dist, sample
from tests.inference.vi.strategies import CASES, THETA, errors, estimates, sigmoid

LIMIT, NUM = 4.0, 10_000
NODES, WEIGHTS = (jnp.asarray(x) for x in leggauss(400))
UNIFORM, WEIGHTS = 0.5 * (NODES + 1.0), 0.5 * WEIGHTS  # quadrature on (0, 1)


# -- soft values ---------------------------------------------------------------------------------------------------------


@ppl.model
def guide(t):
    sample("b", dist.Bernoulli(logits=t))


@ppl.model
def prior():
    b = sample("b", dist.Bernoulli(0.3))
    sample("y", dist.Normal(2.0 * b, 1.0), obs=3.0)


@expectation
def elbo(t):
    choices, log_q = ppl.draw(guide(t))
    return prior().log_density(choices) - log_q


def soft_elbo(t, b):
    """The elbo's integrand, by the formula linear in b."""
    log_q = b * jax.nn.log_sigmoid(t) + (1.0 - b) * jax.nn.log_sigmoid(-t)
    log_p = b * jnp.log(0.3) + (1.0 - b) * jnp.log(0.7) - 0.5 * (3.0 - 2.0 * b) ** 2 - 0.5 * jnp.log(2.0 * jnp.pi)
    return log_p - log_q


def soft(t, u):
    return sigmoid((t + jnp.log(u) - jnp.log1p(-u)) / 0.7)


def test_concrete_is_exact_for_the_softened_objective():
    def mean(t):
        return jnp.vdot(WEIGHTS, soft_elbo(t, soft(t, UNIFORM)))

    values, gradients = estimates(elbo.using({"b": Concrete(0.7)}), 0.4, NUM, jax.random.key(0))
    value, gradient = jax.value_and_grad(mean)(0.4)
    assert errors(values, value) < LIMIT and errors(gradients, gradient) < LIMIT
    hard = jax.grad(lambda t: sigmoid(t) * soft_elbo(t, 1.0) + sigmoid(-t) * soft_elbo(t, 0.0))(0.4)
    assert errors(gradients, hard) > LIMIT  # biased, as it says
    assert Concrete(0.7).biased and StraightThrough(0.7).biased and not Score().biased


def test_straight_through_keeps_the_value_and_takes_the_soft_slope():
    def integrand(t, u):
        b = soft(t, u)
        return soft_elbo(t, jax.lax.stop_gradient(jnp.round(b) - b) + b)

    fine = (jnp.arange(20_000) + 0.5) / 20_000  # it jumps: plain midpoints
    values, gradients = estimates(elbo.using({"b": StraightThrough(0.7)}), 0.4, NUM, jax.random.key(0))
    gradient = jax.grad(lambda t: jnp.mean(integrand(t, fine)))(0.4)
    exact = sigmoid(0.4) * soft_elbo(0.4, 1.0) + sigmoid(-0.4) * soft_elbo(0.4, 0.0)
    assert errors(values, exact) < LIMIT and errors(gradients, gradient) < LIMIT


@pytest.mark.parametrize("strategy", [Concrete(0.5), StraightThrough(0.5)], ids=["Concrete", "StraightThrough"])
def test_one_hot_vectors(strategy):
    """Their densities are linear in the vector, whatever the wrappers; and the objective of hard ones is what it should be."""
    weights = jnp.array([0.2, 0.3, 0.5])

    @ppl.model
    def category(logits):
        sample("h", dist.Multinomial(1, logits=logits).expand([2]).to_event(1), strategy=strategy)

    @ppl.model
    def model():
        sample("h", dist.Multinomial(1, probs=weights).expand([2]).to_event(1))

    @expectation
    def objective(logits):
        choices, log_q = ppl.draw(category(logits))
        h = choices["h"]
        by_hand = jnp.sum(h * (jnp.log(weights) - jax.nn.log_softmax(logits)))
        return model().log_density(choices) - log_q - by_hand + jnp.sum(h) + 0.0 * jnp.sum(h**2)

    value, gradient = jax.jit(jax.value_and_grad(lambda t: objective.estimate(jax.random.key(0), t)))(
        jnp.array([0.1, 0.2, -0.5])
    )
    np.testing.assert_allclose(value, 2.0, rtol=1e-5)
    np.testing.assert_allclose(gradient, np.zeros(3), atol=1e-5)


@pytest.mark.filterwarnings("ignore:Out-of-support")
def test_outside_an_objective_numbers_between_have_no_density():
    assert prior().log_density({"b": jnp.array(0.5)}) == -jnp.inf
    traced = jax.jit(lambda b: prior().log_density({"b": b}))(0.5)
    assert traced == -jnp.inf


# -- Relax ---------------------------------------------------------------------------------------------------------------


def test_relax_of_a_category_keeps_the_law():
    def objective(theta):
        k = sample("k", dist.Categorical(logits=jnp.stack([theta[0], theta[1], 0.0]) * jnp.ones((2, 1))))
        return (k[0] + 0.5) * (k[1] - 0.3) ** 2 + theta[0] * k[1]

    def mean(theta):
        p, k = jax.nn.softmax(jnp.stack([theta[0], theta[1], 0.0])), jnp.arange(3.0)
        return jnp.vdot(p, k + 0.5) * jnp.vdot(p, (k - 0.3) ** 2) + theta[0] * jnp.vdot(p, k)

    control = Relax(lambda z: jnp.sum(jax.nn.softmax(2.0 * z)[..., 1]) + jnp.sum(jnp.tanh(z)[..., 2] ** 2))
    values, gradients = estimates(expectation(objective).using({"k": control}), THETA, NUM, jax.random.key(0))
    value, gradient = jax.value_and_grad(mean)(THETA)
    assert errors(values, value) < LIMIT and np.max(errors(gradients, gradient)) < LIMIT


def test_relax_is_trained_by_the_square_of_the_gradient():
    """As the docstring says: descent by the control's scale lowers the variance, and leaves the mean alone."""

    @expectation
    def objective(t, scale):
        b = sample("b", dist.Bernoulli(logits=t), strategy=Relax(lambda z: scale * sigmoid(2.0 * z)))
        return 3.0 * b + 1.0

    gradient = jax.grad(objective.estimate, argnums=1)
    keys = jax.random.split(jax.random.key(0), 2000)

    @jax.jit
    def descend(scale):
        def square(scale):
            return jnp.mean(jax.vmap(lambda key: gradient(key, 0.3, scale) ** 2)(keys))

        return scale - 2.0 * jax.grad(square)(scale), jax.vmap(lambda key: gradient(key, 0.3, scale))(keys)

    scale, (means, variances) = 0.0, ([], [])
    for _ in range(8):
        scale, gradients = descend(scale)
        means.append(float(gradients.mean()))
        variances.append(float(gradients.var()))
    assert variances[-1] < 0.5 * variances[0]
    assert abs(means[-1] - 3.0 * sigmoid(0.3) * sigmoid(-0.3)) < LIMIT * np.sqrt(variances[-1] / len(keys))


# -- derivatives of second order -----------------------------------------------------------------------------------------


SECOND = {
    "Score": {"[xyz]": Score()},
    "Enumerate": {"[xy]": Enumerate()},
    "a baseline": {"[xyz]": Score(0.8)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SECOND)
def test_derivatives_of_second_order(name):
    case = CASES["coins"]
    e = expectation(case.fn).using(SECOND[name])
    hessian = jax.jit(jax.vmap(jax.hessian(e.estimate, argnums=1), (0, None)))
    found = np.asarray(hessian(jax.random.split(jax.random.key(2), 20_000), THETA), float)
    assert np.max(errors(found, jax.hessian(case.mean)(THETA))) < LIMIT


def test_a_hessian_with_samples_as_baselines():
    e = CASES["chain"].using("Score")
    hessian = jax.jit(jax.vmap(jax.hessian(lambda key, t: e.estimate(key, t, samples=2), argnums=1), (0, None)))
    found = np.asarray(hessian(jax.random.split(jax.random.key(2), NUM), THETA), float)
    assert np.max(errors(found, jax.hessian(CASES["chain"].mean)(THETA))) < LIMIT


# -- edges ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_a_coin_that_is_certain_has_the_right_slope(precision, p):
    e = expectation(lambda p: 3.0 * sample("x", dist.Bernoulli(p)) + 1.0).using({"x": Enumerate()})
    value, slope = jax.value_and_grad(lambda p: e.estimate(jax.random.key(0), p))(p)
    np.testing.assert_allclose([value, slope], [1.0 + 3.0 * p, 3.0], rtol=1e-5)


def test_what_is_impossible_counts_nothing():
    """Though its objective is infinite."""
    e = expectation(lambda p: jnp.log(1.0 * sample("x", dist.Bernoulli(p)))).using({"x": Enumerate()})
    assert e.estimate(jax.random.key(0), 1.0) == 0.0


@pytest.mark.parametrize("impossible", [jnp.inf, -jnp.inf, jnp.nan])
@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("strategy", [Enumerate(), MeasureValued()], ids=lambda s: type(s).__name__)
def test_what_is_impossible_poisons_no_gradient(strategy, loop, impossible):
    """Not finite at k = 2, which has no probability, the objective is that of the two values that are left. Of two values the
    gradient by the logits is exact, whichever is drawn."""
    worth = jnp.array([1.0, 2.5, impossible])

    @expectation
    def objective(logits, a):
        def one(shift):
            return shift * a * worth[sample("k", dist.Categorical(logits=logits, validate_args=False), strategy=strategy)]

        return ppl.scan(lambda c, s: (c + one(s), None), 0.0, jnp.array([1.0, 2.0]))[0] if loop else one(3.0)

    def exact(logits, a):
        return 3.0 * a * jnp.vdot(jax.nn.softmax(logits[:2]), worth[:2])

    logits = jnp.array([0.3, -0.2, -jnp.inf])
    found = jax.jit(jax.value_and_grad(lambda *args: objective.estimate(jax.random.key(0), *args), (0, 1)))(logits, 1.5)
    wanted = jax.value_and_grad(exact, (0, 1))(logits, 1.5)
    np.testing.assert_allclose(found[1][0], wanted[1][0], rtol=1e-5, atol=1e-6)
    assert jnp.isfinite(found[0]) and jnp.isfinite(found[1][1])
    if isinstance(strategy, Enumerate):
        np.testing.assert_allclose([found[0], found[1][1]], [wanted[0], wanted[1][1]], rtol=1e-5)


def test_what_is_impossible_has_no_slope():
    """Though it has a value, that counts in the slope of its probability: sqrt(0 scale) has an infinite slope by the scale."""

    @expectation
    def objective(p, scale):
        z = sample("z", dist.Bernoulli(p))
        k = sample("k", dist.Categorical(jnp.stack([0.5 * z, 0.5, 0.5 - 0.5 * z])))
        return jnp.sqrt(scale * (2 - k))

    slopes = jax.grad(objective.using({"*": Enumerate()}).estimate, (1, 2))
    # the mean is p sqrt(2 scale) / 2 + sqrt(scale) / 2; where p = 1 both z = 0 and k = 2 are impossible
    by_scale = (np.sqrt(0.5) + 0.5) / 2.0 / np.sqrt(3.0)
    np.testing.assert_allclose(jax.jit(slopes)(jax.random.key(0), 1.0, 3.0), [np.sqrt(1.5), by_scale], rtol=1e-5)


@pytest.mark.parametrize("strategy", [Score(), Enumerate(), MeasureValued(), DisARM()], ids=lambda s: type(s).__name__)
def test_what_a_mask_hides_is_drawn_all_the_same(strategy):
    """So it counts in an objective that uses it, though its density is left out."""

    @expectation
    def objective(t):
        x = sample("x", dist.Bernoulli(logits=t).expand([2]).mask(jnp.array([True, False])), strategy=strategy)
        return x[0] + 2.0 * x[1]

    values, gradients = estimates(objective, 0.3, 2000, jax.random.key(0))
    assert errors(values, 3.0 * sigmoid(0.3)) < LIMIT and errors(gradients, 3.0 * sigmoid(0.3) * sigmoid(-0.3)) < LIMIT


EDGES = {
    "logits": (dist.BernoulliLogits, [-np.inf, 0.3, np.inf], lambda q: q * (1.0 - q)),
    "probs": (dist.BernoulliProbs, [0.0, sigmoid(0.3), 1.0], lambda q: 1.0),
}


@pytest.mark.parametrize(("family", "at", "slope"), EDGES.values(), ids=EDGES)
def test_disarm_where_a_value_is_impossible(family, at, slope):
    """What is certain has no gradient, and is no trouble to what is not: by enumeration the mean of f is q f(0, 1, 1) +
    (1 - q) f(0, 0, 1), and f(0, 1, 1) = 5, f(0, 0, 1) = 4."""

    @expectation
    def objective(parameters):
        b = sample("b", family(parameters), strategy=DisARM())
        return 1.0 * b[1] + 4.0 * b[2] + 7.0 * b[0] * b[1]

    values, gradients = estimates(objective, jnp.asarray(at), 2000, jax.random.key(0))
    q = sigmoid(0.3)
    assert np.isfinite(gradients).all() and np.all(gradients[:, [0, 2]] == 0.0)
    assert errors(values, 4.0 + q) < LIMIT and errors(gradients[:, 1], slope(q)) < LIMIT


def test_an_exponential_waits_a_little_longer():
    e = expectation(lambda t: sample("w", dist.Exponential(jnp.exp(t))) ** 2).using({"w": MeasureValued()})
    values, gradients = estimates(e, 0.3, NUM, jax.random.key(0))
    assert errors(values, 2.0 * np.exp(-0.6)) < LIMIT and errors(gradients, -4.0 * np.exp(-0.6)) < LIMIT


# -- sentences -----------------------------------------------------------------------------------------------------------


def draws(*distributions):
    return expectation(lambda: sum(jnp.sum(1.0 * sample(f"x{i}", d)) for i, d in enumerate(distributions)))


COIN, NORMAL = dist.Bernoulli(0.5), dist.Normal(0.0, 1.0)
REFUSED = {
    "Reparameterised": (
        Reparameterised(),
        COIN,
        r"x0.*Bernoulli, and Reparameterised\(\) needs values that are",
    ),
    "Enumerate a count": (Enumerate(), dist.Poisson(1.0), r"x0.*Poisson, and Enumerate\(\) needs a known, finite number"),
    "Enumerate a real": (Enumerate(), NORMAL, r"Normal, and Enumerate\(\) needs a known, finite number"),
    "MeasureValued": (
        MeasureValued(),
        dist.Beta(1.0, 1.0),
        r"Beta, and MeasureValued\(\) is for Normal, Exponential",
    ),
    "DisARM": (DisARM(), dist.Categorical(jnp.ones(3) / 3), r"Categorical, and DisARM\(\) is for Bernoulli"),
    "Relax": (Relax(jnp.sum), dist.Poisson(1.0), r"Poisson, and Relax\(\) is for Bernoulli and Categorical"),
    "Concrete": (Concrete(0.5), dist.Categorical(jnp.ones(3) / 3), r"Concrete\(\).*dist\.Multinomial\(1, probs\)"),
    "StraightThrough": (
        StraightThrough(0.5),
        dist.Multinomial(2, jnp.ones(3) / 3),
        r"StraightThrough\(\) is for Bernoulli",
    ),
    "a control": (Relax(lambda z: z), dist.Bernoulli(jnp.ones(2) / 2), r"control must return one number.*shape \(2,\)"),
    "many values": (Enumerate(), dist.Bernoulli(jnp.ones(17) / 2), r"too many joint values \(2\^17 of 'x0'\); at most 65536"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_strategy_is_not_for_is_said(what):
    strategy, d, sentence = REFUSED[what]
    with pytest.raises(ValueError, match=sentence):
        jax.eval_shape(draws(d).using({"x0": strategy}).estimate, jax.random.key(0))


def test_wrong_patterns_and_wrong_strategies_are_said():
    with pytest.raises(ValueError, match="no site of <lambda> fits 'x_0'.*Did you mean 'x0'"):
        jax.eval_shape(draws(COIN).using({"x_0": Score()}).estimate, jax.random.key(0))
    with pytest.raises(ValueError, match=r"site 'x0' was given the class Score, and not a strategy such as Score\(\)"):
        draws(COIN).using({"x0": Score})  # pyright: ignore
    with pytest.raises(ValueError, match="site 'x0' was given str"):
        draws(COIN).using({"x0": "score"})  # pyright: ignore


def test_a_site_with_other_values_in_another_branch():
    def fork(x):
        return ppl.cond(
            x > 0,
            lambda: 1.0 * sample("k", dist.Categorical(jnp.ones(3) / 3)),
            lambda: 1.0 * sample("k", dist.Categorical(jnp.ones(2) / 2)),
        )

    e = expectation(fork).using({"k": vi.Enumerate()})
    with pytest.raises(ValueError, match=r"site 'k' has . values in one branch.*and . in another.*different names"):
        jax.eval_shape(e.estimate, jax.random.key(0), 1.0)
