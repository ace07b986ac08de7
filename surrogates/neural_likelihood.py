"""A neural likelihood: a network in the place of one site's distribution, which is costly, or known by simulation only.

```python
@ppl.model
def decay(num):
    rate = sample("rate", dist.LogNormal(0.0, 0.5))
    def event(_):
        noise = sample("noise", dist.Normal(0.0, 1.0).expand([100]))
        ppl.deterministic("y", simulator(rate, noise))                 # a simulator's output: nobody knows its density
    ppl.vmap(event)(jnp.arange(num))

net = sur.neural_likelihood(decay(20), site="y", given=("rate",), key=key, budget="60s")
program = net.into(decay(50))                                          # the same priors; y comes from the network
posterior = inf.mcmc(program | {"y": y}, inf.NUTS(), key=key)
sample("y", net.given({"rate": rate}))                                 # or in a model of one's own
```
It learns log q(y | given) from draws of both; no q has a larger mean than the law of the program, with all that is not given
integrated out. Unlike a neural posterior it knows no prior, so priors, other data and the number of rows may change after
training. (Papamakarios, Sterratt and Murray, "Sequential neural likelihood", AISTATS 2019.) The network is that of a neural
posterior with the roles changed: tokens of what is given, and a head for the site's values, on their support.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.stats import rankdata

import inference as inf
import ppl
from ppl import dist
from ppl.choices import flatten, nest
from ppl.graph import parents
from ppl.site import SiteInfo

from .cases import Source
from .heads import Head
from .heads.for_site import head_for
from .neural_posterior import Net
from .stand_in import check_sites, gone, raw_numbers, with_network
from .tokens import Reader, Seeds, Writer
from .training import trained
from .trunk import Trunk

ALIKE = 6.0  # standard errors by which rows may differ: false alarms at 2e-9 a row


class Pairs(Source):
    """Draws of what a site's distribution is given, and of the site.

    - `given`: addresses of latent or deterministic sites; `site`: the one that is to be said.
    - `rows`: those among them that have one value a row, on their first axis; none, unless the site does.
    """

    program: ppl.Program
    given: tuple[str, ...] = eqx.field(static=True)
    site: str = eqx.field(static=True)
    rows: tuple[str, ...] = eqx.field(static=True)

    def drawn(self):
        choices, log_p = ppl.draw(self.program)
        values = flatten(self.program.values(choices))
        return {"given": {name: values[name] for name in self.given}, "value": values[self.site]}, log_p


@inf.expectation
def log_score(pairs, net):
    """The mean log density of the site, or of a row of it."""
    case, _ = ppl.draw(pairs)
    return jnp.mean(net.head.law(raw_numbers(net, case["given"], pairs.rows)).log_prob(case["value"]))


class NeuralLikelihood(eqx.Module):
    """What `neural_likelihood` returns. `net`: the network; `cases`: what it was trained on; `fit`: how training went."""

    net: Net
    cases: Pairs
    fit: Any = eqx.field(static=True)

    def given(self, values: Mapping[str, Any]) -> dist.Distribution:
        """The law of the site, of one row where it has rows: a distribution, for `sample`, `log_prob`; pure JAX.

        - `values`: of the sites that the network reads, by address or nested; others are left alone. Those that have rows come
          all with an axis (n, ...), then there are n laws, or all without.

        Raises:
            ValueError: where a value is missing, or has another shape than in training.

        Example:
            `ppl.vmap(lambda _: sample("y", net.given({"rate": rate})))(jnp.arange(num))`
        """
        cases, flat = self.cases, flatten(values)
        table, found, lengths = cases.program.sites(), {}, set()
        for name in cases.given:
            if name not in flat:
                raise ValueError(f"given: the network reads {', '.join(cases.given)}, but there is no value of '{name}'.")
            found[name], shape = jnp.asarray(flat[name]), table[name].shape
            if name in cases.rows and found[name].ndim == len(shape):
                lengths.add(len(found[name]))
                shape = (len(found[name]), *shape[1:])
            elif name in cases.rows:
                lengths.add(None)
                shape = shape[1:]
            if found[name].shape != shape:
                raise ValueError(f"given: '{name}' must have shape {shape}, as in training, got {found[name].shape}.")
        if len(lengths) > 1:
            listed = ", ".join(name for name in cases.given if name in cases.rows)
            raise ValueError(f"given: {listed} have rows: give all as many rows, or one row each without the axis.")
        return self.net.head.law(raw_numbers(self.net, found, () if None in lengths else cases.rows))

    def into(self, program: ppl.Program) -> ppl.Program:
        """The program with the network in the place of the site's distribution, or of what computed it.

        Its latent sites have their names and priors; the site can be data. The site's noise is gone, integrated out; so is
        what else was computed from it or from the site. The program returns the value of the site.

        - `program`: with the sites that the network reads, in the shapes of training, and any number of rows. Data that it has
          are kept.

        Raises:
            ValueError: for a program without these sites, or one where others are computed from the site or from its noise.

        Example:
            `inf.mcmc(net.into(decay(50)) | {"y": y}, inf.NUTS(), key=key)`
        """
        cases = self.cases
        data = program.data if isinstance(program, ppl.Program) else {}
        program = program.without(cases.site) if cases.site in data else program
        check_sites(program, cases.given, cases.site, "into")
        known, table = cases.program.sites(), program.sites()
        for name in (*cases.given, cases.site):
            lead = int(name in cases.rows)
            if known[name].shape[lead:] != table[name].shape[lead:] or len(known[name].shape) != len(table[name].shape):
                raise ValueError(
                    f"into: site '{name}' has shape {table[name].shape}, and in training it had {known[name].shape}"
                    + (", where only the first axis may differ." if lead else ".")
                )
        away = gone(program, cases.given, cases.site)
        values = flatten(program.values(program.simulate(jax.random.key(0)).choices))
        rest = program.without().intervene(nest({name: values[name] for name in (*away, cases.site)}))
        shape = table[cases.site].shape
        lead = shape[:1] if cases.site in cases.rows else ()
        sites = {"site": cases.site, "given": cases.given, "rows": cases.rows, "away": away}
        return ppl.Program(with_network, (self.net, rest, lead), sites) | nest(data)

    def __repr__(self) -> str:
        num = sum(x.size for x in jax.tree.leaves(self.net))
        row = ", a row" if self.cases.site in self.cases.rows else ""
        return f"NeuralLikelihood of {self.cases.site} given {', '.join(self.cases.given)}{row}: {num} numbers"


def neural_likelihood(
    program: ppl.Program,
    *,
    site: str,
    given: tuple[str, ...] | None = None,
    key: Array,
    steps: int | None = None,
    budget: float | str | None = None,
    head: Head | None = None,
    rows: tuple[str, ...] | None = None,
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    seeds: int = 1,
    **training: Any,
) -> NeuralLikelihood:
    """Train a network to say the law of one site of a program, given others, from draws of the program.

    - `site`: latent, or deterministic where a simulator computes it.
    - `given`: what the law is given, latent or deterministic sites; by default those that the site's distribution is computed
      from. Others that the site is computed from are its noise, and integrated out.
    - `steps` of training, or a `budget` of seconds ("60s", "5min"): by default 10,000 steps.
    - `head`: of unconstrained reals; by default `Mixture(None, 8)` for numbers, `Flow(dim)` for vectors, put on the site's
      support; `Categories` for a few whole numbers.
    - `rows`: sites whose first axis counts rows, each row a draw by itself; by default the site, where it lies in a
      `ppl.vmap`, and what is given in one of the same length, of which a row is then told its own. Rows are alike but for
      that: name a covariate that they are computed from, `ppl.deterministic("x", x)`, and give it.
    - `width`, `depth`, `heads`: of the trunk; `seeds`: how many tokens it asks with.
    - `training`: `batch`, `optimizer`, `progress`, `store`, as of `surrogates.training.trained`.

    Raises:
        ValueError: for sites that the program does not have, a site that is data or lies in a nested program, one that is
            computed from what is given without noise, other sites that are computed from it, rows that are not alike.

    Example:
        `neural_likelihood(decay(20), site="y", given=("rate",), key=key, budget="60s").into(decay(20)) | {"y": y}`
    """
    given = _given(program, site) if given is None else tuple(given)
    check_sites(program, given, site, "neural_likelihood")
    gone(program, given, site)
    table = program.sites()
    pairs = Pairs(program, given, site, _rows(table, given, site) if rows is None else tuple(rows))
    _check_rows(table, pairs)
    key_look, key_net, key_train = jax.random.split(key, 3)
    one, two, three, four, five = jax.random.split(key_net, 5)
    looked = pairs.looked_at(key_look)
    _check_alike(pairs, looked["value"])
    shown = {name: _merged(x, name in pairs.rows) for name, x in looked["given"].items()}
    head = head_for(site, table[site], _merged(looked["value"], site in pairs.rows), head, key=five)
    net = Net(
        Reader.for_sites(table, pairs.given, (), shown, width=width, key=one),
        Seeds.of(seeds, width, key=two),
        Trunk.of(width, depth, heads, key=three),
        Writer.of(seeds, width, head.start(), key=four),
        head,
    )
    net, fit = trained(log_score, pairs, net, key=key_train, steps=steps, budget=budget, **training)
    return NeuralLikelihood(net, pairs, fit)


# -- checks ------------------------------------------------------------------------------------------------------------------


def _given(program: Any, site: str) -> tuple[str, ...]:
    """What the site's distribution is computed from; nothing, where there is no such site, or no program."""
    table = program.sites() if isinstance(program, ppl.Program) else {}
    found = tuple(name for name in table if site in table and name in parents(program)[site])
    if found and table[site].kind == "deterministic":
        raise ValueError(
            f"neural_likelihood: site '{site}' is computed from {', '.join(found)} without noise of its own. Say which sites "
            "its law is given, given=(...); all others are its noise."
        )
    return found


