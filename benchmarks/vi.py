"""Variational inference against reference posteriors, and corrected to be exact.

    python -m benchmarks.vi [--only radon] [--fast] [--write]

Three posteriors (`vi_models.py`): a sparse regression, a hierarchical model, a mixture. Each is approximated by guides that
climb the ELBO, by DADVI, Pathfinder and Laplace; and by NumPyro's SVI with the same model, start, optimiser, steps and
samples. Then every guide of ours is corrected: by importance sampling, Pareto-smoothed; by tempered sequential Monte Carlo
from the guide to the posterior, which tells the log evidence too; and NUTS begins at the mean field. The reference is a long
run of NUTS, checked by NumPyro's, or what is published.
"""

import argparse
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import inference as inf
from benchmarks.report import machine, table, write
from benchmarks.vi_guides import GUIDES, SAMPLES, AtGuide, Guided, optimizer
from benchmarks.vi_models import MODELS, Model
from benchmarks.vi_peer import GUIDES as PEERS
from benchmarks.vi_peer import climbed as peer_climbed
from benchmarks.vi_peer import long_run
from inference.findings import array_stats
from inference.smc.importance import smooth
from inference.vi.approximation import posterior_of


class Size(NamedTuple):
    """How much is done."""

    steps: int = 6000
    draws: int = 10_000  # of each guide
    particles: int = 1000
    reference: int = 5000  # draws of each of 4 chains
    peer: int = 2000  # of NumPyro's
    nuts: int = 1000  # draws of each chain that begins at a guide


KEPT = Path("build/benchmarks/vi")  # what is there is not run again: delete it when our code or the peer changes
FAST = Size(steps=500, draws=1000, particles=300, reference=500, peer=300, nuts=200)


# -- the reference -----------------------------------------------------------------------------------------------------------


class Reference(NamedTuple):
    """Means and standard deviations of a model's scalars, each (scalars,), and where they are from."""

    mean: np.ndarray
    sd: np.ndarray
    told: str


def reference(model: Model, size: Size, key) -> Reference:
    if model.published is not None:
        known = model.published
        told = f"Reference: posteriordb's means and sds of {', '.join(known.names)}, of 10,000 draws by Stan."
        return Reference(known.mean, known.sd, told)
    began = time.perf_counter()
    posterior = inf.mcmc(
        model.program, inf.adapted(inf.NUTS(), target_acceptance=0.98), key=key, draws=size.reference, warmup=2000,
        progress=False, check=False,
    )  # fmt: skip
    ours, seconds = model.scalars(posterior.draws), time.perf_counter() - began
    began = time.perf_counter()
    theirs = model.scalars(long_run(model, draws=size.peer, key=key))
    other = time.perf_counter() - began
    (mean, error, rhat, ess), (their_mean, their_error, their_rhat, their_ess) = _moments(ours), _moments(theirs)
    z = np.abs(mean - their_mean) / np.hypot(error, their_error)
    told = (
        f"Reference: NUTS, 4 x {size.reference} draws, target acceptance 0.98, {seconds:.0f} s: R-hat at most {rhat:.4f}, at "
        f"least {ess:.0f} effective draws, {int(posterior.stats['diverging'].sum())} divergences. NumPyro's NUTS, 4 x "
        f"{size.peer} draws, vectorised, {other:.0f} s: R-hat at most {their_rhat:.4f}, at least {their_ess:.0f} "
        f"effective draws; of {len(z)} means the one that differs most differs by {z.max():.1f} standard errors."
    )
    return Reference(mean, ours.std((0, 1)), told)


def _moments(draws):
    """Means and their standard errors, each (scalars,), the largest R-hat and the smallest effective size."""
    stats = array_stats()
    columns = [draws[..., i] for i in range(draws.shape[-1])]
    ess = np.array([stats.ess(x, method="mean") for x in columns])
    rhat = max(float(stats.rhat(x)) for x in columns)
    return draws.mean((0, 1)), draws.std((0, 1)) / np.sqrt(ess), rhat, float(ess.min())


def off(draws, known: Reference) -> list[str]:
    """Two cells: distances of means in reference sds, the largest and the median; sds over the reference's, likewise."""
    draws = draws.reshape(-1, draws.shape[-1])
    means, sds = np.abs(draws.mean(0) - known.mean) / known.sd, draws.std(0) / known.sd
    return [
        f"{means.max():.2f} ({np.median(means):.3f})",
        f"{np.median(sds):.2f} ({sds.min():.2f}-{sds.max():.2f})",
    ]


