"""The laws of the language, as functions of a case that raise AssertionError. `test_planted_bugs.py` shows each can fail.

What needs a compiled function compiles one: a law costs about one small compilation, whatever the model.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl.choices import flatten, nest
from ppl.interpreters import Assess, Simulate

KEYS = 4


class Run(NamedTuple):
    """A program and a few of its simulations, shared by the laws."""

    program: ppl.Program
    oracle: Any
    keys: Any
    traces: ppl.Trace  # KEYS of them, stacked
    returned: Any  # what the model function returned while it was simulated

    def choices(self, i: int) -> dict[str, Any]:
        return jax.tree.map(lambda x: x[i], self.traces.choices)


def simulate(case: Any) -> Run:
    """Simulate under jit and vmap, once for all laws."""
    made = case.make()
    program = made if isinstance(made, ppl.Program) else made()
    keys = jax.random.split(jax.random.key(20), KEYS)

    def one(program: ppl.Program, key: jax.Array) -> Any:
        interpreter, returned = program.interpret(Simulate, key)
        density = interpreter.total("log_prior", "log_likelihood")
        return ppl.Trace(interpreter.record.trees.get("choices", {}), density), returned

    traces, returned = jax.jit(jax.vmap(one, (None, 0)))(program, keys)
    return Run(program, case.oracle, keys, traces, returned)


def near(a: Any, b: Any, rounding: float = 1.0) -> None:
    """Equal trees up to rounding of the precision in force (`rounding` widens it)."""
    eps = float(jnp.finfo(jnp.result_type(float)).eps)

    def leaf(x: Any, y: Any) -> None:
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=rounding * 1e3 * eps, atol=rounding * 1e3 * eps)

    assert jax.tree.structure(a) == jax.tree.structure(b), (a, b)
    jax.tree.map(leaf, a, b)


def observed_total(program: ppl.Program, choices: dict[str, Any]) -> Any:
    """The log likelihood as the sum of its pointwise parts."""
    return sum((jnp.sum(x) for x in program.log_likelihoods(choices).values()), jnp.zeros(()))


# -- densities -------------------------------------------------------------------------------------------------------------


def density_is_the_oracles(run: Run) -> None:
    """log_density and the trace's density are scalars, and the number written by hand, at every simulated trace."""
    log_p = jax.jit(jax.vmap(run.program.log_density))(run.traces.choices)
    assert log_p.shape == run.traces.log_density.shape == (KEYS,)
    near(log_p, run.traces.log_density)
    for i in range(KEYS):
        choices = jax.tree.map(np.asarray, run.choices(i))
        want = run.oracle(jax.tree.map(lambda x: x.astype(float) if x.dtype.kind == "f" else x, choices))
        np.testing.assert_allclose(run.traces.log_density[i], want, rtol=2e-4 if log_p.dtype == jnp.float32 else 1e-10)


def runs_agree(run: Run) -> None:
    """One run outside jit and vmap: the same choices from the same key, the same density, the same return value."""
    trace = run.program.simulate(run.keys[1])
    near(trace.choices, run.choices(1), 10)
    near(trace.log_density, run.traces.log_density[1], 10)
    assert trace.log_density.shape == ()
    assert trace.log_density.dtype == jnp.result_type(float)
    near(trace.retval, jax.tree.map(lambda x: x[1], run.returned), 10)


def table_is_the_traces(run: Run) -> None:
    """sites() lists just the choices of a trace as latent, with their shapes and dtypes."""
    latent = {address: row for address, row in run.program.sites().items() if row.kind == "latent"}
    found = flatten(run.choices(0))
    assert latent.keys() == found.keys()
    for address, row in latent.items():
        assert row.shape == found[address].shape, address
        assert jnp.issubdtype(row.dtype, jnp.floating) == jnp.issubdtype(found[address].dtype, jnp.floating), address


# -- conditioning ----------------------------------------------------------------------------------------------------------


