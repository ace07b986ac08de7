"""Surrogates of a likelihood, corrected: the exact posterior by every rung, whatever the surrogate; calls as they are counted.

The truth is a bent curve of one parameter, on the host, without a gradient, which counts how often it is asked; the posterior
is by quadrature. The surrogate is wrong by an offset and a ramp. Means are compared within 4 errors, those of an effective
size that is the rung's own (false alarms at 6e-5 a number).
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import inference as inf
import ppl
from inference.diagnostics import SamplingWarning
from inference.mcmc import delayed_acceptance
from ppl import dist, sample
from surrogates.correct import correct
from surrogates.likelihood_rungs import ByDelayedAcceptance, ByPower, ByPowerTempering, Pilot, judged
from surrogates.powered import Powered, Tempered
from surrogates.rungs import Attempt, ByImportance, Rung
from tests.inference.counting import Counting

KEY = jax.random.key(3)
Y, NOISE = 0.7, 0.2
ERRORS = 4.0
PILOT = Pilot(powers=Tempered(particles=1000))


def curve(x):
    return x + 0.3 * np.sin(3 * x)


@ppl.model
def bent(fn):
    x = sample("x", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(ppl.call("curve", fn, x), NOISE))


def costly():
    truth = Counting(curve)
    return truth, bent(truth) | {"y": Y}


def ramp(x):
    return x + 0.3 * x + 0.2


def hopeless(x):
    return -3.0 * x - 6.0


def exact():
    """Mean, standard deviation and log evidence."""
    x = np.linspace(-6.0, 6.0, 40_001)
    p = norm.pdf(x) * norm.pdf(Y, curve(x), NOISE)
    z = np.trapezoid(p, x)
    mean = np.trapezoid(p * x, x) / z
    return mean, np.sqrt(np.trapezoid(p * x**2, x) / z - mean**2), np.log(z)


def quietly(*args, **settings) -> inf.Posterior:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        return correct(*args, **({"key": KEY, "pilot": PILOT, "progress": False} | settings))


def z_of(posterior: inf.Posterior) -> float:
    mean, sd, _ = exact()
    return (np.asarray(posterior["x"], float).mean() - mean) / (sd / (posterior.ledger.ess or 1.0) ** 0.5)


RUNGS = {
    "weights": ByPower(),
    "particles": ByPowerTempering(),
    "chains": ByDelayedAcceptance(inf.RandomWalk(), num=10),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "particles")) for name in RUNGS])
def test_a_wrong_surrogate_gives_the_exact_posterior_by_every_rung(name):
    truth, program = costly()
    posterior = quietly(program, program.intervene({"curve": ramp}), rungs=(RUNGS[name],))
    ledger, (pilot, row) = posterior.ledger, posterior.provenance["ladder"]
    assert posterior.provenance["rung"] == type(RUNGS[name]).__name__, row
    assert truth.asked == ledger.total == pilot["evaluations"] + row["evaluations"] and pilot["evaluations"] == 32
    assert abs(z_of(posterior)) < ERRORS
    _, sd, log_z = exact()
    assert abs(np.std(posterior["x"]) / sd - 1) < 2 * ERRORS / row["ess"] ** 0.5
    if name == "chains":
        assert posterior.log_evidence is None and ledger.acceptance == row["acceptance"] > 0.1
    else:
        error: Any = posterior.log_evidence_error
        assert abs(posterior.log_evidence - log_z) < ERRORS * error
    assert ledger.plain is not None and ledger.guarantee.startswith(RUNGS[name].guarantee)


def test_chains_that_do_not_take_the_surrogate_out_are_caught(monkeypatch):
    monkeypatch.setattr(delayed_acceptance, "correction", lambda there, here: 0.0)
    _, program = costly()
    rung = ByDelayedAcceptance(inf.RandomWalk(), num=9)  # another program than any that was compiled
    assert abs(z_of(quietly(program, program.intervene({"curve": ramp}), rungs=(rung,)))) > ERRORS


def test_the_pilot_refuses_a_surrogate_that_is_dead_wrong_and_chains_are_right_all_the_same():
    truth, program = costly()
    cheap = program.intervene({"curve": hopeless})
    calls = 32 + 4 * (2 + 25 + 1000)
    rungs = (ByPower(), ByDelayedAcceptance(inf.RandomWalk(), num=10))
    pilot = Pilot(powers=Tempered(particles=1000), least=0.6)
    posterior = quietly(program, cheap, rungs=rungs, calls=calls, pilot=pilot)
    shares = posterior.provenance["shares"]
    assert posterior.provenance["power"] == 0.0 and max(x for b, x in shares.items() if b != "0.0") < 0.3 < shares["0.0"]
    pilot, weights, chains = posterior.provenance["ladder"]
    assert "no power of the surrogate would leave 0.6" in pilot["refused"] and pilot["share"] < 0.6
    assert weights["refused"] == pilot["refused"] and weights["evaluations"] == 0
    assert chains["rung"] == "ByDelayedAcceptance" and truth.asked == posterior.ledger.total <= calls
    assert abs(z_of(posterior)) < ERRORS


@pytest.mark.parametrize("calls", [5, 150, *(pytest.param(num, marks=pytest.mark.slow) for num in (0, 40, 1000))])
def test_a_cap_is_never_exceeded(calls):
    truth, program = costly()
    posterior = quietly(program, program.intervene({"curve": ramp}), calls=calls)
    assert truth.asked == posterior.ledger.total <= calls
    if calls < 8:
        assert posterior.provenance["rung"] is None and posterior.ledger.total == 0
        assert posterior.ledger.guarantee == "None: the surrogate's own answer, which the truth has not corrected"
        assert posterior.shape == (1, 1000) and posterior.log_evidence is not None
        with pytest.warns(SamplingWarning, match="No rung was satisfied; these are the surrogate's own draws"):
            correct(program, program.intervene({"curve": ramp}), key=KEY, calls=calls, pilot=PILOT, progress=False)


def test_a_rung_that_takes_more_than_it_may_is_told():
    class Greedy(Rung):
        def attempt(self, key, task):
            return Attempt(None, "never", (task.calls or 0) + 3, {})

    _, program = costly()
    with pytest.raises(ValueError, match=r"^correct: Greedy took 3 more true calls than its task allowed\.$"):
        quietly(program, program.intervene({"curve": ramp}), rungs=(Greedy(),), calls=100)


def test_runs_that_fail_are_impossible():
    """Half of the prior has no likelihood; what is left is the posterior there."""

    def broken(x):
        return jnp.where(x > 0.5, x, jnp.nan)

    broken.may_fail = True
    program = bent(broken) | {"y": Y}
    posterior = quietly(program, program.intervene({"curve": lambda x: x}), rungs=(ByPower(),))
    x = np.linspace(0.5, 6.0, 20_001)
    p = norm.pdf(x) * norm.pdf(Y, x, NOISE)
    mean = np.trapezoid(p * x, x) / np.trapezoid(p, x)
    assert (posterior["x"] > 0.5).all()
    assert abs(posterior["x"].mean() - mean) < ERRORS * posterior["x"].std() / (posterior.ledger.ess or 1.0) ** 0.5


# -- the pilot -----------------------------------------------------------------------------------------------------------


def test_shares_are_those_of_normal_laws():
    """Truth Normal(0, 1), surrogate likelihood Normal(0, 1 / 4) with a flat prior: to the power b of precision 4 b. A proposal
    of precision q leaves sqrt(q (2 - q)) of draws of precision 1, for q < 2."""
    rng, ladder, num = np.random.default_rng(0), (0.1, 0.25, 0.4), 60_000
    likelihood = lambda x: -2.0 * x**2  # noqa: E731
    z = [0.5 * np.log(2 * np.pi / (4 * b)) for b in ladder]
    powers = tuple(Powered(b, jnp.zeros((1, 1)), jnp.zeros(1), log_z, 0.0, 1) for b, log_z in zip(ladder, z, strict=True))
    x = np.concatenate([rng.normal(0, (4 * b) ** -0.5, num) for b in ladder])
    shares, _ = judged(-0.5 * x**2, np.zeros(len(x)), likelihood(x), powers, [num] * 3)
    q = 4 * np.array(ladder)
    np.testing.assert_allclose(shares, np.sqrt(q * (2 - q)), rtol=0.02)


def test_shares_of_nothing_are_zero():
    powers = tuple(Powered(b, jnp.zeros((1, 1)), jnp.zeros(1), 0.0, 0.0, 1) for b in (0.5, 1.0))
    shares, log_weights = judged([-np.inf, np.nan], [0.0, 0.0], [0.0, -1.0], powers, [1, 1])
    assert (shares == 0).all() and (log_weights == -np.inf).all()


# -- the door ------------------------------------------------------------------------------------------------------------


@ppl.model
def other():
    sample("y", dist.Normal(sample("z", dist.Normal(0.0, 1.0)), NOISE))


def test_what_is_wrong_at_the_door_is_said():
    _, program = costly()
    cheap, guide = program.intervene({"curve": ramp}), inf.guide_for(bent(lambda x: x) | {"y": Y})
    for make, sentence in (
        (lambda: correct(program, other() | {"y": Y}, key=KEY), "the same latent sites as the program"),
        (lambda: correct(program, cheap, key=KEY, calls=-1), "calls must be a whole number of true calls, got -1"),
        (lambda: correct(program, guide, key=KEY, calls=10), "calls is a cap for surrogates of a likelihood"),
        (lambda: quietly(program, cheap, pilot=3), r"pilot must be a Pilot\(\.\.\.\), got int"),
        (lambda: Pilot(4), "num must be a whole number of at least 8, got 4"),
        (lambda: Pilot(ladder=(0.5,)), r"ladder must end with 1\.0, the surrogate itself"),
        (lambda: ByPower(10), "num must be a whole number of at least 64"),
        (lambda: ByPowerTempering(10), "particles must be a whole number of at least 64"),
        (lambda: ByDelayedAcceptance(chains=1), "chains must be a whole number of at least 2"),
        (lambda: correct(program, guide, key=KEY, rungs=(ByPower(),)), "ByPower: it corrects a surrogate of the likelihood"),
        (lambda: quietly(program, cheap, rungs=(ByImportance(500),)), "ByImportance: q must be one that can be drawn"),
    ):
        with pytest.raises(ValueError, match=sentence):
            make()
