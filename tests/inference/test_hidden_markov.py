"""Hidden Markov models against the sum over all paths, in NumPy's double precision."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference import exact
from inference.exact import hidden_markov
from ppl import dist

# Earthquakes of magnitude 7 or more, 1900-2006 (USGS): Zucchini, MacDonald and Langrock, "Hidden Markov Models for Time
# Series", 2016, table 1.1.
QUAKES = """13 14 8 10 16 26 32 27 18 32 36 24 22 23 22 18 25 21 21 14 8 11 14 23 18 17 19 20 22 19 13 26 13 14 22 24 21 22 26
21 23 24 27 41 31 27 35 26 28 36 39 21 17 22 17 19 15 34 10 15 22 18 15 20 15 22 19 16 30 27 29 23 20 16 21 21 25 16 18 15 18
14 10 15 8 15 6 11 8 7 18 16 13 12 13 20 15 16 12 18 15 16 13 15 16 11 11"""
QUAKES = np.array(QUAKES.split(), int)
MOVES = np.array([[0.9340, 0.0660], [0.1285, 0.8715]])


def probabilities(rng, *shape):
    return rng.dirichlet(np.ones(shape[-1]), shape[:-1])


def emissions(rng, num, size):
    return np.log(rng.uniform(0.05, 1.0, (num, size)))


def plain():
    rng = np.random.default_rng(0)
    return probabilities(rng, 1, 3)[0], probabilities(rng, 3, 3), emissions(rng, 5, 3)


def changing():
    """Moves that change with time, some of them impossible, a missing row, and a state that cannot emit what is seen."""
    rng = np.random.default_rng(1)
    start, moves, table = np.array([0.3, 0.0, 0.7]), probabilities(rng, 5, 3, 3), emissions(rng, 6, 3)
    moves[1] = [[0, 1, 0], [0.5, 0, 0.5], [0.2, 0.8, 0]]
    table[2], table[4, 0] = 0.0, -np.inf
    return start, moves, table


CASES = {"plain": plain, "changing": changing, "one time": lambda: (np.array([0.2, 0.8]), np.eye(2), np.log([[0.5, 0.1]]))}
cases = pytest.mark.parametrize("case", CASES)
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}


def by_paths(start, moves, table):
    """All there is to know, path by path."""
    num, size = table.shape
    moves = np.broadcast_to(moves, (num - 1, size, size))
    paths = np.array(list(itertools.product(range(size), repeat=num)))
    with np.errstate(divide="ignore"):
        log_p = np.log(start)[paths[:, 0]] + sum(np.log(moves[t])[paths[:, t], paths[:, t + 1]] for t in range(num - 1))
    upto = np.cumsum(table[np.arange(num), paths], axis=1)  # log p(y[:t + 1] | path)
    one = np.eye(size)[paths]  # (path, time, state)
    prefix = np.exp(log_p[:, None] + upto)  # summed over what comes later, which integrates to one
    weights = prefix[:, -1] / prefix[:, -1].sum()
    evidence = np.log(prefix.sum(0))
    return SimpleNamespace(
        log_evidence=evidence[-1],
        log_increments=np.diff(evidence, prepend=0.0),
        filtered=np.einsum("pt,ptk->tk", prefix / prefix.sum(0), one),
        smoothed=np.einsum("p,ptk->tk", weights, one),
        pairwise=np.einsum("p,pti,ptj->tij", weights, one[:, :-1], one[:, 1:]),
        best=paths[np.argmax(weights)],
        best_log_density=np.log(prefix[:, -1].max()),
        paths=paths,
        weights=weights,
    )


def check(case, tolerance):
    model = CASES[case]()
    truth, found = by_paths(*model), exact.forward_backward(*model)
    for name, value in found._asdict().items():
        np.testing.assert_allclose(value, getattr(truth, name), rtol=tolerance, atol=tolerance, err_msg=name)


@cases
def test_forward_backward_against_all_paths(case, precision):
    check(case, TOLERANCE[precision])


@cases
def test_the_best_path_against_all_paths(case, precision):
    check_best(case, TOLERANCE[precision])


def check_best(case, tolerance):
    model = CASES[case]()
    truth, found = by_paths(*model), exact.viterbi(*model)
    assert np.array_equal(found.path, truth.best)
    np.testing.assert_allclose(found.log_density, truth.best_log_density, rtol=10 * tolerance)


@pytest.mark.parametrize("case", ["plain", "changing"])
def test_paths_drawn_against_all_paths(case):
    """Frequencies of some 250 paths among 40,000: 5 standard errors, and none that is impossible."""
    check_paths(case)


def check_paths(case):
    model, size = CASES[case](), 40_000
    truth = by_paths(*model)
    keys = jax.random.split(jax.random.key(0), size)
    drawn = np.asarray(jax.vmap(lambda key: exact.sample_hidden_path(key, *model))(keys))
    base = model[2].shape[1] ** np.arange(drawn.shape[1])[::-1]
    shares = np.bincount(drawn @ base, minlength=len(truth.paths)) / size
    assert np.all(shares[truth.weights == 0] == 0)
    assert np.all(np.abs(shares - truth.weights) < 5 * np.sqrt(truth.weights / size) + 5 / size)


def test_earthquakes(precision):
    """Two states, rounded maximum-likelihood values; the numbers were computed apart, in double precision."""
    table = dist.Poisson(jnp.array([15.472, 26.125])).log_prob(QUAKES[:, None])
    start = np.array([0.1285, 0.0660]) / (0.1285 + 0.0660)  # stationary
    digits = 1e-5 if precision == "float64" else 2e-3
    assert float(exact.forward_backward(start, MOVES, table).log_evidence) == pytest.approx(-342.318268, abs=digits)
    even = exact.forward_backward(np.array([0.5, 0.5]), MOVES, table)
    assert float(even.log_evidence) == pytest.approx(-342.595433, abs=digits)
    np.testing.assert_allclose(jnp.sum(even.pairwise, 2), even.smoothed[:-1], atol=1e-5)


def test_gradients_are_posterior_means(x64):
    """Fisher's identity: d log p(y) / d log emission is the smoothed probability, / d transition the pairwise one over it."""
    start, moves, table = map(jnp.asarray, changing())
    found = exact.forward_backward(start, moves, table)
    slopes = jax.grad(lambda *model: exact.forward_backward(*model).log_evidence, (0, 1, 2))(start, moves, table)
    np.testing.assert_allclose(slopes[2], found.smoothed, atol=1e-12)
    np.testing.assert_allclose(slopes[1] * moves, found.pairwise, atol=1e-12)
    np.testing.assert_allclose(slopes[0] * start, found.smoothed[0], atol=1e-12)
    along = jax.jacobian(lambda table: exact.forward_backward(start, moves, table).smoothed)(table)
    assert bool(jnp.all(jnp.isfinite(along)))


