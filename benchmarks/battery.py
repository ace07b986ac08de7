"""A battery's parameters from its voltage: a solver, stand-ins for it, and posteriors that are exact again.

    python -m benchmarks.battery [--only solver emulators physics posteriors six]
    python -m benchmarks.battery --write

Two numbers of the cell of `battery_cell.py`, the exchange current of its anode and the diffusivity of its cathode, from 100
voltages of a discharge; exact posteriors are tabulated in `data/spm_reference.json`. Then six numbers and the noise, from
discharges at two rates. Errors of stand-ins are over 512 points of the prior box. Parts are kept in `build/benchmarks/battery`
as they are made; `--write` makes `results/battery.md` of all that are there.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

import inference as inf
import ppl
import surrogates as sur
from benchmarks.battery_cell import Grid, Parameters, voltage
from benchmarks.battery_physics import Bare, Layered, SingleParticle
from benchmarks.report import machine, table, write
from ppl import dist, sample
from surrogates.emulators.charts import Given, Reciprocal
from surrogates.emulators.gaussian_process import GaussianProcess
from surrogates.emulators.physics import Informed, InformedEmulator, Level
from surrogates.emulators.runs import Runs
from surrogates.likelihood_rungs import ByDelayedAcceptance, ByPower

KEPT = Path("build/benchmarks/battery")
KNOWN = Path(__file__).parent / "data" / "spm_reference.json"
TIMES = np.linspace(10.0, 1350.0, 100)
LOW, HIGH = np.array([0.5, 1.0]), np.array([4.0, 10.0])
PHYSICAL = Given(i0_a=Reciprocal.of, Ds_c=Reciprocal.of)
NODES = 160  # of Gauss-Legendre, along each parameter
RUNGS = (ByPower(), ByDelayedAcceptance())


def truth(i0_a, Ds_c):
    """The voltages (100,)."""
    return voltage(Parameters(i0_a=i0_a, Ds_c=Ds_c), TIMES)


@ppl.model
def cell(sigma):
    """Two numbers of the cell, and the voltages that were measured."""
    i0_a, Ds_c = sample("i0_a", dist.Uniform(0.5, 4.0)), sample("Ds_c", dist.Uniform(1.0, 10.0))
    sample("y", dist.Normal(ppl.call("voltage", truth, i0_a, Ds_c), sigma))


def solved(x: Any) -> np.ndarray:
    """Voltages (n, 100) at rows of x (n, 2)."""
    return np.asarray(jax.jit(jax.vmap(lambda x: truth(*x)))(jnp.asarray(x, float)))


def sobol(low, high, num: int, seed: int) -> np.ndarray:
    """Points (num, d) of a box; num a power of two."""
    generator: Any = qmc.Sobol
    points = generator(len(low), seed=seed).random(num)
    return low + (np.asarray(high) - low) * points


def process(num: int, charts: Given, seed: int = 0):
    """A Gaussian process of so many runs, spread evenly in its charts from one face of the box to the other."""
    u = sobol(np.zeros(2), np.ones(2), num, seed)
    u = (u - u.min(0)) / (u.max(0) - u.min(0))
    x = 1.0 / (1.0 / HIGH + (1.0 / LOW - 1.0 / HIGH) * u) if charts is PHYSICAL else LOW + (HIGH - LOW) * u
    return GaussianProcess(charts=charts).fit(jax.random.key(seed), Runs.of(x, solved(x), names=("i0_a", "Ds_c")))


def error(emulator: Any) -> tuple[float, float]:
    """Root mean square and largest error over the box, in mV."""
    x = sobol(LOW, HIGH, 512, 99)
    off = 1e3 * (np.asarray(jax.jit(jax.vmap(lambda x: emulator(*x)))(jnp.asarray(x))) - solved(x))
    return float(np.sqrt(np.mean(off**2))), float(np.max(np.abs(off)))


# -- the solver, and what stands in for it ----------------------------------------------------------------------------------


def solver() -> str:
    """Errors at the tabulated voltages by grid; what 1000 solves cost."""
    known = json.loads(KNOWN.read_text())
    times = jnp.array(known["voltages"]["t_s"], float)
    theta = jnp.array([case["theta"] for case in known["voltages"]["cases"]])
    exact = np.array([case["V"] for case in known["voltages"]["cases"]])
    many, rows = jnp.asarray(sobol(LOW, HIGH, 1024, 1)[:1000]), []
    for grid in (Grid(8, 16), Grid(16, 32), Grid(32, 64), Grid(64, 128)):

        def one(x, times, grid=grid):
            return voltage(Parameters(i0_a=x[0], Ds_c=x[1]), times, grid=grid)

        run = jax.jit(jax.vmap(one, (0, None)))
        off = 1e3 * np.abs(np.asarray(run(theta, times)) - exact)
        run(many, jnp.asarray(TIMES)).block_until_ready()
        began = time.process_time()
        run(many, jnp.asarray(TIMES)).block_until_ready()
        spent = time.process_time() - began
        rows.append([f"{grid.cells} x {grid.steps}", f"{off[:, 1].max():.4f}", f"{off[:, 2:].max():.4f}", f"{spent:.2f}"])
    return "## The solver\n\n" + table(
        ["cells x steps", "largest error at 10 s (mV)", "from 150 s on (mV)", "CPU s of 1000 solves"], rows
    )


def emulators() -> str:
    """Gaussian processes in both charts, by number of runs."""
    rows = []
    for num in (8, 16, 32):
        cells = [str(num)]
        for charts in (PHYSICAL, Given()):
            rms, most = error(process(num, charts))
            cells += [f"{rms:.4f}", f"{most:.3f}"]
        rows.append(cells)
    header = ["runs", "reciprocal chart: rms (mV)", "largest", "inputs as they are: rms (mV)", "largest"]
    return "## Gaussian processes\n\n" + table(header, rows)


PHYSICS = {
    "a network alone": (Bare(), (Level(24, 2, 2400, 128),)),
    "a closed form, and a network": (Layered(), (Level(24, 2, 2400, 128),)),
    "a closed form, and two networks": (Layered(), (Level(24, 2, 1000, 128), Level(24, 2, 1000, 128))),
}


def physics() -> str:
    """Networks that were trained on residuals alone."""
    rms, most = error(InformedEmulator.untrained(SingleParticle.of(TIMES)))
    rows = [["a closed form alone", "0", "", f"{rms:.4f}", f"{most:.3f}"]]
    for name, (form, levels) in PHYSICS.items():
        began = time.process_time()
        emulator = Informed(SingleParticle.of(TIMES, form=form), levels).fit(jax.random.key(0))
        spent = time.process_time() - began
        rms, most = error(emulator)
        left = ", ".join(f"{norm[-1]:.1e}" for norm in emulator.report().residuals)
        rows.append([name, f"{spent:.0f}", left, f"{rms:.4f}", f"{most:.3f}"])
        print(*rows[-1], sep=" | ", flush=True)
    header = ["levels", "CPU s, compiling included", "residuals left (anode, cathode)", "rms (mV)", "largest"]
    return "## Networks that know the equations\n\n" + table(header, rows)


# -- posteriors of two numbers ----------------------------------------------------------------------------------------------


def quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Nodes (n, 2) of the box, and the logarithms of their weights under the prior."""
    z, w = np.polynomial.legendre.leggauss(NODES)
    axes = [a + (b - a) * (z + 1) / 2 for a, b in zip(LOW, HIGH, strict=True)]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    return x, np.log(np.outer(w, w).ravel() / 4)


