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
    """Import a submodule, or a public name from its home (PEP 562)."""
    from importlib import import_module
    from importlib.util import find_spec

    if name.startswith("_"):
        raise AttributeError(f"module 'hwdkit' has no attribute {name!r}")
    if find_spec(f"hwdkit.{name}"):
        return import_module(f"hwdkit.{name}")
    for home in ("hwdkit.api", "hwdkit.losses"):
        module = import_module(home)
        if name in module.__all__:
            return getattr(module, name)
    raise AttributeError(f"module 'hwdkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    from importlib import import_module

    public = (import_module(home).__all__ for home in ("hwdkit.api", "hwdkit.losses"))
    return sorted({"__version__", *(name for names in public for name in names)})
