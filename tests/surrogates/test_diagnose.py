"""Diagnosing amortised posteriors: exact ones pass, broken ones are caught, numbers agree with formulas, checks can fail."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import ppl
import surrogates.c2st as two_samples
from inference.checks.verdict import FALSE_ALARM
from ppl import dist, sample
from surrogates.c2st import c2st
from surrogates.diagnose import CHECKS, Alarms, Coverage, Finite, Gap, RandomPoints, Ranks, Simulated, Weights, diagnose
from surrogates.diagnose import coverage as coverage_file
from surrogates.diagnose import random_points as points_file
from surrogates.diagnose import ranks as ranks_file
from surrogates.diagnose.gap import pieces
from surrogates.diagnose.ranks import JOINT, LIKELIHOOD, rank
from surrogates.diagnose.study import Densities
from surrogates.gate import Gate
from surrogates.neural_posterior import neural_posterior

KEY, ROWS = jax.random.key(0), 5
RANKS, POINTS, INTERVALS, SCORE = "ranks (SBC)", "random points (TARP)", "coverage of intervals", "log score (nats)"
WEIGHTS, CLASSIFIER, FINITE = "importance weights", "classifier (C2ST)", "finite numbers"

LIGHT = tuple(Weights(100, 150) if isinstance(check, Weights) else check for check in CHECKS)

# -- programs with exact posteriors, and ways to break these -----------------------------------------------------------------


@ppl.model
def mean(num):
    mu = sample("mu", dist.Normal(0.0, 1.0))
    ppl.vmap(lambda _: sample("y", dist.Normal(mu, 1.0)))(jnp.arange(num))


@ppl.model
def coin():
    p = sample("p", dist.Beta(2.0, 3.0))
    sample("heads", dist.Binomial(10, p))


@ppl.model
def pair():
    a, b = sample("a", dist.Normal(0.0, 1.0)), sample("b", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(a, 0.5))
    sample("z", dist.Normal(b, 1.0))


@ppl.model
def normals(**moments):
    for name, (middle, deviation) in moments.items():
        sample(name, dist.Normal(middle, deviation))


@ppl.model
def beta(a, b):
    sample("p", dist.Beta(a, b))


def of_mean(shift=0.0, scale=1.0):
    """The posterior of `mean`, shifted by so many of its deviations, which are scaled."""

    def given(program):
        deviation = (1.0 + ROWS) ** -0.5
        middle = jnp.sum(program.data["y"]) * deviation**2
        return normals(mu=(middle + shift * deviation, scale * deviation))

    return given


def of_coin(program):
    heads = program.data["heads"]
    return beta(2.0 + heads, 3.0 + 10 - heads)


def of_pair(swap=False):
    def given(program):
        found = [(program.data["y"] / 1.25, 0.2**0.5), (program.data["z"] / 2.0, 0.5**0.5)]
        return normals(**dict(zip("ba" if swap else "ab", found, strict=True)))

    return given


def prior(program):
    return normals(mu=(0.0, 1.0))


MEAN, PAIR = mean(ROWS) | {"y": jnp.zeros(ROWS)}, pair() | {"y": 0.0, "z": 0.0}
EXACT = {"mean": (of_mean(), MEAN), "coin": (of_coin, coin() | {"heads": 3}), "pair": (of_pair(), PAIR)}
BROKEN = {  # with the checks that have to see it
    "ignores the data": (prior, MEAN, of_mean(), {RANKS, SCORE, CLASSIFIER}),
    "too confident": (
        of_mean(scale=0.5),
        MEAN,
        of_mean(),
        {RANKS, POINTS, INTERVALS, SCORE, WEIGHTS, CLASSIFIER},
    ),
    "swapped": (of_pair(swap=True), PAIR, of_pair(), {RANKS, INTERVALS, SCORE, WEIGHTS, CLASSIFIER}),
    "biased": (of_mean(shift=0.3), MEAN, of_mean(), {RANKS, CLASSIFIER}),
}


@cache
def report(name):
    if name in EXACT:
        given, program = EXACT[name]
        fewer = {"simulations": 400, "draws": 150, "checks": LIGHT} if name == "coin" else {}  # beta draws take long
        return diagnose(given, program, key=KEY, exact=given, **fewer)
    given, program, exact, _ = BROKEN[name]
    floors = {"shifted": of_mean(shift=0.2)} if name == "too confident" else None
    return diagnose(given, program, key=KEY, exact=exact, floors=floors)


def failed(report):
    return {outcome.check for outcome in report.outcomes if not outcome.verdict.passed(FALSE_ALARM / len(report.outcomes))}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name == "mean" else [pytest.mark.slow]) for name in EXACT])
def test_exact_posteriors_pass(name):
    """At a false alarm of one in a thousand for each report."""
    assert report(name).passed() and not report(name).findings, report(name)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_posteriors_are_caught(name):
    found = report(name)
    assert not found.passed() and found.shape[0] <= 1000
    assert failed(found) >= BROKEN[name][-1], found


def test_ignoring_the_data_shows_in_the_likelihood_alone():
    verdict = report("ignores the data")[RANKS].verdict
    assert verdict.p_values["mu"] > 0.01 and max(verdict.p_values[LIKELIHOOD], verdict.p_values[JOINT]) < 1e-50
    assert "does the network read all of them?" in report("ignores the data")[RANKS].advice
    assert failed(report("ignores the data")).isdisjoint({POINTS, INTERVALS})  # known to be blind to it


@pytest.mark.parametrize(("name", "words"), [("too confident", "too narrowly"), ("biased", "too large")])
def test_the_advice_says_how(name, words):
    assert f"'mu' is drawn {words}" in report(name)[RANKS].advice


# -- numbers that formulas know -----------------------------------------------------------------------------------------------


def kl(shift, scale):
    """Of a standard normal law from that with this mean and deviation."""
    return np.log(scale) + (1.0 + shift**2) / (2.0 * scale**2) - 0.5


@pytest.mark.parametrize(("name", "exactly"), [("biased", kl(0.3, 1.0)), ("too confident", kl(0.0, 0.5))])
def test_the_gap_is_the_divergence(name, exactly):
    gap = report(name)[SCORE].verdict.values["gap"]
    assert abs(gap.mean() - exactly) < 4 * gap.std() / np.sqrt(len(gap))


def test_the_gap_is_zero_for_the_exact_and_all_information_for_the_prior():
    assert np.all(report("mean")[SCORE].verdict.values["gap"] == 0.0)
    gap = report("ignores the data")[SCORE].verdict.values["gap"]
    assert abs(gap.mean() - 0.5 * np.log(1.0 + ROWS)) < 4 * gap.std() / np.sqrt(len(gap))


def test_floors_split_the_gap():
    values = report("too confident")[SCORE].verdict.values
    np.testing.assert_allclose(values["shifted"] + values["rest"], values["gap"], atol=1e-5)
    floor = values["shifted"]
    assert abs(floor.mean() - kl(0.2, 1.0)) < 4 * floor.std() / np.sqrt(len(floor))
    assert "gap = shifted 0.0" in report("too confident")[SCORE].details
    made = pieces({"exact": np.ones(2), "one": np.zeros(2), "two": np.full(2, -1.0)}, np.full(2, -3.0))
    assert {name: x[0] for name, x in made.items()} == {"gap": 4.0, "one": 1.0, "two": 1.0, "rest": 2.0}


def test_the_ess_is_the_divergence_of_weights():
    """E[w]^2 / E[w^2] of two normals with one deviation, at a distance of 0.3, is exp(-0.09)."""
    ess = report("biased")[WEIGHTS].verdict.values["effective sample size"]
    assert abs(ess.mean() - np.exp(-0.09)) < 4 * ess.std() / np.sqrt(len(ess)) + 0.01


# -- simulations made by hand, for what many of them can say ------------------------------------------------------------------


def by_hand(seed, shift=0.0, scale=1.0, num=1000, draws=100, whole=False):
    """Two scalars of different sizes. Posteriors are standard normal about the data, times the size."""
    rng = np.random.default_rng(seed)
    at, z, drawn = rng.normal(size=(2, num)), rng.normal(size=(2, num)), rng.normal(size=(2, num, draws))
    size = np.array([1.0, 100.0])
    truth, q = (at + z) * size[:, None], (at[..., None] + shift + scale * drawn) * size[:, None, None]
    if whole:
        truth, q = np.round(truth / size[:, None]), np.round(q / size[:, None, None])
    zeros = Densities(*np.zeros((3, num)))
    log_likelihood = -0.5 * ((q[0] / size[0] - at[0][:, None]) ** 2)
    at_truth = zeros._replace(likelihood=-0.5 * (truth[0] / size[0] - at[0]) ** 2)
    at_draws = Densities(np.zeros((num, draws)), log_likelihood, np.zeros((num, draws)))
    return Simulated({"a": truth[0], "b": truth[1]}, {"a": q[0], "b": q[1]}, {"y": at[0]}, at_truth, at_draws, {})


def run(check, simulated, key=KEY):
    return check(None, simulated, key)


@pytest.mark.parametrize("check", [Ranks(), RandomPoints(), Coverage()])
@pytest.mark.parametrize("whole", [False, True])
def test_false_alarms(check, whole):
    """Of a hundred exact posteriors, with quantities Bonferroni's way. At most 5 % of false alarms, and 4 standard errors, and
    whole numbers, which are ranked at random among equals, do not raise it."""
    fails = [
        not run(check, by_hand(i, num=300, draws=19, whole=whole), jax.random.key(i)).verdict.passed(0.05) for i in range(100)
    ]
    assert np.mean(fails) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 100)


def test_ties_ranked_below_are_seen(monkeypatch):
    """A planted bug: a truth that equals draws counts as smaller than all of them."""
    monkeypatch.setattr(ranks_file, "rank", lambda truth, draws, key: (draws < truth[:, None]).sum(axis=1))
    assert not run(Ranks(), by_hand(0, whole=True)).verdict.passed()


def test_ranks_count_smaller_draws():
    ranks = rank(np.array([0.5, 2.0, -1.0, 1.0]), np.tile([0.0, 1.0, 1.0], (4, 1)), KEY)
    assert ranks.tolist()[:3] == [1, 3, 0] and 1 <= ranks[3] <= 3


def test_random_points_are_exact():
    """Their shares are uniform for the exact posterior, and their mean where draws are too narrow is known to be too large."""
    assert run(RandomPoints(), by_hand(1)).verdict.passed()
    assert not run(RandomPoints(), by_hand(1, scale=0.5)).verdict.passed()


@pytest.mark.parametrize(
    "planted",
    [
        lambda x, point, spread: ((x - point) / (spread if x.ndim == 1 else 1.0)) ** 2,  # two units
        lambda x, point, spread: ((x - (point if x.ndim == 1 else np.roll(point, 1))) / spread) ** 2,  # another point
        lambda x, point, spread: ((x - (point if x.ndim == 2 else 0.0)) / spread) ** 2,  # the truth's own length
    ],
)
def test_wrong_distances_are_seen(planted, monkeypatch):
    """What TARP is told by the exact posterior's passing: these do not."""
    monkeypatch.setattr(points_file, "_squared", planted)
    assert not run(RandomPoints(), by_hand(1)).verdict.passed()


