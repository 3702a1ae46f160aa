"""Distil semantic-segmentation networks: a big teacher teaches a small student. docs/python.md shows how.

Public names are those of `hwdkit.api` and `hwdkit.losses`. They are imported when they are first used:
`import hwdkit` loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hwdkit.api import *  # noqa: F403
    from hwdkit.losses import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Import a submodule, or a public name (PEP 562)."""
    from importlib import import_module
    from importlib.util import find_spec

    if not name.startswith("_"):
        if find_spec(f"hwdkit.{name}"):
            return import_module(f"hwdkit.{name}")
        if name in (public := _public()):
            return public[name]
    raise AttributeError(f"module 'hwdkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", "losses", *sorted(_public())]


def _public() -> dict[str, Any]:
    from hwdkit import api, losses

    functions = {name: getattr(api, name) for name in api.__all__}
    classes: tuple[type, ...] = (losses.Loss, *losses.LOSSES.values())
    return functions | {loss.__name__: loss for loss in classes}
