"""How long a file's name may be, for all who make files. No torch, no numpy: the command line asks, too."""

from __future__ import annotations

import os

LONGEST_NAME = 220
"""Bytes; file systems allow 255, of which a file that is being written needs some."""


def is_too_long(name: str) -> bool:
    """Whether no file should be called so; of a path the last part only."""
    return len(os.fsencode(name)) > LONGEST_NAME
