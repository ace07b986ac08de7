"""A window of the last stages: paths over the recent past of a run of any length.

```python
posterior = inf.smc(program, inf.particle_filter(), key=key, particles=10_000, history=inf.steps.Window(50))
posterior["z"]                   # (1, 10_000, 50): the last 50 steps
posterior.run.filtered("z")      # (50, 3): quantiles at these steps, each given the data up to then
```
It holds `num` stages, however many there were. Of a path followed back, what lies long ago is shared by all particles, and so
a window as long as particles take to have one ancestor has all that differs (fixed-lag smoothing: Kitagawa and Sato, in
"Sequential Monte Carlo Methods in Practice", 2001).
"""

import equinox as eqx
import jax
import numpy as np

from .history import Folding, Kept, Paths, in_a_loop


class Window(Folding):
    """Keep what particles chose at the last `num` stages.

    Raises:
        ValueError: for a number below 1.
    """

    num_stages: int = eqx.field(static=True)

    def __check_init__(self):
        if isinstance(self.num_stages, bool) or not isinstance(self.num_stages, int) or self.num_stages < 1:
            raise ValueError(f"Window: the number of stages must be a whole number of at least 1, got {self.num_stages!r}.")

    def keep(self, population) -> Kept:
        in_a_loop(self, population)
        return Paths().keep(population)

    def fold(self, held: Kept | None, kept: Kept) -> Kept:
        held = jax.tree.map(lambda x: x[:0], kept) if held is None else held
        return jax.tree.map(lambda old, new: np.concatenate([old, new])[-self.num_stages :].copy(), held, kept)

    def draws(self, path, population, kept: Kept, slots):
        return Paths().draws(path, population, kept, slots)
