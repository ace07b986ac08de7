"""A language model as a program: its sentences are scored while they are said, and the posterior is exact in the limit.

```python
speaker = Stateful(next=lambda state, token: ..., first=(log_probs, state))     # or Prefixes(fn, ...), or OnHost(fn, ...)
program = language_model(speaker, length=20, score=score, end=0)
posterior = inf.smc(program, inf.particle_filter(), key=key, particles=1000)
posterior["token"], posterior.log_evidence                                      # (1, particles, 20)
```
The target is

    p(tokens) x exp(score(tokens, num)),

with `num` the number of tokens said. On the way a sentence is weighed by what its score has changed since the last token, so
that it is never counted twice (Zhao et al., ICML 2024, arXiv:2404.17546; Lew et al., 2023, arXiv:2306.03081). A scheme that
weighs by the whole score again at every step has another limit.

Who has said `end` says nothing more, weighs nothing more, and is not evaluated any more.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import ppl
from ppl import dist, factor, sample

from .speaker import Speaker, spoken


class Sentence(NamedTuple):
    """What was said so far, as the program's loop carries it, and proposals and twists see it.

    - `tokens`: (length,), zero where nothing was said yet. `num`: how many there are, `end` counted.
    - `ended`: whether `end` was said.
    - `log_probs`: (kinds,), of the next token; zeros once `ended`. `state`: the speaker's.
    - `log_score`: of what was said.
    """

    tokens: jax.Array
    num: jax.Array
    ended: jax.Array
    log_probs: jax.Array
    log_score: jax.Array
    state: Any


@ppl.model
def language_model(
    speaker: Speaker,
    length: int,
    *,
    score: Callable | None = None,
    hint: Callable | None = None,
    end: int | None = None,
    must_end: bool = False,
):
    """A program with one site, `token` (length,).

    - `speaker`: tells the next token: `Stateful(...)`, `Prefixes(...)`, `OnHost(...)`.
    - `length`: the most tokens of a sentence.
    - `score`: `score(tokens, num)` returns the log of a sentence's score, from its first `num` of `tokens` (length,); the
      others are zero. By default nothing is scored.
    - `hint`: the same for unfinished sentences. It says who is worth going on with, and does not change the posterior; -inf
      only where the score is sure to be -inf. By default it is `score`; `lambda tokens, num: 0.0` scores at the end alone.
    - `end`: the token that ends a sentence; it fills the rest of `token`, where it weighs nothing. By default all sentences
      have all their tokens.
    - `must_end`: sentences that reach their full length are made to end there, and weighed by the probability of it: the
      posterior is that of sentences that end in time. Else they are cut off.

    Raises:
        ValueError: for something else than a speaker, and a length or an end that cannot be.

    Example:
        `inf.smc(language_model(speaker, 20, score=score, end=0), inf.particle_filter(), key=key)`
    """
    _check(speaker, length, end, must_end)
    log_probs, state = speaker.first
    blank, zero = jnp.zeros(length, jnp.int32), jnp.zeros((), jnp.result_type(float))
    only_end = None if end is None else jnp.where(jnp.arange(len(log_probs)) == end, 0.0, -jnp.inf)

    def say(said: Sentence, t):
        log_probs, last = jax.nn.log_softmax(said.log_probs), t == length - 1
        closed = said.ended
        if only_end is not None:
            forced = last & ~said.ended & must_end
            closed = closed | forced
            factor("end", jnp.where(forced, log_probs[end], 0.0))
            log_probs = jnp.where(closed, only_end, log_probs)
        token = sample("token", dist.Categorical(logits=log_probs))
        tokens = jnp.where(said.ended, said.tokens, said.tokens.at[t].set(token.astype(jnp.int32)))
        num = said.num + ~said.ended
        ended = said.ended if end is None else said.ended | (token == end)
        silent = ended | last
        log_score = zero if score is None else score(tokens, num)
        if hint is not None:
            log_score = jnp.where(silent, log_score, hint(tokens, num))
        log_score = jnp.where(said.ended, said.log_score, log_score).astype(zero.dtype)
        alive = said.log_score > -jnp.inf
        factor("score", jnp.where(said.ended, 0.0, jnp.where(alive, log_score - said.log_score, -jnp.inf)))
        log_probs, state = spoken(speaker, silent, said.state, token.astype(jnp.int32))
        return Sentence(tokens, num, ended, log_probs, log_score, state), None

    start = Sentence(blank, jnp.int32(0), jnp.array(False), log_probs, zero, state)
    ppl.scan(say, start, jnp.arange(length))


def _check(speaker, length, end, must_end) -> None:
    if not isinstance(speaker, Speaker):
        raise ValueError(
            "language_model: expected a speaker first, Stateful(next, first), Prefixes(fn, length) or OnHost(fn, length), "
            f"got {type(speaker).__name__}."
        )
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise ValueError(f"language_model: length must be a whole number of at least 1, got {length!r}.")
    own = getattr(speaker, "length", length)
    if own != length:
        raise ValueError(f"language_model: length is {length}, but the speaker was made for sentences of {own} tokens.")
    kinds = speaker.first[0].shape
    if len(kinds) != 1:
        raise ValueError(f"language_model: the speaker's log probabilities should have shape (kinds,), got {kinds}.")
    if end is not None and not 0 <= end < kinds[0]:
        raise ValueError(f"language_model: end must be one of the {kinds[0]} tokens, 0 to {kinds[0] - 1}, got {end!r}.")
    if must_end and end is None:
        raise ValueError("language_model: must_end needs to know which token ends a sentence: give end=...")
