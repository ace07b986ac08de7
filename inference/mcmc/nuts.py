"""NUTS: Hamiltonian Monte Carlo that stops a trajectory when it turns back.

A trajectory is doubled, forward or backward in time at random, until its ends move towards each other or a step
diverges; the next draw is one of its points, taken with probability proportional to exp(-energy), later doublings
preferred (Hoffman and Gelman, JMLR 15, 2014; multinomial weights and biased progressive sampling: Betancourt,
arXiv:1701.02434). Doubling is a loop, not a recursion (Phan, Pradhan and Jankowiak, arXiv:1912.11554), and the compiled
program holds the gradient of the target exactly once.

Three choices keep the loop over leapfrog steps small, because on a CPU a small model costs what its loop costs:

- *Turning* is displacement times momentum, as in the first paper: no running sums of momenta, the same for any metric.
- *Momentum points outward*: growing backward in time is growing forward with the momentum reversed.
- *No random number is drawn inside the loop.* Going through the points of a subtree, the candidate is replaced by the
  point that brings the log of the total weight to L with probability 1 - exp(L' - L), where L' was the log total before.
  So, after a replacement at L, no replacement happens until the log total passes L + E, with E a standard exponential
  (Efraimidis and Spirakis, Inf. Proc. Lett. 97, 2006, "exponential jumps"). A subtree of n points of like weight
  replaces its candidate about log n times.

```python
kernel = NUTS()                  # step size and metric are learned in warm-up
kernel = NUTS(max_depth=8)       # at most 2**8 - 1 gradients per draw
```
"""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from ..integrators import Phase, velocity_verlet
from ..kernel import UNEVALUATED, Kernel
from ..metrics import Metric
from ..numerics import finite_or, population_count, select, trailing_ones

DIVERGENCE = 1000.0  # largest energy error of a leapfrog step, in nats, as in Stan

# Replacements of candidates in one draw: at most about ln n + 0.6 in the mean for a subtree of n like points, 37 in all
# for ten full doublings, with a variance no larger. Past 128 the exponentials are used again; that is 15 sd away.
NUM_JUMPS = 128


class NUTSState(NamedTuple):
    """Where a chain is: `position` (dim,), its `log_density` () and `gradient` (dim,)."""

    position: jax.Array
    log_density: jax.Array
    gradient: jax.Array


class NUTSInfo(NamedTuple):
    """Statistics of one transition, under the names that ArviZ uses; all scalars."""

    lp: jax.Array
    acceptance_rate: jax.Array
    step_size: jax.Array
    n_steps: jax.Array
    tree_depth: jax.Array
    energy: jax.Array
    diverging: jax.Array
    reached_max_treedepth: jax.Array


class Candidate(NamedTuple):
    """A point of the trajectory that may become the draw."""

    position: jax.Array
    log_density: jax.Array
    gradient: jax.Array
    energy: jax.Array


class Subtree(NamedTuple):
    """A half of the trajectory while it grows away from the other half."""

    leaf: Phase
    candidate: Candidate
    log_weight: jax.Array  # of all its points together
    threshold: jax.Array  # log_weight at which the candidate is next replaced
    num_leaves: jax.Array
    num_jumps: jax.Array
    sum_acceptance: jax.Array
    turning: jax.Array
    diverging: jax.Array
    marks: jax.Array  # (max_depth + 1, 2, dim): position and momentum of the first points of open sub-subtrees


class Tree(NamedTuple):
    """The whole trajectory between doublings; `ends` holds (backward, forward) with momenta pointing outward."""

    ends: Phase
    candidate: Candidate
    log_weight: jax.Array
    depth: jax.Array
    n_steps: jax.Array
    num_jumps: jax.Array
    sum_acceptance: jax.Array
    stop: jax.Array
    diverging: jax.Array


class Departure(NamedTuple):
    """What is settled before a trajectory begins: its step, how often it may double, its energy, and all random choices."""

    step_size: jax.Array
    max_depth: jax.Array
    energy: jax.Array
    directions: jax.Array  # (max_depth,): exponentials, as are all
    merges: jax.Array  # (max_depth,)
    jumps: jax.Array  # (NUM_JUMPS,)


class Flight(NamedTuple):
    """A transition on its way: the tree, and the subtree that grows next to it."""

    departure: Departure
    tree: Tree
    subtree: Subtree

    @property
    def landed(self):
        return self.tree.stop


