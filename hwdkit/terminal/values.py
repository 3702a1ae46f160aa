"""Read values from the command line; what is no such value is a `UsageError`. No torch here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hwdkit.errors import UsageError
from hwdkit.terminal.launch import Launch


def launch_plan(*, gpus: str, nnodes: str = "1", **others: Any) -> Launch:
    """The launch options, checked as far as that needs no torch."""
    if gpus != "auto" and not gpus.isdecimal():
        raise UsageError(f"--gpus: {gpus!r} is neither auto nor a number")
    least, colon, most = nnodes.partition(":")
    if not (least.isdecimal() and (most.isdecimal() or not colon) and 1 <= int(least) <= int(most or least)):
        raise UsageError(f"--nnodes: {nnodes!r} is neither N nor MIN:MAX")
    endpoint = others.get("rdzv_endpoint")
    if nnodes != "1" and endpoint is None:
        raise UsageError("--nnodes needs --rdzv-endpoint HOST:PORT: one of the machines, the same on all")
    if endpoint is not None and not re.fullmatch(r".+:\d+", endpoint):
        raise UsageError(f"--rdzv-endpoint: {endpoint!r} is not HOST:PORT")
    ranks = others.get("ranks")
    if gpus not in ("auto", "0") and ranks is not None and gpus.isdecimal() and ranks > int(gpus):
        raise UsageError(f"--ranks {ranks} with --gpus {gpus}: each process needs a GPU of its own")
    return Launch(gpus=gpus if gpus == "auto" else str(int(gpus)), nnodes=nnodes, **others)


def one_device(plan: Launch) -> bool:
    """Whether a command that uses one device uses the CPU; a GPU that is asked for must be there."""
    if plan.gpus not in ("auto", "0", "1"):
        plan.processes()  # the plainer error where there are not so many
        raise UsageError(f"--gpus {plan.gpus}: this command uses one GPU at most")
    plan.processes()
    return plan.cpu


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise UsageError(f"{option}: {value!r} is not one of {', '.join(allowed)}")
    return value


def height_by_width(option: str, text: str, *, least: int) -> tuple[int, int]:
    """Read 512x1024.

    Args:
        option: what to call it in an error.
        text: what was typed.
        least: pixels that a side has at least; it has five digits at most.

    Raises:
        UsageError: it is something else.
    """
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.lower(), re.ASCII)
    if match is None or min(int(match[1]), int(match[2])) < least:
        pixels = f"{least} pixel{'s' * (least > 1)} to 99999 a side"
        raise UsageError(f"{option}: {text!r} is not HEIGHTxWIDTH, {pixels}, e.g. 512x1024")
    return int(match[1]), int(match[2])


def scales(option: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option}: {text!r} is not a list of numbers such as 0.75,1.0,1.25") from None
    if not all(0.1 <= number <= 10 for number in numbers):
        raise UsageError(f"{option}: {text!r}: every scale must lie within 0.1 and 10")
    return numbers


def compared(texts: Iterable[str]) -> dict[str, Path]:
    """NAME=CHECKPOINT, each name once and none that the report uses itself."""
    named: dict[str, Path] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if not (name and path):
            raise UsageError(f"--compare: {text!r} is not NAME=CHECKPOINT, such as cwd=runs/cwd")
        if name in named or name in ("teacher", "baseline", "student"):
            raise UsageError(f"--compare: the name {name!r} is taken; choose another")
        named[name] = Path(path)
    return named


def classes(texts: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """The classes that --classes names, upper and lower case alike; none means all.

    Args:
        texts: a class name each, or several with commas between them.
        known: all classes.

    Raises:
        UsageError: there is no such class.
    """
    spelled = {name.casefold(): name for name in known}
    # A class's own name may hold commas.
    words = [word for text in texts for word in ([text] if text.casefold() in spelled else text.split(","))]
    names = []
    for word in (word.strip() for word in words):
        if word.casefold() not in spelled:
            near = difflib.get_close_matches(word.casefold(), spelled, n=1)
            hint = f"did you mean {spelled[near[0]]!r}?" if near else f"there are: {', '.join(known[:20])}"
            raise UsageError(f"--classes: there is no class {word!r}", hint=hint)
        names.append(spelled[word.casefold()])
    return tuple(names)


def seconds(text: str | None) -> float | None:
    """'11h30m' -> 41400.0; a bare number is seconds."""
    if text is None:
        return None
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text)
    if not text or match is None or not any(match.groups()):
        raise UsageError(f"--max-time: {text!r} is not a duration such as 90s, 45m or 11h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(3600 * hours + 60 * minutes + seconds)