def coverage_is_exact(simulated, scale):
    """Whether intervals of draws `scale` times as wide as they should be hold the truth as often as a formula says."""
    held = run(Coverage(), simulated).verdict.values
    for level in (0.5, 0.8, 0.95):
        _, exact = coverage_file.central(np.zeros(1), simulated.shape[1], level)
        expected = 1.0 - 2.0 * norm.sf(scale * norm.ppf(0.5 + 0.5 * exact))
        for name in "ab":
            found = held[f"{name} at {level:.0%}"].mean()
            if abs(found - expected) > 4 * np.sqrt(expected * (1 - expected) / simulated.shape[0]) + 1.0 / simulated.shape[1]:
                return False
    return True


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
def test_coverage_is_what_it_should_be(scale):
    assert coverage_is_exact(by_hand(2, scale=scale), scale)


def test_one_sided_intervals_are_seen(monkeypatch):
    """A planted bug. They hold the exact posterior's truth often enough, but not that of others."""
    wrong = lambda ranks, largest, level: (ranks <= level * largest, coverage_central(ranks, largest, level)[1])  # noqa: E731
    coverage_central = coverage_file.central
    monkeypatch.setattr(coverage_file, "central", wrong)
    assert not coverage_is_exact(by_hand(2, scale=0.5), 0.5)