def test_models_side_by_side():
    rates = jnp.array([[15.472, 26.125], [10.0, 20.0]])

    def evidence(rates):
        table = dist.Poisson(rates).log_prob(QUAKES[:, None])
        return exact.forward_backward(jnp.array([0.5, 0.5]), MOVES, table).log_evidence

    np.testing.assert_allclose(jax.jit(jax.vmap(evidence))(rates), [evidence(r) for r in rates], rtol=1e-6)


def test_long_series_lose_no_digits():
    """100,000 observations in single precision: the sum of the increments is right to 1e-6 of itself, no path is lost."""
    rng = np.random.default_rng(0)
    table = rng.normal(-100.0, 3.0, (100_000, 2)).astype(np.float32)
    found = exact.forward_backward(np.array([0.5, 0.5]), MOVES, table)
    level, alpha = 0.0, np.log([0.5, 0.5])
    for row in table.astype(float):
        alpha = alpha + row
        top = alpha.max() + np.log(np.sum(np.exp(alpha - alpha.max())))
        level, alpha = level + top, np.log(np.exp(alpha - top) @ MOVES)
    np.testing.assert_allclose(found.log_evidence, level, rtol=1e-6)
    np.testing.assert_allclose(jnp.sum(found.smoothed, 1), 1.0, atol=1e-3)


def test_impossible_data_have_no_evidence():
    start, moves, table = plain()
    table[3] = -np.inf
    found = exact.forward_backward(start, moves, table)
    assert found.log_evidence == -np.inf and np.all(found.smoothed == 0)
    assert exact.viterbi(start, moves, table).log_density == -np.inf
    table[3] = np.nan
    assert np.isnan(exact.forward_backward(start, moves, table).log_evidence)


# -- planted bugs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def planted(monkeypatch):
    """Replace a name in the module for one test, with nothing compiled kept from before or for later."""
    jax.clear_caches()
    yield lambda name, value: monkeypatch.setattr(hidden_markov, name, value)
    monkeypatch.undo()
    jax.clear_caches()


def test_moves_from_column_to_row_would_be_seen(planted):
    planted("_at", lambda moves, t: (moves[t] if moves.ndim == 3 else moves).T)
    for broken in (check, check_best):
        with pytest.raises(AssertionError):
            broken("changing", 1e-3)
    with pytest.raises(AssertionError):
        check_paths("plain")


def test_moves_a_step_late_would_be_seen(planted):
    planted("_steps", lambda rows: jnp.arange(len(rows) - 1) + 1)
    for broken in (check, check_best):
        with pytest.raises(AssertionError):
            broken("changing", 1e-3)
    with pytest.raises(AssertionError):
        check_paths("changing")


# -- wrong use -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [exact.forward_backward, exact.viterbi, lambda *x: exact.sample_hidden_path(jax.random.key(0), *x)]
)
def test_sentences(answer):
    start, moves, table = plain()
    with pytest.raises(ValueError, match=r"log emissions must have shape \(T, K\).*they have shape \(3,\)"):
        answer(start, moves, table[0])
    with pytest.raises(ValueError, match=r"initial probabilities must have shape \(3,\), as the emissions have, not \(2,\)"):
        answer(start[:2], moves, table)
    with pytest.raises(ValueError, match=r"\(3, 3\), or \(4, 3, 3\) where they change with time.*They have \(5, 3, 3\)"):
        answer(start, np.stack([moves] * 5), table)
    with pytest.raises(ValueError, match="the rows of the transition must be probabilities that sum to one.*one sum is"):
        answer(start, moves.T, table)
    with pytest.raises(
        ValueError, match="the initial probabilities must be probabilities that sum to one: the least of them is -0.5"
    ):
        answer(np.array([1.0, -0.5, 0.5]), moves, table)
