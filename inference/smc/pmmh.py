"""`pmmh`: the sites before a program's loop are moved by their marginal density, which a particle filter estimates.

```python
posterior = inf.mcmc(program | data, pmmh(inf.RandomWalk(), particles=200), key=key, draws=5000)
posterior["theta"], posterior["z"]            # parameters, and a path for each
```
Every proposal of parameters gets a filter of its own over the loop. What the filter finds is unbiased, so the parameters have
their exact posterior, and a path drawn from the filter of the state has its own, however few particles there are (Andrieu,
Doucet and Holenstein, JRSSB 72, 2010, theorem 4). The estimate of the state is kept until a proposal is accepted; where
another kernel has moved any site of the program, conditional SMC makes the estimate that goes with the path.

How many particles: a standard deviation of 1 to 1.7 of the log likelihood serves best (Doucet, Pitt, Deligiannidis and Kohn,
Biometrika 102, 2015). Warm-up aims at 0.12 accepted; see `pseudo_marginal.py`.

*Correlated*: with `correlation=0.95` a proposal's filter keeps the random numbers of 95 % of the steps, so that the two
estimates that are compared err alike, and far fewer particles will do (Deligiannidis, Doucet and Pitt, JRSSB 80, 2018; Tran,
Kohn, Quiroz and Villani, arXiv:1603.02485). Which steps get new numbers is drawn anew each time: the law of the numbers is
kept, and the move between them is reversible. It needs particles that keep their places when parameters change a little:

    in_order = inf.resampling.Sorted(inf.Systematic(), by=lambda walker: walker.carry)
    pmmh(inf.RandomWalk(), correlation=0.95, method=inf.particle_filter(resample=in_order))

Where another kernel moves the chain too, no numbers are kept from its first move on: whether they are known would depend on
where the chain is, and a kernel that is chosen so does not keep the law.

Kernels with gradients are refused: a filter's gradient follows its particles as parameters change, that of a conditional run
does not follow the given path, and a kernel that takes one for the other does not keep the law.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import ppl
from ppl.choices import merge

from ..kernel import Kernel
from ..mcmc.adaptation.warmup import Adapted
from ..mcmc.independence import Independence
from ..mcmc.members import Combination, begun, innermost, placed
from ..mcmc.metropolis import State, at
from ..mcmc.pseudo_marginal import evaluates_once
from ..mcmc.random_walk import RandomWalk
from ..numerics import finite_or
from .conditional import conditional_smc, filtered_path
from .loop import Method
from .loop_sites import LoopSites
from .particle_filter import particle_filter
from .program_path import ProgramPath
from .renewal import Traced

BEYOND = 1e30  # a log density that no proposal is refused for


class PmmhState(NamedTuple):
    """`inner`: where the chain is, parameters and path; `kernel`: the wrapped kernel's state, of the parameters alone, whose
    density is the estimate; `own`: the position, of all sites of the program, that the estimate belongs to; `noise`
    (step, ...): the keys of the filter that made it, where a filter did: they are `known`; `alone`: no other kernel has moved
    the chain."""

    inner: State
    kernel: Any
    info: Any
    own: jax.Array
    noise: jax.Array
    known: jax.Array
    alone: jax.Array

    @property
    def position(self):
        return self.inner.position


class Density(NamedTuple):
    """What the wrapped kernel sees."""

    dim: int
    log_density: Callable[[jax.Array], jax.Array]


class Pmmh(Combination):
    """See `pmmh`."""

    kernels: tuple[Kernel]
    method: Method
    particles: int = eqx.field(static=True)
    correlation: jax.Array | float = 0.0

    def check(self, target) -> None:
        sites = LoopSites.of("pmmh", target)
        opened = ppl.Stepwise(sites.target.program)
        first = [slot for slot in sites.slots if slot.path[0] in opened.before]
        if not first:
            raise ValueError(
                "pmmh: there is no site before the program's ppl.scan to move. Use ParticleGibbs() for those in it."
            )
        if len(first) == len(sites.slots):
            raise ValueError(
                "pmmh: the sites in the program's ppl.scan are data, or another kernel's, but a filter is to integrate them "
                "out. Leave them to pmmh, or move the others by a kernel without a filter."
            )
        sites.target.refuse_discrete("pmmh", first)

    def init(self, key, target, position) -> PmmhState:
        key_kernel, key_estimate = jax.random.split(key)
        loop = Loop.of(self, target, position)
        given = loop.given(key_estimate, position)
        (own,), (info,) = begun(self.kernels, key_kernel, [(given, position[loop.entries])])
        noise = jnp.zeros_like(jax.random.key_data(loop.keys(key)))
        whole = loop.sites.whole(position)
        return PmmhState(at(target, position), own, info, whole, noise, jnp.array(False), jnp.array(True))

    def step(self, key, state: PmmhState, target) -> tuple[PmmhState, Any]:
        key_given, key_move, key_filter, key_noise, key_stay = jax.random.split(key, 5)
        (kernel,), point = self.kernels, state.inner
        loop = Loop.of(self, target, point.position)
        here, given = point.position[loop.entries], loop.given(key_given, point.position)
        elsewhere = jnp.any(loop.sites.whole(point.position) != state.own)
        own = lax.cond(elsewhere, lambda: placed(state.kernel, at(given, here), given), lambda: state.kernel)

        # One filter in all: see first where the kernel goes, and then tell it what was found there.
        anywhere = Density(len(here), lambda _: jnp.asarray(BEYOND, here.dtype))
        there = innermost(kernel.step(key_move, own, anywhere)[0]).position
        here_known, keys = known(state, elsewhere), loop.keys(key_noise)
        stay = here_known & jax.random.bernoulli(key_stay, self.correlation, keys.shape)
        keys = jnp.where(stay, jax.random.wrap_key_data(state.noise, impl=jax.random.key_impl(keys)), keys)
        level, new = loop.found(key_filter, keys, there)
        level = finite_or(level, -jnp.inf).astype(here.dtype)
        own, info = kernel.step(key_move, own, Density(len(here), lambda _: level))

        moved = jnp.any(innermost(own).position != here)
        position = jnp.where(moved, loop.put(point.position, there, new), point.position)
        noise = jnp.where(moved, jax.random.key_data(keys), state.noise)
        point, whole = at(target, position), loop.sites.whole(position)
        new_state = PmmhState(point, own, info, whole, noise, here_known | moved, state.alone & ~elsewhere)
        return new_state, info._replace(lp=point.log_density)

    def learn(self, i, state: PmmhState, info) -> PmmhState:
        return state._replace(kernel=self.kernels[0].learn(i, state.kernel, state.info))


def known(state: PmmhState, elsewhere) -> jax.Array:
    """Whether the state's random numbers are those of its estimate, and will go on to be, whatever happens."""
    return state.known & state.alone & ~elsewhere


