"""Posterior: what inference returns. Named draws, what the sampler measured, and where they came from.

```python
posterior["theta"]                       # (chain, draw, ...) array, by site name
print(posterior.summary())               # mean, sd, 94% interval, effective sizes, R-hat
print(posterior.check())                 # what is wrong, if anything, and what to try
print(posterior.ledger)                  # what it cost in true calls, and which guarantee holds
posterior.plot()                         # densities and traces; plot_pairs(), plot_energy()
posterior.to_datatree()                  # for ArviZ: plots, LOO, comparison
posterior.to_pandas(); .to_polars()      # one row a draw
posterior.predict(program, key=key)      # what the model says of new data
posterior.save("run.npz"); Posterior.load("run.npz")
```
"""

import dataclasses
from typing import Any

import jax
import numpy as np

import ppl
from ppl.choices import flatten

from . import diagnostics, findings, frames, io, plots
from .ledger import Ledger, ledger_of


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Posterior:
    """Draws from a posterior distribution.

    - `draws`: nested dict of arrays (chain, draw, ...): latent choices and deterministic values by site name. Of a run that
      was streamed to the disk each is an `xarray.DataArray` that is read when asked for, as are the statistics.
    - `stats`: arrays (chain, draw) under ArviZ's names: lp, acceptance_rate, step_size, n_steps, tree_depth, energy,
      diverging, reached_max_treedepth, as far as the kernel has them.
    - `warmup_stats`, `warmup_draws`: the same for the warm-up; draws only if asked for.
    - `provenance`: plain values: key, settings, versions, seconds, gradients.
    - `program`: the conditioned program, if the target came from one. It is not saved.
    - `log_evidence`, `log_evidence_error`: log of the probability of the data, and its standard error, where the algorithm
      estimates them (`inf.smc`); else None.
    - `stages`: of sequential Monte Carlo, statistics by stage, arrays (stage,), or (island, stage).
    - `run`: of sequential Monte Carlo, the weighted population and what was kept of its history. It is not saved.
    """

    draws: dict[str, Any]
    stats: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    warmup_stats: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    warmup_draws: dict[str, Any] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    program: Any = None
    log_evidence: float | None = None
    log_evidence_error: float | None = None
    stages: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    run: Any = None

    def __getitem__(self, name: str):
        """The draws of a site, (chain, draw, ...); dotted names reach into nested programs."""
        flat = flatten(self.draws)
        if name in flat:
            return io.in_memory(flat[name])
        node: Any = self.draws
        for part in name.split("."):
            if not isinstance(node, dict) or part not in node:
                raise KeyError(f"no site '{name}' in this posterior; it has: {', '.join(flat)}.")
            node = node[part]
        return io.in_memory(node)

    @property
    def shape(self) -> tuple[int, int]:
        """(chains, draws)."""
        chains, draws = np.shape(jax.tree.leaves(self.draws)[0])[:2]
        return chains, draws

    @property
    def ledger(self) -> Ledger:
        """What the draws cost in evaluations of the true program, what they would have cost without a surrogate, effective
        draws for each, and which guarantee holds."""
        return ledger_of(self)

    def summary(self, *names: str, interval: float = 0.94) -> "diagnostics.Summary":
        """Mean, sd, equal-tailed interval, bulk and tail effective sample size and R-hat of every scalar (or of the
        sites `names`). Printing it shows the table; `.table` is a pandas DataFrame."""
        return diagnostics.summary(self, names, interval)

    def check(self) -> "findings.Check":
        """What is wrong with these draws and what to try, in sentences: divergences and where they gather, R-hat, chains in
        different places or stuck, effective sizes, energies, tree depths, heavy tails. True where nothing was found."""
        return findings.check(self)

    def plot(self, *names: str):
        """A matplotlib figure with a row for each scalar of the sites `names` (default: the first 12): density and trace
        of each chain, divergences marked."""
        return plots.overview(self, names)

    def plot_pairs(self, *names: str):
        """A matplotlib figure of every two scalars of the sites `names` (default: the first 5), divergences marked."""
        return plots.pairs(self, names)

    def plot_energy(self):
        """A matplotlib figure of the energies of a Hamiltonian kernel and their changes from draw to draw."""
        return plots.energy(self)

    def to_datatree(self, **groups):
        """An `xarray.DataTree` for ArviZ, with groups posterior, sample_stats, warm-up, observed data and pointwise log
        likelihood (if the program is known). See `inference.io.to_datatree` for `dims`, `coords` and further groups. Files
        that it writes (`.to_netcdf`, `.to_zarr`) open in every ArviZ."""
        return io.to_datatree(self, **groups)

    def to_pandas(self, *names: str):
        """A pandas DataFrame of the sites `names` (default: all): one row a draw, columns chain, draw, mu, theta[0], ..."""
        return frames.pandas(self, names)

    def to_polars(self, *names: str):
        """A polars DataFrame of the sites `names` (default: all), as `to_pandas`. Raises ImportError without polars."""
        return frames.polars(self, names)

    def predict(self, program=None, *, key):
        """Simulate `program` (default: the one that was conditioned) with this posterior's draws for the sites they
        share: nested dict of arrays (chain, draw, ...)."""
        program = self.program if program is None else program
        if program is None:
            raise ValueError(
                "predict: this posterior does not know its program; pass one: posterior.predict(program, key=key)."
            )
        return ppl.predict(program, key, io.in_memory(self.draws))

    def sample(self, key) -> dict[str, Any]:
        """One of the stored draws at random: a posterior can be sampled wherever a distribution can."""
        chains, draws = self.shape
        i = jax.random.randint(key, (), 0, chains * draws)
        return jax.tree.map(lambda x: jax.numpy.reshape(x, (chains * draws, *np.shape(x)[2:]))[i], io.in_memory(self.draws))

    def save(self, path) -> None:
        """Write to one file (NumPy's npz with a JSON header; no pickle)."""
        io.save(self, path)

    @staticmethod
    def load(path) -> "Posterior":
        """Read what `save` wrote. Raises ValueError for a damaged or foreign file."""
        return io.load(path)

    def __repr__(self) -> str:
        chains, draws = self.shape
        sites = [f"{name}{list(np.shape(x)[2:]) or ''}" for name, x in flatten(self.draws).items()]
        return f"Posterior: {chains} chains x {draws} draws of {', '.join(sites)}\n{diagnostics.footer(self)}"
