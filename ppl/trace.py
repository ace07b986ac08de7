"""A trace is what one run of a program chose, and its density. Nothing else is stored."""

from typing import Any

import jax
from jax import Array

from .choices import Choices, walk


@jax.tree_util.register_pytree_node_class
class Trace:
    """The outcome of running a program.

    Attributes:
        choices: nested dict of the latent sites' values (leading axes from `vmap` and `scan`).
        log_density: +log of the joint density of choices and data, a scalar.
        retval: what the model function returned, recomputed from the choices when asked for.

    Only choices and density are leaves of the pytree: 1e5 traces cost what their choices cost. Once a trace has been
    through `jax.vmap` or `jax.jit` it no longer knows its program; then ask `program.retval(trace.choices)`.
    """

    def __init__(self, choices: Choices, log_density: Array, program: Any = None) -> None:
        self.choices, self.log_density, self._program = choices, log_density, program

    @property
    def retval(self) -> Any:
        """The model's return value at these choices."""
        if self._program is None:
            raise ValueError("this trace has been through a JAX transformation: use program.retval(trace.choices).")
        return self._program.retval(self.choices)

    def __getitem__(self, address: str) -> Any:
        node: Any = self.choices
        if address in node:
            return node[address]
        for name in address.split("."):
            node = node[name]
        return node

    def tree_flatten(self) -> tuple[tuple, None]:
        return (self.choices, self.log_density), None

    @classmethod
    def tree_unflatten(cls, aux: None, children: tuple) -> "Trace":
        return cls(*children)

    def __repr__(self) -> str:
        rows = "\n".join(f"  {address}: {value}" for address, value in walk(self.choices))
        return f"Trace(log_density={self.log_density})\n{rows}"
