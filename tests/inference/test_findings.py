"""`posterior.check()`: made-up draws, each with one thing wrong; the finding names it, its sites and a remedy."""

import numpy as np
import pytest

import inference as inf

RNG = np.random.default_rng(0)
CHAINS, DRAWS = 4, 1000


def noise(*shape):
    return RNG.normal(size=(CHAINS, DRAWS, *shape))


def good():
    """Draws that nothing is wrong with."""
    return {"mu": noise(), "theta": noise(3)}, {"lp": noise(), "energy": noise(), "diverging": np.zeros((CHAINS, DRAWS), bool)}


def funnel():
    draws, stats = good()
    draws["tau"] = np.exp(noise())
    return draws, stats | {"diverging": draws["tau"] < np.quantile(draws["tau"], 0.01)}


def scattered():
    """Divergences that gather nowhere."""
    draws, stats = good()
    return draws, stats | {"diverging": RNG.uniform(size=(CHAINS, DRAWS)) < 0.01}


def frozen():
    draws, stats = good()
    still = {name: np.zeros_like(x) for name, x in draws.items()}
    return still, stats | {"diverging": np.ones((CHAINS, DRAWS), bool)}


def drifting():
    draws, stats = good()
    draws["theta"][0, :, 1] += 0.4
    return draws, stats


def drifting_density():
    draws, stats = good()
    stats["lp"][0] += 0.4
    return draws, stats


def two_modes():
    draws, stats = good()
    draws["mu"][2:] += 10.0
    return draws, stats


def sticky():
    draws, stats = good()
    for x in (*draws.values(), stats["lp"]):
        x[1, 200:350] = x[1, 200]
    return draws, stats


def slow():
    draws, stats = good()
    walk = noise(2)
    for i in range(1, DRAWS):
        walk[:, i] = 0.98 * walk[:, i - 1] + 0.2 * walk[:, i]
    return draws | {"beta": walk}, stats


def low_energy():
    draws, stats = good()
    energy = noise()
    for i in range(1, DRAWS):
        energy[:, i] = 0.95 * energy[:, i - 1] + 0.3 * energy[:, i]
    return draws, stats | {"energy": energy}


def cut_short():
    draws, stats = good()
    draws["wide"], draws["narrow"] = 1e4 * noise(), 1e-3 * noise()
    return draws, stats | {"reached_max_treedepth": RNG.uniform(size=(CHAINS, DRAWS)) < 0.3}


def cauchy():
    draws, stats = good()
    return draws | {"x": RNG.standard_cauchy(size=(CHAINS, DRAWS))}, stats


FOUND = {
    funnel: ("They gather where 'tau' is small", ("tau",)),
    scattered: ("draws ended in a divergence: part of the posterior was not explored. Try", ()),
    frozen: ("Every draw diverged: the chains did not move. The density may be wrong", ()),
    drifting: ("above 1.01: the chains disagree, most about 'theta[1]'", ("theta[1]",)),
    drifting_density: ("R-hat of the log density is 1.0", ()),
    two_modes: ("The chains sit in different places (R-hat of 'mu' is", ("mu",)),
    sticky: ("Chain 1 did not move for 149 of its 1000 draws.", ()),
    slow: ("effective sample size of 'beta[", ("beta[0]", "beta[1]")),
    low_energy: ("below 0.3: the chains reach the tails of the log density slowly.", ()),
    cut_short: ("Scales differ: 'wide' varies by ", ("wide", "narrow")),
    cauchy: ("The tails of 'x' are so heavy (Pareto k", ("x",)),
}


def posterior(made):
    draws, stats = made
    return inf.Posterior(draws, stats)


def test_nothing_is_found_in_good_draws():
    check = posterior(good()).check()
    assert check and repr(check) == "Nothing found wrong with 4 chains of 1000 draws."


@pytest.mark.parametrize("make", FOUND, ids=lambda make: make.__name__)
def test_what_is_wrong_is_found_and_named(make):
    check = posterior(make()).check()
    sentence, sites = FOUND[make]
    assert not check
    assert any(sentence in str(f) and set(sites) <= set(f.sites) for f in check.findings), check


@pytest.mark.parametrize(
    "make", [funnel, scattered, frozen, two_modes, low_energy, cut_short, cauchy], ids=lambda m: m.__name__
)
def test_one_thing_wrong_gives_one_finding(make):
    findings = posterior(make()).check().findings
    assert not [f for f in findings if FOUND[make][0] not in str(f) and "effective sample size" not in f.what]


def test_particles_are_judged_as_particles():
    """In the order of their heights, as nested sampling has them: chains would be said to disagree."""
    draws = {"x": np.sort(RNG.normal(size=(1, 1000)))}
    assert not inf.Posterior(draws).check()
    stages, made = {"ess": np.full(3, 500.0), "num_nonfinite": np.array([0, 12, 0])}, {"particles": 1000}
    check = inf.Posterior(draws, stages=stages, provenance=made).check()
    (finding,) = check.findings
    assert finding.what == "Weights were NaN or infinite at 1 of 3 stages, most at stage 1: 12 of 1000. They count as zero."
    stages["num_nonfinite"][:] = 0
    check = inf.Posterior(draws, stages=stages, provenance=made).check()
    assert check and repr(check) == "Nothing found wrong with 1000 draws of particles."


def test_few_draws_and_constants_are_no_trouble():
    assert inf.Posterior({"x": np.ones((1, 3)), "y": np.arange(3.0)[None]}).check().findings == ()


def test_kernels_without_gradients_print_too():
    draws, stats = good()
    shown = repr(inf.Posterior(draws, stats, provenance={"gradients": None}))
    assert shown.endswith("0 divergences")
