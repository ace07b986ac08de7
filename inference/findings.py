"""What is wrong with a posterior's draws, in sentences: `posterior.check()`.

Every rule looks at one thing and yields findings: what was seen, at which sites, and what to try. A new rule is one
function in RULES.

```python
print(posterior.check())
for finding in posterior.check().findings: finding.what, finding.advice, finding.sites
```
"""

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import jax
import numpy as np

from ppl._errors import quote
from ppl.choices import flatten

from .scalars import VALUES, names, tables

MOST = 500  # scalars looked at; of more, evenly spaced ones; of draws on the disk, as many as fit into memory
RHAT_LIMIT = 1.01
ESS_PER_CHAIN, ESS_IN_ALL = 100, 1000  # wanted: so many a chain, but not more than so many
MANY, SUPERCHAINS = 64, 16  # from so many chains on they are looked at in groups; so many groups, where nobody chose
SLOW_TAILS = "the chains reach the tails of the log density slowly."
LIGHTER_TAILS = "Heavy tails or a funnel: try program.reparam(), lighter-tailed priors, or a longer warmup."
UNMOVED = 0.7  # correlation of particles with where they were
LONGER = "Run longer (warmup=, draws=); if it stays, look for several modes or a parameter that the data do not determine."


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong: `what` was seen, `advice` on what to try, and the scalars (`theta[3]`) it is about."""

    what: str
    advice: str
    sites: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.what} {self.advice}"


@dataclasses.dataclass(frozen=True)
class Check:
    """The findings of all rules, worst first; printing it shows them. True where nothing was found."""

    findings: tuple[Finding, ...]
    looked_at: str

    def __bool__(self) -> bool:
        return not self.findings

    def __repr__(self) -> str:
        if self:
            return f"Nothing found wrong with {self.looked_at}."
        return "\n".join(f"{i}. {finding}" for i, finding in enumerate(self.findings, 1))


class Draws:
    """The scalars of a posterior with their diagnostics, computed once, for all rules."""

    def __init__(self, posterior: Any) -> None:
        self.stats = {name: np.asarray(x) for name, x in posterior.stats.items()}
        self.made, self.stages = posterior.provenance, posterior.stages
        (self.chains, self.draws), self._draws = posterior.shape, posterior.draws

    @cached_property
    def _scalars(self) -> tuple[list[str], np.ndarray]:
        """Names and table (chain, draw, scalar) of those that vary; made for the rules that ask for them."""
        labels = names(self._draws)
        in_memory = all(isinstance(x, np.ndarray | jax.Array) for x in flatten(self._draws).values())
        most = MOST if in_memory else min(MOST, max(1, VALUES // (self.chains * self.draws)))
        parts = list(tables(self._draws, spaced(len(labels), most)))
        found, table = [name for some, _ in parts for name in some], np.concatenate([part for _, part in parts], axis=2)
        keep = [i for i in range(len(found)) if np.ptp(table[..., i]) > 0]
        return [found[i] for i in keep], table[..., keep]

    @cached_property
    def names(self) -> list[str]:
        return self._scalars[0]

    @cached_property
    def table(self) -> np.ndarray:
        return self._scalars[1]

    @property
    def moved(self) -> bool:
        """Whether any transition did not diverge: of chains that never moved there is nothing more to say."""
        return not self.stats.get("diverging", np.zeros(1)).all()

    def each(self, fn) -> np.ndarray:
        """`fn` of every scalar (chain, draw)."""
        return np.array([fn(self.table[..., i]) for i in range(len(self.names))])

    @cached_property
    def groups(self) -> int:
        """How many groups of chains share a first position (chain c is in group c modulo that); 0: each has its own."""
        num = self.made.get("superchains") or SUPERCHAINS
        return num if self.chains >= MANY and self.chains % num == 0 else 0

    @property
    def rhat_limit(self) -> float:
        """For groups with room for what as many independent draws would show, at most."""
        noise = 4.0 * self.groups / (self.chains * self.draws)
        return float(np.sqrt(RHAT_LIMIT**2 + noise))

    def rhat_of(self, x) -> float:
        """R-hat of a scalar (chain, draw); for many chains nested R-hat, which asks whether groups of chains agree, so that
        every chain may be short (Margossian et al., Bayesian Analysis, 2024, arXiv:2110.13017)."""
        if not self.groups:
            return float(array_stats().rhat(x, chain_axis=0, draw_axis=1))
        ids = np.arange(self.chains) % self.groups
        return float(array_stats().rhat_nested(x, superchain_ids=ids, chain_axis=0, draw_axis=1))

    @cached_property
    def rhat(self) -> np.ndarray:
        return self.each(self.rhat_of)

    def ess(self, method: str) -> np.ndarray:
        prob = (0.05, 0.95) if method == "tail" else None
        return self.each(lambda x: array_stats().ess(x, chain_axis=0, draw_axis=1, method=method, prob=prob))

    def pooled(self) -> np.ndarray:
        """(chain x draw, scalar)."""
        return self.table.reshape(-1, len(self.names))

    def worst(self, values, num: int = 3) -> tuple[str, ...]:
        """Names of the scalars of the `num` largest values."""
        return tuple(self.names[i] for i in np.argsort(-np.nan_to_num(values))[:num])


def array_stats() -> Any:
    """ArviZ's statistics of plain arrays, imported when first needed."""
    import arviz_stats.base

    module: Any = arviz_stats.base
    return module.array_stats


