"""Distribution Transformers for one latent number, against quadrature: a variance, a parameter of a qubit, a length scale.

- *variance* (Whittle et al., section 4.1): v ~ InverseGamma(alpha, beta), z ~ Normal(0, sqrt v), one z. Both parameters are
  drawn from InverseGamma(4, 6) (wide) or InverseGamma(10000, 20000) (narrow).
- *qubit* (section 4.2.2, figure 5): a qubit with the Hamiltonian delta X + (1 - delta) Z starts in the state 0, and is
  measured at ten times. delta ~ Beta(a, b), both drawn from InverseGamma(4, 6).
- *length scale* (section 4.2.1, table 2): a Gaussian process in five dimensions with five points. ell ~ InverseGamma(a, b), a
  uniform in [100, 105] and b in [100, 700]. Besides its posterior, what is predicted at a sixth point.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ppl
import surrogates as sur
from benchmarks.dt_oracles import best_mixture, mean_and_error, quadrature
from ppl import dist, sample

RUNS, POINTS, INPUTS, JITTER = 10, 5, 5, 1e-4


@ppl.model
def two_parameters(a, b):
    return sample("alpha", dist.InverseGamma(a, b)), sample("beta", dist.InverseGamma(a, b))


@ppl.model
def variance(prior):
    v = sample("v", dist.InverseGamma(*prior))
    sample("z", dist.Normal(0.0, jnp.sqrt(v)))


@ppl.model
def qubit(prior):
    delta = sample("delta", dist.Beta(*prior))
    omega = jnp.sqrt(delta**2 + (1.0 - delta) ** 2)

    def measured():
        time = sample("time", dist.Uniform(0.0, 2.0 * jnp.pi))
        chance = (delta / omega * jnp.sin(omega * time)) ** 2
        sample("flipped", dist.Bernoulli(probs=jnp.clip(chance, 1e-6, 1.0 - 1e-6)))

    ppl.vmap(measured, axis_size=RUNS)()


@ppl.model
def of_scales():
    return sample("a", dist.Uniform(100.0, 105.0)), sample("b", dist.Uniform(100.0, 700.0))


def covariance(ell, x):
    squared = jnp.sum((x[:, None] - x) ** 2, -1)
    return jnp.exp(-0.5 * squared / ell**2) + JITTER * jnp.eye(len(x))


@ppl.model
def surface(prior):
    ell = sample("ell", dist.InverseGamma(*prior))
    x = sample("x", dist.Uniform(0.0, 5.0).expand([POINTS, INPUTS]).to_event(2))
    sample("y", dist.MultivariateNormal(jnp.zeros(POINTS), covariance(ell, x)))


class Task(NamedTuple):
    """What a network learns; `ends`: positions between which all of a posterior is."""

    model: Any
    priors: Any
    data: tuple[str, ...]
    rows: tuple[str, ...]
    ends: tuple[float, float]
    asked: float
    published: str
    steps: int


WIDE, NARROW = two_parameters(4.0, 6.0), two_parameters(10_000.0, 20_000.0)
TASKS = {
    "variance, wide": Task(variance, WIDE, ("z",), (), (-12.0, 40.0), 1e-3, "0.0003", 8000),
    "variance, narrow": Task(variance, NARROW, ("z",), (), (-5.0, 15.0), 1e-3, "0.0004", 1500),
    "qubit": Task(qubit, WIDE, ("time", "flipped"), ("time", "flipped"), (-25.0, 25.0), 5e-3, "", 12000),
    "length scale": Task(surface, of_scales(), ("x", "y"), ("x", "y"), (-2.0, 4.0), 1e-2, "", 4000),
}


def trained(task: Task, *, key, steps: int, **settings: Any) -> sur.DistributionTransformer:
    """A network for a task, of width 32 and depth 2."""
    settings = {"batch": 128, "width": 32, "depth": 2, "progress": False} | settings
    if task.rows:
        settings["least"] = RUNS if task.model is qubit else POINTS
    return sur.distribution_transformer(
        task.model, priors=task.priors, data=task.data, rows=task.rows, hidden=0.0, key=key, steps=steps, **settings
    )


def under(net: sur.DistributionTransformer, task: Task) -> sur.DistributionTransformer:
    """The same network, to be tried on cases of another task's priors."""
    return eqx.tree_at(lambda net: net.cases.priors, net, task.priors)