class NUTS(Kernel):
    """The No-U-Turn Sampler with multinomial weights.

    - `step_size`: leapfrog step; `None`: learned in warm-up.
    - `metric`: a `Metric`; `None`: learned in warm-up.
    - `max_depth`: a trajectory doubles at most this often.
    """

    step_size: jax.Array | float | None = None
    metric: Metric | None = None
    max_depth: int = eqx.field(static=True, default=10)

    learns: ClassVar[tuple[str, ...]] = ("step_size", "metric")

    def __check_init__(self):
        if not 1 <= self.max_depth <= 20:
            raise ValueError(f"NUTS: max_depth must be between 1 and 20, got {self.max_depth}.")

    @property
    def flies(self) -> bool:
        return True

    def init(self, key, target, position) -> NUTSState:
        """Costs no density: the first `step` evaluates the position and stays there."""
        return NUTSState(position, jnp.asarray(UNEVALUATED, position.dtype), jnp.zeros_like(position))

    def step(self, key, state: NUTSState, target) -> tuple[NUTSState, NUTSInfo]:
        """A flight, as two loops: for one chain they are faster than one loop that asks after every leapfrog step."""
        departure, tree, subtree = self.launch(key, state, target)

        def double(tree: Tree) -> Tree:
            grown = lax.while_loop(
                lambda s: ~_complete(tree, s),
                lambda s: self._grow(departure, s, target),
                _sprout(departure, tree, subtree.marks),
            )
            return _join(departure, tree, grown)

        tree = lax.while_loop(lambda t: ~t.stop, double, tree)
        return self.land(Flight(departure, tree, subtree))

    def launch(self, key, state: NUTSState, target) -> Flight:
        if self.step_size is None or self.metric is None:
            raise ValueError("NUTS: step size and metric must be known to take a step; see inference.adapted.")
        position, log_density, gradient = state
        dtype = position.dtype
        # A state not yet evaluated makes one step of length zero, which is always accepted if its density is finite.
        known = log_density > 0.5 * UNEVALUATED
        key_momentum, key_choices = jax.random.split(key)
        momentum = self.metric.momentum(jax.random.normal(key_momentum, position.shape, dtype))
        choices = jax.random.exponential(key_choices, (2 * self.max_depth + NUM_JUMPS,), dtype)
        energy = self.metric.kinetic_energy(momentum) - log_density
        departure = Departure(
            jnp.where(known, jnp.asarray(self.step_size, dtype), 0.0),
            jnp.where(known, self.max_depth, 1),
            energy,
            *jnp.split(choices, [self.max_depth, 2 * self.max_depth]),
        )
        tree = Tree(
            ends=Phase(jnp.stack([position, position]), jnp.stack([-momentum, momentum]), jnp.stack([gradient, gradient])),
            candidate=Candidate(position, log_density, gradient, energy),
            log_weight=jnp.zeros((), dtype),
            depth=jnp.int32(0),
            n_steps=jnp.int32(0),
            num_jumps=jnp.int32(0),
            sum_acceptance=jnp.zeros((), dtype),
            stop=jnp.bool_(False),
            diverging=jnp.bool_(False),
        )
        return Flight(departure, tree, _sprout(departure, tree, jnp.zeros((self.max_depth + 1, 2, *position.shape), dtype)))

    def fly(self, flight: Flight, target) -> Flight:
        departure, tree, subtree = flight
        subtree = self._grow(departure, subtree, target)
        join = _complete(tree, subtree) & ~tree.stop
        tree = select(join, _join(departure, tree, subtree), tree)
        next_one = _sprout(departure, tree, subtree.marks)._replace(marks=None)
        subtree = select(join, next_one, subtree._replace(marks=None))._replace(marks=subtree.marks)
        return Flight(departure, tree, subtree)

    def land(self, flight: Flight) -> tuple[NUTSState, NUTSInfo]:
        tree, chosen = flight.tree, flight.tree.candidate
        state = NUTSState(chosen.position, chosen.log_density, chosen.gradient)
        info = NUTSInfo(
            lp=chosen.log_density,
            acceptance_rate=tree.sum_acceptance / tree.n_steps,
            step_size=flight.departure.step_size,
            n_steps=tree.n_steps,
            tree_depth=tree.depth,
            energy=chosen.energy,
            diverging=tree.diverging,
            reached_max_treedepth=tree.depth >= self.max_depth,
        )
        return state, info

    def _grow(self, departure: Departure, subtree: Subtree, target) -> Subtree:
        """One leapfrog step: the only place where the target is evaluated."""
        assert self.metric is not None  # `launch` saw to it
        leaf, log_density = velocity_verlet(subtree.leaf, target, self.metric, departure.step_size)
        energy = self.metric.kinetic_energy(leaf.momentum) - log_density
        log_ratio = finite_or(departure.energy - energy, -jnp.inf)
        log_weight = jnp.logaddexp(subtree.log_weight, log_ratio)
        replace = log_weight > subtree.threshold
        candidate = Candidate(leaf.position, log_density, leaf.gradient, energy)
        marks, turning = check_turning(subtree.marks, leaf, subtree.num_leaves)
        return Subtree(
            leaf=leaf,
            candidate=select(replace, candidate, subtree.candidate),
            log_weight=log_weight,
            threshold=jnp.where(replace, log_weight + departure.jumps[subtree.num_jumps % NUM_JUMPS], subtree.threshold),
            num_leaves=subtree.num_leaves + 1,
            num_jumps=subtree.num_jumps + replace,
            sum_acceptance=subtree.sum_acceptance + jnp.exp(jnp.minimum(log_ratio, 0.0)),
            turning=turning,
            diverging=log_ratio < -DIVERGENCE,
            marks=marks,
        )


