"""Blockwise Gibbs and kernels for discrete sites: exact draws stay exact, lanes are independent where it is said, posteriors
agree with sums over all values; and bugs that are planted are found."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import stats
from scipy.special import gammaln

import inference as inf
import ppl
from inference.mcmc import discrete_gibbs, gibbs, gibbs_with_gradients, integer_walk
from inference.mcmc.block import Block
from ppl import dist, sample
from tests.inference import kernels
from tests.inference.kernels import metric, mover
from tests.ppl.test_lanes import QUICKLY, claim_apart, coin, seen, site

ALPHA = 1e-6


# -- the law: a small space with all kinds of dependence --------------------------------------------------------------------


@ppl.model
def law():
    """z[0] matters to k and to u; u lies in a plate. 4 x 4 x 4 values."""
    zs = ppl.vmap(lambda y: (z := coin("z", -0.2), seen("y", z, y))[0])(jnp.array([0.8, 0.2]))
    k = sample("k", dist.Binomial(3, 0.35 + 0.3 * zs[0]))
    ppl.factor("pair", -0.8 * zs[0] * zs[1])

    def lane(z):
        u = coin("u", 1.5 * z - 0.5)
        seen("w", u + 0.4 * k, 1.2)

    ppl.vmap(lane)(zs)


STATES = np.array(list(itertools.product(*[range(2)] * 2, range(4), *[range(2)] * 2)), np.float32)

KERNELS = {
    "DiscreteGibbs": lambda: inf.DiscreteGibbs(),
    "IntegerWalk": lambda: inf.IntegerWalk(0.7),
    "GibbsWithGradients": lambda: inf.GibbsWithGradients(num_moves=3),
    "gibbs": lambda: inf.gibbs({("u", "z"): inf.DiscreteGibbs(), "k": inf.IntegerWalk(0.5)}),
    "combined": lambda: inf.cycle(
        inf.mixture([inf.gibbs({"z": inf.GibbsWithGradients(2), ...: inf.DiscreteGibbs()}), inf.IntegerWalk(1.0)], [1, 2]),
        inf.repeat(inf.gibbs({"z": inf.IntegerWalk(0.1), ...: inf.DiscreteGibbs()}), 2),
    ),
}
NUM = 40_000


def probabilities(target) -> np.ndarray:
    """Of all states (num_states,)."""
    log_p = np.asarray(jax.vmap(target.log_density)(jnp.asarray(STATES)), np.float64)
    return np.exp(log_p - log_p.max()) / np.exp(log_p - log_p.max()).sum()


def number(positions) -> np.ndarray:
    """The number of each state among STATES."""
    return (np.asarray(positions) @ np.array([32, 16, 4, 2, 1])).astype(int)


def run(kernel, target, steps):
    """Exact draws and what the kernel makes of them, as numbers of states; the share of moves; the statistics."""
    p = probabilities(target)
    start = np.random.default_rng(0).choice(len(STATES), NUM, p=p)
    positions, moved, info = mover(kernel, target, steps)(jnp.asarray(STATES[start]), jax.random.key(1))
    inside = bool(np.all((positions >= 0) & (positions <= np.array([1, 1, 3, 1, 1])) & (positions == np.round(positions))))
    return p, start, positions, float(np.mean(moved)), info, inside


def surprise(p, end) -> float:
    """The p-value, by Pearson, of: the states `end` (num,) are independent draws from the law `p`, each expected 4 times."""
    assert p.min() * len(end) > 4
    return stats.chisquare(np.bincount(end, minlength=len(p)), p * len(end)).pvalue


SLOW = {"combined", "way back forgotten"}  # they cost most, or tell least


def all_of(registry):
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in registry]


@pytest.mark.parametrize("name", all_of(KERNELS))
def test_exact_draws_stay_exact(name):
    target = ppl.Target(law())
    p, start, positions, moved, info, inside = run(KERNELS[name](), target, 3)
    assert inside and positions.dtype == "float32"
    assert surprise(p, number(positions)) > ALPHA
    assert moved > 0.2
    log_p = np.log(p)[number(positions)]
    np.testing.assert_allclose(np.ptp(np.asarray(info.lp[:, -1]) - log_p), 0.0, atol=1e-4)  # the density is that of the end


@pytest.mark.parametrize("name", all_of(KERNELS))
def test_double_precision_is_kept(x64, name):
    target = ppl.Target(law())
    positions, _, info = jax.eval_shape(mover(KERNELS[name](), target, 2), jnp.zeros((2, 5)), jax.random.key(0))
    assert positions.dtype == info.lp.dtype == "float64"


def imbalance(p, start, end):
    """The p-value of detailed balance: from exact draws, i to j is seen as often as j to i, so (n_ij - n_ji)^2 / (n_ij + n_ji)
    is chi-squared, pair by pair; and the number of pairs that were seen often enough."""
    pairs = np.zeros((len(p), len(p)))
    np.add.at(pairs, (start, end), 1)
    above = np.triu_indices(len(p), 1)
    there, back = pairs[above], pairs.T[above]
    often = there + back > 10
    return stats.chi2.sf(np.sum((there - back)[often] ** 2 / (there + back)[often]), often.sum()), often.sum()


def test_one_move_of_gibbs_with_gradients_is_in_detailed_balance():
    p, start, positions, *_ = run(inf.GibbsWithGradients(num_moves=1), ppl.Target(law()), 0)  # `mover` takes one step more
    pvalue, pairs = imbalance(p, start, number(positions))
    assert pairs > 50 and pvalue > ALPHA


@pytest.mark.slow
def test_moves_in_turn_are_not_in_detailed_balance():
    """So the test can tell: a sweep keeps the law, but is not reversible."""
    p, start, positions, *_ = run(inf.DiscreteGibbs(), ppl.Target(law()), 0)
    assert imbalance(p, start, number(positions))[0] < 1e-8


def test_missing_entries_are_drawn_and_known_ones_stay():
    @ppl.model
    def lanes():
        ppl.vmap(lambda y: (z := sample("z", dist.Bernoulli(0.2 * jnp.ones(2))), seen("y", jnp.sum(z), y)))(jnp.arange(3.0))

    target = ppl.Target(lanes() | {"z": np.ma.masked_array([[0, 1], [1, 1], [0, 0]], mask=[[1, 0], [0, 0], [1, 1]])})
    states = np.array(list(itertools.product(range(2), repeat=3)), np.float32)
    p = np.exp(np.asarray(jax.vmap(target.log_density)(jnp.asarray(states)), np.float64))
    p /= p.sum()
    start = np.random.default_rng(0).choice(8, 20_000, p=p)
    positions, moved, _ = mover(inf.DiscreteGibbs(), target, 2)(jnp.asarray(states[start]), jax.random.key(1))
    assert surprise(p, (np.asarray(positions) @ np.array([4, 2, 1])).astype(int)) > ALPHA
    assert float(jnp.mean(moved)) > 0.5


BLOCKS = inf.gibbs({"y": inf.mala(0.7, metric(3)), "x": inf.RandomWalk(1.0, metric(3))})


def moved_by_blocks():
    """Exact draws of the registry's continuous law, moved by two kernels: one has the even coordinates, one the odd, so that
    blocks matter to one another."""
    whole, order = kernels.target(), np.array([0, 2, 4, 1, 3, 5])

    def log_density(choices):
        return whole.log_density(jnp.concatenate([choices["x"], choices["y"]])[np.argsort(order)])

    target = ppl.Target.from_log_density(log_density, {"x": jnp.zeros(3), "y": jnp.zeros(3)})
    starts = jnp.asarray(kernels.exact(20_000)[:, order], jnp.float32)
    positions, moved, info = mover(BLOCKS, target, 10)(starts, jax.random.key(1))
    return positions[:, np.argsort(order)], moved, info


def test_exact_draws_stay_exact_when_moved_block_by_block():
    positions, moved, info = moved_by_blocks()
    assert kernels.surprise(positions) > ALPHA and float(jnp.mean(moved)) > 0.5
    assert info.acceptance_rate_0.shape == info.acceptance_rate_1.shape == info.lp.shape


# -- planted bugs ----------------------------------------------------------------------------------------------------------


def stale_neighbours(site, values, position):
    """Every entry given the others as they were before the sweep."""
    for i in range(len(site.entries)):
        entries = jnp.asarray(site.entries)[i]
        levels = discrete_gibbs.conditional(site, values, STALE[-1], entries)
        drawn = values[jax.random.categorical(jax.random.fold_in(site.key, i), levels, axis=0)]
        position = position.at[entries].set(drawn, mode="drop")
    return position


STALE: list = []


def swept_from_stale(site, values, position):
    STALE.append(position)
    return stale_neighbours(site, values, position)


def drifting(key, step_size, shape):
    return jnp.where(jax.random.bernoulli(key, 0.6, shape), 1.0, -1.0)


def own_way_back(old, new, entry, up):
    """The way there, looked up at the other end: right only where both are the same move."""
    dim = len(old.state.position)
    return new.moves[entry + dim * up] - old.moves[entry + dim * up]


def position_only(state, point, target):
    return state._replace(position=point.position)


BUGS = {
    "stale neighbours": ("DiscreteGibbs", discrete_gibbs, "swept", swept_from_stale),
    "steps that drift": ("IntegerWalk", integer_walk, "integer_step", drifting),
    "way back forgotten": ("GibbsWithGradients", gibbs_with_gradients, "back_and_forth", lambda *_: 0.0),
    "wrong way back": ("GibbsWithGradients", gibbs_with_gradients, "back_and_forth", own_way_back),
}


@pytest.mark.parametrize("bug", all_of(BUGS))
def test_a_planted_bug_is_found(monkeypatch, bug):
    name, module, attribute, wrong = BUGS[bug]
    monkeypatch.setattr(module, attribute, wrong)
    p, start, positions, _, _, inside = run(KERNELS[name](), ppl.Target(law()), 3)
    assert not inside or surprise(p, number(positions)) < 1e-8


def test_stale_densities_of_continuous_blocks_are_found(monkeypatch):
    """Of continuous ones: DiscreteGibbs and IntegerWalk evaluate what they compare, whatever they were handed."""
    monkeypatch.setattr(gibbs, "placed", position_only)
    assert kernels.surprise(moved_by_blocks()[0]) < 1e-8


def test_a_plate_wrongly_taken_as_independent_is_found():
    p, start, positions, *_ = run(inf.DiscreteGibbs(), claim_apart(ppl.Target(law()), 1), 3)
    assert surprise(p, number(positions)) < 1e-8


def test_exact_draws_are_exact():
    p = probabilities(ppl.Target(law()))
    draws = np.random.default_rng(1).choice(len(p), NUM, p=p)
    assert surprise(p, draws) > ALPHA


# -- posteriors known from sums --------------------------------------------------------------------------------------------


def chains(kernel, target, steps, of, num=64, settle=50):
    """Chains from draws of the prior; the mean of `of(position)` over the steps after `settle`, chain by chain."""

    def chain(key):
        key_start, key_init = jax.random.split(key)
        start = target.fill(key_start, jnp.zeros(target.dim))
        state = kernel.init(key_init, target, start)

        def move(state, key):
            state, _ = kernel.step(key, state, target)
            return state, of(state.position)

        keys = jax.random.split(key, settle + steps)
        return jnp.mean(lax.scan(move, state, keys)[1][settle:], axis=0)

    keys = jax.random.split(jax.random.key(7), num)
    return np.asarray(jax.jit(jax.vmap(chain), compiler_options=QUICKLY)(keys), np.float64)


def agree(means, truth):
    """The mean over independent chains (chain, ...) is the truth, within its error, which must be small. Chains' means are
    nearly normal, so this is a t-test."""
    error, errors = means.std(axis=0, ddof=1) / np.sqrt(len(means)), stats.t.isf(ALPHA / 2, len(means) - 1)
    assert np.all(error < 0.02)
    assert np.all(np.abs(means.mean(axis=0) - truth) < errors * error + 1e-6)


def test_a_hidden_markov_model_against_forward_and_backward():
    rows = np.array([[0.8, 0.15, 0.05], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]])
    data, centres = np.array([0.1, 0.9, 0.4, 2.2, 1.5]), np.array([0.0, 1.0, 2.0])

    @ppl.model
    def hidden():
        def step(z, y):
            z = sample("z", dist.Categorical(jnp.asarray(rows)[z]))
            seen("y", jnp.asarray(centres)[z], y)
            return z, None

        ppl.scan(step, jnp.zeros((), int), jnp.asarray(data))

    likelihood = stats.norm.pdf(data[:, None], centres)
    forward, backward = np.zeros((5, 3)), np.ones((5, 3))
    before = np.eye(3)[0]
    for t in range(5):
        before = forward[t] = (before @ rows) * likelihood[t]
    for t in range(3, -1, -1):
        backward[t] = rows @ (likelihood[t + 1] * backward[t + 1])
    truth = forward * backward / (forward * backward).sum(1, keepdims=True)
    target = ppl.Target(hidden())
    assert site(target).apart == 0
    agree(chains(inf.DiscreteGibbs(), target, 600, lambda z: z[:, None] == jnp.arange(3.0)), truth)


def test_an_ising_grid_against_all_its_states():
    @ppl.model
    def ising():
        s = 2.0 * sample("s", dist.Bernoulli(0.5 * jnp.ones((3, 3)))) - 1.0
        ppl.factor("bonds", 0.25 * (jnp.sum(s[1:] * s[:-1]) + jnp.sum(s[:, 1:] * s[:, :-1])) + 0.15 * jnp.sum(s[0]))

    states = 2.0 * np.array(list(itertools.product(range(2), repeat=9))).reshape(-1, 3, 3) - 1.0
    bonds = (states[:, 1:] * states[:, :-1]).sum((1, 2)) + (states[:, :, 1:] * states[:, :, :-1]).sum((1, 2))
    weight = np.exp(0.25 * bonds + 0.15 * states[:, 0].sum(1))
    weight /= weight.sum()
    truth = np.r_[weight @ (states.reshape(-1, 9) > 0), weight @ (bonds > 2)]

    def of(position):
        s = 2.0 * position.reshape(3, 3) - 1.0
        return jnp.append(position, jnp.sum(s[1:] * s[:-1]) + jnp.sum(s[:, 1:] * s[:, :-1]) > 2)

    agree(chains(inf.GibbsWithGradients(), ppl.Target(ising()), 1500, of), truth)


def test_counts_without_end_against_poisson_thinning():
    """Of Poisson(5) things each is seen with probability 0.6: those not seen are Poisson(2)."""

    @ppl.model
    def thinned():
        def lane(y):
            n = sample("n", dist.Poisson(5.0))
            sample("y", dist.Binomial(n, 0.6), obs=y)

        ppl.vmap(lane)(jnp.array([0, 3, 7]))

    target = ppl.Target(thinned())
    assert target.slots[0].apart == 1 and target.slots[0].bounds is None
    seen_of = jnp.array([0.0, 3.0, 7.0])
    truth = stats.poisson.pmf(np.arange(5), 2.0)
    means = chains(inf.IntegerWalk(1.0), target, 1500, lambda n: (n - seen_of)[:, None] == jnp.arange(5.0), settle=150)
    agree(means, truth)


def test_a_mixture_with_its_assignments_against_all_of_them():
    """Six points, three components: 729 assignments, each with a normal marginal likelihood; component means by NUTS."""
    y, centre = np.array([-2.2, -0.4, 0.3, 0.9, 1.7, 2.6]), np.array([-1.5, 0.0, 2.0])

    @ppl.model
    def mixture():
        mu = sample("mu", dist.Normal(jnp.asarray(centre), 0.8))

        def point(y):
            z = sample("z", dist.Categorical(jnp.array([0.5, 0.3, 0.2])))
            seen("y", mu[z], y)

        ppl.vmap(point)(jnp.asarray(y))

    log_w, mean = [], []
    assignments = np.array(list(itertools.product(range(3), repeat=6)))
    for z in assignments:
        of = np.eye(3)[z]
        cov = np.eye(6) + 0.64 * of @ of.T
        log_w.append(stats.multivariate_normal.logpdf(y, of @ centre, cov) + np.log([0.5, 0.3, 0.2])[z].sum())
        mean.append(centre + 0.64 * of.T @ np.linalg.solve(cov, y - of @ centre))
    w = np.exp(np.array(log_w) - max(log_w))
    w /= w.sum()
    kernel = inf.gibbs({"z": inf.DiscreteGibbs(), ...: inf.NUTS()})
    settings = {"key": jax.random.key(0), "warmup": 300, "progress": False, "check": False}
    posterior = inf.mcmc(mixture(), kernel, **settings, chains=16, draws=1500, placement=inf.Vectorized())
    assert np.issubdtype(posterior["z"].dtype, np.integer)
    for component in range(3):
        agree((posterior["z"] == component).mean(1), w @ (assignments == component))
    agree(posterior["mu"].mean(1), w @ np.array(mean))
    assert posterior.stats["acceptance_rate"].mean() > 0.7  # the step size was learned
    assert np.isfinite(posterior.stats["lp"]).all() and posterior.stats["num_evaluations"].max() == 4


@pytest.mark.slow
def test_a_change_point_against_its_exact_sum(tmp_path):
    """Yearly counts whose rate changes once; with gamma rates, the change-point's law is a finite sum. From a given start, in
    a store that is extended."""
    counts = np.array([4, 5, 3, 6, 4, 5, 1, 0, 2, 1, 1, 0])

    @ppl.model
    def disasters():
        change = sample("change", dist.DiscreteUniform(1, 11))
        rates = sample("rates", dist.Gamma(jnp.array([2.0, 2.0]), 1.0))
        rate = jnp.where(jnp.arange(12) < change, rates[0], rates[1])
        sample("counts", dist.Poisson(rate), obs=jnp.asarray(counts))

    def marginal(x):
        """Log of the integral over a Gamma(2, 1) rate, less what is the same for every change."""
        return gammaln(2 + x.sum()) - (2 + x.sum()) * np.log(1 + len(x))

    log_w = np.array([marginal(counts[:c]) + marginal(counts[c:]) for c in range(1, 12)])
    w = np.exp(log_w - log_w.max()) / np.exp(log_w - log_w.max()).sum()
    kernel = inf.gibbs({"change": inf.DiscreteGibbs(), "rates": inf.HMC(3)})
    start = inf.At({"change": 3, "rates": jnp.array([1.0, 2.0])}, jitter=0.3)
    settings = {"key": jax.random.key(0), "chains": 16, "warmup": 200, "init": start, "progress": False, "check": False}
    store = inf.Store(tmp_path / "run")
    first = inf.mcmc(disasters(), kernel, **settings, draws=400, store=store)
    posterior = inf.mcmc(disasters(), kernel, **settings, draws=2000, store=store)
    np.testing.assert_array_equal(first["change"], posterior["change"][:, :400])
    agree(np.stack([(posterior["change"] == c).mean(1) for c in range(1, 12)], axis=1), w)


# -- blocks ----------------------------------------------------------------------------------------------------------------


@ppl.model
def several():
    mu = sample("mu", dist.Normal(0.0, 1.0))
    z = sample("z", dist.Bernoulli(0.5 * jnp.ones(3)))

    def school():
        t = sample("t", dist.Normal(mu, 1.0))
        sample("s", dist.HalfNormal(1.0))
        return t

    sample("school", ppl.model(school)())
    sample("n", dist.Poisson(2.0))
    sample("y", dist.Normal(mu + jnp.sum(z), 1.0), obs=1.0)


def test_a_block_is_the_target_given_the_rest():
    target = ppl.Target(several())
    position = jnp.array([0.3, 1.0, 0.0, 1.0, -0.2, 0.1, 4.0])
    block = Block(target, position, members=(0, 2, 3))
    assert block.dim == 3 and block.names == ("mu", "school.t", "school.s") and not block.is_discrete.any()
    np.testing.assert_array_equal(block.take(position), position[jnp.array([0, 4, 5])])
    part = jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(block.put(part), jnp.array([1.0, 1.0, 0.0, 1.0, 2.0, 3.0, 4.0]))
    assert block.log_density(part) == target.log_density(block.put(part))
    inner = Block(block, part, members=(1,))
    assert inner.names == ("school.t",) and inner.log_density(part[1:2]) == block.log_density(part)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: inf.gibbs({}), r"^gibbs: the dict is empty\. Give each site a kernel, such as gibbs\(\{\.\.\.: NUTS"),
        (lambda: inf.gibbs(inf.NUTS()), r"^gibbs: expected a dict from site names to kernels, got NUTS\.$"),
        (lambda: inf.gibbs({"a": inf.NUTS}), r"^gibbs: expected kernels such as NUTS\(\), got the class NUTS\.$"),
        (lambda: inf.gibbs({3: inf.NUTS()}), r"^gibbs: a block is a site name, a tuple of names, or \.\.\. .*; got \(3,\)\.$"),
        (lambda: inf.gibbs({(): inf.NUTS()}), r"^gibbs: a block is a site name, a tuple of names, or \.\.\. .*; got \(\)\.$"),
        (lambda: inf.gibbs({("a", ...): inf.NUTS()}), r"^gibbs: a block is a site name, .*; got \('a', Ellipsis\)\.$"),
        (lambda: inf.GibbsWithGradients(0), r"^GibbsWithGradients: num_moves must be a whole number of at least 1, got 0\.$"),
    ],
)
def test_what_is_wrong_with_a_kernel_is_said(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


NUTS, ENUMERATE, WALK = inf.NUTS(), inf.DiscreteGibbs(), inf.IntegerWalk()


@pytest.mark.parametrize(
    ("kernel", "sentence"),
    [
        (inf.gibbs({"zz": ENUMERATE, ...: NUTS}), r"^gibbs: no latent site is named 'zz'\. Did you mean 'z'\?$"),
        (inf.gibbs({"y": NUTS, ...: NUTS}), r"^gibbs: no latent site is named 'y'\. Known names: 'mu', 'z', 'school.t', "),
        (
            inf.gibbs({"school": NUTS, ("school.s", "mu"): NUTS, ...: WALK}),
            r"^gibbs: site 'school.s' is in two blocks, 'school' and 'school.s' and 'mu'\. Each site belongs to one; use",
        ),
        (inf.gibbs({"z": ENUMERATE, "n": WALK, "mu": NUTS}), r"^gibbs: sites 'school.t' and 'school.s' are in no block\. Add"),
        (
            inf.gibbs({("mu", "z", "school", "n"): NUTS, ...: NUTS}),
            r"^gibbs: \.\.\. stands for all other sites, but every site is in another block\. Leave it out\.$",
        ),
        (inf.gibbs({"n": WALK, ...: NUTS}), r"^site 'z' is discrete \(Bernoulli\), and NUTS moves continuous sites only\."),
        (
            inf.gibbs({"z": ENUMERATE, "n": WALK, ("school", "mu"): ENUMERATE}),
            r"^site 'mu' is continuous \(Normal\), and DiscreteGibbs moves discrete sites only\. Give each kernel its own",
        ),
        (inf.gibbs({("z", "n"): ENUMERATE, ...: NUTS}), r"^site 'n' can take infinitely many values, .* Use IntegerWalk\(\)"),
        (inf.cycle(WALK, NUTS), r"^site 'mu' is continuous \(Normal\), and IntegerWalk moves discrete sites only\."),
        (inf.GibbsWithGradients(), r"^site 'mu' is continuous \(Normal\), and GibbsWithGradients moves discrete sites only\."),
    ],
)
def test_what_is_wrong_with_the_blocks_is_said(kernel, sentence):
    with pytest.raises(ValueError, match=sentence):
        inf.mcmc(several(), kernel, key=jax.random.key(0))


def test_what_has_no_formula_between_whole_numbers_is_said():
    @ppl.model
    def indexed():
        z = sample("z", dist.Bernoulli(0.5))
        seen("y", jnp.array([0.0, 1.0])[z], 1.0)

    for program in (indexed(), ppl.model(lambda: sample("z", dist.Categorical(jnp.ones(3) / 3)))()):
        with pytest.raises(ValueError, match=r"^GibbsWithGradients differentiates .* cannot run so at 'z': .*DiscreteGibbs"):
            inf.mcmc(program, inf.GibbsWithGradients(), key=jax.random.key(0))


def test_a_step_without_a_size_is_refused():
    target = ppl.Target(law())
    with pytest.raises(ValueError, match=r"^IntegerWalk: the step size must be known to take a step; see inf"):
        WALK.step(jax.random.key(0), WALK.init(jax.random.key(0), target, jnp.zeros(5)), target)


def test_continuous_blocks_by_name_keep_their_own_metric():
    """A block's kernel sees the block's dimension alone."""
    target = ppl.Target.from_log_density(lambda c: -0.5 * jnp.sum(c["a"] ** 2) - c["b"] ** 4, {"a": jnp.zeros(2), "b": 0.0})
    kernel = inf.gibbs({"b": inf.RandomWalk(1.0, metric(1)), "a": inf.mala(1.0, metric(2))})
    state = kernel.init(jax.random.key(0), target, jnp.ones(3))
    state, info = kernel.step(jax.random.key(1), state, target)
    np.testing.assert_allclose(info.lp, target.log_density(state.position), rtol=1e-6)
    assert state.states[0].position.shape == (1,) and state.states[1].gradient.shape == (2,)
