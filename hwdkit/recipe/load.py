"""YAML files to a validated Recipe and back: bases, `--set`, and the canonical text.

No torch: a typo in a recipe fails in milliseconds. What the keys mean is in `schema.py`, how files make one
recipe in `compose.py`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hwdkit.errors import RecipeError
from hwdkit.recipe.complaints import explain
from hwdkit.recipe.compose import combine, finish, layer
from hwdkit.recipe.find import PARTS, RECIPES, did_you_mean, find, is_path, named, shown, text, tree
from hwdkit.recipe.schema import Recipe
from hwdkit.recipe.written import FLOAT, Place, Written, parse


def load(name_or_path: str | os.PathLike[str], *, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path, with its bases under it and `--set` options on top.

    Args:
        name_or_path: see `find`.
        overrides: `dotted.key=value`, the value in YAML; later ones win.

    Raises:
        RecipeError: not found, not YAML, a cycle of bases, or not valid (every fault is listed).
    """
    paths = find(name_or_path)
    name = paths[0].stem if len(paths) == 1 else os.fspath(name_or_path)
    return load_files(paths, name=name, overrides=overrides)


def load_files(paths: Sequence[Path], *, name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from its files, as `find` gives them; see `load`."""
    return _validated(finish(_with_overrides(_together(paths, chain=()), overrides)), name=name)


def loads_resolved(text: str, *, source: str = "recipe", overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe that stands alone, as `dump` wrote it; `base` is not allowed.

    Args:
        text: the YAML document.
        source: where it came from, for error messages.
        overrides: as in `load`.
    """
    root = _mapping(parse(text, file=source), file=source)
    return _validated(_with_overrides(root, overrides), name="")


def dump(recipe: Recipe) -> str:
    """The complete recipe as YAML, every default spelled out; `load` of it gives an equal recipe."""
    return to_yaml(recipe.model_dump())


def to_yaml(values: Any) -> str:
    """Plain values as the YAML of recipes."""
    text: str = yaml.dump(
        values, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=110
    )
    return text


def in_line(value: Any) -> str:
    """A plain value as `--set` reads it."""
    text: str = yaml.dump(value, Dumper=_Dumper, default_flow_style=True)
    return text.removesuffix("\n...\n").strip()


def digest(recipe: Recipe) -> str:
    """SHA-256 (hex) of `dump`. The order of the losses counts: it is the order in which they are summed."""
    return hashlib.sha256(dump(recipe).encode()).hexdigest()


def differences(before: Recipe, after: Recipe) -> dict[str, str]:
    """Dotted keys that `after` says otherwise than `before`, with its value in YAML.

    A section that `before` does not have at all (None) is not compared.
    """
    old, new = leaves(before.model_dump()), leaves(after.model_dump())
    absent = tuple(f"{key}." for key, value in old.items() if value is None)
    return {
        key: in_line(value)
        for key, value in new.items()
        if not key.startswith(absent) and (key not in old or old[key] != value)
    }


def leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of nested mappings."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, dict) and value
        flat |= leaves(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def base_files(path: Path) -> dict[str, tuple[Path, ...]]:
    """What a recipe file names under `base`, and the files that this means, not followed any further."""
    root = _document(path)
    return {str(entry.value): _base(entry, path) for entry in _base_entries(root)}


def _validated(root: Written, *, name: str) -> Recipe:
    values = root.plain()
    if values.get("name") in (None, ""):
        values["name"] = name
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise explain(error, root) from None


def _together(paths: Sequence[Path], *, chain: tuple[Path, ...]) -> Written:
    """One file, or the parts that a name is composed of."""
    parts = [_read(path, chain=chain) for path in paths]
    return parts[0] if len(parts) == 1 else combine(parts, Written({}, Place(shown(paths[0]), 1)))


def _read(path: Path, *, chain: tuple[Path, ...]) -> Written:
    """One file merged over its bases. `chain` holds the files that led here."""
    if path.resolve() in (link.resolve() for link in chain):
        names = " -> ".join(shown(link) for link in (*chain, path))
        raise RecipeError(f"bases form a cycle: {names}", where=shown(chain[-1]))
    root = _document(path)
    assert isinstance(root.value, dict)
    leaf = Written({key: child for key, child in root.value.items() if key != "base"}, root.place)
    entries = _base_entries(root)
    return combine([_together(_base(entry, path), chain=(*chain, path)) for entry in entries], leaf)


def _document(path: Path) -> Written:
    return _mapping(parse(text(path), file=shown(path)), file=shown(path))


def _mapping(root: Written | None, *, file: str) -> Written:
    if root is None:
        raise RecipeError(
            "is empty", where=file, hint="See a complete one: hwdkit recipes show NAME --resolved"
        )
    if not isinstance(root.value, dict):
        raise RecipeError("a recipe is a mapping of keys to values", where=str(root.place))
    return root


def _base_entries(root: Written) -> list[Written]:
    base = root.value.get("base") if isinstance(root.value, dict) else None
    if base is None or base.value is None:
        return []
    entries = base.value if isinstance(base.value, list) else [base]
    for entry in entries:
        if not isinstance(entry.value, str):
            raise RecipeError("base: must be a file name, or a list of them", where=str(entry.place))
    return entries


def _base(entry: Written, path: Path) -> tuple[Path, ...]:
    """The files that a base means: beside the file that names it, else a part of its tree, else by name."""
    base = str(entry.value)
    for file in [base] if is_path(base) else [f"{base}.yaml", f"{base}.yml"]:
        if (candidate := Path(os.path.normpath(path.parent / file))).is_file():
            return (candidate,)
    try:
        return by_name(base, tree(path))
    except RecipeError as error:
        message, hint = f"base: {error.message}", error.hint
        if is_path(base):
            beside = [p.name for p in path.parent.glob("*.y*ml")]
            message, hint = f"base {base!r} does not exist.{did_you_mean(base, beside)}", ""
        raise RecipeError(message, where=str(entry.place), hint=hint) from None


def by_name(base: str, *trees: Path) -> tuple[Path, ...]:
    """The files that a base means wherever it is written: a part's or a recipe's name.

    A file name without a folder means its stem; an underscore before it is ignored where no file has it.

    Args:
        trees: folders to look into before the search path.

    Raises:
        RecipeError: nothing has that name.
    """
    stem = Path(base).stem if Path(base).name == base and is_path(base) else base
    if is_path(stem):
        raise RecipeError(f"{base!r} is a path, not a name")
    kinds = (*RECIPES, *PARTS)
    for name in (stem, stem.removeprefix("_")):
        if part := named(name, kinds, under=trees) or named(name, kinds):
            return (part,)
    return find(stem)


def _with_overrides(root: Written, overrides: Sequence[str]) -> Written:
    for option in overrides:
        place = Place(f"--set {option}", 0)
        key, equals, text = option.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise RecipeError(
                "must be KEY=VALUE with a dotted key, as in optimizer.lr=0.02", where=place.file
            )
        try:
            value = parse(text, file=place.file)
        except RecipeError as error:
            raise RecipeError(error.message, where=place.file) from None  # a line number says nothing here
        nested = written_at(value.plain() if value else None, place)
        for part in reversed(parts):
            nested = Written({part: nested}, place)
        root = layer(root, nested)
    return root


def written_at(value: Any, place: Place) -> Written:
    """Plain values as if all of them were written in one place."""
    if isinstance(value, dict):
        return Written({key: written_at(child, place) for key, child in value.items()}, place)
    if isinstance(value, list):
        return Written([written_at(child, place) for child in value], place)
    return Written(value, place)


class _Dumper(yaml.SafeDumper):
    """Block mappings, lists on one line, no anchors; quotes text that YAML 1.1 or 1.2 would misread."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _flow_list(dumper: yaml.SafeDumper, values: Sequence[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # Single quotes lose these line breaks of other alphabets; double quotes escape them.
    style = '"' if any(character in text for character in "\x85\u2028\u2029\ufeff") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text_node)
_Dumper.add_representer(list, _flow_list)
_Dumper.add_representer(tuple, _flow_list)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
