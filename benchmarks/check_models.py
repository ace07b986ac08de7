"""The peers' models have the densities of the reference programs, up to a constant.

    python -m benchmarks.check_models [--only arK,garch] [--stan]

At random places, and for Stan on the constrained scale too, the log densities may differ by one and the same constant.
`--stan` compiles each Stan program first, about a minute each. Ends with an error when a model differs.
"""

import argparse

import jax
import numpy as np

PLACES = 6
TOLERANCE = 1e-7  # relative to the largest change of the log density between the places
SOLVED = 1e-5  # where the programs solve differential equations, each to a tolerance of its own
EQUATIONS = ("hudson_lynx_hare-lotka_volterra", "one_comp_mm_elim_abs-one_comp_mm_elim_abs")


def places(name: str):
    """The target of a posterior and choices near its published point, with our log densities there."""
    import ppl
    from tests.reference.models import program, published

    target = ppl.Target(program(name))
    known = published(name).point
    centre = target.unconstrain({path: known[path] for path in {slot.address for slot in target.slots}})
    steps = 0.05 * jax.random.normal(jax.random.key(0), (PLACES, target.dim))
    choices = [target.constrain(centre + step) for step in steps]
    return choices, np.array([float(target.program.log_density(c)) for c in choices])


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """How far the differences are from constant, relative to how much the density changes."""
    return float(np.ptp(theirs - ours) / np.ptp(ours))


def numpyro_density(name: str, choices: list[dict]) -> np.ndarray:
    from numpyro.infer.util import log_density

    from benchmarks.numpyro_models import COORDINATES, MODELS
    from tests.reference.models import data

    model, args = MODELS[name](data(name))

    own = [COORDINATES.get(name, lambda c: (c, 0.0))(c) for c in choices]
    return np.array([float(log_density(model, args, {}, c)[0]) - log_jacobian for c, log_jacobian in own])


def stan_density(name: str, choices: list[dict]) -> np.ndarray:
    from benchmarks.peers.stan import build

    model, _ = build(name)

    def latent(c: dict) -> dict:
        return {parameter: np.asarray(c[parameter]).tolist() for parameter in model.param_names if parameter in c}

    return np.array([model.log_prob(model.unconstrain_pars(latent(c)), adjust_transform=False) for c in choices])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="comma-separated parts of names")
    parser.add_argument("--stan", action="store_true", help="compare the Stan programs too")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)

    from tests.reference.models import REFERENCES

    differing = []
    for name in sorted(n for n in REFERENCES if any(part in n for part in args.only.split(","))):
        choices, ours = places(name)
        found = {"NumPyro": difference(ours, numpyro_density(name, choices))}
        if args.stan:
            found["Stan"] = difference(ours, stan_density(name, choices))
        print(name, *(f"{who} {d:.1e}" for who, d in found.items()), sep=" | ", flush=True)
        limit = SOLVED if name in EQUATIONS else TOLERANCE
        differing += [f"{who}'s {name}" for who, d in found.items() if not d < limit]
    if differing:
        raise SystemExit(f"Other densities than those of the reference programs: {', '.join(differing)}.")


if __name__ == "__main__":
    main()
