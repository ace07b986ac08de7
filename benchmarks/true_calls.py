"""True calls to reach KL 0.01: what an answer costs in runs of a costly code, by method, on the same problems and seeds.

    python -m benchmarks.true_calls [--seeds 3] [--only battery ...] [--write]

Problems with a costly call: two numbers of a battery from its voltage, with errors of 3 and of 10 mV, and two universes
from chronometers and supernovae. Of every method there is a curve: the divergence from the exact posterior after so many
true calls, warm-up, design and pilot counted; where it falls below 0.01 nats for good is what is told. It is that of
normal laws with the moments of the exact posterior p and of the answer q,

    KL = 1/2 (tr(Q^-1 P) - d + (m_q - m_p)' Q^-1 (m_q - m_p) + log det Q - log det P),

so for n independent draws in d dimensions about (d + d (d + 1)/2) / 2n. A gradient counts as a call.

The Gaussian process of log likelihood is in the style of GPry (Gammal, Schöneberg, Torrado and Fidler, JCAP 10, 2023, 021) and
BOBE: where to run next is what exp(2 zeta mean) (exp(sd) - 1) is largest of draws from the process, zeta = d^-0.85, a few
at a time, those asked for believed to be what the process says; its answer is not corrected. Heights far below are cut.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import inference as inf
import ppl
import surrogates as sur
from benchmarks import battery, cosmology
from benchmarks.report import machine, table, write
from inference.smc.importance import weighed
from ppl import dist, sample
from surrogates.emulators.charts import Given
from surrogates.emulators.gaussian_process import GaussianProcess
from surrogates.emulators.runs import Runs
from surrogates.likelihood_rungs import START, ByDelayedAcceptance, Pilot
from surrogates.powered import Nested, Tempered, evaluations_of

ENOUGH = 0.01  # nats
CUT = 50.0  # nats below the best, at which heights are cut
CHAINS, WARMUP = 4, 300


class Moments(NamedTuple):
    """Mean (d,) and covariance (d, d)."""

    mean: np.ndarray
    covariance: np.ndarray

    @staticmethod
    def of(x: Any, weights: Any = None) -> "Moments":
        """Of draws (n, d), weighted or not."""
        x = np.asarray(x, np.float64)
        return Moments(np.average(x, 0, weights), np.atleast_2d(np.cov(x.T, aweights=weights)))

    def divergence(self, q: "Moments") -> float:
        """KL from q, in nats; see the file's docstring."""
        inverse, off = np.linalg.inv(q.covariance), q.mean - self.mean
        logs = np.linalg.slogdet(q.covariance)[1] - np.linalg.slogdet(self.covariance)[1]
        return float(0.5 * (np.trace(inverse @ self.covariance) - len(off) + off @ inverse @ off + logs))


class Task(NamedTuple):
    """A program with data, whose `call` is costly; uniform priors over `box`, by site; and the exact moments."""

    program: ppl.Program
    call: str
    box: dict[str, tuple[float, float]]
    exact: Moments

    @property
    def target(self) -> ppl.Target:
        return ppl.as_target(self.program)

    @property
    def design(self) -> int:
        """Runs of an emulator."""
        return 12 * len(self.box)

    def at(self, positions: Any) -> np.ndarray:
        """Values (n, d) of the sites at flat positions."""
        target = self.target
        choices = jax.jit(jax.vmap(target.constrain))(jnp.asarray(positions))
        return np.stack([np.asarray(choices[name], np.float64) for name in self.box], -1)


Curve = Iterator[tuple[int, Moments]]


def draws_of(task: Task, posterior: inf.Posterior, num: int) -> np.ndarray:
    """The first `num` draws of each chain, (chains x num, d)."""
    return np.stack([np.asarray(posterior[name], np.float64)[:, :num].ravel() for name in task.box], -1)


# -- methods: each yields how many calls, and the answer so far -------------------------------------------------------------


def chains(kernel: inf.Kernel, most: int) -> Callable[[Task, Any], Curve]:
    """Markov chains on the truth."""

    def run(task: Task, key) -> Curve:
        posterior = inf.mcmc(
            task.program, kernel, key=key, chains=CHAINS, warmup=WARMUP, draws=most, progress=False, check=False
        )
        asked = np.asarray(posterior.stats.get("n_steps", np.ones((CHAINS, most))))
        begun = posterior.ledger.total - int(asked.sum())
        for num in checkpoints(25, most):
            yield begun + int(asked[:, :num].sum()), Moments.of(draws_of(task, posterior, num))

    return run


