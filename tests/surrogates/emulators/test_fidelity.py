"""Fidelity: against the joint Gaussian process of both levels, and what it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from surrogates.emulators.charts import Given
from surrogates.emulators.fidelity import Autoregressive, rho
from surrogates.emulators.gaussian_process import GaussianProcess
from surrogates.emulators.runs import Runs

KEY = jax.random.key(0)
PLAIN = GaussianProcess(charts=Given())
COARSE, FINE = np.linspace(0.0, 1.0, 11), np.linspace(0.0, 1.0, 11)[::2]


def high(x):
    """The pair of Forrester, Sobester and Keane (2007): the costly level, and half of it with a slope."""
    return (6.0 * x - 2.0) ** 2 * np.sin(12.0 * x - 4.0)


def low(x):
    return 0.5 * high(x) + 10.0 * (x - 0.5) - 5.0


def levels():
    coarse = PLAIN.fit(KEY, Runs.of(COARSE[:, None], low(COARSE)))
    return coarse, Autoregressive(coarse, PLAIN).fit(KEY, Runs.of(FINE[:, None], high(FINE)))


def test_it_is_the_joint_process_of_both_levels(x64):
    coarse, fine = levels()
    lower, upper = ((e.solved, float(e.basis.vectors[0]), float(e.basis.center)) for e in (coarse, fine))

    def kernel(part, x, y):
        """The covariance in outputs, nugget apart; inputs from 0 to 1 are their own coordinates."""
        solved, size, _ = part
        shares = float(solved.variance[0] * (1.0 - solved.share[0]))
        return size**2 * shares * np.exp(-0.5 * (x[:, None] - y) ** 2 / float(solved.scales[0, 0]) ** 2)

    # component = (y - center) / size of its own level's runs; the regressor is the low output in those of the high level
    ratio = float(rho(fine)[0])
    start = lower[2] + lower[1] * float(coarse.solved.beta[0, 0])
    offset = upper[2] + upper[1] * float(fine.solved.beta[0, 0]) - ratio * upper[2]
    at = np.linspace(0.05, 0.95, 7)
    both = np.block([
        [kernel(lower, COARSE, COARSE), ratio * kernel(lower, COARSE, FINE)],
        [ratio * kernel(lower, FINE, COARSE), ratio**2 * kernel(lower, FINE, FINE) + kernel(upper, FINE, FINE)],
    ])  # fmt: skip
    nuggets = [float(s.variance[0] * s.share[0]) * size**2 for s, size, _ in (lower, upper)]
    both += np.diag(np.repeat(nuggets, [11, 6]))
    cross = np.concatenate([ratio * kernel(lower, COARSE, at), ratio**2 * kernel(lower, FINE, at) + kernel(upper, FINE, at)])
    data = np.concatenate([low(COARSE) - start, high(FINE) - (ratio * start + offset)])
    exact = ratio * start + offset + cross.T @ np.linalg.solve(both, data)
    found = jax.vmap(fine)(jnp.asarray(at))
    np.testing.assert_allclose(found, exact, atol=1e-2)  # of 15: the low level's nugget, 1e-10, is no zero
    assert abs(ratio - 2.0) < 0.01


def test_few_costly_runs_do_with_many_cheap_ones():
    _, fine = levels()
    alone = PLAIN.fit(KEY, Runs.of(FINE[:, None], high(FINE)))
    x = np.linspace(0.0, 1.0, 41)
    errors = [float(jnp.sqrt(jnp.mean((jax.vmap(e)(jnp.asarray(x)) - high(x)) ** 2))) for e in (fine, alone)]
    assert errors[0] < 0.2 * errors[1] and errors[0] < 0.5, errors
    assert fine.left_out.nats > alone.left_out.nats + 0.5
    assert fine.predict(0.33).variance < alone.predict(0.33).variance


def test_the_error_of_the_cheap_level_counts():
    """Between its runs the costly level is no surer than rho times the cheap one; with more cheap runs it is surer."""
    some = PLAIN.fit(KEY, Runs.of(COARSE[::2, None], low(COARSE[::2])))
    fine = Autoregressive(some, PLAIN).fit(KEY, Runs.of(FINE[:, None], high(FINE)))
    assert fine.predict(0.85).variance >= rho(fine)[0] ** 2 * some.predict(0.85).variance
    assert fine.predict(0.85).variance > 4.0 * levels()[1].predict(0.85).variance


def test_levels_of_other_shapes():
    coarse, _ = levels()
    with pytest.raises(ValueError, match=r"cheap level returns the shape \(\), the costly one \(2,\)"):
        Autoregressive(coarse).fit(KEY, Runs.of(FINE[:, None], np.ones((6, 2))))
