"""Site order: from the prior to the posterior by taking observed sites and factors one after the other, as the program does.

    gamma_n = prior x likelihood of the first n observed sites and factors

It is as if every particle were a run of the program, held up wherever it has just been weighed. Latent sites that a particle
has not come to are at their prior, given those that it has; so where particles were copied, `Renew()` draws the rest of each
run anew, and copies have futures of their own (Scibior, Ghahramani and Gordon, POPL 2018). In place of a program that can be
held up there is one that is run again with what was reached given.

```python
path = SiteOrder().of(program | data)
path.passes                      # ('y0', 'y1', 'loss'): what weighs, in order
path.reached_at["z1"]            # 2: the site is there when the second of them has been passed
```
Sites of one `ppl.vmap` or `ppl.scan` pass together; for the steps of a loop there is `particle_filter()`.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl.choices import flatten, nest
from ppl.graph import depends
from ppl.interpreters import Audit, Simulate

from ..population import Population
from .in_order import InOrder
from .step import Step, Stepped
from .tempering_path import Tempering


class SiteOrder(eqx.Module):
    """Which way to go: from one observed site or factor to the next."""

    def of(self, program) -> "SiteOrderPath":
        """The path to the posterior of a conditioned program.

        Raises:
            ValueError: where the program has no data and no factor, or its prior is improper.
        """
        target = Tempering().of(program).target
        passes = tuple(name for name, row in target.program.sites().items() if _weighs(row))
        if not passes:
            raise ValueError(
                "smc: to go from one observed site to the next, the program must have data or factors, but it has none. Give "
                'it data: program | {"y": y}.'
            )
        return SiteOrderPath(target, passes, _reached(target, passes))


def _weighs(row) -> bool:
    return row.kind in ("observed", "factor") or row.partial


def _reached(target: ppl.Target, passes) -> tuple[tuple[str, int], ...]:
    """For each latent site the number of passes by which it is reached; one more than there are for those never reached.

    A site is reached with those after it in the program, and with those that are computed from it. In a loop the first site of
    a step may be computed from the last one of the step before: they are reached together.
    """
    rows = list(target.program.sites())
    values = {slot.address: jnp.zeros(slot.shape, slot.dtype or float) for slot in target.slots}

    def densities(values):
        run, _ = target.program.interpret(Audit, given=nest(values))
        return flatten(run.record.trees["densities"])

    above = {name: found | {name} for name, found in depends(densities, values).items()}
    out = dict.fromkeys(values, len(passes) + 1)
    for n, address in reversed(list(enumerate(passes, 1))):
        last, known = rows.index(address), -1
        while known < last:
            known = last
            last = max(rows.index(name) for row in rows[: known + 1] for name in above.get(row, {row}))
        out |= {name: n for name in rows[: known + 1] if name in out}
    return tuple(out.items())


class SiteOrderPath(InOrder):
    """See the file's docstring. A level is the number of observed sites and factors passed."""

    target: ppl.Target
    passes: tuple[str, ...] = eqx.field(static=True)
    reached: tuple[tuple[str, int], ...] = eqx.field(static=True)

    level_name: ClassVar[str] = "num_sites"
    parts: ClassVar[str] = "observed sites"

    @property
    def num_parts(self) -> int:
        return len(self.passes)

    @property
    def reached_at(self) -> dict[str, int]:
        """By latent site: the level from which on it is reached."""
        return dict(self.reached)

    def told(self, level) -> str:
        name = f"site '{self.passes[int(level) - 1]}'" if level > 0 else "the prior"
        return f"{name} ({int(level)} of {self.num_parts})"

    def each(self, by_site):
        return jnp.stack([jnp.sum(by_site[name]) for name in self.passes])

    def renewed(self, key, position, level) -> jax.Array:
        """The position with all sites that are not reached at `level` drawn anew, given those that are."""
        there = {name: level >= n for name, n in self.reached}
        given = self.target.constrain(position)
        run, _ = self.target.program.interpret(_going_on(there), key, given)
        new = self.target.unconstrain(run.record.trees["choices"])
        size = np.array([slot.size for slot in self.target.slots])
        level_of = np.repeat([self.reached_at[slot.address] for slot in self.target.slots], size)
        return jnp.where(level >= level_of, position, new.astype(position.dtype))


def _going_on(there: dict[str, Any]) -> type[Simulate]:
    """Simulate, with the sites that are `there` given."""

    class GoingOn(Simulate):
        def latent(self, site):
            return jnp.where(there[site.address], self.inputs.given[site.name], super().latent(site))

    return GoingOn


class Renew(Step):
    """Draw anew what particles have not reached: `Renew()`. It keeps the target, for no data passed depend on it."""

    def check(self, path) -> None:
        if not isinstance(path, SiteOrderPath):
            raise ValueError(f"Renew: it needs a path from site to site, SiteOrder(), got {type(path).__name__}.")

    def __call__(self, key, population: Population, memory, path: SiteOrderPath) -> Stepped:
        def one(key, particle):
            return path.at(path.renewed(key, particle.position, population.level))

        keys = jax.random.split(key, len(population.log_weights))
        return Stepped(population._replace(particles=jax.vmap(one)(keys, population.particles)))
