"""The registry of resamplers: a new one is a line here, and inherits the laws of test_resampling.py.

- `close`: counts differ from their means by less than one.
- `bias`: how far means of counts may be off, over N; of Metropolis, from its finite number of steps.
- `indices`: False where particles are mixed instead of chosen.
- `resizes`: whether another number of particles may come out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from inference import resampling as rs


class Member(NamedTuple):
    resampler: rs.Resampler
    close: bool = False
    bias: float = 0.0
    indices: bool = True
    resizes: bool = True


RESAMPLERS = {
    "Multinomial": Member(rs.Multinomial()),
    "Systematic": Member(rs.Systematic(), close=True),
    "Stratified": Member(rs.Stratified()),
    "Residual": Member(rs.Residual()),
    "SSP": Member(rs.SSP(), close=True),
    "Killing": Member(rs.Killing(), resizes=False),
    "Metropolis": Member(rs.Metropolis(100)),
    "StopGradient": Member(rs.StopGradient(rs.Systematic()), close=True),
    "Sorted": Member(rs.Sorted(rs.Systematic(), by=lambda particle: -jnp.ravel(jax.tree.leaves(particle)[0])[0]), close=True),
    "When": Member(rs.When(rs.Systematic(), ess=1.0), close=True, resizes=False),
    "OptimalTransport": Member(rs.OptimalTransport(), close=True, indices=False, resizes=False),
}
# Those that choose indices. The longest takes its turn with the slow tests.
choosing = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n == "Metropolis" else []) for n, m in RESAMPLERS.items() if m.indices],
)
