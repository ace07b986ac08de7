"""Match: does a guide fit a model? Looked up in the tables of sites, before anything is drawn.

A guide must make the model's latent choices, all of them and no others, each of the model's shape and within its support: a
Normal guide on a positive site proposes the impossible, and the objective is -inf. What has no table of sites cannot be
looked up, and passes.
"""

from typing import Any

import numpy as np

from ppl._errors import nearest
from ppl.distributions import bounds, same_support
from ppl.site import SiteInfo


def same_sites(model: Any, guide: Any) -> None:
    """Raise ValueError, with a sentence that names the site, unless `guide` fits the latent sites of `model`.

    Every objective here asks it first; in one of your own it is a line.

    Example:
        `same_sites(coin(3.0) | {"y": y}, guide(phi))`
    """
    if not (hasattr(model, "sites") and hasattr(guide, "sites")):
        return
    theirs, ours = model.sites(), guide.sites()
    wanted = {name: row for name, row in theirs.items() if row.kind == "latent"}
    drawn = {name: row for name, row in ours.items() if row.kind == "latent"}
    for name in drawn:
        if name not in wanted:
            raise ValueError(_extra(name, theirs.get(name), [w for w in wanted if w not in drawn] or list(wanted)))
    for name, row in wanted.items():
        if name not in drawn:
            hint = f"; there it is {ours[name].kind}" if name in ours else ""
            raise ValueError(
                f"the guide lacks the model's latent site '{name}' (shape {row.shape}, support {row.support_name}){hint}. "
                f"Sample it in the guide under that name; or give it data, model | {{'{name}': value}}."
            )
    for name, row in wanted.items():
        _same_shape(name, row, drawn[name])
        _same_support(name, row, drawn[name])


def _extra(name: str, other: SiteInfo | None, known: list[str]) -> str:
    if other is not None:
        return f"the guide samples '{name}', but in the model that site is {other.kind}. Leave it out of the guide."
    return (
        f"the guide samples a site '{name}', but the model has no latent site of that name.{nearest(name, known)} A choice "
        f"that only helps the guide must be integrated out of it: guide.marginal('{name}', by=...)."
    )


def _same_shape(name: str, wanted: SiteInfo, drawn: SiteInfo) -> None:
    if wanted.shape != drawn.shape:
        plates = f" (in {' '.join(wanted.plates)})" if wanted.plates else ""
        raise ValueError(
            f"site '{name}' has shape {wanted.shape}{plates} in the model, but {drawn.shape} in the guide. Sample one value "
            "for each entry: expand the guide's distribution, or map it with ppl.vmap."
        )


def _same_support(name: str, wanted: SiteInfo, drawn: SiteInfo) -> None:
    if wanted.support is None or drawn.support is None:  # computed of other sites
        return
    if _within(wanted, drawn):
        return
    remedy = (
        "Both must be of whole numbers, or neither."
        if wanted.discrete != drawn.discrete
        else "Choose a distribution for the guide that has the model's support."
    )
    raise ValueError(
        f"site '{name}' has the support {_told(wanted)} in the model, but {_told(drawn)} in the guide (a {drawn.family}): the "
        f"guide would draw what the model holds impossible. {remedy}"
    )


def _told(row: SiteInfo) -> str:
    ends = bounds(row.support)
    if ends is None or "interval" not in row.support_name or ends[0].size * ends[1].size > 1:
        return row.support_name
    return f"{row.support_name} from {ends[0].item():g} to {ends[1].item():g}"


def _within(wanted: SiteInfo, drawn: SiteInfo) -> bool:
    """Whether what the guide draws is possible in the model, and neither leaves dimensions out."""
    if wanted.discrete != drawn.discrete:
        return False
    outer, inner = bounds(wanted.support), bounds(drawn.support)
    if outer is not None and inner is not None:
        return bool(np.all(outer[0] <= inner[0]) and np.all(inner[1] <= outer[1]))
    if outer is not None and np.all(np.isinf(outer)):  # on all the real line
        return drawn.unconstrained == drawn.shape
    return same_support(wanted.support, drawn.support)
