"""Sentences for people: what was expected, what came, what to do.

Structural failures are `ValueError`s raised where the user can act on them. Every message names the site; when a name is
unknown it also names the nearest ones, because nearly all unknown names are misspelled ones.
"""

from collections.abc import Iterable
from difflib import get_close_matches


def quote(names: Iterable[str]) -> str:
    """`'a', 'b' and 'c'`, in the order given."""
    quoted = [f"'{name}'" for name in names]
    if len(quoted) <= 1:
        return "".join(quoted) or "nothing"
    return ", ".join(quoted[:-1]) + " and " + quoted[-1]


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'theta'?`, or the list of known names when none is near."""
    known = list(known)
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f" Did you mean {' or '.join(repr(c) for c in close)}?"
    return f" Known names: {quote(known)}."
