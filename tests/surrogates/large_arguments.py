"""A script: two chains on two cores, whose simulator is given and returns a million numbers. It prints what they came to.

Both are on the host at the same time, so that no thread of JAX's is left to copy anything for them. Arguments: the
size, and the largest piece in bytes.
"""

import importlib
import os
import sys
import threading

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # JAX has as many threads as there are cores

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

door = importlib.import_module("surrogates.simulator")  # the module, not the function of that name
SIZE, STEPS = int(sys.argv[1]), 4
door.PIECE = int(sys.argv[2])
both = threading.Barrier(2, timeout=100.0)
convert = door._Host.__call__


def met(self, *pieces):
    both.wait()
    return convert(self, *pieces)


def shifted(x):
    return x[::-1] + 1.0


door._Host.__call__ = met
sim = door.simulator(shifted, jax.ShapeDtypeStruct((SIZE,), np.float32))


def chain(x):
    return jax.lax.scan(lambda x, _: (sim(jnp.tanh(x)), None), x, length=STEPS)[0]


def main() -> None:
    program = jax.jit(jax.vmap(chain)).lower(jnp.ones((2, SIZE))).compile()
    found: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        start = jnp.ones((2, SIZE)) * (i + 1.0)  # still on its way when the chain begins: so JAX takes threads of its own
        found[i] = np.asarray(program(start))

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40.0)
    for i in range(2):
        x = np.full((2, SIZE), i + 1.0)
        for _ in range(STEPS):
            x = np.tanh(x)[:, ::-1] + 1.0
        print(i in found and np.allclose(found[i], x, rtol=1e-5), flush=True)
    os._exit(0)  # what hangs cannot be ended otherwise


main()
