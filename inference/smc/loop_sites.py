"""The sites of a target that lie in its program's loop, for kernels that move them by a particle filter.

A kernel may be given a whole target, or a block of it: some sites, given all others. What is given becomes data, so that the
filter sees a program whose latent sites are those of the block.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl.choices import flatten, nest

from ..mcmc.block import Block
from .program_path import ByStep, ProgramPath


class Seen(NamedTuple):
    """`path`: of the program whose latent sites are those of the block; `choices`: theirs."""

    path: ProgramPath
    choices: dict[str, Any]


class LoopSites(eqx.Module):
    """A target, or a block of one, seen from the program's own side."""

    target: ppl.Target
    blocks: tuple[Block, ...]  # from the outermost in

    @staticmethod
    def of(who: str, target) -> "LoopSites":
        """Raises ValueError for a target that is not a program's own: `who` would move on another one."""
        blocks: tuple[Block, ...] = ()
        while isinstance(target, Block):
            blocks, target = (*blocks, target), target.target
        if not isinstance(target, ppl.Target):
            raise ValueError(
                f"{who}: a particle filter follows the program itself, and cannot move on a {type(target).__name__}. Give it "
                "to mcmc or to gibbs, not to a kernel that changes the target."
            )
        return LoopSites(target, blocks)

    @property
    def slots(self) -> tuple[Any, ...]:
        """Of the sites to be moved, as they lie in the kernel's vector."""
        return (self.blocks[0] if self.blocks else self.target).slots

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of the sites to be moved."""
        return tuple(slot.address for slot in self.slots)

    def whole(self, position) -> jax.Array:
        """The target's position."""
        for block in self.blocks:
            position = block.put(position)
        return position

    def seen(self, way: ByStep, position) -> Seen:
        """The program's loop, and the choices of the sites to be moved, where all other sites are as in `position`."""
        flat = flatten(self.target.constrain(self.whole(position)))
        own = {address: x for address, x in flat.items() if address in self.addresses}
        rest = {address: x for address, x in flat.items() if address not in own}
        missing = [slot.address for slot in self.target.slots if slot.missing is not None and slot.address in rest]
        program = self.target.program.without(*missing) if missing else self.target.program
        return Seen(way.of(program | nest(rest)), nest(own))

    def moved(self, position, choices, new) -> jax.Array:
        """The position with `new` choices in place of `choices`. Entries that are the same keep their very numbers."""
        here = self.whole(position)
        before, after = (self.target.unconstrain(self._all(here, x)) for x in (choices, new))
        there = jnp.where(self._is_own & (after != before), after, here).astype(here.dtype)
        for block in reversed(self.blocks):
            there = block.take(there)
        return there

    def _all(self, whole, choices) -> dict[str, Any]:
        return nest(flatten(self.target.constrain(whole)) | flatten(choices))

    @property
    def _is_own(self) -> np.ndarray:
        own = set(self.addresses)
        return np.repeat([slot.address in own for slot in self.target.slots], [slot.size for slot in self.target.slots])
