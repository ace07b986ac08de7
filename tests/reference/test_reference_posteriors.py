"""NUTS reproduces 19 published posteriors: mean and standard deviation of all 206 reported scalars, 4 x 1000 draws.

No posterior has settings of its own; only the centred eight schools, a funnel, are sampled non-centred.

Each is compared within 4 standard errors, both sides' Monte Carlo error counted (see `agreement.py`). False alarms: a
z-score beyond 4 has probability 6.3e-5 under a normal law, so with fresh keys at most 412 x 6.3e-5 = 2.6 % of runs of the
whole suite fail by chance. Keys are fixed: a run that passes passes again on the same platform.
"""

import time
import zlib

import jax
import pytest

import inference as inf

from .agreement import agreement
from .models import REFERENCES, program, published, scalars


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
def test_moments_are_the_published_ones(x64, name):
    reference, known = REFERENCES[name], published(name)
    key, begun = jax.random.key(zlib.crc32(name.encode())), time.monotonic()
    posterior = inf.mcmc(program(name, better=True), inf.NUTS(), key=key, progress=False)
    seconds = time.monotonic() - begun
    found = agreement(scalars(posterior.draws, known.names), known, reference.in_logs)
    divergences, r_hat = int(posterior.stats["diverging"].sum()), found.r_hat.max()
    print(f"{name}: {seconds:.1f} s, worst z {found.worst_z():.2f}, R-hat {r_hat:.4f}, {divergences} divergences")
    assert found.worst_z() < 4 and r_hat < 1.01, f"{divergences} divergences\n{found}"
