"""Evidence of two universes, by nested sampling alone and with an emulator that is corrected, in calls of the true likelihood.

    python -m benchmarks.cosmology [--seeds 3] [--write]

Chronometers and fifteen nodes of supernovae; LCDM and CPL, with priors for which log evidence is known from grids. The costly
call is `curves`: log expansion rates at the chronometers' redshifts, and distances in magnitudes at the nodes'. Plain nested
sampling asks the true likelihood for every proposal. Ours emulates the curves from a few calls, goes where nested sampling
goes on the emulator, and asks the truth at some of the draws, whose weights correct posterior and evidence. How far the
log evidence is off is told in stated errors.

Whatever the network does: the last rows have emulators that are bad on purpose: an ensemble that learned for a tenth of its
steps, and one of eight runs. Then the ladder takes more calls, or says that it is not satisfied.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import inference as inf
import ppl
import surrogates as sur
from benchmarks.report import machine, table, write
from inference.diagnostics import SamplingWarning
from ppl import dist, sample
from surrogates.emulators.door import emulate
from surrogates.emulators.ensemble import Ensemble
from surrogates.emulators.gaussian_process import GaussianProcess
from surrogates.likelihood_rungs import ByPower, ByPowerTempering, Pilot
from surrogates.powered import Nested, evaluations_of

DATA = Path(__file__).parents[1] / "docs" / "tutorials" / "data"
BUDGET = 60
EXACT = {  # by grids, double precision; likelihoods without constants
    ("chronometers", "LCDM"): -10.78722,
    ("chronometers", "CPL"): -11.20537,
    ("and supernovae", "LCDM"): -21.82861,
    ("and supernovae", "CPL"): -23.50070,
}


def _read(name: str) -> np.ndarray:
    return np.genfromtxt(DATA / name, delimiter=",", names=True)


CLOCKS, NODES = _read("cc31.csv"), _read("pantheon15.csv")
PRECISION = np.linalg.inv(np.genfromtxt(DATA / "pantheon15_cov.csv", delimiter=","))
POINTS, WEIGHTS = np.polynomial.legendre.leggauss(24)


def expansion(z: Any, matter: Any, w0: Any, wa: Any) -> Any:
    """E(z), the rate over that of today."""
    dark = (1 - matter) * (1 + z) ** (3 * (1 + w0 + wa)) * jnp.exp(-3 * wa * z / (1 + z))
    return jnp.sqrt(matter * (1 + z) ** 3 + dark)


def curves(matter: Any, h: Any, w0: Any = -1.0, wa: Any = 0.0) -> jax.Array:
    """Logarithms of the rates at the chronometers, and magnitudes of the nodes, (46,)."""
    rates = jnp.log(100 * h * expansion(jnp.asarray(CLOCKS["z"]), matter, w0, wa))
    z = jnp.asarray(NODES["z"])
    distance = z * (jnp.asarray(WEIGHTS / 2) / expansion(z[:, None] * jnp.asarray((POINTS + 1) / 2), matter, w0, wa)).sum(1)
    return jnp.concatenate([rates, 5 * jnp.log10((1 + z) * distance)])


def fit(seen: Any, supernovae: bool) -> None:
    """The likelihood of curves."""
    off = (jnp.asarray(CLOCKS["H_km_s_Mpc"]) - jnp.exp(seen[: len(CLOCKS)])) / jnp.asarray(CLOCKS["sigma_km_s_Mpc"])
    ppl.factor("chronometers", -0.5 * jnp.sum(off**2))
    if supernovae:
        left, precision = jnp.asarray(NODES["m_B_mag"]) - seen[len(CLOCKS) :], jnp.asarray(PRECISION)
        left = left - left.mean()  # a constant makes no difference, but it cancels where it is large, and numbers are single
        ppl.factor("supernovae", -0.5 * (left @ precision @ left - (precision @ left).sum() ** 2 / precision.sum()))


@ppl.model
def lcdm(supernovae: bool, fn: Callable):
    matter, h = sample("matter", dist.Uniform(0.1, 0.5)), sample("h", dist.Uniform(0.4, 0.9))
    fit(ppl.call("curves", fn, matter, h), supernovae)


@ppl.model
def cpl(supernovae: bool, fn: Callable):
    matter, h = sample("matter", dist.Uniform(0.1, 0.5)), sample("h", dist.Uniform(0.4, 0.9))
    w0, wa = sample("w0", dist.Uniform(-2.0, 0.0)), sample("wa", dist.Uniform(-2.0, 2.0))
    fit(ppl.call("curves", fn, matter, h, w0, wa), supernovae)


MODELS = {"LCDM": lcdm, "CPL": cpl}
LIVE = 200
KERNEL = inf.RandomWalk()
BAD = Ensemble(members=8, steps=60)
WAYS: dict[str, tuple[Any, int]] = {  # the family, and how many runs it is given
    "Gaussian process": (GaussianProcess(), BUDGET),
    "ensemble": (Ensemble(), BUDGET),
    "ensemble, hardly trained": (BAD, BUDGET),
    "Gaussian process of 8 runs": (GaussianProcess(), 8),
}


class Found(NamedTuple):
    """Log evidence and its stated error, true calls; the rung that was used, and Pareto's k."""

    log_evidence: float
    error: float
    calls: int
    rung: str = ""
    k: float = np.nan