def exactly(x: np.ndarray) -> np.ndarray:
    """Voltages at the nodes: affine in 1/i0_a, so two solves for each diffusivity are enough."""
    ds = x[:NODES, 1]
    one, two = (solved(np.stack([np.full(NODES, i0), ds], -1)) for i0 in (1.0, 2.0))
    return (2 * two - one)[None] + 2 * (one - two)[None] / x[::NODES, 0][:, None, None]


class Moments:
    """Of a posterior on the nodes: means and deviations (2,), and the log probabilities of the nodes."""

    def __init__(self, x, log_w, v, y, sigma) -> None:
        log_p = log_w - 0.5 * np.sum((v.reshape(len(x), -1) - y) ** 2, -1) / sigma**2
        self.log_p = log_p - np.logaddexp.reduce(log_p)
        p = np.exp(self.log_p)
        self.mean = p @ x
        self.sd = np.sqrt(p @ (x - self.mean) ** 2)


def scores(posterior: inf.Posterior, known: Moments) -> tuple[np.ndarray, float]:
    """How many Monte Carlo errors means (2) and deviations (2) are off; and the effective sample size."""
    draws = np.stack([np.asarray(posterior[name], np.float64).ravel() for name in ("i0_a", "Ds_c")], -1)
    ess = effective(posterior)
    square = (draws - draws.mean(0)) ** 2
    variance = square.mean(0)
    errors = np.sqrt(np.concatenate([variance, square.var(0) / (4 * variance)]) / ess)
    return np.concatenate([draws.mean(0) - known.mean, np.sqrt(variance) - known.sd]) / errors, ess


