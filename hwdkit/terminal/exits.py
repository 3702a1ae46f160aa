"""How a command ends: its result on stdout, or one error on stderr with the documented exit code.

With --json stdout holds exactly one document, whether the command succeeds or fails. No torch here, and what
only an error needs is imported when there is one: this module is part of every start.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hwdkit.errors import EnvironmentFailure, HwdkitError, UsageError

_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS)


class _Stdout:
    """Whether stdout has its one JSON document."""

    has_document = False


def begin() -> None:
    """Forget an earlier command of this process; characters that stdout cannot encode become `?`."""
    _Stdout.has_document = False
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def print_result(
    result: dict[str, Any], as_json: bool, render: Callable[[], Any], *, error: HwdkitError | None = None
) -> None:
    """Print a command's result on stdout: one JSON document, or what `render` makes for people."""
    from hwdkit.terminal import console

    if as_json:
        verdict = _failure(error) if error else {"status": "ok"}
        console.write(_document({"schema_version": 1, **verdict, **result}))
    else:
        console.print_result(render())


def _document(value: dict[str, Any]) -> str:
    _Stdout.has_document = True
    return json.dumps(_finite(value), indent=2) + "\n"


def _finite(value: Any) -> Any:
    """NaN and infinity are no JSON: null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def usage(error: Any) -> int:
    """Report typer's own usage error, which has no public class to catch, as ours."""
    text = error.format_message()
    if not text or "NoArgs" in type(error).__name__:
        sys.stdout.write(f"{text}\n" if text else "")  # the help; pages with boxes have been printed already
        return int(error.exit_code)
    message = " ".join(text.split()).replace("Value error, ", "")
    command = error.ctx.command_path if getattr(error, "ctx", None) else "hwdkit"
    complaint = UsageError(message.rstrip("."), hint=f"see: {command} --help")
    return complain(complaint)


def of_system(error: OSError) -> int:
    """Report a full disk, a missing permission or too long a name; any other OSError is a bug."""
    if error.errno == errno.ENAMETOOLONG:  # a name on the command line; what hwdkit writes itself is short
        return complain(UsageError(f"{error.filename}: {error.strerror}"))
    full = error.errno in (errno.EDQUOT, errno.EIO, errno.ENOSPC)
    if full or (error.errno in _REFUSALS and error.filename is not None):
        where = "" if error.filename is None else str(error.filename)
        hint = "check the free space and the permissions"
        return complain(EnvironmentFailure(str(error.strerror), where=where, hint=hint))
    return bug(error)


def bug(error: Exception) -> int:
    """Report any other exception as a bug of hwdkit, with its traceback."""
    from hwdkit.terminal import launch

    if launch.echoes_another(error):
        return 1
    traceback.print_exception(error)
    failure = HwdkitError(
        f"{type(error).__name__}: {error}",
        hint="this is a bug in hwdkit: please report it with the traceback above",
    )
    if not launch.report_error(failure, printed=_Stdout.has_document):
        sys.stderr.write(f"error[{failure.kind}]: {failure}\n")
        _write_failure(failure)
    return 1


def complain(error: HwdkitError) -> int:
    """Print an error on stderr, and with --json as the one document on stdout."""
    from hwdkit.terminal import launch

    if os.environ.get("HWDKIT_DEBUG", "0") != "0":
        traceback.print_exception(error)
    if launch.report_error(error, printed=_Stdout.has_document):
        return error.exit_code
    who = "" if launch.speaks() else f" (rank {os.environ.get('RANK', os.environ.get('SLURM_PROCID'))})"
    sys.stderr.write(_printable(f"error[{error.kind}]{who}: {error}") + "\n")
    if not getattr(error, "printed", False):
        with suppress(EnvironmentFailure):  # stdout is closed or full: the error itself matters more
            _write_failure(error)
    return error.exit_code


def _printable(text: str) -> str:
    """Names of files may hold control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def _write_failure(error: HwdkitError) -> None:
    from hwdkit.terminal import console, launch

    if "--json" in sys.argv[1:] and launch.speaks() and not _Stdout.has_document:
        console.write(_document({"schema_version": 1, **_failure(error)}))


def _failure(error: HwdkitError) -> dict[str, Any]:
    return {"status": "error", "exit_code": error.exit_code, "error": error.details()}