def test_a_single_impossible_truth_is_seen():
    simulated = by_hand(3)
    assert run(Finite(), simulated).verdict.passed()
    impossible = simulated.at_truth.posterior.copy()
    impossible[7] = -np.inf
    bad = simulated._replace(at_truth=simulated.at_truth._replace(posterior=impossible))
    assert "density of the truth in 1 of 1000 data sets" in run(Finite(), bad).found
    assert not run(Finite(), bad).verdict.passed() and not run(Gap(), bad).verdict.passed()
    simulated.draws["a"][3, 5] = np.nan
    assert not run(Finite(), simulated).verdict.passed()


def test_alarms_of_a_gate():
    check = Alarms(Gate.fit(np.random.default_rng(5).normal(size=(10_000, 1))), lambda data: data["y"][None])
    simulated = by_hand(4, num=2000, draws=10)
    assert run(check, simulated).verdict.passed()
    shifted = simulated._replace(data={"y": simulated.data["y"] * 1.5})
    assert not run(check, shifted).verdict.passed()


# -- classifiers --------------------------------------------------------------------------------------------------------------


def two_normals(distance, num=1000, dim=2, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, num, dim))
    return x, y + distance * np.eye(dim)[0]


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0])
def test_a_classifier_is_nearly_optimal(distance):
    """Phi(d / 2), less what is lost by learning from 800 rows: 0.02 at most. Errors as `c2st` widens them, times 3."""
    told = c2st(*two_normals(distance), KEY)
    best = norm.cdf(0.5 * distance)
    error = 3 * told.error * 2 * np.sqrt(best * (1 - best))
    assert best - 0.02 - error < told.accuracy < best + error, told
    assert abs(told.floor - 0.5) < 3 * told.error  # a mean of four
    assert (told.p_value > 0.001) == (distance == 0.0)


