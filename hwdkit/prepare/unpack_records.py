"""What has been unpacked into a folder, and what was only begun: a small file an archive, beside the data."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwdkit.errors import DataError

RECORDS = ".unpacked"
PARTS = ".unpacking"
"""Files that are being written, in the folder that is unpacked to, as is RECORDS."""


def is_unpacked(archive: Path, into: Path) -> bool:
    """Say whether this very file (by name, size and time) has been unpacked completely into this folder."""
    return bool(_read(_record(archive, into)).get("complete"))


def is_begun(archive: Path, into: Path) -> bool:
    """Say whether a run has begun to unpack this very file into this folder."""
    return _record(archive, into).is_file()


def unfinished(into: Path) -> list[str]:
    """Name the archives that a stopped run has begun to unpack into this folder."""
    return sorted(str(of["archive"]) for _, of in _records(into) if not of.get("complete"))


def others(archives: Sequence[Path], into: Path) -> list[str]:
    """Name the archives on record in this folder that are none of these.

    An archive that was fetched again, or touched, has its name and size still, and is the same one.
    """
    same = {(archive.name, archive.stat().st_size) for archive in archives}
    return sorted(
        str(of["archive"]) for _, of in _records(into) if (of["archive"], of.get("size")) not in same
    )


def forget_others(archives: Sequence[Path], into: Path) -> None:
    """Drop the records of earlier versions of these archives, such as one that was damaged."""
    known = {_record(archive, into) for archive in archives}
    for path, _ in _records(into):
        if path not in known:
            path.unlink(missing_ok=True)


def write_record(archive: Path, into: Path, *, files: int, size: int, complete: bool) -> None:
    """Record that an archive is being unpacked, or has been.

    Args:
        archive: which file.
        into: where to.
        files, size: what it unpacks to; size in bytes.
        complete: whether all of it is there.
    """
    record, status = _record(archive, into), archive.stat()
    record.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "archive": archive.name,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "files": files,
        "bytes": size,
        "complete": complete,
    }
    part = record.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(part, record)


def _record(archive: Path, into: Path) -> Path:
    try:
        status = archive.stat()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(archive)) from error
    identity = f"{archive.name}/{status.st_size}/{status.st_mtime_ns}".encode("utf-8", "surrogateescape")
    return into / RECORDS / f"{hashlib.sha256(identity).hexdigest()[:16]}.json"


def _records(into: Path) -> list[tuple[Path, dict[str, Any]]]:
    found = [(path, _read(path)) for path in (into / RECORDS).glob("*.json")]
    return [(path, content) for path, content in found if "archive" in content]


def _read(record: Path) -> dict[str, Any]:
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