def effective(posterior: inf.Posterior) -> float:
    """The effective sample size that its ledger has."""
    return np.nan if posterior.ledger.ess is None else posterior.ledger.ess


def posteriors() -> str:
    """Of stand-ins alone, and corrected, against quadrature with the solver, which is held against the table."""
    x, log_w = quadrature()
    exact, rows, checks = exactly(x), [], []
    stand_ins = {
        "Gaussian process, 8 runs, reciprocal": process(8, PHYSICAL),
        "Gaussian process, 32 runs, as they are": process(32, Given()),
        "network, residuals alone": Informed(SingleParticle.of(TIMES), (Level(16, 2, 600, 64),)).fit(jax.random.key(1)),
    }
    said = {name: np.asarray(jax.jit(jax.vmap(lambda x, e=e: e(*x)))(jnp.asarray(x))) for name, e in stand_ins.items()}
    for case in json.loads(KNOWN.read_text())["posterior"]["cases"]:
        at, sigma = np.array(case["truth"]), case["sigma_V"]
        if tuple(at) == (0.5, 1.0):
            continue
        y = solved(at[None])[0]
        known = Moments(x, log_w, exact, y, sigma)
        told = np.array([[case[k][m] for k in ("theta_1", "theta_2")] for m in ("mean", "sd")])
        checks.append(np.max(np.abs(np.stack([known.mean, known.sd]) - told) / told[1]))
        for name, emulator in stand_ins.items():
            alone = Moments(x, log_w, said[name], y, sigma)
            kl = float(np.exp(known.log_p) @ (known.log_p - alone.log_p))
            program = cell(sigma) | {"y": y}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cheap = program.intervene({"voltage": emulator})
                mended = sur.correct(program, cheap, key=jax.random.key(0), calls=6000, rungs=RUNGS)
            z, ess = scores(mended, known)
            shift, wide = (alone.mean - known.mean) / known.sd, alone.sd / known.sd
            rung = str(mended.provenance["rung"]).removeprefix("By")
            rows.append(
                [f"{at[0]:g}, {at[1]:g}", f"{1e3 * sigma:g}", name, f"{shift[0]:+.2f}, {shift[1]:+.2f}"]
                + [f"{wide[0]:.2f}, {wide[1]:.2f}", f"{kl:.3f}", rung, str(mended.ledger.total), f"{ess:.0f}"]
                + [f"{np.max(np.abs(z)):.1f}"]
            )
            print(*rows[-1], sep=" | ", flush=True)
    header = ["truth (i0_a, Ds_c)", "noise (mV)", "stand-in", "alone: shift of means (sd)", "sd to exact", "KL (nats)"]
    header += ["corrected by", "true calls", "effective draws", "largest of 4 errors (Monte Carlo errors)"]
    worst = f"Exact moments by quadrature are within {max(checks):.4f} standard deviations of the table."
    return f"## Two numbers from 100 voltages\n\n{worst}\n\n" + table(header, rows)


# -- six numbers, two rates, unknown noise ----------------------------------------------------------------------------------

GRID = Grid(16, 32)  # the solver of this task, in the data too
RATES = {1.0: np.linspace(20.0, 2700.0, 50), 2.0: np.linspace(10.0, 1350.0, 50)}
NAMES = ("i0_a", "i0_c", "Ds_a", "Ds_c", "eps_a", "eps_c")
BOX = np.array([[0.5, 2.0]] * 4 + [[0.9, 1.1]] * 2)
SEEN = np.array([0.8, 1.3, 1.2, 0.7, 1.03, 0.96, 0.002])  # what made the data; the last is the noise, in V


