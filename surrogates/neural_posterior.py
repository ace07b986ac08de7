"""A neural posterior: a network that reads data and says the posterior of a program, at once, for any data.

```python
net = sur.neural_posterior(program | data, key=key, budget="60s")     # trained on simulations of the program
q = net.given(program | data)                                         # a ppl.Generative: drawn, weighed, proposed
posterior = inf.importance(program | data, proposal=q, key=key)       # exact
```
It learns log q(latent | data) from draws of both (neural posterior estimation; Papamakarios and Murray, NeurIPS 2016;
Greenberg, Nonnenmacher and Macke, ICML 2019). Tokens of the data go through a trunk, and a head makes the law of all latent
sites in unconstrained space; so no draw lies outside a support.

Trained with `gaps=0.2`, the share of entries that are hidden, it answers where data are missing: masked arrays, as everywhere,
or NaN under `jax.jit` and `jax.vmap`. Which entries are missing must tell nothing of their values.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import inference as inf
import ppl
from inference.fixed import Fixed
from inference.vi.guides.guide import Guide
from inference.vi.guides.law import Law
from ppl import dist
from ppl.choices import Partial, nest
from ppl.distributions import is_traced

from .cases import Cases
from .gaps import Completed, Gapped
from .heads import Flow, Head, Mixture, Scaled
from .simulations import Simulations, settled
from .tokens import Reader, Seeds, Writer
from .training import trained
from .trunk import Trunk


class Net(eqx.Module):
    """The network: from data to the law of a position (dim,), or of whatever the head is of."""

    reader: Reader | Gapped
    seeds: Seeds
    trunk: Trunk
    writer: Writer
    head: Head

    def law(self, data: dict[str, Any], known: Array | None = None) -> dist.Distribution:
        """Of positions, given data by address, of which the rows `known` count."""
        return self.head.law(self.raw(data, known))

    def raw(self, data: dict[str, Any], known: Array | None = None) -> Array:
        """The raw numbers (size,) that the law is made of."""
        tokens, there = self.reader(data, known)
        return self.writer(self.trunk(self.seeds.tokens, tokens, there))


class Told(Law):
    """The law that a network says of what it is told: `told` are the arguments of `net.law`, the data last."""

    net: Any
    told: Fixed

    @staticmethod
    def of(net: Any, target: ppl.Target, *before: Any) -> "Told":
        """The law for the data of a target's program, and what is told before them."""
        return Told(net, Fixed((*before, {name: target.program.data[name] for name in net.reader.names})))

    @property
    def law(self) -> dist.Distribution:
        """Of positions (dim,)."""
        return self.net.law(*self.told.value)

    def drawn(self):
        law = self.law
        position = ppl.sample("position", law)
        return position, law.log_prob(position)

    def density(self, position):
        return self.law.log_prob(position)

    def placed(self):
        return ppl.sample("position", self.law)

    def given(self, target):
        return Told.of(self.net, target, *self.told.value[:-1])


@inf.expectation
def log_score(cases, net):
    """The mean log density of what a case leaves out, given what it tells."""
    case, _ = ppl.draw(cases)
    return net.law(case["data"], case.get("known")).log_prob(case["position"])


class NeuralPosterior(eqx.Module):
    """What `neural_posterior` returns.

    - `net`: the network. `cases`: what it was trained on. `slots`: the latent sites that it speaks of.
    - `fit`: how training went: `fit.values` are the mean log scores by step, `fit.plot()` shows them.
    """

    net: Net
    cases: Cases
    slots: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)
    fit: Any = eqx.field(static=True)

    def given(self, program: ppl.Program) -> Guide | Completed:
        """The posterior that the network says of a program's data: a `ppl.Generative`, wherever a distribution can be.

        - `program`: with data at the sites that the network was trained to read; of rows, as many as it saw, or fewer. Pure
          JAX: under `jax.vmap` for many data sets at once. Entries may be missing where the network was trained with gaps:
          those of a masked array are latent sites of the program, and drawn and weighed with the others; NaN, which only
          data that JAX traces can hold, are left out of account.

        Raises:
            ValueError: for a program without data there, with missing entries where the network saw none, with more rows or
                fewer than it saw, with other latent sites.

        Example:
            `net.given(regression(x) | {"y": y}).simulate(key).choices`
        """
        target = ppl.as_target(program)
        _check_data(target.program.data, self.cases)
        gone = [name for name in self.cases.told if isinstance(target.program.data[name], Partial)]
        slots = tuple(slot for slot in _slots(target) if slot[0] not in gone)
        if slots != self.slots:
            raise ValueError(f"given: the network knows the sites {_listed(self.slots)}, the program has {_listed(slots)}.")
        told = ppl.as_target(_with_nan(target.program)) if gone else target
        guide = Guide(Told.of(self.net, told), Fixed(told), "NeuralPosterior")
        return Completed(guide, target.program) if gone else guide

    def __repr__(self) -> str:
        num = sum(x.size for x in jax.tree.leaves(self.net))
        rows = f", of {self.cases.least} to {self.cases.most} rows" if self.cases.rows else ""
        rows += f", {self.cases.gaps:.0%} missing" if self.cases.gaps else ""
        return f"NeuralPosterior of {_listed(self.slots)} given {', '.join(self.cases.told)}{rows}: {num} numbers"


