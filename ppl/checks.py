"""Checks at the door: what users pass by name is compared with the table of sites before anything runs.

Every function raises a ValueError whose sentence names the site, what was expected, what came, and what to do.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._errors import nearest, quote
from .choices import Choices, Partial, as_data, paths, put, walk
from .distributions import is_traced
from .site import Table
from .values import possible

_WHY_NOT = {
    "observed": "it already has data. Leave it out, or take its data away with program.without({0!r}) (if obs= gave them, in "
    "the model)",
    "deterministic": "it is deterministic, computed from other sites; to set it use program.intervene({{{0!r}: value}})",
    "factor": "it is a factor, which has no value",
    "call": "it is a call; to replace its function use program.intervene({{{0!r}: function}})",
    "intervened": "it was set by an intervention",
    "latent": "it is latent",
}


def a_dict(values: object, what: str) -> None:
    """Raise unless `values` is a dict."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{what} must be a dict from site names to values, but got {type(values).__name__}.")


def place(table: Table, values: Mapping[str, Any], what: str, kinds: set[str]) -> Choices:
    """`values` (a nested dict, or dotted addresses) as a nested dict of arrays along the table's paths.

    Raises:
        ValueError: for an address that no site has, a site of a kind not in `kinds`, or a shape that is not the site's.
    """
    a_dict(values, what)
    rows = {".".join(path): (path, row) for path, row in paths(table)}
    out: Choices = {}
    for address, value in walk(values):
        if address not in rows:
            inside = [known for known in rows if known.startswith(f"{address}.")]
            if inside:
                raise ValueError(
                    f"'{address}' in {what} is a nested program with sites {quote(inside)}; give a dict of its sites."
                )
            choice = [known for known, (_, row) in rows.items() if row.kind in kinds]
            raise ValueError(
                f"{what} name a site '{address}', but the program has none of that name.{nearest(address, choice)}"
            )
        path, row = rows[address]
        kind = "observed" if row.partial and what == "the data" else row.kind
        if kind not in kinds:
            raise ValueError(f"site '{address}' cannot be given by {what}: {_WHY_NOT[kind].format(address)}.")
        try:
            value = as_data(value)
        except ValueError as e:
            raise ValueError(f"the value of site '{address}' in {what} cannot be used: {e}.") from None
        shape = jnp.shape(value.value if isinstance(value, Partial) else value)
        if shape != row.shape:
            plates = f" (in {' '.join(row.plates)})" if row.plates else ""
            raise ValueError(
                f"site '{address}' has shape {row.shape}{plates}, but {what} have shape {shape} for it. "
                "Give one value for each entry, axes of enclosing plates first, or change the model's arguments."
            )
        put(out, path, value if isinstance(value, Partial) else _convert(value, row.dtype))
    return out


def _convert(value: Any, dtype: Any) -> Any:
    """Integers for a real site become floats, whole floats for a discrete one integers; so a loop's carry keeps its type."""
    if jnp.issubdtype(dtype, jnp.floating):
        return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(dtype)
    if jnp.issubdtype(value.dtype, jnp.integer) or is_traced(value):
        return value
    whole = np.asarray(value).astype(dtype)
    return jnp.asarray(whole) if np.array_equal(whole, np.asarray(value)) else value


def addresses_differ(table: Table) -> None:
    """Raise if a site whose name holds a dot has the address of a site in a nested program."""
    seen: set[str] = set()
    for path, _ in paths(table):
        address = ".".join(path)
        if address in seen:
            raise ValueError(
                f"two sites have the address '{address}': one is named so, one lies in a nested program. Rename one."
            )
        seen.add(address)


def nothing_missing(table: Table, placed: Choices) -> None:
    """Raise unless `placed` has a value for every latent site."""
    given = {address for address, _ in walk(placed)}
    missing = [a for path, row in paths(table) if row.kind == "latent" and (a := ".".join(path)) not in given]
    if missing:
        raise ValueError(
            f"no value was given for {'sites' if len(missing) > 1 else 'site'} {quote(missing)}; every latent site needs one."
        )


def data(table: Table, values: Mapping[str, Any]) -> Choices:
    """Data for `|`: placed, and checked for NaN and for values outside each site's support."""
    if isinstance(values, Mapping) and not values:
        return {}
    placed = place(table, values, "the data", {"latent"})
    rows = {".".join(path): row for path, row in paths(table)}
    for address, value in walk(placed):
        possible(address, rows[address], value)
    return placed


def calls(table: Table, functions: Mapping[str, Callable]) -> Choices:
    """Functions placed along the table's paths; raises unless every address is a `ppl.call` of the program."""
    known = {".".join(path): path for path, row in paths(table) if row.kind == "call"}
    out: Choices = {}
    for address, fn in functions.items():
        if address not in known:
            raise ValueError(
                f"the interventions give a function for '{address}', but no ppl.call has that name.{nearest(address, known)}"
            )
        put(out, known[address], fn)
    return out


def rules(table: Table, given: Mapping[str, Any]) -> Choices:
    """Reparameterisations placed along the table's paths; each must be a function and name a latent site."""
    a_dict(given, "the reparameterisations")
    rows = {".".join(path): (path, row) for path, row in paths(table)}
    out: Choices = {}
    for address, rule in walk(given):
        if address not in rows:
            raise ValueError(
                f"reparam names a site '{address}', but the program has none of that name.{nearest(address, rows)}"
            )
        path, row = rows[address]
        if row.kind != "latent":
            raise ValueError(f"site '{address}' cannot be reparameterised: it is {row.kind}, and only latent sites can.")
        if not callable(rule):
            raise ValueError(
                f"the reparameterisation of site '{address}' must be a function (name, distribution) -> value, "
                f"such as ppl.NonCentered(), but got {type(rule).__name__}."
            )
        put(out, path, rule.spread(address, row.shape) if hasattr(rule, "spread") else rule)
    return out


_TRACED: dict[type[Exception], str] = {  # the first that fits is used, so the narrow before the wide
    jax.errors.TracerBoolConversionError: (
        "the model branches in Python (if, while, and, or) on a random value, which is not known while the program is "
        "traced. Use ppl.cond or ppl.switch, or jnp.where."
    ),
    jax.errors.NonConcreteBooleanIndexError: (
        "the model selects entries by a random mask, so that their number is random. Use jnp.where, which keeps the shape."
    ),
    jax.errors.TracerArrayConversionError: (
        "the model hands a random value to NumPy, which cannot be traced. Use jax.numpy, or jax.pure_callback."
    ),
    jax.errors.TracerIntegerConversionError: (
        "the model needs a random value as a Python integer (range, shape, list index), which is not known while the "
        "program is traced. Sizes and bounds must come from the model's arguments; index arrays, not lists."
    ),
    jax.errors.ConcretizationTypeError: (
        "the model needs a random value as a Python number (int, float, a shape), which is not known while the program is "
        "traced. Sizes must come from the model's arguments; use jax.numpy for arithmetic."
    ),
}


@contextmanager
def sentences() -> Iterator[None]:
    """Turn JAX's errors for random values that Python needs to know into one sentence."""
    try:
        yield
    except tuple(_TRACED) as e:
        sentence = next(text for kind, text in _TRACED.items() if isinstance(e, kind))
        raise ValueError(
            f"{sentence} Values that come from outside through jax.jit, jax.vmap or jax.grad are as unknown as random ones.\n"
            f"{str(e).splitlines()[0]}"
        ) from e
