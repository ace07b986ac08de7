"""Who is computed from whom, and the Mermaid text that draws it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist, sample


def normal(name, loc=0.0, scale=1.0):
    return sample(name, dist.Normal(loc, scale))


@ppl.model
def schools():
    mu, tau = normal("mu"), sample("tau", dist.HalfNormal(1.0))

    def school(s):
        return normal("y", normal("theta", mu, tau), s)

    return ppl.vmap(school)(jnp.ones(3))


def test_a_plate():
    assert ppl.parents(schools()) == {"mu": set(), "tau": set(), "theta": {"mu", "tau"}, "y": {"theta"}}


@pytest.mark.parametrize("data", [{"y": np.ones(3)}, {"theta": np.ones(3)}, {"y": np.ma.masked_array(np.ones(3), [0, 1, 0])}])
def test_data_keep_their_edges(data):
    assert ppl.parents(schools() | data) == ppl.parents(schools())


def test_a_chain_depends_on_itself():
    @ppl.model
    def walk(q):
        r = sample("r", dist.HalfNormal(1.0))
        unused = normal("unused")

        def step(carry, _):
            z, w = carry
            z = normal("z", z, q)
            normal("y", z, r)
            return (z, w), unused

        return ppl.scan(step, (0.0, unused), length=4)

    assert ppl.parents(walk(1.0)) == {"r": set(), "unused": set(), "z": {"z"}, "y": {"z", "r"}}


def test_a_carry_reaches_the_steps_after():
    @ppl.model
    def lagged():
        def step(carry, _):
            new, old = carry
            a = normal("a")
            normal("late", old)
            return (a, new), None

        ppl.scan(step, (0.0, 0.0), length=5)

    assert ppl.parents(lagged()) == {"a": set(), "late": {"a"}}


def test_branches_depend_on_the_predicate():
    @ppl.model
    def model():
        z, u, v = normal("z"), normal("u"), normal("v")
        x = ppl.cond(z > 0, lambda: normal("x", u), lambda: normal("x", v) + normal("w"))
        normal("y", x)

    edges = ppl.parents(model())
    assert edges["x"] == {"z", "u", "v"} and edges["w"] == {"z"}
    assert {"x", "w", "z"} <= edges["y"]


def test_deterministic_sites_stand_between():
    @ppl.model
    def model():
        a = normal("a")
        b = ppl.deterministic("b", jnp.exp(a))
        c = ppl.deterministic("c", b + 1)
        ppl.factor("f", -c)
        normal("y", b)

    assert ppl.parents(model()) == {"a": set(), "b": {"a"}, "c": {"b"}, "f": {"c"}, "y": {"b"}}


def test_nested_programs_and_calls():
    @ppl.model
    def inner(m):
        x = normal("x", m)
        return ppl.call("solve", jnp.sin, x)

    @ppl.model
    def outer():
        m = normal("m")
        values = ppl.vmap(lambda i: sample("sub", inner(m)))(jnp.arange(2))
        other = sample("other", inner(0.0))
        normal("y", values.sum() + other)

    edges = ppl.parents(outer())
    assert edges["sub.x"] == {"m"} and edges["other.x"] == set() and edges["y"] == {"sub.x", "other.x"}


def test_jitted_and_differentiated_helpers_are_seen_through():
    @jax.jit
    def helper(a, b):
        return jnp.sin(a), jnp.cos(b)

    @ppl.model
    def model():
        a, b = normal("a"), normal("b")
        one, _ = helper(a, b)
        normal("x", one)
        normal("y", jax.grad(lambda b: jax.nn.softplus(b) ** 2)(b))
        normal("z", jax.checkpoint(jnp.sin)(a))
        normal("w", jax.nn.relu(b))  # a custom derivative

    edges = ppl.parents(model())
    assert [edges[name] for name in "xyzw"] == [{"a"}, {"b"}, {"a"}, {"b"}]


def test_supports_and_scales_are_parents_too():
    @ppl.model
    def model():
        s = sample("s", dist.HalfNormal(1.0))
        sample("u", dist.Uniform(0.0, s))
        sample("k", dist.Categorical(jax.nn.softmax(s * jnp.ones(3))))

    assert ppl.parents(model()) == {"s": set(), "u": {"s"}, "k": {"s"}}


def test_reparameterised_sites():
    edges = ppl.parents(schools().reparam({"theta": ppl.NonCentered()}))
    assert edges["theta_base"] == set() and edges["theta"] == {"mu", "tau", "theta_base"} and edges["y"] == {"theta"}


# -- Mermaid ---------------------------------------------------------------------------------------------------------------


def parse(text):
    """A small reader of flowcharts: nodes by id, edges, and boxes that open and close in balance."""
    nodes, edges, depth, deepest = {}, set(), 0, 0
    lines = [line.strip() for line in text.splitlines()]
    assert lines[0] == "flowchart TD"
    for line in lines[1:]:
        if match := re.fullmatch(r'subgraph (p\d+)\["([^"]+)"\]', line):
            depth += 1
            deepest = max(deepest, depth)
        elif line == "end":
            depth -= 1
            assert depth >= 0
        elif match := re.fullmatch(r"(s\d+) --> (s\d+)", line):
            edges.add(match.groups())
        elif match := re.fullmatch(r'(s\d+)[\[(]+"([^"<]+)(<br/><i>[\w |]+</i>)?"[\])]+', line):
            assert match[1] not in nodes
            nodes[match[1]] = match[2]
        else:
            assert re.fullmatch(r"classDef \w+ [\w:,# -]+|class [s\d,]+ \w+", line), line
    assert depth == 0 and all(a in nodes and b in nodes for a, b in edges)
    return {(nodes[a], nodes[b]) for a, b in edges}, set(nodes.values()), deepest


def test_the_text_of_eight_schools():
    edges, nodes, deepest = parse((schools() | {"y": jnp.ones(3)}).graph())
    assert (
        edges == {("mu", "theta"), ("tau", "theta"), ("theta", "y")} and nodes == {"mu", "tau", "theta", "y"} and deepest == 1
    )
    assert 'subgraph p0["vmap × 3"]' in schools().graph()
    assert "class s3 observed" in (schools() | {"y": jnp.ones(3)}).graph()


def test_boxes_in_boxes_and_every_kind():
    @ppl.model
    def model():
        k = sample("k", dist.Bernoulli(0.5))
        ppl.vmap(
            lambda i: ppl.scan(lambda z, _: (normal("z", z), ppl.vmap(lambda j: normal("w"))(jnp.arange(2))), 0.0, length=3)
        )(jnp.arange(4))
        sample("sub", schools())
        ppl.cond(k == 1, lambda: normal("only"), lambda: 0.0)
        ppl.deterministic("d", 1.0 * k)
        ppl.factor("f", 1.0 * k)
        ppl.call("c", jnp.sin, 1.0)

    edges, nodes, deepest = parse(model().intervene({"sub.mu": 0.0}).graph())
    assert nodes == {"k", "z", "w", "sub.mu", "sub.tau", "sub.theta", "sub.y", "only", "d", "f"} and deepest == 3
    assert ("z", "z") in edges and ("k", "only") in edges and ("sub.mu", "sub.theta") in edges


def test_a_program_without_sites():
    assert parse(ppl.model(lambda: 1)().graph()) == (set(), set(), 0)
