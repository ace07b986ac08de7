"""Implicit: how a number moves that is found by solving `law.cdf(x) = q`, whatever way it was found.

Since the cdf at x stays q while the law's parameters change by d law,

    dx = (dq - d cdf(x)) / density(x)

So draws from a scalar law have the gradients of a reparameterised draw, though a component or a bucket is chosen at random on
the way. (Figurnov, Mohamed and Mnih, "Implicit reparameterization gradients", NeurIPS 2018, equation 5.)
"""

from typing import Any

import jax
import jax.numpy as jnp


@jax.custom_jvp
def solved(x: jax.Array, q: jax.Array, law: Any) -> jax.Array:
    """`x` itself, with the derivatives of the root of `law.cdf(x) = q`.

    For a draw of the law, any constant `q` will do: that it is a draw of what its cdf says does not change.

    Example:
        `solved(jax.lax.stop_gradient(bisect(law, q)), q, law)`
    """
    return x


@solved.defjvp
def _(primals, tangents):
    x, _, law = primals
    _, dq, dlaw = tangents
    _, dcdf = jax.jvp(lambda law: law.cdf(x), (law,), (dlaw,))
    log_density = law.log_prob(x)
    least = jnp.log(jnp.finfo(log_density.dtype).tiny)  # beyond, nothing is drawn, and a quotient would not be finite
    return x, (dq - dcdf) * jnp.exp(-jnp.maximum(log_density, least))
