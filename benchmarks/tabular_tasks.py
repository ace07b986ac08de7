"""Small tables to classify: a prior over them as a program, and some of scikit-learn's with few rows to learn from.

A row has hidden causes, and what they bring about through a random layer. Features are noisy mixtures of a few of both, some
skewed; classes follow from others, more or less sharply. Tables differ in how many features and classes there are. (The idea
of the priors of Mueller et al., ICLR 2022, arXiv:2112.10510, and Hollmann et al., "TabPFN", ICLR 2023, arXiv:2207.01848.)
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ppl
from ppl import dist, sample

FEATURES, CLASSES, CAUSES, HIDDEN = 10, 3, 3, 5
ASKED = 100  # rows to be classified, at most


@ppl.model
def tables(rows: int):
    """x (rows, FEATURES), standard or all zero, and y (rows,), one of CLASSES."""

    def normal(name: str, *shape: int) -> Any:
        return sample(name, dist.Normal(0.0, 1.0).expand([*shape]))

    def mixture(name: str, num: int) -> Any:
        """Weights (CAUSES + HIDDEN, num), most of them small."""
        return normal(f"{name}_weights", CAUSES + HIDDEN, num) * normal(f"{name}_shares", CAUSES + HIDDEN, num) ** 2

    causes = normal("causes", rows, CAUSES)
    hidden = jnp.tanh(causes @ normal("layer", CAUSES, HIDDEN) + normal("offset", HIDDEN))
    all_of = jnp.concatenate([causes, hidden], -1)
    count: Any = sample("features", dist.DiscreteUniform(3, FEATURES))
    noise: Any = sample("noise", dist.Uniform(0.02, 0.7).expand([FEATURES]))
    skew = 0.5 * normal("skew", FEATURES)
    clean = standard(all_of @ mixture("x", FEATURES))
    rough = jnp.sqrt(1.0 - noise**2) * clean + noise * normal("rough", rows, FEATURES)
    used = jnp.arange(FEATURES) < count
    warped = standard(jnp.sinh(skew * jnp.clip(rough, -4.0, 4.0) + skew) + 0.1 * rough)
    ppl.deterministic("x", jnp.where(used, warped, 0.0))
    classes: Any = sample("classes", dist.DiscreteUniform(2, CLASSES))
    sharp: Any = sample("sharp", dist.LogNormal(2.0, 0.8))
    scores = sharp * standard(all_of @ mixture("y", CLASSES)) + 0.5 * normal("bias", CLASSES)
    sample("y", dist.Categorical(logits=jnp.where(jnp.arange(CLASSES) < classes, scores, -30.0)))


def standard(x: Any) -> Any:
    """Columns with mean zero and deviation one."""
    away = x - x.mean(0)
    return away / jnp.sqrt(jnp.mean(away**2, 0) + 1e-6)


class Split(NamedTuple):
    """Rows to learn from, and rows to classify; features standardised by the first."""

    x: np.ndarray
    y: np.ndarray
    new: np.ndarray
    truth: np.ndarray


def sets() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By name, features and classes 0, 1, ... of every row."""
    x, y = load_digits(return_X_y=True)
    pairs = {f"digits {a} or {b}": (x[(y == a) | (y == b)], (y[(y == a) | (y == b)] == b) * 1) for a, b in ((3, 8), (4, 9))}
    bundled = {"iris": load_iris, "wine": load_wine, "breast cancer": load_breast_cancer}
    found: dict[str, Any] = {name: load(return_X_y=True) for name, load in bundled.items()} | pairs
    return found


def splits(x: np.ndarray, y: np.ndarray, num: int, many: int) -> Iterator[Split]:
    """`many` random ones with `num` rows to learn from, of each class as of all rows; at most FEATURES features, those that an
    analysis of variance of these rows puts first."""
    for seed in range(many):
        one, other = train_test_split(np.arange(len(y)), train_size=num, stratify=y, random_state=seed)
        other, moving = other[:ASKED], np.ptp(x[one], 0) > 0.0
        read = make_pipeline(SelectKBest(k=min(FEATURES, moving.sum())), StandardScaler()).fit(x[one][:, moving], y[one])
        known, new = (np.asarray(read.transform(x[rows][:, moving])) for rows in (one, other))
        yield Split(known, y[one], new, y[other])
