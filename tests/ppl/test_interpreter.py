"""The one ContextVar: restored after exceptions, right in threads, and in a program that runs inside another."""

import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist, sample
from ppl.interpreter import current

KEY = jax.random.key(0)


@ppl.model
def two(n):
    x = sample("x", dist.Normal(jnp.zeros(n), 1.0))
    return sample("y", dist.Normal(x.sum(), 1.0))


@ppl.model
def failing(fail):
    sample("x", dist.Normal(0.0, 1.0))

    def lane(i):
        sample("a", dist.Normal(0.0, 1.0))
        if fail:
            raise RuntimeError("from inside")

    ppl.vmap(lambda i: ppl.scan(lambda c, _: (c, lane(i)), 0.0, length=2))(jnp.arange(2))


@pytest.mark.parametrize("ask", [lambda p: p.simulate(KEY), lambda p: p.sites(), lambda p: jax.jit(p.simulate)(KEY)])
def test_restored_after_an_exception_deep_inside(ask):
    with pytest.raises(RuntimeError, match="from inside"):
        ask(failing(True))
    assert current() is None
    with pytest.raises(ValueError, match="outside a running program"):  # GenJAX 1.0 lets this stray site succeed
        sample("x", dist.Normal(0.0, 1.0))
    ask(failing(False))


def test_a_failure_inside_is_survived_by_the_program_around():
    @ppl.model
    def careful():
        with pytest.raises(RuntimeError):
            sample("bad", failing(True))
        return sample("good", two(2))

    trace = careful().simulate(KEY)
    assert set(trace.choices) == {"good"}


def test_threads_do_not_see_each_other():
    """Two programs simulated at once, each waiting for the other inside a site."""
    meet = threading.Barrier(2, timeout=30)

    @ppl.model
    def slow(n):
        x = sample("x", dist.Normal(jnp.zeros(n), 1.0))
        meet.wait()
        return x + sample("y", dist.Normal(1.0, 1.0))

    with ThreadPoolExecutor(2) as pool:
        traces = list(pool.map(lambda n: slow(n).simulate(KEY), (1, 2)))
    assert [t.choices["x"].shape for t in traces] == [(1,), (2,)]
    assert set(traces[0].choices) == {"x", "y"}


def test_many_threads_give_what_one_gives():
    program = two(3)
    keys = list(jax.random.split(KEY, 12))
    alone = [program.simulate(key).log_density for key in keys]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda key: program.simulate(key).log_density, keys))
    assert [float(a) for a in alone] == [float(b) for b in together]


def test_a_thread_started_by_a_model_is_outside_it():
    caught = []

    def elsewhere():
        try:
            sample("z", dist.Normal(0.0, 1.0))
        except ValueError as e:
            caught.append(str(e))

    @ppl.model
    def starts():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        sample("x", dist.Normal(0.0, 1.0))

    assert set(starts().simulate(KEY).choices) == {"x"}
    assert "outside a running program" in caught[0]


def test_a_program_asked_inside_another_leaves_no_sites():
    """A model may evaluate another program's density, or simulate it with a key of its own."""

    @ppl.model
    def uses():
        x = sample("x", dist.Normal(0.0, 1.0))
        inner = two(1)
        other = jax.vmap(lambda k: inner.simulate(k).choices["y"])(jax.random.split(KEY, 3))
        ppl.factor("tilt", inner.log_density({"x": jnp.zeros(1), "y": x}))
        return other

    trace = uses().simulate(KEY)
    assert set(trace.choices) == {"x"} and trace.retval.shape == (3,)
    x = trace.choices["x"]
    want = dist.Normal(0.0, 1.0).log_prob(jnp.array([x, 0.0, x])).sum()
    np.testing.assert_allclose(trace.log_density, want, rtol=1e-5)
    assert jnp.isfinite(jax.grad(lambda x: uses().log_density({"x": x}))(0.3))


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("vmap", lambda f: jax.vmap(f)(jnp.ones(2))),
        ("scan", lambda f: jax.lax.scan(lambda c, x: (c, f(x)), 0.0, jnp.ones(2))),
        ("map", lambda f: jax.lax.map(f, jnp.ones(2))),
        ("fori_loop", lambda f: jax.lax.fori_loop(0, 2, lambda i, x: f(x), 0.0)),
        ("while_loop", lambda f: jax.lax.while_loop(lambda x: x < 0, f, -1.0)),
        ("cond", lambda f: jax.lax.cond(True, f, f, 1.0)),
        ("switch", lambda f: jax.lax.switch(1, [f, f], 1.0)),
        ("jit", lambda f: jax.jit(f)(1.0)),
        ("grad", lambda f: jax.grad(f)(1.0)),
        ("value_and_grad", lambda f: jax.value_and_grad(f)(1.0)),
        ("jvp", lambda f: jax.jvp(f, (1.0,), (1.0,))),
        ("jacfwd", lambda f: jax.jacfwd(f)(1.0)),
        ("checkpoint", lambda f: jax.checkpoint(f)(1.0)),
        ("eval_shape", lambda f: jax.eval_shape(f, 1.0)),
        ("vectorize", lambda f: jnp.vectorize(f)(jnp.ones(2))),
    ],
)
@pytest.mark.parametrize("under_jit", [False, True])
def test_raw_transformations_around_a_site_are_named(name, raw, under_jit):
    @ppl.model
    def model():
        return raw(lambda x: x * sample("inside", dist.Normal(0.0, 1.0)))

    simulate = jax.jit(model().simulate) if under_jit else model().simulate
    with pytest.raises(ValueError, match="^site 'inside' lies inside a raw JAX transformation .* Use ppl.vmap"):
        simulate(KEY)


def test_raw_transformations_without_sites_are_fine():
    @ppl.model
    def model():
        x = sample("x", dist.Normal(jnp.zeros(3), 1.0))
        slope = jax.grad(lambda x: jnp.sum(jax.jit(jnp.sin)(x)))(x)
        total, _ = jax.lax.scan(lambda c, s: (c + s, None), 0.0, jax.vmap(jnp.exp)(slope))
        return sample("y", dist.Normal(total, 1.0))

    trace = model().simulate(KEY)
    np.testing.assert_allclose(model().log_density(trace.choices), trace.log_density, rtol=1e-6)
    assert jax.jit(model().simulate)(KEY).choices["y"].shape == ()
