"""A Distribution Transformer: prior in, posterior out. The network is told the prior of a program with the data, so the prior
can be changed without training again, and a posterior can be the prior of what comes next.

```python
@ppl.model
def meta():                                       # priors that the network is to know, drawn at random
    alpha = sample("alpha", dist.InverseGamma(4.0, 6.0))
    beta = sample("beta", dist.InverseGamma(4.0, 6.0))
    return alpha, beta

@ppl.model
def noise(prior):
    v = sample("v", dist.InverseGamma(*prior))
    sample("z", dist.Normal(0.0, jnp.sqrt(v)))

net = sur.distribution_transformer(noise, priors=meta(), data=("z",), key=key, budget="5min")
q = net.given({"z": 0.7}, (3.0, 2.0))             # a ppl.Generative: the posterior of noise((3.0, 2.0)) | {"z": 0.7}
net.mixture({"z": 0.7}, (3.0, 2.0))               # as a mixture of Normals, in unconstrained space: the next prior
```
Tokens are components. A prior that is a mixture of Normals makes one of each component; other priors are pytrees of numbers,
of which a network makes as many tokens. They look at the data and at each other, and each comes out as a component of the
posterior, a mixture of Normals in unconstrained space. Components of a prior begin as what they are: the untrained network
says that the posterior is the prior. (Whittle, Ziomek, Rawling and Osborne, "Distribution transformers", 2025,
arXiv:2502.02463.)
"""

from collections.abc import Callable
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
from ppl import dist
from ppl.choices import flatten, nest

from .cases import Source
from .heads import Mixture, Scaled
from .heads.mixture import Gaussians
from .neural_posterior import Told
from .tokens import Reader
from .training import trained
from .trunk import MLP, Linear, Trunk


class Exercises(Source):
    """Draws of a prior, and of a program with that prior.

    - `model`: from a prior to a program; `priors`: a program that returns one.
    - `told`: addresses of the data; `rows`: those that have rows. `hidden`: the chance that no data are shown.
    - `siblings`: how many draws of the latent sites an exercise has, one of which made the data.

    Which of the siblings made the data is forgotten, and each answers for the share that it has in the posterior: that of its
    likelihood among theirs. The mean over who it was is what one draw estimates, with less noise (Rao and Blackwell).
    """

    model: Callable[[Any], ppl.Program] = eqx.field(static=True)
    priors: ppl.Program
    told: tuple[str, ...] = eqx.field(static=True)
    rows: tuple[str, ...] = eqx.field(static=True)
    least: int = eqx.field(static=True)
    hidden: float = eqx.field(static=True)
    siblings: int = eqx.field(static=True)

    @property
    def program(self) -> ppl.Program:
        """The priors and the model's program, one after the other."""
        return ppl.Program(_both, (self.model, self.priors))

    def drawn(self):
        chosen, log_prior = ppl.draw(self.priors)
        prior = self.priors.retval(chosen)
        program = self.model(prior)
        choices, log_p = ppl.vmap(lambda: ppl.draw(program), axis_size=self.siblings)()
        flat = flatten(choices)
        data = {name: flat.pop(name)[0] for name in self.told}  # the first made the data
        case: dict[str, Any] = {"prior": prior, "data": data}
        case["shown"] = ppl.sample("hidden", dist.Bernoulli(self.hidden)) == 0
        if self.rows:
            most = data[self.rows[0]].shape[0]
            case["known"] = jnp.arange(most) < ppl.sample("num", dist.DiscreteUniform(self.least, most))
        conditioned = program | nest(data)
        case["positions"] = jax.vmap(ppl.Target(conditioned).unconstrain)(nest(flat))
        case["position"] = case["positions"][0]
        case["shares"] = self._shares(conditioned, nest(flat), case)
        return case, log_prior + log_p[0]

    def _shares(self, conditioned: ppl.Program, latent: Any, case: dict[str, Any]) -> Array:
        """Of siblings (n,): their likelihoods of what is shown, normalised. The first has it all, where only some rows are
        shown and there is one density for all rows together."""
        known, total, joint = case.get("known", jnp.ones(1, bool)), jnp.zeros(self.siblings), False
        for name, each in jax.vmap(conditioned.log_likelihoods)(latent).items():
            if name in self.rows and each.ndim > 1:
                each = jnp.where(jnp.reshape(known, (-1, *(1,) * (each.ndim - 2))), each, 0.0)
            joint = joint or (name in self.rows and each.ndim == 1)
            total = total + jnp.sum(jnp.reshape(each, (self.siblings, -1)), -1)
        shares = jax.nn.softmax(jnp.where(case["shown"], total, 0.0))
        alone = joint & case["shown"] & ~jnp.all(known)
        return jnp.where(alone, jnp.arange(self.siblings) == 0, shares)


