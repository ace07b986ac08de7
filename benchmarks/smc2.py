"""SMC^2 against `particles` (Chopin): a noisy autoregression with unknown coefficient and scale.

    python -m benchmarks.smc2 --particles /tmp/pv/bin/python --write

256 values of the parameters, each with a bootstrap filter of 256 walkers, 100 observations, systematic resampling of both
where the effective sample size falls to half, and 5 random-walk moves with new filters where that of the parameters does. The
number of walkers stays, so that both do the same work; then ours as it comes, with exchange.

A particle-step is a step of one walker, in filters that go on and in those that are proposed. The first call compiles.
"""

import argparse
import json
import statistics
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from benchmarks.report import machine, table, write
from inference.compiled import compiled
from inference.smc.exchange import ByWeight
from inference.smc.loop import begin, some
from inference.smc.smc2 import smc2
from ppl import dist, sample

NUM, WALKERS, T, MOVES = 256, 256, 100, 5

PARTICLES = """
import json, sys, time
import numpy as np, particles
from particles import distributions as d, smc_samplers as ssp, state_space_models as ssm
class Walk(ssm.StateSpaceModel):
    def PX0(self): return d.Normal(scale=self.scale)
    def PX(self, t, xp): return d.Normal(loc=self.rho * xp, scale=self.scale)
    def PY(self, t, xp, x): return d.Normal(loc=x, scale=0.7)
y, rounds, num, walkers, moves = json.loads(sys.stdin.read())
prior = d.StructDist({"rho": d.Uniform(-1.0, 1.0), "scale": d.LogNormal(0.0, 0.5)})
for i in range(rounds):
    move = ssp.AdaptiveMCMCSequence(len_chain=moves + 1)
    fk = ssp.SMC2(ssm_cls=Walk, prior=prior, data=np.array(y), init_Nx=walkers, wastefree=False, move=move)
    run = particles.SMC(fk=fk, N=num, ESSrmin=0.5)
    begun = time.perf_counter()
    run.run()
    moved = sum(t for t, flag in enumerate(run.summaries.rs_flags) if flag)
    print(time.perf_counter() - begun, num * walkers * (len(y) + moves * moved), run.logLt)
"""


@ppl.model
def walk(length):
    rho = sample("rho", dist.Uniform(-1.0, 1.0))
    scale = sample("scale", dist.LogNormal(0.0, 0.5))

    def step(z, _):
        z = sample("z", dist.Normal(rho * z, scale))
        sample("y", dist.Normal(z, 0.7))
        return z, None

    ppl.scan(step, 0.0, length=length)


def series() -> list[float]:
    rng, z, out = np.random.default_rng(0), 0.0, []
    for _ in range(T):
        z = 0.9 * z + rng.normal()
        out.append(float(z + 0.7 * rng.normal()))
    return out


def timed(method, y, rounds: int, num: int) -> tuple[float, list[tuple[float, float, float]]]:
    """Seconds of the first call; and of the later ones: seconds, particle-steps, log evidence."""
    path = method.way.of(walk(len(y)) | {"y": jnp.asarray(y)})

    def run(path, key):
        def keep(population):
            return ()

        state = begin(method.stage, path, key, num)
        state, rows = some(method.stage, path, keep, key, state, jnp.int32(path.length - 1), length=path.length - 1)
        return state.population.log_evidence, rows.info

    calls = []
    for i in range(rounds + 1):
        begun = time.perf_counter()
        found = compiled(run, ("benchmark", "smc2", num, len(y)), path, jax.random.key(i))(path, jax.random.key(i))
        log_z, info = jax.tree.map(np.asarray, jax.block_until_ready(found))
        seconds = time.perf_counter() - begun
        walkers = np.maximum(info["num_walkers"], method.way.sizes[0]).astype(float)
        steps = num * (np.sum(walkers * (1 + info["num_moves"] * info["steps_taken"])) + method.way.sizes[0])
        calls.append((seconds, steps, float(log_z)))
    return calls[0][0], calls[1:]


def row(name: str, first: float | None, calls, ours: float | None = None) -> tuple:
    seconds = [call[0] for call in calls]
    rates, log_z = [call[1] / call[0] for call in calls], [call[2] for call in calls]
    middle = statistics.median(seconds)
    compile_seconds = "" if first is None else f"{first - middle:.1f}"
    spread = f"{np.mean(log_z):.2f}, {np.std(log_z):.2f}"
    over = f"{statistics.median(rates) / (ours or statistics.median(rates)):.3f}"
    seconds_text = f"{middle:.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
    return name, seconds_text, f"{statistics.median(rates):.2e}", over, spread, compile_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num", type=int, default=NUM)
    parser.add_argument("--walkers", type=int, default=WALKERS)
    parser.add_argument("--particles", default=None, help="a Python that has `particles`")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/smc2.md")
    args = parser.parse_args()
    y = series()
    fixed = timed(smc2(inner=(args.walkers,), moves=MOVES, exchange=ByWeight()), y, args.rounds, args.num)
    ours = statistics.median(call[1] / call[0] for call in fixed[1])
    grows = timed(smc2(inner=(args.walkers // 4, args.walkers // 2, args.walkers)), y, args.rounds, args.num)
    rows = [row("Evidentia", *fixed), row("Evidentia, with paths and exchange", *grows, ours)]
    if args.particles:
        told = json.dumps([y, args.rounds, args.num, args.walkers, MOVES])
        done = subprocess.run([args.particles, "-c", PARTICLES], input=told, capture_output=True, text=True, check=True)
        calls = [tuple(float(x) for x in line.split()) for line in done.stdout.split("\n") if line]
        rows.append(row("particles", None, calls, ours))
    found = table(("", "seconds", "particle-steps/s", "of ours", "log evidence, sd", "compile, s"), rows)
    print(found)
    if args.write:
        note = f"{args.num} x {args.walkers} x {T}. Medians (range) of {args.rounds} rounds; float32. {machine(('jax',))}"
        write("smc2", "SMC^2 against its peer", note, found)


if __name__ == "__main__":
    main()
