"""Workers: where the runs of a simulator happen. A policy object, given to `simulator(..., executor=)`.

- `InThisProcess()`: one after another, where they are asked for. The default.
- `Processes(4)`: in a pool of new processes, kept between batches. A run that takes too long, or that takes its process down
  with it, fails alone: its process is replaced.
- any `concurrent.futures.Executor`, as threads, Dask (`client.get_executor()`), Loky or mpi4py (`MPIPoolExecutor()`) offer
  them; `On(executor, timeout=600.0)` to give up on what does not answer.

```python
voltage = sur.simulator(run_cell, out, executor=sur.Processes(4, timeout=60.0))
```
What runs elsewhere is the function itself, so a worker imports the module of that function and nothing of ours. Processes are
spawned, never forked: a fork of a process in which JAX has threads may wait for ever.

Law: `run(fn, rows)` returns one `Ran` for each row, in their order, whatever the function does.
"""

import abc
import functools
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from typing import Any, NamedTuple

import jax

from inference.placement import cores

_here = threading.local()


class Ran(NamedTuple):
    """What came of a run: a value, or one line on why it failed.

    - `lost`: the failure may be the machine's and not the point's, as when there was no answer: another try may do better.
    - `refused`: a sentence, where no run can be made as things are.
    """

    value: Any = None
    failure: str | None = None
    lost: bool = False
    refused: str | None = None


class Workers(abc.ABC):
    """The contract."""

    @abc.abstractmethod
    def check(self, fn: Callable) -> None:
        """Raise ValueError, with a sentence, for a function that cannot be run here."""

    @abc.abstractmethod
    def run(self, fn: Callable, rows: Sequence[tuple]) -> list[Ran]:
        """`fn(*row)` for every row."""


class InThisProcess(Workers):
    """One run after another, in the thread that asks."""

    def check(self, fn):
        """Every function will do."""

    def run(self, fn, rows):
        return [alone(fn, row) for row in rows]

    def __repr__(self) -> str:
        return "InThisProcess()"


class Processes(Workers):
    """A pool of `num` processes (default: the cores this process may use), spawned when first needed.

    - `timeout`: seconds that one run may take; then it has failed, and its process is killed and replaced. The first run of a
      process also imports the function's module. None: no limit.

    The function must be one that a new process can import: defined at the top level of a module, not in a notebook, and its
    script must start its work under `if __name__ == "__main__":`.

    Raises:
        ValueError: for a number or a timeout that is none; for a function that cannot be imported; where no process starts.

    Example:
        `simulator(cell.run, out, executor=Processes(4, timeout=60.0))`
    """

    def __init__(self, num: int | None = None, *, timeout: float | None = None) -> None:
        if num is not None and (isinstance(num, bool) or not isinstance(num, int) or num < 1):
            raise ValueError(f"Processes: num must be a whole number of at least 1, got {num!r}.")
        self.num, self.timeout = num or cores(), _timeout("Processes", timeout)
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        for _ in range(self.num):
            self._idle.put(_Process(self.timeout))

    def check(self, fn):
        inner = fn
        while isinstance(inner, functools.partial):
            inner = inner.func
        named = inner if hasattr(inner, "__qualname__") else type(inner)
        homeless = named.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__")
        if "<" in named.__qualname__ or homeless:
            raise ValueError(
                f"Processes: {named.__qualname__} cannot be imported by a new process. Define it at the top level of a module "
                "(a file of its own where this is a notebook), and import it from there; bind settings with functools.partial."
            )

    def run(self, fn, rows):
        with ThreadPoolExecutor(min(self.num, len(rows))) as threads:
            return list(threads.map(functools.partial(self._one, fn), rows))

    def _one(self, fn, row) -> Ran:
        process = self._idle.get()
        try:
            return process.run(fn, row)
        finally:
            self._idle.put(process)

    def __repr__(self) -> str:
        return f"Processes({self.num}{_told(self.timeout)})"


class On(Workers):
    """The workers of an `executor`, any `concurrent.futures.Executor`.

    - `timeout`: seconds in which at least one run of a batch must end; when none has, those that are left have failed, and
      their workers are left to themselves. None: no limit.

    Raises:
        ValueError: for what is no executor, or no timeout.

    Example:
        `simulator(cell.run, out, executor=On(client.get_executor(), timeout=600.0))`
    """

    def __init__(self, executor: Executor, *, timeout: float | None = None) -> None:
        if not callable(getattr(executor, "submit", None)):
            raise ValueError(
                "executor: expected Processes(4), or a concurrent.futures.Executor (of Dask: client.get_executor()), got "
                f"{type(executor).__name__}."
            )
        self.executor, self.timeout = executor, _timeout("On", timeout)

    def check(self, fn):
        """What can be sent depends on the executor; it says so when it is asked."""

    def run(self, fn, rows):
        if isinstance(self.executor, ThreadPoolExecutor):
            fn = functools.partial(_alone, fn)  # another thread of this process
        try:
            futures = [self.executor.submit(fn, *row) for row in rows]
        except (BrokenExecutor, RuntimeError) as error:
            return [Ran(refused=_broken(error))] * len(rows)
        left = set(futures)
        while left:
            done, left = wait(left, self.timeout, return_when=FIRST_COMPLETED)
            if not done:
                break
        return [self._ran(future) for future in futures]

    def _ran(self, future: Future) -> Ran:
        if not future.done():
            future.cancel()
            return Ran(failure=f"no run ended within {self.timeout:g} s", lost=True)
        if future.cancelled():
            return Ran(failure="it was cancelled", lost=True)
        error = future.exception()
        if isinstance(error, BrokenExecutor):
            return Ran(refused=_broken(error))
        return _outcome(future, error)

    def __repr__(self) -> str:
        return f"On({type(self.executor).__name__}{_told(self.timeout)})"


