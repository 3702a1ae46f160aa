"""From a recipe's name to its file: ./recipes, then $HWDKIT_RECIPES, then those that ship with hwdkit."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from hwdkit.errors import RecipeError

SUFFIXES = (".yaml", ".yml")


def find(name_or_path: str | os.PathLike[str]) -> Path:
    """The file that a user means.

    Args:
        name_or_path: a path (contains a slash or ends in .yaml or .yml), or a recipe's name.

    Raises:
        RecipeError: there is no such file or name; names the closest ones.
    """
    wanted = os.fspath(name_or_path)
    if is_path(wanted):
        return _existing(Path(wanted))
    for folder in search_path():
        for suffix in SUFFIXES:
            if (candidate := folder / f"{wanted}{suffix}").is_file():
                return candidate
    known = [path.stem for path in available()]
    raise RecipeError(
        f"unknown recipe {wanted!r}.{did_you_mean(wanted, known)}", hint="See: hwdkit recipes list"
    )


def available() -> list[Path]:
    """Every recipe that `find` knows by name, sorted by name; the first of two namesakes wins."""
    by_name: dict[str, Path] = {}
    for folder in search_path():
        for path in listed(folder):
            by_name.setdefault(path.stem, path)
    return [by_name[name] for name in sorted(by_name)]


def listed(folder: Path) -> list[Path]:
    """The recipes of one folder. Names with a leading underscore are bases: shared parts, not recipes."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and not p.name.startswith("_"))


def search_path() -> list[Path]:
    """The folders that are searched for names, in order."""
    extra = [Path(part) for part in os.environ.get("HWDKIT_RECIPES", "").split(os.pathsep) if part]
    return [Path("recipes"), *extra, shipped()]


def shipped() -> Path:
    """The folder of the recipes that come with hwdkit."""
    inside = Path(str(files("hwdkit") / "recipes"))
    # The wheel carries them inside the package; in an editable install they stay beside it.
    return inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "recipes"


def is_path(name_or_path: str) -> bool:
    """Whether `find` takes this for a path rather than a name."""
    return "/" in name_or_path or os.sep in name_or_path or name_or_path.endswith(SUFFIXES)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing when no known word is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        raise RecipeError("is a folder, not a recipe", where=str(path), hint="See: hwdkit recipes list")
    nearby = [str(path.parent / p.name) for p in listed(path.parent)] + [p.stem for p in available()]
    raise RecipeError(
        f"no such recipe file.{did_you_mean(str(path), nearby) or did_you_mean(path.stem, nearby)}",
        where=str(path),
        hint="See: hwdkit recipes list",
    )
