"""Progress: what a long run tells the person who waits.

`run` calls `begin(total, done)`, `update(num, record, first)` after every chunk, `change(total)` when there is less to do
than was thought, and `end()`. `progress=True` shows a bar on a terminal and one line at the end anywhere else;
`progress=False` shows nothing; any object with the four methods will do.
"""

import sys
import threading
import time
from typing import Protocol


class Progress(Protocol):
    """What `run` calls; `update` may be called from several threads.

    - `total`: the steps of all lanes together; `done`: those taken before, in an earlier part of the run.
    - `num`: steps that a lane has just taken, with their `record`; `first`: how many it had taken before these.
    """

    def begin(self, total: int, done: int) -> None: ...

    def update(self, num: int, record, first: int) -> None: ...

    def change(self, total: int) -> None: ...

    def end(self) -> None: ...


class Silent:
    """Says nothing."""

    def begin(self, total: int, done: int) -> None:
        pass

    def update(self, num: int, record, first: int) -> None:
        pass

    def change(self, total: int) -> None:
        pass

    def end(self) -> None:
        pass


class Meter:
    """Counts steps and events; draws a bar on a terminal, one line at the end elsewhere.

    - `label`: what runs, for example "4 chains".
    - `count(record, first)`: a dictionary of counts to show, for example {"divergences": 3}, added up.
    - `now(record)`: a dictionary of what is shown as it is now, for example {"objective": "-8.07"}.
    """

    def __init__(self, label: str, *, count=lambda record, first: {}, now=lambda record: {}, stream=None):
        self.label, self.count, self.now, self.stream = label, count, now, stream or sys.stderr
        self.done, self.before, self.total, self.counts, self.shown = 0, 0, 0, {}, {}
        self._lock, self._bar, self._task, self._begun = threading.Lock(), None, None, 0.0

    def begin(self, total: int, done: int) -> None:
        self.done, self.before, self.total, self.counts, self._begun = done, done, total, {}, time.monotonic()
        if self.stream.isatty():
            self._bar, self._task = _rich_bar(self.label, total, done, self.stream)

    def update(self, num: int, record, first: int) -> None:
        with self._lock:
            self.done += num
            for name, value in self.count(record, first).items():
                self.counts[name] = self.counts.get(name, 0) + value
            self.shown = self.now(record)
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=self.done, detail=self._detail())

    def change(self, total: int) -> None:
        with self._lock:
            self.total = total
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, total=total)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        else:
            spent = time.monotonic() - self._begun
            before = f" ({self.before} done before)" if self.before else ""
            line = f"{self.label}: {self.done} of {self.total} steps{before} in {spent:.1f} s{self._detail()}"
            print(line, file=self.stream, flush=True)

    def _detail(self) -> str:
        rate = (self.done - self.before) / max(time.monotonic() - self._begun, 1e-9)
        parts = [f"{rate:,.0f} steps/s"] + [f"{value} {name}" for name, value in self.counts.items()]
        parts += [f"{name} {value}" for name, value in self.shown.items()]
        return ", " + ", ".join(parts)


def _rich_bar(label: str, total: int, done: int, stream):
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}{task.fields[detail]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(file=stream),
        refresh_per_second=8,
    )
    bar.start()
    return bar, bar.add_task(label, total=total, completed=done, detail="")
