"""Each law can fail: a bug planted in the interpreter that it guards makes it raise."""

from functools import cache

import jax
import jax.numpy as jnp
import pytest

import ppl
from ppl import distributions, interpreters
from ppl.interpreter import Inputs, Interpreter

from . import laws
from .models import CASES


@cache
def good(name: str) -> laws.Run:
    return laws.simulate(CASES[name])


def must_fail(law, *args):
    with pytest.raises(AssertionError):
        law(*args)


def test_a_density_counted_twice(monkeypatch, x64):
    add = Interpreter.add
    monkeypatch.setattr(Interpreter, "add", lambda self, kind, value: add(self, kind, 1.001 * value))
    must_fail(laws.density_is_the_oracles, laws.simulate(CASES["plain"]))


def test_a_density_that_is_no_scalar(monkeypatch, x64):
    monkeypatch.setattr(ppl.interpreter.jnp, "sum", lambda x, axis=None: x)
    with pytest.raises((AssertionError, TypeError, ValueError)):
        laws.density_is_the_oracles(laws.simulate(CASES["batch and event shapes"]))


def test_the_average_over_a_plate_in_place_of_its_sum(monkeypatch, x64):
    def absorb(self, record, label, length):
        totals = record.totals if length is None else {k: jnp.mean(v, axis=0) for k, v in record.totals.items()}
        self.parent.absorb(ppl.interpreter.Record(record.trees, totals), ppl.interpreter.within(self.table, label, length))

    monkeypatch.setattr(ppl.interpreter.Pure, "absorb", absorb)
    must_fail(laws.density_is_the_oracles, laws.simulate(CASES["scan"]))


def test_nested_plates_transposed(monkeypatch, x64):
    """GenJAX 1.0 hands the lanes of an inner plate to the outer one; with as many of each nothing crashes."""

    def lanes(self, length):
        swap = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1) if jnp.ndim(x) > 1 else x, self.given)
        keys = None if self.key is None else jax.vmap(jax.random.fold_in, (None, 0))(self.key, jnp.arange(length))
        return Inputs(keys, given=ppl.choices.lanes(swap, length))

    run = laws.simulate(CASES["vmap of vmap"])
    monkeypatch.setattr(Inputs, "lanes", lanes)
    must_fail(laws.density_is_the_oracles, run)


def test_a_key_that_depends_on_the_order_of_sites(monkeypatch, x64):
    run = laws.simulate(CASES["plain"])
    counter = iter(range(100))
    monkeypatch.setattr(interpreters, "fold_name", lambda key, name: jax.random.fold_in(key, next(counter)))
    must_fail(laws.runs_agree, run)


def test_given_choices_that_are_ignored(monkeypatch, x64):
    class Deaf(interpreters.Generate):
        def latent(self, site):
            return interpreters.draw_site(self, site)

    monkeypatch.setattr(ppl.program, "Generate", Deaf)
    must_fail(laws.generate_brackets, good("plain"))


def test_a_weight_of_what_was_drawn(monkeypatch, x64):
    """GenJAX 0.10 divided fresh choices out wrongly; here they are weighed."""

    class Greedy(interpreters.Generate):
        def latent(self, site):
            value = super().latent(site)
            if site.name not in self.inputs.given:
                self.add("log_weight", jnp.sum(distributions.log_prob(site.distribution, value)))
            return value

    monkeypatch.setattr(ppl.program, "Generate", Greedy)
    must_fail(laws.generate_brackets, good("coins"))
    must_fail(laws.generate_is_unbiased, good("coins").program, CASES["coins"].exact)


def test_noise_shared_by_the_lanes_of_a_plate(monkeypatch, x64):
    """Lanes that share a key keep the density right and the weights' mean too; only what is estimated jointly is off."""

    def lanes(self, length):
        keys = None if self.key is None else jnp.broadcast_to(self.key, (length,))
        return Inputs(keys, *(ppl.choices.lanes(tree, length) for tree in self[1:]))

    monkeypatch.setattr(Inputs, "lanes", lanes)
    must_fail(laws.generate_is_unbiased, CASES["mixture"].make(), CASES["mixture"].exact)


def test_data_that_are_not_fixed(monkeypatch, x64):
    with monkeypatch.context() as patch:
        patch.setattr(ppl.program.Program, "_with", lambda self, **changes: self)
        with pytest.raises((AssertionError, ValueError)):
            laws.conditioning_is_fixing(good("plain"))


@pytest.mark.parametrize("name", ["plain", "supports, one of them random", "rows of events with holes"])
def test_a_jacobian_left_out(monkeypatch, x64, name):
    add = Interpreter.add
    monkeypatch.setattr(Interpreter, "add", lambda self, k, v: add(self, k, 0.0 * v if k == "log_jacobian" else v))
    must_fail(laws.change_of_variables, good(name))


def test_a_jacobian_that_counts_data(monkeypatch, x64):
    """The entries of partial data that are known have no Jacobian."""
    monkeypatch.setattr(interpreters, "_match", lambda missing, like: jnp.ones(like.shape, bool))
    must_fail(laws.change_of_variables, good("rows of events with holes"))


def test_a_gradient_that_stops(monkeypatch, x64):
    bijector = interpreters.distributions.log_prob_inside
    monkeypatch.setattr(interpreters.distributions, "log_prob_inside", lambda d, v: bijector(d, jax.lax.stop_gradient(v)))
    must_fail(laws.gradients_are_right, good("plain"))


def test_a_table_that_forgets_the_plate(monkeypatch, x64):
    monkeypatch.setattr(ppl.interpreter, "within", lambda table, label, length: table)
    must_fail(laws.table_is_the_traces, laws.Run(CASES["vmap"].make(), *good("vmap")[1:]))
