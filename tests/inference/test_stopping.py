"""Runs that stop when they are good enough: where they stop follows from the draws alone, and the reason is said."""

import re
import time
import warnings

import arviz_stats
import jax
import numpy as np
import pytest

import inference as inf
from inference.progress import Meter, Silent
from inference.run import Goal, run
from inference.stopping import looks
from tests.errors.bad_runs import mcmc as never
from tests.inference.targets import SIGMA, Y, schools
from tests.inference.test_run import count
from tests.inference.test_store import same

WORDS = r"^the smallest effective sizes are (\d+) \(bulk\) and (\d+) \(tail\), the largest R-hat is (1\.00\d)$"


def sampled(draws=20_000, until=None, store=None, **settings):
    settings = {"key": jax.random.key(0), "chains": 2, "warmup": 60, "progress": False, "check": False} | settings
    return inf.mcmc(schools(SIGMA) | {"y": Y}, inf.NUTS(), draws=draws, until=until, store=store, **settings)


class Counting:
    """Stops at the look number `num`, and remembers what it was shown."""

    def __init__(self, num):
        self.num, self.shown = num, []

    def reached(self, posterior):
        self.shown.append(posterior.shape)
        return "seen enough" if len(self.shown) >= self.num else None


@pytest.fixture(scope="module")
def stopped():
    return sampled(until=inf.TargetESS(400))


def test_it_stops_when_the_target_is_reached_and_says_so(stopped):
    chains, draws = stopped.shape
    assert chains == 2 and draws in list(looks(20_000)) and stopped.stats["lp"].shape == (2, draws)
    table = stopped.summary().table
    by_site = arviz_stats.ess(stopped.to_datatree(), method="tail", prob=(0.05, 0.95)).values()
    least_tail = min(float(x.min()) for x in by_site)
    assert table["ess_bulk"].min() >= 400 and least_tail >= 400 and table["r_hat"].max() <= 1.01
    before = [n for n in looks(draws)][-1]  # one look earlier it was not reached
    part = inf.Posterior({name: x[:, :before] for name, x in stopped.draws.items()})
    assert inf.TargetESS(400).reached(part) is None
    bulk, tail, rhat = re.match(WORDS, stopped.provenance["stopped"]).groups()
    assert [int(bulk), int(tail)] == [round(table["ess_bulk"].min()), round(least_tail)]
    assert float(rhat) == pytest.approx(table["r_hat"].max(), abs=5.1e-4)


def test_stopping_is_no_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sampled(until=Counting(1), check=True)
    assert not [w for w in caught if "per chain were made" in str(w.message)]


def test_the_draws_are_those_of_a_run_that_does_not_stop(stopped):
    whole = sampled(draws=stopped.shape[1])
    same(stopped, whole)
    assert whole.provenance["stopped"] is None


@pytest.mark.parametrize(
    "placement", [inf.Threads(), pytest.param(inf.Vectorized(), marks=pytest.mark.slow)], ids=["threads", "vectorized"]
)
def test_in_a_store_it_stops_at_the_same_draw_and_is_extended(tmp_path, placement):
    """However the run was cut, and whatever has been made since."""
    rule = {"until": inf.TargetESS(400), "placement": placement}
    once = sampled(**rule)
    store = inf.Store(tmp_path, every=0.05)
    sampled(draws=37, store=store, **rule)
    sampled(draws=150, store=store, placement=placement)
    for _ in range(2):
        same(sampled(store=store, **rule), once)
    longer = sampled(draws=once.shape[1] + 500, store=store, placement=placement)
    same(longer, sampled(draws=once.shape[1] + 500, placement=placement))
    again = sampled(store=store, **rule)
    same(again, once)
    assert again.provenance["stopped"] == once.provenance["stopped"]


def test_a_rule_of_ones_own_is_shown_level_chains():
    rule = Counting(3)
    posterior = sampled(until=rule)
    assert rule.shown == [(2, 100), (2, 134), (2, 179)] and posterior.shape == (2, 179)
    assert posterior.provenance["stopped"] == "seen enough"


def test_a_rule_that_is_never_met_changes_nothing():
    rule = Counting(1000)
    posterior = sampled(draws=179, until=rule)
    assert rule.shown == [(2, 100), (2, 134)] and posterior.shape == (2, 179) and posterior.provenance["stopped"] is None


