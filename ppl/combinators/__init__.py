"""Control flow that programs can see into, with the signatures of JAX's own. Outside a model they are JAX's own."""

from .branch import cond, switch
from .loop import fori_loop, scan
from .plate import vmap
from .remat import remat

__all__ = ["cond", "fori_loop", "remat", "scan", "switch", "vmap"]