def test_rows_that_were_learnt_from_are_seen(monkeypatch):
    """A planted bug: nothing is left out in training, so that equal samples can be told apart."""
    x, y = two_normals(0.0, num=101, dim=10)
    assert c2st(x, y, KEY, mixtures=0).p_value > 0.001
    monkeypatch.setattr(two_samples, "_others", lambda rows, fold: rows.reshape(-1))
    told = c2st(x[:-1], y[:-1], KEY, mixtures=2)  # of other shapes, so that it is compiled anew
    assert told.p_value < 1e-6 and told.floor > 0.6


@pytest.mark.slow
def test_a_network_fails_until_it_is_trained():
    """By its gap to the exact posterior; and its draws always have densities."""
    gaps = {}
    for steps in (20, 1000):
        net = neural_posterior(MEAN, key=KEY, steps=steps, width=16, depth=1, heads=2, progress=False)
        found = diagnose(net.given, MEAN, key=KEY, exact=of_mean(), checks=(Finite(), Gap()))
        gaps[steps] = found[SCORE].verdict.values["gap"]
        assert found[FINITE].verdict.passed() and found[SCORE].verdict.passed() == (steps == 1000), found
    assert gaps[1000].mean() < 0.5 * gaps[20].mean()


# -- the door -----------------------------------------------------------------------------------------------------------------


def test_it_prints():
    text = str(report("too confident"))
    assert text.startswith("1000 simulations, 100 draws each; a check fails at p < 0.00014\ncheck")
    assert "FAILED" in text and "worst:\n  ranks (SBC): " in text and "- ranks (SBC): " in text
    finding = report("too confident").findings[0]
    assert finding.sites[0] in ("mu", LIKELIHOOD, JOINT) and "ranks (SBC)" in finding.what
    assert all(len(line) < 180 for line in str(report("mean")).splitlines())


@ppl.model
def with_factor():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(mu, 1.0))
    ppl.factor("more", -(mu**2))


@ppl.model
def with_data():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    sample("seen", dist.Normal(mu, 1.0), obs=0.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"program": mean(ROWS)}, "expected a program with data"),
        ({"program": MEAN | {"mu": 0.0}}, "no latent sites beside its data"),
        ({"program": with_factor() | {"y": 0.0}}, "site 'more' is a factor"),
        ({"given": MEAN}, "given: expected a function from a program with data"),
        ({"given": lambda program: jnp.zeros(3)}, "given: expected a program or a ppl.Generative"),
        ({"given": lambda program: with_data()}, "has data or a factor at 'seen'"),
        ({"given": lambda program: normals(nu=(0.0, 1.0))}, "name a site 'nu'"),
        ({"exact": 3}, "exact: expected a function"),
        ({"simulations": 10}, "simulations must be a whole number of at least 50, got 10"),
        ({"draws": 2.5}, "draws must be a whole number"),
        ({"checks": (Ranks,)}, r"checks must be some such as Ranks\(\), with the brackets"),
        ({"checks": ()}, "got none"),
        ({"floors": {"family": prior}}, "floors need an exact posterior"),
        ({"floors": {"exact": prior}, "exact": prior}, "floors need other names"),
        ({"key": 0}, "diagnose needs a typed random key"),
    ],
)
def test_sentences(change, words):
    settings = {"given": prior, "program": MEAN, "key": KEY, "simulations": 50, "draws": 10, "checks": (Finite(),)} | change
    with pytest.raises(ValueError, match=words):
        diagnose(settings.pop("given"), settings.pop("program"), **settings)


def test_sentences_of_parts():
    with pytest.raises(ValueError, match="Weights: draws must be a whole number of at least 100, got 5"):
        Weights(draws=5)
    with pytest.raises(ValueError, match="no check is called 'sbc'; there are: finite numbers, ranks"):
        report("mean")["sbc"]
    with pytest.raises(ValueError, match=r"of one shape, got \(100, 1\) and \(90, 1\)"):
        c2st(np.zeros((100, 1)), np.zeros((90, 1)), KEY)
    with pytest.raises(ValueError, match="5 folds need at least 50 rows"):
        c2st(np.zeros((20, 1)), np.zeros((20, 1)), KEY)
    with pytest.raises(ValueError, match="folds must be a whole number of at least 2"):
        c2st(np.zeros((20, 1)), np.zeros((20, 1)), KEY, folds=1)
