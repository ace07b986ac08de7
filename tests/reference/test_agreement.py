"""The comparison of draws with published moments passes good draws and fails bad ones."""

import numpy as np
import pytest

from .agreement import agreement
from .models import REFERENCES, published

NAMES = [name for name in REFERENCES if published(name).draws is not None]


def reference_draws(name):
    """The thinned reference draws as 4 chains of 500: what a perfect sampler would return."""
    return published(name).draws.reshape(4, 500, -1)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_agrees_with_itself(name):
    found = agreement(reference_draws(name), published(name), REFERENCES[name].in_logs)
    assert found.worst_z() < 4 and found.r_hat.max() < 1.01, str(found)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shift, stretch", [(0.2, 1.0), (0.0, 1.15)])
def test_a_shifted_or_stretched_sample_is_caught(name, shift, stretch):
    draws, known = reference_draws(name), published(name)
    biased = known.mean + shift * known.sd + stretch * (draws - known.mean)
    found = agreement(biased, known)
    assert (np.abs(found.z_mean) > 4).any() if shift else (np.abs(found.z_sd) > 4).any()


def test_disagreeing_chains_are_caught():
    name = "arK-arK"
    draws = reference_draws(name)
    assert agreement(draws + 0.1 * np.arange(4)[:, None, None] * draws.std((0, 1)), published(name)).r_hat.max() > 1.01
