"""User mistakes and machine failures, each with the exit code that docs/cli.md documents.

Anything that is not a HwdkitError is a bug in hwdkit: it keeps its traceback and exits 1.
"""


class HwdkitError(Exception):
    """A failure that the user can mend: says what is wrong, where, and what to do.

    Args:
        message: what is wrong, in one line or a short list of lines.
        where: file:line, dotted key or path; empty when the message already says it.
        hint: how to mend it, usually a command to type.
    """

    exit_code = 1
    kind = "internal"

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def details(self) -> dict[str, str]:
        """`error` of a JSON document."""
        return {"kind": self.kind, "message": self.message, "where": self.where, "hint": self.hint}

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\n  {self.hint}" if self.hint else text


class UsageError(HwdkitError):
    """Invalid command line."""

    exit_code = 2
    kind = "usage"


class RecipeError(HwdkitError):
    """Unknown recipe or key, bad value, or a run directory that is already used."""

    exit_code = 3
    kind = "recipe"


class DataError(HwdkitError):
    """Missing or unpaired files, unknown label ids, undecodable images."""

    exit_code = 4
    kind = "data"


class CheckpointError(HwdkitError):
    """A checkpoint that is missing, damaged, unsafe, or made for another network."""

    exit_code = 5
    kind = "checkpoint"


class EnvironmentFailure(HwdkitError):
    """The machine lacks what was asked for: a GPU, an extra, disk space, a free port."""

    exit_code = 6
    kind = "environment"


class DivergedError(HwdkitError):
    """A loss term became non-finite."""

    exit_code = 7
    kind = "diverged"


class OutOfMemory(HwdkitError):
    """The device or the host ran out of memory."""

    exit_code = 8
    kind = "memory"


class GateError(HwdkitError):
    """A measured value missed the bound that the caller set (--fail-under, budgets)."""

    exit_code = 9
    kind = "gate"


class Interrupted(HwdkitError):
    """Stopped by SIGTERM or a time limit after saving; the run can be resumed."""

    exit_code = 75
    kind = "interrupted"


class Cancelled(HwdkitError):
    """Stopped by Ctrl-C after saving; the run can be resumed."""

    exit_code = 130
    kind = "cancelled"
