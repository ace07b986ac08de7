"""Trunk: what is asked, in the light of what is known. Attention from tokens to tokens; no positions, so order says nothing.

    known <- known + attention(known -> known)                what is known looks at itself,
    asked <- asked + attention(asked -> known and asked)      what is asked at both; then each through a network of its own

One set of weights for both. All that is asked together sees each other, as the components of a Distribution Transformer do.
Points that are predicted apart, as in a prior-fitted network, are asked one by one under `jax.vmap`, which does the work on
what is known once. Each block begins as the identity. (Vaswani et al., NeurIPS 2017; before the norm: Xiong et al., ICML
2020; Mueller et al., "Transformers can do Bayesian inference", ICLR 2022.)

```python
trunk = Trunk.of(width=64, depth=4, heads=4, key=key)
trunk(asked, known, there)            # (q, width), (n, width), (n,) -> (q, width)
```
Laws: neither the order of the known tokens matters, nor those that are not `there`.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from .heads.head import count


class Linear(eqx.Module):
    """`weight` (in, out) and `bias` (out,). Products are in `precision`; a sum of them is kept in float32."""

    weight: Array
    bias: Array

    @staticmethod
    def of(key, num: int, out: int, scale: float = 1.0) -> "Linear":
        """Weights are normal, of deviation scale / sqrt(num)."""
        return Linear(scale * jax.random.normal(key, (num, out), jnp.float32) / num**0.5, jnp.zeros(out, jnp.float32))

    def __call__(self, x: Array, precision: Any = jnp.float32) -> Array:
        product = jnp.matmul(x.astype(precision), self.weight.astype(precision), preferred_element_type=jnp.float32)
        return product + self.bias


class MLP(eqx.Module):
    """Layers with GELU between them; `zero`: the last begins as zero."""

    layers: tuple[Linear, ...]

    @staticmethod
    def of(key, *sizes: int, zero: bool = False) -> "MLP":
        keys, last = jax.random.split(key, len(sizes) - 1), len(sizes) - 2
        pairs = enumerate(zip(sizes[:-1], sizes[1:], strict=True))
        return MLP(tuple(Linear.of(keys[i], num, out, 0.0 if zero and i == last else 1.0) for i, (num, out) in pairs))

    def __call__(self, x: Array, precision: Any = jnp.float32) -> Array:
        for layer in self.layers[:-1]:
            x = jax.nn.gelu(layer(x, precision))
        return self.layers[-1](x, precision)


class Keys(NamedTuple):
    """What tokens show to those that look at them: (heads, n, size) each."""

    keys: Array
    values: Array


class Block(eqx.Module):
    """One step of the trunk; see the file's docstring."""

    norm: Array  # scales (2, width) of what goes into attention, and into the network
    query: Linear
    shown: Linear  # keys and values
    out: Linear
    network: MLP
    heads: int = eqx.field(static=True)

    @staticmethod
    def of(key, width: int, heads: int) -> "Block":
        one, two, three, four = jax.random.split(key, 4)
        out = Linear.of(three, width, width, 0.0)
        network = MLP.of(four, width, 4 * width, width, zero=True)
        norm = jnp.ones((2, width), jnp.float32)
        return Block(norm, Linear.of(one, width, width), Linear.of(two, width, 2 * width), out, network, heads)

    def __call__(self, asked: Array, known: Array, there: Array, among: Array, precision: Any) -> tuple[Array, Array]:
        first, second = normal(known) * self.norm[0], normal(asked) * self.norm[0]
        of_known, of_asked = self._shown(first, precision), self._shown(second, precision)
        seen, among = jnp.where(there, 0.0, -jnp.inf), jnp.where(among, 0.0, -jnp.inf)
        known = known + self._look(first, [(of_known, seen)], precision)
        asked = asked + self._look(second, [(of_known, seen), (of_asked, among)], precision)
        known, asked = (x + self.network(normal(x) * self.norm[1], precision) for x in (known, asked))
        return asked, known

    def _shown(self, x, precision) -> Keys:
        return Keys(*(self._split(part) for part in jnp.split(self.shown(x, precision).astype(precision), 2, -1)))

    def _look(self, x, at: list[tuple[Keys, Array]], precision) -> Array:
        """What tokens see in several groups of others, under one softmax; nothing, where there is nobody to look at."""
        query = self._split(self.query(x, precision).astype(precision))
        scale = query.shape[-1] ** -0.5
        logits = [
            scale * jnp.einsum("hqs,hks->hqk", query, keys.keys, preferred_element_type=jnp.float32) + seen
            for keys, seen in at
        ]
        most = jnp.stack([jnp.max(part, -1, initial=-jnp.inf) for part in logits]).max(0)[..., None]
        most = jax.lax.stop_gradient(jnp.where(jnp.isfinite(most), most, 0.0))
        weights = [jnp.exp(part - most) for part in logits]
        total = sum(jnp.sum(part, -1, keepdims=True) for part in weights)
        sums = [
            jnp.einsum("hqk,hks->hqs", part.astype(precision), keys.values, preferred_element_type=jnp.float32)
            for part, (keys, _) in zip(weights, at, strict=True)
        ]
        mean = sum(sums) / jnp.where(total > 0.0, total, 1.0)
        return self.out(jnp.reshape(jnp.moveaxis(mean, 0, 1), x.shape), precision)

    def _split(self, x) -> Array:
        return jnp.moveaxis(jnp.reshape(x, (len(x), self.heads, x.shape[-1] // self.heads)), 1, 0)


class Trunk(eqx.Module):
    """See the file's docstring.

    - `blocks`: leaves lead with (depth,).
    - `precision`: of matrix products: bfloat16 where an accelerator is at hand. Softmax, norms and sums are float32.
    """

    blocks: Block
    precision: Any = eqx.field(static=True)

    @staticmethod
    def of(width: int = 64, depth: int = 4, heads: int = 4, *, key: Array, precision: Any = None) -> "Trunk":
        """`depth` blocks of `heads` heads each; `width` is a multiple of `heads`.

        Raises:
            ValueError: for numbers that are not whole and positive, and a width that is no multiple of the heads.
        """
        for name, value in (("width", width), ("depth", depth), ("heads", heads)):
            count("Trunk", name, value)
        if width % heads:
            raise ValueError(f"Trunk: the width must be a multiple of the heads, got {width} and {heads}.")
        if precision is None:
            precision = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
        make = jax.jit(jax.vmap(lambda k: Block.of(k, width, heads)))  # compiled once, and not number by number
        return Trunk(make(jax.random.split(key, depth)), jnp.dtype(precision))

    @property
    def width(self) -> int:
        """Of a token."""
        return self.blocks.norm.shape[-1]

    def __call__(self, asked: Array, known: Array, there: Array, among: Any = True) -> Array:
        """What becomes of the tokens that are asked (q, width), given those known (n, width) that are `there` (n,).

        - `among`: whether an asked token looks at another; (q, q), or one for all.
        """
        among, depth = jnp.broadcast_to(among, (len(asked), len(asked))), self.blocks.norm.shape[0]
        for i in range(depth):
            block = jax.tree.map(lambda x, i=i: x[i], self.blocks)
            asked, known = block(asked, known, there, among, self.precision)
        return normal(asked)


def normal(x: Array) -> Array:
    """Each token shifted and scaled to mean 0 and deviation 1."""
    middle = x - jnp.mean(x, -1, keepdims=True)
    return middle * jax.lax.rsqrt(jnp.mean(middle**2, -1, keepdims=True) + 1e-6)
