"""The reference suite: 19 posteriors from posteriordb, written in the language, with published answers.

program("arK-arK")           # a conditioned program
published("arK-arK").mean    # its posterior means
"""

from . import gaussian_processes, hierarchical, mixtures, odes, regressions, time_series
from .reference import Published, Reference, data, published, scalars

__all__ = ["BENCHMARK", "REFERENCES", "Published", "Reference", "data", "program", "published", "scalars"]

REFERENCES: dict[str, Reference] = {
    name: reference
    for module in (regressions, hierarchical, mixtures, time_series, gaussian_processes, odes)
    for name, reference in module.REFERENCES.items()
}

# Whose sampling speed is worth comparing: no differential equations (they time the solver), none that takes minutes.
BENCHMARK: tuple[str, ...] = (
    "arK-arK",
    "bball_drive_event_0-hmm_drive_0",
    "earnings-earn_height",
    "earnings-logearn_interaction",
    "eight_schools-eight_schools_noncentered",
    "garch-garch11",
    "gp_pois_regr-gp_pois_regr",
    "hmm_example-hmm_example",
    "kidiq-kidscore_momhsiq",
    "kilpisjarvi_mod-kilpisjarvi",
    "low_dim_gauss_mix-low_dim_gauss_mix",
    "mesquite-logmesquite",
    "nes1972-nes",
    "sblrc-blr",
)


def program(name: str, *, better: bool = False):
    """The conditioned program of a posterior; `better`: in the coordinates that suit a sampler best."""
    reference, values = REFERENCES[name], data(name)
    built = reference.build(values)
    return reference.better(built, values) if better else built
