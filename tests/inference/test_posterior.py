"""A posterior prints, converts, predicts and survives its file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from tests.inference.targets import SIGMA, Y, schools

STATS = {"lp", "acceptance_rate", "step_size", "n_steps", "reached_max_treedepth", "tree_depth", "energy", "diverging"}


@pytest.fixture(scope="module")
def posterior():
    return inf.mcmc(
        schools(SIGMA) | {"y": Y}, inf.NUTS(), key=jax.random.key(0), draws=200, warmup=200, progress=False,
        keep_warmup=True, check=False,
    )  # fmt: skip


def test_statistics_have_arviz_names(posterior):
    assert posterior.stats.keys() == posterior.warmup_stats.keys() == STATS
    assert all(x.shape == (4, 200) for x in posterior.stats.values())
    assert posterior.stats["diverging"].dtype == bool


def test_sites_by_name(posterior):
    assert posterior["z"].shape == (4, 200, 8) and posterior["mu"].shape == posterior.shape == (4, 200)
    with pytest.raises(KeyError, match="no site 'nu' in this posterior; it has: mu, tau, z"):
        posterior["nu"]


def test_the_summary(posterior):
    summary = posterior.summary()
    assert list(summary.table.columns) == ["mean", "sd", "3%", "97%", "ess_bulk", "ess_tail", "r_hat"]
    assert list(summary.table.index[:3]) == ["mu", "tau", "z[0]"]
    assert summary.table.loc["mu", "mean"] == pytest.approx(posterior["mu"].mean(), rel=1e-4)
    assert "divergences" in repr(summary) and "gradients" in repr(summary)
    assert list(posterior.summary("mu", interval=0.5).table.columns)[2:4] == ["25%", "75%"]


def test_the_tree(posterior):
    predicted = posterior.predict(key=jax.random.key(1))
    assert predicted["y"].shape == (4, 200, 8)
    prior = ppl.predict(schools(SIGMA), jax.random.key(2), num=50)
    tree = posterior.to_datatree(
        posterior_predictive=predicted,
        prior={name: prior[name] for name in ("mu", "tau", "z")},
        prior_predictive={"y": prior["y"]},
        dims={"z": ["school"]},
        coords={"school": list("ABCDEFGH")},
    )
    assert set(tree.children) == {
        "posterior", "sample_stats", "log_likelihood", "observed_data", "posterior_predictive", "prior",
        "prior_predictive", "warmup_posterior", "warmup_sample_stats",
    }  # fmt: skip
    assert tree["posterior"]["z"].dims == ("chain", "draw", "school")
    np.testing.assert_allclose(tree["observed_data"]["y"], Y)
    assert tree["log_likelihood"]["y"].shape == (4, 200, 8)
    one = {name: posterior[name][1, 2] for name in ("mu", "tau", "z")}
    pointwise = (schools(SIGMA) | {"y": Y}).log_likelihoods(one)["y"]
    np.testing.assert_allclose(tree["log_likelihood"]["y"][1, 2], pointwise, rtol=1e-5)


def test_a_file_brings_it_back(posterior, tmp_path):
    path = tmp_path / "run.posterior"
    posterior.save(path)
    back = inf.Posterior.load(path)
    for group in ("draws", "stats", "warmup_stats", "warmup_draws"):
        mine, theirs = getattr(posterior, group), getattr(back, group)
        assert jax.tree.structure(mine) == jax.tree.structure(theirs)
        jax.tree.map(np.testing.assert_array_equal, mine, theirs)
    assert back.provenance == posterior.provenance and repr(back) == repr(posterior)


def test_damaged_and_foreign_files_are_refused(posterior, tmp_path):
    path = tmp_path / "run.npz"
    posterior.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is damaged or is not a saved posterior"):
        inf.Posterior.load(path)
    path.write_text("not a posterior")
    with pytest.raises(ValueError, match="is damaged or is not a saved posterior"):
        inf.Posterior.load(path)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(ValueError, match="it has no header"):
        inf.Posterior.load(path)
    with pytest.raises(FileNotFoundError):
        inf.Posterior.load(tmp_path / "nowhere.npz")


def test_a_posterior_can_be_sampled(posterior):
    draw = posterior.sample(jax.random.key(0))
    assert draw["z"].shape == (8,)
    assert any(jnp.array_equal(draw["z"], z) for z in posterior["z"].reshape(-1, 8))


def test_it_knows_where_it_came_from(posterior):
    made = posterior.provenance
    assert made["chains"] == 4 and made["draws"] == made["warmup"] == 200 and made["kernel"] == "NUTS"
    assert made["gradients"] == sum(int(s["n_steps"].sum()) for s in (posterior.stats, posterior.warmup_stats))
    assert repr(posterior).startswith("Posterior: 4 chains x 200 draws of mu, tau, z[8]")
