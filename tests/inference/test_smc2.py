"""SMC^2 agrees with the Kalman filter on a grid: evidence, parameters and paths, an observation missing; bugs that are planted
are found; what was broken off goes on; what cannot be is said.

The law that is tested is proper weighting: for runs that make recorded choices, the mean of Z-hat x mean(f) is Z x E[f], with
any number of particles. False-alarm rates: 4 errors for each of few numbers, with fixed keys.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from inference.compiled import compiled
from inference.exact.kalman import kalman_smoother
from inference.exact.linear_gaussian import Affine, Gaussian, LinearGaussian
from inference.smc import rejuvenate
from inference.smc.exchange import ByPath, ByWeight
from inference.smc.inner_filters import InnerPath
from inference.smc.loop import begin, finish
from inference.smc.sample import smc
from inference.smc.smc2 import smc2
from inference.store import Store
from ppl import dist, sample
from tests.inference.evidence import assert_calibrated
from tests.inference.test_smc_runs import StopAfter, same

T, SD = 8, 0.5
RNG = np.random.default_rng(3)
Y = np.zeros(T)
for t in range(T):
    Y[t] = 0.8 * (Y[t - 1] if t else 0.0) + RNG.normal()
HOLES = np.arange(T) == 4


@ppl.model
def autoregression():
    rho = sample("rho", dist.Uniform(-1.0, 1.0))
    scale = sample("scale", dist.LogNormal(0.0, 0.5))

    def step(z, _):
        z = sample("z", dist.Normal(rho * z, scale))
        sample("y", dist.Normal(z, SD))
        return z, None

    ppl.scan(step, 0.0, length=T)


PROGRAM = autoregression() | {"y": np.ma.masked_array(Y, HOLES)}


def features(choices):
    """What expectations are compared of; the filters may have kept the last step alone."""
    rho, scale, z = choices["rho"], choices["scale"], jnp.broadcast_to(choices["z"], (T,))
    return jnp.stack([jnp.ones_like(rho), rho, rho**2, jnp.log(scale), jnp.log(scale) ** 2, z[0], z[4], z[6], z[-1]])


@pytest.fixture(scope="module")
def exact() -> np.ndarray:
    """log evidence, and the features' posterior means, on a grid."""
    rho, log_scale = jnp.meshgrid(jnp.linspace(-0.9875, 0.9875, 80), jnp.linspace(-2.5, 2.5, 80))
    y = np.where(HOLES, np.nan, Y)

    def at(rho, log_scale):
        variance = jnp.exp(2 * log_scale)
        model = LinearGaussian(Gaussian(0.0, variance), transition=Affine(rho, variance), observation=Affine(1.0, SD**2))
        found = kalman_smoother(model, y)
        log_prior = dist.Normal(0.0, 0.5).log_prob(log_scale) - jnp.log(2.0)
        return found.log_evidence + log_prior, features({"rho": rho, "scale": jnp.exp(log_scale), "z": found.means[:, 0]})

    log_p, f = jax.vmap(at)(rho.ravel(), log_scale.ravel())
    log_p, f = np.asarray(log_p, float), np.asarray(f, float)
    cell = 0.025 * 5 / 79  # of rho, a midpoint each
    p = np.exp(log_p - log_p.max())
    return np.concatenate([[np.log(p.sum() * cell) + log_p.max()], (p @ f / p.sum())[1:]])


def runs(method, particles: int, num: int, seed: int = 0):
    """Of runs: log evidence and its error (num,), and the features' means (num, features)."""
    path = method.way.of(PROGRAM)

    def all_of(path, stage, keys):
        def one(key):
            population = finish(stage, path, key, begin(stage, path, key, particles)).population
            f = population.mean(lambda learner: features(path.choices(learner)))
            return population.log_evidence, population.log_evidence_error, f

        return jax.lax.map(one, keys)

    keys = jax.random.split(jax.random.key(seed), num)
    found = compiled(all_of, object(), path, method.stage, keys)(path, method.stage, keys)
    return tuple(np.asarray(x, float) for x in found)


