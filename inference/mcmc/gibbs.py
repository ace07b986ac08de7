"""`gibbs`: each group of sites has a kernel of its own, which moves it given all the others.

```python
inf.gibbs({"theta": inf.NUTS(), "z": inf.DiscreteGibbs()})
inf.gibbs({"z": inf.DiscreteGibbs(), ...: inf.NUTS()})              # ... stands for all other sites
inf.gibbs({("mu", "tau"): inf.NUTS(), "school": inf.Slice()})       # a tuple is one block; a name covers the sites below it
```
A kernel that leaves the law of its block given the rest invariant leaves the joint law invariant, and so do all of them in
turn. (Geman and Geman, IEEE Trans. Pattern Anal. Mach. Intell. 6, 1984; Tierney, Ann. Statist. 22, 1994.)

*The state* of the chain is one position with its joint log density, handed from block to block: a kernel that has it need
not compute it. Gradients are with respect to a block, at a place that the other blocks have left, so each kernel with
gradients computes one anew in each of its turns. What a kernel has learned, of step size and metric, it keeps.
"""

from collections.abc import Mapping
from types import EllipsisType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ppl._errors import nearest, quote

from ..kernel import Kernel
from .block import Block
from .members import Combination, CombinedState, begun, checked, each_learns, place_of, placed, side_by_side
from .metropolis import State, at

Name = str | EllipsisType


class Gibbs(Combination):
    """See `gibbs`. `blocks`: the names that each of the `kernels` was given."""

    kernels: tuple[Kernel, ...]
    blocks: tuple[tuple[Name, ...], ...] = eqx.field(static=True)

    def check(self, target) -> None:
        for kernel, block in zip(self.kernels, self._views(target, jnp.zeros(target.dim)), strict=True):
            kernel.check(block)

    def init(self, key, target, position) -> CombinedState:
        views = self._views(target, position)
        states, infos = begun(self.kernels, key, [(view, view.take(position)) for view in views])
        return CombinedState(at(target, position), states, infos)

    def step(self, key, state: CombinedState, target):
        now, states, infos = state.inner, [], []
        for k, own_key in enumerate(jax.random.split(key, len(self.kernels))):
            view = self._views(target, now.position)[k]
            own = placed(state.states[k], State(view.take(now.position), now.log_density), view)
            own, info = self.kernels[k].step(own_key, own, view)
            end = place_of(own)
            now = State(view.put(end.position), end.log_density)
            states.append(own)
            infos.append(info)
        return CombinedState(now, tuple(states), tuple(infos)), side_by_side(infos)

    def learn(self, i, state: CombinedState, info) -> CombinedState:
        return each_learns(self.kernels, i, state)

    def _views(self, target, position) -> list[Block]:
        return [Block(target, position, members) for members in _members(self.blocks, target.slots)]


def gibbs(kernels: Mapping[Any, Kernel]) -> Gibbs:
    """A kernel that lets each of `kernels` move its own sites in turn, given all others, in every step.

    - keys: a site's dotted name, which covers all sites below it; a tuple of names for one block; `...` for all other sites.
    - values: kernels. What they leave open is learned in warm-up, by each from its own moves.

    Statistics: as of `cycle`; names that end in `_k` belong to the k-th block (from 0).

    Raises:
        ValueError: for no blocks, a key that is no name, a class in place of a kernel. From `mcmc`: for a name that no latent
            site has, a site in two blocks or in none, a kernel that cannot move its block.

    Example:
        `inf.mcmc(mixture(x), inf.gibbs({"z": inf.DiscreteGibbs(), ...: inf.NUTS()}), key=key)`
    """
    if not isinstance(kernels, Mapping):
        raise ValueError(f"gibbs: expected a dict from site names to kernels, got {type(kernels).__name__}.")
    if not kernels:
        raise ValueError("gibbs: the dict is empty. Give each site a kernel, such as gibbs({...: NUTS()}).")
    blocks = tuple(key if isinstance(key, tuple) else (key,) for key in kernels)
    for block in blocks:
        if not block or not all(isinstance(name, str) or (name is ... and len(block) == 1) for name in block):
            raise ValueError(f"gibbs: a block is a site name, a tuple of names, or ... for all other sites; got {block!r}.")
    return Gibbs(checked("gibbs", tuple(kernels.values())), blocks)


def _members(blocks, slots) -> list[tuple[int, ...]]:
    """The numbers of the slots that each block holds; raises unless every slot is in one block."""
    addresses = [slot.address for slot in slots]
    owner: dict[str, int] = {}
    for k, block in enumerate(blocks):
        for name in block:
            if name is ...:
                continue
            covered = [a for a in addresses if a == name or a.startswith(f"{name}.")]
            if not covered:
                raise ValueError(f"gibbs: no latent site is named '{name}'.{nearest(name, addresses)}")
            for address in covered:
                if owner.setdefault(address, k) != k:
                    raise ValueError(
                        f"gibbs: site '{address}' is in two blocks, {_said(blocks[owner[address]])} and {_said(block)}. "
                        "Each site belongs to one; use cycle(...) to move a site in several ways."
                    )
    left = [address for address in addresses if address not in owner]
    rest = next((k for k, block in enumerate(blocks) if block == (...,)), None)
    if rest is None and left:
        verb = "sites {} are" if len(left) > 1 else "site {} is"
        raise ValueError(f"gibbs: {verb.format(quote(left))} in no block. Add a kernel for all other sites: ...: NUTS().")
    if rest is not None and not left:
        raise ValueError("gibbs: ... stands for all other sites, but every site is in another block. Leave it out.")
    owner |= dict.fromkeys(left, -1 if rest is None else rest)
    return [tuple(i for i, address in enumerate(addresses) if owner[address] == k) for k in range(len(blocks))]


def _said(block: tuple[Name, ...]) -> str:
    return quote(str(name) for name in block)