def neural_posterior(
    program: ppl.Program,
    *,
    key: Array,
    steps: int | None = None,
    budget: float | str | None = None,
    simulations: int | None = None,
    head: Head | None = None,
    rows: tuple[str, ...] | None = None,
    least: int = 0,
    gaps: float = 0.0,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
    seeds: int = 4,
    **training: Any,
) -> NeuralPosterior:
    """Train a network to say the posterior of a program, whatever its data.

    - `program`: with data; they say which sites are data, and how many rows there can be. Their values do not matter.
    - `steps` of training, or a `budget` of seconds ("60s", "5min"): by default 10,000 steps.
    - `simulations`: how often the program is run, where that is costly; by default anew in every step. Then `steps` (1000) are
      those of a round, and training goes on until held-out cases are scored no better, see `surrogates.simulations.settled`.
    - `head`: of vectors with as many coordinates as there are; by default `Flow(dim)`, for a single one `Mixture(1, 8)`.
    - `rows`: data sites whose first axis counts rows without order; by default those in a `ppl.vmap`. The network learns to
      answer from any number of them, `least` or more.
    - `gaps`: the chance that an entry of the data is missing, where data will have gaps.
    - `width`, `depth`, `heads`: of the trunk; `seeds`: how many tokens it asks with.
    - `training`: `batch`, `optimizer`, `progress`, `store`, as of `surrogates.training.trained`.

    Raises:
        ValueError: for a program without data, with a discrete latent site, or with data that cannot be drawn; for gaps that
            are no share; for a budget of seconds and a number of simulations.

    Example:
        `neural_posterior(two_moons() | {"x": x}, key=key, budget="60s").given(two_moons() | {"x": x})`
    """
    key_look, key_net, key_train = jax.random.split(key, 3)
    cases, target = Cases.of(program, rows=rows, least=least, gaps=gaps), ppl.as_target(_with_nan(program))
    target.refuse_discrete("neural_posterior")
    if head is None:
        head = Mixture(1, 8) if target.dim == 1 else Flow(target.dim, key=jax.random.fold_in(key_net, 1))
    if head.event_shape != (target.dim,):
        raise ValueError(f"neural_posterior: the head must be of vectors ({target.dim},), got event shape {head.event_shape}.")
    if simulations is not None and budget is not None:
        raise ValueError("neural_posterior: held-out cases say when training on a number of simulations ends, not a budget.")
    source = cases if simulations is None else Simulations.of(cases, simulations, key=jax.random.fold_in(key_look, 1))
    looked = source.looked_at(key_look)
    net = _network(cases, looked, head, key_net, Trunk.of(width, depth, heads, key=jax.random.fold_in(key_net, 2)), seeds)
    if isinstance(source, Simulations):
        net, fit, _ = settled(log_score, source, net, key=key_train, steps=steps or 1000, **training)
    else:
        net, fit = trained(log_score, cases, net, key=key_train, steps=steps, budget=budget, **training)
    return NeuralPosterior(net, cases, _slots(target), fit)


def _network(cases: Cases, looked: dict[str, Any], head: Head, key, trunk: Trunk, seeds: int) -> Net:
    """An untrained network for these cases, which look like `looked`."""
    one, two, three = jax.random.split(key, 3)
    if cases.gaps:
        reader = Gapped.of(cases, looked["data"], width=trunk.width, key=one)
    else:
        table = cases.program.sites()
        reader = Reader.for_sites(table, cases.told, cases.rows, looked["data"], width=trunk.width, key=one)
    return Net(
        reader,
        Seeds.of(seeds, trunk.width, key=two),
        trunk,
        Writer.of(seeds, trunk.width, head.start(), key=three),
        Scaled.from_samples(head, looked["position"]),
    )


def _slots(target: ppl.Target) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((slot.address, slot.shape) for slot in target.slots)


def _listed(slots) -> str:
    return ", ".join(f"{name}{list(shape) if shape else ''}" for name, shape in slots)


def _missing(value: Any) -> np.ndarray:
    """Which entries are missing, as far as one can look."""
    if isinstance(value, Partial):
        return ~np.asarray(value.known)
    return np.zeros((), bool) if is_traced(value) else np.isnan(np.asarray(value, float))


def _with_nan(program: ppl.Program) -> ppl.Program:
    """The program with NaN for data that are missing: nothing of it is latent, and its own density is none."""
    data = {name: jnp.where(x.known, x.value, jnp.nan) if isinstance(x, Partial) else x for name, x in program.data.items()}
    return ppl.Program(program.fn, program.args, program.kwargs, nest(data), program.do, program.rules)


def _check_data(data: dict[str, Any], cases: Cases) -> None:
    """Raise ValueError for data that the network cannot read."""
    for name in cases.told:
        if name not in data:
            raise ValueError(f"given: the network reads {', '.join(cases.told)}, but the program has no data at '{name}'.")
        missing = _missing(data[name])
        if missing.any() and not cases.gaps:
            raise ValueError(
                f"given: site '{name}' has {missing.sum()} of {missing.size} entries missing, and the network was trained "
                "without any. Train it with gaps=, the share that will be missing, or leave out their rows."
            )
    for name in cases.rows:
        num = len(data[name])
        if not cases.least <= num <= cases.most:
            raise ValueError(
                f"given: site '{name}' has {num} rows, and the network was trained on {cases.least} to {cases.most}. Train it "
                "on a program with as many."
            )
