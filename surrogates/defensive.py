"""Defensive: a proposal with a share of the prior mixed in, so that its weights are bounded, whatever it is.

    d(x) = (1 - share) q(x) + share prior(x)

An importance weight, prior x likelihood / d, is then at most likelihood / share: a proposal that is too narrow, or somewhere
else, costs draws but can no longer hide a part of the posterior where the likelihood is bounded. (Hesterberg, Technometrics
37, 1995; Owen and Zhou, JASA 95, 2000.)

```python
reference = Defensive(q, program | data, share=0.05)
posterior = inf.importance(program | data, proposal=reference, key=key)
```
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import ppl
from inference.compiled import compiled
from inference.smc.tempering_path import check_drawn
from ppl import dist
from ppl.choices import Choices, flatten
from ppl.distributions import is_traced
from ppl.interpreters import Assess

PROBED = 256  # draws, by which supports are compared
OUTSIDE = 0.5  # of them may lie where the posterior has no density: they weigh nothing, and are only lost


class Defensive(ppl.Generative, eqx.Module):
    """See the file's docstring. A Generative: it can be drawn, and its density is exact.

    - `q`: a `ppl.Generative`, or a program without data, over the latent sites of the next.
    - `prior`: a program, conditioned or not: the law of its latent sites as it runs forward. Data that it has stay where they
      are and do not count, be they given with `|` or written in the model with obs=; nor do factors.
    - `share`: of the prior, between 0 and 1.

    Raises:
        ValueError: for a share that is none, a prior that is improper.

    Example:
        `Defensive(guide, program | data).log_density({"mu": 0.3})`
    """

    q: ppl.Generative | ppl.Program
    prior: ppl.Program
    share: float = 0.05

    def __check_init__(self):
        if not is_traced(self.share) and not 0.0 < self.share < 1.0:
            raise ValueError(f"Defensive: share must lie between 0 and 1, got {self.share!r}.")
        if not isinstance(self.prior, ppl.Program):
            raise ValueError(f"Defensive: the prior must be a program, got {type(self.prior).__name__}.")
        if (address := improper(self.prior)) is not None:
            raise ValueError(f"Defensive: the prior of site '{address}' is improper, so it cannot be drawn from.")

    def drawn(self):
        of_q, _ = ppl.draw(self.q)
        of_prior, _ = ppl.draw(self.prior)
        safe = ppl.sample("safe", dist.Bernoulli(self.share))
        # Both are drawn: side by side, as draws are made, a branch would cost the same.
        choices = jax.tree.map(lambda a, b: jnp.where(safe, b, a), of_q, of_prior)
        return choices, self.density(choices)

    def density(self, choices):
        log_q = self.q.log_density(choices)
        log_q = jnp.where(jnp.isnan(log_q), -jnp.inf, log_q)  # where q is no number, it is the prior that covers
        return jnp.logaddexp(jnp.log1p(-self.share) + log_q, jnp.log(self.share) + log_prior(self.prior, choices))


def log_prior(program: ppl.Program, choices: Choices) -> Array:
    """+log density of latent choices as the program runs forward, data and factors left out; a scalar."""
    return program.interpret(Assess, given=program.complete(choices))[0].total("log_prior")


def improper(program: ppl.Program) -> str | None:
    """The address of the first latent site whose prior is improper, if there is one."""
    rows = program.sites().items()
    return next((name for name, row in rows if row.kind == "latent" and "ImproperUniform" in row.family), None)


def defended(target: ppl.Target, q: Any, share: float) -> tuple[Any, str | None]:
    """What to draw from in place of q: the mixture, and None; or q itself, and why."""
    if share == 0.0:
        return q, "share=0.0 was asked for"
    if (address := improper(target.program)) is not None:
        return q, f"the prior of site '{address}' is improper"
    return Defensive(q, target.program, share), None


class Fit(NamedTuple):
    """How q's support and the prior's lie: shares of draws of q outside the prior's, and of the prior outside q's (NaN where
    the prior cannot be drawn from)."""

    outside: float
    missed: float


def fit_of(who: str, target: ppl.Target, q: Any, key: Array) -> Fit:
    """Whether q can stand for the posterior of `target`: the same sites and types, and supports that meet.

    Raises:
        ValueError: for what cannot be drawn and weighed; other sites, shapes or types; most draws outside the supports.
    """
    if not isinstance(q, ppl.Program | ppl.Generative):
        hint = (
            " Give net.given(program | data)." if hasattr(q, "given") else " Draws alone have no density: fit a guide to them."
        )
        raise ValueError(
            f"{who}: q must be a ppl.Generative or a program over the program's latent sites, got {type(q).__name__}.{hint}"
        )
    try:
        check_drawn(target, q)
    except ValueError as error:
        raise ValueError(f"{who}: q cannot stand for this posterior. {error}") from None
    _check_types(who, target, q)
    proper = improper(target.program) is None
    probe = compiled(_probed, ("correct", "probe", proper), target, q, key)
    inside, covered, choices = jax.tree.map(np.asarray, probe(target, q, key))
    if inside.mean() < 1 - OUTSIDE:
        raise ValueError(_outside(who, target, choices, int((~inside).sum())))
    return Fit(float(1 - inside.mean()), float(1 - covered.mean()) if proper else float("nan"))


def _check_types(who: str, target: ppl.Target, q: Any) -> None:
    drawn = flatten(jax.eval_shape(lambda key: q.simulate(key).choices, jax.random.key(0)))
    words = {True: "discrete", False: "continuous"}
    for slot in target.slots:
        discrete, given = slot.dtype is not None, not jnp.issubdtype(drawn[slot.address].dtype, jnp.floating)
        if discrete != given:
            raise ValueError(
                f"{who}: site '{slot.address}' is {words[discrete]} in the program, but q draws {words[given]} values "
                f"({drawn[slot.address].dtype}). Give q a distribution of the same kind there."
            )


def _probed(target: ppl.Target, q: Any, key: Array):
    """Whether draws of q lie where the prior has a density; whether those of the prior lie where q has; and q's draws."""
    one, two = jax.random.split(key)

    def of_q(key):
        choices = q.simulate(key).choices
        log_p = log_prior(target.program, choices)
        return (log_p > -jnp.inf) & jnp.isfinite(target.unconstrain(choices)).all(), choices

    def of_prior(key):
        return q.log_density(target.program.simulate(key).choices) > -jnp.inf

    inside, choices = jax.vmap(of_q)(jax.random.split(one, PROBED))
    if improper(target.program) is not None:
        return inside, jnp.ones(PROBED, bool), choices
    return inside, jax.vmap(of_prior)(jax.random.split(two, PROBED)), choices


def _outside(who: str, target: ppl.Target, choices: Choices, num: int) -> str:
    flat, rows = flatten(choices), target.program.sites()
    known = [slot.address for slot in target.slots if rows[slot.address].support is not None]
    at = next((name for name in known if not np.all(rows[name].support(flat[name]))), None)
    site = "some site" if at is None else f"site '{at}'"
    support = "its support" if at is None else f"its support ({rows[at].support_name})"
    return (
        f"{who}: {num} of {PROBED} draws of q have {site} outside {support} in the program, where the posterior has no "
        "density. Give q the same supports there; a guide (inf.guide_for, a trained net) has them by construction."
    )
