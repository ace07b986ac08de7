"""The mode: the choices of highest posterior density (maximum a posteriori).

```python
mode = inf.find_mode(program | {"y": y}, key=jax.random.key(0))
mode["theta"][0, 0], mode.stats["lp"]
```
It is that of the density of the choices themselves: penalised maximum likelihood, without the Jacobian of the unconstrained
space where the climb is. A mode is no summary of a posterior of many dimensions, whose mass lies elsewhere; for draws about
one see `laplace`.
"""

import time
from typing import NamedTuple

import jax
import numpy as np

import ppl

from ..mcmc.initial import Initial
from ..posterior import Posterior
from ..provenance import key_words, versions
from .climb import Top, check, highest


class Modes(NamedTuple):
    """`posterior.run`: where each climb ended, leaves (starts, ...)."""

    tops: Top


def find_mode(program, *, key: jax.Array, starts: int = 4, steps: int = 1000, init: Initial | None = None) -> Posterior:
    """The posterior mode, as a `Posterior` of one draw, (1, 1).

    - `program`: a conditioned program, or a `ppl.Target`.
    - `starts`: climbs, the highest of which counts; `posterior.run.tops` has all: whether they agree says how many modes there
      may be. Each takes at most so many `steps`.
    - `init`: where they begin: by default `Uniform()`; `At({...}, jitter=1.0)`.

    `stats["lp"]` is the log density of the choices there.

    Raises:
        ValueError: for a discrete site; where no start has a finite density.
    Warns:
        SamplingWarning: where the climb was not done.

    Example:
        `find_mode(coin(10) | {"heads": 7}, key=jax.random.key(0))["p"]`
    """
    began, target = time.monotonic(), ppl.as_target(program)
    check("find_mode", target, key, starts=starts, steps=steps)
    top, tops = highest("find_mode", target, _of_choices, key=key, starts=starts, steps=steps, init=init)
    draws = jax.jit(lambda target, x: target.record(x))(target, top.position)
    made = {
        "algorithm": "find_mode",
        "key": key_words(key),
        "starts": starts,
        "steps": int(top.num),
        "slope": float(top.slope),
        "dtype": str(top.value.dtype),
        "sampling_seconds": time.monotonic() - began,
        "versions": versions(),
    }
    return Posterior(
        jax.tree.map(lambda x: np.asarray(x)[None, None], draws),
        {"lp": np.asarray(top.value)[None, None]},
        provenance=made,
        program=target.program,
        run=Modes(tops),
    )


def _of_choices(target: ppl.Target, position):
    return target.log_density(position) - target.log_jacobian(position)
