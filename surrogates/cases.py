"""Cases: a program as a source of exercises. Each is a draw of everything, some of it to be told to a network, the rest to be
guessed.

```python
cases = Cases.of(regression(x) | {"y": y})         # the data say which sites are told; their values do not matter
case = cases.simulate(key).choices                 # {"data": {"y": ...}, "known": (n,), "position": (dim,)}
```
Where told sites have rows, a case shows a number of them that is drawn, from `least` to all: so a network learns to answer
from few and from many. Where data will have `gaps`, every entry is hidden (NaN) with that chance. Training on cases to say
log q(latent | data) is training on the exact posterior: no other q makes the mean larger (Papamakarios and Murray, NeurIPS
2016; Mueller et al., ICLR 2022, insight 1).
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import ppl
from ppl import dist
from ppl.choices import flatten, nest
from ppl.site import SiteInfo


class Source(ppl.Generative, eqx.Module):
    """The contract of what networks are trained on: cases, a nested dict of arrays each, drawn by `drawn()`.

    - `program`: the one that all of a case is drawn from.
    """

    program: eqx.AbstractVar[ppl.Program]

    @abc.abstractmethod
    def drawn(self) -> tuple[dict[str, Any], Any]:
        """A case, and the log density of what was drawn for it."""

    def density(self, choices):
        raise ValueError("cases are drawn, and have no density of their own: ask the program.")

    def looked_at(self, key, num: int = 2000) -> dict[str, Any]:
        """`num` cases, leaves (num, ...), to see what values look like."""
        draw = jax.jit(jax.vmap(lambda source, key: source.simulate(key).choices, (None, 0)))
        return jax.tree.map(np.asarray, draw(self, jax.random.split(key, num)))


class Cases(Source):
    """See the file's docstring; made by `Cases.of`.

    - `program`: everything in it is drawn.
    - `told`: addresses of the sites that are shown; `rows`: those of them that have one value a row, on their first axis.
    - `least`: the smallest number of rows shown.
    - `gaps`: the chance that an entry of what is told is missing.
    """

    program: ppl.Program
    told: tuple[str, ...] = eqx.field(static=True)
    rows: tuple[str, ...] = eqx.field(static=True)
    least: int = eqx.field(static=True)
    gaps: float = eqx.field(static=True, default=0.0)

    @staticmethod
    def of(program: Any, *, rows: tuple[str, ...] | None = None, least: int = 0, gaps: float = 0.0) -> "Cases":
        """Of a conditioned program.

        - `rows`: sites of the data whose first axis counts rows without order; by default those in a `ppl.vmap`.
        - `gaps`: the chance that an entry is hidden; what is one value of a vector-valued distribution is one entry.

        Raises:
            ValueError: for a program without data, or with data that cannot be drawn; for rows of different lengths, and
                numbers that make no sense.
        """
        if not isinstance(program, ppl.Program) or not program.data:
            raise ValueError(
                "expected a program with data, program | {...}: its data say which sites a network will be told. Their values "
                "do not matter."
            )
        table, told = program.sites(), tuple(program.data)
        written = [name for name, row in table.items() if row.kind == "observed" and name not in told]
        if written:
            raise ValueError(
                f"site '{written[0]}' has data written in the model, with obs= or ppl.observe, so no others can be drawn. "
                "Give them from outside: program | {...}."
            )
        if rows is None:
            rows = tuple(name for name in told if table[name].plates and table[name].plates[0].startswith("vmap"))
            lengths = {table[name].shape[0] for name in rows}
            rows = rows if len(lengths) == 1 else ()
        _check_rows(table, told, rows, least)
        if not 0.0 <= gaps < 1.0:
            raise ValueError(f"gaps must be a share of at least 0 and below 1, got {gaps!r}.")
        return Cases(program.without(), told, tuple(rows), least, float(gaps))

    @property
    def most(self) -> int:
        """How many rows there are."""
        return self.program.sites()[self.rows[0]].shape[0] if self.rows else 0

    def entries(self, name: str) -> tuple[int, ...]:
        """The axes of a told site that count entries, each of which is there or missing."""
        row = self.program.sites()[name]
        return row.shape[: max(len(row.shape) - row.event_dim, int(name in self.rows))]

    def drawn(self):
        choices, log_p = ppl.draw(self.program)
        flat = flatten(choices)
        data = {name: flat.pop(name) for name in self.told}
        case: dict[str, Any] = {"position": ppl.Target(self.program | nest(data)).unconstrain(nest(flat))}
        case["data"] = data
        if self.gaps:
            case["data"] = {name: hidden(name, x, self.gaps, len(self.entries(name))) for name, x in data.items()}
        if self.rows:
            num: Any = self.most
            if self.least < self.most:
                num = ppl.sample("num", dist.DiscreteUniform(self.least, self.most))
            case["known"] = jnp.arange(self.most) < num
        return case, log_p


def hidden(name: str, value: Array, share: float, axes: int) -> Array:
    """The value of a site, each entry of its first `axes` axes NaN with chance `share`; in a program, which draws them."""
    gone = ppl.sample(f"gaps of {name}".replace(".", " "), dist.Bernoulli(share).expand(value.shape[:axes])) == 1
    return jnp.where(jnp.reshape(gone, gone.shape + (1,) * (value.ndim - axes)), jnp.nan, value.astype(float))


def _check_rows(table: dict[str, SiteInfo], told, rows, least: int) -> None:
    for name in rows:
        if name not in told:
            raise ValueError(f"rows: '{name}' is not among the data, which are: {', '.join(told)}.")
        if not table[name].shape:
            raise ValueError(f"rows: site '{name}' is a single number, and has no rows.")
    lengths = {name: table[name].shape[0] for name in rows}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"rows: all sites need as many rows, got {lengths}.")
    most = max(lengths.values(), default=0)
    if isinstance(least, bool) or not isinstance(least, int) or not 0 <= least <= most:
        raise ValueError(f"least: expected a number of rows from 0 to {most}, got {least!r}.")