def nested(task: Task, key) -> Curve:
    """Nested sampling on the truth, with more and more particles."""
    for particles in (50, 100, 200, 400, 800):
        method = inf.nested_sampling(cosmology.KERNEL, moves=5)
        run = inf.smc(task.program, method, key=key, particles=particles, progress=False, check=False)
        population = run.run.population
        weights = np.asarray(jax.nn.softmax(population.log_weights), np.float64)
        yield evaluations_of(run), Moments.of(task.at(population.particles.position), weights)


def alone(task: Task, key) -> Curve:
    """An emulator of the outputs, believed."""
    for budget in (8, 12, 16, 24, 32, 48, 64, 96):
        yield budget, believed(task, emulated(task, key, budget))


def weights(powers: Any) -> Callable[[Task, Any], Curve]:
    """Draws of the best power of an emulator, weighed by the truth."""

    def run(task: Task, key) -> Curve:
        emulator, (key_pilot, key_weigh) = emulated(task, key, task.design), jax.random.split(key)
        piloted = Pilot(powers=powers)(key_pilot, task.target, ppl.as_target(cheap(task, emulator)))
        for num in (64, 128, 256, 512, 1024, 2000):
            population = weighed(task.target, piloted.way, key=key_weigh, num=num).run.population
            share = np.asarray(jax.nn.softmax(population.log_weights), np.float64)
            yield task.design + piloted.calls + num, Moments.of(task.at(population.particles.position), share)

    return run


def delayed(task: Task, key) -> Curve:
    """Chains on an emulator, of which the truth takes every fifth step or not."""
    rung, emulator = ByDelayedAcceptance(), emulated(task, key, task.design)
    posterior = sur.correct(task.program, cheap(task, emulator), key=key, rungs=(rung,), progress=False)
    begun = task.design + Pilot().num + rung.chains * (START + rung.warmup)
    for num in checkpoints(25, rung.draws):
        yield begun + rung.chains * num, Moments.of(draws_of(task, posterior, num))


def heights(task: Task, key) -> Curve:
    """A Gaussian process of the log likelihood, in the style of GPry, believed."""
    names, d = tuple(task.box), len(task.box)
    low, high = np.array(list(task.box.values())).T
    target = task.target

    def height(*theta):
        position = target.unconstrain(dict(zip(names, theta, strict=True)))
        return target.log_prior_and_likelihood(position)[1]

    @ppl.model
    def by_height():
        theta = [sample(name, dist.Uniform(*task.box[name])) for name in names]
        ppl.factor("height", ppl.call("height", height, *theta))

    many, program, family = jax.jit(jax.vmap(lambda x: height(*x))), by_height(), GaussianProcess(charts=Given(), folds=0)
    x = battery.sobol(low, high, 1 << (4 * d - 1).bit_length(), int(jax.random.randint(key, (), 0, 1 << 20)))
    y = np.asarray(many(jnp.asarray(x)), np.float64)
    stops = [stop for stop in (16, 24, 32, 48, 64, 96, 128) if stop >= len(x)]

    def fitted(x, y, before=None, steps=8):
        runs = Runs.of(x, np.maximum(y, y.max() - CUT), names=names)
        return family.fit(key, runs) if before is None else family.refit(before, runs, key=key, steps=steps)

    process = fitted(x, y)
    while stops:
        guess = ppl.as_target(program.intervene({"height": process}))
        if len(x) >= stops[0]:
            yield len(x), believed_of(task, guess, key)
            stops = stops[1:]
            continue
        drawn = Tempered(particles=400)(jax.random.fold_in(key, len(x)), guess, (0.1, 0.3, 1.0))
        found = np.concatenate([task.at(part.positions) for part in drawn])
        new, guessed, believing = [], [], process
        for _ in range(4):
            said = jax.jit(jax.vmap(lambda e, x: e.predict(*x), (None, 0)))(believing, jnp.asarray(found))
            mean, sd = np.asarray(said.mean), np.sqrt(np.asarray(said.variance))
            best = np.argmax(2 * d**-0.85 * mean + np.log(np.expm1(np.minimum(sd, CUT))))
            new.append(found[best])
            guessed.append(mean[best])
            believing = fitted(np.concatenate([x, new]), np.concatenate([y, guessed]), process, steps=1)
        x = np.concatenate([x, new])
        y = np.concatenate([y, np.asarray(many(jnp.asarray(new)), np.float64)])
        process = fitted(x, y) if len(x) & (len(x) - 1) == 0 else fitted(x, y, process)


METHODS: dict[str, Callable[[Task, Any], Curve]] = {
    "NUTS": chains(inf.NUTS(), 2000),
    "random walk": chains(inf.RandomWalk(), 8000),
    "nested sampling": nested,
    "emulator, weighed": weights(Tempered()),
    "emulator by nested sampling, weighed": weights(Nested()),
    "emulator, delayed acceptance": delayed,
    "emulator of outputs, believed": alone,
    "process of log likelihood, believed": heights,
}
EXACT = {name: "believed" not in name for name in METHODS}


