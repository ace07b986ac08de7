"""Many chains: what they learn together, how they are checked, and where they run. That ChEES and MEADS keep the law is looked
at with all other kernels, in `test_kernels.py`; here are their planted bugs, and what only many chains show."""

import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
from inference.mcmc import chees, hmc, meads
from tests.inference.kernels import DIM, KERNELS, exact, mover, surprise, target
from tests.inference.targets import COVARIANCE, MEAN, correlated

CHAINS = 128
SIGMAS = 4.5  # three means and three variances of independent chains: a correct kernel fails for one key in 20,000
ROOT = Path(__file__).parents[2]


@cache
def short(kernel):
    """A run of many short chains on a normal target."""
    return inf.mcmc(
        correlated(), kernel, key=jax.random.key(0), chains=CHAINS, warmup=200, draws=40, progress=False, check=False
    )


def assert_right(posterior):
    """Means and variances of the chains' own means, which are independent, within their errors."""
    x = np.asarray(posterior["x"], np.float64)
    for values, truth in ((x, MEAN), ((x - MEAN) ** 2, np.diag(COVARIANCE))):
        of_chains = values.mean(axis=1)
        error = of_chains.std(axis=0, ddof=1) / np.sqrt(len(of_chains))
        assert (np.abs(of_chains.mean(axis=0) - truth) < SIGMAS * error).all()


# -- ChEES and MEADS -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [inf.ChEES(), inf.repeat(inf.MEADS(), 10)], ids=["ChEES", "MEADS"])
def test_short_chains_are_right_and_pass_the_check(kernel):
    posterior = short(kernel)
    assert_right(posterior)
    assert posterior.provenance["superchains"] == 16
    assert posterior.check(), posterior.check()


def test_chees_takes_as_many_steps_in_all_chains_and_not_always_as_many():
    for stats in (short(inf.ChEES()).stats, short(inf.ChEES()).warmup_stats):
        assert (stats["n_steps"] == stats["n_steps"][0]).all() and (stats["step_size"] == stats["step_size"][0]).all()
        assert len(np.unique(stats["n_steps"])) > 1


def test_chees_learns_the_best_length_of_a_normal():
    """Once the metric fits, a quarter of a period, pi / 2, gives the most; with jitter a little less."""
    stats = short(inf.ChEES()).stats
    length = stats["n_steps"].mean() * stats["step_size"].mean()
    assert 1.0 < length < 2.5
    assert abs(stats["acceptance_rate"].mean() - 0.8) < 0.12


def jitter_of_ones_own(turn):
    return jax.random.uniform(jax.random.fold_in(jax.random.key(0), jax.lax.axis_index("chains")), ())


def test_a_jitter_that_is_not_shared_is_seen(monkeypatch):
    monkeypatch.setattr(chees, "evenly", jitter_of_ones_own)
    *_, info = mover(KERNELS["ChEES"].fixed(DIM), target(), 2)(jnp.asarray(exact(64), jnp.float32), jax.random.key(0))
    assert not (info.n_steps == info.n_steps[0]).all()