def _both(model, priors):
    return ppl.sample("program", model(ppl.sample("priors", priors)))


class Numbers(eqx.Module):
    """Reads a prior that is a pytree of numbers: those that are always positive by their logarithms."""

    positive: tuple[bool, ...] = eqx.field(static=True)
    middle: Fixed
    spread: Fixed
    network: MLP

    @staticmethod
    def of(priors: Any, num: int, width: int, *, key: Array) -> "Numbers":
        """For priors that look like these, leaves (S, ...): `num` tokens."""
        positive = tuple(bool(x) for x in np.all(np.asarray(jax.vmap(_flat)(priors)) > 0.0, axis=0))
        numbers = np.asarray(jax.vmap(lambda prior: _read(prior, positive))(priors), np.float64)
        spread = numbers.std(0)
        spread = np.where(spread > 0.0, spread, 1.0)
        middle, spread = (Fixed(jnp.asarray(x, jnp.float32)) for x in (numbers.mean(0), spread))
        return Numbers(positive, middle, spread, MLP.of(key, len(positive), width, num * width))

    def tokens(self, prior: Any, num: int) -> tuple[Array, Array]:
        """Tokens (num, width), and the raw numbers that their components begin as: none."""
        standard = (_read(prior, self.positive) - self.middle.value) / self.spread.value
        return jnp.reshape(self.network(standard), (num, -1)), jnp.zeros(())


def _flat(prior: Any) -> Array:
    return jnp.concatenate([jnp.ravel(jnp.asarray(x, jnp.float32)) for x in jax.tree.leaves(prior)])


def _read(prior: Any, positive: tuple[bool, ...]) -> Array:
    flat, logs = _flat(prior), jnp.array(positive)
    return jnp.where(logs, jnp.log(jnp.where(logs, flat, 1.0)), flat)


class Components(eqx.Module):
    """Reads a prior that is a mixture of Normals over positions (dim,), in units of `middle` and `spread`: a token each."""

    head: Mixture
    middle: Fixed
    spread: Fixed
    network: MLP

    def tokens(self, prior: Any, num: int) -> tuple[Array, Array]:
        """Tokens (num, width), and the raw numbers (num, token size) of the components themselves."""
        weights, parts = prior.mixing_distribution.probs, prior.component_distribution
        means = (parts.mean - self.middle.value) / self.spread.value
        trils = jnp.broadcast_to(parts.scale_tril, (*parts.mean.shape, self.head.dim)) / self.spread.value[:, None]
        raw = self.head.tokens(self.head.encode(weights, means, trils))
        return self.network(raw), raw


class Net(eqx.Module):
    """The network: from a prior and data to a mixture of Normals over positions (dim,)."""

    reads: Numbers | Components
    reader: Reader
    trunk: Trunk
    writer: Linear
    head: Mixture
    middle: Fixed
    spread: Fixed

    def law(self, prior: Any, data: dict[str, Any], known: Array | None = None, shown: Any = True) -> Gaussians:
        """The posterior; of the data the rows `known` count, and none at all where they are not `shown`."""
        tokens, begun = self.reads.tokens(prior, self.head.num)
        read, there = self.reader(data, known)
        raw = begun + self.writer(self.trunk(tokens, read, there & shown))
        raw = raw + (self.head.tokens(self.head.start()) if isinstance(self.reads, Numbers) else 0.0)
        law: Any = self.head.law(jnp.ravel(raw))
        parts, spread = law.component_distribution, self.spread.value
        moved = dist.MultivariateNormal(self.middle.value + spread * parts.loc, scale_tril=spread[:, None] * parts.scale_tril)
        return Gaussians(law.mixing_distribution, moved)


@inf.expectation
def log_score(exercises, net):
    """The mean log density of the latent sites, given a prior and data."""
    case, _ = ppl.draw(exercises)
    law = net.law(case["prior"], case["data"], case.get("known"), case["shown"])
    return jnp.sum(jnp.where(case["shares"] > 0.0, case["shares"] * law.log_prob(case["positions"]), 0.0))