def spaced(num: int, most: int = MOST) -> np.ndarray:
    """At most `most` of the first `num` integers, evenly spaced."""
    return np.linspace(0, num - 1, min(most, num)).astype(int)


# -- rules ---------------------------------------------------------------------------------------------------------------


def nothing_moved(d: Draws) -> Iterator[Finding]:
    """Every transition diverged."""
    if not d.moved:
        yield Finding(
            "Every draw diverged: the chains did not move.",
            "The density may be wrong or badly scaled; check it at a point you know, standardise the data, or start with "
            "init=At({...}).",
        )


def divergences(d: Draws) -> Iterator[Finding]:
    """More than one transition in a thousand diverged; and where."""
    diverging = d.stats.get("diverging", np.zeros((d.chains, d.draws), bool)).astype(bool)
    count = int(diverging.sum())
    if not d.moved or count <= 0.001 * diverging.size:
        return
    where, sites = gathering(d, diverging.reshape(-1))
    yield Finding(
        f"{count} of {diverging.size} draws ended in a divergence: part of the posterior was not explored.{where}",
        "Try program.reparam() (non-centred sites), or inf.adapted(kernel, target_acceptance=0.95).",
        sites,
    )


def gathering(d: Draws, chosen: np.ndarray) -> tuple[str, tuple[str, ...]]:
    """Where the chosen draws gather: the scalar whose ranks there are furthest from the middle, by over a third of them."""
    if chosen.sum() < 10 or not d.names:
        return "", ()
    ranks = d.pooled().argsort(axis=0).argsort(axis=0) / len(chosen)
    shift = ranks[chosen].mean(axis=0) - 0.5
    i = int(np.abs(shift).argmax())
    if abs(shift[i]) < 1 / 6:
        return "", ()
    there, all_draws = np.median(d.pooled()[chosen, i]), np.median(d.pooled()[:, i])
    side = "small" if shift[i] < 0 else "large"
    return f" They gather where '{d.names[i]}' is {side} (median {there:.3g} there, {all_draws:.3g} overall).", (d.names[i],)


def disagreement(d: Draws) -> Iterator[Finding]:
    """R-hat above its limit; and whether chains sit in places of their own."""
    if d.draws < 4 or not d.names or not d.moved or not np.isfinite(d.rhat).any():
        return
    worst = float(np.nanmax(d.rhat))
    lp = d.stats.get("lp", np.zeros(1))
    rhat_lp = d.rhat_of(lp) if np.ptp(lp) > 0 else 1.0
    if not max(worst, rhat_lp) > d.rhat_limit:
        return
    if d.groups:
        sites = () if rhat_lp > worst else d.worst(d.rhat)
        most = "in the log density" if rhat_lp > worst else f"most about {quote(sites)}"
        yield Finding(
            f"Nested R-hat is {max(worst, rhat_lp):.3f}, above {d.rhat_limit:.3g}: {d.groups} groups of chains, each with one "
            f"first position, disagree, {most}.",
            "They have not forgotten where they began: a longer warmup= first. If it stays, the posterior has several modes.",
            sites,
        )
        return
    if rhat_lp > worst:
        yield Finding(f"R-hat of the log density is {rhat_lp:.3f}, above {RHAT_LIMIT}: the chains disagree.", LONGER)
        return
    sites = d.worst(d.rhat)
    i = d.names.index(sites[0])
    means, sds = d.table[..., i].mean(axis=1), d.table[..., i].std(axis=1)
    places = ", ".join(f"{m:.3g}" for m in means)
    if worst > 1.5 and np.ptp(means) > 3 * sds.max():
        yield Finding(
            f"The chains sit in different places (R-hat of '{sites[0]}' is {worst:.2f}; its mean in each chain: {places}).",
            "The posterior has several modes, or some chains are lost: start from plausible values (init=At({...})), break "
            "the symmetry in the model (ordered parameters), or try parallel_tempering(HMC()).",
            sites,
        )
        return
    yield Finding(
        f"R-hat is {worst:.3f}, above {RHAT_LIMIT}: the chains disagree, most about {quote(sites)}.",
        LONGER,
        sites,
    )