def both(*theta):
    """The voltages (100,) of discharges at both rates."""
    return jnp.concatenate([voltage(Parameters(*theta), times, rate=r, grid=GRID) for r, times in RATES.items()])


@ppl.model
def six():
    """Six numbers of the cell, the noise, and the voltages."""
    laws = [dist.LogUniform(*row) for row in BOX[:4]] + [dist.Uniform(*row) for row in BOX[4:]]
    theta = [sample(name, law) for name, law in zip(NAMES, laws, strict=True)]
    sigma = sample("sigma", dist.HalfNormal(0.005))
    sample("y", dist.Normal(ppl.call("voltage", both, *theta), sigma))


def six_numbers() -> str:
    """A Gaussian process alone and corrected, against NUTS on the solver."""
    run = jax.jit(jax.vmap(lambda x: both(*x)))
    y = np.asarray(run(jnp.asarray(SEEN[None, :6])))[0] + SEEN[6] * np.random.default_rng(0).standard_normal(100)
    program = six() | {"y": y}
    x = sobol(BOX[:, 0], BOX[:, 1], 128, 0)
    charts = Given(**dict.fromkeys(NAMES[:4], Reciprocal.of))
    emulator = GaussianProcess(charts=charts).fit(jax.random.key(0), Runs.of(x, np.asarray(run(jnp.asarray(x))), names=NAMES))
    print(emulator.report(), flush=True)
    cheap = program.intervene({"voltage": emulator})
    settings: dict[str, Any] = {"key": jax.random.key(0), "chains": 4, "draws": 1000, "progress": False}
    answers: dict[str, Callable[[], inf.Posterior]] = {
        "NUTS on the solver": lambda: inf.mcmc(program, inf.NUTS(), **settings),
        "NUTS on the emulator alone": lambda: inf.mcmc(cheap, inf.NUTS(), **settings),
        "corrected": lambda: sur.correct(program, cheap, key=jax.random.key(1), calls=8000, rungs=RUNGS),
        "delayed acceptance, 5 a call": lambda: inf.mcmc(
            program, inf.delayed_acceptance(inf.NUTS(), cheap, num=5), **settings
        ),
    }
    rows, known = [], None
    for name, answer in answers.items():
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            posterior = answer()
        spent, ess = time.process_time() - began, effective(posterior)
        draws = np.stack([np.asarray(posterior[n], np.float64).ravel() for n in (*NAMES, "sigma")], -1)
        mean, sd = draws.mean(0), draws.std(0)
        known = (mean, sd, ess) if known is None else known
        z = (mean - known[0]) / np.sqrt(sd**2 / ess + known[1] ** 2 / known[2])
        calls = "none" if "alone" in name else f"{posterior.ledger.total + 128 * ('NUTS on' not in name):,}"
        moved = np.max(np.abs(mean - known[0]) / known[1])
        far = "" if known[0] is mean else f"{moved:.3f}"
        rung = posterior.provenance.get("rung")
        rows.append([name + (f" ({rung})" if rung else ""), calls, f"{ess:.0f}", far])
        rows[-1] += ["" if known[0] is mean else f"{np.max(np.abs(z)):.1f}", f"{spent:.0f}"]
        print(*rows[-1], sep=" | ", flush=True)
    header = ["answer", "true calls", "effective draws", "largest shift of a mean (sd)", "in Monte Carlo errors", "CPU s"]
    return "## Six numbers and the noise, from two rates\n\n" + table(header, rows)


PARTS = {"solver": solver, "emulators": emulators, "physics": physics, "posteriors": posteriors, "six": six_numbers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=None, choices=list(PARTS))
    parser.add_argument("--write", action="store_true", help="write results/battery.md")
    asked = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in asked.only or ([] if asked.write else PARTS):
        text = PARTS[name]()
        (KEPT / f"{name}.md").write_text(text)
        print(text, flush=True)
    if asked.write:
        what = (
            "Single-particle model of a lithium-ion cell (`benchmarks/battery_cell.py`), over i0_a in [0.5, 4] and Ds_c in "
            f"[1, 10] times the cell's own. {machine(('jax', 'numpyro'))}"
        )
        write("battery", "A battery's parameters", what, *(p.read_text() for n in PARTS if (p := KEPT / f"{n}.md").exists()))


if __name__ == "__main__":
    main()
