"""Autoregression, and a variance that follows its own past (GARCH)."""

import numpy as np

import ppl
from ppl import dist, sample

from .flat import constraints, flat, flat_positive
from .reference import Data, Reference


@ppl.model
def autoregression(lags):
    """Row t of `lags` holds y[t-1], ..., y[t-order]. All data are known, so the times need no loop."""
    alpha = sample("alpha", dist.Normal(0.0, 10.0))
    beta = sample("beta", dist.Normal(0.0, 10.0).expand([lags.shape[1]]))
    sigma = sample("sigma", dist.HalfCauchy(2.5))
    sample("y", dist.Normal(alpha + lags @ beta, sigma))


@ppl.model
def garch11(times, sigma1):
    mu = sample("mu", flat())
    alpha0 = sample("alpha0", flat_positive())
    alpha1 = sample("alpha1", dist.Uniform(0.0, 1.0))
    beta1 = sample("beta1", dist.ImproperUniform(constraints.interval(0.0, 1.0 - alpha1), (), ()))

    def step(variance, _):
        y = sample("y", dist.Normal(mu, variance**0.5))
        return alpha0 + alpha1 * (y - mu) ** 2 + beta1 * variance, None

    ppl.scan(step, sigma1**2, length=times)


def ark(d: Data):
    y, order = d["y"], int(d["K"])
    lags = np.lib.stride_tricks.sliding_window_view(y[:-1], order)[:, ::-1]
    return autoregression(lags) | {"y": y[order:]}


def garch(d: Data):
    return garch11(len(d["y"]), d["sigma1"]) | {"y": d["y"]}


REFERENCES = {
    "arK-arK": Reference(ark, constant=np.log(2.0)),
    "garch-garch11": Reference(garch),
}
