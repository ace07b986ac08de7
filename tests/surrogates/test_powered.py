"""Powers of a likelihood, against their closed form: normal data with a normal prior.

prior x s^b of n data with unit variance is that of data of variance 1 / b: its posterior is normal with precision 1/4 + b n,
and Z_b = integral of Normal(mu; 0, 4) prod Normal(y_i; mu, 1)^b, by quadrature. Means and standard deviations of N draws that
are hardly correlated are compared within 6 sd / sqrt(N) and 6 / sqrt(2 N); evidences within 4 of their errors.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

import inference as inf
import ppl
from inference.smc.importance import weighed
from ppl import dist, sample
from surrogates import powered
from surrogates.powered import FromPowers, MixtureOfPowers, Nested, Stops, Tempered

Y = np.array([1.2, 0.3, 2.1, 0.9, 1.6, 0.2, 1.0, 1.4, 0.8, 0.5], np.float32)
LADDER = (0.0, 0.1, 0.4, 1.0)
KEY = jax.random.key(5)


@ppl.model
def location(shift):
    mu = sample("mu", dist.Normal(0.0, 2.0))
    sample("y", dist.Normal(mu + shift, 1.0).expand([len(Y)]))


def program(shift=0.0):
    return location(jnp.float32(shift)) | {"y": Y}


def exact(b, shift=0.0):
    """Mean, standard deviation and log evidence of power b."""
    mu = np.linspace(-12.0, 12.0, 48_001)
    log_p = norm.logpdf(mu, 0, 2) + b * norm.logpdf(Y[:, None], mu + shift, 1).sum(0)
    log_z = logsumexp(log_p) + np.log(mu[1] - mu[0])
    precision = 0.25 + b * len(Y)
    return b * (Y - shift).sum() / precision, precision**-0.5, log_z


MEMBERS = {"tempered": Tempered(particles=1000), "nested": Nested(particles=300, draws=1000)}


@pytest.fixture(scope="module", params=["tempered", pytest.param("nested", marks=pytest.mark.slow)])
def ladder(request):
    return MEMBERS[request.param](KEY, ppl.as_target(program()), LADDER)


def test_draws_and_evidence_of_every_power(ladder):
    assert [float(p.power) for p in ladder] == pytest.approx(LADDER)
    for p in ladder:
        mean, sd, log_z = exact(float(p.power))
        x = np.asarray(p.positions[:, 0], float)
        assert x.shape == (1000,)
        assert abs(x.mean() - mean) < 6 * sd / len(x) ** 0.5, (x.mean(), mean)
        assert abs(x.std() / sd - 1) < 6 / (2 * len(x)) ** 0.5, (x.std(), sd)
        assert 0 <= p.log_evidence_error < 0.3  # of the prior it is zero, and tempering knows that
        assert abs(p.log_evidence - log_z) < 4 * p.log_evidence_error + 1e-4, (p.log_evidence, log_z)
        heights = norm.logpdf(Y[:, None], x, 1).sum(0)
        np.testing.assert_allclose(p.log_likelihood, heights, rtol=1e-4)
        assert p.evaluations > 1000


def corrected(way):
    return weighed(program(), way, key=KEY, num=400)


@pytest.fixture(scope="module")
def low():
    """Draws of a surrogate that is shifted by a standard deviation, to the power 0.4, and some of the prior."""
    cheap = program(0.3)
    return FromPowers(Tempered(particles=1000)(KEY, ppl.as_target(cheap), (0.0, 0.4)), (0.2, 0.8), cheap)


def off(posterior) -> float:
    """Of log evidence, in its errors."""
    return (posterior.log_evidence - exact(1.0)[2]) / posterior.log_evidence_error


def test_weights_by_the_truth_are_exact(low):
    posterior = corrected(low)
    mean, sd, _ = exact(1.0)
    ess = float(posterior.run.population.ess)
    assert ess > 150 and abs(off(posterior)) < 4
    assert abs(posterior["mu"].mean() - mean) < 4 * sd / ess**0.5
    assert float(posterior.stages["pareto_k"][-1]) < 0.7


def test_weights_that_forget_the_power_are_caught(low, monkeypatch):
    monkeypatch.setattr(MixtureOfPowers, "log_density", lambda self, choices: self.program.log_density(choices) - 1.0)
    # another number of draws, for what was compiled would be used again
    assert abs(off(weighed(program(), low, key=KEY, num=402))) > 8


def test_a_ladder_that_is_passed_without_a_stop_is_caught(monkeypatch):
    monkeypatch.setattr(Stops, "__call__", lambda self, population, path: self.rule(population, path))
    (first, _) = Tempered(particles=200)(KEY, ppl.as_target(program()), (0.3, 1.0))
    assert float(first.power) != pytest.approx(0.3)


def test_the_mixture_of_powers_of_a_density():
    target = program()
    choices = {"mu": jnp.float32(0.4)}
    prior, whole = norm.logpdf(0.4, 0, 2), float(target.log_density(choices))
    mixture = MixtureOfPowers(target, *(jnp.log(jnp.array(x)) for x in ((1.0, np.exp(0.25)), (1.0, 2.0), (0.3, 0.7))))
    both = np.logaddexp(np.log(0.3) + prior, np.log(0.35) + 0.75 * prior + 0.25 * whole)
    assert mixture.log_density(choices) == pytest.approx(both, rel=1e-5)


@pytest.mark.parametrize("ladder", [(), (0.5, 0.5), (-0.1, 1.0), (0.5, 1.5), (1.0, 0.5)])
def test_ladders_that_are_none(ladder):
    for member in MEMBERS.values():
        with pytest.raises(ValueError, match=r"^powers must increase from at least 0 to at most 1, such as \(0\.25, "):
            member(KEY, ppl.as_target(program()), ladder)


def test_an_improper_prior_cannot_be_drawn_from():
    target = ppl.Target.from_log_density(lambda c: -0.5 * c["mu"] ** 2, {"mu": jnp.zeros(())})
    with pytest.raises(ValueError, match="the prior of site 'mu' is improper"):
        Tempered(particles=100)(KEY, target, (1.0,))


def test_discrete_sites_are_refused_with_a_sentence():
    @ppl.model
    def counts():
        sample("y", dist.Normal(sample("z", dist.Poisson(3.0)), 1.0))

    with pytest.raises(ValueError, match="site 'z' is discrete"):
        Tempered(particles=100)(KEY, ppl.as_target(counts() | {"y": 2.0}), (1.0,))


def test_the_contract():
    assert issubclass(Tempered, powered.Powers) and issubclass(Nested, powered.Powers)
    assert isinstance(Tempered().kernel, inf.RandomWalk)
