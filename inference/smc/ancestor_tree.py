"""The tree of ancestors: whole paths of a long run, without what has died out.

Of all the particles of long ago few have descendants now. Those without are forgotten, a block of stages at a time, and
T + c N log N of the T N values are left, c a small constant (Jacob, Murray and Rubenthaler, Statistics and Computing 25, 2015,
arXiv:1311.0301). The tree lives on the host; the compiled loop holds one block.

```python
posterior = inf.smc(program, inf.particle_filter(), key=key, particles=10_000, history=inf.steps.AncestorTree())
posterior["z"]                   # (1, 200, 100_000): paths
```
"""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from ppl.choices import merge

from .history import Folding, in_a_loop

GROWTH = 1 << 22  # particles that may come before dead ones are looked for


class Generation(NamedTuple):
    """The particles of a stage that have descendants: the places of their parents among those of the stage before (num,), and
    their choices (num, ...)."""

    parents: np.ndarray
    choices: Any


@dataclasses.dataclass
class Tree:
    """Generations from the first to the last; how many of them there were when dead particles were last cut off, and how many
    particles have come since."""

    generations: list[Generation]
    looked_at: int = 0
    grown: int = 0

    def cut(self) -> None:
        """Cut off what has no descendants in the last generation: from the end backward, until of those that were looked at
        before none has died out."""
        generations = self.generations
        for g in range(len(generations) - 1, 0, -1):
            parents, (grandparents, choices) = generations[g].parents, generations[g - 1]
            lives = np.zeros(len(grandparents), bool)
            lives[parents] = True
            if lives.all():
                if g <= self.looked_at:
                    break
                continue
            generations[g] = generations[g]._replace(parents=(np.cumsum(lives) - 1)[parents])
            generations[g - 1] = Generation(grandparents[lives], jax.tree.map(lambda x, lives=lives: x[lives], choices))
        self.looked_at, self.grown = len(generations), 0

    @property
    def size(self) -> int:
        """How many particles it holds."""
        return sum(len(generation.parents) for generation in self.generations)


class AncestorTree(Folding):
    """Keep the choices of all stages, but only of particles that have descendants; the posterior has `paths` draws."""

    paths: int = eqx.field(static=True, default=200)

    def num(self, particles):
        return min(self.paths, particles)

    def keep(self, population):
        return in_a_loop(self, population).choices, population.ancestors

    def fold(self, held, kept):
        """The tree with a block of stages more (leaves lead with (stage, N)). What has died out is cut off now and then."""
        tree = held or Tree([])
        choices, ancestors = jax.tree.map(np.asarray, kept)
        for s, parents in enumerate(ancestors):  # all particles of a last generation are there: places in it are slots
            tree.generations.append(Generation(parents, jax.tree.map(lambda x, s=s: x[s], choices)))
        tree.grown += ancestors.size
        if tree.grown > GROWTH:
            tree.cut()
        return tree

    def draws(self, path, population, kept: Tree, slots) -> dict[str, Any]:
        slots, generations = np.asarray(slots), kept.generations
        before = jax.tree.map(lambda x: np.asarray(x)[slots], population.particles.before)
        out = jax.tree.map(lambda x: np.empty((len(slots), len(generations), *x.shape[1:]), x.dtype), generations[-1].choices)
        places = slots
        for g in range(len(generations) - 1, -1, -1):
            parents, choices = generations[g]
            jax.tree.map(lambda rows, x, g=g, places=places: rows.__setitem__((slice(None), g), x[places]), out, choices)
            places = parents[places]
        return merge(before, out)
