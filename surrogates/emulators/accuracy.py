"""Accuracy: what an emulator got right of runs that it had not seen, in numbers and as a text."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from .emulator import LeaveOneOut

NINETY_FIVE = 1.959964  # standard deviations


class Accuracy(eqx.Module):
    """Of predictions of runs that were left out.

    - `num`, `failed`: runs that were used, and that failed.
    - `rms`: (*out) root mean square errors. `r2`: (*out) shares of the outputs' variance that are explained.
    - `coverage`: the share of outputs inside their 95 % intervals. `nats`: as `LeaveOneOut` has them.
    - `seconds`: what the fit took.
    """

    num: Array
    failed: Array
    rms: Array
    r2: Array
    coverage: Array
    nats: Array
    seconds: Array

    @staticmethod
    def of(y: Any, left_out: LeaveOneOut, *, failed: int, seconds: float) -> "Accuracy":
        """Of runs with outputs y (n, *out), all of which are there."""
        y, mean, sd = (np.asarray(a, np.float64) for a in (y, left_out.mean, left_out.sd))
        error = mean - y
        spread = np.maximum(y.var(0), 1e-300)
        numbers = (
            len(y),
            failed,
            np.sqrt(np.mean(error**2, 0)),
            1.0 - np.mean(error**2, 0) / spread,
            np.mean(np.abs(error) <= NINETY_FIVE * sd),
            left_out.nats,
            seconds,
        )
        return Accuracy(*(jnp.asarray(x, float) for x in numbers))

    def report(self, kind: str, names: Sequence[str], charts: Sequence[Any]) -> "Report":
        """What an emulator says of itself: its `kind`, its accuracy, and the chart of each input."""
        read = ", ".join(f"{name} {type(chart).__name__}" for name, chart in zip(names, charts, strict=True))
        return Report("\n".join([kind, *self.lines(), f"charts: {read}"]))

    def lines(self) -> list[str]:
        """As sentences without a full stop."""
        rms, r2 = np.asarray(self.rms), np.asarray(self.r2)
        failed = f", {int(self.failed)} failed ones left out" if self.failed else ""
        errors = f"{np.sqrt(np.mean(rms**2)):.3g} rms"
        if rms.size > 1:
            errors += f" over {rms.size} outputs, worst {rms.max():.3g}; R2 median {np.median(r2):.4f}, least {r2.min():.4f}"
        else:
            errors += f", R2 {r2.item():.4f}"
        return [
            f"{int(self.num)} runs{failed}, fitted in {float(self.seconds):.2f} s",
            f"errors of runs left out: {errors}",
            f"95 % intervals cover {float(self.coverage):.1%}; {float(self.nats):.2f} nats a run",
        ]


class Report(str):
    """Text, which a notebook shows as it is."""

    def __repr__(self) -> str:
        return str(self)
