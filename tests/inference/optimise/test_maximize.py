"""`maximize`: it finds what it should, says what it cannot do, and nothing is lost on the way."""

import io

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import inference as inf
import inference.vi as vi
import ppl
from inference import compiled
from inference.fixed import Fixed
from inference.optimise import RelativeChange, Stalled, maximize
from inference.optimise.until import looks
from inference.progress import Meter
from inference.vi import Enumerate, Score, by_row, expectation, minibatch
from inference.vi.free import Free
from ppl import dist, sample

KEY = jax.random.key(0)
Y = jnp.array([1.2, 0.4, 2.1, 1.7, 0.9])
QUIET = {"key": KEY, "progress": False}


@expectation
def elbo(model, guide):
    choices, log_q = ppl.draw(guide)
    return model.log_density(choices) - log_q


@ppl.model
def normal(loc=0.0, scale=2.0):
    mu = sample("mu", dist.Normal(loc, scale))
    ppl.deterministic("double", 2.0 * mu)
    ppl.vmap(lambda _: sample("y", dist.Normal(mu, 1.0)))(jnp.arange(5))


@ppl.model
def guide(phi):
    sample("mu", dist.Normal(phi["loc"], jnp.exp(phi["log_scale"])))


PROGRAM = normal() | {"y": Y}
START = {"loc": jnp.zeros(()), "log_scale": jnp.zeros(())}
PRECISION = 1.0 / 4.0 + 5.0
MEAN, SD = float(jnp.sum(Y)) / PRECISION, PRECISION**-0.5
LOG_EVIDENCE = float(dist.MultivariateNormal(jnp.zeros(5), jnp.eye(5) + 4.0).log_prob(Y))


@pytest.fixture(scope="module")
def fit():
    return maximize(elbo, PROGRAM, guide(START), steps=3000, **QUIET)


def test_the_guide_becomes_the_posterior(fit):
    phi = fit["guide"].args[0]
    # the rate falls to zero: what is left of the noise of 3000 steps is below a tenth of the posterior's sd
    np.testing.assert_allclose(phi["loc"], MEAN, atol=0.1 * SD)
    np.testing.assert_allclose(jnp.exp(phi["log_scale"]), SD, rtol=0.1)
    assert fit.value == pytest.approx(LOG_EVIDENCE, abs=0.02)
    assert fit.skipped == 0 and len(fit.values) == 3000


def test_the_arguments_keep_their_order():
    """In a dictionary that JAX has sorted, `guide` stands before `model`."""
    plain = elbo.estimate(jax.random.fold_in(KEY, 0), PROGRAM, guide(START))
    assert maximize(elbo, PROGRAM, guide(START), steps=1, **QUIET).values[0] == pytest.approx(float(plain), rel=1e-6)


def test_the_fit_is_a_posterior(fit):
    posterior = fit.posterior
    assert posterior.shape == (1, 1000)
    assert np.mean(posterior["mu"]) == pytest.approx(MEAN, abs=5 * SD / np.sqrt(1000) + 0.1 * SD)
    np.testing.assert_allclose(posterior["double"], 2.0 * posterior["mu"], rtol=1e-6)
    assert posterior.stages["pareto_k"][-1] < 0.7
    assert posterior.log_evidence == pytest.approx(LOG_EVIDENCE, abs=5 * posterior.log_evidence_error + 1e-4)
    assert posterior.program is PROGRAM or posterior.program.data.keys() == PROGRAM.data.keys()
    corrected = inf.importance(PROGRAM, proposal=posterior.run.guide, key=KEY, num=4000)
    assert corrected.log_evidence == pytest.approx(LOG_EVIDENCE, abs=5 * corrected.log_evidence_error + 1e-4)
    assert "elbo" in repr(fit)
    assert fit.plot().axes[0].get_ylabel() == "elbo"


def test_a_guide_that_misses_is_warned_of():
    narrow = maximize(elbo, PROGRAM, thin({"loc": jnp.zeros(())}), steps=2000, **QUIET)
    with pytest.warns(inf.SamplingWarning, match="heavy tails"):
        narrow.draw(1000)