# -- approximated -------------------------------------------------------------------------------------------------------------


def approximated(name: str, model: Model, known: Reference, size: Size, key) -> tuple[list[str], Guided | None]:
    """A row of the first table, and the guide; None where there is none of ours."""
    key_fit, key_look = jax.random.split(key)
    began = time.perf_counter()
    if name in PEERS:
        found = peer_climbed(
            model, PEERS[name], optimizer(size.steps), steps=size.steps, samples=SAMPLES, draws=size.draws, key=key_fit
        )
        guided, speed, draws, log_weights = None, found.speed, found.draws, found.log_weights
    else:
        try:
            guided = GUIDES[name](model, size.steps, key_fit)
        except ValueError as refusal:
            return [name, f"refused: {refusal}"], None
        speed = guided.speed
    seconds = time.perf_counter() - began
    if guided is not None:
        posterior = posterior_of(guided.program, guided.guide, key=key_look, draws=size.draws, made={})
        draws, log_weights = model.scalars(posterior.draws), posterior.run.log_weights
    elbo, error = log_weights.mean(), log_weights.std() / len(log_weights) ** 0.5
    rate, k = "" if speed is None else f"{speed:,.0f}", smooth(jnp.asarray(log_weights))[1]
    return [name, f"{seconds:.1f}", rate, f"{elbo:.2f} +- {error:.2f}", *off(draws, known), f"{k:.2f}"], guided


# -- corrected ---------------------------------------------------------------------------------------------------------------


def weighed(name: str, guided: Guided, model: Model, known: Reference, size: Size, key) -> list[str]:
    began = time.perf_counter()
    posterior = inf.importance(guided.program, guided.guide, key=key, num=size.draws)
    seconds = time.perf_counter() - began
    return [f"{name}: importance", f"{seconds:.1f}", *off(model.scalars(posterior.draws), known), *evidence(posterior)]


def tempered(name: str, program, guide, model: Model, known: Reference, size: Size, key):
    began = time.perf_counter()
    method = inf.tempering(inf.HMC(8), reference=guide)
    posterior = inf.smc(program, method, key=key, particles=size.particles, progress=False, check=False)
    seconds, stages = time.perf_counter() - began, len(posterior.stages["ess"]) - 1
    named = f"{name}: tempered SMC, {stages} stages"
    row = [named, f"{seconds:.1f}", *off(model.scalars(posterior.draws), known), *evidence(posterior)]
    return row, (posterior.log_evidence, posterior.log_evidence_error)


def evidence(posterior) -> list[str]:
    return [f"{posterior.log_evidence:.2f} +- {posterior.log_evidence_error:.2f}"]


def chained(name: str, init: AtGuide | None, model: Model, known: Reference, size: Size, key) -> list[str]:
    began = time.perf_counter()
    posterior = inf.mcmc(
        model.program, inf.NUTS(), key=key, draws=size.nuts, init=init, progress=False, check=False
    )  # fmt: skip
    seconds, warmup = time.perf_counter() - began, posterior.provenance["warmup"]
    named = f"{name}, warm-up of {warmup}"
    return [named, f"{seconds:.1f}", *off(model.scalars(posterior.draws), known), ""]


# -- all of it ---------------------------------------------------------------------------------------------------------------


def names_of(model: Model) -> list[str]:
    return [name for name in (*GUIDES, *PEERS) if model.centred is not None or "centred" not in name]


