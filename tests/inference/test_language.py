"""A language model as a program: scores steer it as incremental weights or as twists, and the limit is the exact posterior.

The model is a Markov chain of 8 tokens of 6 kinds, so that all is known by forward and backward sums. A published scheme
weighs particles by the *whole* score of what they have said, again at every step; its limit is another law. A second model,
with a hidden state, is enumerated sentence by sentence. Filters that are slow to decide, or look ahead, have the same limit.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inference as inf
import ppl
from inference.resampling import Resampler, Sorted, logmeanexp
from inference.smc.entropic import Entropic, early, entropic_filter, flattened_off
from inference.smc.extend import Extend
from inference.smc.loop import Method
from inference.smc.program_path import ByStep, ProgramPath
from inference.smc.resample import Resample
from inference.smc.step import sequence
from inference.smc.tempering_path import Tempering
from inference.steering import LookAhead, OnHost, Prefixes, Stateful, language_model
from inference.steering.speaker import in_groups
from ppl import dist, sample
from tests.inference.evidence import Case, assert_calibrated, assert_unbiased, runs

LENGTH, KINDS, PARTICLES = 8, 6, 50_000
rng = np.random.default_rng(0)
NEXT = rng.dirichlet(np.full(KINDS, 0.5), size=KINDS + 1)  # rows: the token before, or none
SCORE = rng.uniform(0.02, 1.0, size=KINDS)


def next_token(tokens, t):
    """log probabilities (KINDS,) of token number `t` after `tokens` (LENGTH,): what a language model is."""
    before = jnp.where(t == 0, KINDS, tokens[jnp.maximum(t - 1, 0)])
    return jnp.log(jnp.asarray(NEXT))[before]


def score(tokens, t):
    """log of the score of tokens 0 to t: a process reward."""
    said = jnp.arange(LENGTH) <= t
    return jnp.sum(jnp.where(said, jnp.log(jnp.asarray(SCORE))[tokens], 0.0))


@ppl.model
def scored_at_once():
    """Every token is scored when it is said."""
    ppl.scan(_say(lambda tokens, t: jnp.log(jnp.asarray(SCORE))[tokens[t]]), jnp.zeros(LENGTH, int), jnp.arange(LENGTH))


@ppl.model
def scored_at_the_end():
    """The whole is scored when it is complete; until then scores are only hints."""
    ppl.scan(
        _say(lambda tokens, t: jnp.where(t == LENGTH - 1, score(tokens, t), 0.0)), jnp.zeros(LENGTH, int), jnp.arange(LENGTH)
    )


def _say(weight):
    def step(tokens, t):
        tokens = tokens.at[t].set(sample("token", dist.Categorical(logits=next_token(tokens, t))))
        ppl.factor("score", weight(tokens, t))
        return tokens, None

    return step


def exact():
    """log evidence, and the marginals (LENGTH, KINDS)."""
    forward, backward = [NEXT[KINDS] * SCORE], [np.ones(KINDS)]
    for _ in range(LENGTH - 1):
        forward.append((forward[-1] @ NEXT[:KINDS]) * SCORE)
        backward.append(NEXT[:KINDS] @ (SCORE * backward[-1]))
    both = np.array(forward) * np.array(backward[::-1])
    return np.log(forward[-1].sum()), both / both.sum(axis=1, keepdims=True)


def off(posterior) -> np.ndarray:
    """Total variation between the marginal of each token and the exact one (LENGTH,)."""
    tokens = posterior["token"][0]
    shares = np.stack([np.bincount(tokens[:, t], minlength=KINDS) / len(tokens) for t in range(LENGTH)])
    return 0.5 * np.abs(shares - exact()[1]).sum(axis=1)


PREFIX = inf.particle_filter(twist=lambda tokens, t, data: score(tokens, t - 1))
METHODS = {
    "incremental weights": (scored_at_once, inf.particle_filter()),
    "a twist that is taken back": (scored_at_the_end, PREFIX),
}


@pytest.mark.parametrize("name", METHODS)
def test_steering_is_exact(name):
    model, method = METHODS[name]
    posterior = inf.smc(model(), method, key=jax.random.key(0), particles=PARTICLES, progress=False)
    assert off(posterior).max() < 0.01
    assert abs(posterior.log_evidence - exact()[0]) < max(5 * posterior.log_evidence_error, 0.005)


def test_whole_scores_applied_again_and_again_would_be_seen():
    """Planted: at every step the score of all that was said, in full."""

    @ppl.model
    def again():
        ppl.scan(_say(score), jnp.zeros(LENGTH, int), jnp.arange(LENGTH))

    posterior = inf.smc(
        again(), inf.particle_filter(), key=jax.random.key(0), particles=PARTICLES, progress=False, check=False
    )
    assert off(posterior).max() > 0.05


def test_particle_gibbs_over_sentences():
    posterior = inf.mcmc(
        scored_at_the_end(), inf.ParticleGibbs(particles=30, method=PREFIX), key=jax.random.key(0), chains=4, draws=2000,
        warmup=50, progress=False, check=False,
    )  # fmt: skip
    tokens = posterior["token"].reshape(-1, LENGTH)
    shares = np.stack([np.bincount(tokens[:, t], minlength=KINDS) / len(tokens) for t in range(LENGTH)])
    assert 0.5 * np.abs(shares - exact()[1]).sum(axis=1).max() < 0.04


# -- a model with a hidden state --------------------------------------------------------------------------------------------

WORDS, LONG, WIDTH = 5, 6, 4
draw = np.random.default_rng(1).normal
NET = [jnp.asarray(draw(size=size), jnp.float32) for size in ((WIDTH, WIDTH), (WORDS, WIDTH), (WIDTH, WORDS))]
PAIRS = jnp.asarray(draw(size=(WORDS, WORDS)), jnp.float32)
SENTENCES = np.array(list(itertools.product(range(WORDS), repeat=LONG)))


def after(hidden, token):
    mix, embed, out = NET
    hidden = jnp.tanh(mix @ hidden + embed[token])
    return jax.nn.log_softmax(1.5 * hidden @ out), hidden


FIRST = (jax.nn.log_softmax(jnp.arange(WORDS) / 4.0), jnp.zeros(WIDTH))


def after_prefix(tokens, num):
    """The same model, as a function of all that was said."""

    def body(i, at):
        return after(at[1], tokens[i])

    return jax.lax.fori_loop(0, num, body, FIRST)[0]


def pairs(tokens, num):
    return jnp.sum(jnp.where(jnp.arange(1, LONG) < num, PAIRS[tokens[:-1], tokens[1:]], 0.0))


@jax.jit
def log_joint(end, must_end):
    """log probability x score of all sentences (WORDS^LONG,); `end` is -1 where no token ends them."""

    def one(tokens):
        def say(so_far, token):
            (log_probs, hidden), total, ended = so_far
            total = total + jnp.where(ended, jnp.where(token == end, 0.0, -jnp.inf), log_probs[token])
            return (after(hidden, token), total, ended | (token == end)), ended

        (_, total, ended), before = jax.lax.scan(say, (FIRST, 0.0, jnp.array(False)), tokens)
        return jnp.where(ended | ~must_end, total + pairs(tokens, jnp.sum(~before)), -jnp.inf)

    return jax.lax.map(one, jnp.asarray(SENTENCES), batch_size=5000)


def away(tokens, log_p) -> float:
    """The largest total variation of a token of (num, LONG) from its exact law."""
    p = np.exp(log_p - np.logaddexp.reduce(log_p))
    found = [np.bincount(x, minlength=WORDS) / len(tokens) for x in tokens.T]
    exact = [np.bincount(x, weights=p, minlength=WORDS) for x in SENTENCES.T]
    return 0.5 * np.abs(np.array(found) - exact).sum(axis=1).max()


SPEAKERS = {
    "all are of full length": (Stateful(after, FIRST, at_once=20_000), {}, inf.particle_filter()),
    "some end early": (Prefixes(after_prefix, LONG, at_once=20_000), {"end": 0}, inf.particle_filter()),
    "all must end": (Stateful(after, FIRST), {"end": 0, "must_end": True}, entropic_filter(ess=0.9)),
}


@pytest.mark.parametrize("name", SPEAKERS)
def test_sentences_of_a_model_with_a_hidden_state(name):
    speaker, ends, method = SPEAKERS[name]
    program = language_model(speaker, LONG, score=pairs, **ends)
    log_p = np.asarray(log_joint(ends.get("end", -1), ends.get("must_end", False)), float)
    runs = [inf.smc(program, method, key=jax.random.key(i), particles=PARTICLES, progress=False) for i in range(1, 9)]
    assert np.mean([away(run["token"][0], log_p) for run in runs]) < 0.01  # of one run it varies by .0013
    posterior = runs[0]
    assert abs(posterior.log_evidence - np.logaddexp.reduce(log_p)) < 5 * posterior.log_evidence_error
    assert posterior.log_evidence_error < 0.02


def test_a_hint_changes_who_lives_and_nothing_else():
    log_p = np.asarray(log_joint(-1, False), float)
    program = language_model(Stateful(after, FIRST), LONG, score=pairs, hint=lambda tokens, num: -0.5 * pairs(tokens, num))
    assert_unbiased(inf.particle_filter(), Case(program, np.logaddexp.reduce(log_p)), particles=200, num=100)


def test_the_density_of_a_sentence_is_exact():
    program = language_model(Stateful(after, FIRST), LONG, score=pairs, end=0, must_end=True)
    log_p = np.asarray(log_joint(0, True))
    some = np.flatnonzero(log_p > -np.inf)[::500]
    found = jax.jit(jax.vmap(lambda tokens: program.log_density({"token": tokens})))(SENTENCES[some])
    np.testing.assert_allclose(found, log_p[some], atol=1e-4)


@pytest.mark.slow
def test_a_model_on_the_host_is_asked_for_unfinished_sentences_alone():
    asked = []

    def host(prefixes):
        asked.extend(prefixes)
        out = []
        for prefix in prefixes:
            hidden, logits = np.zeros(WIDTH), np.arange(WORDS) / 4
            for token in prefix:
                hidden = np.tanh(np.asarray(NET[0]) @ hidden + np.asarray(NET[1])[token])
                logits = 1.5 * hidden @ np.asarray(NET[2])
            out.append(logits)
        return out

    program = language_model(OnHost(host, LONG), LONG, score=pairs, end=0)
    inside = language_model(Stateful(after, FIRST), LONG, score=pairs, end=0)
    asked.clear()
    settings = {"key": jax.random.key(0), "particles": 100, "progress": False, "check": False}
    outside, known = inf.smc(program, inf.particle_filter(), **settings), inf.smc(inside, inf.particle_filter(), **settings)
    np.testing.assert_allclose(outside.log_evidence, known.log_evidence, atol=1e-3)
    assert all(0 not in prefix for prefix in asked if len(prefix))
    assert 100 < sum(len(prefix) > 0 for prefix in asked) < 100 * (LONG - 1)


def test_groups_of_finished_sentences_are_left_out():
    seen = []

    def noted(state, token):
        jax.debug.callback(lambda state: seen.append(int(state)), state)
        return jnp.zeros(2) + token, state + 1

    silent = jnp.asarray(np.random.default_rng(0).uniform(size=50) < 0.7)
    states, tokens = jnp.arange(50), jnp.arange(50) % 3
    log_probs, new = jax.jit(partial(in_groups, noted, 8, like=(jnp.zeros(2), jnp.int32(0))))(silent, states, tokens)
    jax.effects_barrier()
    speaking = np.flatnonzero(~silent)
    assert set(speaking) <= set(seen)
    assert len(seen) == -(-len(speaking) // 8) * 8
    np.testing.assert_array_equal(new[speaking], speaking + 1)
    np.testing.assert_array_equal(log_probs[speaking, 0], speaking % 3)


# -- slow to decide, and looking ahead --------------------------------------------------------------------------------------

STEPS = 8
STAY = np.array([[0.999, 0.001], [0.001, 0.999]])
PLEASES = np.array([[1.0, 0.6]] * (STEPS - 1) + [[0.01, 1.0]])  # state 0 does early on, and fails at the end


@ppl.model
def trap():
    def step(z, now):
        first, log_score = now
        logits = jnp.where(first, jnp.zeros(2), jnp.log(jnp.asarray(STAY))[z])
        z = sample("z", dist.Categorical(logits=logits))
        ppl.factor("score", log_score[z] + jnp.log(sample("noise", dist.Uniform(0.0, 2.0))))
        return z, None

    ppl.scan(step, jnp.array(0), (jnp.arange(STEPS) == 0, jnp.log(jnp.asarray(PLEASES))))


def ahead() -> np.ndarray:
    """(STEPS, 2): the expected weight of all that is to come after each step, by state."""
    out = [np.ones(2)]
    for pleases in PLEASES[:0:-1]:
        out.insert(0, STAY @ (pleases * out[0]))
    return np.array(out)


TRAP = Case(trap(), float(np.log(0.5 * PLEASES[0] @ ahead()[0])))


@pytest.mark.slow
def test_flattened_resampling_is_unbiased_and_knows_its_error():
    method = entropic_filter(ess=0.9, temperature=partial(early, until=0.9))
    assert_unbiased(method, TRAP, particles=100, num=200)
    found, error = runs(method, TRAP.program, 1000, 100, seed=1)
    assert_calibrated((found - TRAP.exact) / error)


def test_flattened_resampling_knows_the_particles_as_they_are():
    """A resampler that looks at the particles."""
    method = entropic_filter(ess=0.9, resampler=Sorted(inf.Systematic(), by=lambda walker: walker.carry))
    posterior = inf.smc(TRAP.program, method, key=jax.random.key(0), particles=5000, progress=False, check=False)
    assert abs(posterior.log_evidence - TRAP.exact) < 4 * posterior.log_evidence_error < 0.5


class Published(Resampler):
    """Planted: flattened weights choose, and what was taken off them is forgotten."""

    def __call__(self, key, particles, log_weights, num=None):
        new = inf.Systematic()(key, particles, log_weights - flattened_off(log_weights, 3.0), num)
        return new._replace(log_weights=jnp.full_like(new.log_weights, logmeanexp(log_weights)))

    def pinned(self, key, particles, log_weights, num=None, *, pin=0):
        raise NotImplementedError


def test_flattening_that_is_not_made_good_would_be_seen():
    method = Method(ByStep(), sequence(Resample(Published()), Extend()))
    with pytest.raises(AssertionError):
        assert_unbiased(method, TRAP, particles=100, num=400)


SEEING = inf.particle_filter(twist=LookAhead(12, steps=STEPS))


@pytest.mark.slow
def test_looking_ahead_is_exact_and_sees_the_trap():
    blind, seeing = (np.exp(runs(m, TRAP.program, 20, 200)[0] - TRAP.exact) for m in (inf.particle_filter(), SEEING))
    assert abs(seeing.mean() - 1) < 3 * seeing.std() / np.sqrt(len(seeing))
    assert seeing.std() < 0.75 * blind.std()


def test_a_look_ahead_that_is_not_taken_back_would_be_seen(monkeypatch):
    """Planted: the twist of the step before is forgotten."""
    step = ProgramPath.step

    def forgetful(self, key, t, walker, given=None):
        return step(self, key, t, walker._replace(log_twist=jnp.zeros_like(walker.log_twist)), given)

    monkeypatch.setattr(ProgramPath, "step", forgetful)
    with pytest.raises(AssertionError):
        assert_unbiased(inf.particle_filter(twist=LookAhead(2)), TRAP, particles=20, num=100)


UNTIMED = Method(Tempering(), Entropic(inf.Systematic()))
WRONG = {
    "a share above one": (lambda: Entropic(inf.Systematic(), ess=1.5), "between 0 and 1, got 1.5"),
    "no known length": (lambda: inf.smc(trap(), UNTIMED, key=jax.random.key(0)), "length of"),
    "no successors": (lambda: LookAhead(0), "num must be a whole number of at least 1, got 0"),
    "none may fare badly": (lambda: LookAhead(least=0.0), "between 0 and 1, got 0.0"),
    "in particle Gibbs": (
        lambda: inf.mcmc(
            scored_at_once(), inf.ParticleGibbs(method=inf.particle_filter(twist=LookAhead())), key=jax.random.key(0),
            draws=2, warmup=0, chains=1, progress=False,
        ),
        "serves smc alone",
    ),
    "no speaker": (lambda: language_model(after, 3).sites(), "Stateful.*got function"),
    "a next token of other kinds": (
        lambda: language_model(Stateful(lambda state, token: (jnp.zeros(4), state), (jnp.zeros(3), ())), 4).sites(),
        r"first token have shape \(3,\), but those of the next \(4,\)",
    ),
    "a temperature that is no function": (lambda: entropic_filter(temperature=2.0), r"a function of .*, got 2\.0"),
    "no length": (lambda: language_model(Stateful(after, FIRST), 0).sites(), "at least 1, got 0"),
    "two lengths": (lambda: language_model(Prefixes(after_prefix, 6), 4).sites(), "made for sentences of 6"),
    "no such end": (lambda: language_model(Stateful(after, FIRST), 4, end=9).sites(), "0 to 4, got 9"),
    "ends without an end": (lambda: language_model(Stateful(after, FIRST), 4, must_end=True).sites(), "give end"),
    "a host that says too little": (lambda: OnHost(lambda prefixes: [0.1, 0.9], 4), r"returned shape \(2,\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_a_sentence(name):
    call, words = WRONG[name]
    with pytest.raises(ValueError, match=words):
        call()
