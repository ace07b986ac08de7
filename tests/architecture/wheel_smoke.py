"""Run by .ci/run with the wheel installed in a clean environment, outside the checkout: the wheel is whole and works.

It needs no pytest: ``python -I wheel_smoke.py`` prints one line and exits 0, or fails with the assertion that broke.
"""

import importlib
import importlib.metadata
import warnings
from pathlib import Path

PACKAGES = {"ppl", "inference", "surrogates"}
OBSERVED = [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]
SPREAD = [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]


def check_contents() -> None:
    """The wheel holds the three trees, each typed, and nothing else; and it alone owns their names."""
    files = importlib.metadata.files("evidentia")
    assert files is not None
    tops = {f.parts[0] for f in files if not f.parts[0].endswith(".dist-info")}
    assert tops == PACKAGES, tops
    names = {str(f) for f in files}
    assert {f"{p}/py.typed" for p in PACKAGES} <= names
    owners = importlib.metadata.packages_distributions()
    for package in PACKAGES:
        assert set(owners[package]) == {"evidentia"}, owners[package]
        where = Path(importlib.import_module(package).__file__ or "")
        assert "site-packages" in where.parts, where


def check_a_posterior() -> None:
    """Eight schools, short: finite draws with the shapes that were asked for."""
    import jax
    import jax.numpy as jnp

    import inference as inf
    import ppl
    from ppl import dist, sample

    @ppl.model
    def eight_schools(sigma):
        mu = sample("mu", dist.Normal(0.0, 5.0))
        tau = sample("tau", dist.HalfCauchy(5.0))

        def school(s):
            theta = sample("theta", dist.Normal(mu, tau))
            return sample("y", dist.Normal(theta, s))

        return ppl.vmap(school)(sigma)

    program = eight_schools(jnp.array(SPREAD)) | {"y": jnp.array(OBSERVED)}
    warnings.simplefilter("ignore", inf.SamplingWarning)  # so short a run is not to be trusted, nor is it read
    posterior = inf.mcmc(program, inf.NUTS(), key=jax.random.key(0), chains=2, draws=50, warmup=50, progress=False)
    assert posterior["mu"].shape == (2, 50) and posterior["theta"].shape == (2, 50, 8)
    assert jnp.isfinite(posterior["theta"]).all()


if __name__ == "__main__":
    check_contents()
    check_a_posterior()
    print("the wheel is whole: three trees, one owner, a posterior from eight schools")