def test_what_is_not_good_enough():
    random = np.random.default_rng(0)
    fine = random.normal(size=(4, 500, 2))
    reached = lambda x, **limits: inf.TargetESS(1000, **limits).reached(inf.Posterior({"x": x}))  # noqa: E731
    assert reached(fine) is not None
    assert reached(fine[:, :200]) is None
    assert reached(fine + 0.3 * np.arange(4)[:, None, None]) is None  # chains in different places
    tails = fine.copy()  # bulk is fine, but the lower tail comes in runs of draws
    spells = np.repeat(random.uniform(size=(4, 10)) < 0.1, 50, axis=1)
    tails[..., 0] = np.where(spells, -np.abs(tails[..., 0]) - 3, tails[..., 0])
    assert reached(tails, rhat=10.0) is None
    assert reached(np.where([True, False], fine, np.nan)) is None
    assert reached(np.zeros((4, 500, 2))) is None  # nothing moves
    assert reached(np.where([True, False], fine, 0.0)) is not None  # a constant is left out


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: inf.TargetESS(0), "TargetESS: target must be a positive number of draws, got 0."),
        (lambda: inf.TargetESS(100, rhat=1), "TargetESS: rhat must be above 1, for example 1.01, got 1."),
        (
            lambda: never(until=1000),
            "mcmc: until must be a rule with a method reached, for example TargetESS(1000), got int.",
        ),
        (
            lambda: never(until=inf.TargetESS),
            "mcmc: until must be a rule with a method reached, for example TargetESS(1000), got TargetESS.",
        ),
    ],
)
def test_sentences(make, sentence):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == sentence


# -- the loop, and what it shows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [[0, 0, 0], [55, 20, 130], [400, 400, 400]])
def test_the_loop_goes_to_every_goal_in_order(done):
    """Also to those that were passed before; no lane passes a goal before the route was shown it."""
    seen, totals = [], []

    def route():
        for steps, most in ((30, 1000), (60, 1000), (120, 500), (240, 500)):
            outcome = yield Goal(steps, most)
            seen.append((outcome.steps, min(outcome.done) >= outcome.steps, max(outcome.done)))
            if outcome.steps == 120:
                return "enough"

    class Bar(Silent):
        def begin(self, total, done):
            totals.append(total)

        change = totals.append

    outcome = run(count, list(done), route(), most=50, done=done, progress=Bar())
    assert [steps for steps, *_ in seen] == [30, 60, 120] and all(level for _, level, _ in seen)
    assert all(most <= max(steps, *done) for steps, _, most in seen)
    assert outcome.reason == "enough" and outcome.steps == 120 and outcome.done == [max(120, n) for n in done]
    assert totals == [3000, 1500]


def test_a_budget_that_ends_at_a_goal_is_told():
    def route():
        yield Goal(16, 10**9)
        time.sleep(0.2)
        yield Goal(10**9, 10**9)

    outcome = run(count, [0], route(), most=50, budget=0.1)
    assert outcome.reason == "budget" and outcome.done == [16]


def test_the_meter_counts_what_was_done_before(capsys):
    meter = Meter("2 chains", count=lambda record, first: {"late": num_after(record, first)}, stream=None)
    num_after = lambda record, first: int(first >= 100)  # noqa: E731
    meter.begin(400, 200)
    meter.update(50, None, 100)
    meter.update(50, None, 50)
    meter.end()
    said = capsys.readouterr().err
    assert said.startswith("2 chains: 300 of 400 steps (200 done before) in ") and said.endswith(", 1 late\n")


def test_divergences_of_the_warm_up_are_counted_apart(capsys):
    posterior = sampled(draws=100, warmup=100, progress=True)
    late, early = (int(np.sum(group["diverging"])) for group in (posterior.stats, posterior.warmup_stats))
    assert early > 0
    said = capsys.readouterr().err
    assert said.startswith("2 chains: 400 of 400 steps in ") and said.endswith(f", {late} divergences, {early} in warm-up\n")


def test_a_resumed_run_shows_all_its_steps(tmp_path, capsys):
    sampled(draws=50, store=inf.Store(tmp_path), progress=False)
    sampled(draws=100, store=inf.Store(tmp_path), progress=True)
    assert capsys.readouterr().err.startswith("2 chains: 320 of 320 steps (220 done before) in ")


def test_a_budget_spent_in_the_warm_up(tmp_path):
    settings = {"warmup": 10**6, "budget": 0.2}
    with pytest.raises(ValueError, match=r"^mcmc: the budget was spent after \d+ of 1000000 warm-up steps, .* Allow more\.$"):
        sampled(**settings)
    kept = r"before the first draw\. The store keeps them: run the same line again to continue\.$"
    with pytest.raises(ValueError, match=kept):
        sampled(store=inf.Store(tmp_path), **settings)
