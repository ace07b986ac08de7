"""The only loop: a host loop over compiled chunks.

An algorithm gives `advance(lane, state, start, num) -> (state, record)`, a compiled program that takes `num` steps. This
loop decides how many steps a chunk has (about a tenth of a second), keeps the records, moves the progress bar, minds the
budget, and on Ctrl-C stops after the chunks in flight and returns what is done. Nothing inside a compiled program calls
back to the host. At the borders of chunks, and at the end however it came, a keeper (see `inference.store`) may write
down where the run stands. A route, given in place of the number of steps, says where all lanes wait for each other, is shown
the run there, and says how far to go on from there, or why not to.

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
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from .progress import Progress, Silent

CHUNK_SECONDS = 0.1


class Keeper(Protocol):
    """What keeps a run, asked whenever a lane has ended a chunk, by one thread at a time."""

    def due(self, record) -> bool:
        """Whether `save` should be called now; `record` is what the chunk left."""
        ...

    def save(self, states: list[Any], records: list[list[Any]], done: list[int]) -> None:
        """The states of all lanes, what led to them since the last call, and the steps taken. May empty the lists in
        `records`."""
        ...


class Goal(NamedTuple):
    """Where all lanes are to wait for each other."""

    steps: int
    most: int  # steps that the run will have in all, as far as is known


class Outcome(NamedTuple):
    """What a run came to."""

    states: list[Any]  # one per lane
    records: list[list[Any]]  # per lane, one per chunk, cut to the steps taken; without those that a keeper took
    done: list[int]  # steps taken, per lane, with those taken before
    steps: int  # those that count: every lane has them, and where a rule ended the run it looked at no more
    seconds: float
    reason: str | None  # why it stopped early: "interrupted", "budget", what the route said, or None


# Yields goals, the last of them at its `most`; is sent the run so far when all lanes are there; returns why to stop early.
Route = Generator[Goal, Outcome, str | None]


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
    steps: int | Route,
    *,
    start: int = 0,
    most: int = 1000,
    workers: int = 1,
    pace: float = CHUNK_SECONDS,
    progress: Progress | None = None,
    budget: float | str | None = None,
    done: Sequence[int] | None = None,
    keeper: Keeper | None = None,
) -> Outcome:
    """Take steps in every lane until it has `steps` of them, or has gone a route.

    - `advance(lane, state, start, num)` returns the new state and a record: a pytree whose leaves have the steps on axis
      1, after an axis over the lane's members, with at least `num` filled.
    - `states`: the state of each lane. `start`: the number of the first step. `most`: the longest chunk.
    - `workers`: how many lanes to drive at a time. `pace`: how many seconds a chunk should take.
    - `done`: the steps that each lane has taken before, in an earlier part of this run.
    - `keeper`: is given what is done, and at the end what it has not seen yet.

    Goals that were passed in an earlier part are shown to a route again: so where it leads does not depend on interruptions.
    """
    bar = Silent() if progress is None else progress
    drive = _Drive(advance, states, start, most, pace, seconds(budget), bar, done, keeper)
    route = _straight(steps) if isinstance(steps, int) else steps
    reason, goal = None, next(route)
    drive.bar.begin(goal.most * len(states), sum(min(goal.most, taken) for taken in drive.done))
    try:
        while True:
            drive.to(goal.steps, workers)
            if drive.stop.is_set():
                break
            if goal.steps < goal.most:
                drive.keep()
            most, goal = goal.most, route.send(drive.outcome(goal.steps, None))
            if goal.most != most:
                drive.bar.change(goal.most * len(states))
    except StopIteration as end:
        reason = end.value
    except KeyboardInterrupt:
        reason = "interrupted"
        drive.halt()
    finally:
        drive.bar.end()
        drive.keep()
    if reason is None and min(drive.done) < goal.most:
        reason = "budget"
    return drive.outcome(goal.steps, reason)


def _straight(steps: int) -> Route:
    yield Goal(steps, steps)


class _Drive:
    """The lanes of a run, and the threads that drive them."""

    def __init__(self, advance, states, start: int, most: int, pace: float, limit: float, bar: Progress, done, keeper):
        self.advance, self.start, self.most, self.pace = advance, start, most, pace
        self.limit, self.bar, self.keeper = limit, bar, keeper
        self.states, self.records, self.rates = list(states), [[] for _ in states], [0.0] * len(states)
        self.done = [0] * len(self.states) if done is None else list(done)
        self.waiting, self.lock, self.stop = set(range(len(self.states))), threading.Lock(), threading.Event()
        self.threads, self.errors, self.begun = [], [], time.monotonic()

    def to(self, goal: int, workers: int) -> None:
        """Drive every lane to `goal` steps, or until something stops the run."""
        num = max(1, min(workers, len(self.states)))
        self.threads = [threading.Thread(target=self._guarded, args=(goal,), daemon=True) for _ in range(num)]
        for thread in self.threads:
            thread.start()
        for thread in self.threads:
            while thread.is_alive():
                thread.join(0.05)
        if self.errors:
            raise self.errors[0]

    def halt(self) -> None:
        """Stop after the chunks in flight."""
        self.stop.set()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def keep(self) -> None:
        if self.keeper is not None:
            with self.lock:  # after a second Ctrl-C threads may still be running
                self.keeper.save(self.states, self.records, self.done)

    def outcome(self, goal: int, reason: str | None) -> Outcome:
        spent = time.monotonic() - self.begun if any(self.rates) else 0.0  # a run that was only read took none
        return Outcome(self.states, self.records, self.done, min(*self.done, goal), spent, reason)

    def _guarded(self, goal: int) -> None:
        try:
            while not self.stop.is_set() and (taken := self._take(goal)):
                self._chunk(*taken)
        except BaseException as error:  # handed to the caller's thread
            self.errors.append(error)
            self.stop.set()

    def _take(self, goal: int) -> tuple[int, int] | None:
        """The lane that is furthest behind of those that wait, and how many steps it should take; None: none is left."""
        with self.lock:
            behind = [lane for lane in self.waiting if self.done[lane] < goal]
            if not behind:
                return None
            lane = min(behind, key=lambda lane: (self.done[lane], lane))
            self.waiting.discard(lane)
        rate = self.rates[lane]
        return lane, min(goal - self.done[lane], self.most, max(1, int(self.pace * rate)) if rate else 16)

    def _chunk(self, lane: int, num: int) -> None:
        tick, first = time.monotonic(), self.done[lane]
        if tick - self.begun > self.limit:
            self.stop.set()
            return
        state, record = self.advance(lane, self.states[lane], np.int32(self.start + first), np.int32(num))
        record = _first(num, record)
        with self.lock:
            self.rates[lane] = num / max(time.monotonic() - tick, 1e-9)
            self.states[lane] = state
            self.records[lane].append(record)
            self.done[lane] += num
            self.waiting.add(lane)
            if self.keeper is not None and self.keeper.due(record):
                self.keeper.save(self.states, self.records, self.done)
        self.bar.update(num, record, first)


def _first(num: int, record):
    """The first `num` steps of a chunk's record, as NumPy arrays of their own."""
    return jax.tree.map(lambda x: np.array(np.asarray(x)[:, :num]), record)