class DistributionTransformer(eqx.Module):
    """What `distribution_transformer` returns. `net`: the network; `cases`: what it was trained on; `fit`: how it went."""

    net: Net
    cases: Exercises
    fit: Any = eqx.field(static=True)

    def given(self, data: dict[str, Any], prior: Any) -> Guide:
        """The posterior of `model(prior) | data`, as the network says it: a guide, usable wherever a distribution is.

        - `data`: by site. `prior`: of the form that the network was trained on.

        Raises:
            ValueError: for data at other sites, or a prior of another form.

        Example:
            `inf.importance(noise(prior) | data, proposal=net.given(data, prior), key=key)`
        """
        missing = [name for name in self.cases.told if name not in data]
        if missing or len(data) != len(self.cases.told):
            raise ValueError(
                f"given: the network reads {', '.join(self.cases.told)}, but got data of {', '.join(data) or 'no site'}."
            )
        target = ppl.as_target(self.cases.model(prior) | nest(dict(data)))
        return Guide(Told.of(self.net, target, prior), Fixed(target), "DistributionTransformer")

    def mixture(self, data: dict[str, Any], prior: Any) -> Gaussians:
        """The same as a mixture of Normals over positions, in unconstrained space: a prior for the next program."""
        return self.given(data, prior).law.law  # pyright: ignore[reportAttributeAccessIssue]


def distribution_transformer(
    model: Callable[[Any], ppl.Program],
    *,
    priors: ppl.Program,
    data: tuple[str, ...],
    key: Array,
    steps: int | None = None,
    budget: float | str | None = None,
    components: int = 5,
    rows: tuple[str, ...] = (),
    least: int = 0,
    hidden: float = 0.1,
    siblings: int = 16,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
    **training: Any,
) -> DistributionTransformer:
    """Train a network to say the posterior of a program for any prior and any data.

    - `model`: from a prior to a program. `priors`: a program that draws priors and returns one: a
      `dist.MixtureSameFamily` of multivariate Normals with as many `components` over the latent sites' unconstrained values,
      or a pytree of numbers.
    - `data`: sites that are data; `rows`: those of them whose first axis counts rows without order, `least` of which are
      shown, or more.
    - `steps` of training, or a `budget` of seconds: by default 10,000 steps.
    - `components`: of the posterior. `hidden`: how often no data are shown, so that the network knows the prior.
    - `siblings`: draws of the latent sites for each set of data, all of which are learned from (see `Exercises`). Each costs
      an evaluation of the program, and none of the network.
    - `width`, `depth`, `heads`: of the trunk; `training`: as of `surrogates.training.trained`.

    Raises:
        ValueError: for a discrete latent site, data that the program does not have, a prior that is a mixture of another
            number of components.
    """
    key_look, key_net, key_train = jax.random.split(key, 3)
    cases = Exercises(model, priors, tuple(data), tuple(rows), least, float(hidden), siblings)  # pyright: ignore[reportCallIssue]
    net = _network(cases, components, key_look, key_net, Trunk.of(width, depth, heads, key=jax.random.fold_in(key_net, 1)))
    net, fit = trained(log_score, cases, net, key=key_train, steps=steps, budget=budget, **training)
    return DistributionTransformer(net, cases, fit)


def _network(cases: Exercises, num: int, key_look, key, trunk: Trunk) -> Net:
    """An untrained network for these cases."""
    one, two, three = jax.random.split(key, 3)
    prior = cases.priors.retval(cases.priors.simulate(key_look).choices)
    program = cases.model(prior)
    table = program.sites()
    unknown = [name for name in (*cases.told, *cases.rows) if name not in table]
    if unknown:
        raise ValueError(
            f"distribution_transformer: the program has no site '{unknown[0]}' to be data; it has {', '.join(table)}."
        )
    looked = cases.looked_at(key_look)
    target = ppl.as_target(program | nest(jax.tree.map(lambda x: x[0], looked["data"])))
    target.refuse_discrete("distribution_transformer")
    head = Mixture(target.dim, num)
    units = Scaled.from_samples(head, looked["position"])
    centre, spread = (Fixed(jnp.asarray(x, jnp.float32)) for x in (units.middle, units.spread))
    if isinstance(prior, dist.MixtureSameFamily):
        if prior.mixture_size != num:
            raise ValueError(
                f"distribution_transformer: the priors have {prior.mixture_size} components, not {num}: say so, components=."
            )
        reads = Components(head, centre, spread, MLP.of(one, head.token_size, trunk.width, trunk.width))
    else:
        reads = Numbers.of(looked["prior"], num, trunk.width, key=one)
    reader = Reader.for_sites(table, cases.told, cases.rows, looked["data"], width=trunk.width, key=two)
    return Net(reads, reader, trunk, Linear.of(three, trunk.width, head.token_size, 0.0), head, centre, spread)
