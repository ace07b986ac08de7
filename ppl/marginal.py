"""`program.marginal("z")`: the program without the site z, which is summed or integrated out exactly.

```python
@ppl.model
def mixture(y):
    weights = sample("weights", dist.Dirichlet(jnp.ones(3)))
    mu = sample("mu", dist.Normal(0.0, 5.0).expand([3]))
    def point(y):
        z = sample("z", dist.Categorical(weights))
        sample("y", dist.Normal(mu[z], 1.0), obs=y)
    ppl.vmap(point)(y)

posterior = inf.mcmc(mixture(y).marginal("z"), inf.NUTS(), key=key)
```

The result is a Program like any other. Its density is that of the sites that are kept, with the others summed or integrated
out: a discrete site by trying its values, in each lane of a `ppl.vmap` apart and by the forward algorithm along a `ppl.scan`;
a continuous one by conjugacy (see `conjugacy.py`). Simulated, it runs forward, and forgets the sites that are not there.

Law: `exp(p.marginal("z").log_density(rest))` is the sum over z of `exp(p.log_density(rest and z))`.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ._errors import nearest
from ._keys import check_key
from .choices import Choices, merge, paths, put
from .conjugacy import families
from .elimination import Ask, Backward, Part
from .interpreter import current
from .program import Program
from .site import SiteInfo


@dataclass(frozen=True)
class Without:
    """A model's function, run without some of its sites; `ways` are pairs of an address and how the site is removed."""

    fn: Any
    ways: tuple[tuple[str, Any], ...]

    @property
    def __name__(self) -> str:
        return f"{getattr(self.fn, '__name__', 'program')} without {', '.join(address for address, _ in self.ways)}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        running = current()
        assert running is not None
        return Part(self.fn, {running.prefix + address: way for address, way in self.ways})(*args, **kwargs)


def marginal(program: Program, *addresses: str, by: Any = None) -> Any:
    """See `Program.marginal`."""
    if not addresses:
        raise ValueError("marginal needs the address of a site to remove, such as program.marginal('z').")
    for address in addresses:
        if not isinstance(address, str):
            raise ValueError(f"marginal takes addresses one by one, as in marginal('z', 'w'), but got {address!r}.")
    if by is not None and (isinstance(by, type) or not hasattr(by, "marginal")):
        what = f"the class {by.__name__}; make one" if isinstance(by, type) else repr(by)
        raise ValueError(f"marginal: by must be an algorithm such as ppl.Importance(10), got {what}.")
    if by is not None:
        return by.marginal(program, addresses)
    rows = program.sites()
    for address in addresses:
        if address not in rows:
            latent = [name for name, row in rows.items() if row.kind == "latent"]
            raise ValueError(
                f"marginal names a site '{address}', but the program has none of that name.{nearest(address, latent)}"
            )
        check_removable(address, rows[address])
    before = program.fn.ways if isinstance(program.fn, Without) else ()
    whole = restored(program)
    removed = dict.fromkeys([address for address, _ in before] + list(addresses))
    ways = families(whole, list(removed))
    found = whole._with(fn=Without(whole.fn, tuple(ways.items())))
    found.table()  # says what is wrong now, not when it runs
    return found


def check_removable(address: str, row: SiteInfo) -> None:
    """Raise ValueError for a site that cannot be removed."""
    if row.kind != "latent" or row.partial:
        what = "latent in part, its other entries are data" if row.partial else row.kind
        raise ValueError(f"site '{address}' cannot be removed: it is {what}, and only latent sites can.")


def restored(program: Program) -> Program:
    """The program with all its sites."""
    return program._with(fn=program.fn.fn) if isinstance(program.fn, Without) else program


def draw_removed(program: Program, key: Array, choices: Choices) -> Choices:
    """See `Program.draw_removed`."""
    if not isinstance(program.fn, Without):
        raise ValueError("draw_removed: no site was removed from this program. It belongs to program.marginal('z').")
    key, given = check_key(key, "draw_removed"), program.complete(choices)
    values = program.interpret(Ask, given=given)[0].record.trees.get("removed", {})
    rows, ways = dict(paths(restored(program).table())), dict(program.fn.ways)
    weights: Choices = {}
    for path, x in paths(values):
        discrete = ways[".".join(path)] is None
        put(weights, path, jnp.zeros(x.shape[: len(rows[path].plates) + 1] if discrete else x.shape))

    def density(weights: Choices) -> Array:
        run = program.interpret(Backward, key, merge(given, weights))[0]
        return run.total("log_prior", "log_likelihood")

    out: Choices = {}
    for path, one in paths(jax.grad(density)(weights)):
        if ways[".".join(path)] is not None:
            put(out, path, one)
            continue
        table = dict(paths(values))[path]
        number = jnp.argmax(one, -1)
        number = number.reshape(number.shape + (1,) * (table.ndim - number.ndim))
        put(out, path, jnp.squeeze(jnp.take_along_axis(table, number, one.ndim - 1), one.ndim - 1))
    return out
