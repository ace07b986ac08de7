"""What every test shares: eight host devices, the slow marker and its rotating share, and the x64 fixture.

The environment is set before JAX is imported, and only where the caller has not set it.
"""

import os
import re
import zlib
from contextlib import contextmanager
from importlib.metadata import version

import pytest

_DEVICES = "--xla_force_host_platform_device_count"
if _DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}=8".strip()
# Most of what tests cost is compilation. At level 0 it takes half the time, and even long tests end sooner; programs that the
# package compiles by itself say their own level. A JAX that does not know a flag ends the process.
if "_level=" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
    if version("jaxlib") < "0.11":
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_addoption(parser):
    group = parser.getgroup("evidentia")
    group.addoption("--slow", action="store_true", help="also run the tests marked slow")
    group.addoption("--slow-share", metavar="K/N", help="also run share K of N of the slow tests")


def parse_share(text: str) -> tuple[int, int]:
    """The pair (k, n) of ``"k/n"`` with 1 <= k <= n."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise pytest.UsageError(f"--slow-share takes K/N with 1 <= K <= N, for example 2/5; got {text!r}")
    return int(match[1]), int(match[2])


def in_share(nodeid: str, k: int, n: int) -> bool:
    """Whether a test belongs to share k of n: a checksum of its id, so the same on every machine and every day."""
    return zlib.crc32(nodeid.encode()) % n == k - 1


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    share = config.getoption("--slow-share")
    chosen = parse_share(share) if share else None
    keep, drop = [], []
    for item in items:
        wanted = "slow" not in item.keywords or (chosen is not None and in_share(item.nodeid, *chosen))
        (keep if wanted else drop).append(item)
    config.hook.pytest_deselected(items=drop)
    items[:] = keep


@contextmanager
def _doubles(on: bool):
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", on)  # the global switch: a thread-local one would miss threaded chains
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


@pytest.fixture
def x64():
    """Run the test in double precision."""
    with _doubles(True):
        yield


@pytest.fixture(params=["float32", "float64"])
def precision(request):
    """Run the test twice, in single and in double precision; the value is the dtype's name."""
    with _doubles(request.param == "float64"):
        yield request.param
