"""The tables of methods and of keys in recipes.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from hwdkit.recipe.complaints import spell
from hwdkit.recipe.find import files_of, methods_of
from hwdkit.recipe.load import load
from hwdkit.recipe.losses import LOSS_OPTIONS, LossOptions
from hwdkit.recipe.schema import PAPER_SCALES, Recipe

HEADER = "| key | value | default | |\n|---|---|---|---|\n"


def tables() -> str:
    """One table for each section of a recipe, then one for each loss."""
    sections = {"": Recipe} | {
        key: section for key, field in Recipe.model_fields.items() if (section := _section(field))
    }
    parts = [
        f"### {f'`{key}`' if key else 'Top level'}\n\n{_table(model, f'{key}.' if key else '')}"
        for key, model in sections.items()
    ]
    parts += [
        f"### `losses.{name}`\n\n{_first_line(options)}\n\n{_table(options, f'losses.{name}.')}"
        for name, options in LOSS_OPTIONS.items()
    ]
    return "\n\n".join(parts)


def methods() -> str:
    """One table: each method, its losses, and the students that list it."""
    lines = ["| | losses beside cross entropy | listed by |", "|---|---|---|"]
    students = {name: methods_of(path) for name, path in files_of("students").items()}
    for method in files_of("methods"):
        listing = [student for student, known in students.items() if method in known]
        recipe = load(f"{next(iter(students))}-{method}")
        losses = ", ".join(f"`{name}`" for name in recipe.losses if name != "ce")
        by = "all" if len(listing) == len(students) else ", ".join(f"`{student}`" for student in listing)
        lines.append(f"| `{method}` | {losses} | {by} |")
    return "\n".join(lines)


def blocks() -> dict[str, str]:
    """Both texts that are generated in the page."""
    return {"methods": methods(), "schema": tables()}


def _table(model: type[BaseModel], prefix: str) -> str:
    return HEADER + "\n".join(_rows(model, prefix))


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    own = model.model_fields
    if issubclass(model, LossOptions):  # pydantic lists the inherited `weight` after `loss`, as we want it
        own = {key: field for key, field in own.items() if key != "loss"}
    for key, field in own.items():
        if _section(field) and prefix == "":
            continue  # has a table of its own
        cells = (f"`{prefix}{key}`", _values(field), _default(field), field.description or "")
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _values(field: FieldInfo) -> str:
    bounds = [_bound(constraint) for constraint in field.metadata]
    return ", ".join([_type(field.annotation), *filter(None, bounds)])


def _bound(constraint: Any) -> str:
    words = {"gt": "> ", "ge": "≥ ", "lt": "< ", "le": "≤ "}
    return next(
        (f"{sign}{getattr(constraint, at):g}" for at, sign in words.items() if hasattr(constraint, at)), ""
    )


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    members = [member for member in get_args(annotation) if member is not type(None)]
    if get_origin(annotation) is tuple:
        return "list" if Ellipsis in members else f"[{', '.join(_type(member) for member in members)}]"
    if get_origin(annotation) is dict:
        return "mapping"
    if members:
        return " or ".join(_type(member) for member in members)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping with " + ", ".join(f"`{key}`" for key in annotation.model_fields)
    names = {bool: "true, false", int: "whole number", float: "number", str: "text"}
    return names.get(annotation, str(annotation))


def _default(field: FieldInfo) -> str:
    if field.default == PAPER_SCALES:
        return "0.5, 0.6 … 2.0"
    if field.default_factory is dict:
        return "`ce` alone"  # a validator adds it
    if field.default is PydanticUndefined:
        return "**required**"
    if isinstance(field.default, BaseModel):
        return "`{" + ", ".join(f"{key}: {value:g}" for key, value in field.default) + "}`"
    if field.default in ("", {}):
        return "`{}`" if field.default == {} else "empty"
    return f"`{field.default if isinstance(field.default, str) else spell(field.default)}`"


def _section(field: FieldInfo) -> type[BaseModel] | None:
    candidates = (field.annotation, *get_args(field.annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().partition("\n")[0]
