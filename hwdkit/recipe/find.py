"""From a recipe's name to its files: ./recipes, then $HWDKIT_RECIPES, then those that ship with hwdkit.

A name is a file's, or a student's and a method's with a hyphen between. `load.py` reads what the files say.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

from hwdkit.errors import RecipeError
from hwdkit.recipe.written import MAX_CHARACTERS, parse

SUFFIXES = (".yaml", ".yml")
PARTS = ("students", "methods", "datasets")
RECIPES = ("", "teachers")
PUBLISHED = "published.yaml"


def find(name_or_path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The files that make a recipe: its own, or a student's and a method's.

    Args:
        name_or_path: a path (contains a slash or ends in .yaml or .yml), or a recipe's name. A file of that
            name wins; else it is the longest name of a student that a method's name follows.

    Raises:
        RecipeError: there is no such file or name; names the closest ones.
    """
    name = os.fspath(name_or_path)
    if is_path(name):
        return (_existing(Path(name)),)
    if path := named(name, RECIPES):
        return (path,)
    for hyphen in reversed([i for i, character in enumerate(name) if character == "-"]):
        student, method = named(name[:hyphen], ["students"]), named(name[hyphen + 1 :], ["methods"])
        if student and method and not method.name.startswith("_"):
            return student, method
    raise _unknown(name)


def available() -> list[str]:
    """Every recipe's name, sorted: the files, and each student with the methods that it lists.

    A student whose file cannot be read stands here by itself: loading it says what is wrong.
    """
    names = set(files_of(*RECIPES))
    for student, path in files_of("students").items():
        try:
            names.update(f"{student}-{method}" for method in methods_of(path))
        except RecipeError:
            names.add(student)
    return sorted(names)


def methods_of(student: Path) -> dict[str, str]:
    """The methods that a student's file lists, and where; without the key `methods`, all that can be found.

    Raises:
        RecipeError: the file cannot be read, or `methods` is not a list.
    """
    root = parse(text(student), file=shown(student))
    key = root.value.get("methods") if root is not None and isinstance(root.value, dict) else None
    if key is None:
        return dict.fromkeys(files_of("methods"), shown(student))
    if not isinstance(key.value, list):
        raise RecipeError("methods: must be a list of methods' names", where=str(key.place))
    return {str(method.value): str(method.place) for method in key.value}


def files_of(*kinds: str) -> dict[str, Path]:
    """All that `named` finds in these subfolders, the shared bases aside; the first of two namesakes wins."""
    by_name: dict[str, Path] = {}
    for path in (path for folder in search_path() for kind in kinds for path in listed(folder / kind)):
        by_name.setdefault(path.stem, path)
    return by_name


def recipes_of(name_or_path: str) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Names and files of the recipes that a name, a file or a folder stands for."""
    path = Path(name_or_path)
    if path.is_dir():
        for kind in (*RECIPES, "students", "methods"):
            for inside in listed(path / kind):
                yield from recipes_of(os.path.join(".", inside))
        return
    files = find(name_or_path)
    kind, folders = files[0].parent.name, [tree(files[0])]
    if len(files) == 1 and kind == "students":
        for method, where in methods_of(path).items():
            file = named(method, ["methods"], under=folders) or named(method, ["methods"])
            if file is None:
                names = {one.stem for one in listed(folders[0] / "methods")} | set(files_of("methods"))
                message = f"methods: unknown method {method!r}.{did_you_mean(method, names)}"
                raise RecipeError(message, where=where)
            yield f"{path.stem}-{method}", (path, file)
    elif len(files) == 1 and kind == "methods":
        student = next(iter([*listed(folders[0] / "students"), *files_of("students").values()]))
        yield f"{student.stem}-{path.stem}", (student, path)
    else:
        yield (files[0].stem if len(files) == 1 else name_or_path), files


def named(name: str, kinds: Iterable[str], *, under: Iterable[Path] | None = None) -> Path | None:
    """The first file of that name, `kinds` being the subfolders to look into ("" is the folder itself).

    Args:
        under: the folders to look into; default: the search path.
    """
    if not name or "/" in name or os.sep in name:
        return None
    for folder in search_path() if under is None else under:
        for kind in kinds:
            for suffix in SUFFIXES:
                path = folder / kind / f"{name}{suffix}"
                if path.is_file() and path.name != PUBLISHED:
                    return path
    return None


def listed(folder: Path) -> list[Path]:
    """The files of one folder that can be named. A leading underscore marks a base: a shared piece."""
    if not folder.is_dir():
        return []
    files = (p for p in folder.iterdir() if p.suffix in SUFFIXES and p.name != PUBLISHED)
    return sorted((p for p in files if not p.name.startswith("_")), key=lambda p: p.stem)


def tree(path: Path) -> Path:
    """The folder that holds a file's students/, methods/, datasets/ and teachers/."""
    return path.parent.parent if path.parent.name in (*PARTS, "teachers") else path.parent


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


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing when no known word is close."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def shown(path: Path) -> str:
    """A path as messages print it: relative to the working directory when it lies below."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)


def text(path: Path) -> str:
    """A recipe file's text.

    Raises:
        RecipeError: too large, not UTF-8, or not readable.
    """
    try:
        if path.stat().st_size > MAX_CHARACTERS:
            raise RecipeError(f"larger than {MAX_CHARACTERS:,} bytes; this is no recipe", where=shown(path))
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise RecipeError("is not UTF-8 text", where=shown(path)) from None
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", where=shown(path)) from None


def _unknown(name: str) -> RecipeError:
    """What is wrong with a name, by the half of it that is known."""
    students, methods = files_of("students"), files_of("methods")
    if name in students:
        example = f"{name}-{[*methods_of(students[name]), *methods][0]}"
        return RecipeError(
            f"{name!r} is a student; put a method behind it, as in {example}",
            hint=f"Methods: {', '.join(methods)}.",
        )
    if name in methods:
        return RecipeError(
            f"{name!r} is a method; put a student before it, as in {next(iter(students))}-{name}",
            hint=f"Students: {', '.join(students)}.",
        )
    student = max((s for s in students if name.startswith(f"{s}-")), key=len, default="")
    if student:
        rest = name.removeprefix(f"{student}-")
        files = [file.removeprefix(f"{student}-") for file in files_of("") if file.startswith(f"{student}-")]
        close = difflib.get_close_matches(rest, [*methods, *files], n=1)
        if not close:
            message = f"unknown recipe {name!r}: {student} is a student, but {rest!r} is not a method"
            return RecipeError(message, hint=f"Methods: {', '.join(methods)}.")
        suggestion = f" Did you mean '{student}-{close[0]}'?"
    else:
        composed = [f"{student}-{method}" for student in students for method in methods]
        suggestion = did_you_mean(name, [*available(), *composed])
    return RecipeError(f"unknown recipe {name!r}.{suggestion}", hint="See: hwdkit recipes list")


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    if path.is_dir():
        raise RecipeError("is a folder, not a recipe", where=str(path), hint="See: hwdkit recipes list")
    nearby = [str(path.parent / p.name) for p in listed(path.parent)] + available()
    raise RecipeError(
        f"no such recipe file.{did_you_mean(str(path), nearby) or did_you_mean(path.stem, nearby)}",
        where=str(path),
        hint="See: hwdkit recipes list",
    )
