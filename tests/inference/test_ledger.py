"""The ledger: its counts are those of a function that counts, and it survives a file."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from inference.ledger import Ledger, spent_on
from ppl import dist, sample
from tests.inference.counting import Counting

QUIET: dict[str, Any] = {"progress": False, "check": False}


@ppl.model
def bent(fn):
    x = sample("x", dist.Normal(0.0, 1.0))
    sample("y", dist.Normal(ppl.call("curve", fn, x), 0.3))


class Fitted:
    """A surrogate that has cost something."""

    true_calls = 24

    def __call__(self, x):
        return x


@pytest.fixture(scope="module")
def delayed():
    truth = Counting(lambda x: x + 0.3 * np.sin(3 * x))
    program = bent(truth) | {"y": 0.7}
    kernel = inf.delayed_acceptance(inf.NUTS(), program.intervene({"curve": Fitted()}), num=2)
    posterior = inf.mcmc(program, kernel, key=jax.random.key(0), chains=2, draws=60, warmup=40, **QUIET)
    return posterior, truth.asked


def test_delayed_acceptance_asks_the_truth_as_often_as_its_ledger_says(delayed):
    """The function has no gradient, so that none was asked for, where chains began or later."""
    posterior, asked = delayed
    ledger = posterior.ledger
    assert ledger.calls == {"design": 24, "chains": 2 * 100, "start": 2 * 2}
    assert asked == ledger.calls["chains"] + ledger.calls["start"]
    gradients = posterior.provenance["gradients_to_start"]
    counted = sum(int(np.sum(s["n_steps_surrogate"])) for s in (posterior.stats, posterior.warmup_stats))
    assert ledger.plain == counted + gradients and gradients > 0
    assert ledger.acceptance == pytest.approx(float(np.mean(posterior.stats["acceptance_rate"])))
    assert ledger.ess is not None and ledger.ess_per_call == pytest.approx(ledger.ess / ledger.total)
    assert ledger.guarantee.startswith("Exact in the limit: delayed acceptance")


def test_a_ledger_that_forgets_the_warm_up_is_caught(delayed):
    posterior, asked = delayed
    forgetful = inf.Posterior(posterior.draws, posterior.stats, provenance=posterior.provenance).ledger
    assert asked != forgetful.calls["chains"] + forgetful.calls["start"]


def test_a_ledger_survives_a_file(delayed, tmp_path):
    posterior, _ = delayed
    posterior.save(tmp_path / "run.npz")
    assert inf.Posterior.load(tmp_path / "run.npz").ledger == posterior.ledger


def test_what_is_written_down_is_what_is_told(tmp_path):
    ledger = Ledger({"pilot": 32, "weights": 600}, 19_000, "counted", 410.0, 0.3, None, "Consistent")
    posterior = inf.Posterior({"x": np.zeros((1, 10))}, provenance={"ledger": ledger.plainly()})
    assert posterior.ledger == ledger
    posterior.save(tmp_path / "run.npz")
    assert inf.Posterior.load(tmp_path / "run.npz").ledger == ledger


def test_what_is_printed():
    text = str(Ledger({"pilot": 32, "weights": 600}, 19_000, "counted", 410.0, 0.3, 0.91, "Consistent"))
    for line in (
        "true calls       632 = 32 pilot + 600 weights",
        "plain method     19,000, 96.7% saved (counted)",
        "effective draws  410, 0.649 a true call",
        "Pareto k         0.30",
        "acceptance       0.91",
        "guarantee        Consistent",
    ):
        assert line in text.splitlines()
    empty = Ledger({})
    assert empty.total == 0 and empty.saved is None and empty.ess_per_call is None
    assert str(empty) == "true calls       not counted\nguarantee        Not known"


def test_methods_without_surrogates():
    program = bent(lambda x: x) | {"y": 0.7}
    chains = inf.mcmc(program, inf.RandomWalk(), key=jax.random.key(0), chains=2, draws=50, warmup=30, **QUIET)
    assert chains.ledger.calls == {"chains": 2 * 80} and chains.ledger.plain is None
    assert chains.ledger.guarantee.startswith("Exact in the limit")
    weights = inf.importance(program, key=jax.random.key(0), num=500)
    ledger = weights.ledger
    assert ledger.calls == {"weights": 500} and ledger.pareto_k == pytest.approx(float(weights.stages["pareto_k"][-1]))
    assert ledger.ess == pytest.approx(float(weights.run.population.ess))
    approximate = inf.Posterior({"x": np.zeros((1, 9))}, provenance={"algorithm": "laplace"})
    assert approximate.ledger.guarantee.startswith("None: laplace is an approximation") and not approximate.ledger.calls


def test_gradients_are_counted_where_a_kernel_counts_them():
    made = {"algorithm": "mcmc", "kernel": "NUTS", "biased": [], "chains": 2, "draws": 3, "warmup": 1, "gradients_to_start": 9}
    stats = {"n_steps": np.array([[3, 7, 7], [1, 3, 3]]), "lp": np.zeros((2, 3))}
    posterior = inf.Posterior({"x": np.zeros((2, 3))}, stats, {"n_steps": np.array([[5], [5]])}, provenance=made)
    assert posterior.ledger.calls == {"chains": 34, "start": 9}
    biased = inf.Posterior({"x": np.zeros((2, 3))}, stats, provenance=made | {"biased": ["SGLD"]})
    assert biased.ledger.guarantee == "None: the draws of SGLD are biased by the step size"


def test_weights_with_heavy_tails_have_no_guarantee():
    stages = {"pareto_k": np.array([np.nan, 0.9]), "ess": np.array([9.0, 3.0])}
    made = {"algorithm": "importance", "particles": 9}
    ledger = inf.Posterior({"x": jnp.zeros((1, 9))}, provenance=made, stages=stages).ledger
    assert ledger.guarantee.startswith("None: Pareto k 0.90") and ledger.ess == 3.0


def test_what_surrogates_have_cost():
    program = bent(lambda x: x) | {"y": 0.7}
    assert spent_on(program) == 0 and spent_on(None) == 0
    assert spent_on(program.intervene({"curve": Fitted()})) == 24