@ppl.model
def thin(phi):
    sample("mu", dist.Normal(phi["loc"], 0.05))


def test_parameters_of_the_model_are_learned():
    """Of empirical Bayes the best location of the prior is the mean of the data."""
    found = maximize(
        elbo, normal(jnp.zeros(()), 2.0) | {"y": Y}, guide(START), free=("model.loc", "guide"), steps=4000,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.03, 4000)), **QUIET,
    )  # fmt: skip
    assert float(found["model"].args[0]) == pytest.approx(float(jnp.mean(Y)), abs=0.05)
    assert found["model"].args[1] == 2.0
    np.testing.assert_array_equal(found["model"].data["y"], Y)


def test_what_is_free():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(2, 1, rngs=rngs)

    @ppl.model
    def nested(net, table, program, fixed, number, count):
        pass

    mlp = eqx.nn.MLP(2, 1, 3, 1, key=KEY)
    args = {"guide": nested(mlp, {"a": jnp.ones(2)}, PROGRAM, Fixed(jnp.ones(3)), 0.5, jnp.arange(3)), "net": Net(nnx.Rngs(0))}
    free = Free("maximize", args, ("guide", "net"))
    # four arrays of the MLP, a, number; the arguments of the program within (its data are not), the weights of the network
    assert [np.shape(x) for x in free.take(args)] == [(3, 2), (3,), (1, 3), (1,), (2,), (), (1,), (2, 1)]
    back = free.put(args, [x + 1.0 for x in free.take(args)])
    np.testing.assert_array_equal(back["guide"].args[1]["a"], 2.0 * np.ones(2))
    np.testing.assert_array_equal(back["guide"].args[3].value, np.ones(3))
    np.testing.assert_array_equal(back["guide"].args[2].data["y"], Y)
    assert isinstance(back["net"], Net) and back["guide"].args[4] == 1.5
    assert [label for label in Free("maximize", args, "guide.number").labels] == ["guide.number"]


def test_line_searches_climb_what_is_exact():
    """Rosenbrock's valley, which takes Adam thousands of steps; the coin in it is enumerated, and no noise is left."""

    @expectation
    def valley(x):
        b = sample("b", dist.Bernoulli(0.5), strategy=Enumerate())
        return -((1.0 - x[0] + b - 0.5) ** 2) - 100.0 * (x[1] - x[0] ** 2) ** 2

    found = maximize(valley, jnp.zeros(2), free="x", optimizer=optax.lbfgs(), steps=60, **QUIET)
    np.testing.assert_allclose(found["x"], [1.0, 1.0], atol=1e-3)
    assert found.value == pytest.approx(-0.25, abs=1e-5)
    plateau = optax.chain(optax.adam(0.01), optax.contrib.reduce_on_plateau())  # looks at values, which may be random
    assert maximize(elbo, PROGRAM, guide(START), optimizer=plateau, steps=20, **QUIET).skipped == 0


@pytest.mark.parametrize("keep", ["by name", "Fixed", None])
def test_covariates_are_kept(keep):
    """Freed with all of the model they are learned with it; the fit says so."""

    @ppl.model
    def line(slope, x):
        mu = sample("mu", dist.Normal(0.0, 2.0))
        x = x.value if isinstance(x, Fixed) else x
        ppl.vmap(lambda x: sample("y", dist.Normal(mu + slope * x, 1.0)))(x)

    x = jnp.linspace(-1.0, 1.0, 5)
    model = line(jnp.zeros(()), Fixed(x) if keep == "Fixed" else x) | {"y": Y}
    free = ("guide", "model.slope" if keep == "by name" else "model")
    found = maximize(elbo, model, guide(START), free=free, steps=50, **QUIET)
    slope, after = found["model"].args
    assert slope != 0.0 and np.array_equal(getattr(after, "value", after), x) == (keep is not None)
    assert repr(found).endswith("learned: guide.phi (2), model.slope (1)" + ("" if keep else ", model.x (5)"))


def _blinking(share: float):
    @expectation
    def blinking(x):
        u = sample("u", dist.Uniform(0.0, 1.0))
        return jnp.where(u < share, jnp.nan, -((x - 1.0) ** 2))

    return blinking


