"""Choices are plain nested dicts of arrays; this file holds the few things one does to them.

An *address* such as `"school.theta"` is a path of names joined by dots. Data may hold NumPy masked arrays: their masked
entries are missing, and become latent.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Choices = dict[str, Any]

EMPTY: Choices = {}  # a default that nobody writes to


@partial(jax.tree_util.register_dataclass, data_fields=["value", "known"], meta_fields=[])
@dataclass(frozen=True)
class Partial:
    """Data with missing entries: `value` where `known` is true. Both have the shape of the site.

    What a masked array becomes on its way into a program: a pytree, so it goes through jit, vmap and scan, and can be
    indexed. It is data for a site, not an array to compute with.
    """

    value: Any
    known: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return jnp.shape(self.known)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> "Partial":
        return Partial(self.value[index], self.known[index])


def as_data(value: Any) -> Any:
    """An array, or a Partial for a masked array; nested dicts are walked. Raises ValueError for non-numeric data."""
    if isinstance(value, Mapping):
        return {name: as_data(v) for name, v in value.items()}
    if isinstance(value, Partial):
        return value
    if isinstance(value, np.ma.MaskedArray):
        if not np.ma.is_masked(value):
            return as_data(value.data)
        return Partial(as_data(value.filled(0)), jnp.asarray(~np.ma.getmaskarray(value)))
    if isinstance(value, jax.Array):
        return value
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError("its rows differ in length, but an array was expected") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"it has dtype {array.dtype}, but numbers were expected")
    return jnp.asarray(array)


def holes(x: Any) -> Any:
    """A masked array as a Partial, anything else as it is: JAX refuses masked arrays as arguments."""
    return as_data(x) if isinstance(x, np.ma.MaskedArray) else x


def walk(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every leaf of a nested dict with its dotted address, depth first."""
    for path, value in paths(tree):
        yield ".".join(path), value


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dict to `{dotted address: leaf}`. Law: `nest(flatten(tree)) == tree` when no name holds a dot."""
    return dict(walk(tree))


def nest(flat: Mapping[str, Any]) -> Choices:
    """`{dotted address: leaf}` to a nested dict."""
    out: Choices = {}
    for address, value in flat.items():
        put(out, address.split("."), value)
    return out


def put(tree: Choices, path: Sequence[str], value: Any) -> None:
    """Set the leaf at a path of names in place, making the groups on the way."""
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value


def paths(tree: Mapping[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every leaf of a nested dict (of values, or of rows of a table) with its path of names, depth first."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from paths(value, (*before, name))
        else:
            yield (*before, name), value


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> Choices:
    """Union of two nested dicts; where both hold a leaf, `second` wins."""
    out = dict(first)
    for name, value in second.items():
        both = isinstance(value, Mapping) and isinstance(out.get(name), Mapping)
        out[name] = merge(out[name], value) if both else value
    return out


def remove(tree: Mapping[str, Any], addresses: set[str], prefix: str = "") -> Choices:
    """`tree` without the leaves or whole groups at `addresses`."""
    out: Choices = {}
    for name, value in tree.items():
        address = f"{prefix}{name}"
        if address in addresses:
            continue
        out[name] = remove(value, addresses, f"{address}.") if isinstance(value, Mapping) else value
    return out


def lanes(tree: Choices, length: int) -> Choices:
    """The part of `tree` that can be sliced along a leading axis of `length`: what a body mapped `length` times may use.

    Entries of other sizes belong to sites outside that body; shapes were checked against the table of sites before.
    """

    def fits(node: Any) -> bool:
        return all(jnp.ndim(x) > 0 and jnp.shape(x)[0] == length for x in jax.tree.leaves(node))

    out: Choices = {}
    for name, node in tree.items():
        if fits(node):
            out[name] = node
        elif isinstance(node, dict):
            out[name] = lanes(node, length)
    return out
