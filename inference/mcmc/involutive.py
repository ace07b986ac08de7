"""Involutive MCMC: any move that undoes itself, with the user's own program as proposal.

A program draws auxiliary choices a, given the current choices x; an involution takes (x, a) to (x', a'), and (x', a') back to
(x, a). The move to x' is accepted with probability

    min(1, p(x') q(a' | x') |det J| / [p(x) q(a | x)]),     J the Jacobian of the involution in the real coordinates

p the program's density, q the proposal's. The user writes what moves where; densities, Jacobian and transforms are found by
themselves. Metropolis-Hastings, split and merge, label swaps and jumps between dimensions are all of this form.
(Cusumano-Towner, Lew and Mansinghka, arXiv:2007.09871; Neklyudov, Welling, Egorov and Vetrov, ICML 2020, arXiv:2006.16653;
jumps: Green, Biometrika 82, 1995.)

```python
@ppl.model
def walk(choices):
    ppl.sample("step", dist.Normal(0.0, 0.5))

def forward_or_back(choices, auxiliary):
    return choices | {"mu": choices["mu"] + auxiliary["step"]}, {"step": -auxiliary["step"]}

kernel = inf.involutive(walk, forward_or_back)
```

*Jumps* between numbers of components happen in one space of fixed shape. What is not in use is masked, so that it has no
density, `dist.Normal(0.0, 5.0).mask(num > 1)`, in the program and in the proposal; and the involution swaps what is left over,
that every coordinate goes somewhere. The Jacobian is then that of the jump.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ppl

from ..kernel import Kernel
from .initial import Uniform
from .metropolis import State, accept, at


class InvolutiveInfo(NamedTuple):
    """Statistics of one transition; all scalars. `num_evaluations`: densities of the program computed, always one."""

    lp: jax.Array
    acceptance_rate: jax.Array
    num_evaluations: jax.Array


class Involutive(Kernel):
    """See `involutive`."""

    proposal: Callable[[Any], ppl.Program] = eqx.field(static=True)
    involution: Callable[[Any, Any], Any] = eqx.field(static=True)

    def check(self, target) -> None:
        """Whole numbers may move too. Refuses an involution that, applied twice at random points, does not come back."""
        keys = jax.random.split(jax.random.key(0), CHECKED)
        there_and_back = jax.jit(jax.vmap(lambda key: self._there_and_back(key, target)))
        before, after, possible = (np.asarray(x) for x in there_and_back(keys))
        tolerance = 10 * np.sqrt(np.finfo(before.dtype).eps) * (1.0 + np.abs(before))
        wrong = possible[:, None] & ~(np.abs(after - before) <= tolerance)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            names = target.names + self._auxiliary(target.constrain(jnp.asarray(before[0, : target.dim]))).names
            raise ValueError(
                "involutive: the involution must undo itself, but applied twice it takes "
                f"{names[column]} from {before[row, column]:.4g} to {after[row, column]:.4g} (on the unconstrained scale)."
            )

    def init(self, key, target, position) -> State:
        return at(target, position)

    def step(self, key, state: State, target) -> tuple[State, InvolutiveInfo]:
        key_propose, key_accept = jax.random.split(key)
        here = self._auxiliary(target.constrain(state.position))
        drawn = here.draw(key_propose)
        position, back = self.move(target, state.position, drawn)
        there, new = self._auxiliary(target.constrain(position)), at(target, position)
        log_ratio = new.log_density - state.log_density + back_and_forth(here, drawn, there, back)
        real = ~np.concatenate([target.is_discrete, here.is_discrete])
        log_ratio += log_volume(lambda u, a: self.move(target, u, a), state.position, drawn, real)
        state, rate = accept(key_accept, log_ratio, new, state)
        return state, InvolutiveInfo(state.log_density, rate, jnp.int32(1))

    def move(self, target, position, auxiliary):
        """The involution on vectors: a position of the target (dim,), and one of the proposal (dim of it,)."""
        choices = target.constrain(position)
        moved = self.involution(choices, self._auxiliary(choices).constrain(auxiliary))
        if not (isinstance(moved, tuple) and len(moved) == 2):
            raise ValueError(
                "involutive: the involution must return the pair (new choices, new auxiliary choices), but it returned a "
                f"{type(moved).__name__}."
            )
        choices, back = moved
        return target.unconstrain(choices).astype(position.dtype), self._auxiliary(choices).unconstrain(back, position.dtype)

    def _auxiliary(self, choices) -> "Auxiliary":
        program = self.proposal(choices)
        if not isinstance(program, ppl.Program):
            raise ValueError(
                f"involutive: the proposal must be a model, decorated with ppl.model, got a function that returns "
                f"{type(program).__name__}."
            )
        return Auxiliary(program)

    def _there_and_back(self, key, target):
        """A random point (dim of target and proposal,), the point after two moves, and whether the first was possible."""
        key_position, key_auxiliary = jax.random.split(key)
        position = Uniform().position(key_position, target)
        here = self._auxiliary(target.constrain(position))
        drawn = here.draw(key_auxiliary).astype(position.dtype)
        moved, back = self.move(target, position, drawn)
        density = target.log_density(moved) + self._auxiliary(target.constrain(moved)).log_density(back)
        return jnp.concatenate([position, drawn]), jnp.concatenate(self.move(target, moved, back)), jnp.isfinite(density)


CHECKED = 64  # random points at which the door looks whether the involution undoes itself


def involutive(proposal: Callable[[Any], ppl.Program], involution: Callable[[Any, Any], Any]) -> Involutive:
    """A kernel that draws auxiliary choices from `proposal`, moves by `involution`, and accepts or rejects.

    - `proposal`: a `ppl.model` of one argument, the current choices (a nested dict, constrained). With no random choice in it
      the move is deterministic: a swap of labels, say.
    - `involution`: from (choices, auxiliary choices) to a pair of the same form; written with `jnp`, differentiable in the
      real choices; whole numbers are carried along. Where a move makes no sense, return choices of density zero.

    The Jacobian is computed in forward mode and factorised: (n real choices)^3 for a move. Chains may move on discrete sites.

    Raises:
        ValueError: from `mcmc`, when the involution, applied twice at random points, does not come back.

    Example:
        `inf.cycle(inf.involutive(split_or_merge, flip), inf.involutive(walk, forward_or_back))`
    """
    if not (callable(proposal) and callable(involution)):
        wrong = involution if callable(proposal) else proposal
        raise ValueError(f"involutive: expected a model and a function, got {type(wrong).__name__}.")
    return Involutive(proposal, involution)


class Auxiliary:
    """The proposal given certain choices, over a flat vector of unconstrained coordinates; of none if nothing is drawn."""

    def __init__(self, program: ppl.Program) -> None:
        self.program = program
        latent = any(row.kind == "latent" for row in program.sites().values())
        self.target = ppl.Target(program) if latent else None

    @property
    def names(self) -> tuple[str, ...]:
        return self.target.names if self.target else ()

    @property
    def is_discrete(self) -> np.ndarray:
        return self.target.is_discrete if self.target else np.zeros(0, bool)

    def draw(self, key):
        return self.unconstrain(self.program.simulate(key).choices, float)

    def log_density(self, vector):
        return self.target.log_density(vector) if self.target else jnp.zeros(())

    def constrain(self, vector):
        return self.target.constrain(vector) if self.target else {}

    def unconstrain(self, choices, dtype):
        return self.target.unconstrain(choices).astype(dtype) if self.target else jnp.zeros(0, dtype)


def back_and_forth(here: Auxiliary, drawn, there: Auxiliary, back):
    """log q(back | new) - log q(drawn | old), a scalar."""
    return there.log_density(back) - here.log_density(drawn)


def log_volume(move, position, auxiliary, real):
    """log |det| of the Jacobian of `move` in the coordinates that are `real` (bool, of position and auxiliary together)."""
    whole, dim = jnp.concatenate([position, auxiliary.astype(position.dtype)]), len(position)

    def moved(values):
        vector = whole.at[real].set(values)
        return jnp.concatenate(move(vector[:dim], vector[dim:]))[real]

    return jnp.linalg.slogdet(jax.jacfwd(moved)(whole[real]))[1]