def test_steps_that_are_not_finite_are_left_out():
    found = maximize(_blinking(0.3), jnp.zeros(()), free="x", steps=2000, **QUIET)
    # binomial(2000, 0.3): 5 sd are 102
    assert abs(found.skipped - 600) < 103
    assert np.sum(~np.isfinite(found.values)) == found.skipped
    assert float(found["x"]) == pytest.approx(1.0, abs=0.01)
    assert "left out" in repr(found)


def test_twenty_of_them_in_a_row_end_it():
    with pytest.raises(ValueError, match="20 steps in a row.*have finite densities there; so it is a gradient"):
        maximize(_blinking(1.1), jnp.zeros(()), free="x", steps=2000, **QUIET)

    @ppl.model
    def positive():
        s = sample("s", dist.HalfNormal(1.0))
        sample("y", dist.Normal(0.0, s))

    @ppl.model
    def below(phi):
        sample("s", dist.Normal(phi - 30.0, 0.1))

    with pytest.raises(ValueError, match="site 's' has log density -inf in model"):
        maximize(elbo, positive() | {"y": 1.0}, below(jnp.zeros(())), steps=2000, **QUIET)

    with pytest.raises(ValueError, match="site 'mu' has log density nan where it is drawn"):
        maximize(elbo, PROGRAM, guide({"loc": jnp.array(jnp.nan), "log_scale": jnp.zeros(())}), steps=2000, **QUIET)


