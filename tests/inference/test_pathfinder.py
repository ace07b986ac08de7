"""Pathfinder: its inverse Hessian is exact algebra, and its draws of a normal are draws of that normal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from inference.mcmc.lbfgs import Pairs, inverse, remember

DIM, HISTORY = 4, 6


def normal_target(precision, mean):
    return ppl.Target.from_log_density(
        lambda c: -0.5 * (c["x"] - mean) @ precision @ (c["x"] - mean), {"x": jnp.zeros(len(mean))}
    )


def test_the_inverse_hessian_is_one_matrix_in_three_forms(x64):
    """What it maps vectors to, what is drawn from, and its determinant; with no pairs, some, and more than it remembers."""
    draws = jax.random.normal(jax.random.key(0), (DIM, DIM))
    precision = draws @ draws.T + jnp.eye(DIM)
    pairs = Pairs(jnp.zeros((HISTORY, DIM)), jnp.zeros((HISTORY, DIM)), jnp.ones(DIM))
    np.testing.assert_allclose(inverse(pairs) @ jnp.arange(4.0), jnp.arange(4.0))
    for step in jax.random.normal(jax.random.key(1), (HISTORY + 2, DIM)):
        pairs = remember(pairs, step, precision @ step)
        h = inverse(pairs)
        matrix, factor = (jax.vmap(lambda v, f=f: f @ v)(jnp.eye(DIM)).T for f in (h, h.factor()))
        np.testing.assert_allclose(h @ (precision @ step), step, rtol=1e-8)  # the secant equation
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-9)
        np.testing.assert_allclose(factor @ factor.T, matrix, atol=1e-9)
        np.testing.assert_allclose(h.factor().log_determinant(), jnp.linalg.slogdet(matrix)[1], rtol=1e-9)
        np.testing.assert_allclose(matrix, updated(pairs), atol=1e-9)


def updated(pairs):
    """The matrix by its definition: the diagonal, changed by one pair after the other."""
    matrix = jnp.diag(pairs.diagonal)
    for step, fall in zip(pairs.steps, pairs.falls, strict=True):
        if jnp.any(step != 0):
            turn = jnp.eye(DIM) - jnp.outer(fall, step) / (fall @ step)
            matrix = turn.T @ matrix @ turn + jnp.outer(step, step) / (fall @ step)
    return matrix


def test_draws_of_a_normal_are_near_it_and_not_at_its_mode(x64):
    """200 first positions: their distances from the mode are those of draws, within a factor; the start's are not."""
    precision, mean = jnp.diag(jnp.array([1e4, 1.0, 4.0, 0.01])), jnp.array([3.0, -50.0, 7.0, 20.0])
    target = normal_target(precision, mean)
    place = jax.jit(jax.vmap(lambda key: inf.Pathfinder(paths=1).position(key, target)))
    found = place(jax.random.split(jax.random.key(0), 200)) - mean
    distances = jnp.einsum("ni,ij,nj->n", found, precision, found)
    assert 0.25 * DIM < np.median(distances) < 2 * DIM  # of 4 degrees of freedom the median is 3.4


def test_the_deeper_of_two_modes_is_found(x64):
    """Two normals, ten and none nats deep: of eight paths the best is taken, so chains begin in the deeper one."""

    def log_density(c):
        return jnp.logaddexp(10.0 - 0.5 * jnp.sum((c["x"] - 8.0) ** 2), -0.5 * jnp.sum((c["x"] + 8.0) ** 2))

    target = ppl.Target.from_log_density(log_density, {"x": jnp.zeros(1)})

    def deeper(paths):
        init = inf.Pathfinder(paths=paths, start=inf.Uniform(radius=10.0))
        return np.asarray(
            jax.jit(jax.vmap(lambda key: init.position(key, target)))(jax.random.split(jax.random.key(0), 50)) > 0
        )

    # 0.48 of the starts lie in the other mode's basin: all of 8 in 0.3 % of chains; more than 3 of 50 such in 1e-5 of keys
    assert deeper(8).mean() >= 0.94 and deeper(1).mean() < 0.8


def test_a_wall_of_no_density_is_not_passed(x64):
    """Half of space is not finite: the climb steps back from it, and a start beyond it is given up."""
    target = ppl.Target.from_log_density(
        lambda c: jnp.where(jnp.all(c["x"] < 0.5), -0.5 * jnp.sum(c["x"] ** 2), jnp.nan), {"x": jnp.zeros(2)}
    )
    keys = jax.random.split(jax.random.key(0), 20)
    found = jax.jit(jax.vmap(lambda key: inf.Pathfinder().position(key, target)))(keys)
    assert jnp.all(jnp.isfinite(found))


def test_chains_begin_there():
    target = normal_target(jnp.eye(2), jnp.array([30.0, -30.0]))
    posterior = inf.mcmc(
        target, inf.NUTS(step_size=0.5, metric=inf.metrics.Diagonal(jnp.ones(2))), key=jax.random.key(0), warmup=0, draws=5,
        init=inf.Pathfinder(), progress=False, check=False,
    )  # fmt: skip
    assert np.abs(posterior["x"] - np.array([30.0, -30.0])).max() < 6


def test_no_paths_are_refused():
    with pytest.raises(ValueError, match="Pathfinder: paths must be at least 1, got 0"):
        inf.Pathfinder(paths=0)
