"""Data with gaps: what a network reads of them, and the posterior of what is missing.

```python
reader = Gapped.of(cases, draws, width=64, key=key)       # cases were made with gaps=0.2
tokens, there = reader({"y": y}, known)                   # NaN in y: missing
q = Completed(guide, program)           # masked entries of the program's data are latent: drawn after the others
```
"""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

import ppl
from inference.fixed import Fixed
from inference.vi.guides.guide import Guide
from ppl.choices import Choices, flatten, merge, nest
from ppl.interpreters import Assess
from ppl.site import SiteInfo

from .cases import Cases
from .columns import Columns
from .tokens import Reader


class Gapped(eqx.Module):
    """A reader of values of several entries, some of which are missing (NaN): of a whole, or of one row.

    A `Reader` takes a value of which a part is missing for missing. So something stands in for that part, and where it does is
    read beside the value.

    - `parted`: the sites with such values; `instead`: what stands in, an array for each.
    """

    reader: Reader
    parted: tuple[str, ...] = eqx.field(static=True)
    instead: Fixed

    @staticmethod
    def of(cases: Cases, draws: dict[str, Any], *, width: int, key: Array) -> "Gapped":
        """For the data of cases, which look like `draws`."""
        table, rows = cases.program.sites(), cases.rows
        parted = tuple(name for name in cases.told if math.prod(cases.entries(name)[name in rows :]) > 1)
        there = {_there(name): SiteInfo("latent", table[name].shape, jnp.dtype(float)) for name in parted}
        instead = tuple(_first(draws[name][:, 0] if name in rows else draws[name]) for name in parted)
        bare = Gapped(Reader(None, (), ()), parted, Fixed(instead))
        table, told = table | there, bare.told(draws)

        def columns(names: tuple[str, ...], axes: int) -> Columns:
            both = [x for name in names for x in ((name, _there(name)) if name in parted else (name,))]
            return Columns.of({x: table[x] for x in both}, told, axes)

        wholes = tuple(columns((name,), 0) for name in cases.told if name not in rows)
        return Gapped(Reader.of(columns(rows, 1) if rows else None, wholes, width=width, key=key), parted, Fixed(instead))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sites that are read."""
        return tuple(name for name in self.reader.names if name not in map(_there, self.parted))

    def told(self, data: dict[str, Any]) -> dict[str, Any]:
        """The data without those gaps, and where they were."""
        out = dict(data)
        for name, instead in zip(self.parted, self.instead.value, strict=True):
            there = ~jnp.isnan(jnp.asarray(data[name], float))
            out |= {name: jnp.where(there, data[name], instead), _there(name): there.astype(float)}
        return out

    def __call__(self, data: dict[str, Any], known: Array | None = None) -> tuple[Array, Array]:
        """As a `Reader`: tokens (n, width), and which of them are there (n,)."""
        return self.reader(self.told(data), known)


class Completed(ppl.Generative, eqx.Module):
    """The posterior of a program some of whose data are missing, and so latent: a law of the other latent sites given what
    there is, then of the missing entries as the program draws them. Exact where that law is, and entries are independent.

    - `guide`: of the other latent sites. `program`: the one with its data.
    """

    guide: Guide
    program: ppl.Program

    def drawn(self):
        choices, log_q = ppl.draw(self.guide)
        missing, _ = ppl.draw(self.program | choices)
        return merge(choices, missing), log_q + self._log_missing(choices, missing)

    def density(self, choices):
        flat = flatten(choices)
        own = nest({slot.address: flat.pop(slot.address) for slot in self.guide.target.slots})
        return self.guide.density(own) + self._log_missing(own, nest(flat))

    def _log_missing(self, choices: Choices, missing: Choices) -> Array:
        program = self.program | choices
        run, _ = program.interpret(Assess, given=program.complete(missing))
        return run.total("log_prior")


def _there(name: str) -> str:
    """What is read beside a site: which of its entries are there."""
    return f"entries of {name}"


def _first(draws: Any) -> Array:
    """Of draws (S, ...), entry by entry the first that is not missing."""
    there = ~np.isnan(np.asarray(draws, float))
    return jnp.asarray(np.take_along_axis(np.asarray(draws), there.argmax(0)[None], 0)[0])
