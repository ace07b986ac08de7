"""Three posteriors for variational inference: a sparse regression, a hierarchical model, a mixture.

Each text is written once, in terms of `sample` and `deterministic`, and runs with our verbs and with NumPyro's: so the peer
has the same model. `MODELS` has them conditioned on their data, beside what they are compared by.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.handlers import condition, reparam
from numpyro.infer.reparam import LocScaleReparam

import ppl
from ppl import dist

RADON = Path(__file__).parent / "data" / "radon.csv"
MIXTURE = "low_dim_gauss_mix-low_dim_gauss_mix"


class Model(NamedTuple):
    """One posterior.

    - `program`, conditioned; hierarchies non-centred. `centred`: the same with them centred, where that is another program.
    - `peer`: the same as a NumPyro model without arguments.
    - `plain`: sites whose entries are compared as they are; `in_logs`: by their logarithms, for they have heavy tails.
    - `published`: names, means and standard deviations that are known, else None.
    """

    title: str
    program: ppl.Program
    centred: ppl.Program | None
    peer: Callable[[], Any]
    plain: tuple[str, ...]
    in_logs: tuple[str, ...] = ()
    published: Any = None

    def scalars(self, values) -> np.ndarray:
        """From named values, leaves (..., *shape of the site), to what is compared, (..., scalars)."""
        lead = np.ndim(values["sigma"]) - len(self.program.sites()["sigma"].shape)
        parts = [np.asarray(values[name]) for name in self.plain] + [np.log(values[name]) for name in self.in_logs]
        return np.concatenate([x.reshape(*x.shape[:lead], -1) for x in parts], axis=-1)


# -- sparse regression -------------------------------------------------------------------------------------------------------


def horseshoe(sample, deterministic):
    """The regularised horseshoe (Piironen and Vehtari, Electronic Journal of Statistics 11, 2017), five of all coefficients
    being expected to matter; their slab is Student's t with 4 degrees of freedom and scale 2."""

    def model(x):
        n, p = x.shape
        sigma = sample("sigma", dist.HalfNormal(2.0))
        tau = sample("tau", dist.HalfCauchy(5.0 / (p - 5.0) / n**0.5)) * sigma
        slab = sample("slab", dist.InverseGamma(2.0, 8.0))
        own = sample("lambda", dist.HalfCauchy(1.0).expand([p]))
        scale = deterministic("scale", tau * jnp.sqrt(slab / (slab + (tau * own) ** 2)) * own)
        beta = sample("beta", dist.Normal(0.0, scale))
        sample("y", dist.Normal(x @ beta, sigma))

    return model


def sparse_data(n: int = 100, p: int = 50):
    """Correlated columns, five coefficients that are not zero, noise of sd 1."""
    rng = np.random.default_rng(0)
    x = np.sqrt(0.7) * rng.normal(size=(n, p)) + np.sqrt(0.3) * rng.normal(size=(n, 1))
    beta = np.zeros(p)
    beta[:5] = 2.0, -1.5, 1.0, -0.7, 0.4
    return x, x @ beta + rng.normal(size=n)


# -- radon -------------------------------------------------------------------------------------------------------------------


def radon(sample, deterministic):
    """Log radon in homes: every county has an intercept, about a line in its soil's uranium, and an effect of the floor."""

    def model(county, first_floor, uranium):
        level = sample("level", dist.Normal(0.0, 2.0))
        by_uranium = sample("by_uranium", dist.Normal(0.0, 1.0))
        by_floor = sample("by_floor", dist.Normal(0.0, 1.0))
        sigma_county = sample("sigma_county", dist.HalfNormal(1.0))
        sigma_floor = sample("sigma_floor", dist.HalfNormal(1.0))
        sigma = sample("sigma", dist.HalfNormal(1.0))
        intercept = sample("intercept", dist.Normal(level + by_uranium * uranium, sigma_county))
        slope = sample("slope", dist.Normal(by_floor, sigma_floor).expand([len(uranium)]))
        sample("y", dist.Normal(intercept[county] + slope[county] * first_floor, sigma))

    return model


