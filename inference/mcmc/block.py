"""A block of a target: some of its sites, given all the others. What blockwise kernels move on.

Law: `block.log_density(part)` is the target's log density with the block's entries replaced by `part`, so a kernel that
leaves the block's law invariant leaves the target's invariant.

```python
block = Block(target, position, members=(1, 2))      # the second and the third site
block.log_density(block.take(position)) == target.log_density(position)
```
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


class Block(eqx.Module):
    """`target` seen from some of its sites; `whole` (target.dim,): the position of all of them.

    - `members`: which of `target.slots`, rising.
    """

    target: Any
    whole: jax.Array
    members: tuple[int, ...] = eqx.field(static=True)

    # -- the flat vector: the entries of the members, in the target's order ----------------------------------------------

    def take(self, whole) -> jax.Array:
        """The block's entries of a position of the target."""
        return jnp.concatenate([whole[start:stop] for start, stop in self._spans])

    def put(self, part) -> jax.Array:
        """The target's position, with `part` in place of the block's entries."""
        whole, done = self.whole, 0
        for start, stop in self._spans:
            whole = whole.at[start:stop].set(part[done : done + stop - start])
            done += stop - start
        return whole

    @property
    def slots(self) -> tuple[Any, ...]:
        """The members' slots, as they lie in the block's vector."""
        slots, start = [], 0
        for slot in self._own:
            slots.append(slot._replace(start=start))
            start += slot.size
        return tuple(slots)

    @property
    def dim(self) -> int:
        return sum(slot.size for slot in self._own)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for start, stop in self._spans for name in self.target.names[start:stop])

    @property
    def is_discrete(self) -> np.ndarray:
        return np.concatenate([self.target.is_discrete[start:stop] for start, stop in self._spans])

    # -- what a target says ----------------------------------------------------------------------------------------------

    def log_density(self, part):
        return self.target.log_density(self.put(part))

    def log_prior_and_likelihood(self, part):
        return self.target.log_prior_and_likelihood(self.put(part))

    def log_density_apart(self, address: str, part):
        return self.target.log_density_apart(address, self.put(part))

    def log_density_between(self, part):
        return self.target.log_density_between(self.put(part))

    def refuse_discrete(self, who: str, slots: Sequence[Any] | None = None) -> None:
        self.target.refuse_discrete(who, self._own if slots is None else slots)

    def refuse_continuous(self, who: str, slots: Sequence[Any] | None = None) -> None:
        self.target.refuse_continuous(who, self._own if slots is None else slots)

    # -- inside ----------------------------------------------------------------------------------------------------------

    @property
    def _own(self) -> tuple[Any, ...]:
        return tuple(self.target.slots[k] for k in self.members)

    @property
    def _spans(self) -> list[tuple[int, int]]:
        """Where the members lie in the target's vector; neighbours are one span."""
        spans: list[tuple[int, int]] = []
        for slot in self._own:
            start, stop = slot.start, slot.start + slot.size
            if spans and spans[-1][1] == start:
                start = spans.pop()[0]
            spans.append((start, stop))
        return spans
