"""What has been unpacked into a folder, and what was only begun: a small file an archive, beside the data."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from hwdkit.errors import DataError

RECORDS = ".unpacked"


def is_unpacked(archive: Path, into: Path) -> bool:
    """Say whether this very file (by name, size and time) has been unpacked completely into this folder."""
    return bool(_read(_record(archive, into)).get("complete"))


def is_begun(archive: Path, into: Path) -> bool:
    """Say whether a run has begun to unpack this very file into this folder."""
    return _record(archive, into).is_file()


def unfinished(into: Path) -> list[str]:
    """Name the archives that a stopped run has begun to unpack into this folder."""
    records = [_read(path) for path in (into / RECORDS).glob("*.json")]
    return sorted(str(of["archive"]) for of in records if not of.get("complete") and "archive" in of)


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


def _read(record: Path) -> dict[str, Any]:
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
