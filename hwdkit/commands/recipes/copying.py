"""A copy of a recipe that loads by itself. No torch here."""

from __future__ import annotations

from pathlib import Path

from hwdkit.errors import EnvironmentFailure, RecipeError
from hwdkit.recipe.find import find, shipped, shown, tree
from hwdkit.recipe.load import base_files, by_name, dump, load
from hwdkit.terminal import paths


def copy(name_or_path: str, dest: Path, *, resolved: bool = False) -> list[Path]:
    """Copy a recipe so that the copy loads by itself: on parts that have names, or resolved into one.

    Args:
        dest: the new file (.yaml), or a folder that keeps the name.

    Returns:
        The files written, the recipe first; then the bases beside it that no name leads to.

    Raises:
        RecipeError: a file exists already with other content, or a base does not lie beside the recipe.
        UsageError: a file is in the way of the folder, or the name cannot be.
        EnvironmentFailure: the folder cannot be written, or is full.
    """
    sources = find(name_or_path)
    name = f"{name_or_path}.yaml" if len(sources) > 1 else sources[0].name
    target = dest if dest.suffix in {".yaml", ".yml"} else dest / name
    recipe = load(name_or_path)  # a recipe that does not load is not worth copying
    if resolved:
        contents = {target: dump(recipe.model_copy(update={"name": target.stem})).encode()}
    elif len(sources) > 1:
        parts = ", ".join(source.stem for source in sources)
        about = f"# {recipe.summary}. What is written below wins over both parts.\n"
        contents = {target: f"{about}base: [{parts}]\n".encode()}
    else:
        contents = {target: sources[0].read_bytes()}
        for base in _bases_beside(sources[0]):
            contents[target.parent / base.name] = base.read_bytes()
    for path, content in contents.items():
        paths.require_writable("DESTINATION", path.parent, path=path)
        shared = path != target and path.is_file() and path.read_bytes() == content
        if path.exists() and not shared:
            raise RecipeError("exists already", where=str(path), hint="Choose another destination.")
    for path, content in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise EnvironmentFailure(f"cannot write: {error.strerror}", where=str(path)) from error
    return list(contents)


def _bases_beside(source: Path) -> list[Path]:
    """The bases under a recipe that a copy needs beside it, nearest first: all but those that have a name."""
    needed: list[Path] = []
    for base, files in base_files(source).items():
        if not _has_a_name(base, files, source):
            for file in files:
                if file.parent.resolve() != source.parent.resolve():
                    raise RecipeError(
                        f"its base {shown(file)} lies in another folder",
                        where=shown(source),
                        hint="Copy with --resolved.",
                    )
                needed += [file, *_bases_beside(file)]
    return list(dict.fromkeys(needed))


def _has_a_name(base: str, files: tuple[Path, ...], source: Path) -> bool:
    """Whether a base means the same files in every folder, and is no piece of the recipe's own folder."""
    try:
        same = [path.resolve() for path in by_name(base)] == [path.resolve() for path in files]
    except RecipeError:
        return False
    return same and (tree(source).resolve() == shipped().resolve() or files[0].parent != source.parent)