def stuck(d: Draws) -> Iterator[Finding]:
    """A chain that stays in one place for a tenth of its draws."""
    if not d.names or not d.moved:
        return
    if d.groups:
        still = int((np.ptp(d.table, axis=1) == 0).all(axis=1).sum()) if d.draws >= 20 else 0
        if still > 0.001 * d.chains:
            yield Finding(
                f"{still} of {d.chains} chains did not move at all.",
                "They sit where the density is too steep for a step size that suits the others: raise target_acceptance, "
                "allow a longer warmup, or reparameterise.",
            )
        return
    if d.draws < 50:
        return
    same = (np.diff(d.table, axis=1) == 0).all(axis=2)
    longest = [max((len(run) for run in "".join("x" if s else " " for s in row).split()), default=0) for row in same]
    for chain, length in enumerate(longest):
        if length > 0.1 * d.draws:
            yield Finding(
                f"Chain {chain} did not move for {length} of its {d.draws} draws.",
                "It sits where the density is too steep for its steps: raise target_acceptance, or reparameterise. Do not "
                "just drop the chain: the place where it sticks belongs to the posterior.",
            )


def too_few(d: Draws) -> Iterator[Finding]:
    """Bulk or tail effective sample size below a hundred a chain, or of many chains below a thousand in all."""
    if d.draws < (4 if d.groups else 20) or not d.names or not d.moved:
        return
    wanted = min(ESS_PER_CHAIN * d.chains, ESS_IN_ALL)
    for method, use in (("bulk", "means"), ("tail", "interval ends")):
        ess = d.ess(method)
        least = float(np.nanmin(ess))
        if least < wanted:
            sites = d.worst(-ess)
            yield Finding(
                f"The {method} effective sample size of '{sites[0]}' is {least:.0f}, below {wanted}: its {use} are uncertain.",
                f"Draw about {np.ceil(wanted / max(least, 1.0)):.0f} times as many, or help the sampler (reparam(), a longer "
                "warmup).",
                sites,
            )


def energy(d: Draws) -> Iterator[Finding]:
    """E-BFMI below 0.3: momenta are too small a part of the energy for chains to reach the tails."""
    if "energy" not in d.stats or d.draws < 20:
        return
    if d.groups:
        energies = d.stats["energy"]
        of_all = np.mean(np.diff(energies, axis=1) ** 2) / np.var(energies)
        if of_all < 0.3:
            yield Finding(f"E-BFMI of all chains together is {of_all:.2f}, below 0.3: {SLOW_TAILS}", LIGHTER_TAILS)
        return
    bfmi = np.atleast_1d(array_stats().bfmi(d.stats["energy"], chain_axis=0, draw_axis=1))
    low = np.flatnonzero(bfmi < 0.3)
    if low.size:
        chains = ", ".join(map(str, low))
        yield Finding(f"E-BFMI is {np.nanmin(bfmi):.2f} in chain {chains}, below 0.3: {SLOW_TAILS}", LIGHTER_TAILS)


def long_trajectories(d: Draws) -> Iterator[Finding]:
    """Trajectories cut at the largest depth; and whether scales far apart are the reason."""
    cut = float(np.mean(d.stats.get("reached_max_treedepth", False)))
    if cut <= 0.05 or not d.names:
        return
    sds = d.pooled().std(axis=0)
    wide, narrow = int(sds.argmax()), int(sds.argmin())
    scales = (
        f" Scales differ: '{d.names[wide]}' varies by {sds[wide]:.2g}, '{d.names[narrow]}' by {sds[narrow]:.2g}."
        if sds[wide] > 1e4 * sds[narrow]
        else ""
    )
    yield Finding(
        f"{cut:.0%} of the trajectories reached the largest tree depth without turning.{scales}",
        "Standardise data and parameters, allow a longer warmup, or raise max_depth.",
        (d.names[wide], d.names[narrow]) if scales else (),
    )


def heavy_tails(d: Draws) -> Iterator[Finding]:
    """Scalars whose Pareto k is above 0.7: their means converge too slowly to be of use."""
    if d.chains * d.draws < 400 or not d.names:
        return
    k = np.nan_to_num(d.each(lambda x: float(np.max(array_stats().pareto_khat(x, chain_axis=0, draw_axis=1)))))
    if (k > 0.7).any():
        sites = d.worst(k, min(3, int((k > 0.7).sum())))
        yield Finding(
            f"The tails of {quote(sites)} are so heavy (Pareto k {k.max():.2f}) that means and standard deviations may not "
            "exist.",
            "Report medians and intervals, or look at the logarithm.",
            sites,
        )