@pytest.mark.parametrize(
    ("arguments", "settings", "sentence"),
    [
        ((lambda m, g: 0.0, PROGRAM, guide(START)), {}, "expected an expectation.*@inf.expectation"),
        ((elbo, PROGRAM), {}, "missing a required argument: 'guide'"),
        ((elbo, PROGRAM, guide(START)), {"free": "giude"}, "no argument 'giude'.*Did you mean 'guide'"),
        ((elbo, PROGRAM, guide(START)), {"free": "guide.psi"}, "no argument 'psi'.*Did you mean 'phi'"),
        ((elbo, PROGRAM, guide(Fixed(START))), {}, "nothing to learn in guide"),
        (
            (elbo, PROGRAM, guide({"loc": 0, "log_scale": 1})),
            {},
            r"guide: guide.phi\['loc'\] is a whole number.*3.0 and not 3",
        ),
        ((elbo, PROGRAM, guide(jnp.arange(2))), {}, "nothing to learn in guide: guide.phi is a whole number"),
        ((elbo, normal(0) | {"y": Y}, guide(START)), {"free": ("guide", "model.loc")}, "in model.loc: model.loc is a whole"),
        ((elbo, normal() | {"y": Y}, guide(START)), {"free": ("guide", "model")}, "in model: it holds no arrays of floating"),
        ((elbo, PROGRAM, guide({**START, "more": jnp.zeros(2)})), {}, "does not depend on guide.phi.*more.*Fixed"),
        ((expectation(lambda x: x**2), jnp.ones(())), {}, "say what is to be optimised, free=.*takes x"),
        ((elbo, PROGRAM, guide(START)), {"steps": 0}, "steps must be a whole number"),
        ((elbo, PROGRAM, guide(START)), {"samples": 1.5}, "samples must be a whole number"),
        ((elbo, PROGRAM, guide(START)), {"optimizer": optax.lbfgs()}, "estimate of elbo is random.*inf.dadvi.*inf.find_mode"),
        ((elbo, PROGRAM, guide(START)), {"optimizer": "adam"}, "Optax transformation, got str"),
        ((elbo, PROGRAM, guide(START)), {"until": Stalled}, "rule with a method reached"),
        ((elbo, PROGRAM, guide(START)), {"store": "here"}, "must be a Store"),
    ],
)
def test_what_cannot_be_done_is_said(arguments, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        maximize(*arguments, **QUIET, **settings)


def test_a_fit_without_a_guide_has_no_posterior():
    found = maximize(expectation(lambda x: -((x - sample("u", dist.Normal(0.0, 1.0))) ** 2)), jnp.ones(()), free="x", **QUIET)
    with pytest.raises(ValueError, match="a posterior needs a program called model"):
        found.draw(10)
    with pytest.raises(KeyError, match="no argument 'y'"):
        found["y"]


@pytest.mark.parametrize(
    "made",
    [lambda: minibatch(inf.elbo, size=2), lambda: by_row(inf.elbo.using({"z": STRATEGY}), size=2)],
    ids=["minibatch", "by_row"],
)
def test_objectives_made_alike_are_compiled_once(made, monkeypatch):
    """Also with the optimizer that is taken by default. Another size is another program."""
    compilations, compile_ = [], compiled._in_background
    monkeypatch.setattr(compiled, "_in_background", lambda work: compilations.append(1) or compile_(work))

    def found(objective):
        return maximize(objective, rows_of, jax.tree_util.Partial(levels_guide, jnp.zeros(2)), (Y,), steps=3, **QUIET)

    first, second = found(made()), found(made())
    assert len(compilations) == 1
    np.testing.assert_array_equal(first.values, second.values)
    assert made().fn == made().fn and hash(made().fn) == hash(made().fn)
    assert made().fn != minibatch(inf.elbo, size=3).fn


def backwards(log_ratio):
    """Of the divergence KL(guide, posterior)."""
    return -log_ratio


@ppl.model
def steps_of(theta):
    def step(carry, _):
        sample("y", dist.Normal(sample("z", dist.Normal(theta, 1.0)), 1.0))
        return carry, None

    ppl.scan(step, 0.0, length=2)


@ppl.model
def steps_guide(phi):
    def step(carry, _):
        sample("z", dist.Normal(phi, 1.0))
        return carry, None

    ppl.scan(step, 0.0, length=2)


@ppl.model
def step_guide(phi):
    sample("z", dist.Normal(phi["loc"], jnp.exp(phi["log_scale"])))


FILTER = inf.particle_filter()


def filtered(phi):
    return inf.particle_filter(proposal=lambda carry, x, data: step_guide(phi))


SAME_SETTINGS = {
    "f_divergence": (lambda: vi.f_divergence(backwards), lambda: (PROGRAM, guide(START)), vi.f_divergence(jnp.square)),
    "variational_smc": (
        lambda: vi.variational_smc(filtered, particles=2),
        lambda: (steps_of(jnp.zeros(())) | {"y": Y[:2]}, START),
        vi.variational_smc(filtered, particles=3),
    ),
    "nasmc": (
        lambda: vi.nasmc(FILTER, particles=2),
        lambda: (steps_of(0.0) | {"y": Y[:2]}, steps_guide(jnp.zeros(()))),
        vi.nasmc(FILTER, particles=3),
    ),
}


@pytest.mark.parametrize(("made", "arguments", "other"), SAME_SETTINGS.values(), ids=SAME_SETTINGS)
def test_objectives_of_equal_settings_are_compiled_once(made, arguments, other, monkeypatch):
    compilations, compile_ = [], compiled._in_background
    monkeypatch.setattr(compiled, "_in_background", lambda work: compilations.append(1) or compile_(work))
    for _ in range(2):
        maximize(made(), *arguments(), steps=2, **QUIET)
    assert len(compilations) == 1
    assert made().fn == made().fn and hash(made().fn) == hash(made().fn)
    assert made().fn != other.fn


STRATEGY = Score()


@ppl.model
def levels(y):
    sample("y", dist.Normal(sample("z", dist.Normal(0.0, 1.0).expand(jnp.shape(y))), 1.0))


@ppl.model
def levels_guide(phi, y):
    sample("z", dist.Normal(phi[0] * y, jnp.exp(phi[1])))


def rows_of(y):
    return levels(y) | {"y": y}


def test_several_samples_give_scores_a_baseline():
    """Leave-one-out: the gradient of a score function has less variance than an eighth of what one sample has."""
    scored = elbo.using({"mu": Score()})

    def slopes(samples, num):
        grad = jax.grad(lambda phi, key: scored.estimate(key, PROGRAM, guide(phi), samples=samples))
        return jax.jit(jax.vmap(lambda key: grad(START, key)["loc"]))(jax.random.split(KEY, num))

    assert np.var(slopes(8, 500)) < np.var(slopes(1, 500)) / 12


OPTIMIZER = optax.adam(0.01)


def test_a_run_that_was_broken_off_goes_on_as_if_nothing_had_been(tmp_path):
    def found(steps, store=None, **settings):
        return maximize(elbo, PROGRAM, guide(START), steps=steps, optimizer=OPTIMIZER, store=store, **(QUIET | settings))

    whole = found(3000)
    store = inf.Store(tmp_path / "run", every=0.0)
    part = found(3000, store, budget=1e-9)
    assert part.provenance["stopped"] == "budget" and len(part.values) == 0
    found(2000, store)
    again = found(3000, store)
    np.testing.assert_array_equal(again.values, whole.values)
    np.testing.assert_array_equal(again["guide"].args[0]["loc"], whole["guide"].args[0]["loc"])
    with pytest.raises(ValueError, match="holds another run: its key"):
        found(3000, store, key=jax.random.key(1))


def test_rules_say_when_to_stop():
    rng = np.random.default_rng(0)
    rising = np.linspace(0.0, 10.0, 5000) + rng.normal(size=5000)
    flat = 10.0 + 0.1 * rng.normal(size=5000)
    for rule in (Stalled(), RelativeChange(tolerance=0.01, window=500)):
        assert rule.reached(rising) is None
        assert rule.reached(flat) is not None
        assert rule.reached(flat[:5]) is None
    assert Stalled().reached(10.0 + 10.0 * rng.normal(size=1000)) is None  # so noisy that nobody knows
    assert list(looks(1000)) == list(looks(2000))[: len(list(looks(1000)))]
    for wrong in (lambda: Stalled(tolerance=0.0), lambda: Stalled(share=0.7), lambda: RelativeChange(window=0)):
        with pytest.raises(ValueError, match="must"):
            wrong()


def test_a_rule_ends_a_run():
    found = maximize(elbo, PROGRAM, guide(START), steps=50_000, until=Stalled(), optimizer=OPTIMIZER, **QUIET)
    assert len(found.values) < 50_000 and "rose by" in found.provenance["stopped"]
    assert found.value == pytest.approx(LOG_EVIDENCE, abs=0.1)


def test_progress_shows_the_objective():
    stream = io.StringIO()
    maximize(
        elbo,
        PROGRAM,
        guide(START),
        key=KEY,
        steps=300,
        progress=Meter("elbo", now=lambda r: {"objective": "-8.1"}, stream=stream),
    )
    assert "300 of 300 steps" in stream.getvalue() and "objective -8.1" in stream.getvalue()


def test_samples_on_eight_devices_are_those_of_one():
    """Scores, too, whose baseline is the mean over all devices."""
    scored = elbo.using({"mu": Score()})
    one, eight = (
        maximize(scored, PROGRAM, guide(START), steps=50, samples=16, placement=placement, **QUIET)
        for placement in (None, inf.Sharded())
    )
    np.testing.assert_allclose(eight.values, one.values, rtol=1e-4)
    np.testing.assert_allclose(eight["guide"].args[0]["loc"], one["guide"].args[0]["loc"], rtol=1e-3)


def test_a_run_on_other_devices_is_another_run(tmp_path):
    store = inf.Store(tmp_path / "run")
    one = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("samples",))
    maximize(elbo, PROGRAM, guide(START), steps=3, samples=8, store=store, placement=inf.Sharded(one), **QUIET)
    assert store.planned() == 3
    with pytest.raises(ValueError, match="its placement is not the same .1 devices there, 8 devices here."):
        maximize(elbo, PROGRAM, guide(START), steps=3, samples=8, store=store, placement=inf.Sharded(), **QUIET)


def test_optimizers_know_numbers_by_name():
    """Masked by label, the scale of the guide stays where it is."""
    of_scale = optax.masked(optax.set_to_zero(), {"guide.phi['loc']": False, "guide.phi['log_scale']": True})
    found = maximize(elbo, PROGRAM, guide(START), optimizer=optax.chain(OPTIMIZER, of_scale), steps=20, **QUIET)
    assert found["guide"].args[0]["loc"] != 0.0 and found["guide"].args[0]["log_scale"] == 0.0
