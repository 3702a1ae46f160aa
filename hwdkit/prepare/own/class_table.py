"""The classes of a user's own data, as a file says them: names, and if need be colours and ids."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hwdkit.data.colours import Colour
from hwdkit.datasets.voc import bit_colour
from hwdkit.errors import DataError
from hwdkit.types import IGNORE

MOST_CLASSES = 255
"""Classes are stored in 8 bits, of which 255 means ignore."""

LARGEST_ID = 65535
TEXT = (".txt", ".names", "")
NAMES, COLOURS = ("names", "classes"), ("colours", "colors")
IDS, IGNORED = ("ids",), ("ignore", "ignore_index")
KEYS = (*NAMES, *COLOURS, *IDS, *IGNORED)
ENTRY_KEYS = ("name", "colour", "color", "id")
EXAMPLE = "As in:  classes: [{name: road, colour: [128, 64, 128], id: 7}, …]  ignore: [0, 255]"


@dataclass(frozen=True)
class ClassTable:
    """What a label means.

    Attributes:
        names, palette: in class order.
        label_map: raw id -> class, 255 = ignore.
        label_colours: colour -> raw id for masks that are painted; None if the classes have no colours.
    """

    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    label_map: dict[int, int]
    label_colours: dict[Colour, int] | None


def read_class_table(path: Path) -> ClassTable:
    """Read a classes file.

    A list of names, one a line; or YAML or JSON: a list of names or of {name, colour, id}, under `classes` or
    `names` if the file says more, such as `ignore` (ids, or colours of painted masks), `colours` or `ids` (in
    the order of the names). Names may be given by id, {7: road}. Without ids the order counts, from 0.
    Id 255 is ignored unless a class has it.

    Raises:
        DataError: unreadable, or not that.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"classes file cannot be read ({error})", where=str(path)) from error
    try:
        if path.suffix.lower() in TEXT:
            return _table({"names": [line.strip() for line in text.splitlines() if line.strip()]})
        return _table(_mapping(text))
    except ValueError as error:
        raise DataError(str(error), where=str(path), hint=EXAMPLE) from error


def _mapping(text: str) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(text)  # JSON is YAML
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist
        raise ValueError(f"is neither YAML nor JSON ({' '.join(str(error).split())})") from error
    if isinstance(content, list):
        return {"classes": content}
    if not isinstance(content, dict):
        raise ValueError("is not a list of classes")
    _refuse_typos(content, KEYS)
    return content


def _table(content: Mapping[str, Any]) -> ClassTable:
    names, colours, ids = _classes(content)
    ignored = _value(content, IGNORED)
    ignored = ignored if isinstance(ignored, list) else [] if ignored is None else [ignored]
    ignored_ids = [_id(entry) for entry in ignored if isinstance(entry, int)]
    ignored_colours = [_colour(entry) for entry in ignored if not isinstance(entry, int)]
    columns: dict[str, Sequence[Any]] = {
        "name": names,
        "colour": [*(colours or []), *ignored_colours],
        "id": [*ids, *ignored_ids],
    }
    for column, values in columns.items():
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ValueError(f"{column} {twice} occurs twice")
    if not 2 <= len(names) <= MOST_CLASSES:
        raise ValueError(f"has {len(names)} classes; 2 to {MOST_CLASSES} are supported")
    label_map = {raw: c for c, raw in enumerate(ids)} | dict.fromkeys(ignored_ids, IGNORE)
    label_map.setdefault(IGNORE, IGNORE)
    if colours is None:
        if ignored_colours:
            raise ValueError("ignores a colour, but its classes have none")
        palette = tuple(bit_colour(c + 1) for c in range(len(names)))  # 0 is black
        return ClassTable(tuple(names), palette, label_map, None)
    painted = dict(zip(colours, ids, strict=True))
    if ignored_colours:
        void = next((raw for raw, c in label_map.items() if c == IGNORE), max(ids) + 1)
        label_map[void] = IGNORE
        painted |= dict.fromkeys(ignored_colours, void)
    return ClassTable(tuple(names), tuple(colours), label_map, painted)


def _classes(content: Mapping[str, Any]) -> tuple[list[str], list[Colour] | None, list[int]]:
    listed, colours, ids = _value(content, NAMES), _value(content, COLOURS), _value(content, IDS)
    if isinstance(listed, dict) and all(isinstance(key, int) for key in listed):
        ids, listed = list(listed), list(listed.values())
    if not isinstance(listed, list):
        raise ValueError("has no list `classes` or `names`")
    if any(isinstance(entry, dict) for entry in listed):
        entries = [entry if isinstance(entry, dict) else {"name": entry} for entry in listed]
        for entry in entries:
            _refuse_typos(entry, ENTRY_KEYS)
        listed = [entry.get("name") for entry in entries]
        colours = _column([entry.get("colour", entry.get("color")) for entry in entries], "colour") or colours
        ids = _column([entry.get("id") for entry in entries], "id") or ids
    names = [_name(entry) for entry in listed]
    for key, values in (("colours", colours), ("ids", ids)):
        if values is not None and (not isinstance(values, list) or len(values) != len(names)):
            raise ValueError(f"`{key}` is not a list of {len(names)}, one for each class")
    return (
        names,
        None if colours is None else [_colour(value) for value in colours],
        list(range(len(names))) if ids is None else [_id(value) for value in ids],
    )


def _value(content: Mapping[str, Any], keys: Sequence[str]) -> Any:
    present = [key for key in keys if content.get(key) is not None]
    if len(present) > 1:
        raise ValueError(f"has both `{present[0]}` and `{present[1]}`")
    return content[present[0]] if present else None


def _column(values: list[Any], name: str) -> list[Any] | None:
    if all(value is None for value in values):
        return None
    if None in values:
        raise ValueError(f"class {values.index(None) + 1} has no {name}, others have one")
    return values


def _name(value: Any) -> str:
    # YAML reads `no` and `1` as other things than text; an integer is kept as written.
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(f"{value!r} is not a class name; put it in quotes")
    return str(value).strip()


def _id(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_ID:
        raise ValueError(f"{value!r} is not an id from 0 to {LARGEST_ID}")
    return value


def _colour(value: Any) -> Colour:
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
    numbers = value if isinstance(value, list) else []
    if len(numbers) != 3 or not all(type(number) is int and 0 <= number <= 255 for number in numbers):
        raise ValueError(f'{value!r} is not a colour: [red, green, blue] from 0 to 255, or "#rrggbb"')
    return numbers[0], numbers[1], numbers[2]


def _refuse_typos(content: Mapping[Any, Any], keys: Sequence[str]) -> None:
    """Allow other keys, unless one is nearly a key of ours."""
    for key in content:
        close = difflib.get_close_matches(str(key), keys, n=1, cutoff=0.8)
        if close and key not in keys:
            raise ValueError(f"unknown key {key!r}. Did you mean {close[0]!r}?")