BUGS = {
    "ChEES, never rejects": ("ChEES", hmc, "decided", lambda exponential, ratio, new, old: (new, jnp.ones_like(ratio))),
    "MEADS, momentum not turned back": ("MEADS", meads, "turned_back", lambda momentum: momentum),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(monkeypatch, bug):
    name, module, attribute, wrong = BUGS[bug]
    monkeypatch.setattr(module, attribute, wrong)
    move = mover(KERNELS[name].fixed(DIM), target(), 20)
    positions, *_ = move(jnp.asarray(exact(20_000), jnp.float32), jax.random.key(1))
    assert surprise(positions) < 1e-8


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: inf.MEADS(1), r"^MEADS: folds must be at least 2, got 1\.$"),
        (
            lambda: inf.mcmc(correlated(), inf.MEADS(), key=jax.random.key(0), chains=6, progress=False),
            r"^MEADS: 6 chains cannot tune each other in 4 folds of at least 4; ask for chains=16, or use NUTS\(\), which",
        ),
        (
            lambda: inf.mcmc(correlated(), inf.ChEES(), key=jax.random.key(0), placement=inf.Threads(), progress=False),
            r"^mcmc: ChEES looks at all chains at once, and Threads\(.*\) runs each by itself\.",
        ),
        (
            lambda: inf.Sharded().lanes(12),
            r"^Sharded: 12 chains cannot be shared out evenly among 8 devices; ask for chains=16\.$",
        ),
        (
            lambda: inf.Sharded(jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))),
            r"^Sharded: the mesh must have one axis, and it has 2\.$",
        ),
    ],
)
def test_what_is_wrong_at_the_door_is_said(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


# -- the check -----------------------------------------------------------------------------------------------------------


def exact_draws(chains=1024, draws=20, scalars=20):
    """Independent draws, with the statistics of a Hamiltonian kernel."""
    rng = np.random.default_rng(0)
    stats = {"lp": rng.normal(size=(chains, draws)), "energy": rng.normal(size=(chains, draws))}
    return {"x": rng.normal(size=(chains, draws, scalars))}, stats


@pytest.mark.parametrize(("chains", "draws"), [(1024, 20), (1024, 4), (64, 100), (128, 20)])
def test_nothing_is_found_in_exact_draws(chains, draws):
    check = inf.Posterior(*exact_draws(chains, draws)).check()
    assert check, check


def begun_apart():
    """Chains that are still a little where they began, one of 16 places."""
    draws, stats = exact_draws()
    draws["x"][..., 3] += 0.3 * np.random.default_rng(1).normal(size=16)[np.arange(1024) % 16, None]
    return draws, stats


def frozen_chains():
    draws, stats = exact_draws()
    draws["x"][:5] = draws["x"][:5, :1]
    return draws, stats


def slow_energy():
    draws, stats = exact_draws()
    return draws, stats | {"energy": np.cumsum(0.1 * stats["energy"], axis=1) + stats["energy"][:, :1]}


def alike():
    """Draws of a chain that hardly differ."""
    draws, stats = exact_draws()
    draws["x"][..., 7] = draws["x"][:, :1, 7] + 0.01 * draws["x"][..., 7]
    return {"x": draws["x"][:128]}, {name: x[:128] for name, x in stats.items()}


FOUND = {
    begun_apart: "16 groups of chains, each with one first position, disagree, most about 'x[3]'",
    frozen_chains: "5 of 1024 chains did not move at all.",
    slow_energy: "E-BFMI of all chains together is 0.",
    alike: "effective sample size of 'x[7]' is",
}


@pytest.mark.parametrize("make", FOUND, ids=lambda make: make.__name__)
def test_what_is_wrong_with_many_short_chains_is_found(make):
    check = inf.Posterior(*make()).check()
    assert any(FOUND[make] in str(finding) for finding in check.findings), check


def test_chains_that_have_not_forgotten_their_beginning_are_found():
    """A random walk of ten steps: nested R-hat sees what is left of the 16 first positions."""
    kernel = inf.RandomWalk(0.1, inf.metrics.Diagonal(jnp.ones(3)))
    posterior = inf.mcmc(
        correlated(), kernel, key=jax.random.key(0), chains=64, warmup=0, draws=10, progress=False, check=False,
        placement=inf.Vectorized(),
    )  # fmt: skip
    starts = np.asarray(posterior["x"][:, 0])
    assert np.linalg.norm(starts[0] - starts[16]) < 1.5 < np.linalg.norm(starts[0] - starts[1]) + 1.5
    assert any("Nested R-hat" in finding.what for finding in posterior.check().findings)


# -- placements ----------------------------------------------------------------------------------------------------------

SETTINGS = {"key": jax.random.key(0), "chains": 16, "draws": 10, "progress": False, "check": False}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "warmup"),
    [(lambda: inf.NUTS(0.5, inf.metrics.Diagonal(jnp.ones(3)), max_depth=3), 0), (inf.ChEES, 10)],
    ids=["NUTS", "ChEES"],
)
def test_devices_do_not_change_the_draws(x64, make, warmup):
    """Eight host devices; so short that rounding has not grown."""
    sharded, one = (
        inf.mcmc(correlated(), make(), warmup=warmup, placement=placement, **SETTINGS)
        for placement in (inf.Sharded(), inf.Vectorized())
    )
    np.testing.assert_allclose(sharded["x"], one["x"], rtol=1e-6)


WORKER = """
import sys
import jax
import numpy as np
address, process, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if process >= 0:
    jax.distributed.initialize(address, num_processes=2, process_id=process)
import inference as inf
import jax.numpy as jnp
from tests.inference.targets import correlated
kernel = inf.RandomWalk(0.5, inf.metrics.Diagonal(jnp.ones(3)))
stable = inf.UntilStable(300, rhat=99.0, ess=0.0, share=0.0)  # each process has to see the chains of the other
run = dict(key=jax.random.key(0), chains=16, draws=10, warmup=stable, progress=False, check=False)
posterior = inf.mcmc(correlated(), kernel, placement=inf.Sharded(), **run)
if process >= 0:
    try:
        inf.mcmc(correlated(), inf.ChEES(), placement=inf.Sharded(), **run)
    except ValueError as error:
        assert "ChEES looks at all chains at once" in str(error) and "processes" in str(error), error
    else:
        raise AssertionError("ChEES ran in two processes")
np.savez(path, x=posterior["x"], lp=posterior.stats["lp"], before=posterior.warmup_stats["lp"])
"""


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    devices = "--xla_force_host_platform_device_count=2"
    env = os.environ | {"XLA_FLAGS": devices, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    paths = {process: tmp_path / f"{process}.npz" for process in (-1, 0, 1)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, address, str(process), str(path)],
            env=env,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process, path in paths.items()
    ]
    for worker in workers:
        _, said = worker.communicate(timeout=120)
        assert worker.returncode == 0, said
    alone, *others = (np.load(path) for path in paths.values())
    assert alone["x"].shape == (16, 10, 3) and alone["before"].shape == (16, 237)
    for other in others:
        for name in alone:
            np.testing.assert_allclose(other[name], alone[name], rtol=1e-5, err_msg=name)
