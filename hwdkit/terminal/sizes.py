"""HEIGHTxWIDTH on the command line. No torch here."""

from __future__ import annotations

import re

from hwdkit.errors import UsageError


def height_by_width(option: str, text: str, *, least: int) -> tuple[int, int]:
    """Read 512x1024.

    Args:
        option: what to call it in an error.
        text: what was typed.
        least: pixels that a side has at least; five digits are the most.

    Raises:
        UsageError: it is something else.
    """
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.lower(), re.ASCII)
    if found is None or min(int(found[1]), int(found[2])) < least:
        pixels = f"{least} pixel{'s' * (least > 1)} to 99999 a side"
        raise UsageError(f"{option}: {text!r} is not HEIGHTxWIDTH, {pixels}, e.g. 512x1024")
    return int(found[1]), int(found[2])