def off(method, exact, particles: int = 32, num: int = 300) -> np.ndarray:
    """By how many errors the evidence, and its products with the features' means, are off."""
    log_z, _, f = runs(method, particles, num)
    return errors(log_z, f, exact)


def errors(log_z, f, exact) -> np.ndarray:
    ratio = np.exp(log_z - exact[0])[:, None] * f
    centred = ratio - np.concatenate([[1.0], exact[1:]])
    return centred.mean(axis=0) / (centred.std(axis=0) / np.sqrt(len(f)))


def plain(how=ByPath(), **changed):  # noqa: B008
    settings = {"inner": (4, 12), "moves": 2, "exchange": how, "below": 0.3, "ess": 0.7}
    return smc2(**settings | changed)


def run(method=None, program=PROGRAM, **settings):
    method = plain() if method is None else method
    return smc(program, method, **{"key": jax.random.key(0), "particles": 64, "progress": False, "check": False, **settings})


@pytest.fixture(scope="module")
def recorded():
    """A run whose choices are recorded, for each way to exchange. With (4, 12) particles of its filters, weights of an
    exchange have a tail (of 3000 runs one is 200 times the mean) that no test of means can stand."""
    return cache(lambda how: run(plain(how(), inner=(4, 12) if how is ByPath else (16, 48))))


# -- the law ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_evidence_parameters_and_paths_are_those_of_a_grid(exact):
    """Of runs that choose for themselves; their bias is far below these errors."""
    posteriors = [run(key=jax.random.key(seed)) for seed in range(50)]
    f = jax.vmap(jax.vmap(features))({name: jnp.stack([p[name][0] for p in posteriors]) for name in ("rho", "scale", "z")})
    found = errors(np.array([p.log_evidence for p in posteriors]), np.asarray(f.mean(axis=1), float), exact)
    assert np.all(np.abs(found) < 4), found


@pytest.mark.slow
@pytest.mark.parametrize("how", [ByPath, ByWeight])
def test_runs_of_recorded_choices_are_unbiased(recorded, exact, how):
    posterior = recorded(how)
    assert posterior.stages["exchanged"].sum() == 1 and (posterior.stages["num_moves"] > 0).sum() > 2
    found = off(posterior.run.frozen(), exact)
    found = found if how is ByPath else found[[0, 1, 2, 3, 4, 8]]  # by weight, filters keep the last step alone
    assert np.all(np.abs(found) < 4), found


def unproposed(self, key, population, path, choice):
    """Moves that are not Metropolis: every proposal is taken, whatever its filter finds."""
    chains = real_chains(self, key, population, path, choice)
    return chains[0], lambda i, states, size: chains[1](i, states._replace(log_density=0 * states.log_density - 1e6), size)


def refreshed(self, key, population, path, choice):
    """Moves that compare with a new filter at the old parameters."""
    states, move = real_chains(self, key, population, path, choice)

    def moved(i, states, log_step_size):
        again = jax.random.fold_in(key, 1000 + i)
        new = path.by_size(states.size, lambda size: path.filtered(again, states.position, size, population.level))
        return move(i, new, log_step_size)

    return states, moved


def unweighted(self, key, population, path):
    """Filters exchanged, and no weight for it."""
    return real_exchange(self, key, population, path)._replace(log_weights=population.log_weights)


