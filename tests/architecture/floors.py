"""The floor plan: which floor each module of each package stands on. A new file is one line here.

A module may import modules of its own floor or of a lower one, never of a higher one, and no two modules may import
each other. Packages stand on one another in the same way: surrogates on inference on ppl. A folder is one entry: all
that is in it stands on its floor.
"""

PACKAGES = ["ppl", "inference", "surrogates"]  # from the ground up

FLOORS = {
    "ppl": [
        ["_errors", "_keys"],
        ["distributions", "choices", "transforms"],
        ["site", "values", "interpreter", "interpreters", "trace"],
        ["program", "primitives", "combinators", "checks", "graph", "reparam", "drawing", "generative", "marginal"]
        + ["elimination", "chains", "summing", "looking", "laws", "averaged", "conjugacy", "linearity", "log_sums"],
        ["random_weight", "importance"],
        ["target", "predictive", "stepwise", "lint", "from_numpyro", "random_module"],
        ["__init__"],
    ],
    "inference": [
        ["kernel", "run", "compiled", "progress", "placement", "numerics", "noise", "frozen", "fixed"],
        ["population", "resampling", "integrators", "metrics"],
        # below the algorithms, which return it
        ["posterior", "io", "provenance", "frames", "diagnostics", "scalars", "findings", "plots", "stopping"] + ["ledger"],
        ["checkpoints", "stream", "store"],
        ["mcmc", "smc", "vi", "exact", "optimise"],
        ["steering"],
        ["checks"],
        ["__init__"],
    ],
    "surrogates": [
        ["cases", "gate", "c2st", "run_cache", "workers", "simulator", "conformal", "batch_conformal", "unshrink"],
        ["columns", "tokens", "trunk", "heads"],
        ["training", "simulations", "gaps", "powered"],
        ["pfn", "distribution_transformer", "neural_posterior", "stand_in", "neural_likelihood"]
        + ["emulators", "discrepancy"],
        ["artifact"],
        ["correct", "rungs", "likelihood_rungs", "defensive", "diagnose"],
        ["__init__"],
    ],
}

# A method of a low floor may open the door to a high one when it is called (`program.graph()` finds ppl.graph): an
# import inside a function, listed here as (from, to). At import time nothing points up.
DOORS: set[tuple[str, str]] = set()

# The only files that name numpyro: everything else meets it through ppl.
NUMPYRO_BORDER = {"ppl/distributions.py", "ppl/from_numpyro.py"}


def floor_of(module: str) -> int | None:
    """The floor of a dotted module name, such as ``ppl.combinators.vmap``; None where the plan has no line for it."""
    package, _, rest = module.partition(".")
    name = rest.split(".")[0] or "__init__"
    return next((i for i, names in enumerate(FLOORS[package]) if name in names), None)
