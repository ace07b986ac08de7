"""A prior-fitted network: a network that has seen so many data sets from a program that it predicts the next point of a new
one by looking at it, without inference.

```python
@ppl.model
def curves(num):
    x = sample("x", dist.Uniform(0.0, 1.0).expand([num]))
    scale = sample("scale", dist.LogNormal(-1.0, 0.5))
    sample("y", dist.MultivariateNormal(covariance_matrix=kernel(x, scale)))

net = sur.pfn(curves(32), context=("x", "y"), query="y", key=key, budget="5min")
law = net.given({"x": x, "y": y}).at({"x": new})       # a distribution for every new point
law.icdf(0.5), law.log_prob(y_new), ppl.sample("y", law)
```
It learns log q(y* | x*, points before); no q has a larger mean score than the posterior predictive of the program, with all
its latent sites integrated out. (Mueller, Hollmann, Pineda Arango, Grabocka and Hutter, "Transformers can do Bayesian
inference", ICLR 2022, arXiv:2112.10510.)
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import inference as inf
import ppl
from ppl import dist
from ppl._errors import nearest
from ppl.choices import flatten
from ppl.distributions import is_traced

from .cases import Source, hidden
from .columns import Columns
from .heads import Head, Mixture
from .heads.for_site import head_for
from .heads.head import count
from .tokens import Reader, Writer
from .training import trained
from .trunk import MLP, Trunk


class Points(Source):
    """A program as a source of data sets, of which some rows are shown and others are asked for.

    - `program`: everything is drawn. `context`: sites with a row for every point, drawn or deterministic (a grid of times);
      `query`: the one that is asked for.
    - `least`: the smallest number of rows shown. `asked`: the smallest number of rows asked for: all that are not shown.
    - `gaps`: the chance that what is told of a row at a site is missing.
    """

    program: ppl.Program
    context: tuple[str, ...] = eqx.field(static=True)
    query: str = eqx.field(static=True)
    least: int = eqx.field(static=True)
    asked: int = eqx.field(static=True)
    gaps: float = eqx.field(static=True)

    @property
    def most(self) -> int:
        """Rows in a data set."""
        return self.program.sites()[self.query].shape[0]

    @property
    def shown(self) -> int:
        """The largest number of rows shown."""
        return self.most - self.asked

    @property
    def given(self) -> tuple[str, ...]:
        """What is known of a point that is asked for."""
        return tuple(name for name in self.context if name != self.query)

    def drawn(self):
        choices, log_p = ppl.draw(self.program)
        data = self.rows(choices)
        num: Any = ppl.sample("num", dist.DiscreteUniform(self.least, self.shown))
        told = {name: hidden(name, x, self.gaps, 1) for name, x in data.items()} if self.gaps else data
        return {"data": told, "known": jnp.arange(self.most) < num, "answers": data[self.query]}, log_p

    def rows(self, choices: ppl.Choices) -> dict[str, Array]:
        """The context of a data set, by site. Only what is not drawn needs the program to run again."""
        table = self.program.sites()
        drawn = all(table[name].kind == "latent" for name in self.context)
        flat = flatten(choices if drawn else self.program.values(choices))
        return {name: jnp.asarray(flat[name]) for name in self.context}


class Net(eqx.Module):
    """The network: from the points that are known, and what is known of another, to the law of the rest."""

    reader: Reader
    columns: Columns | None  # of what is known of a point that is asked for
    asks: MLP
    trunk: Trunk
    writer: Writer
    head: Head

    def law(self, data: dict[str, Any], at: dict[str, Any], num: int) -> dist.Distribution:
        """Of `num` points, each given all rows of `data`: batch shape (num,)."""
        tokens, there = self.reader(data)
        return self._laws(jax.vmap(lambda token: self.trunk(token[None], tokens, there))(self._asked(at, num)))

    def rows(self, data: dict[str, Any], known: Array) -> dist.Distribution:
        """The same of every row of `data` (n,) that is not `known` (n,), given those that are: batch shape (n,).

        All go through the trunk together, which costs half as much: a row looks at the known ones, and at itself.
        """
        tokens, _ = self.reader(data)
        tokens = jnp.where(known[:, None], tokens, self._asked(data, len(known)))
        seen = known | jnp.eye(len(known), dtype=bool)
        return self._laws(self.trunk(tokens, tokens[:0], known[:0], seen)[:, None])

    def _asked(self, at: dict[str, Any], num: int) -> Array:
        return self.asks(self.columns(at, axes=1) if self.columns else jnp.ones((num, 1)))

    def _laws(self, tokens: Array) -> dist.Distribution:
        return self.head.law(jax.vmap(self.writer)(tokens))


@inf.expectation
def log_score(points, net):
    """The mean log density of points that are asked for, given those that are shown."""
    case, _ = ppl.draw(points)
    log_q = net.rows(case["data"], case["known"]).log_prob(case["answers"])
    return jnp.mean(log_q, where=~case["known"])


class Predictive(eqx.Module):
    """What a network says after it has seen some data: `at({...})` is the law of new points."""

    net: Net
    data: dict[str, Array]
    given: tuple[str, ...] = eqx.field(static=True)

    def at(self, points: dict[str, Any]) -> dist.Distribution:
        """The law of each new point by itself, batch shape (num,), with `log_prob`, `sample`; of numbers with `cdf`, `icdf`.

        - `points`: by site, what is known of them, leaves (num, ...).

        Raises:
            ValueError: where a site is missing, or leaves are not of one length.
        """
        missing = [name for name in self.given if name not in points]
        if missing:
            raise ValueError(
                f"at: the network asks for '{missing[0]}' of every new point; it was given {', '.join(points) or 'nothing'}."
            )
        at = {name: jnp.asarray(points[name]) for name in self.given}
        nums = {len(x) if x.ndim else 0 for x in at.values()}
        if len(nums) > 1 or 0 in nums:
            raise ValueError(
                f"at: give as many values of every site, (num, ...), got shapes {[x.shape for x in at.values()]}."
            )
        return self.net.law(self.data, at, nums.pop() if nums else 1)


class PFN(eqx.Module):
    """What `pfn` returns. `net`: the network. `points`: what it was trained on. `fit`: how training went."""

    net: Net
    points: Points
    fit: Any = eqx.field(static=True)

    def given(self, data: dict[str, Any]) -> Predictive:
        """What the network says after it has seen `data`: by site, leaves (n, ...), with n up to what it was trained on. Pure
        JAX: under `jit`, `vmap` and `grad`. NaN where an entry is missing.

        Raises:
            ValueError: where a site is missing, leaves are not of one length, or have more rows than in training, or NaN
                where there was none.

        Example:
            `net.given({"x": x, "y": y}).at({"x": grid}).icdf(0.5)`
        """
        missing = [name for name in self.points.context if name not in data]
        if missing:
            raise ValueError(
                f"given: the network reads {', '.join(self.points.context)}, but the data have no '{missing[0]}'."
            )
        read = {name: jnp.asarray(data[name]) for name in self.points.context}
        nums = {x.shape[0] if x.ndim else -1 for x in read.values()}
        if len(nums) > 1 or -1 in nums:
            raise ValueError(f"given: give as many rows of every site, got shapes { {k: x.shape for k, x in read.items()} }.")
        num = nums.pop()
        if not self.points.least <= num <= self.points.shown:
            raise ValueError(
                f"given: {num} rows, and the network was trained on {self.points.least} to {self.points.shown}. Train it "
                "on a program with more points."
            )
        empty = [name for name, x in read.items() if not is_traced(x) and np.isnan(np.asarray(x, float)).any()]
        if empty and not self.points.gaps:
            raise ValueError(
                f"given: '{empty[0]}' has missing entries (NaN), and the network was trained without any. Train it with gaps=."
            )
        return Predictive(self.net, read, self.points.given)

    def __repr__(self) -> str:
        num, points = sum(x.size for x in jax.tree.leaves(self.net)), self.points
        told = ", ".join((*points.given, f"{points.least} to {points.shown} rows of {', '.join(points.context)}"))
        return f"PFN of {points.query} given {told}: {num} numbers"


def pfn(
    program: ppl.Program,
    *,
    context: tuple[str, ...],
    query: str,
    key: Array,
    steps: int | None = None,
    budget: float | str | None = None,
    head: Head | None = None,
    least: int = 0,
    asked: int = 1,
    gaps: float = 0.0,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
    **training: Any,
) -> PFN:
    """Train a network to predict in context, from draws of a program.

    - `program`: without data; its sites `context`, drawn or deterministic, have a row for every point, on their first axis.
      Points must be exchangeable, or come in an order in which the first are seen first.
    - `query`: the site of `context` that is predicted, one number a row. The others are known of every point.
    - `steps` of training, or a `budget` of seconds ("60s", "5min"): by default 10,000 steps.
    - `head`: by default `Mixture(None, 10)`, in the query's units and on its support; `Categories` for a few whole numbers.
    - `least`: the smallest number of rows shown. `asked`: the smallest number asked for, so that the largest number shown is
      that of the program's rows less `asked`; some more make a long context cheaper to learn. `gaps`: the chance that what
      is told of a row at a site is missing, where data will have gaps.
    - `width`, `depth`, `heads`: of the trunk. `training`: `batch`, `optimizer`, `progress`, `store`, as of
      `surrogates.training.trained`.

    Raises:
        ValueError: for sites that the program does not have, or without rows, or with different numbers of them.
    """
    points = Points(program, tuple(context), query, least, asked, float(gaps))
    _check(points)
    key_look, key_net, key_train = jax.random.split(key, 3)
    one, two, three, four = jax.random.split(key_net, 4)
    draw = jax.jit(jax.vmap(lambda points, key: points.rows(points.program.simulate(key).choices), (None, 0)))
    looked = jax.tree.map(np.asarray, draw(points, jax.random.split(key_look, 2000)))
    table = program.sites()
    trunk = Trunk.of(width, depth, heads, key=one)
    columns = Columns.of({name: table[name] for name in points.given}, looked, axes=1) if points.given else None
    default = None if table[query].discrete else Mixture(None, 10)
    head = head_for(query, table[query], looked[query].reshape(-1), default if head is None else head)
    net = Net(
        Reader.of(Columns.of({name: table[name] for name in context}, looked, axes=1), (), width=width, key=two),
        columns,
        MLP.of(three, columns.size if columns else 1, width, width),
        trunk,
        Writer.of(1, width, head.start(), key=four),
        head,
    )
    net, fit = trained(log_score, points, net, key=key_train, steps=steps, budget=budget, **training)
    return PFN(net, points, fit)


def _check(points: Points) -> None:
    table = points.program.sites()
    for name in (*points.context, points.query):
        kind = table[name].kind if name in table else "missing"
        if kind != "latent" and (kind != "deterministic" or name == points.query):
            found = nearest(name, table) if kind == "missing" else f" It is {kind}."
            raise ValueError(f"pfn: the program has no site '{name}' that is drawn.{found}")
        if not table[name].shape:
            raise ValueError(f"pfn: site '{name}' is a single number; context sites have a row for every point.")
    if points.query not in points.context:
        raise ValueError(f"pfn: the query '{points.query}' must be one of the context, {', '.join(points.context)}.")
    if len(table[points.query].shape) > 1:
        raise ValueError(f"pfn: site '{points.query}' has shape {table[points.query].shape}; a query has one number a row.")
    nums = {name: table[name].shape[0] for name in points.context}
    if len(set(nums.values())) > 1:
        raise ValueError(f"pfn: all context sites need as many rows, got {nums}.")
    count("pfn", "asked", points.asked)
    if not 0 <= points.least <= points.shown:
        raise ValueError(f"pfn: least must lie between 0 and {points.shown} (rows less asked), got {points.least!r}.")
    if not 0.0 <= points.gaps < 1.0:
        raise ValueError(f"pfn: gaps must be a share of at least 0 and below 1, got {points.gaps!r}.")
