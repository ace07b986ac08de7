"""The compiled programs of a run: begin a lane, advance it, turn its positions into named draws.

They are compiled once for all lanes and for every length of a chunk (see `chain`), and again only for a model, a kernel or
a placement of another structure.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..compiled import compiled
from ..kernel import CHAINS, UNEVALUATED
from ..run import CHUNK_SECONDS
from .chain import buffer_length, chunk
from .lanes import side_by_side

MANY = 256  # chains in one program that do not wait for each other; fewer are done sooner in step
ATTEMPTS = 100  # first positions tried per chain


class Programs(NamedTuple):
    """What is compiled: `begin(kernel, target, init, key, chains, attempt)`, `advance(kernel, target, state, key, chains,
    start, num)`, `sample` like it for steps after the warm-up, or None, and `record(target, positions)`, the last for `length`
    rows."""

    begin: Any
    advance: Any
    sample: Any
    record: Any
    length: int

    @property
    def pace(self) -> float:
        """Seconds that a chunk should take: longer where chains wait for each other at its end alone."""
        return CHUNK_SECONDS if self.sample is None else 5 * CHUNK_SECONDS


def programs(kernel, target, init, placement, key, lane) -> Programs:
    """The programs for lanes like `lane`. The compiler works in the background: `advance.wait()`."""
    length = buffer_length(target.dim, len(lane))

    def begin(kernel, target, init, key, lane, attempt):
        def one(chain):
            chain_key = jax.random.fold_in(jax.random.fold_in(key, chain), -1 - attempt)  # steps count from 0 upward
            start_key = jax.random.fold_in(jax.random.fold_in(key, init.group(chain)), -1 - attempt)
            start = init.begin(start_key, target)
            state = kernel.init(chain_key, target, start.position)
            return state if start.metric is None else kernel.assume(state, start.metric), start.gradients

        if len(lane) > 1 or kernel.together:
            return jax.vmap(one, axis_name=CHAINS)(lane)
        return jax.tree.map(lambda x: jnp.asarray(x)[None], one(lane[0]))  # a program without vmap compiles in less time

    def advance(kernel, target, state, key, chain, start, num):
        return chunk(kernel, target, state, key, chain, start, num, length=length)

    def sample(kernel, target, state, key, chains, start, num):
        return side_by_side(kernel, target, state, key, chains, start, num, length=length)

    def record(target, positions):
        return jax.vmap(target.record)(positions)

    zero = np.int32(0)
    state = placement.laid_out(state_of(kernel, target, len(lane)))
    rows = jax.ShapeDtypeStruct((length, target.dim), state.position.dtype)
    name = ("mcmc", "advance", placement, length)
    longest = compiled(placement.program(advance), name, kernel, target, state, key, lane, zero, zero)
    begun = compiled(begin, ("mcmc", "begin"), kernel, target, init, key, lane, zero)
    apart = None
    if kernel.flies and len(lane) >= MANY:
        name = ("mcmc", "sample", placement, length)
        apart = compiled(placement.spread(sample), name, kernel, target, state, key, lane, zero, zero)
    return Programs(
        begun,
        longest,
        apart,
        compiled(record, ("mcmc", "record"), target, rows),
        length,
    )


def state_of(kernel, target, chains: int):
    """The shapes of the state of so many chains; wherever they begin, it has the same."""
    begun = jax.vmap(lambda position: kernel.init(jax.random.key(0), target, position), axis_name=CHAINS)
    return jax.eval_shape(begun, jax.ShapeDtypeStruct((chains, target.dim), jnp.result_type(float)))


class Lanes(NamedTuple):
    """What is run: the programs, for these lanes of chains."""

    programs: Programs
    kernel: Any
    target: Any
    init: Any
    key: Any
    chains: list[Any]  # the numbers of each lane's chains
    warmup: int  # the length of the warm-up, as far as is known

    def step(self, lane: int, state, start, num):
        """Take `num` steps, the first of them number `start`: the lane's state, and (positions, info)."""
        before = min(max(self.warmup + 1 - int(start), 0), int(num))  # steps of the warm-up
        sample = self.programs.sample or self.programs.advance
        if self.programs.sample is not None and 0 < before < num:
            state, early = self.step(lane, state, start, np.int32(before))
            state, late = self.step(lane, state, np.int32(start + before), np.int32(num - before))
            join = partial(_joined, before, int(num))
            return state, jax.tree.map(join, early, late)
        program = self.programs.advance if before else sample
        return program(self.kernel, self.target, state, self.key, self.chains[lane], start, num)

    def first(self):
        """The states of all lanes at first positions; how many gradients it took to find them, and how many positions."""
        states, gradients, tries = zip(*(self._first(lane) for lane in range(len(self.chains))), strict=True)
        return list(states), (sum(gradients), sum(tries))

    def _first(self, lane: int):
        """The lane's state at first positions of finite density: evaluated, and drawn anew where it is not finite."""
        state, (positions, info), gradients = self._evaluated(lane, 0)
        for attempt in range(1, ATTEMPTS + 1):
            found = np.asarray(info.lp[:, 0]) > 0.5 * UNEVALUATED
            if found.all():
                return state, gradients, attempt * len(self.chains[lane])
            if attempt < ATTEMPTS:
                *new, more = self._evaluated(lane, attempt)
                state, (positions, info) = jax.tree.map(partial(_pick, found), (state, (positions, info)), tuple(new))
                gradients += more
        bad = int(np.argmin(found))
        raise ValueError(
            f"mcmc: no first position found for chain {self.chains[lane][bad]} in {ATTEMPTS} tries: "
            f"{self.target.explain(positions[bad, 0])}. Check the model there, or say where to begin: init=At({{...}})."
        )

    def _evaluated(self, lane: int, attempt: int):
        """Step 0, which evaluates the first position: state, record, and the gradients that it took to find the position."""
        begin = self.programs.begin
        begun, gradients = begin(self.kernel, self.target, self.init, self.key, self.chains[lane], np.int32(attempt))
        return *self.step(lane, begun, np.int32(0), np.int32(1)), int(np.sum(gradients))


def _joined(before: int, num: int, early, late):
    """`num` rows, the first `before` of them from `early`."""
    return np.concatenate([np.asarray(early)[:, :before], np.asarray(late)[:, : num - before]], axis=1)


def _pick(found, old, new):
    """Row by row: `old` where it was found, `new` elsewhere."""
    return np.where(found.reshape(-1, *[1] * (np.ndim(old) - 1)), old, new)


def named(programs: Programs, target, positions) -> dict[str, Any]:
    """Named draws (chain, draw, ...) of positions (chain, draw, dim), in blocks of the compiled length."""
    chains, draws, dim = positions.shape
    rows = positions.reshape(chains * draws, dim)
    blocks = []
    for start in range(0, len(rows), programs.length):
        block = rows[start : start + programs.length]
        padded = np.concatenate([block, np.repeat(block[-1:], programs.length - len(block), axis=0)])
        blocks.append(jax.tree.map(np.asarray, programs.record(target, padded)))
    joined = jax.tree.map(lambda *parts: np.concatenate(parts)[: len(rows)], *blocks)
    return jax.tree.map(lambda x: x.reshape(chains, draws, *x.shape[1:]), joined)
