"""Importing the packages does no work: no output, no configuration, no device, no heavy library."""

import json
import subprocess
import sys

import pytest

from tests.architecture.floors import PACKAGES
from tests.architecture.sources import ROOT

HEAVY = ["arviz", "arviz_base", "arviz_stats", "matplotlib", "flax", "xarray", "pandas", "rich", "h5netcdf", "blackjax"]

PROBE = """
import json, logging, os, sys, warnings
import jax, numpyro.distributions, equinox, optax
before = (dict(jax.config.values), dict(os.environ), list(warnings.filters), len(logging.root.handlers))
loaded = set(sys.modules)
import {packages}
after = (dict(jax.config.values), dict(os.environ), list(warnings.filters), len(logging.root.handlers))
changed = [name for name, a, b in zip(("jax.config", "os.environ", "warnings", "logging"), before, after) if a != b]
# A started backend refuses a new number of devices; an unstarted one takes it.
try:
    jax.config.update("jax_num_cpu_devices", 3)
    started = False
except RuntimeError:
    started = True
new = sorted({{name.split(".")[0] for name in set(sys.modules) - loaded}})
sys.__stdout__.write("PROBE" + json.dumps(dict(changed=changed, started=started, new=new)))
"""


def python(code: str) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter at the repository root."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def probe():
    done = python(PROBE.format(packages=", ".join(PACKAGES)))
    assert done.returncode == 0, done.stderr
    printed, _, report = done.stdout.partition("PROBE")
    return {"printed": printed + done.stderr, **json.loads(report)}


def test_nothing_is_printed(probe):
    assert probe["printed"] == ""


def test_no_configuration_changes(probe):
    assert probe["changed"] == []


def test_no_device_is_started(probe):
    assert not probe["started"]


def test_no_heavy_library_is_loaded(probe):
    assert sorted(set(probe["new"]) & set(HEAVY)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_imports_alone(package):
    done = python(f"import {package}")
    assert done.returncode == 0 and not done.stdout, done.stderr
