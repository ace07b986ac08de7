"""Amortised: a network reads the data and says the parameters of a family. Learned once, it is a guide for any data.

```python
guide = inf.guide_for(program | {"y": y}, inf.vi.Amortised(eqx.nn.MLP(8, 4, 32, 2, key=key), inf.vi.MeanField()))
guide.given(program | {"y": other})                  # the same network, for other data
```
What the network says is added to the parameters that the family begins with. (Kingma and Welling, "Auto-Encoding Variational
Bayes", ICLR 2014; Gershman and Goodman, CogSci 2014.)
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

import ppl

from ...fixed import Fixed
from .law import Family, Law
from .mean_field import MeanField


def everything(data: dict[str, Any]) -> jax.Array:
    """All data in one vector, sites in alphabetical order."""
    return jnp.concatenate([jnp.ravel(jnp.asarray(data[name], float)) for name in sorted(data)])


class Net(eqx.Module):
    """A network as a pytree of arrays alone: so a guide with it is an argument of `jax.jit` as it stands."""

    arrays: list[Any]
    rest: tuple = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    @staticmethod
    def of(net: Callable) -> "Net":
        leaves, structure = jax.tree.flatten(net)
        rest = tuple(None if _is_array(x) else (x,) for x in leaves)
        return Net([x for x in leaves if _is_array(x)], rest, structure)

    def __call__(self, x):
        given = iter(self.arrays)
        net = jax.tree.unflatten(self.structure, [next(given) if kept is None else kept[0] for kept in self.rest])
        return net(x)


class Read(Law):
    """The law that the network makes of what it reads."""

    net: Net
    begun: Fixed  # the law that its parameters are added to
    data: Fixed  # what it reads, (numbers,)
    reads: Callable[[dict[str, Any]], jax.Array] = eqx.field(static=True)

    def drawn(self):
        return self.law.drawn()

    def density(self, position):
        return self.law.density(position)

    def placed(self):
        return self.law.placed()

    def given(self, target):
        return Read(self.net, self.begun, Fixed(_read(target, self.reads)), self.reads)

    @property
    def law(self) -> Law:
        """For these data."""
        parameters, rest = eqx.partition(self.begun.value, eqx.is_inexact_array)
        flat, unravel = ravel_pytree(parameters)
        return eqx.combine(unravel(flat + self.net(self.data.value)), rest)


class Amortised(Family):
    """See the file's docstring.

    - `net`: an Equinox or Flax NNX network (any callable pytree) from a vector, the data, to one with as many numbers as the
      family has parameters for these sites (a mean field has two a coordinate: locations, then log scales).
    - `family`: whose parameters it says.
    - `reads`: from the program's data by name, a flat dict of arrays, to what the network is given; by default all of them,
      one after the other.
    """

    net: Any
    family: Family = MeanField()
    reads: Callable[[dict[str, Any]], jax.Array] = eqx.field(static=True, default=everything)

    def __check_init__(self):
        if not callable(self.net) or isinstance(self.net, type):
            raise ValueError(f"Amortised: expected a network, a function of a vector, got {type(self.net).__name__}.")
        if not isinstance(self.family, Family) or isinstance(self.family, Amortised):
            raise ValueError("Amortised: family must be one such as MeanField(), whose parameters the network says.")

    def begins(self):
        return self.family.begins()

    def law(self, key, target, location, scale):
        begun = self.family.law(key, target, location, scale)
        data = _read(target, self.reads)
        num = ravel_pytree(eqx.filter(begun, eqx.is_inexact_array))[0].size
        net = Net.of(self.net)
        said = jax.eval_shape(lambda net, x: net(x), net, data)
        if getattr(said, "shape", None) != (num,):
            raise ValueError(
                f"Amortised: {type(self.family).__name__} has {num} parameters for these sites, and the network makes "
                f"{getattr(said, 'shape', type(said).__name__)} of data of shape {data.shape}. It must return a vector "
                f"({num},)."
            )
        return Read(net, Fixed(begun), Fixed(data), self.reads)


def _read(target: ppl.Target, reads: Callable) -> jax.Array:
    data = target.program.data
    if not data:
        raise ValueError("Amortised: the program has no data for the network to read. Condition it: program | {...}.")
    return jnp.asarray(reads(data))


def _is_array(x: Any) -> bool:
    return hasattr(x, "dtype") and hasattr(x, "shape")
