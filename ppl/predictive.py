"""Predictive distributions: run a program forward, with some choices taken from given draws.

Law: sites not given are drawn from the program's own conditional, so with no draws this is the prior predictive, and with
posterior draws of the parameters the posterior predictive.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ._errors import quote
from ._keys import check_key
from .choices import Choices, merge, paths, put, walk
from .graph import descendants
from .interpreters import Forecast
from .program import Program


def predict(program: Program, key: Array, draws: Mapping[str, Any] | None = None, *, num: int | None = None) -> Choices:
    """Simulate data (and whatever else is not given) from a program.

    Args:
        program: data it is conditioned on are ignored and simulated anew.
        key: one typed key.
        draws: nested dict of arrays with shared leading axes, such as `posterior.draws`. A draw is used for the site of the
            same address if the shapes agree. A site of another shape (new groups) is drawn from the program, given the
            rest; and so is every site that depends on one of those or on an intervention.
        num: number of prior predictive draws, when there are no `draws`.

    Returns:
        Nested dict of every site that was not given: new choices, simulated data, deterministic values; leading axes as
        those of `draws`, or `(num,)`.

    Raises:
        ValueError: with neither or both of draws and num; when no draw belongs to the program.

    Example:
        `predict(eight_schools(sigma), key, num=1000)["y"].shape == (1000, 8)`
    """
    key = check_key(key, "predict")
    fresh = program.without() if program.data else program
    if draws is not None and num is None:
        given, lead = _match(fresh, program.data, draws)
    elif num is not None and draws is None:
        if num < 1:
            raise ValueError(f"predict needs num of at least 1, but got {num}.")
        given, lead = {}, (num,)
    else:
        raise ValueError("predict needs either draws, or num for draws from the prior.")
    count = math.prod(lead)
    flat = jax.tree.map(lambda x: jnp.reshape(x, (count, *jnp.shape(x)[len(lead) :])), given)
    out = _forecast(fresh, jax.random.split(key, count), flat)
    return jax.tree.map(lambda x: jnp.reshape(x, (*lead, *x.shape[1:])), out)


@jax.jit
def _forecast(program: Program, keys: Array, given: Choices) -> Choices:
    def one(key: Array, given: Choices) -> Choices:
        trees = program.interpret(Forecast, key, given)[0].record.trees
        return merge(trees.get("fresh", {}), trees.get("values", {}))

    return jax.vmap(one)(keys, given)


def _match(program: Program, data: Mapping[str, Any], draws: Mapping[str, Any]) -> tuple[Choices, tuple[int, ...]]:
    """The draws that are values of latent sites, and the leading axes they share."""
    have = dict(walk(draws))
    rows = {".".join(path): (path, row) for path, row in paths(program.table())}
    given: Choices = {}
    lead: tuple[int, ...] | None = None
    fits, changed = {}, {address for address, (_, row) in rows.items() if row.kind == "intervened"}
    for address, (path, row) in rows.items():
        if address not in have or address in data or row.kind != "latent":
            continue
        shape = jnp.shape(have[address])
        front = shape[: len(shape) - len(row.shape)]
        if shape[len(front) :] == row.shape and front:
            fits[address] = (path, front)
        else:
            changed.add(address)
    stale = descendants(program, changed) if changed else set()
    for address, (path, front) in fits.items():
        if address in stale:
            continue
        if lead is not None and front != lead:
            raise ValueError(f"draws of site '{address}' have leading axes {front}, but others have {lead}.")
        lead = front
        put(given, path, have[address])
    if lead is None:
        raise ValueError(f"no draw belongs to a latent site of the program: it has {quote(rows)}, the draws {quote(have)}.")
    return given, lead
