"""Watch: what a part of an objective did, as it was run.

```python
log_w, score = scored(lambda: log_weight(model, guide))     # score: zero, with the gradient of the log density of its draws
```
Where sites have the strategy `Score()` the whole objective multiplies the gradient of their log density. So
`objective - sum_k score_k b_k` has the baseline b_k for the k-th of several draws; any b_k that does not depend on that draw
leaves the mean as it is.
"""

from collections.abc import Callable
from typing import TypeVar

import jax

from ppl.choices import paths
from ppl.drawing import undrawn
from ppl.interpreter import current
from ppl.site import SiteInfo

from ..play import Play
from ..strategies.strategy import zero

T = TypeVar("T")


def scored(fn: Callable[[], T]) -> tuple[T, jax.Array]:
    """`fn()`, and a scalar: zero, but for its gradient, that of the scores of what `fn` drew. Inside `ppl.vmap`: of the lane.

    As you give the draws a baseline, the averaging of several samples gives them none.

    Example:
        `log_w, score = scored(lambda: elbo.fn(model, guide))`
    """
    play = playing("scored")
    score, free = play.total("score"), play.total("free_score")
    out = fn()
    play.add("free_score", free - play.total("free_score"))
    return out, zero(play.total("score") - score)


def drew(fn: Callable[[], T]) -> tuple[T, dict[str, SiteInfo]]:
    """`fn()`, and the random sites that were drawn in it, by address."""
    play = playing("drew")
    before = set(play.table)
    out = fn()
    new = {name: rows for name, rows in play.table.items() if name not in before}
    found = {undrawn(path): row for path, row in paths(new)}
    return out, {address: row for address, row in found.items() if row.kind == "latent"}


def playing(who: str) -> Play:
    """The expectation that is running.

    Raises:
        ValueError: where none is.
    """
    play = current()
    if not isinstance(play, Play):
        raise ValueError(f"{who} belongs in a function decorated with @expectation; it was called where none runs.")
    return play
