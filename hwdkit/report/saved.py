"""Reading a per-class report back from its JSON, which may come from anywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args

from hwdkit.errors import DataError
from hwdkit.measure.types import (
    SCHEMA_VERSION,
    ClassDivergence,
    ClassRow,
    Counts,
    DivergenceKind,
    DivergenceOn,
    ModelSummary,
    PerClassReport,
)
from hwdkit.types import Role

_NUMBER = (int, float)
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": _NUMBER,
    "float | None": (*_NUMBER, type(None)),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "Role": get_args(Role),
    "DivergenceOn": get_args(DivergenceOn),
    "DivergenceKind": get_args(DivergenceKind),
}
_NONE = "float | None"


def load_report(path: Path) -> PerClassReport:
    """Read `per-class.json`, or the one in a folder.

    Raises:
        DataError: there is none, or it is no per-class report that this version can read.
    """
    path = path / "per-class.json" if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
        return report_from_dict(_without_envelope(document))
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            hint="name a per-class.json, or the folder that holds it",
        ) from error
    except (ValueError, RecursionError) as error:  # JSON's and UTF-8's errors are ValueErrors
        raise DataError(
            f"no per-class report: {str(error) or 'nested too deeply'}",
            where=str(path),
            hint="--from takes the JSON that hwdkit per-class-report writes",
        ) from error


def report_from_dict(values: Any) -> PerClassReport:
    """The inverse of `PerClassReport.to_dict`, without examples; null scores become nan again.

    Raises:
        ValueError: another schema version; a key that is missing or that this version does not know; a value
            of the wrong kind.
    """
    version = _mapping(values, "the document").get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"per-class report has schema_version {version!r}, expected {SCHEMA_VERSION}")
    own = {key: value for key, value in values.items() if key != "schema_version"}
    _check(PerClassReport, own)
    if "examples" in own:  # images are not written, so nothing that is written has them
        raise ValueError("PerClassReport has no examples")
    pair = _texts(own["pair"], "pair")
    if len(pair) != 2:
        raise ValueError("pair is not two names")
    models = tuple(_model(model) for model in _list(own["models"], "models"))
    rows = tuple(_row(row) for row in _list(own["rows"], "rows"))
    for what, names in (("model", [one.name for one in models]), ("class", [one.name for one in rows])):
        if len(set(names)) != len(names):
            raise ValueError(f"a {what} occurs twice")
    own |= {"pair": (pair[0], pair[1]), "notes": tuple(_texts(own.get("notes", []), "notes"))}
    own["confusions"] = _confusions(own.get("confusions", {}), [one.name for one in models], len(rows))
    return PerClassReport(**{**own, "models": models, "rows": rows, "examples": ()})


def _model(values: Any) -> ModelSummary:
    scores = ("miou", "macc", "pixel_accuracy")
    _check(ModelSummary, values, nan=scores)
    return ModelSummary(**{**values, **{key: _or_nan(values[key]) for key in scores}})


def _row(values: Any) -> ClassRow:
    _check(ClassRow, values, nan=("share",))
    iou = _mapping(values["iou"], "iou")
    for name, score in iou.items():
        _check_value(f"iou of {name}", score, _NONE)
    divergences = _mapping(values.get("divergences", {}), "divergences")
    for one in divergences.values():
        _check(ClassDivergence, one)
    read = {
        "colour": _colour(values["colour"]),
        "share": _or_nan(values["share"]),
        "iou": {model: _or_nan(score) for model, score in iou.items()},
        "divergences": {name: ClassDivergence(**one) for name, one in divergences.items()},
    }
    return ClassRow(**{**values, **read})


def _confusions(value: Any, models: Collection[str], classes: int) -> dict[str, Counts]:
    found = {}
    for name, lines in _mapping(value, "confusions").items():
        what = f"the confusion matrix of {name}"
        if name not in models:
            raise ValueError(f"{what} is of no model in the report")
        counts = tuple(tuple(_list(line, f"a row of {what}")) for line in _list(lines, what))
        if len(counts) != classes or any(len(line) != classes for line in counts):
            raise ValueError(f"{what} is not {classes} by {classes}")
        if not all(type(count) is int and 0 <= count < 2**63 for line in counts for count in line):
            raise ValueError(f"{what} holds what is no number of pixels")
        found[name] = counts
    return found


def _check(cls: type, values: Any, nan: Collection[str] = ()) -> None:
    """Refuse unknown and missing keys, and plain values of another kind; `nan` may be null."""
    known = {one.name: one for one in fields(cls)}
    found = _mapping(values, cls.__name__)
    if unknown := sorted(set(found) - set(known)):
        raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}")
    for name, one in known.items():
        if name in found:
            _check_value(f"{name} of a {cls.__name__}", found[name], _NONE if name in nan else str(one.type))
        elif one.default is MISSING and one.default_factory is MISSING:
            raise ValueError(f"{cls.__name__} lacks {name}")


def _check_value(what: str, value: Any, kind: str) -> None:
    """Nothing is said of kinds that are neither plain nor a choice: those are read one by one."""
    if kind in _CHOICES and value not in _CHOICES[kind]:
        raise ValueError(f"{what} is one of {', '.join(_CHOICES[kind])}, not {value!r}")
    if kind not in _KINDS:
        return
    if not isinstance(value, _KINDS[kind]) or isinstance(value, bool):
        raise ValueError(f"{what} is a {type(value).__name__}, not {kind}")
    if isinstance(value, _NUMBER) and not -1e300 < value < 1e300:
        raise ValueError(f"{what} is too large a number")


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} is no JSON object")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{what} is no list")
    return list(value)


def _texts(value: Any, what: str) -> list[str]:
    found = _list(value, what)
    if not all(isinstance(one, str) for one in found):
        raise ValueError(f"{what} is no list of texts")
    return found


def _colour(value: Any) -> tuple[int, int, int]:
    parts = _list(value, "colour")
    if len(parts) != 3 or not all(type(part) is int and 0 <= part <= 255 for part in parts):
        raise ValueError(f"colour {value!r} is not three numbers from 0 to 255")
    return parts[0], parts[1], parts[2]


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _without_envelope(document: Any) -> Any:
    """What --json prints is the report, too, with a few keys around it."""
    if not isinstance(document, Mapping):
        return document
    return {key: value for key, value in document.items() if key not in ("status", "files")}


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")