def _rows(table: Mapping[str, SiteInfo], given: tuple[str, ...], site: str) -> tuple[str, ...]:
    """The site, where it lies in a `ppl.vmap`, and what is given in one of the same length."""
    plates = table[site].plates
    if not plates or not plates[0].startswith("vmap"):
        return ()
    return tuple(name for name in (*given, site) if table[name].plates[:1] == plates[:1])


def _check_rows(table: Mapping[str, SiteInfo], pairs: Pairs) -> None:
    for name in pairs.rows:
        if name not in (*pairs.given, pairs.site):
            raise ValueError(f"rows: '{name}' is neither '{pairs.site}' nor given, which are: {', '.join(pairs.given)}.")
    lengths = {name: table[name].shape[:1] for name in pairs.rows}
    if pairs.rows and (pairs.site not in pairs.rows or len(set(lengths.values())) > 1 or () in lengths.values()):
        raise ValueError(f"rows: '{pairs.site}' and all others need as many rows, got {lengths}.")


def _check_alike(pairs: Pairs, values: np.ndarray) -> None:
    """Raise ValueError where rows that are told nothing of their own differ in law: by their ranks among all."""
    if pairs.site not in pairs.rows or any(name in pairs.rows for name in pairs.given):
        return
    ranks = rankdata(values, axis=None).reshape(*values.shape[:2], -1) / values.size - 0.5
    for moment, spread in ((ranks, 12**-0.5), (ranks**2, 180**-0.5)):
        means = moment.mean(0)  # (rows, numbers)
        far = np.abs(means - means.mean(0)).max() * len(values) ** 0.5 / spread
        if far > ALIKE:
            raise ValueError(
                f"the rows of site '{pairs.site}' are not alike: what is told of them is the same, and their laws differ. "
                'Name what tells them apart in the model, ppl.deterministic("x", x), and give it, given=(..., "x"); or say '
                "that there are no rows, rows=()."
            )


def _merged(x: np.ndarray, rows: bool) -> np.ndarray:
    return x.reshape(-1, *x.shape[2:]) if rows else x
