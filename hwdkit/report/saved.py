"""Reading a per-class report back from its JSON, which may come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hwdkit.errors import DataError
from hwdkit.measure.types import SCHEMA_VERSION, PerClassReport


def load_report(path: Path) -> PerClassReport:
    """Read `per-class.json`, or the one in a folder.

    Raises:
        DataError: there is none, or it is not a per-class report that this version can read.
    """
    path = path / "per-class.json" if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, Mapping):  # what --json prints is the report, too, with a few keys around it
            document = {key: value for key, value in document.items() if key not in ("status", "files")}
        return report_from_dict(document)
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            hint="name a per-class.json, or the folder that holds it",
        ) from error
    except (ValueError, RecursionError) as error:  # JSON's and UTF-8's errors are ValueErrors
        raise DataError(
            f"not a per-class report: {str(error) or 'nested too deeply'}",
            where=str(path),
            hint="--from takes the JSON that hwdkit per-class-report writes",
        ) from error


def report_from_dict(document: Any) -> PerClassReport:
    """The inverse of `PerClassReport.to_dict`, without examples; null scores become nan again.

    Raises:
        ValueError: another schema version; a key that is missing or that this version does not know; a value
            of the wrong kind.
    """
    if not isinstance(document, Mapping):
        raise ValueError("the document is not a JSON object")
    values = dict(document)
    version = values.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise ValueError(f"per-class report has schema_version {version!r}, expected {SCHEMA_VERSION}")
    if "examples" in values:  # images are not written, so nothing that is written has them
        raise ValueError("examples: a report has none")
    try:
        report = _adapter().validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    _require_consistent(report)
    return report


@cache
def _adapter() -> TypeAdapter[PerClassReport]:
    return TypeAdapter(PerClassReport)


def _require_consistent(report: PerClassReport) -> None:
    models, rows = [one.name for one in report.models], [one.name for one in report.rows]
    for kind, names in (("model", models), ("class", rows)):
        if len(set(names)) != len(names):
            raise ValueError(f"a {kind} occurs twice")
    for name, counts in report.confusions.items():
        if name not in models:
            raise ValueError(f"the confusion matrix of {name} is of no model in the report")
        if {len(counts), *map(len, counts)} != {len(rows)}:
            raise ValueError(f"the confusion matrix of {name} is not {len(rows)} by {len(rows)}")
