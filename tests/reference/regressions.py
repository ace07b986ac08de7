"""Linear regressions, most of them on raw scales, where coefficients are strongly correlated a posteriori."""

import numpy as np

import ppl
from ppl import dist, sample

from .flat import Linear, flat, flat_positive
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
def kilpisjarvi_at_mean(x, alpha_prior, beta_prior):
    """The same, by the level at the mean year: it does not depend on the slope, as that at year 0 does."""
    beta = sample("beta", dist.Normal(*beta_prior))
    mean, sd = alpha_prior
    level = sample("level", dist.Normal(mean + beta * x.mean(), sd))
    ppl.deterministic("alpha", level - beta * x.mean())
    sigma = sample("sigma", flat_positive())
    sample("y", dist.Normal(level + beta * (x - x.mean()), sigma))


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


def kilpisjarvi_temperature(d: Data, model=kilpisjarvi):
    return model(d["x"], (d["pmualpha"], d["psalpha"]), (d["pmubeta"], d["psbeta"])) | {"y": d["y"]}


def blr_simulated(d: Data):
    return blr(d["X"]) | {"y": d["y"]}


def diamond_prices(d: Data):
    columns = d["X"][:, 1:]
    return diamonds(columns - columns.mean(0)) | {"y": d["Y"]}


# -- better coordinates ----------------------------------------------------------------------------------------------


def orthonormal(program: ppl.Program, d: Data):
    """Coefficients of orthonormal columns: beta = R^-1 base, where X = Q R."""
    return program.reparam({"beta": Linear(np.linalg.inv(np.linalg.qr(program.args[0], mode="r")))})


def whitened(program: ppl.Program, d: Data):
    """Coefficients b = R^-1 base whose posterior has about the covariance 0.12^2 I, where the 24 of b are nearly collinear.

    R'R is the precision of b times 0.12^2: X'X from the data, errors having a scale of 0.12, and 0.12^2 I from the prior.
    """
    x = program.args[0]
    r = np.linalg.cholesky(x.T @ x + 0.12**2 * np.eye(x.shape[1])).T
    return program.reparam({"b": Linear(np.linalg.inv(r))})


def at_mean(program: ppl.Program, d: Data):
    return kilpisjarvi_temperature(d, kilpisjarvi_at_mean)


REFERENCES = {
    "diamonds-diamonds": Reference(diamond_prices, constant=LOG_2, better=whitened),
    "earnings-earn_height": Reference(earn_height, better=orthonormal),
    "earnings-logearn_interaction": Reference(logearn_interaction, better=orthonormal),
    "kidiq-kidscore_momhsiq": Reference(kidscore_momhsiq, constant=LOG_2, better=orthonormal),
    "kilpisjarvi_mod-kilpisjarvi": Reference(kilpisjarvi_temperature, better=at_mean),
    "mesquite-logmesquite": Reference(logmesquite),
    "nes1972-nes": Reference(nes),
    "sblrc-blr": Reference(blr_simulated, constant=LOG_2),
}