def biased(d: Draws) -> Iterator[Finding]:
    """A kernel that rejects nothing, so that its steps' error stays in the draws."""
    names = " and ".join(dict.fromkeys(d.made.get("biased") or ()))
    if names:
        yield Finding(
            f"The draws of {names} are biased by its step size, however many there are; R-hat and effective sizes do not show "
            "it.",
            "Compare with half the step size, or with an exact kernel such as NUTS() or MAMS().",
        )


def starved(d: Draws) -> Iterator[Finding]:
    """Of particles: nearly all weight was on a few of them at some stage."""
    ess, num = np.atleast_2d(d.stages.get("ess", np.zeros((0, 0)))), d.made.get("particles")
    if not ess.size or num is None or np.nanmin(ess) >= max(10, 0.002 * num):
        return
    stage = int(np.nanargmin(ess)) % ess.shape[1]
    yield Finding(
        f"At stage {stage} of {ess.shape[1]} the effective sample size fell to {np.nanmin(ess):.1f} of {num} particles: what "
        "came after rests on these few, and neither the draws nor the error of the evidence can be trusted.",
        "Take more particles; in a filter, propose with the data in sight: particle_filter(proposal=..., twist=...); in "
        "tempering, take smaller steps: to=inf.steps.ByESS(0.9).",
    )


def unmoved(d: Draws) -> Iterator[Finding]:
    """Of particles: the moves left them about where they were."""
    correlation = np.atleast_2d(d.stages.get("correlation", np.zeros((0, 0))))
    last = correlation[:, 1:].max(axis=1, initial=0.0, where=np.isfinite(correlation[:, 1:]))
    if not correlation.size or last.max() <= UNMOVED:
        return
    yield Finding(
        f"Particles hardly moved at some stage (correlation {last.max():.2f} before and after): copies of one particle are "
        "still alike, so the spread is too small, and so may be the error of the evidence.",
        "Make more moves (moves=inf.steps.UntilMoved(0.1, most=1000)), or take a kernel with gradients: inf.HMC().",
    )


def heavy_weights(d: Draws) -> Iterator[Finding]:
    """Of importance sampling: the weights have no variance."""
    k = np.max(np.nan_to_num(d.stages.get("pareto_k", -np.inf), nan=-np.inf, posinf=np.inf))
    if k > 0.7:  # beyond it even smoothed weights need far too many draws (Vehtari et al., JMLR 25, 2024, arXiv:1507.02646)
        yield Finding(
            f"The weights have heavy tails (Pareto k {k:.2f}, above 0.7): the proposal misses a part of the posterior.",
            "Take a proposal that is wider, or nearer; or begin tempering there: inf.tempering(reference=proposal).",
        )


def no_numbers(d: Draws) -> Iterator[Finding]:
    """Of particles: weights that were NaN or infinite."""
    bad, num = np.nan_to_num(np.atleast_2d(d.stages.get("num_nonfinite", np.zeros((1, 1))))), d.made.get("particles")
    if not bad.any() or num is None:
        return
    stage = int(bad.argmax()) % bad.shape[1]
    yield Finding(
        f"Weights were NaN or infinite at {int((bad > 0).any(0).sum())} of {bad.shape[1]} stages, most at stage {stage}: "
        f"{int(bad.max())} of {num}. They count as zero.",
        "Look for overflow or a division by zero in the model at values that its priors allow; where such values are "
        "impossible, make the log density -inf.",
    )


OF_PARTICLES = (starved, unmoved, heavy_weights)
OF_CHAINS = (nothing_moved, divergences, disagreement, stuck, too_few, energy, long_trajectories, heavy_tails, biased)
RULES = (*OF_PARTICLES, *OF_CHAINS)
ORDERLESS = (*OF_PARTICLES, no_numbers, heavy_tails, biased)  # the order of particles says nothing, as that of a chain does
AFTER_A_RUN = (nothing_moved, divergences, disagreement)  # cheap, and what a user must not miss


def findings(posterior: Any, rules=None) -> tuple[Finding, ...]:
    """What the rules find in a posterior: by default all that are for draws of its kind."""
    draws = Draws(posterior)
    rules = (ORDERLESS if posterior.stages else RULES) if rules is None else rules
    return tuple(finding for rule in rules for finding in rule(draws))


def check(posterior: Any) -> Check:
    """All rules."""
    chains, draws = posterior.shape
    what = f"{draws} draws of particles" if posterior.stages else f"{chains} chains of {draws} draws"
    return Check(findings(posterior), what)
