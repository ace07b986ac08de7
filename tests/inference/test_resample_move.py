"""Resample-move from site to site against exact evidences, and sites drawn anew; see `evidence.py` for the margins."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln, logsumexp

import ppl
from inference.mcmc.discrete_gibbs import DiscreteGibbs
from inference.mcmc.gibbs import gibbs
from inference.mcmc.random_walk import RandomWalk
from inference.metrics import Diagonal
from inference.population import Population
from inference.smc import site_order
from inference.smc.ibis import WhereUneven
from inference.smc.loop import Method
from inference.smc.resample_move import resample_move
from inference.smc.reweight import ByESS, Ladder
from inference.smc.sample import smc
from inference.smc.site_order import Renew, SiteOrder, SiteOrderPath
from inference.smc.step import Sequence
from inference.smc.tempering_path import Tempering
from ppl import dist, sample
from tests.inference.evidence import Case, assert_calibrated, assert_unbiased, regression, z_scores

# -- programs --------------------------------------------------------------------------------------------------------------


@ppl.model
def level(num, q, r):
    """A random walk without a loop."""
    x = jnp.zeros(())
    for t in range(num):
        x = sample(f"x{t}", dist.Normal(x, q))
        sample(f"y{t}", dist.Normal(x, r))


def walk(num: int = 3, q: float = 1.0, r: float = 0.7) -> list[Case]:
    """With the first 0, 1, ... data."""
    steps = np.minimum.outer(np.arange(1, num + 1), np.arange(1, num + 1)) * q**2
    y = np.cumsum(np.ones(num)) * 0.8
    law = stats.multivariate_normal(np.zeros(num), steps + r**2 * np.eye(num))
    data = {f"y{t}": y[t] for t in range(num)}
    exact = [0.0] + [float(stats.multivariate_normal(law.mean[:n], law.cov[:n, :n]).logpdf(y[:n])) for n in range(1, num + 1)]
    return [Case(level(num, q, r) | data, x) for x in exact]


FIRST = np.array([0.5, 0.3, 0.2])
ROWS = np.array([[0.7, 0.2, 0.1], [0.15, 0.7, 0.15], [0.05, 0.35, 0.6]])
CENTRES = np.array([-1.5, 0.0, 2.0])
SEEN = np.array([-1.2, -2.0, 0.3, 1.9, 2.4, 1.1, -0.2, -1.0, 0.4, 2.2])


@ppl.model
def hidden_markov(num):
    """Written without a loop."""
    row = jnp.log(FIRST)
    for t in range(num):
        z = sample(f"z{t}", dist.Categorical(logits=row))
        sample(f"y{t}", dist.Normal(jnp.asarray(CENTRES)[z], 1.0))
        row = jnp.log(ROWS)[z]


def markov(num: int) -> tuple[Case, np.ndarray]:
    """With the probability of state 2 at the first step, given all data; by the forward and backward recursions."""
    fits = stats.norm.logpdf(SEEN[:num, None], CENTRES, 1.0)
    ahead = np.zeros(3)
    for t in range(num - 1, 0, -1):
        ahead = logsumexp(np.log(ROWS) + fits[t] + ahead, axis=1)
    joint = np.log(FIRST) + fits[0] + ahead
    data = {f"y{t}": SEEN[t] for t in range(num)}
    return Case(hidden_markov(num) | data, float(logsumexp(joint))), np.exp(joint - logsumexp(joint))


WORDS = (np.array([0, 1, 1]), np.array([2, 2]))


@ppl.model
def document(words, topics):
    share = sample("share", dist.Beta(1.0, 1.0))

    def one():
        z = sample("z", dist.Bernoulli(share))
        return sample("word", dist.Categorical(topics[z]))

    ppl.vmap(one, axis_size=len(words))()


@ppl.model
def topic_model(documents):
    """Two topics of three words, documents as programs within: a small LDA."""
    topics = ppl.vmap(lambda a: sample("topic", dist.Dirichlet(a)))(jnp.ones((2, 3)))
    for i, words in enumerate(documents):
        sample(f"doc{i}", document(words, topics) | {"word": words})
    ppl.factor("tilt", 0.5 * topics[0, 0])


def lda() -> Case:
    """All assignments of topics to words; then topics and shares are conjugate, and the tilt a mean over a Beta."""
    parts = []
    for z in itertools.product((0, 1), repeat=sum(map(len, WORDS))):
        z, words = np.array(z), np.concatenate(WORDS)
        total = 0.0
        for i in range(len(WORDS)):
            start = sum(map(len, WORDS[:i]))
            own = z[start : start + len(WORDS[i])]
            total += gammaln(1 + own.sum()) + gammaln(1 + (1 - own).sum()) - gammaln(2 + len(own))
        for k in (0, 1):
            counts = np.bincount(words[z == k], minlength=3)
            total += gammaln(3) - gammaln(3 + counts.sum()) + gammaln(1 + counts).sum()
        first = np.bincount(words[z == 0], minlength=3)
        own = stats.beta(1 + first[0], 2 + first[1:].sum())
        parts.append(total + np.log(own.expect(lambda p: np.exp(0.5 * p))))
    return Case(topic_model(WORDS), float(logsumexp(parts)))


BY_SITE = gibbs(
    {
        ("doc0.z", "doc1.z"): DiscreteGibbs(),
        ...: RandomWalk(0.6, Diagonal(jnp.ones(6))),
    }
)

# -- evidence --------------------------------------------------------------------------------------------------------------

WALK, METHOD = walk(), resample_move(moves=8)


def test_the_error_of_the_evidence_is_right():
    assert_calibrated(z_scores(METHOD, WALK[-1], 400, 30))


@pytest.mark.slow
def test_every_site_has_its_evidence():
    """Of the first n data, for all n, within four errors; and the first place given all data."""
    posterior = smc(WALK[-1].program, METHOD, key=jax.random.key(0), particles=2000, progress=False)
    np.testing.assert_array_equal(posterior.stages["num_sites"], np.arange(4))
    error, exact = posterior.stages["log_evidence_error"], np.array([case.exact for case in WALK])
    assert (np.abs(posterior.stages["log_evidence"] - exact)[1:] < 4 * error[1:]).all()
    assert 0 < posterior.stages["resampled"].sum() < 4
    steps = np.minimum.outer(np.arange(1, 4), np.arange(1, 4))
    mean = np.linalg.solve(steps + 0.49 * np.eye(3), 0.8 * np.arange(1, 4)) @ steps[:, 0]
    assert posterior["x0"].mean() == pytest.approx(mean, abs=0.08)


@pytest.mark.slow
def test_recorded_choices_are_unbiased():
    posterior = smc(WALK[-1].program, resample_move(moves=3), key=jax.random.key(1), particles=64, progress=False)
    assert_unbiased(posterior.run.frozen(), WALK[-1], 64, 600)


@pytest.mark.parametrize("num", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_discrete_sites_without_a_loop(num):
    case, first = markov(num)
    method = resample_move(gibbs({...: DiscreteGibbs()}), moves=1)
    posterior = smc(case.program, method, key=jax.random.key(0), particles=1000, progress=False)
    assert abs(posterior.log_evidence - case.exact) < 4 * posterior.log_evidence_error < 0.5
    share = np.bincount(np.asarray(posterior["z0"]).ravel(), minlength=3) / 1000
    np.testing.assert_allclose(share, first, atol=0.08)


@pytest.mark.slow
def test_documents_as_programs_within():
    case = lda()
    posterior = smc(case.program, resample_move(BY_SITE, moves=5), key=jax.random.key(0), particles=2000, progress=False)
    assert list(posterior.run.path.passes) == ["doc0.word", "doc1.word", "tilt"]
    assert abs(posterior.log_evidence - case.exact) < 4 * posterior.log_evidence_error < 0.3


@pytest.mark.slow
def test_the_errors_of_all_of_them():
    for method, case in (
        (resample_move(BY_SITE, moves=4), lda()),
        (resample_move(gibbs({...: DiscreteGibbs()}), moves=1), markov(3)[0]),
        (resample_move(moves=10, to=ByESS(0.5)), WALK[-1]),
    ):
        assert_calibrated(z_scores(method, case, 400, 200))


@pytest.mark.slow
def test_a_single_site_is_taken_at_once():
    """One observed site of five data: importance sampling from the prior, then moves."""
    case = regression(1, 5)
    posterior = smc(case.program, resample_move(), key=jax.random.key(0), particles=2000, progress=False)
    assert posterior.stages["num_sites"].tolist() == [0, 1]
    assert abs(posterior.log_evidence - case.exact) < 4 * posterior.log_evidence_error < 0.4


# -- what is reached, and drawn anew ---------------------------------------------------------------------------------------


@ppl.model
def many_kinds(y):
    mu = sample("mu", dist.Normal(0.0, 1.0))
    late = sample("late", dist.Normal(mu, 1.0))
    sample("first", dist.Normal(mu, 1.0), obs=0.0)
    ppl.factor("loss", -(late**2))

    def lane(y):
        w = sample("w", dist.Normal(mu, 1.0))
        sample("y", dist.Normal(w, 1.0), obs=y)
        sample("after", dist.Normal(w, 1.0))

    ppl.vmap(lane)(y)

    def step(x, y):
        sample("seen", dist.Normal(x, 1.0), obs=y)
        x = sample("x", dist.Normal(x, 1.0))
        return x, sample("aside", dist.Normal(x, 1.0))

    ppl.scan(step, 0.0, y)
    sample("rest", dist.Uniform(0.0, jnp.exp(mu)))


def test_what_is_reached():
    """In a loop the site seen first is computed from that drawn last, a step before."""
    path = SiteOrder().of(many_kinds(jnp.ones(3)))
    assert path.passes == ("first", "loss", "y", "seen")
    assert path.reached_at == {"mu": 1, "late": 1, "w": 3, "after": 4, "x": 4, "aside": 5, "rest": 5}


def test_what_is_not_reached_is_drawn_anew_from_the_program():
    """And has the law that it has in the program, given the rest; what is reached keeps its very numbers."""
    path = SiteOrder().of(many_kinds(jnp.ones(3)))
    position = jax.random.normal(jax.random.key(0), (path.target.dim,))
    draw = jax.jit(jax.vmap(path.renewed, (0, None, None)))
    keys = jax.random.split(jax.random.key(1), 4000)
    at = np.repeat([path.reached_at[slot.address] for slot in path.target.slots], [s.size for s in path.target.slots])
    for now in (0, 2, 3, 4):
        new = np.asarray(draw(keys, position, jnp.int32(now)))
        same = (new == np.asarray(position)).all(axis=0)
        np.testing.assert_array_equal(same, at <= now)
    new = np.asarray(draw(keys, position, jnp.int32(2)))
    mu, w, after = new[:, 0], new[:, 2:5], new[:, 5:8]
    for z in ((w - mu[:, None]).ravel(), (after - w).ravel(), np.diff(np.pad(new[:, 8:11], ((0, 0), (1, 0))), axis=1).ravel()):
        assert stats.kstest(z, "norm").pvalue > 1e-4
    assert stats.kstest(stats.logistic.cdf(new[:, -1]), "uniform").pvalue > 1e-4


def test_renewing_keeps_the_evidence_and_the_families():
    path = SiteOrder().of(WALK[-1].program)

    @jax.jit
    def renewed(path):
        population = path.start(jax.random.key(0), 50)._replace(level=jnp.int32(2)).reweighted(jnp.linspace(-1.0, 1.0, 50))
        return population, Renew()(jax.random.key(1), population, (), path).population

    population, new = renewed(path)
    for name in set(Population._fields) - {"particles"}:
        np.testing.assert_array_equal(getattr(new, name), getattr(population, name))
    np.testing.assert_allclose(
        new.particles.log_likelihoods[:, :3], population.particles.log_likelihoods[:, :3], rtol=1e-5, atol=1e-5
    )
    assert (new.particles.log_likelihoods[:, 3] != population.particles.log_likelihoods[:, 3]).all()


# -- planted bugs ----------------------------------------------------------------------------------------------------------


def surprise() -> float:
    """The largest z-score in size of four runs with many particles."""
    return float(np.abs(z_scores(METHOD, WALK[-1], 4000, 4)).max())


BUGS = {
    "sites already reached are drawn anew": (
        "renewed", lambda self, key, position, level: RENEWED(self, key, position, level - 1),
    ),
    "data count before their latent site is weighed by them": (
        "each", lambda self, by_site: EACH(self, by_site)[jnp.array([1, 0, 2])],
    ),
    "moves are on the target of one site less": (
        "log_density", lambda self, p, n: p.log_prior + p.log_likelihoods[jnp.maximum(n - 1, 0)],
    ),
}  # fmt: skip
RENEWED, EACH = SiteOrderPath.renewed, SiteOrderPath.each


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(monkeypatch, bug):
    monkeypatch.setattr(SiteOrderPath, *BUGS[bug])
    assert surprise() > 5


def test_loops_taken_for_straight_programs_are_found(monkeypatch):
    """Planted: in a loop only what comes before a site is reached with it."""
    monkeypatch.setattr(site_order, "depends", lambda fn, values: {})
    assert SiteOrder().of(many_kinds(jnp.ones(3))).reached_at["x"] != 4


# -- wrong use -------------------------------------------------------------------------------------------------------------


@ppl.model
def blind():
    sample("x", dist.Normal(0.0, 1.0))


def test_wrong_use_is_told():
    with pytest.raises(ValueError, match="the program must have data or factors, but it has none. Give it data"):
        SiteOrder().of(blind())
    with pytest.raises(ValueError, match="numbers of observed sites must be whole and increase from at least 1 to exactly 3"):
        smc(WALK[-1].program, resample_move(to=Ladder(jnp.arange(1, 3))), key=jax.random.key(0), progress=False)
    with pytest.raises(ValueError, match=r"Renew: it needs a path from site to site, SiteOrder\(\), got TemperingPath"):
        smc(WALK[-1].program, Method(Tempering(), Renew()), key=jax.random.key(0), progress=False)
    with pytest.raises(ValueError, match="WhereUneven: ess must be a share"):
        resample_move(ess=-1.0)
    stage = resample_move().stage
    assert isinstance(stage, Sequence) and isinstance(stage.steps[1], WhereUneven)


def test_impossible_data_are_told_by_site():
    program = level(2, 1.0, 1.0) | {"y0": 0.0, "y1": 1e30}
    with pytest.raises(ValueError, match=r"at site 'y1' \(2 of 2\) all 100 particles have weight zero"):
        smc(program, resample_move(), key=jax.random.key(0), particles=100, progress=False)
