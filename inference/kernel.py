"""Kernel: a Markov transition that leaves a target invariant, as a settings object with pure functions.

```python
state       = kernel.init(key, target, position)      # state: a NamedTuple of arrays, with a field `position`
state, info = kernel.step(key, state, target)         # info: a NamedTuple of scalars, one value per statistic
state       = kernel.learn(i, state, info)            # in warm-up only; most kernels leave it to adapted(kernel)
```

A kernel is an `equinox.Module`: what it may tune (step size, metric) are fields holding arrays, what shapes the program
(the largest tree depth) is static. Kernels describe one chain; `vmap` makes many. Finished kernels are wrapped, never
subclassed: `adapted(kernel)` is a kernel whose state carries the kernel's settings.

Glossary, the same words everywhere in `inference`:

    key          a typed JAX key, `jax.random.key(0)`; chain c uses fold_in(key, c), its draw i fold_in(that, i)
    position     flat vector (dim,) of unconstrained coordinates: what kernels move
    draw         one recorded state; arrays of draws lead with (chain, draw)
    log_density  +log p at a position, Jacobian included, up to a constant; `lp` in the statistics, as ArviZ has it
    gradient     gradient of log_density at a position
    momentum     the auxiliary velocity-like variable of Hamiltonian methods, (dim,)
    energy       kinetic energy - log_density
    divergence   a trajectory left because its energy error passed 1000 or was not a number
    init / step  begin a chain / one transition
    info         the statistics of one transition; names as ArviZ writes them
    num_*        counts
"""

import abc
from typing import Any, ClassVar

import equinox as eqx

# The axis over all chains, by which kernels that move them together reach the others: lax.pmean(x, CHAINS).
CHAINS = "chains"


class Kernel(eqx.Module):
    """The contract of every MCMC kernel; see the file's docstring for the words.

    - `learns`: names of the settings that warm-up learns where they are None: "step_size", "metric".
    - `learns_itself`: those of them that its own `learn` finds; `adapted` calls it with the metric found so far.
    - `exact`: False where the draws are biased, however many; `posterior.check()` says so.
    - `shares`: whether `init` and `step` draw by `inference.noise` alone, so that chains side by side may share a key.
    - `target_acceptance`: the mean acceptance rate that the step size is to reach.
    """

    learns: ClassVar[tuple[str, ...]] = ()
    learns_itself: ClassVar[tuple[str, ...]] = ()
    exact: ClassVar[bool] = True
    shares: ClassVar[bool] = False
    target_acceptance: ClassVar[float] = 0.8

    @property
    def together(self) -> bool:
        """Whether it looks at the other chains, over the axis CHAINS; then all run in one program."""
        return False

    @property
    def flies(self) -> bool:
        """Whether a step can be taken apart, so that chains side by side need not wait for each other's longer steps:

            flight = kernel.launch(key, state, target)       # a NamedTuple of arrays, with a boolean `landed`
            flight = kernel.fly(flight, target)              # until it has landed; each costs one gradient
            state, info = kernel.land(flight)                # as `step(key, state, target)` has them

        A flight that has landed may be flown on, and lands as it would have.
        """
        return False

    def check(self, target) -> None:
        """Raise ValueError, with a sentence, for a target that this kernel cannot move on. Called once, at the door."""
        target.refuse_discrete(type(self).__name__)

    @abc.abstractmethod
    def init(self, key, target, position) -> Any:
        """The state of a chain at `position` (dim,). Must be traceable; need not evaluate the density."""

    @abc.abstractmethod
    def step(self, key, state, target) -> tuple[Any, Any]:
        """One transition: the new state and the statistics of the move. Leaves `target` invariant."""

    def acceptance(self, info) -> Any:
        """What warm-up brings to `target_acceptance`: a statistic of a transition, in [0, 1], that falls with step size."""
        return info.acceptance_rate

    def assume(self, state, guess) -> Any:
        """The state of a chain that has not moved yet, told of a metric (LowRank) that may suit; most have no use for it."""
        return state

    def learn(self, i, state, info) -> Any:
        """The state, changed by what step number `i` of the chain (from 0) taught. The loop calls it after every step.

        It is no part of the transition, and must return `state` itself once the warm-up is over. `i` is the same for all
        chains, so a `lax.cond` on it stays a branch under `vmap`.
        """
        return state


UNEVALUATED = -1e30  # log density of a state whose position has not been evaluated, or is not finite there
