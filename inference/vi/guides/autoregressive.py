"""Autoregressive: structured as the program is. Every site is Normal given those that its distribution depends on.

    site = location + A parents + exp(log scale + B parents) * noise

with the parents' positions, each counted from its own location (from zero, A and B would shift the site while they are
learned). So where the prior of `theta` is Normal(mu, tau) its guide has a location that moves with mu and tau and a scale that
moves with tau: funnels are in the family, and a plate of n sites costs n times as many parameters as one, not n^2. Sites that
only the data tie together stay apart: `FullRank()` has those. (The idea is in Hoffman and Blei, "Structured Stochastic
Variational Inference", AISTATS 2015, and Ambrogioni et al., "Automatic structured variational inference", AISTATS 2021.)
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ppl

from .law import Family, Transport


class Span(NamedTuple):
    """Entries [start, start + size) of the position are a site; `above`: the entries that it depends on."""

    start: int
    size: int
    above: tuple[int, ...]


class Site(eqx.Module):
    """Of one site: `location` and `log_scale` (size,), `moves` A and `stretches` B (size, entries above)."""

    location: jax.Array
    log_scale: jax.Array
    moves: jax.Array
    stretches: jax.Array

    def given(self, above):
        """Location and log scale for what is above, from its own locations."""
        return self.location + self.moves @ above, self.log_scale + self.stretches @ above


class Sites(Transport):
    """One Site after the other, in the order of the program."""

    sites: tuple[Site, ...]
    spans: tuple[Span, ...] = eqx.field(static=True)

    @property
    def dim(self):
        return sum(span.size for span in self.spans)

    @property
    def centre(self):
        """The locations of all sites (dim,)."""
        return jnp.concatenate([site.location for site in self.sites])

    def forward(self, noise):
        parts, total, centre = [], jnp.zeros((), noise.dtype), self.centre
        for site, span in zip(self.sites, self.spans, strict=True):
            before = jnp.concatenate([*parts, noise[:0]])
            location, log_scale = site.given((before - centre[: len(before)])[np.array(span.above, int)])
            parts.append(location + jnp.exp(log_scale) * noise[span.start : span.start + span.size])
            total += jnp.sum(log_scale)
        return jnp.concatenate(parts), total

    def inverse(self, position):
        parts, total, from_centre = [], jnp.zeros((), position.dtype), position - self.centre
        for site, span in zip(self.sites, self.spans, strict=True):
            location, log_scale = site.given(from_centre[np.array(span.above, int)])
            parts.append((position[span.start : span.start + span.size] - location) * jnp.exp(-log_scale))
            total -= jnp.sum(log_scale)
        return jnp.concatenate(parts), total


class Autoregressive(Family):
    """See the file's docstring. `guide_for(program | data, Autoregressive())`."""

    def law(self, key, target, location, scale):
        above = _latent_parents(target)
        entries = {slot.address: range(slot.start, slot.start + slot.size) for slot in target.slots}
        spans = tuple(
            Span(slot.start, slot.size, tuple(i for name in above[slot.address] for i in entries[name]))
            for slot in target.slots
        )
        sites = []
        for span in spans:
            here = slice(span.start, span.start + span.size)
            none = jnp.zeros((span.size, len(span.above)), location.dtype)
            sites.append(Site(location[here], jnp.log(scale[here]), none, none))
        return Sites(tuple(sites), spans)


def _latent_parents(target: ppl.Target) -> dict[str, list[str]]:
    """For each latent site those latent sites that its distribution is computed from, through named values too."""
    edges, latent = ppl.parents(target.program), [slot.address for slot in target.slots]

    def above(name: str) -> set[str]:
        found: set[str] = set()
        for parent in edges.get(name, ()):
            found |= {parent} if parent in latent else above(parent) if parent != name else set()
        return found

    return {name: [other for other in latent[:i] if other in above(name)] for i, name in enumerate(latent)}
