"""Smoothing: paths drawn from their law given all data, after a particle filter has run.

```python
posterior = inf.smc(walk(100, 1.0, 2.0) | {"y": y}, inf.particle_filter(), key=key, particles=1000)
paths = smooth(posterior.run, Backward(), key=key, num=200)
paths["z"]                                       # (200, 100)
```
The filter's own paths, by ancestors, agree long ago. Here each path goes back from the last step to the first, and at every
step chooses among all particles, by their weights and by how well the later choices follow (Godsill, Doucet and West, JASA 99,
2004):

- `Backward()`: looks at all N particles; exact, and O(N) for a step of a path.
- `Rejection(log_bound)`: proposes particles by their weights, and accepts one by its transition density over a bound of it;
  the same law, at a cost that does not grow with N where the bound is near (Douc, Garivier, Moulines and Olsson, Ann. Appl.
  Probab. 21, 2011). Where many proposals fail it looks at all particles after all.
- `BackwardMCMC(num)`: starts from the ancestor and makes `num` Metropolis steps; needs no bound, and one step does much (Bunch
  and Godsill, IEEE Trans. Signal Process. 61, 2013; Dau and Chopin, arXiv:2207.00976).
- `FixedLag(lag)`: ancestors of the particles `lag` steps later. It forgets what the data after that say, and is no path: only
  choices at one time, or nearby, hang together (Kitagawa and Sato, 2001).

Loops that remember more than one step are weighed as far ahead as they do; see `memory.py`.
"""

import abc
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..resampling.multinomial import independent
from .history import Kept
from .program_path import ProgramPath
from .result import Run


def smooth(run: Run, method: "Smoother", *, key, num: int = 100) -> dict[str, Any]:
    """Draw `num` paths from the smoothing law, as a finished filter knows it: choices of the loop by site, (num, step, ...).

    - `run`: `posterior.run` of `inf.smc(program, inf.particle_filter(), ...)` with its whole history, `Paths()`.
    - `method`: `Backward()`, `Rejection(log_bound)`, `BackwardMCMC(num)` or `FixedLag(lag)`.

    Raises:
        ValueError: for a run without its history, of something else than a program's loop, or with sites before the loop (of
            these every particle has its own, so that no later choices follow from another one's: draws of the posterior
            itself, or `ParticleGibbs`, are what there is).

    Example:
        `smooth(posterior.run, BackwardMCMC(1), key=jax.random.key(1), num=500)`
    """
    if not isinstance(run.path, ProgramPath):
        raise ValueError("smooth: this run did not follow a program's ppl.scan; smoothing is for particle filters.")
    if not isinstance(run.rows[0].kept[0], Kept):
        raise ValueError("smooth: this run did not keep its earlier stages; run it with history=Paths().")
    if run.path.opened.before:
        raise ValueError(
            f"smooth: site '{run.path.opened.before[0]}' is drawn before the loop, and differs from particle to particle, so "
            "paths cannot go over from one to another. Condition on it, or use ParticleGibbs() in mcmc."
        )
    key_island, key_draw = jax.random.split(key)
    evidence = jnp.stack([state.population.log_evidence for state in run.states])
    chosen = np.bincount(np.asarray(jax.random.categorical(key_island, evidence, shape=(num,))), minlength=len(run.rows))
    most = num if len(run.rows) == 1 else 1 << int(chosen.max() - 1).bit_length()  # so that few programs are compiled
    parts = []
    for island, (row, own) in enumerate(zip(run.rows, chosen, strict=True)):
        if own:
            drawn = method.draw(jax.random.fold_in(key_draw, island), run.path, jax.tree.map(jnp.asarray, row.kept[0]), most)
            parts.append(jax.tree.map(lambda x, own=own: np.asarray(x)[:own], drawn))
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


class Smoother(eqx.Module):
    """The contract: how `num` paths are drawn of what a filter kept."""

    @abc.abstractmethod
    def draw(self, key, path: ProgramPath, kept: Kept, num: int) -> dict[str, Any]:
        """Choices by site (num, step, ...)."""


class FixedLag(Smoother):
    """See the file's docstring. `lag`: how many later steps count.

    Raises:
        ValueError: for a negative lag.
    """

    lag: int = eqx.field(static=True)

    def __check_init__(self):
        if self.lag < 0:
            raise ValueError(f"FixedLag: lag must be at least 0, got {self.lag}.")

    def draw(self, key, path, kept, num):
        return _lagged(key, kept, num, self.lag)


@partial(jax.jit, static_argnames=("num", "lag"))
def _lagged(key, kept: Kept, num: int, lag: int):
    steps = jnp.arange(len(kept.ancestors))
    seen = jnp.minimum(steps + lag, len(steps) - 1)  # the last step whose data count
    keys = jax.random.split(key, len(steps))
    slots = jax.vmap(lambda key, s: independent(key, kept.log_weights[s], num))(keys, seen)

    def up(i, slots):
        s = seen - i
        return jnp.where((s > steps)[:, None], jnp.take_along_axis(kept.ancestors[s], slots, axis=1), slots)

    slots = lax.fori_loop(0, lag, up, slots)
    return jax.tree.map(lambda x: jnp.swapaxes(x[steps[:, None], slots], 0, 1), kept.choices)
