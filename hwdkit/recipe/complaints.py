"""Pydantic's validation errors in the words of a recipe: where it was written, which key, what to do.

Only wording and look-up; what is valid is decided by `schema.py` and `losses.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hwdkit.errors import RecipeError
from hwdkit.recipe.find import did_you_mean
from hwdkit.recipe.losses import LOSS_OPTIONS
from hwdkit.recipe.schema import Recipe
from hwdkit.recipe.written import Place, Written

_KINDS = {
    **dict.fromkeys(
        ["int_type", "int_parsing", "int_from_float", "int_parsing_size"], "must be a whole number"
    ),
    **dict.fromkeys(["float_type", "float_parsing", "finite_number"], "must be a finite number"),
    **dict.fromkeys(["bool_type", "bool_parsing"], "must be true or false"),
    "string_type": "must be text",
    **dict.fromkeys(["tuple_type", "list_type"], "must be a list"),
    **dict.fromkeys(
        ["dict_type", "model_type", "model_attributes_type"], "must be a mapping of keys to values"
    ),
}
_BOUNDS = {
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "needs at least {min_length} values",
    "too_long": "takes at most {max_length} values",
}


def explain(error: ValidationError, root: Written) -> RecipeError:
    """One RecipeError that lists everything wrong with a recipe, one complaint a line, in order of place.

    Args:
        error: of pydantic.
        root: the tree that was validated, for the places.
    """
    # A union complains once per member.
    complaints = dict.fromkeys(_complaint(one, root) for one in error.errors(include_url=False))
    ordered = sorted(complaints, key=lambda complaint: (complaint[0].line == 0, *complaint[0]))
    if len(ordered) == 1:
        place, message = ordered[0]
        return RecipeError(message, where=str(place))
    return RecipeError("\n".join(f"{place}: {message}" for place, message in ordered))


def _complaint(error: ErrorDetails, root: Written) -> tuple[Place, str]:
    loc = _without_tag(error["loc"])
    key = ".".join(str(part) for part in loc)
    kind = error["type"]
    if kind == "extra_forbidden":
        return root.place_of(loc), f"unknown key {key!r}.{_suggestion(error['loc'])}"
    if kind == "missing" and isinstance(loc[-1], str):
        return root.place_of(loc[:-1]), f"missing key {key!r}"
    if kind == "missing":  # one of a pair or triple
        return root.place_of(loc[:-1]), f"{'.'.join(map(str, loc[:-1]))}: value {int(loc[-1]) + 1} is missing"
    if kind.startswith("union_tag"):
        return _unknown_loss(error, root)
    subject = key
    if key and not isinstance(error["input"], dict):
        subject = f"{key} = {spell(error['input'])}"
    message = _message(error)
    return root.place_of(loc), f"{subject}: {message}" if subject else message


def _without_tag(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Pydantic names a discriminated union's tag, and a plain union's member, as if they were keys."""
    if loc[:1] == ("losses",) and len(loc) > 2:
        loc = (*loc[:2], *loc[3:])
    return loc[:-1] if loc[-2:] in {("pretrained", "bool"), ("pretrained", "str")} else loc


def _unknown_loss(error: ErrorDetails, root: Written) -> tuple[Place, str]:
    loc = error["loc"]
    name = str(error["input"].get("loss", "")) if isinstance(error["input"], dict) else ""
    subject = f"losses.{loc[1]}"
    if name != loc[1]:  # written out as `loss: …`, so that is the line to mend
        loc, subject = (*loc, "loss"), f"{subject}.loss = {spell(name)}"
    names = ", ".join(sorted(LOSS_OPTIONS))
    return root.place_of(loc), f"{subject}: unknown loss. Known: {names}.{did_you_mean(name, LOSS_OPTIONS)}"


def _message(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        allowed = [word.strip("'") for word in re.split(r", | or ", context["expected"])]
        return f"must be one of {', '.join(allowed)}.{did_you_mean(str(error['input']), allowed)}"
    if error["loc"][-2:] in {("pretrained", "bool"), ("pretrained", "str")}:
        return "must be true, false or the path of a file"
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**context)
    return _KINDS.get(kind, error["msg"])


def _suggestion(loc: tuple[int | str, ...]) -> str:
    """The closest key of the same section, else the same key in another section, else what is known."""
    word = str(loc[-1])
    model: type[BaseModel] | None = Recipe
    if loc[:1] == ("losses",):
        model = LOSS_OPTIONS.get(str(loc[2]))
    else:
        for part in loc[:-1]:
            model = _section(model, str(part))
    keys = sorted(model.model_fields) if model else []
    if close := did_you_mean(word, keys):
        return close
    elsewhere = [key for key in _all_keys() if key.rsplit(".", 1)[-1] == word]
    return f" Did you mean {elsewhere[0]!r}?" if elsewhere else f" Known: {', '.join(keys)}."


def _section(model: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    if model is None or key not in model.model_fields:
        return None
    annotation = model.model_fields[key].annotation
    candidates = (annotation, *get_args(annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _all_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    for key in model.model_fields:
        yield prefix + key
        if section := _section(model, key):
            yield from _all_keys(section, f"{prefix}{key}.")


def spell(value: Any) -> str:
    """A value as a recipe would spell it, cut to fit a line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = f"[{', '.join(map(spell, value))}]" if isinstance(value, list | tuple) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
