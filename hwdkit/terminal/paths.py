"""Paths on the command line: checked before any work begins. No torch.

Nothing is made here; writing is `hwdkit.checkpoints.files.replacing`.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from hwdkit.data.file_names import LONGEST_NAME as LONGEST_NAME
from hwdkit.data.file_names import is_too_long
from hwdkit.errors import EnvironmentFailure, UsageError


def require_possible(option: str, path: Path) -> Path:
    """Hand a path back if the system can look at it, whether or not there is anything.

    Raises:
        UsageError: a name that is too long, a file where a folder is needed, a folder without permission.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        taken = next((parent for parent in path.parents if parent.is_file()), path.parent)
        raise UsageError(f"{option}: {_short(path)}: {taken} is a file, not a folder") from None
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{option}: {_short(path)}: {reason}") from None
    return path


def require_folder(option: str, path: Path) -> Path:
    """Hand a path back unless something else than a folder is there.

    Raises:
        UsageError: it is, or `require_possible`'s.
    """
    if require_possible(option, path).exists() and not path.is_dir():
        raise UsageError(f"{option}: {path} is a file, not a folder")
    return path


def require_writable(option: str, folder: Path, *, path: Path | None = None) -> Path:
    """Hand back a folder that files can be put into, made first where it is missing; nothing is made here.

    Args:
        option: what the command line calls it.
        folder: where the files go.
        path: the only file of interest there; None is the folder itself.

    Raises:
        UsageError: something else than a folder is in the way, or `require_possible`'s.
        EnvironmentFailure: the nearest folder that exists cannot be written.
    """
    if path is None:
        require_folder(option, folder)
    else:
        require_possible(option, path)
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise UsageError(f"{option}: {_short(path or folder)}: {nearest} is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        read_only = os.statvfs(nearest).f_flag & os.ST_RDONLY
        reason = os.strerror(errno.EROFS if read_only else errno.EACCES)
        raise EnvironmentFailure(
            f"cannot write: {reason}",
            where=_short(path or folder),
            hint=f"check {nearest} and its permissions, or name another {option}",
        )
    return folder


def require_new_file(option: str, path: Path, *, suffix: str) -> None:
    """Refuse a file that exists, cannot be named so, or has another suffix: nothing is overwritten.

    Raises:
        UsageError: saying which.
        EnvironmentFailure: its folder cannot be written.
    """
    require_possible(option, path)
    if path.suffix != suffix:
        raise UsageError(f"{option}: {path} does not end in {suffix}")
    if os.path.lexists(path):
        raise UsageError(f"{option}: {path} exists; nothing is overwritten, name a new file")
    if is_too_long(path.name):
        raise UsageError(f"{option}: {_short(path)} is longer than {LONGEST_NAME} bytes; name it shorter")
    require_writable(option, path.parent, path=path)


def require_empty(option: str, folder: Path) -> None:
    """Refuse a folder that holds something: what two runs write must not mix.

    Raises:
        UsageError: it does, is no folder, or cannot be one.
        EnvironmentFailure: it cannot be written.
    """
    require_possible(option, folder)
    try:
        if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
            require_writable(option, folder)
            return
    except OSError as error:
        raise UsageError(f"{option}: {folder} cannot be read ({error.strerror})") from error
    raise UsageError(f"{option}: {folder} is not an empty folder; name a new one")


def _short(path: Path) -> str:
    """A path for a message, with long names shortened."""
    name = path.name if len(path.name) <= 60 else f"{path.name[:40]}…"
    return str(path.parent / name) if len(str(path.parent)) < 200 else f"…/{name}"