class Loop(NamedTuple):
    """A program's loop, with its parameters open."""

    kernel: Pmmh
    sites: LoopSites
    path: ProgramPath  # of the program with all data but the parameters
    choices: dict[str, Any]  # of parameters and loop
    parameters: ppl.Target
    entries: np.ndarray  # which entries of the position are parameters

    @staticmethod
    def of(kernel: Pmmh, target, position) -> "Loop":
        sites = LoopSites.of("pmmh", target)
        path, choices = sites.seen(kernel.method.way, position)
        first = [slot for slot in sites.slots if slot.path[0] in path.opened.before]
        entries = np.concatenate([np.arange(slot.start, slot.start + slot.size) for slot in first])
        return Loop(kernel, sites, path, choices, ppl.Target(path.opened.prelude), entries)

    def at(self, parameters) -> tuple[ProgramPath, dict[str, Any], jax.Array]:
        """The loop where the parameters are given, their choices, and what to add to the log evidence of its filter: these
        are data now, and their density is counted in it; not so what maps them to the real line."""
        choices = self.parameters.constrain(parameters)
        log_jacobian = self.parameters.log_jacobian(parameters)
        possible = jnp.isfinite(self.parameters.log_density(parameters))
        path = self.kernel.method.way.of(self.path.opened.program | choices)
        return path, choices, jnp.where(possible, log_jacobian, -jnp.inf)

    def keys(self, key) -> jax.Array:
        """A key for each step of a filter, (step,)."""
        return jax.random.split(key, self.path.length)

    def found(self, key, keys, parameters) -> tuple[jax.Array, dict[str, Any]]:
        """An estimate of the log density of the parameters, and all choices: a new filter's, of these `keys`."""
        path, choices, log_jacobian = self.at(parameters)
        new = filtered_path(key, path, self.kernel.method, particles=self.kernel.particles, keys=keys)
        return new.log_evidence + log_jacobian, merge(choices, new.choices)

    def given(self, key, position) -> Density:
        """The estimate that goes with the path at `position`."""
        along = {name: x for name, x in self.choices.items() if name in self.path.opened.latent}

        def estimate(parameters):
            path, _, log_jacobian = self.at(parameters)
            method, num = self.kernel.method, self.kernel.particles
            new = conditional_smc(key, path, method, along, particles=num, renewal=Traced())
            return new.log_evidence + log_jacobian

        return Density(len(self.entries), estimate)

    def put(self, position, parameters, new) -> jax.Array:
        """The position with these parameters, and the path of the `new` choices."""
        position = position.at[self.entries].set(parameters)
        old = merge(self.choices, self.parameters.constrain(parameters))
        return self.sites.moved(position, old, new)


def pmmh(kernel: Kernel, *, particles: int = 100, correlation: float = 0.0, method: Method | None = None) -> Pmmh:
    """Particle marginal Metropolis-Hastings: `kernel` moves the sites before a program's `ppl.scan`, and the path with them.

    - `kernel`: one that evaluates the density once in a step, without gradients: `RandomWalk()` or `Independence(...)`.
    - `particles` of the filter, and its `method`, such as `particle_filter(proposal=guide)`.
    - `correlation`: the share of the steps whose random numbers a proposal keeps, 0 to below 1; see the file's docstring.

    Statistics: those of `kernel`; `lp` is the log density of parameters and path.

    Raises:
        ValueError: for another kernel, fewer than two particles, or no such correlation. From `mcmc`: for a program without
            a loop, or without sites before it; for sites in the loop that are not pmmh's to move; for discrete ones before it.

    Example:
        `inf.mcmc(program | data, pmmh(inf.RandomWalk(), particles=200), key=key)`
    """
    kernel = evaluates_once("pmmh", kernel)
    plain = kernel.kernel if isinstance(kernel, Adapted) else kernel
    if not isinstance(plain, RandomWalk | Independence):
        raise ValueError(
            "pmmh: the kernel must do without gradients, for a filter has none that serve; use RandomWalk() or "
            f"Independence(...), not {type(plain).__name__}."
        )
    if particles < 2:
        raise ValueError(f"pmmh: particles must be at least 2, got {particles}.")
    if not 0 <= correlation < 1:
        raise ValueError(f"pmmh: correlation must be at least 0 and below 1, got {correlation!r}.")
    return Pmmh((kernel,), particle_filter() if method is None else method, particles, correlation)
