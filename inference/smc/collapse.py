"""Collapse: a run of sequential Monte Carlo, taken as a distribution whose density is known up to chance.

```python
run = collapse(program | data, particle_filter(), particles=100)
drawn = run.simulate(key)             # choices, an estimate of their log density, and of the evidence
run.log_density(choices, key=key)     # another estimate of it, for any choices
run.log_evidence(key)                 # under jit, vmap and grad: the objective of variational SMC
by = Collapsing(particle_filter(), particles=100)         # runs on whatever program it is asked for
(program | data).marginal("z", by=by)                     # z is integrated out by a filter
```
With gamma the program's density (data included), q the law of the choices that a run of so many particles ends with:

- *Properly weighted*: E[evidence f(choices)] = integral of gamma f, for every f, of what `simulate` draws. So the program
  around it may take the pair for a draw from the posterior and its normaliser.
- `simulate`: E[1 / density | choices] = 1 / q(choices).
- `log_density`: E[density] = q(choices); by conditional SMC, with the choices in slot 0.

All this of methods that do not adapt; where one does, it holds in the limit of many particles. A run that dies out has
evidence zero. These are the two things that a random-weight density must offer: a run is a `ppl.Generative`, and a guide, a
proposal, or what marginals are estimated by, though nobody can evaluate q (Lew, Ghavamizadeh, Rinard and Mansinghka, PLDI
2023; Andrieu, Doucet and Holenstein, JRSSB 72, 2010).

`log_evidence` is, in the mean, the bound that variational SMC maximises: the ELBO with the run for a guide. What a run draws
are no sites, so no strategy knows of it: gradients follow reparameterised particles and leave out how resampling, discrete
choices and the last particle's number depend on parameters (Naesseth, Linderman, Ranganath and Blei, AISTATS 2018). Without
resampling and discrete choices the gradient of `log_evidence` is unbiased.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

import ppl
from ppl.random_weight import Normaliser, own_key

from .conditional import ResamplePinned, conditional_smc, filtered_path, in_front
from .loop import Method, State, begin, finish, next_stage
from .program_path import ProgramPath
from .renewal import Traced, drawn
from .resample import Resample
from .reweight import Ladder, Reweight
from .step import Sequence, Step
from .tempering_path import TemperingPath


class Drawn(NamedTuple):
    """`choices`, a nested dict by site; and estimates, scalars, of their `log_density` under the run, and of the evidence."""

    choices: dict[str, Any]
    log_density: jax.Array
    log_evidence: jax.Array


class Collapsed(ppl.Generative, eqx.Module):
    """See `collapse`."""

    path: ProgramPath | TemperingPath
    stage: Step
    particles: int = eqx.field(static=True)

    def drawn(self):
        new = self.simulate(own_key())
        return new.choices, new.log_density

    def density(self, choices) -> jax.Array:
        return self._log_density(own_key(), choices)

    def simulate(self, key) -> Drawn:
        """One draw: a last particle, by its weight. Pure, and traceable."""
        if isinstance(self.path, ProgramPath):
            new = filtered_path(key, self.path, Method(None, self.stage), particles=self.particles)
            choices, log_evidence = new
        else:
            key_run, key_draw = jax.random.split(key)
            population = self._ended(self.stage, key_run).population
            slot = drawn(key_draw, population.log_weights)
            position = jax.tree.map(lambda x: x[slot], population.particles.position)
            choices, log_evidence = self.path.target.constrain(position), population.log_evidence
        log_evidence = _of_the_living(log_evidence)
        log_density = self.program.log_density(choices) - log_evidence
        return Drawn(choices, jnp.where(log_evidence > -jnp.inf, log_density, jnp.inf), log_evidence)

    def log_density(self, choices, *rest, key=None) -> jax.Array:
        """An estimate of the log density, a scalar, that `simulate` draws `choices` with; its exponential is unbiased.

        - `key`: where the random numbers come from; in a running `@expectation` they are its own. `log_density(key, choices)`
          is understood too.

        Raises:
            ValueError: for missing or misshapen choices; for a method with a step that has no conditional form; where random
                numbers are needed, and there are none.
        """
        if rest:
            key, choices = choices, *rest
        return super().log_density(choices, key=key)

    def _log_density(self, key, choices) -> jax.Array:
        if isinstance(self.path, ProgramPath):
            method = Method(None, self.stage)
            given = conditional_smc(key, self.path, method, choices, particles=self.particles, renewal=Traced())
            log_evidence = given.log_evidence
        else:
            stage, given = _conditional(self.stage), Given(self.path, self.path.target.unconstrain(choices))
            log_evidence = self._ended(stage, key, given).population.log_evidence
        log_gamma = self.program.log_density(choices)
        return jnp.where(log_gamma > -jnp.inf, log_gamma - log_evidence, -jnp.inf)  # the impossible is never drawn

    def log_evidence(self, key) -> jax.Array:
        """An estimate of the log evidence, a scalar; its exponential is unbiased where the method does not adapt."""
        return _of_the_living(self._ended(self.stage, key).population.log_evidence)

    @property
    def program(self) -> ppl.Program:
        return self.path.opened.program if isinstance(self.path, ProgramPath) else self.path.target.program

    def _ended(self, stage: Step, key, path=None) -> State:
        """A run; where the number of stages is known before, in a loop that can be differentiated in reverse."""
        path = self.path if path is None else path
        state, num = begin(stage, path, key, self.particles), _num_stages(stage)
        if path.length is not None or num is None:
            return finish(stage, path, key, state)
        return lax.fori_loop(0, num, lambda _, state: next_stage(stage, path, key, state)[0], state)


class Collapsing(Normaliser):
    """Runs by `method`, with so many `particles`, on any program: see `collapse`. For `ppl.normalize` and marginals.

    Example:
        `(program | data).marginal("z", by=Collapsing(particle_filter(), particles=100)).log_density({"theta": 0.3}, key=key)`
    """

    method: Method
    particles: int = eqx.field(static=True, kw_only=True)

    def normalize(self, program) -> Collapsed:
        return collapse(program, self.method, particles=self.particles)

    def log_evidence(self, program) -> jax.Array:
        return self.normalize(program).log_evidence(own_key())


def _of_the_living(log_evidence) -> jax.Array:
    """The log evidence of a run; -inf where all particles have died on the way."""
    return jnp.where(jnp.isnan(log_evidence), -jnp.inf, log_evidence)


def collapse(program, method: Method, *, particles: int) -> Collapsed:
    """A run on a conditioned `program` by `method`, of so many `particles`, as a distribution of choices.

    - `method`: a particle filter; or, on fixed sites, one that tempers. For `log_density` steps must have a conditional form:
      of those that temper, `Reweight(Ladder(...))` and `Resample(...)`. One step to the end is importance sampling:
      `Method(Tempering(guide), Reweight(Ladder(jnp.ones(1))))`.

    Programs and guides may hold parameters to differentiate: make the collapsed run inside the function, its stage outside.

    Raises:
        ValueError: for a program that the method cannot work on, or fewer than two particles.

    Example:
        `jax.grad(lambda phi: collapse(program(phi) | data, particle_filter(), particles=50).log_evidence(key))`
    """
    if not isinstance(method, Method):
        raise ValueError(f"collapse: expected a method such as particle_filter(), got {type(method).__name__}.")
    if isinstance(particles, bool) or not isinstance(particles, int) or particles < 2:
        raise ValueError(f"collapse: particles must be a whole number of at least 2, got {particles!r}.")
    path = method.way.of(program)
    if method.history is not None or not isinstance(path, ProgramPath | TemperingPath):
        raise ValueError(
            f"collapse: a last particle of {type(method.way).__name__} is not a draw with a density. Give a particle filter, "
            "or a method that tempers."
        )
    if isinstance(path, TemperingPath) and path.draws is not None:
        raise ValueError(
            "collapse: the run would begin at stored draws, whose law has no density. Begin at the prior, or at a guide."
        )
    method.stage.check(path)
    return Collapsed(path, method.stage, particles)


class Given(eqx.Module):
    """A bridge whose particle in slot 0 begins at a given position. Where nothing moves it stays there."""

    bridge: TemperingPath
    position: jax.Array

    length = None

    def start(self, key, num: int):
        return in_front(self.bridge.start(key, num), self.bridge.at(self.position))

    def log_ratio(self, particles, old, new):
        return self.bridge.log_ratio(particles, old, new)

    def ended(self, level):
        return self.bridge.ended(level)

    @property
    def level_name(self) -> str:
        return self.bridge.level_name


def _conditional(step: Step) -> Step:
    """A step of a bridge, given that slot 0 keeps its particle."""
    if isinstance(step, Sequence):
        return Sequence(tuple(_conditional(one) for one in step.steps))
    if isinstance(step, Resample):
        return ResamplePinned(step.resampler, Traced())
    if isinstance(step, Reweight) and isinstance(step.rule, Ladder):
        return step
    what = f"Reweight({type(step.rule).__name__}())" if isinstance(step, Reweight) else type(step).__name__
    raise ValueError(
        f"collapse: {what} has no conditional form here, so densities of given choices cannot be estimated. Go by "
        "Reweight(Ladder(...)) and Resample(...) alone; simulate() and log_evidence() do without."
    )


def _num_stages(step: Step) -> int | None:
    """How many stages it takes to the end of a bridge, where that is known before."""
    if isinstance(step, Sequence):
        known = [_num_stages(one) for one in step.steps]
        return max((num for num in known if num is not None), default=None)
    return len(step.rule.levels) if isinstance(step, Reweight) and isinstance(step.rule, Ladder) else None