def conditioning_is_fixing(run: Run) -> None:
    """(p | d).log_density(rest) == p.log_density(rest and d), for the later half of the sites as data."""
    choices = flatten(run.choices(2))
    rows = run.program.sites()
    latent = [a for a in choices if not rows[a].partial]
    given = {a: choices[a] for a in latent[len(latent) // 2 :]}
    rest = nest({a: x for a, x in choices.items() if a not in given})
    conditioned = run.program | given
    near(conditioned.log_density(rest), run.program.log_density(nest(choices)), 10)
    near(conditioned.without(*given).log_density(nest(choices)), run.program.log_density(nest(choices)), 10)
    prior = conditioned.interpret(Assess, given=conditioned.complete(rest))[0].total("log_prior")
    near(prior + observed_total(conditioned, rest), conditioned.log_density(rest), 10)


def generate_brackets(run: Run) -> None:
    """generate with everything given weighs the density; with nothing given it simulates, and weighs the likelihood."""
    trace, weight = run.program.generate(run.keys[0], run.choices(3))
    near(trace.choices, run.choices(3), 10)
    near(weight, run.traces.log_density[3], 10)
    trace, weight = run.program.generate(run.keys[0], {})
    near(trace.choices, run.choices(0), 10)
    near(weight, observed_total(run.program, run.choices(0)), 10)
    assert weight.shape == ()


def generate_is_unbiased(program: ppl.Program, data: dict[str, Any], draws: int = 4000) -> None:
    """The mean weight of generate is the exact marginal, summed over every value of the discrete latent sites.

    Two-sided at 4.5 standard errors: false alarms 7 in a million for a fresh key; the key is fixed.
    """
    conditioned = program | data
    rows = conditioned.sites()
    latent = [(a, row) for a, row in rows.items() if row.kind == "latent"]
    sizes = [int(np.prod(row.shape)) for _, row in latent]
    levels = [range(_levels(row)) for _, row in latent]
    grid = itertools.product(*(itertools.product(v, repeat=n) for v, n in zip(levels, sizes, strict=True)))
    points = [np.concatenate([np.asarray(x).ravel() for x in point]) for point in grid]

    def at(flat: Any) -> Any:
        out, start = {}, 0
        for (address, row), n in zip(latent, sizes, strict=True):
            out[address] = flat[start : start + n].reshape(row.shape)
            start += n
        return conditioned.log_density(nest(out))

    exact = jax.scipy.special.logsumexp(jax.jit(jax.vmap(at))(jnp.array(points)))
    keys = jax.random.split(jax.random.key(7), draws)
    weights = jnp.exp(jax.jit(jax.vmap(lambda key: program.generate(key, data)[1]))(keys) - exact)
    error = jnp.std(weights) / jnp.sqrt(draws)
    assert abs(float(weights.mean()) - 1.0) < 4.5 * float(error), (float(weights.mean()), float(error), float(exact))


def _levels(row: Any) -> int:
    """How many values a discrete site takes: two for a Bernoulli, the categories of a Categorical."""
    bound = getattr(row.support, "upper_bound", 1)
    return int(bound) + 1


# -- the unconstrained target ----------------------------------------------------------------------------------------------


def continuous(run: Run) -> ppl.Target:
    """The target of the program with its discrete sites set to simulated values."""
    rows = run.program.sites()
    discrete = {a: x for a, x in flatten(run.choices(0)).items() if rows[a].discrete}
    return ppl.Target(run.program | discrete)


def change_of_variables(run: Run) -> None:
    """Target density = program density + log |det J| by autodiff; unconstrain inverts constrain; the parts add up."""
    target = continuous(run)
    u = 0.5 * jax.random.normal(jax.random.key(3), (target.dim,))

    @jax.jit
    def everything(u: Any) -> Any:
        jacobian = jax.jacfwd(lambda u: minimal(target, target.constrain(u)))(u)
        choices = target.constrain(u)
        parts = target.log_prior_and_likelihood(u)
        return (
            target.log_density(u),
            target.program.log_density(choices) + jnp.linalg.slogdet(jacobian)[1],
            parts[0] + parts[1],
            (parts[1], observed_total(target.program, choices)),
            target.unconstrain(choices),
        )

    density, by_hand, both, (likelihood, pointwise), back = everything(u)
    assert density.shape == () and len(target.names) == target.dim
    near(density, by_hand, 100)
    near(density, both, 10)
    near(likelihood, pointwise, 10)
    near(back, u, 100)


def minimal(target: ppl.Target, choices: dict[str, Any]) -> Any:
    """The latent entries of choices as coordinates that are as many as the target's dimensions."""
    rows, flat = target.program.sites(), flatten(choices)
    parts = []
    for slot in target.slots:
        row, value = rows[".".join(slot.path)], flat[".".join(slot.path)]
        if row.support_name == "simplex":
            value = value[..., :-1]
        elif row.support_name == "corr cholesky":
            i, j = np.tril_indices(value.shape[-1], -1)
            value = value[..., i, j]
        value = value.ravel()
        parts.append(value if slot.missing is None else value[np.array(slot.missing)])
    return jnp.concatenate(parts)


def gradients_are_right(run: Run) -> None:
    """The gradient is finite and is the central difference along two directions."""
    target = continuous(run)
    u = 0.5 * jax.random.normal(jax.random.key(3), (target.dim,))
    value_and_grad = jax.jit(jax.value_and_grad(target.log_density))
    gradient = value_and_grad(u)[1]
    assert bool(jnp.all(jnp.isfinite(gradient)))
    for seed in (1, 2):
        v = jax.random.normal(jax.random.key(seed), (target.dim,))
        h = 1e-5
        slope = (value_and_grad(u + h * v)[0] - value_and_grad(u - h * v)[0]) / (2 * h)
        np.testing.assert_allclose(float(gradient @ v), float(slope), rtol=1e-5, atol=1e-5)