def gaps(task: Task, net: sur.DistributionTransformer, key, num: int) -> np.ndarray:
    """KL(exact || network) and KL(exact || prior) of `num` cases drawn by the task's priors, (num, 2)."""

    @jax.jit
    def run(net, keys):
        def one(key):
            case = net.cases.simulate(key).choices
            prior, data = case["prior"], case["data"]
            there = quadrature(task.model(prior) | data, *task.ends)
            of_prior = ppl.as_target(task.model(prior) | data)
            before = jax.vmap(lambda x: _log_prior(of_prior, x))(there.positions) + jnp.log(there.step)
            gap = jnp.sum(jnp.exp(there.log_probs) * (there.log_probs - before))
            return there.kl(net.net.law(prior, data)), gap

        return jax.lax.map(one, keys, batch_size=50)

    return np.stack(run(net, jax.random.split(key, num)), -1)


def _log_prior(target, x):
    """The prior's log density of a position (): that of the posterior's target, without what the data say."""
    choices = target.constrain(x[None])
    said = target.program.log_likelihoods(choices)
    return target.log_density(x[None]) - sum(jnp.sum(each) for each in said.values())


def floor(task: Task, key, num: int, components: int = 5) -> float:
    """The mean KL of the best mixtures, over `num` cases."""

    def one(key):
        key_prior, key_data = jax.random.split(key)
        trace = task.priors.simulate(key_prior)
        program = task.model(task.priors.retval(trace.choices))
        choices = program.simulate(key_data).choices
        there = quadrature(program | {name: choices[name] for name in task.data}, *task.ends)
        return best_mixture(there, components)

    return float(jnp.mean(jax.jit(jax.vmap(one))(jax.random.split(key, num))))


def predicted(net: sur.DistributionTransformer, key, num: int) -> tuple[float, float, float, float]:
    """Of the Gaussian process, at a sixth point: the mean log score of the network's length scales negated, of the exact ones,
    their gap, and the gap's standard error."""

    @jax.jit
    def run(net, keys):
        def one(key):
            key_case, key_x, key_y = jax.random.split(key, 3)
            case = net.cases.simulate(key_case).choices
            prior, x, y = case["prior"], case["data"]["x"], case["data"]["y"]
            there = quadrature(surface(prior) | case["data"], *TASKS["length scale"].ends)
            points = jnp.concatenate([x, jax.random.uniform(key_x, (1, INPUTS), maxval=5.0)])

            def law(ell):
                k = covariance(ell, points)
                with jax.default_matmul_precision("highest"):
                    weights = jnp.linalg.solve(k[:-1, :-1], k[:-1, -1])
                    return dist.Normal(weights @ y, jnp.sqrt(jnp.maximum(k[-1, -1] - weights @ k[:-1, -1], JITTER)))

            new = law(jnp.exp(case["position"][0])).sample(key_y)
            each = jax.vmap(lambda position: law(jnp.exp(position)).log_prob(new))(there.positions)
            said = jax.nn.log_softmax(there.log_weights(net.net.law(prior, case["data"])))
            return -jax.nn.logsumexp(said + each), -jax.nn.logsumexp(there.log_probs + each)

        return jax.lax.map(one, keys, batch_size=50)

    ours, exact = (np.asarray(x, np.float64) for x in run(net, jax.random.split(key, num)))
    return float(ours.mean()), float(exact.mean()), *mean_and_error(ours - exact)
