"""How parts make one recipe: a dataset under a student, a student beside a method, a recipe's file on top.

Two keys serve this alone and end here: `methods`, which a student lists for `recipes list`, and `tuned`, a
dataset's or a student's options for losses, by name, that count only in recipes with such a loss. Torch-free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from hwdkit.errors import RecipeError
from hwdkit.recipe.complaints import LOSS_OPTIONS
from hwdkit.recipe.find import did_you_mean
from hwdkit.recipe.written import Written, merge


def combine(bases: Sequence[Written], leaf: Written) -> Written:
    """A file over its bases, of which later ones win.

    A base keeps its `name` and `methods` to itself. The summaries of several bases are joined by commas, so
    that a student's and a method's describe their recipe.
    """
    if not bases:
        return leaf
    merged = reduce(merge, bases)
    under = _mapping(merged)
    summaries = [_mapping(base)["summary"] for base in bases if "summary" in _mapping(base)]
    if len(summaries) > 1 and all(isinstance(summary.value, str) for summary in summaries):
        joined = ", ".join(str(summary.value) for summary in summaries)
        under = under | {"summary": replace(summaries[0], value=joined)}
    inherited = {key: value for key, value in under.items() if key not in {"name", "methods"}}
    return layer(replace(merged, value=inherited), leaf)


def layer(under: Written, over: Written) -> Written:
    """`over` on top of `under`. Tuned options win over the losses below, and lose against those on top."""
    merged = merge(under, over)
    tuned = _tuned(merged)
    below, above = _mapping(_mapping(under).get("losses")), _mapping(_mapping(over).get("losses"))
    used = {name: options for name, options in tuned.items() if name in below or name in above}
    if not used:
        return merged
    place = _mapping(merged)["tuned"].place
    losses = {
        name: reduce(
            merge, [part for part in (below.get(name), used[name], above.get(name)) if part is not None]
        )
        for name in used
    }
    values = dict(_mapping(merged))
    values["losses"] = replace(values["losses"], value=_mapping(values["losses"]) | losses)
    values["tuned"] = Written({name: options for name, options in tuned.items() if name not in used}, place)
    return replace(merged, value=values)


def finish(root: Written) -> Written:
    """The recipe without what no loss asks for: the rest of `tuned`, and a teacher that teaches nothing."""
    values = {key: value for key, value in _mapping(root).items() if key != "tuned"}
    losses = _mapping(values.get("losses"))
    distils = any(
        _mapping(entry).get("loss", Written(name, entry.place)).value != "ce"
        for name, entry in losses.items()
    )
    if "student" in values and not distils and "backbone" not in _mapping(values.get("teacher")):
        values.pop("teacher", None)
    return replace(root, value=values)


def _tuned(root: Written) -> dict[str, Written]:
    """The options that wait for a loss of their name.

    Raises:
        RecipeError: not a mapping of losses to options.
    """
    tuned = _mapping(root).get("tuned")
    if tuned is None:
        return {}
    if not isinstance(tuned.value, dict):
        raise RecipeError("tuned: must be a mapping of losses to their options", where=str(tuned.place))
    for name, options in tuned.value.items():
        if name not in LOSS_OPTIONS:
            raise RecipeError(
                f"tuned.{name}: unknown loss.{did_you_mean(name, LOSS_OPTIONS)}", where=str(options.place)
            )
    return tuned.value


def _mapping(written: Written | None) -> dict[str, Written]:
    """The entries of a mapping; of anything else, none: `schema.py` complains about that."""
    return written.value if written is not None and isinstance(written.value, dict) else {}