def checkpoints(first: int, last: int) -> list[int]:
    """By a factor of root 2, from the first to the last."""
    num = int(np.floor(2 * np.log2(last / first)))
    return sorted({*(round(first * 2 ** (i / 2)) for i in range(num + 1)), last})


def emulated(task: Task, key, budget: int) -> Any:
    return sur.emulate(task.program, task.call, budget=budget, key=key, progress=False)


def cheap(task: Task, emulator: Any) -> ppl.Program:
    return task.program.intervene({task.call: emulator})


def believed(task: Task, emulator: Any) -> Moments:
    return believed_of(task, ppl.as_target(cheap(task, emulator)), jax.random.key(7))


def believed_of(task: Task, target: ppl.Target, key) -> Moments:
    """Of the posterior of a target that costs nothing."""
    (drawn,) = Tempered(particles=8000)(key, target, (1.0,))
    return Moments.of(task.at(drawn.positions))


# -- problems --------------------------------------------------------------------------------------------------------------


def cell(sigma: float) -> Task:
    """Two numbers of a battery, (2, 2) in truth."""
    y = battery.solved(np.array([[2.0, 2.0]]))[0]
    x, log_w = battery.quadrature()
    p = np.exp(battery.Moments(x, log_w, battery.exactly(x), y, sigma).log_p)
    box = {"i0_a": (0.5, 4.0), "Ds_c": (1.0, 10.0)}
    return Task(battery.cell(sigma) | {"y": y}, "voltage", box, Moments.of(x, p))


def universe(model: str) -> Task:
    """A universe, from chronometers and supernovae; exact by 40,000 particles, tempered."""
    program = cosmology.MODELS[model](True, cosmology.curves)
    box = {"matter": (0.1, 0.5), "h": (0.4, 0.9)}
    box |= {"w0": (-2.0, 0.0), "wa": (-2.0, 2.0)} if model == "CPL" else {}
    task = Task(program, "curves", box, Moments(np.zeros(1), np.eye(1)))
    return task._replace(exact=long(task))


def long(task: Task) -> Moments:
    (drawn,) = Tempered(particles=40_000)(jax.random.key(99), task.target, (1.0,))
    return Moments.of(task.at(drawn.positions))


TASKS: dict[str, Callable[[], Task]] = {
    "battery, 3 mV": lambda: cell(0.003),
    "battery, 10 mV": lambda: cell(0.010),
    "LCDM": lambda: universe("LCDM"),
    "CPL": lambda: universe("CPL"),
}


def reached(curve: list[tuple[int, float]]) -> tuple[int | None, int]:
    """The first number of calls after which the divergence stays below, or None; and the last."""
    found = None
    for calls, kl in reversed(curve):
        if not kl <= ENOUGH:
            break
        found = calls
    return found, curve[-1][0]


def told(curves: list[list[tuple[int, float]]]) -> str:
    """The median over seeds of the calls it takes."""
    ends = [reached(curve) for curve in curves]
    median = np.median([np.inf if found is None else found for found, _ in ends])
    if np.isfinite(median):
        return f"{median:,.0f}"
    return f"not by {max(last for _, last in ends):,} ({np.median([curve[-1][1] for curve in curves]):.2g})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--write", action="store_true", help="write results/true_calls.md")
    asked = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = {name: [name, "yes" if EXACT[name] else "no"] for name in asked.methods}
    for problem in asked.only:
        task = TASKS[problem]()
        for name in asked.methods:
            began = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                keys = [jax.random.key(seed) for seed in range(asked.seeds)]
                curves = [[(n, task.exact.divergence(q)) for n, q in METHODS[name](task, key)] for key in keys]
            rows[name].append(told(curves))
            print(problem, name, rows[name][-1], f"{time.process_time() - began:.0f} CPU s", sep=" | ", flush=True)
            for curve in curves:
                print("   ", " ".join(f"{calls}: {kl:.2g}" for calls, kl in curve), flush=True)
    header = ["method", "exact in the limit", *asked.only]
    tabled = table(header, list(rows.values()))
    print(tabled)
    if asked.write:
        what = (
            f"Medians of {asked.seeds} seeds of the number of true calls after which the divergence of an answer stays below "
            f"{ENOUGH:g} nats; all calls counted, gradients as calls. Emulators are made of 12 runs for each parameter where "
            f"they are corrected. 'not by n (x)': after n calls x nats are left. {machine(('jax',))}"
        )
        write("true_calls", "True calls to reach KL 0.01", what, tabled)


if __name__ == "__main__":
    main()
