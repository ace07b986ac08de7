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
from jax import Array

from ._errors import nearest
from .choices import Choices, flatten, merge, paths, put, remove
from .interpreters import Assess
from .marginal import Without
from .program import Program
from .site import SiteInfo
from .summing import Averaged


@partial(jax.tree_util.register_dataclass, data_fields=["table", "one"], meta_fields=["address", "loop"])
@dataclass(frozen=True)
class Law:
    """In place of a site's value: the log probabilities of all its values, (plates..., S, K), given the S = K^L values of the
    last L of them along a scan (the newest counts most); S = 1 where it has no past.

    `one` (plates...): ones, that what is averaged is multiplied by. `loop`: what repeats the site, "scan" for example.
    """

    table: Array
    one: Array
    address: str
    loop: str

    def _used(self, *args: Any) -> Any:
        raise ValueError(
            f"the value of site '{self.address}' is used, but the site has the strategy Eliminate(): there is no value, only "
            "the law that log densities are averaged over. Give the choices to model.log_density, or use Enumerate()."
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __getitem__ = __array__ = __jax_array__ = (
        _used
    )
    shape = dtype = property(_used)


class Own(Assess):
    """Assess, keeping the laws of sites that are averaged by their own probabilities."""

    keeps = ("law",)


def draw_averaged(draw: Any, program: Program, addresses: Sequence[str], one: Array) -> tuple[Choices, Array]:
    """The choices of a program, and their log density, averaged over the sites at `addresses`, of which a `Law` is kept.

    `draw(program)`: who draws the others. `one`: a one that all averages are multiplied by.

    Raises:
        ValueError: where a site that is drawn depends on one that is averaged; as `Program.marginal`.
    """
    kept, log_kept = draw(program.marginal(*addresses))
    run, rows = _without(program, addresses, own=True).interpret(Own, given=kept)[0], program.sites()
    laws: Choices = {}
    for path, table in paths(run.record.trees.get("law", {})):
        address = ".".join(path)
        put(laws, path, Law(table, jnp.broadcast_to(one, table.shape[:-2]), address, _loop(rows[address])))
    return merge(kept, laws), log_kept + run.total("log_own") * one


def log_density_averaged(program: Program, choices: Choices) -> Array:
    """The log density of a program, averaged over the laws that are among `choices`."""
    laws = {address: x for address, x in flatten(choices).items() if isinstance(x, Law)}
    rows = program.sites()
    for address, law in laws.items():
        if address not in rows or rows[address].kind != "latent":
            latent = [name for name, row in rows.items() if row.kind == "latent"]
            raise ValueError(
                f"a law of site '{address}' is given, but the program has no latent site of that name."
                f"{nearest(address, latent)}"
            )
        if law.table.shape[-2] > 1 and law.loop != _loop(rows[address]):
            raise ValueError(
                f"site '{address}' is a chain along {law.loop} where it is drawn, but lies in {_loop(rows[address])} in the "
                "program whose density is averaged. Let both run the same way."
            )
    averaged = _without(program, list(laws), own=False)
    given = averaged.complete(remove(choices, set(laws)))
    for address, law in laws.items():
        put(given, address.split("."), law.table)
    run = averaged.interpret(Assess, given=given)[0]
    return run.total("log_prior", "log_likelihood") * jnp.mean(next(iter(laws.values())).one)


def has_laws(choices: Any) -> bool:
    """Whether some site's value is a `Law`."""
    return isinstance(choices, dict) and any(isinstance(x, Law) for _, x in paths(choices))


def _loop(row: SiteInfo) -> str:
    """What repeats a site, innermost."""
    return row.plates[-1].split("[")[0] if row.plates else "no loop"


def _without(program: Program, addresses: Sequence[str], *, own: bool) -> Program:
    inner, before = (program.fn.fn, program.fn.ways) if isinstance(program.fn, Without) else (program.fn, ())
    return program._with(fn=Without(inner, (*before, *((address, Averaged(own)) for address in addresses))))