def measured(model: Model, size: Size) -> list[str]:
    """Paragraphs and tables of a model."""
    key, began = jax.random.key(0), time.perf_counter()
    known = reference(model, size, key)
    print(model.title, known.told, sep="\n", flush=True)
    first, second, found, guides = [], [], {}, {}
    for name in names_of(model):
        row, guided = approximated(name, model, known, size, jax.random.fold_in(key, 1))
        first.append(told(row))
        if guided is not None:
            guides[name] = guided
    for name, guided in guides.items():
        second.append(told(weighed(name, guided, model, known, size, jax.random.fold_in(key, 2))))
    for i, name in enumerate(("prior", *(name for name in TEMPERED if name in guides))):
        guided = guides.get(name, Guided(model.program, None))
        row, found[name] = tempered(name, guided.program, guided.guide, model, known, size, jax.random.fold_in(key, 3 + i))
        second.append(told(row))
    starts = {"NUTS, 4 x 1000": None, "NUTS from the mean field": AtGuide(guides["mean field"].guide)}
    for name, init in starts.items():
        second.append(told(chained(name, init, model, known, size, jax.random.fold_in(key, 30))))
    took = f"In all {time.perf_counter() - began:.0f} s."
    return [f"## {model.title}", known.told, table(FIRST, first), table(SECOND, second), agreement(found), took]


def agreement(found: dict[str, tuple[float, float]]) -> str:
    """Whether the log evidences from all starts are one number; those of the centred program are told apart."""
    values, errors = np.array([x for name, x in found.items() if "centred" not in name], float).T
    weights = errors**-2.0 / np.sum(errors**-2.0)
    mean, together = weights @ values, np.sum(errors**-2.0) ** -0.5
    said = (
        f"Log evidence by tempered SMC from {len(values)} starts: {mean:.3f} +- {together:.3f} together; chi-square of their "
        f"differences {np.sum(((values - mean) / errors) ** 2):.1f} with {len(values) - 1} degrees of freedom."
    )
    for value, error in (x for name, x in found.items() if "centred" in name):
        z = (value - mean) / np.hypot(error, together)
        said += f" By the centred program {value:.2f} +- {error:.2f}, {z:+.1f} standard errors away."
    print(said, flush=True)
    return said


def told(row: list[str]) -> list[str]:
    print(*row, sep=" | ", flush=True)
    return row


FIRST = ["guide", "seconds", "steps/s", "ELBO", "means off", "sds", "Pareto k"]
SECOND = ["corrected", "seconds", "means off", "sds", "log evidence"]
TEMPERED = ("mean field", "full rank", "autoregressive, centred", "DADVI, linear response")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"comma-separated, of {', '.join(MODELS)}")
    parser.add_argument("--fast", action="store_true", help="short runs, to see that all of it works")
    parser.add_argument("--write", action="store_true", help="write results/vi.md, of all models")
    asked = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore", inf.SamplingWarning)  # what they say is in the tables
    names = [name for name in asked.only.split(",") if name] or list(MODELS)
    if asked.fast:
        for name in names:
            measured(MODELS[name](), FAST)
        return
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (KEPT / f"{name}.md").exists():
            (KEPT / f"{name}.md").write_text("\n\n".join(measured(MODELS[name](), Size())))
    if asked.write:
        parts = [(KEPT / f"{name}.md").read_text() for name in MODELS]
        used = machine(("jax", "numpyro", "optax"))
        title = "Variational inference against reference posteriors, and corrected"
        write("vi", title, NOTE.format(**Size()._asdict()), f"Beside other work: seconds are rough. {used}", *parts)


NOTE = """\
Guides climb the ELBO by {steps} steps of Adam (rate 0.01, along a cosine to a hundredth of it; gradients cut to a norm of
10) with 8 samples each, from the origin of the unconstrained space and scales of 0.1, NumPyro's (`SVI`, `Trace_ELBO`) as
ours; only the flow (2 layers of 8 bins) begins where Pathfinder ends. float64. *Seconds* are those of everything,
compilation included; *steps/s* without it. The *ELBO* is that of {draws} fresh draws. *Means off*: |mean - reference| in
reference standard deviations, the largest (and the median) of all scalars; *sds*: standard deviation over that of the
reference, the median (and the range). *Pareto k*, of {draws} importance weights: above 0.7 they cannot be trusted.
Importance sampling takes {draws} draws, tempered SMC {particles} particles, moved by HMC(8) until they have forgotten where
they were. So many independent draws err too: the largest of 100 means by about 0.03 for {draws}, 0.1 for {particles}. Guides
called centred are for the program with its hierarchies centred, where an autoregressive guide has something to lean on
(non-centred, it is a mean field); posterior and evidence are the same. Pathfinder's guide is the mixture of its paths,
with shares by importance; its own answer is the importance row. Tempering from it and from the flow is left out: it takes
minutes."""


if __name__ == "__main__":
    main()
