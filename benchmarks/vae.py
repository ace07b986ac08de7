"""Gradients of a variational autoencoder: ours, written by hand, and NumPyro's SVI, in turn in one process.

    python -m benchmarks.vae [--rounds 40] [--write]

A decoder 10-200-784 and an encoder 784-200-20 with leaky rectifiers, Bernoulli pixels, random binary images; batches of 64 to
1024 (table 1 of Becker, Lew, Wang, Ghavami, Huot, Rinard and Mansinghka, "Probabilistic programming with programmable
variational inference", PLDI 2024, whose programs written by hand take a gradient for each image; ours by hand is the gradient
of the batch's mean, which is many times as fast on CPUs). Measured, medians over rounds in which all take their turn:

- `gradient`: one value and gradient of the ELBO by all weights, milliseconds; its ratio to the one by hand.
- `compile`: tracing and compiling it, seconds, and the ratio; nine times in turn.
- `step`: one step of Adam on it, within a compiled loop of 20, ours and by hand the same loop; of NumPyro `SVI.update` under
  `lax.scan`. Ratios: NumPyro's time over ours, and over that of the loop by hand: as much as any library could gain.
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import SVI, Trace_ELBO

import ppl
from benchmarks.report import machine, table, write
from inference.vi import expectation
from ppl import sample

LATENT, HIDDEN, PIXELS, STEPS, COMPILES = 10, 200, 784, 20, 9
BATCHES = (64, 128, 256, 512, 1024)


def network(key, *widths):
    keys = jax.random.split(key, len(widths) - 1)
    layers = zip(keys, widths[:-1], widths[1:], strict=True)
    return [(jax.random.normal(k, (a, b)) / jnp.sqrt(a), jnp.zeros(b)) for k, a, b in layers]


def run(net, x):
    (w, b), (v, c) = net
    return jax.nn.leaky_relu(x @ w + b) @ v + c


def encode(net, x):
    out = run(net, x)
    return out[..., :LATENT], jax.nn.softplus(out[..., LATENT:])


@ppl.model
def decoder(net):
    z = sample("z", dist.Normal(0.0, 1.0).expand([LATENT]))
    sample("x", dist.Bernoulli(logits=run(net, z)))


@ppl.model
def encoder(net, x):
    loc, scale = encode(net, x)
    sample("z", dist.Normal(loc, scale))


@expectation
def elbo(dec, enc, images):
    def one(x):
        choices, log_q = ppl.draw(encoder(enc, x))
        return (decoder(dec) | {"x": x}).log_density(choices) - log_q

    return jnp.mean(ppl.vmap(one)(images))


def by_hand(key, dec, enc, images):
    loc, scale = encode(enc, images)
    z = loc + scale * jax.random.normal(key, loc.shape)
    logits = run(dec, z)
    log_likelihood = jnp.sum(images * logits - jax.nn.softplus(logits), axis=-1)
    log_ratio = 0.5 * ((z - loc) / scale) ** 2 + jnp.log(scale) - 0.5 * z**2
    return jnp.mean(log_likelihood + jnp.sum(log_ratio, axis=-1))


def their_model(images):
    dec = numpyro.param("dec", network(jax.random.key(0), LATENT, HIDDEN, PIXELS))
    with numpyro.plate("images", len(images)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([LATENT]).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=run(dec, z)).to_event(1), obs=images)


def their_guide(images):
    enc = numpyro.param("enc", network(jax.random.key(1), PIXELS, HIDDEN, 2 * LATENT))
    loc, scale = encode(enc, images)
    with numpyro.plate("images", len(images)):
        numpyro.sample("z", dist.Normal(loc, scale).to_event(1))


def compiled(fn, *args):
    """`fn` for such arguments, and the seconds that it took."""
    begun = time.perf_counter()
    program = jax.jit(fn).lower(*args).compile()
    return program, time.perf_counter() - begun


def in_turn(both: dict, i: int) -> list:
    """The second first in odd rounds: who follows its twin finds the weights in the cache."""
    return list(both.items())[:: -1 if i % 2 else 1]


def timed(program, *args) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(program(*args))
    return time.perf_counter() - begun


def climbing(objective, optimizer):
    """Steps of Adam in one program."""

    def climb(key, nets, state, images):
        def step(carry, key):
            nets, state = carry
            slope = jax.grad(lambda nets: -objective(key, *nets, images))(nets)
            updates, state = optimizer.update(slope, state)
            return (optax.apply_updates(nets, updates), state), None

        return jax.lax.scan(step, (nets, state), jax.random.split(key, STEPS))[0]

    return climb


def measure(batch: int, rounds: int) -> list[str]:
    images = jnp.asarray(np.random.default_rng(0).random((batch, PIXELS)) < 0.3, jnp.float32)
    nets = network(jax.random.key(0), LATENT, HIDDEN, PIXELS), network(jax.random.key(1), PIXELS, HIDDEN, 2 * LATENT)
    key = jax.random.key(2)
    objectives = {"ours": elbo.estimate, "hand": by_hand}
    gradients = {name: jax.value_and_grad(fn, argnums=(1, 2)) for name, fn in objectives.items()}
    built = [
        {name: compiled(lambda *a, f=f: f(*a), key, *nets, images) for name, f in in_turn(gradients, i)}
        for i in range(COMPILES)
    ]
    programs = {name: program for name, (program, _) in built[0].items()}
    compile_seconds = np.array([[made[name][1] for name in ("ours", "hand")] for made in built])
    compile_ratios = np.quantile(compile_seconds[:, 0] / compile_seconds[:, 1], [0.25, 0.5, 0.75])

    optimizer = optax.adam(1e-3)
    state = optimizer.init(nets)
    climbs = {name: compiled(climbing(fn, optimizer), key, nets, state, images)[0] for name, fn in objectives.items()}
    svi = SVI(their_model, their_guide, numpyro.optim.Adam(1e-3), Trace_ELBO())
    start = svi.init(key, images)

    def their_climb(state, images):
        return jax.lax.scan(lambda state, _: (svi.update(state, images)[0], None), state, length=STEPS)[0]

    theirs = compiled(their_climb, start, images)[0]
    spent: dict[str, list[float]] = {name: [] for name in ("ours", "hand", "our step", "hand step", "their step")}
    for i in range(rounds):
        key_i = jax.random.fold_in(key, i)
        for name, program in in_turn(programs, i):
            spent[name].append(timed(program, key_i, *nets, images))
        spent["our step"].append(timed(climbs["ours"], key_i, nets, state, images) / STEPS)
        spent["hand step"].append(timed(climbs["hand"], key_i, nets, state, images) / STEPS)
        spent["their step"].append(timed(theirs, start, images) / STEPS)
    ratios = np.array(spent["ours"]) / np.array(spent["hand"])
    steps, most = (np.array(spent["their step"]) / np.array(spent[name]) for name in ("our step", "hand step"))
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return [
        str(batch),
        f"{1e3 * np.median(spent['ours']):.2f}",
        f"{1e3 * np.median(spent['hand']):.2f}",
        f"{middle:.2f} ({low:.2f}-{high:.2f})",
        f"{np.median(compile_seconds[:, 0]):.2f}",
        "{1:.2f} ({0:.2f}-{2:.2f})".format(*compile_ratios),
        f"{1e3 * np.median(spent['our step']):.2f}",
        f"{np.median(steps):.2f} ({np.quantile(steps, 0.25):.2f}-{np.quantile(steps, 0.75):.2f})",
        f"{np.median(most):.2f} ({np.quantile(most, 0.25):.2f}-{np.quantile(most, 0.75):.2f})",
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    compiled(partial(jnp.add, 1.0), jnp.zeros(()))  # what a first compilation alone must do
    header = ["batch", "gradient, ms", "by hand, ms", "ratio", "compile, s", "ratio", "step, ms"]
    header += ["NumPyro's step / ours", "NumPyro's step / by hand"]
    rows = []
    for batch in BATCHES:
        rows.append(measure(batch, args.rounds))
        print(" | ".join(rows[-1]), flush=True)
    note = (
        f"`python -m benchmarks.vae --rounds {args.rounds}`; float32; medians, in brackets the quartiles over rounds. "
        "Targets: at most 1.05 of the gradient by hand, 1.3 of its compile time, and 1.5 times NumPyro's steps a second. "
        + machine(("jax", "numpyro", "optax"))
    )
    if args.write:
        write("vae", "Gradients of a variational autoencoder", note, table(header, rows))


if __name__ == "__main__":
    main()
