"""Linear regressions, most of them on raw scales, where coefficients are strongly correlated a posteriori."""

import numpy as np

import ppl
from ppl import dist, sample

from .flat import flat, flat_positive
from .reference import Data, Reference

LOG_2 = np.log(2.0)  # a prior folded onto the half line has twice the density that the published text counts


@ppl.model
def regression(x):
    """Flat priors; four of the data sets below."""
    beta = sample("beta", flat(x.shape[1]))
    sigma = sample("sigma", flat_positive())
    sample("y", dist.Normal(x @ beta, sigma))


@ppl.model
def kidscore(x):
    beta = sample("beta", flat(x.shape[1]))
    sigma = sample("sigma", dist.HalfCauchy(2.5))
    sample("y", dist.Normal(x @ beta, sigma))


@ppl.model
def kilpisjarvi(x, alpha_prior, beta_prior):
    alpha = sample("alpha", dist.Normal(*alpha_prior))
    beta = sample("beta", dist.Normal(*beta_prior))
    sigma = sample("sigma", flat_positive())
    sample("y", dist.Normal(alpha + beta * x, sigma))


@ppl.model
def blr(x):
    beta = sample("beta", dist.Normal(0.0, 10.0).expand([x.shape[1]]))
    sigma = sample("sigma", dist.HalfNormal(10.0))
    sample("y", dist.Normal(x @ beta, sigma))


@ppl.model
def diamonds(x):
    b = sample("b", dist.Normal(0.0, 1.0).expand([x.shape[1]]))
    intercept = sample("Intercept", dist.StudentT(3.0, 8.0, 10.0))
    sigma = sample("sigma", dist.FoldedDistribution(dist.StudentT(3.0, 0.0, 10.0)))
    sample("y", dist.Normal(intercept + x @ b, sigma))


# -- data to programs ------------------------------------------------------------------------------------------------


def design(*columns):
    """A design matrix with a column of ones first."""
    return np.column_stack([np.ones(len(columns[0])), *columns])


def earn_height(d: Data):
    return regression(design(d["height"])) | {"y": d["earn"]}


def logearn_interaction(d: Data):
    return regression(design(d["height"], d["male"], d["height"] * d["male"])) | {"y": np.log(d["earn"])}


def logmesquite(d: Data):
    sizes = [np.log(d[key]) for key in ("diam1", "diam2", "canopy_height", "total_height", "density")]
    return regression(design(*sizes, d["group"])) | {"y": np.log(d["weight"])}


def nes(d: Data):
    ages = [d["age_discrete"] == level for level in (2, 3, 4)]
    x = design(d["real_ideo"], d["race_adj"], *ages, d["educ1"], d["gender"], d["income"])
    return regression(x) | {"y": d["partyid7"]}


def kidscore_momhsiq(d: Data):
    return kidscore(design(d["mom_hs"], d["mom_iq"])) | {"y": d["kid_score"]}


def kilpisjarvi_temperature(d: Data):
    return kilpisjarvi(d["x"], (d["pmualpha"], d["psalpha"]), (d["pmubeta"], d["psbeta"])) | {"y": d["y"]}


def blr_simulated(d: Data):
    return blr(d["X"]) | {"y": d["y"]}


def diamond_prices(d: Data):
    columns = d["X"][:, 1:]
    return diamonds(columns - columns.mean(0)) | {"y": d["Y"]}


REFERENCES = {
    "diamonds-diamonds": Reference(diamond_prices, constant=LOG_2),
    "earnings-earn_height": Reference(earn_height),
    "earnings-logearn_interaction": Reference(logearn_interaction),
    "kidiq-kidscore_momhsiq": Reference(kidscore_momhsiq, constant=LOG_2),
    "kilpisjarvi_mod-kilpisjarvi": Reference(kilpisjarvi_temperature),
    "mesquite-logmesquite": Reference(logmesquite),
    "nes1972-nes": Reference(nes),
    "sblrc-blr": Reference(blr_simulated, constant=LOG_2),
}
