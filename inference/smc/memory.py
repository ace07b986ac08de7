"""Memory: for how many steps a program's loop remembers what it carried, and the density of what is to come.

Smoothing asks of every particle how well the *later* choices of a path would fit it. Where the carry after a step is a
function of that step's choices alone, the next step has the answer: the loop is Markov, and its memory is 1. A loop that
carries the last two values has memory 2; one that carries the sum of all values never forgets, and the whole rest of the path
has to be weighed. Which it is is read off the traced step, array by array of the carry: what is the same for all particles,
such as a counter of steps, or matters to no density does not count.

```python
span = memory(opened)                                      # 1 for a random walk
log_ahead(opened, span, t, before, carry, choices)         # of steps t, t + 1, ... from a carry, along given choices
```
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import ppl
from ppl.graph import depends


def memory(opened: ppl.Stepwise) -> int:
    """After how many steps a carry is forgotten, where the choices are given; at most the length of the loop."""
    carries, weight, _ = _traced(opened)
    if any(name.startswith("before") for name in weight.union(*carries.values())):
        return opened.length  # what was drawn before the loop is never forgotten
    above = {f"carry {i}": found for i, found in carries.items()}
    shared, matters = set() if opened.before else set(above), above.keys() & weight
    for _ in above:
        shared = {entry for entry in shared if above[entry] <= shared | {"t"}}
        matters = matters | {entry for later in matters for entry in above[later] & above.keys()}
    known, steps = matters - shared, 0
    while known:
        steps, earlier = steps + 1, known
        known = {entry for entry in known if above[entry] & earlier}
        if known == earlier:
            return opened.length
    return min(steps, opened.length)


def data_see_the_carry(opened: ppl.Stepwise) -> bool:
    """Whether the density of a step's data depends on the carry too, not on the step's choices alone."""
    return any(name.startswith("carry") for name in _traced(opened)[2])


def _traced(opened: ppl.Stepwise) -> tuple[dict[int, set[str]], set[str], set[str]]:
    """What a step is computed from: each entry of the new carry; the density; and its part that is the data's."""
    key = jax.random.key(0)
    begun = jax.eval_shape(lambda k: opened.begin(k), key)
    first = jax.eval_shape(lambda b: opened.step(key, 0, b.before, b.carry), begun)
    parts = (begun.before, first.carry, first.choices)
    leaves, structure = jax.tree.flatten(parts)
    names = [f"{kind} {i}" for kind, part in zip(KINDS, parts, strict=True) for i in range(len(jax.tree.leaves(part)))]

    def step(inputs):
        before, carry, choices = jax.tree.unflatten(structure, [inputs[name] for name in names])
        new = opened.step(None, inputs["t"], before, carry, choices)
        return dict(enumerate(jax.tree.leaves(new.carry))), new.log_weight, new.log_likelihood

    clock = {"t": jax.ShapeDtypeStruct((), jnp.int32)}
    return depends(step, dict(zip(names, leaves, strict=True)) | clock)


KINDS = ("before", "carry", "choices")


def log_ahead(opened: ppl.Stepwise, span: int, t, before, carry, choices) -> jax.Array:
    """Log density of the choices (leaves (length, ...)) and data of the steps from number `t` on, for one carry.

    Steps that lie `span` or more ahead are left out: where that is the memory of the loop, they are the same for all carries.
    """

    def one(s, so_far) -> tuple[Any, jax.Array]:
        carry, total = so_far
        new = opened.step(None, s, before, carry, jax.tree.map(lambda x: x[s], choices))
        return like(new.carry, carry), total + new.log_weight.astype(total.dtype)

    end = jnp.minimum(t + span, opened.length)
    found = one(t, (carry, jnp.zeros(())))[1] if span == 1 else lax.fori_loop(t, end, one, (carry, jnp.zeros(())))[1]
    return jnp.where(jnp.isnan(found), -jnp.inf, found)


def like(tree, example):
    """`tree` with the types of `example`, as loops must have it."""
    return jax.tree.map(lambda x, y: jnp.asarray(x, jnp.result_type(y)), tree, example)
