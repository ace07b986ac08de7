"""From what a run has recorded to a `Posterior`: the chains joined and cut to one length, and where they came from."""

import warnings
from typing import Any, NamedTuple

import jax
import numpy as np

from ..diagnostics import SamplingWarning
from ..findings import AFTER_A_RUN, findings
from ..kernel import Kernel
from ..ledger import spent_on
from ..posterior import Posterior
from ..provenance import key_words, versions
from ..run import Outcome
from ..store import Kept
from .initial import Superchains
from .programs import Programs, named


class Result(NamedTuple):
    """Makes the posterior of a run, finished or at a mark on its way: `Result(...).posterior(outcome)`."""

    programs: Programs
    target: Any
    warmup: int
    keep_warmup: bool
    kept: Kept | None  # what holds the part of the run that is not in memory

    def posterior(self, outcome: Outcome) -> Posterior:
        """All chains, cut to the steps that every one of them has. Without provenance."""
        self._check(outcome)
        if self.kept is not None and self.kept.stream is not None:
            groups = self.kept.streamed(outcome.steps)
            return self._made(
                groups["posterior"], groups["sample_stats"],
                groups.get("warmup_sample_stats", {}), groups.get("warmup_posterior", {}),
            )  # fmt: skip
        positions, info = self.recorded(outcome)
        draws, stats = named(self.programs, self.target, positions[:, self.warmup :]), info._asdict()
        before = named(self.programs, self.target, positions[:, : self.warmup]) if self.keep_warmup and self.warmup else {}
        warmup_stats = {name: x[:, : self.warmup] for name, x in stats.items()} if self.warmup else {}
        return self._made(draws, {name: x[:, self.warmup :] for name, x in stats.items()}, warmup_stats, before)

    def recorded(self, outcome: Outcome):
        """Positions (chain, step, dim) and statistics (chain, step) of the chains that run here."""
        records = outcome.records if self.kept is None else self.kept.whole(outcome.records, outcome.steps)
        lanes = [jax.tree.map(lambda *parts: np.concatenate(parts, axis=1)[:, : outcome.steps], *parts) for parts in records]
        return jax.tree.map(lambda *parts: np.concatenate(parts, axis=0), *lanes)

    def _made(self, draws, stats, warmup_stats, warmup_draws) -> Posterior:
        return Posterior(draws, stats, warmup_stats, warmup_draws, program=getattr(self.target, "program", None))

    def _check(self, outcome: Outcome) -> None:
        """Refuse a run that ended before the first draw."""
        if outcome.steps > self.warmup:
            return
        if outcome.reason == "interrupted":
            raise KeyboardInterrupt
        kept = self.kept is not None and list(outcome.done) == self.kept.done
        after = " The store keeps them: run the same line again to continue." if kept else " Allow more."
        raise ValueError(
            f"mcmc: the budget was spent after {outcome.steps} of {self.warmup} warm-up steps, before the first draw.{after}"
        )


def provenance(
    posterior, *, key, kernel, init, placement, draws, warmup, stopped, seconds, compile_seconds, spent,
) -> dict[str, Any]:  # fmt: skip
    """Where a posterior came from, in plain values. `spent`: gradients and positions that it took to begin."""
    gradients_to_start, positions_to_start = spent
    gradients = [group["n_steps"] for group in (posterior.stats, posterior.warmup_stats) if "n_steps" in group]
    return {
        "algorithm": "mcmc",
        "kernel": type(getattr(kernel, "kernel", kernel)).__name__,
        "biased": biased(kernel),
        "key": key_words(key),
        "chains": posterior.shape[0],
        "superchains": init.num if isinstance(init, Superchains) else None,
        "draws": int(draws),
        "warmup": int(warmup),
        "placement": repr(placement),
        "dtype": str(posterior.stats["lp"].dtype),
        "gradients": sum(int(np.sum(x)) for x in gradients) if gradients else None,
        "gradients_to_start": gradients_to_start,
        "positions_to_start": positions_to_start,
        "design_calls": _design_calls(getattr(kernel, "surrogate", None)),
        "compile_seconds": compile_seconds,
        "sampling_seconds": seconds,
        "stopped": stopped,
        "versions": versions(),
    }


def _design_calls(surrogate: Any) -> int:
    """What a surrogate target, tempered or not, has cost in true calls."""
    return spent_on(getattr(getattr(surrogate, "target", surrogate), "program", None))


def biased(kernel: Kernel) -> list[str]:
    """Names of the kernels, of all that `kernel` is made of, whose draws are biased."""
    parts = jax.tree.leaves(vars(kernel), is_leaf=lambda x: isinstance(x, Kernel))
    inside = [name for part in parts if isinstance(part, Kernel) for name in biased(part)]
    return inside if kernel.exact else [type(kernel).__name__, *inside]


def warn(posterior: Posterior, outcome: Outcome, draws: int, store) -> None:
    """Say why a run stopped early, and what is wrong with its draws."""
    why = {"interrupted": "Interrupted", "budget": "The budget was spent"}.get(outcome.reason or "")
    if why is not None:
        said = f"{why}: {posterior.shape[1]} of {draws} draws per chain were made."
        said += "" if store is None else " Run the same line again to continue."
        warnings.warn(said, SamplingWarning, stacklevel=3)
    for finding in findings(posterior, AFTER_A_RUN):
        warnings.warn(str(finding), SamplingWarning, stacklevel=3)