def _side(departure: Departure, tree: Tree):
    """The end at which the tree grows next: 0 backward, 1 forward in time."""
    return (departure.directions[tree.depth] < jnp.log(2.0)).astype(jnp.int32)


def _sprout(departure: Departure, tree: Tree, marks) -> Subtree:
    """A subtree without leaves, at a random end. Old `marks` do no harm: none is read before it is written."""
    side, minus_inf = _side(departure, tree), jnp.full_like(tree.log_weight, -jnp.inf)
    return Subtree(
        leaf=jax.tree.map(lambda end: jnp.where(side == 1, end[1], end[0]), tree.ends),
        candidate=tree.candidate,
        log_weight=minus_inf,
        threshold=minus_inf,
        num_leaves=jnp.int32(0),
        num_jumps=tree.num_jumps,
        sum_acceptance=tree.sum_acceptance,
        turning=jnp.bool_(False),
        diverging=jnp.bool_(False),
        marks=marks,
    )


def _complete(tree: Tree, subtree: Subtree):
    """Whether the subtree is as large as the tree, or is given up."""
    return (subtree.num_leaves >= (1 << tree.depth)) | subtree.turning | subtree.diverging


def _join(departure: Departure, tree: Tree, subtree: Subtree) -> Tree:
    """The tree with the subtree joined on, if it is sound."""
    side = _side(departure, tree)
    sound = ~subtree.turning & ~subtree.diverging
    replace = sound & (tree.log_weight - subtree.log_weight < departure.merges[tree.depth])
    ours = jnp.arange(2)[:, None] == side
    ends = jax.tree.map(lambda end, leaf: jnp.where(ours, leaf, end), tree.ends, subtree.leaf)
    displacement = ends.position[1] - ends.position[0]
    turning = (displacement @ ends.momentum[1] <= 0) | (displacement @ ends.momentum[0] >= 0)
    depth = tree.depth + sound
    return Tree(
        ends=ends,
        candidate=select(replace, subtree.candidate, tree.candidate),
        log_weight=jnp.logaddexp(tree.log_weight, subtree.log_weight),
        depth=depth,
        n_steps=tree.n_steps + subtree.num_leaves,
        num_jumps=subtree.num_jumps,
        sum_acceptance=subtree.sum_acceptance,
        stop=~sound | turning | (depth >= departure.max_depth),
        diverging=subtree.diverging,
    )


def check_turning(marks, leaf: Phase, n):
    """Whether the sub-subtrees that end with leaf number `n` (from 0) turn back; and the marks with leaf `n` added.

    Leaf n of even number opens sub-subtrees and is kept in row popcount(n >> 1); a leaf of odd number closes as many as
    its binary form ends in ones, whose first leaves lie in consecutive rows up to popcount(n >> 1).
    """
    num_rows = marks.shape[0] - 1  # the last row is never read: leaves of odd number are written there
    last = population_count(n >> 1)
    marks = lax.dynamic_update_index_in_dim(
        marks, jnp.stack([leaf.position, leaf.momentum]), jnp.where((n & 1) == 1, num_rows, last), axis=0
    )
    return marks, _any_turns(marks, leaf.position, leaf.momentum, last - trailing_ones(n), last)


@jax.custom_batching.custom_vmap
def _any_turns(marks, position, momentum, above, last):
    """Whether a trajectory to `position` turns back that began at one of the marks in rows above + 1 to last."""
    num_rows = marks.shape[0] - 1
    displacement = position - marks[:num_rows, 0]
    here = jnp.sum(displacement * momentum, axis=1)
    there = jnp.sum(displacement * marks[:num_rows, 1], axis=1)
    rows = jnp.arange(num_rows, dtype=last.dtype)
    return jnp.any((rows <= last) & (rows > above) & ((here <= 0) | (there <= 0)))


@_any_turns.def_vmap
def _(size, batched, *args):
    """For many chains: row by row, as on average there is one row. That is up to three times as fast as a look at all rows;
    for one chain the loop would cost more than it saves."""

    def one(marks, position, momentum, above, last):
        def close(carry):
            row, _ = carry
            first = lax.dynamic_index_in_dim(marks, row, axis=0, keepdims=False)
            displacement = position - first[0]
            here, there = jnp.sum(displacement * momentum), jnp.sum(displacement * first[1])
            return row - 1, (here <= 0) | (there <= 0)

        return lax.while_loop(lambda c: (c[0] > above) & ~c[1], close, (last, jnp.bool_(False)))[1]

    return jax.vmap(one, in_axes=[0 if b else None for b in batched], axis_size=size)(*args), True