real_chains, real_exchange = rejuvenate.Rejuvenate.chains, ByWeight.__call__
BUGS = {
    "every proposal taken": (rejuvenate.Rejuvenate, "chains", unproposed, ByPath),
    "the old filter made anew": (rejuvenate.Rejuvenate, "chains", refreshed, ByPath),
    "no weight for an exchange": (ByWeight, "__call__", unweighted, ByWeight),
    "a path that is not the filter's": (
        InnerPath, "drawn", lambda self, learner: jax.tree.map(lambda x: x[:, 0], learner.rows.choices), ByPath,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_planted_bugs_are_found(monkeypatch, recorded, exact, name):
    where, what, bug, how = BUGS[name]
    frozen = recorded(how).run.frozen()
    monkeypatch.setattr(where, what, bug)
    found = off(frozen, exact, num=4000)
    assert np.max(np.abs(found[[0, 1, 2, 3, 4, 8]])) > 5, found


@pytest.mark.slow
def test_errors_are_calibrated(exact):
    log_z, error, _ = runs(smc2(inner=(16, 32, 64), below=0.15), particles=256, num=100)
    assert_calibrated((log_z - exact[0]) / error)


# -- when filters grow -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_filters_grow_where_few_proposals_are_accepted(recorded):
    stages = recorded(ByPath).stages
    noisy = stages["acceptance_rate"] < 0.3
    assert stages["exchanged"].sum() == 1 and np.argmax(stages["exchanged"]) == np.argmax(noisy)
    np.testing.assert_array_equal(stages["num_walkers"][1:], np.where(np.cumsum(stages["exchanged"])[1:], 12, 4))


# -- through the front door --------------------------------------------------------------------------------------------------


def test_a_posterior_has_parameters_and_paths(recorded, exact):
    posterior = recorded(ByPath)
    assert posterior["rho"].shape == posterior["scale"].shape == (1, 64) and posterior["z"].shape == (1, 64, T)
    np.testing.assert_array_equal(posterior["y"][..., ~HOLES], np.broadcast_to(Y[~HOLES].astype(np.float32), (1, 64, T - 1)))
    assert abs(posterior.log_evidence - exact[0]) < 4 * posterior.log_evidence_error < 4


@pytest.mark.slow
def test_a_run_broken_off_goes_on_bit_for_bit(tmp_path, recorded):
    whole, store = recorded(ByPath), Store(tmp_path / "run", every=0.0)
    with pytest.raises(KeyboardInterrupt):
        run(store=store, progress=StopAfter(1))
    again = run(store=store)
    same(again, whole)


# -- sentences ---------------------------------------------------------------------------------------------------------------


@ppl.model
def no_parameter():
    ppl.scan(lambda z, _: (sample("z", dist.Normal(z, 1.0)), None), 0.0, length=2)


@ppl.model
def discrete():
    k = sample("k", dist.Bernoulli(0.5))
    ppl.scan(lambda z, _: (sample("z", dist.Normal(z + k, 1.0)), None), 0.0, length=2)


@ppl.model
def no_loop():
    sample("x", dist.Normal(0.0, 1.0))


def test_what_cannot_be_is_said():
    for attempt, sentence in (
        (lambda: run(program=no_loop()), r"^a program that is taken step by step has exactly one ppl\.scan"),
        (lambda: run(program=no_parameter()), r"^smc2: there is no site before the program's ppl\.scan, so no parameter"),
        (lambda: run(program=autoregression() | {"z": Y, "y": Y}), r"^smc2: there is no latent site in the program's ppl"),
        (lambda: run(program=discrete()), r"^site 'k' is discrete \(Bernoulli.*\), and smc2 moves continuous sites only"),
        (lambda: run(program=3), r"^smc: a particle filter needs a program with a ppl\.scan, got int"),
        (lambda: run(particles=63), r"^Move: the number of particles must be even"),
        (lambda: run(history=inf.steps.Last()), r"^smc: this method keeps what its posterior is made of itself"),
        (lambda: smc2(inner=(64, 32)), r"^smc2: inner must be whole numbers of at least 2 that increase, .*got \(64, 32\)"),
        (lambda: smc2(inner=(1, 32)), r"^smc2: inner must be whole numbers of at least 2"),
        (lambda: smc2(inner=8), r"^smc2: inner must be whole numbers of at least 2 that increase, .*got 8\."),
        (
            lambda: run(smc2(method=inf.tempering())),
            r"^smc2: the method of the filters must be a particle filter.*Tempering\.",
        ),
        (lambda: smc2(inner=()), r"^smc2: inner must be whole numbers of at least 2"),
        (lambda: smc2(inf.NUTS()), r"^smc2: the kernel must evaluate the density once in a step.*got NUTS\."),
        (lambda: smc2(below=1.5), r"^smc2: below must be an acceptance rate between 0 and 1, got 1\.5"),
    ):
        with pytest.raises(ValueError, match=sentence):
            attempt()
