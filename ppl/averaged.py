"""Averaged: log densities averaged over a law of some sites' values, exactly; along a `ppl.scan` for a chain in T * K^2.

```python
choices, log_q = draw_averaged(drawing, guide, ["z"])     # choices["z"] is a Law, not a value
model.log_density(choices)                                # E log p(z, y) over that law
```
Where `program.marginal` sums exp(log density) over a site's values, here the log density itself is averaged, by the
probabilities that another program gives the values. The parts are the same: lanes of a `ppl.vmap` are averaged apart, a scan
whose carry tells of the site passes on the law of its state. (The two halves of an evidence lower bound for a chain:
Ghahramani and Jordan, "Factorial hidden Markov models", Machine Learning 29, 1997.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ._errors import nearest
from .choices import Choices, flatten, merge, paths, put, remove
from .distributions import integer_bounds, is_traced
from .elimination import forget
from .interpreter import current
from .interpreters import Assess
from .laws import Averaged
from .marginal import Without, check_removable
from .program import Program
from .site import SiteInfo


@partial(jax.tree_util.register_dataclass, data_fields=["table", "one"], meta_fields=["address", "loop", "own", "least"])
@dataclass(frozen=True, eq=False)
class Law:
    """In place of a site's value: the log probabilities of all its values, (plates..., S, K), given the S = K^L values of the
    last L of them along a scan (the newest counts most); S = 1 where it has no past.

    - `one` (plates...): ones, that what is averaged is multiplied by.
    - `loop`: what repeats the site, "scan" for example; `own`: its shape in one repetition; `least`: its least values.
    """

    table: Array
    one: Array
    address: str
    loop: str
    own: tuple[int, ...]
    least: tuple[int, ...] | None

    def _used(self, *args: Any) -> Any:
        raise ValueError(
            f"the value of site '{self.address}' is used, but the site has the strategy Eliminate(): there is no value, only "
            "the law that log densities are averaged over. Give the choices to model.log_density, or use Enumerate()."
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = __mod__ = _used
    __neg__ = __abs__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __int__ = __float__ = __index__ = (
        _used
    )
    __getitem__ = __len__ = __iter__ = __array__ = __jax_array__ = _used
    __hash__ = object.__hash__
    shape = dtype = property(_used)


@dataclass(frozen=True)
class Forgetting:
    """A model's function, its removed sites drawn and forgotten: for the values of the others alone, not for a density."""

    without: Any  # a `Without`

    @property
    def __name__(self) -> str:
        return self.without.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        running: Any = current()
        ways = {running.prefix + address: way for address, way in self.without.ways}
        out, record, table = forget(running, partial(self.without.fn, *args, **kwargs), ways)
        running.absorb(record, table)
        return out


def draw_averaged(
    draw: Any, program: Program, addresses: Sequence[str], one: Array, kind: type[Assess] = Assess
) -> tuple[Choices, Array]:
    """The choices of a program, and their log density, averaged over the sites at `addresses`, of which a `Law` is kept.

    - `draw(program)`: who draws the others, by a program whose own density means nothing.
    - `kind`: who finds the density of what was drawn.
    - `one`: a one that all averages are multiplied by.

    Raises:
        ValueError: where a site that is drawn depends on one that is averaged; as `Program.marginal`.
    """
    rows = program.sites()
    for address in addresses:
        check_removable(address, rows[address])
    without = _without(program, addresses, own=True)
    kept, _ = draw(program._with(fn=Forgetting(without.fn)))
    run = without.interpret(kind, given=kept)[0]
    laws: Choices = {}
    for path, table in paths(run.record.trees.get("law", {})):
        row, ones = rows[".".join(path)], jnp.broadcast_to(one, table.shape[:-2])
        put(laws, path, Law(table, ones, ".".join(path), _loop(row), row.shape[ones.ndim :], _least(row)))
    return merge(kept, laws), run.total("log_prior", "log_likelihood") + run.total("log_own") * one


def log_density_averaged(program: Program, choices: Choices, kind: type[Assess]) -> Array:
    """The log density of a program, averaged over the laws that are among `choices`. `kind`: who finds it."""
    laws = {address: x for address, x in flatten(choices).items() if isinstance(x, Law)}
    rows = program.sites()
    for address, law in laws.items():
        if address not in rows or rows[address].kind != "latent":
            latent = [name for name, row in rows.items() if row.kind == "latent"]
            raise ValueError(
                f"a law of site '{address}' is given, but the program has no latent site of that name."
                f"{nearest(address, latent)}"
            )
        _fits(address, rows[address], law)
    averaged = _without(program, list(laws), own=False)
    given = averaged.complete(remove(choices, set(laws)))
    for address, law in laws.items():
        put(given, address.split("."), law.table)
    run = averaged.interpret(kind, given=given)[0]
    return run.total("log_prior", "log_likelihood") * jnp.mean(next(iter(laws.values())).one)


def has_laws(choices: Any) -> bool:
    """Whether some site's value is a `Law`."""
    return isinstance(choices, dict) and any(isinstance(x, Law) for _, x in paths(choices))


def _fits(address: str, row: SiteInfo, law: Law) -> None:
    """Raise ValueError unless the site may have the law."""
    if row.partial:
        raise ValueError(f"site '{address}' is partly data, so it has not the law that it was drawn with. Use Enumerate().")
    if law.table.shape[-2] > 1 and law.loop != _loop(row):
        raise ValueError(
            f"site '{address}' is a chain along {law.loop} where it is drawn, but lies in {_loop(row)} in the program whose "
            "density is averaged. Let both run the same way."
        )
    shape = law.one.shape + law.own
    if row.shape != shape:
        raise ValueError(f"site '{address}' has shape {row.shape} here, but {shape} in the program that it is drawn from.")
    if None not in (law.least, _least(row)) and law.least != _least(row):
        raise ValueError(
            f"the least value of site '{address}' is {_least(row)} here, but {law.least} in the program that it is drawn from."
            " Its values must be the same in both."
        )


def _least(row: SiteInfo) -> tuple[int, ...] | None:
    """The least values of a site, each once; None where they are not known."""
    found = None if row.support is None else integer_bounds(row.support)
    return None if found is None or is_traced(found[0]) else tuple(sorted({int(x) for x in np.ravel(found[0])}))


def _loop(row: SiteInfo) -> str:
    """What repeats a site, innermost."""
    return row.plates[-1].split("[")[0] if row.plates else "no loop"


def _without(program: Program, addresses: Sequence[str], *, own: bool) -> Program:
    inner, before = (program.fn.fn, program.fn.ways) if isinstance(program.fn, Without) else (program.fn, ())
    return program._with(fn=Without(inner, (*before, *((address, Averaged(own)) for address in addresses))))
