"""The head for the values of a site: in their units, and on the site's support, so that no draw lies outside.

```python
head = head_for("y", program.sites()["y"], draws)      # draws (n, *shape of one value), as the program makes them
head.law(raw).log_prob(value)
```
Numbers get a mixture of Normals, vectors a flow, a choice among a few whole numbers its categories.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import dist
from ppl.distributions import bijector, integer_bounds, support_name
from ppl.site import SiteInfo

from .categorical import Categories
from .flow import Flow
from .head import Head
from .mixture import Mixture
from .scaled import Scaled
from .supported import Supported

NUM = 8  # components of a mixture


def head_for(name: str, row: SiteInfo, draws: Any, head: Head | None = None, *, key: Any = None) -> Head:
    """A head whose laws are of values such as `draws` (n, *shape), of the site `name`.

    - `row`: the site's, of `program.sites()`. `key`: for the first numbers of a flow; by default one that is always the same.
    - `head`: of unconstrained reals, in no units, in place of a mixture or a flow; of whole numbers, the head itself.

    Raises:
        ValueError: for whole numbers that are not 0, 1, ..., k with a known k, if no head is given; for values that are
            matrices; for a head of values of another shape.

    Example:
        `head_for("y", program.sites()["y"], draws, Spline(8))`
    """
    draws = np.asarray(draws)
    if row.discrete or draws.dtype.kind in "biu":
        found = _categories(name, row, draws.shape[1:]) if head is None else head
    else:
        support = dist.constraints.real if row.support is None else row.support
        free = np.asarray(bijector(support).inv(jnp.asarray(draws)))
        if head is None:
            head = _default(name, free.shape[1:], jax.random.key(0) if key is None else key)
        fits = np.isfinite(free.reshape(len(free), -1)).all(-1)
        found = Scaled.from_samples(head, free[fits])
        found = found if support_name(support).startswith("real") else Supported(found, support)
    if found.event_shape != draws.shape[1:]:
        raise ValueError(
            f"head: a value of site '{name}' has shape {draws.shape[1:]}, and this {type(head or found).__name__} makes "
            f"values of shape {found.event_shape}."
        )
    return found


def _default(name: str, shape: tuple[int, ...], key: Any) -> Head:
    if len(shape) > 1:
        raise ValueError(
            f"a value of site '{name}' is an array of shape {shape}, and heads are of numbers and vectors: flatten it in the "
            "model."
        )
    if not shape:
        return Mixture(None, NUM)
    return Mixture(1, NUM) if shape == (1,) else Flow(shape[0], key=key)


def _categories(name: str, row: SiteInfo, shape: tuple[int, ...]) -> Head:
    bounds = None if row.support is None else integer_bounds(row.support)
    if shape or bounds is None or np.ndim(bounds[1]) or int(bounds[0]) != 0:
        raise ValueError(
            f"the values of site '{name}' are whole numbers, but not one of 0, 1, ..., k with a known k. Give a head of your "
            "own, head=, such as Categories(num)."
        )
    return Categories(int(bounds[1]) + 1)
