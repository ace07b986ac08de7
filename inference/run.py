"""The only loop: a host loop over compiled chunks.

An algorithm gives `advance(lane, state, start, num) -> (state, record)`, a compiled program that takes `num` steps. This
loop decides how many steps a chunk has (about a tenth of a second), keeps the records, moves the progress bar, minds the
budget, and on Ctrl-C stops after the chunks in flight and returns what is done. Nothing inside a compiled program calls
back to the host. At the borders of chunks, and at the end however it came, a keeper (see `inference.store`) may write
down where the run stands.

Several lanes (chains that do not wait for each other) are driven by a pool of threads; the lane that is furthest behind
goes first, so an interrupted run has lanes of nearly equal length.

```python
outcome = run(advance, states, steps, workers=2, progress=bar, budget="60s")
outcome.states, outcome.records, outcome.reason
```
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from .progress import Progress, Silent

CHUNK_SECONDS = 0.1


class Keeper(Protocol):
    """What keeps a run, asked whenever a lane has ended a chunk, by one thread at a time."""

    def due(self) -> bool:
        """Whether `save` should be called now."""
        ...

    def save(self, states: list[Any], records: list[list[Any]], done: list[int]) -> None:
        """The states of all lanes, what led to them since the last call, and the steps taken. May empty the lists in
        `records`."""
        ...


class Outcome(NamedTuple):
    """What a run came to."""

    states: list[Any]  # one per lane
    records: list[list[Any]]  # per lane, one per chunk, cut to the steps taken; without those that a keeper took
    done: list[int]  # steps taken, per lane, with those taken before
    seconds: float
    reason: str | None  # why it stopped early: "interrupted", "budget", or None


def seconds(budget) -> float:
    """A budget in seconds: a number, or text such as "90s", "5min", "2h". None: no limit."""
    if budget is None:
        return float("inf")
    if isinstance(budget, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(s|sec|min|m|h)\s*", budget)
        if match is None:
            raise ValueError(f'budget: expected seconds or text like "90s", "5min" or "2h", got {budget!r}.')
        return float(match[1]) * {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}[match[2]]
    if not budget > 0:
        raise ValueError(f"budget: expected a positive number of seconds, got {budget}.")
    return float(budget)


def run(
    advance: Callable,
    states: Sequence[Any],
    steps: int,
    *,
    start: int = 0,
    most: int = 1000,
    workers: int = 1,
    progress: Progress | None = None,
    budget: float | str | None = None,
    done: Sequence[int] | None = None,
    keeper: Keeper | None = None,
) -> Outcome:
    """Take steps in every lane until it has `steps` of them.

    - `advance(lane, state, start, num)` returns the new state and a record: a pytree whose leaves have the steps on axis
      1, after an axis over the lane's members, with at least `num` filled.
    - `states`: the state of each lane. `start`: the number of the first step. `most`: the longest chunk.
    - `workers`: how many lanes to drive at a time.
    - `done`: the steps that each lane has taken before, in an earlier part of this run.
    - `keeper`: is given what is done, and at the end what it has not seen yet.
    """
    limit = seconds(budget)
    bar = Silent() if progress is None else progress
    states, records, rates = list(states), [[] for _ in states], [0.0] * len(states)
    done = [0] * len(states) if done is None else list(done)
    waiting, lock, stop, errors = set(range(len(states))), threading.Lock(), threading.Event(), []
    begun = time.monotonic()

    def drive():
        while not stop.is_set():
            with lock:
                open_lanes = [lane for lane in waiting if done[lane] < steps]
                if not open_lanes:
                    return
                lane = min(open_lanes, key=lambda lane: (done[lane], lane))
                waiting.discard(lane)
            num = min(steps - done[lane], most, max(1, int(CHUNK_SECONDS * rates[lane])) if rates[lane] else 16)
            tick = time.monotonic()
            if tick - begun > limit:
                stop.set()
                return
            state, record = advance(lane, states[lane], np.int32(start + done[lane]), np.int32(num))
            record = _first(num, record)
            with lock:
                rates[lane] = num / max(time.monotonic() - tick, 1e-9)
                states[lane] = state
                records[lane].append(record)
                done[lane] += num
                waiting.add(lane)
                if keeper is not None and keeper.due():
                    keeper.save(states, records, done)
            bar.update(num, record)

    def guarded():
        try:
            drive()
        except BaseException as error:  # handed to the caller's thread
            errors.append(error)
            stop.set()

    reason = None
    threads = [threading.Thread(target=guarded, daemon=True) for _ in range(max(1, min(workers, len(states))))]
    bar.begin(sum(max(0, steps - taken) for taken in done))
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.05)
    except KeyboardInterrupt:
        reason = "interrupted"
        stop.set()
        for thread in threads:
            thread.join()
    finally:
        bar.end()
        if keeper is not None:
            with lock:  # after a second Ctrl-C threads may still be running
                keeper.save(states, records, done)
    if errors:
        raise errors[0]
    if reason is None and min(done) < steps:
        reason = "budget"
    return Outcome(states, records, done, time.monotonic() - begun, reason)


def _first(num: int, record):
    """The first `num` steps of a chunk's record, as NumPy arrays of their own."""
    return jax.tree.map(lambda x: np.array(np.asarray(x)[:, :num]), record)