class _Process:
    """One process, started when needed and again when it is gone. (A pool of one: what breaks it is this run, no other.)"""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self.pool: ProcessPoolExecutor | None = None
        self.pid = 0

    def run(self, fn: Callable, row: tuple) -> Ran:
        try:
            future = self._submitted(fn, row)
        except (BrokenExecutor, OSError) as error:
            return Ran(refused=_broken(error))
        if not wait([future], self.timeout).done:
            self._stop()
            return Ran(failure=f"no answer within {self.timeout:g} s", lost=True)
        error = future.exception()
        if isinstance(error, BrokenExecutor):
            self._stop()
            return Ran(failure="its process died", lost=True)
        return _outcome(future, error)

    def _submitted(self, fn: Callable, row: tuple) -> Future:
        if self.pool is not None:
            try:
                return self.pool.submit(fn, *row)
            except BrokenExecutor:  # it died while it had nothing to do
                self._stop()
        self.pool, self.pid = _new_process()
        return self.pool.submit(fn, *row)

    def _stop(self) -> None:
        pool, self.pool = self.pool, None
        if pool is not None:
            try:
                os.kill(self.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            except ProcessLookupError:
                pass
            pool.shutdown(wait=False)


def _new_process() -> tuple[ProcessPoolExecutor, int]:
    quiet = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; this one decides what it means
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=signal.signal, initargs=quiet)
    try:
        return pool, pool.submit(os.getpid).result()
    except BaseException:
        pool.shutdown(wait=False)
        raise


def workers_of(executor: Any) -> Workers:
    """What `simulator(executor=)` was given, as workers."""
    if executor is None:
        return InThisProcess()
    return executor if isinstance(executor, Workers) else On(executor)


def inside() -> bool:
    """Whether this thread is in the middle of a run."""
    return getattr(_here, "inside", False)


def alone(fn: Callable, row: tuple) -> Ran:
    """A run in this thread. JAX is kept out: it may be waiting for this very run to end, and then both would for ever."""
    before, _here.inside = inside(), True
    try:
        with jax.transfer_guard_host_to_device("disallow_explicit"):
            return Ran(fn(*row))
    except Exception as error:
        if "Disallowed host-to-device transfer" in str(error):
            return Ran(refused=JAX_INSIDE)
        return Ran(failure=first_line(error))
    finally:
        _here.inside = before


def _alone(fn: Callable, *row: Any) -> Ran:
    return alone(fn, row)


JAX_INSIDE = (
    "it runs JAX, which a function on the host must not: JAX may be waiting for it. Give a JAX function to ppl.call as it is, "
    "without a simulator; or, if it also does what JAX cannot, run it elsewhere, with executor=Processes(), and return NumPy "
    "arrays."
)


UNSENT = ("Can't pickle", "cannot pickle", "Can't get local object", "Can't get attribute")  # as Python says it


def _outcome(future: Future, error: BaseException | None) -> Ran:
    if error is None:
        value = future.result()
        return value if isinstance(value, Ran) else Ran(value)
    if not isinstance(error, Exception):
        raise error
    if type(error).__name__ == "PicklingError" or str(error).startswith(UNSENT):
        return Ran(
            refused=f"it, or what it returns, cannot be sent to a worker ({first_line(error)}). Define it at the top level of "
            "a module, and return NumPy arrays."
        )
    return Ran(failure=first_line(error))


def _broken(error: BaseException) -> str:
    return (
        f"its workers are gone ({first_line(error)}). A script that starts processes must do its work under `if __name__ == "
        '"__main__":`, and what it runs must be defined in a module. With Processes() a run that takes its process down fails '
        "alone."
    )


def first_line(error: BaseException) -> str:
    """What went wrong, in one line of at most 200 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}{': ' + lines[0] if lines else ''}"[:200]


def _timeout(who: str, timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise ValueError(f"{who}: timeout must be a positive number of seconds, or None for no limit, got {timeout!r}.")
    return float(timeout)


def _told(timeout: float | None) -> str:
    return "" if timeout is None else f", timeout={timeout:g}"
