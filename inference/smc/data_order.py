"""Data order: from the prior to the posterior by taking the data one after the other.

    gamma_n = prior x likelihood of the first n data,  n = 0, ..., num_data

The order is that of the leading axis of the observed sites, which they have in common; sites without an axis count with the
first datum (Chopin, Biometrika 89, 2002). See `in_order.py`.

```python
path = DataOrder().of(regression(x) | {"y": y})
```
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

import ppl

from .in_order import InOrder
from .tempering_path import Tempering


class DataOrder(eqx.Module):
    """Which way to go: datum by datum."""

    def of(self, program) -> "DataOrderPath":
        """The path to the posterior of a conditioned program.

        Raises:
            ValueError: where no observed site has an axis, their leading axes disagree, or the prior is improper.
        """
        target = Tempering().of(program).target
        parts = {name: x.shape for name, x in _shapes(target).items()}
        axes = {name: shape[0] for name, shape in parts.items() if shape}
        if not axes:
            raise ValueError(
                f"smc: to go along the data one by one, some observed site must have an axis of independent data, but "
                f"{', '.join(parts) or 'no site'} has none. Write them as a ppl.vmap, or without .to_event()."
            )
        if len(set(axes.values())) > 1:
            told = ", ".join(f"{name} {size}" for name, size in axes.items())
            raise ValueError(
                f"smc: the leading axes of the observed sites disagree ({told}), so it is not clear which data come "
                "together. Write them with one leading axis, or go from site to site: resample_move()."
            )
        return DataOrderPath(target, next(iter(axes.values())))


def _shapes(target):
    return jax.eval_shape(lambda u: target.log_prior_and_likelihoods(u)[1], jnp.zeros(target.dim))


class DataOrderPath(InOrder):
    """See the file's docstring. A level is the number of data so far."""

    target: ppl.Target
    num_data: int = eqx.field(static=True)

    level_name: ClassVar[str] = "num_data"
    parts: ClassVar[str] = "data"

    @property
    def num_parts(self) -> int:
        return self.num_data

    def told(self, level) -> str:
        return f"datum {int(level)} of {self.num_data}"

    def each(self, by_site):
        each = jnp.zeros(self.num_data)
        for log_p in by_site.values():
            each = each + log_p.reshape(self.num_data, -1).sum(axis=1) if log_p.ndim else each.at[0].add(log_p)
        return each
