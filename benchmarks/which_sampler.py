"""Every general kernel on four reference posteriors: effective samples per 1000 evaluations, and per second.

    python -m benchmarks.which_sampler [--only garch,eight] [--kernels NUTS,MAMS] [--write]

Each kernel comes as it is, with its defaults, and runs twice; the second time, with nothing to compile, gives the seconds.
Evaluations are gradients, or densities for kernels that take none, of all replicas, warm-up included. Effective samples are
the smaller of bulk and tail, of the worst published parameter. `--write` writes benchmarks/results/which_sampler.md, which
the tutorial "Which sampler?" shows.
"""

import argparse
import time
from collections.abc import Callable

import inference as inf
from benchmarks.peers.measure import CHAINS, DRAWS, WARMUP, Run, numbers
from benchmarks.report import machine, table, write

KERNELS: dict[str, Callable[[], inf.Kernel]] = {
    "NUTS": lambda: inf.NUTS(),
    "HMC": lambda: inf.HMC(),
    "ChEES": lambda: inf.ChEES(),
    "MAMS": lambda: inf.MAMS(),
    "MCLMC (biased)": lambda: inf.MCLMC(),
    "mala": lambda: inf.mala(),
    "Barker": lambda: inf.Barker(),
    "parallel_tempering(HMC)": lambda: inf.parallel_tempering(inf.HMC(), num=6),
    "Slice": lambda: inf.Slice(),
    "LatentSlice": lambda: inf.LatentSlice(),
    "RandomWalk": lambda: inf.RandomWalk(),
}
POSTERIORS = {
    "sblrc-blr": "regression",
    "eight_schools-eight_schools_noncentered": "eight schools",
    "garch-garch11": "GARCH",
    "gp_pois_regr-gp_pois_regr": "Gaussian process",
}
SETTINGS = {"chains": CHAINS, "draws": DRAWS, "warmup": WARMUP, "progress": False, "check": False}
RHAT_LIMIT, Z_LIMIT = 1.05, 5.0  # beyond which a cell is marked: the chains disagree; the means or sds are not the published


def evaluations(stats) -> int:
    """Gradients, or densities where a kernel takes none; one a step where it does not count them."""
    counted = next((stats[name] for name in ("n_steps", "num_evaluations") if name in stats), None)
    return int(stats["lp"].size if counted is None else counted.sum())


def measured(kernel: inf.Kernel, name: str, seed: int) -> dict:
    """The numbers of one kernel on one posterior."""
    import jax

    from tests.reference.models import program

    def sample():
        start = time.perf_counter()
        posterior = inf.mcmc(program(name), kernel, key=jax.random.key(seed), **SETTINGS)
        return posterior, time.perf_counter() - start

    _, whole = sample()
    posterior, run = sample()
    num = evaluations(posterior.stats) + evaluations(posterior.warmup_stats)
    return numbers(name, Run(whole, run, num, posterior.draws))


def cell(found: dict) -> str:
    """Effective samples per 1000 evaluations and per second; marks where they should not be believed."""
    ess = min(found["ess_bulk"], found["ess_tail"])
    each, speed = 1000 * ess / found["gradients"], ess / found["run"]
    marks = ("†" if found["rhat"] > RHAT_LIMIT else "") + ("‡" if found["z"] > Z_LIMIT else "")
    return f"{two_digits(each)} · {two_digits(speed)} {marks}".strip()


def two_digits(x: float) -> str:
    """With two significant digits, never as a power of ten."""
    return f"{float(f'{x:.2g}'):,.10g}"


NOTE = f"""Each cell: effective samples per 1000 evaluations (gradients; densities for Slice, LatentSlice and RandomWalk) · per
second, of the worst published parameter, the smaller of bulk and tail. {CHAINS} chains x ({WARMUP} + {DRAWS}), x64, default
settings, evaluations and seconds of warm-up included, compilation not. † R-hat above {RHAT_LIMIT}. ‡ A mean or standard
deviation lies more than {Z_LIMIT:.0f} standard errors from the published one. - The prior is improper, so there is no
ladder of temperatures. One key: numbers within a fifth of each other are alike. ChEES is made for many chains, and has
{CHAINS} here."""


def main() -> None:
    import jax

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="comma-separated parts of posteriors' names")
    parser.add_argument("--kernels", default="", help="comma-separated parts of kernels' names")
    parser.add_argument("--key", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/which_sampler.md")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)

    names = [name for name in POSTERIORS if any(part in name for part in args.only.split(","))]
    kernels = [kernel for kernel in KERNELS if any(part in kernel for part in args.kernels.split(","))]
    began, rows = time.perf_counter(), []
    for kernel in kernels:
        row = [kernel]
        for name in names:
            try:
                found = measured(KERNELS[kernel](), name, args.key)
            except ValueError as refusal:
                row.append("-")
                print(f"{kernel}, {name}: {refusal}", flush=True)
                continue
            row.append(cell(found))
            details = ", ".join(f"{what} {value:.4g}" for what, value in found.items())
            print(f"{kernel}, {name}: {row[-1]} ({details})", flush=True)
        rows.append(row)
    print(f"{time.perf_counter() - began:.0f} s in all")
    if args.write:
        comparison = table(("kernel", *(POSTERIORS[name] for name in names)), rows)
        write("which_sampler", "Kernels on four reference posteriors", " ".join(NOTE.split()), machine(("jax",)), comparison)


if __name__ == "__main__":
    main()