def plain(program: ppl.Program, moves: int, key: jax.Array) -> Found:
    """Nested sampling, `moves` steps of a random walk for each dimension and particle that died."""
    run = inf.smc(program, inf.nested_sampling(KERNEL, moves=moves), key=key, particles=LIVE, progress=False, check=False)
    return Found(float(run.log_evidence), float(run.log_evidence_error), evaluations_of(run))


def emulated(program: ppl.Program, family: Any, budget: int, key: jax.Array) -> Found:
    """Nested sampling on an emulator, and weights."""
    key_runs, key_correct = jax.random.split(key)
    emulator = emulate(program, "curves", budget=budget, key=key_runs, family=family, progress=False)
    pilot, rungs = Pilot(powers=Nested(particles=LIVE, kernel=KERNEL, moves=2)), (ByPower(ess=150.0), ByPowerTempering())
    cheap = program.intervene({"curves": emulator})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        found = sur.correct(program, cheap, key=key_correct, pilot=pilot, rungs=rungs)
    ledger, known = found.ledger, found.log_evidence is not None
    numbers = (float(found.log_evidence), float(found.log_evidence_error)) if known else (np.nan, np.nan)
    k = np.nan if ledger.pareto_k is None else ledger.pareto_k
    return Found(*numbers, ledger.total, str(found.provenance["rung"]), k)


def told(data: str, model: str, way: str, runs: list[Found], most: float | None) -> list[str]:
    """A row of the table. `most`: calls of the plain method."""
    z = [(run.log_evidence - EXACT[data, model]) / run.error for run in runs]
    calls = float(np.mean([run.calls for run in runs]))
    rungs = [run.rung for run in runs if run.rung]
    used = ", ".join(f"{rungs.count(rung)} {rung}" for rung in sorted(set(rungs)))
    ks = [run.k for run in runs if np.isfinite(run.k)]
    return [
        data, model, way,
        " ".join(f"{run.log_evidence:.2f} +- {run.error:.2f}" for run in runs),
        " ".join(f"{x:+.1f}" for x in z),
        f"{calls:,.0f}", "" if most is None else f"{calls / most:.3f}", f"{max(ks):.2f}" if ks else "", used,
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write results/cosmology.md")
    asked = parser.parse_args()
    keys = [jax.random.key(i) for i in range(asked.seeds)]
    rows = []
    for data, model in EXACT:
        program = MODELS[model](data != "chronometers", curves)
        known = [plain(program, 2, key) for key in keys]
        most = float(np.mean([run.calls for run in known]))
        rows.append(told(data, model, "nested sampling", known, None))
        print(*rows[-1], sep=" | ", flush=True)
        for way, (family, budget) in WAYS.items():
            rows.append(told(data, model, way, [emulated(program, family, budget, key) for key in keys], most))
            print(*rows[-1], sep=" | ", flush=True)
    header = ["data", "model", "way", "log evidence", "off by, errors", "true calls", "of the plain", "largest k", "rungs"]
    tabled = table(header, rows)
    if asked.write:
        exact = ", ".join(f"{data} {model} {value:.3f}" for (data, model), value in EXACT.items())
        what = (
            f"Grids: {exact}. {asked.seeds} seeds; plain nested sampling with {LIVE} particles and two steps of a random walk "
            f"for each dimension. Emulators of the curves of {BUDGET} runs where not said otherwise; calls are all that were "
            "made, design and pilot too."
        )
        write("cosmology", "Log evidence of two universes, in true calls", f"{what} {machine(('jax',))}", tabled)
    print(tabled)


if __name__ == "__main__":
    main()
