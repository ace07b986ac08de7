"""Eight schools, twice: effects centred at their mean, and standardised effects."""

import numpy as np

import ppl
from ppl import dist, sample

from .reference import Data, Reference


@ppl.model
def centred(sigma):
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))

    def school(s):
        theta = sample("theta", dist.Normal(mu, tau))
        sample("y", dist.Normal(theta, s))

    ppl.vmap(school)(sigma)


@ppl.model
def non_centred(sigma):
    mu = sample("mu", dist.Normal(0.0, 5.0))
    tau = sample("tau", dist.HalfCauchy(5.0))

    def school(s):
        z = sample("z", dist.Normal(0.0, 1.0))
        theta = ppl.deterministic("theta", mu + tau * z)
        sample("y", dist.Normal(theta, s))

    ppl.vmap(school)(sigma)


def eight_schools_centered(d: Data):
    return centred(d["sigma"]) | {"y": d["y"]}


def eight_schools_noncentered(d: Data):
    return non_centred(d["sigma"]) | {"y": d["y"]}


REFERENCES = {
    # centred, the posterior is a funnel; reparam() finds that theta is the site to standardise
    "eight_schools-eight_schools_centered": Reference(
        eight_schools_centered, constant=np.log(2.0), better=lambda program, _: program.reparam()
    ),
    "eight_schools-eight_schools_noncentered": Reference(eight_schools_noncentered, constant=np.log(2.0)),
}
