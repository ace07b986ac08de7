"""A site is one named step of a program; a table of sites is what a program looks like from outside."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from . import distributions


class Site(NamedTuple):
    """What an interpreter is shown at `sample`: a name, where it lies, its distribution, and data written in the model."""

    name: str
    address: str
    distribution: Any
    obs: Any = None
    missing: Array | None = None  # bool per batch element: which are latent, when the data are partial
    strategy: Any = None  # how gradients of an objective are to be estimated here, if the model says so


@dataclass(frozen=True)
class SiteInfo:
    """What is known of a site without running it: one row of `program.sites()`.

    Attributes:
        kind: `latent`, `observed`, `deterministic`, `factor`, `call` or `intervened`.
        shape: shape of the whole value, axes of enclosing `vmap`s and `scan`s first.
        support: the constraint on values, or None when it depends on other sites.
        discrete: whether values are integers, so that no gradient exists.
        event_dim: how many trailing axes are one event of the distribution.
        unconstrained: shape of the value in unconstrained space (a simplex has one entry fewer).
        plates: the combinators around the site, outermost first, as `vmap[8]`.
        partial: true for a latent site some of whose entries may be data.
        conditional: true when only some branch of a `cond` or `switch` visits the site.
        strategy: how gradients are estimated here; known of sites that an objective draws.
        on_host: true for a call whose function runs on the host: who has many of them asks for all at once.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: Any
    family: str = ""
    support_name: str = "-"
    support: Any = None
    discrete: bool = False
    event_dim: int = 0
    unconstrained: tuple[int, ...] = ()
    plates: tuple[str, ...] = ()
    conditional: bool = False
    partial: bool = False
    strategy: Any = None
    on_host: bool = False

    def within(self, label: str, length: int | None) -> "SiteInfo":
        """The same site seen from outside a combinator that repeats it `length` times (None: does not repeat)."""
        lead = () if length is None else (length,)
        return replace(
            self,
            shape=lead + self.shape,
            unconstrained=lead + self.unconstrained,
            plates=((f"{label}[{length}]",) if length is not None else ()) + self.plates,
        )


Table = dict[str, Any]  # name -> SiteInfo, or a Table for a program nested under that name


def describe(kind: str, value: Any, address: str) -> SiteInfo:
    """The row of a site without a distribution. Raises ValueError when the value is not one array of numbers."""
    leaves = jax.tree.leaves(value)
    if value is not None and (len(leaves) != 1 or leaves[0] is not value):
        raise ValueError(
            f"{kind} site '{address}' must be one array of numbers, but got {type(value).__name__}. Name each part by itself."
        )
    try:
        value = jnp.asarray(value)
    except (TypeError, ValueError):
        raise ValueError(f"{kind} site '{address}' must be an array of numbers, but got {value!r}.") from None
    return SiteInfo(kind, value.shape, value.dtype)


def describe_distribution(d: Any) -> SiteInfo:
    """The row of a latent site with distribution `d`."""
    shape, support = d.shape(), d.support
    discrete = bool(support is not None and support.is_discrete)
    unconstrained: tuple[int, ...] = shape
    if support is not None and not discrete:
        unconstrained = tuple(distributions.bijector(support).inverse_shape(shape))
    # a support computed from other sites must not outlive the run that computed it
    depends = any(distributions.is_traced(x) for x in jax.tree.leaves(support))
    return SiteInfo(
        "latent",
        shape,
        distributions.value_dtype(d),
        distributions.family(d),
        distributions.support_name(support),
        None if depends else support,
        discrete,
        len(d.event_shape),
        unconstrained,
    )


def within(table: Mapping[str, Any], label: str, length: int | None) -> Table:
    """Every row of `table` seen from outside a combinator."""
    return {
        name: within(row, label, length) if isinstance(row, Mapping) else row.within(label, length)
        for name, row in table.items()
    }


def format_table(rows: Mapping[str, SiteInfo]) -> str:
    """Aligned text, one line a site: name, kind, distribution, shape, support, plates."""
    if not rows:
        return "  (no sites)"
    cells = [
        (
            name,
            row.kind + (" in part" if row.partial else "") + ("?" if row.conditional else ""),
            row.family or "-",
            str(row.shape) if row.shape else "()",
            row.support_name,
            " ".join(row.plates),
        )
        for name, row in rows.items()
    ]
    header = ("site", "kind", "distribution", "shape", "support", "in")
    widths = [max(len(r[i]) for r in [header, *cells]) for i in range(len(header))]
    return "\n".join("  " + "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in [header, *cells])
