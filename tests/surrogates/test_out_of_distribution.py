"""A network asked about another program than its own: is it seen, and by whom?

A net is trained on P. Data come from a mutated program Q, and `correct(Q | data, net.given(Q | data))` is asked. There are
two doors. The `Gate` compares data with those of P: it sees what moves the law of the data, whatever the answer. The weights
of the first rung compare the answer with the posterior of Q: they see what moves the posterior, whatever the data. Of d
deviations they leave a share exp(-d^2) of the draws; a tenth is asked for, so more than 1.5 are refused. Neither sees what the
other does: under a flipped sign the data have the same law, and where P is still what is asked its weights may all be well.
Together they are to stop 95 % of what matters, and let 93 % of P's own data pass.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
import surrogates as sur
from inference.smc.importance import smooth
from ppl import dist, sample
from surrogates.heads import Mixture

NUM, TRIALS, LEVEL = 10, 100, 0.02
FIRST = sur.ByImportance(1000, ess=100.0)


def normal(place):
    return dist.Normal(place, 1.0)


@ppl.model
def pair(noise, middle=0.0, order=(0, 1), sign=1.0):
    """Two means, each seen ten times; `noise` is the law of an entry, given its mean."""
    means = sample("a", dist.Normal(middle, 1.0)), sample("b", dist.Normal(5.0, 1.0))
    ppl.vmap(lambda _: sample("y", noise(sign * means[order[0]])))(jnp.arange(NUM))
    ppl.vmap(lambda _: sample("z", noise(means[order[1]])))(jnp.arange(NUM))


def wide(place):
    return dist.Normal(place, 3.0)


def contaminated(place):
    parts = dist.Normal(jnp.stack([place, place]), jnp.array([1.0, 10.0]))
    return dist.MixtureSameFamily(dist.Categorical(jnp.array([0.7, 0.3])), parts)


OWN = pair(normal)
# A posterior's deviation is 0.30. In brackets: how far the posterior moves, or the data, in their deviations under P.
MUTATED = {
    "noise": pair(wide),  # three times as large (the log of a deviation 4.7, and of both); the posterior is 2.3 times as wide
    "prior": pair(normal, middle=7.0),  # seven deviations off (the mean 6.7; the posterior 2.1)
    "swapped": pair(normal, order=(1, 0)),  # (the means 4.8 each; the posterior 15 each)
    "outliers": pair(contaminated),  # three in ten entries have ten times the deviation: 4.6 a data set lie beyond 3 of them
}
FLIPPED = pair(normal, sign=-1.0)  # (the data not at all; the posterior of a by six times |mean of y|)


def features(data):
    """Of each group: mean, log deviation, and log of the largest distance from the median; (6,)."""
    groups = [jnp.asarray(data[name]) for name in ("y", "z")]
    far = [jnp.log(jnp.abs(x - jnp.median(x)).max()) for x in groups]
    return jnp.stack([x.mean() for x in groups] + [jnp.log(x.std()) for x in groups] + far)


def simulated(program, seed, num):
    """Data of `num` simulations, and their features (num, 6)."""
    keys = jax.random.split(jax.random.key(seed), num)
    choices = jax.jit(jax.vmap(lambda key: program.simulate(key).choices))(keys)
    data = {name: choices[name] for name in ("y", "z")}
    return data, jax.jit(jax.vmap(features))(data)


@pytest.fixture(scope="module")
def net():
    told = OWN | {"y": jnp.zeros(NUM), "z": jnp.zeros(NUM)}
    return sur.neural_posterior(
        told, key=jax.random.key(0), steps=1000, batch=128, width=16, depth=2, heads=2, seeds=1, least=NUM,
        head=Mixture(2, 1), progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def gate():
    return sur.Gate.fit(simulated(OWN, 1, 8000)[1])


def refused(net, program, data):
    """Whether the first rung of `correct` would refuse each of the data sets: by the weights of as many draws of what it draws
    from, and its own limits."""

    @jax.jit
    def log_weights(net, data, keys):
        def one(data, key):
            asked = program | data
            reference = sur.Defensive(net.given(asked), asked, 0.05)
            traces = jax.vmap(reference.simulate)(jax.random.split(key, FIRST.num))
            return jax.vmap(asked.log_density)(traces.choices) - traces.log_density

        return jax.vmap(one)(data, keys)

    def bad(found):
        weights = np.exp(found - found.max())
        return weights.sum() ** 2 / (weights**2).sum() < FIRST.ess or not smooth(jnp.asarray(found))[1] <= FIRST.k

    return np.array([bad(found) for found in np.asarray(log_weights(net, data, jax.random.split(jax.random.key(9), TRIALS)))])


def stopped(net, gate, program, seed):
    """Data of `TRIALS` simulations; of each whether the gate flags it, and whether the weights refuse it."""
    data, told = simulated(program, seed, TRIALS)
    return data, np.asarray(gate(told) <= LEVEL), refused(net, program, data)


@pytest.mark.slow
def test_its_own_data_pass(net, gate):
    """The gate flags 2 %, within four errors, those of 2,000 fresh data sets and of 4,000 distances; both doors 7 of 100."""
    _, told = simulated(OWN, 2, 2000)
    assert abs(float((gate(told) <= LEVEL).mean()) - LEVEL) < 4.0 * np.sqrt(LEVEL * (1.0 - LEVEL) * (1 / 2000 + 1 / 4000))
    _, flagged, weighed = stopped(net, gate, OWN, 3)
    assert (flagged | weighed).mean() <= 0.07, (flagged.mean(), weighed.mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATED)
def test_a_mutated_program_is_refused(net, gate, name):
    _, flagged, weighed = stopped(net, gate, MUTATED[name], 4)
    assert (flagged | weighed).mean() >= 0.95, (flagged.mean(), weighed.mean())


@pytest.mark.slow
def test_what_no_data_can_tell_the_weights_do(net, gate):
    """A flipped sign, in the trials in which the posterior moves by more than two of its deviations: seven in ten. To the
    gate these are data as any (four errors)."""
    data, flagged, weighed = stopped(net, gate, FLIPPED, 5)
    assert flagged.mean() < LEVEL + 4.0 * np.sqrt(LEVEL * (1.0 - LEVEL) / TRIALS)
    moved = 2.0 * np.sqrt(NUM + 1.0) * np.abs(np.asarray(data["y"]).mean(1)) * NUM / (NUM + 1.0)
    assert (moved > 2.0).mean() > 0.5
    assert weighed[moved > 2.0].mean() >= 0.95, weighed[moved > 2.0].mean()


@pytest.mark.slow
def test_correct_asks_both(net, gate):
    """One data set each: its own is answered by the first rung, a flipped one by the second, larger noise is
    not weighed at all."""

    def ladder(program, seed, which):
        data, told = simulated(program, seed, TRIALS)
        i = which(data, np.asarray(gate(told)))
        asked = program | {name: x[i] for name, x in data.items()}
        rungs = (FIRST, sur.ByTempering(1000))
        found = sur.correct(
            asked, net.given(asked), key=jax.random.key(1), rungs=rungs, gate=lambda p: gate(features(p.data)) > LEVEL
        )
        return found.provenance["rung"], found.provenance["ladder"][0]["evaluations"]

    assert ladder(OWN, 3, lambda data, p: p.argmax()) == ("ByImportance", FIRST.num)
    far = lambda data, p: np.abs(np.asarray(data["y"]).mean(1) * (p > LEVEL)).argmax()  # noqa: E731
    assert ladder(FLIPPED, 5, far) == ("ByTempering", FIRST.num)
    assert ladder(MUTATED["noise"], 4, lambda data, p: p.argmin()) == ("ByTempering", 0)
