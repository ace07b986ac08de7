"""Are these data possible? NaN, values outside the support and half-given events are found before anything runs.

Every function raises a ValueError whose sentence names the site, the first offending index, and what to do.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .choices import Partial
from .distributions import is_traced
from .site import SiteInfo


def possible(address: str, row: SiteInfo, value: Any) -> None:
    """Raise unless the data of a site are numbers that its distribution can give. Values that are traced pass.

    Args:
        address: of the site, for the sentence.
        row: what is known of the site; without a support (it depends on other sites) only NaN is looked for.
        value: an array of the site's shape, a Partial, or a NumPy masked array.
    """
    known = np.ones(row.shape, bool)
    if isinstance(value, np.ma.MaskedArray):
        value = Partial(value.filled(0), ~np.ma.getmaskarray(value))  # pyright: ignore
    if isinstance(value, Partial):
        value, mask = value.value, value.known
        if is_traced(mask):
            return
        known = np.asarray(mask)
        _check_events(address, row, known)
    if is_traced(value):
        return
    array = np.asarray(value)
    bad = np.isnan(array) & known if array.dtype.kind == "f" else np.zeros(array.shape, bool)
    if bad.any():
        raise ValueError(
            f"the data of site '{address}' hold NaN, {_where(bad)}. If these are "
            "missing values, pass numpy.ma.masked_invalid(data): the missing entries then become latent."
        )
    if row.support is None:
        return
    with jax.ensure_compile_time_eval():  # data written in a model are looked at while it is traced
        inside = np.asarray(row.support(jnp.asarray(array)))
    known = known.reshape(known.shape[: inside.ndim] + (-1,)).all(-1) if known.ndim > inside.ndim else known
    outside = ~np.broadcast_to(inside, known.shape) & known
    if outside.any():
        index = first(outside)
        where = f", first at index {index}" if index != () else ""
        raise ValueError(
            f"the data of site '{address}' lie outside the support of {row.family} ({row.support_name})"
            f"{where}: {array[index] if index != () else array}. Check the data, or choose a distribution with that support."
        )


def _check_events(address: str, row: SiteInfo, known: np.ndarray) -> None:
    flat = known.reshape(known.shape[: known.ndim - row.event_dim] + (-1,))
    if (flat.any(-1) != flat.all(-1)).any():
        raise ValueError(
            f"the data of site '{address}' are missing part of an event: the last {_axes(row.event_dim, row.family)} one "
            "value. Give all of an event, or none of it."
        )


def _where(bad: np.ndarray) -> str:
    return f"first at index {first(bad)} ({int(bad.sum())} of {bad.size})" if bad.ndim else "its only value"


def _axes(n: int, family: str) -> str:
    return f"axis of {family} is" if n == 1 else f"{n} axes of {family} are"


def first(bad: np.ndarray) -> Any:
    """Index of the first true entry: an int for vectors, else a tuple."""
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    return index[0] if len(index) == 1 else index
