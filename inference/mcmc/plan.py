"""The plan of a run: the warm-up until it is stable, then the draws until a rule is satisfied.

What is decided on its way follows from the draws up to there alone: a run that was interrupted follows the same plan.
"""

import dataclasses
from functools import partial

from ..placement import Placement
from ..posterior import Posterior
from ..run import Goal, Outcome, Route
from ..stopping import Rule, looks
from ..store import Kept
from .adaptation.stable import UntilStable
from .door import ready
from .programs import Lanes, named
from .result import Result


class Plan:
    """Drives `lanes` through a warm-up of `warmup` steps, or until it is stable, and through `draws` draws, or `until` a rule
    is satisfied."""

    def __init__(
        self, lanes: Lanes, warmup: int | UntilStable, draws: int, until: Rule | None, placement: Placement,
        kept: Kept | None, keep_warmup: bool,
    ):  # fmt: skip
        self.lanes, self.placement, self.kept, self.keep_warmup = lanes, placement, kept, keep_warmup
        self._stable, self._draws, self._until = warmup, draws, until
        if kept is not None:
            kept.stream_to(keep_warmup, partial(named, lanes.programs, lanes.target))

    @property
    def warmup(self) -> int:
        """Its length, as far as is known."""
        return self.lanes.warmup

    @property
    def most(self) -> int:
        return self.warmup + self._draws

    def step(self, lane: int, state, start, num):
        return self.lanes.step(lane, state, start, num)

    def route(self) -> Route:
        if isinstance(self._stable, UntilStable):
            for mark, length in self._stable.looks():
                outcome = yield Goal(mark, self.most)
                if self._stable.reached(*self.placement.gather(self._result.recorded(outcome))):
                    self._end_warmup(length)
                    break
        if self._until is not None:
            for num in looks(self._draws):
                outcome = yield Goal(self.warmup + num, self.most)
                if reason := self._until.reached(self.posterior(outcome)):
                    return reason
        yield Goal(self.most, self.most)
        return None

    def _end_warmup(self, length: int) -> None:
        self.lanes = self.lanes._replace(kernel=ready(self.lanes.kernel, length), warmup=length)
        if self.kept is not None:
            self.kept.end_warmup(length)

    def posterior(self, outcome: Outcome) -> Posterior:
        """What the run has come to, for all chains wherever they run. Without provenance."""
        posterior = self._result.posterior(outcome)
        groups = ("draws", "stats", "warmup_stats", "warmup_draws")
        return dataclasses.replace(posterior, **self.placement.gather({name: getattr(posterior, name) for name in groups}))

    @property
    def _result(self) -> Result:
        return Result(self.lanes.programs, self.lanes.target, self.warmup, self.keep_warmup, self.kept)
