"""Every combinator nests in every other: pairs, and (slow) a Latin square of triples, against densities in plain Python.

A wrapper is a pair: how the language repeats or chooses a body, and what that means for one run, written as a plain loop
over NumPy values. The innermost body is one site, `z ~ Normal(x, 1)`.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import ppl
from ppl import dist, sample


class Wrapper(NamedTuple):
    """`language(body)` is a function of x with sites; `meaning(body)` of (x, choices) gives (value, log density)."""

    language: Callable
    meaning: Callable


def at(choices: Any, i: int) -> Any:
    return jax.tree.map(lambda a: a[i], choices)


def over_vmap(body):
    def run(x, choices):
        parts = [body(x + i, at(choices, i)) for i in range(3)]
        return sum(v for v, _ in parts), sum(p for _, p in parts)

    return run


def over_scan(body):
    def run(x, choices):
        total = 0.0
        for t in range(2):
            value, log_p = body(x, at(choices, t))
            x, total = 0.5 * value, total + log_p
        return x, total

    return run


def over_fori(body):
    def run(x, choices):
        total = 0.0
        for t in range(2):
            value, log_p = body(x + (t + 1), at(choices, t))
            x, total = 0.5 * value, total + log_p
        return x, total

    return run


def fori(body):
    return lambda x: ppl.fori_loop(1, 3, lambda i, c: 0.5 * body(c + i), x)


def third(x) -> Any:
    return jnp.clip(jnp.floor(jnp.abs(x)), 0, 2).astype(int)


WRAPPERS = {
    "vmap": Wrapper(lambda body: lambda x: ppl.vmap(body)(x + jnp.arange(3.0)).sum(), over_vmap),
    "scan": Wrapper(
        lambda body: lambda x: ppl.scan(lambda c, _: (0.5 * body(c), None), x, length=2)[0],
        over_scan,
    ),
    "fori_loop": Wrapper(fori, over_fori),
    "cond": Wrapper(
        lambda body: lambda x: ppl.cond(x > 0.3, body, lambda x: body(x - 1.0), x),
        lambda body: lambda x, z: body(x, z) if x > 0.3 else body(x - 1.0, z),
    ),
    "switch": Wrapper(
        lambda body: lambda x: ppl.switch(third(x), [body, lambda x: body(x + 1.0), lambda x: 2.0 * body(x)], x),
        lambda body: lambda x, z: [body(x, z), body(x + 1.0, z), tuple(np.array([2.0, 1.0]) * body(x, z))][int(third(x))],
    ),
    "remat": Wrapper(ppl.remat, lambda body: body),
    "program": Wrapper(
        lambda body: lambda x: sample("inner", ppl.model(body)(x)),
        lambda body: lambda x, choices: body(x, choices["inner"]),
    ),
}


def site(x):
    return sample("z", dist.Normal(x, 1.0))


def site_meaning(x, choices):
    return float(choices["z"]), norm.logpdf(choices["z"], x, 1.0)


def nest(names: tuple[str, ...]) -> tuple[ppl.Program, Callable]:
    """The program with these wrappers, outermost first, and what it means."""
    body, meaning = site, site_meaning
    for name in reversed(names):
        body, meaning = WRAPPERS[name].language(body), WRAPPERS[name].meaning(meaning)
    return ppl.model(body)(0.7), meaning


def check(names: tuple[str, ...]) -> None:
    program, meaning = nest(names)

    @jax.jit
    def ask(program, key):
        trace = program.simulate(key)
        again, weight = program.generate(key, trace.choices)
        target = ppl.Target(program)
        position = target.unconstrain(trace.choices)
        value, gradient = jax.value_and_grad(target.log_density)(position)
        assessed = program.log_density(trace.choices)
        return trace, program.retval(trace.choices), [assessed, again.log_density, weight, value], gradient

    trace, retval, densities, gradient = ask(program, jax.random.key(len(names)))
    choices = jax.tree.map(np.asarray, trace.choices)
    value, log_p = meaning(0.7, choices)
    np.testing.assert_allclose(retval, value, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose([trace.log_density, *densities], log_p, rtol=1e-5, atol=1e-4)
    assert np.isfinite(gradient).all() and np.any(gradient)


@pytest.mark.parametrize("names", list(itertools.product(WRAPPERS, repeat=2)), ids="-".join)
def test_pairs(names):
    check(names)


# a Latin square of the triples: every pair of wrappers at every pair of depths occurs
TRIPLES = [t for t in itertools.product(range(len(WRAPPERS)), repeat=3) if sum(t) % len(WRAPPERS) == 0]


@pytest.mark.slow
@pytest.mark.parametrize("first", range(len(WRAPPERS)), ids=list(WRAPPERS))
def test_triples(first):
    names = list(WRAPPERS)
    for triple in TRIPLES:
        if triple[0] == first:
            check(tuple(names[i] for i in triple))


def test_a_wrong_meaning_is_noticed(monkeypatch):
    """The planted bug: a plate whose lanes all share the first lane's choice."""
    wrong = Wrapper(WRAPPERS["vmap"].language, lambda body: lambda x, z: over_vmap(lambda x, _: body(x, at(z, 0)))(x, z))
    monkeypatch.setitem(WRAPPERS, "vmap", wrong)
    with pytest.raises(AssertionError):
        check(("remat", "vmap"))
