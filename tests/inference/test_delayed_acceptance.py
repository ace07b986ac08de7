"""Delayed acceptance: draws are of the true posterior though a wrong surrogate proposes; bugs that are planted are found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from inference.mcmc import delayed_acceptance
from ppl import dist
from tests.inference.kernels import DIM, KERNELS, exact, metric, mover, surprise, target, wrong
from tests.inference.targets import SIGMA, Y, conjugate, schools


def moved(kernel, num=10_000):
    return mover(kernel, target(), 8)(jnp.asarray(exact(num), jnp.float32), jax.random.key(1))


def test_exact_draws_stay_exact():
    """A correct kernel fails once in 30,000; see kernels.py for what is compared."""
    proposing = inf.mixture([inf.Barker(1.0, metric(DIM)), inf.RandomWalk(0.8, metric(DIM))], [1, 1])
    positions, share, info = moved(inf.delayed_acceptance(proposing, wrong(DIM), 2))
    assert surprise(positions) > 1e-6 and float(share.mean()) > 0.1
    assert (info.num_evaluations == 1).all()


def test_a_surrogate_that_is_not_taken_out_is_found(monkeypatch):
    monkeypatch.setattr(delayed_acceptance, "correction", lambda there, here: 0.0)
    positions, *_ = moved(KERNELS["delayed_acceptance"].fixed(DIM))
    assert surprise(positions) < 1e-8


class Systematic(inf.Kernel):
    """Not reversible, and known to be by nobody."""

    init = step = lambda self, *given: None


class Declared(Systematic):
    reversible = True


@ppl.model
def other():
    ppl.sample("nu", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: inf.delayed_acceptance(inf.cycle(inf.NUTS(), inf.Slice()), conjugate()),
            r"must be reversible, and Cycle is not",
        ),
        (
            lambda: inf.delayed_acceptance(inf.repeat(Systematic(), 2), conjugate()),
            r"and Systematic is not known to be\. Give",
        ),
        (lambda: inf.delayed_acceptance(inf.NUTS(), 3), r"^a program or a target was expected, but got int"),
        (lambda: inf.delayed_acceptance(inf.NUTS(), conjugate(), 0), r"num must be a whole number of at least 1, got 0\.$"),
        (
            lambda: inf.mcmc(conjugate(), inf.delayed_acceptance(inf.NUTS(), other()), key=jax.random.key(0)),
            r"the same latent sites as the program.*The program has 'mu' \(\); the surrogate has 'nu' \(\)\.$",
        ),
    ],
)
def test_what_is_wrong_at_the_door_is_said(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_kernel_may_say_that_it_is_reversible():
    inf.delayed_acceptance(inf.adapted(inf.NUTS()), conjugate())
    inf.delayed_acceptance(Declared(), conjugate())


@pytest.mark.slow
def test_a_true_density_is_spent_once_a_step_and_a_better_surrogate_is_accepted_more_often():
    """Surrogates with rounded data, and with errors said to be half of what they are."""
    program = schools(SIGMA) | {"y": Y}

    def acceptance(surrogate):
        settings = {"draws": 300, "warmup": 300, "progress": False, "check": False, "placement": inf.Vectorized()}
        kernel = inf.delayed_acceptance(inf.mala(), surrogate, 3)
        posterior = inf.mcmc(program, kernel, key=jax.random.key(0), **settings)
        assert (posterior.stats["num_evaluations"] == 1).all()
        assert len(np.unique(posterior.stats["step_size_surrogate"])) == 4  # learned, then kept, by each chain
        return posterior.stats["acceptance_rate"].mean()

    close, far = schools(SIGMA) | {"y": jnp.round(Y, -1)}, schools(SIGMA / 2) | {"y": Y}
    assert acceptance(close) > 0.8 > acceptance(far) > 0.05


# -- several levels ------------------------------------------------------------------------------------------------------


def levels(num: int = 2):
    """The coarse surrogate is too wide, the fine one tilted and too narrow in some directions: neither is the law."""
    fine = ppl.Target.from_log_density(
        lambda c: -0.6 * jnp.sum(c["x"] ** 2) + 0.3 * jnp.sum(jnp.sin(c["x"])), {"x": jnp.zeros(DIM)}
    )
    return inf.delayed_acceptance(inf.delayed_acceptance(inf.RandomWalk(0.8, metric(DIM)), wrong(DIM), num), fine, 2)


def test_exact_draws_stay_exact_through_two_surrogates():
    positions, share, info = moved(levels())
    assert surprise(positions) > 1e-6 and float(share.mean()) > 0.1
    assert (info.num_evaluations == 1).all() and (info.num_evaluations_surrogate == 2).all()
    assert (info.num_evaluations_surrogate_surrogate == 4).all()  # of both moves together


def test_a_member_that_is_not_put_where_the_chain_is_is_found(monkeypatch):
    """After a rejection the coarse chain must begin where the fine one is, with the densities that belong there."""
    monkeypatch.setattr(delayed_acceptance, "placed", lambda state, here, surrogate: state)
    positions, *_ = moved(levels(num=1))
    assert surprise(positions) < 1e-8


def test_a_power_of_a_surrogate_proposes_too():
    positions, share, _ = moved(inf.delayed_acceptance(inf.RandomWalk(0.8, metric(DIM)), wrong(DIM), 2, power=0.5))
    assert surprise(positions) > 1e-6 and float(share.mean()) > 0.1
    with pytest.raises(ValueError, match=r"power must be a number from 0 to 1, got 1\.5\.$"):
        inf.delayed_acceptance(inf.NUTS(), conjugate(), power=1.5)


def test_it_takes_turns_with_other_kernels():
    """Its state has no gradient of the law, though the member's has one of the surrogate."""
    member = inf.delayed_acceptance(inf.mala(0.8, metric(DIM)), wrong(DIM), 2)
    positions, *_ = moved(inf.cycle(inf.RandomWalk(1.0, metric(DIM)), member), num=4000)
    assert surprise(positions) > 1e-6


@pytest.mark.slow
def test_members_of_members_learn():
    program = schools(SIGMA) | {"y": Y}
    fine, coarse = schools(SIGMA) | {"y": jnp.round(Y)}, schools(SIGMA) | {"y": jnp.round(Y, -1)}
    kernel = inf.delayed_acceptance(inf.delayed_acceptance(inf.mala(), coarse, 3), fine, 2)
    posterior = inf.mcmc(
        program, kernel, key=jax.random.key(0), draws=100, warmup=300, progress=False, check=False, placement=inf.Vectorized()
    )
    sizes = posterior.stats["step_size_surrogate_surrogate"]
    assert len(np.unique(sizes)) == 4 and posterior.stats["acceptance_rate"].mean() > 0.5
