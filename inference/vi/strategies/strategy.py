"""Strategy: how the gradient of an objective is estimated at a random site. The contract; a member a file.

An objective is a mean, E f(x), and x has a distribution that depends on parameters. Its gradient has the part that goes
through f, which differentiating finds, and the part that goes through the distribution of x, which it does not. A strategy
says where that part comes from. It speaks at two moments.

*At the site* it chooses a value, and says two arrays about it (zero where it has nothing to say):

- `score`: s with the gradient of a log density. All the objective comes to is multiplied by exp(s - stop_gradient(s)), which
  is one, and has the gradient of s: the score function estimator. (The magic box of Foerster et al., ICML 2018,
  arXiv:1802.05098: derivatives of every order are right.)
- `extra`: added to the objective; its value is zero, and its gradient is not.

*Afterwards* a site may be forced to other values, and the program played again with the same random numbers (those of a site
depend on its name alone, so that all else is as equal as can be):

- `support`: the site is forced to each value it can take, weighted by its probability: enumeration.
- `alternatives`: values, each with a coefficient that is zero but for its gradient; the objective at the alternative, less
  that at the value drawn, is multiplied by it.

Law: with the strategy at any site of a program the mean of the gradient is that of the exact expectation, but for members
that say they are biased (`tests/inference/vi/test_strategies.py`).
"""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
from jax import lax

from ppl import distributions


class Chosen(NamedTuple):
    """What a strategy did at a site: the value, of the site's shape; `score` and `extra`, scalars or one number a batch
    element. `open`: whether who takes several samples may give the score a baseline. `guess`: what a learned baseline says
    the objective comes to; it is trained to be right."""

    value: jax.Array
    score: Any = 0.0
    extra: Any = 0.0
    open: bool = False
    guess: Any = None


class Alternative(eqx.Module):
    """Values to be tried: `value`, of the site's shape, and `coefficient`, one number a batch element, zero but for its
    gradient; each with an axis more, the last, over as many values as are tried.

    `possible`: flags of the coefficient's shape; what is not counts nothing where the objective is not finite. None: all are.

    `together`: whether all elements are forced to their alternatives at once, and coefficients added; else each in its turn,
    as the steps of a `ppl.scan` always are.
    """

    value: jax.Array
    coefficient: jax.Array
    possible: Any = None
    together: bool = eqx.field(static=True, default=False)


class Strategy(eqx.Module):
    """See the file's docstring. `biased`: whether the mean of the gradient is another than that of the law."""

    biased: ClassVar[bool] = False

    def check(self, address: str, d) -> None:
        """Raise ValueError, with a sentence that names the site, for distributions that the strategy is not for."""

    @abc.abstractmethod
    def choose(self, d, key) -> Chosen:
        """A value from the distribution `d` (of the whole site), and what to add to the objective for its gradient."""

    def enumerates(self, address: str, d) -> int | None:
        """Of how many values each element is forced to every one; None: it is not."""
        return None

    def alternatives(self, d, key, chosen: Chosen) -> Alternative | None:
        """Values to be tried in place of the chosen one."""
        return None


def zero(x):
    """Zero, with the gradient of `x`."""
    return x - lax.stop_gradient(x)


def refuse(who: str, address: str, d, wants: str, *, instead: str = "Score()") -> ValueError:
    """The sentence for a site whose distribution a strategy is not for."""
    return ValueError(
        f"site '{address}' has the distribution {distributions.family(d)}, and {who} {wants}. Give the site another "
        f"strategy, for example {instead}."
    )