def radon_data():
    """Of each home its county and floor, of each county its log uranium; log radon."""
    with RADON.open() as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["county"] for row in rows})
    county = np.array([names.index(row["county"]) for row in rows])
    uranium = np.zeros(len(names))
    uranium[county] = [float(row["log_uranium"]) for row in rows]
    floor = np.array([float(row["first_floor"]) for row in rows])
    return (county, floor, uranium), np.log([float(row["radon"]) for row in rows])


# -- mixture -----------------------------------------------------------------------------------------------------------------


class Sorted(dist.Distribution):
    """`num` independent Normal(0, scale) numbers in rising order: a proper prior for the means of components."""

    support: Any = dist.constraints.ordered_vector

    def __init__(self, scale: float, num: int, *, validate_args=None) -> None:
        self.scale, self.num = scale, num
        super().__init__((), (num,), validate_args=validate_args)

    def sample(self, key: Any, sample_shape=()):
        return jnp.sort(self.scale * jax.random.normal(key, (*sample_shape, self.num)), axis=-1)

    def log_prob(self, value, intermediates: Any = None):
        return dist.Normal(0.0, self.scale).log_prob(value).sum(-1) + jax.scipy.special.gammaln(self.num + 1.0)


def mixture(sample, deterministic):
    """Two Normals (posteriordb's low_dim_gauss_mix, with the normalising factor 2 of the order)."""

    def model(n):
        mu = sample("mu", Sorted(2.0, 2))
        sigma = sample("sigma", dist.HalfNormal(2.0).expand([2]))
        theta = sample("theta", dist.Beta(5.0, 5.0))
        label = dist.Categorical(jnp.array([theta, 1 - theta]))
        sample("y", dist.MixtureSameFamily(label, dist.Normal(mu, sigma)).expand([n]))

    return model


# -- all three ---------------------------------------------------------------------------------------------------------------


def _made(title: str, text: Callable, args: tuple, y, hierarchies: tuple[str, ...], **rest) -> Model:
    centred = ppl.model(text(ppl.sample, ppl.deterministic))(*args) | {"y": y}
    theirs = condition(text(numpyro.sample, numpyro.deterministic), data={"y": y})
    if not hierarchies:
        return Model(title, centred, None, lambda: theirs(*args), **rest)
    theirs = reparam(theirs, config={name: LocScaleReparam(0.0) for name in hierarchies})
    return Model(title, centred.reparam({name: ppl.NonCentered() for name in hierarchies}), centred,
                 lambda: theirs(*args), **rest)  # fmt: skip


def _horseshoe() -> Model:
    x, y = sparse_data()
    title = "Sparse regression: the regularised horseshoe, 100 x 50, non-centred, 103 coordinates"
    return _made(title, horseshoe, (x,), y, ("beta",), plain=("beta", "sigma"), in_logs=("lambda", "tau", "slab"))


def _radon() -> Model:
    args, y = radon_data()
    title = "Radon: 919 homes, 85 counties with intercepts and slopes of their own, non-centred, 176 coordinates"
    plain = ("intercept", "slope", "level", "by_uranium", "by_floor", "sigma_county", "sigma_floor", "sigma")
    return _made(title, radon, args, y, ("intercept", "slope"), plain=plain)


def _mixture() -> Model:
    from tests.reference.models import data, published

    y = data(MIXTURE)["y"]
    title = "A mixture of two Normals, 1000 data, 5 coordinates"
    return _made(title, mixture, (len(y),), y, (), plain=("mu", "sigma", "theta"), published=published(MIXTURE))


MODELS: dict[str, Callable[[], Model]] = {"horseshoe": _horseshoe, "radon": _radon, "mixture": _mixture}
