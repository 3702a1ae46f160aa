"""What happens at `hwdkit recipes list | show | validate | copy | schema`: data or text for the CLI to print.

No torch: an editor or a pre-commit hook may call these on every save.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from hwdkit.errors import EnvironmentFailure, HwdkitError, RecipeError, UsageError
from hwdkit.recipe.find import (
    PARTS,
    RECIPES,
    available,
    did_you_mean,
    find,
    is_path,
    named,
    recipes_of,
    shipped,
    shown,
    text,
    tree,
)
from hwdkit.recipe.load import base_files, by_name, dump, load, load_files
from hwdkit.recipe.published import Published, published
from hwdkit.recipe.schema import Network
from hwdkit.terminal import paths


def list_recipes() -> list[dict[str, Any]]:
    """One row a recipe that can be named.

    Keys: name, path, files, dataset, network, losses, miou (published, percent), measured, summary, error.
    Sorted by dataset, then by name. A broken file in ./recipes fills `error` with its first complaint rather
    than hiding all the others.
    """
    return sorted(map(_row, available()), key=lambda row: (row["dataset"], row["name"]))


def only(
    rows: list[dict[str, Any]], *, dataset: str | None = None, method: str | None = None
) -> list[dict[str, Any]]:
    """The rows of `list_recipes` for one dataset, and those whose names end in -METHOD; None = all.

    Raises:
        UsageError: no recipe of any dataset is named so; lists the methods that there are.
    """
    if method is not None and not any(row["name"].endswith(f"-{method}") for row in rows):
        known = sorted({row["name"].split("-", 2)[2] for row in rows if row["name"].count("-") >= 2})
        raise UsageError(
            f"no recipe is named ...-{method}.{did_you_mean(method, known)}",
            where="--method",
            hint=f"Known: {', '.join(known)}.",
        )
    return [
        row
        for row in rows
        if dataset in (None, row["dataset"]) and (method is None or row["name"].endswith(f"-{method}"))
    ]


def render_list(rows: list[dict[str, Any]]) -> Table:
    """The rows of `list_recipes` as a table for the terminal; dataset and network stand in the summary."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("recipe", "losses", "mIoU", "summary"):
        table.add_column(
            column, no_wrap=column in {"recipe", "mIoU"}, justify="right" if column == "mIoU" else "left"
        )
    for row in rows:
        about = f"not valid: {row['error']}" if row.get("error") else row["summary"]
        # A file's brackets are not markup.
        table.add_row(*map(Text, (row["name"], row["losses"], _number(row["miou"], row["measured"]), about)))
    return table


def show(name_or_path: str, *, resolved: bool = False, overrides: Sequence[str] = ()) -> str:
    """What a recipe needs and what is known of it, then its files; or with `resolved` all that it amounts to.

    Raises:
        RecipeError: not found or not valid; or overrides without `resolved`, which nothing would show.
    """
    if resolved:
        return dump(load(name_or_path, overrides=overrides))
    if overrides:
        raise RecipeError("--set changes the resolved recipe only", hint="Add --resolved.")
    part = Path(name_or_path) if is_path(name_or_path) else named(name_or_path, (*RECIPES, *PARTS))
    if part is not None and part.parent.name in PARTS:
        return text(part)
    paths = find(name_or_path)
    lines = [f"# {line}" for line in _header(show_data(name_or_path))]
    if len(paths) > 1:
        lines += ["", f"base: [{', '.join(path.stem for path in paths)}]"]
    for path in paths:
        lines += ["", *([f"--- # {shown(path)}"] if len(paths) > 1 else []), text(path).rstrip()]
    return "\n".join(lines) + "\n"


def show_data(name_or_path: str, *, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The resolved recipe, its files, how to run it and what is known of it, as JSON types."""
    recipe = load(name_or_path, overrides=overrides)
    command = "train-teacher" if recipe.student is None else "distill"
    needs = [f"data/{recipe.data.dataset} (hwdkit prepare-data {recipe.data.dataset})"]
    if recipe.student and recipe.teacher and recipe.teacher.recipe:
        needs.append(f"a finished run of {recipe.teacher.recipe}, or --teacher PATH")
    return {
        "recipe": recipe.model_dump(mode="json"),
        "files": [shown(path) for path in find(name_or_path)],
        "command": f"hwdkit {command} --recipe {name_or_path}",
        "needs": needs,
        "published": published(name_or_path).model_dump(mode="json"),
    }


def _header(data: dict[str, Any]) -> list[str]:
    """Command, needs, hardware, runtime and mIoU, one or more lines each."""
    known = Published.model_validate(data["published"])
    number = known.reported or "no published number for this setting"
    measured = f"measured here: {known.measured}" if known.measured else "not measured here"
    fields = {
        "Files": data["files"],
        "Command": [data["command"]],
        "Needs": data["needs"],
        "Hardware": [known.hardware],
        "Runtime": [known.runtime],
        "mIoU": [f"{number}; {measured}", known.note],
    }
    lines = [data["recipe"]["summary"]] if data["recipe"]["summary"] else []
    for label, values in fields.items():
        wrapped = [line for value in values for line in textwrap.wrap(value, 100, break_on_hyphens=False)]
        lines += [f"{label + ':' if not i else '':<10}{line}" for i, line in enumerate(wrapped)]
    return lines


def validate(names_or_paths: Iterable[str]) -> list[dict[str, str]]:
    """Load every recipe; a folder stands for the recipes in it, a student for each of its recipes.

    Returns:
        name and path of each, all valid.

    Raises:
        RecipeError: every fault of every file, one a line.
    """
    valid, faults, broken = [], dict[str, None](), 0
    for name_or_path in names_or_paths:
        try:
            recipes = dict(recipes_of(name_or_path))
        except RecipeError as error:
            faults[str(error)] = None
            broken += 1
            continue
        if not recipes:
            faults[f"{name_or_path}: no recipes in this folder"] = None
        for name, files in recipes.items():
            try:
                recipe = load_files(files, name=name)
            except RecipeError as error:
                faults[str(error)] = None  # a part's fault is one, however many recipes have the part
                broken += 1
            else:
                valid.append({"name": recipe.name, "path": shown(files[0])})
    if faults:
        raise RecipeError("\n".join(faults), hint=f"{broken} not valid, {len(valid)} valid." if valid else "")
    return valid


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
    for path in contents:
        paths.require_writable("DESTINATION", path.parent, path=path)
    for path, content in contents.items():
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


def _row(name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "path": "", "files": []}
    blank = {"dataset": "", "network": "", "losses": "", "miou": None, "measured": None, "summary": ""}
    try:
        row["files"] = [shown(path) for path in find(name)]
        row["path"] = row["files"][0]
        recipe, known = load(name), published(name)
    except HwdkitError as error:
        return {**row, **blank, "error": str(error).splitlines()[0]}
    network = recipe.student or recipe.teacher
    assert network is not None  # the schema wants something to train
    return {
        **row,
        "dataset": recipe.data.dataset,
        "network": _network(network),
        "losses": " + ".join(_term(name, loss.weight) for name, loss in recipe.losses.items() if loss.weight),
        "miou": known.miou,
        "measured": known.measured.model_dump() if known.measured else None,
        "summary": recipe.summary,
        "error": None,
    }


def _number(miou: float | None, measured: dict[str, Any] | None) -> str:
    """The published mIoU; where there is none, the measured one with a star."""
    if miou is None:
        return f"{measured['miou']:.2f}*" if measured else ""
    return f"{miou:.2f}"


def _network(network: Network) -> str:
    backbone = (network.backbone or "").partition(".")[0]  # without the tag of its weights
    return f"{network.head}-{backbone}"


def _term(name: str, weight: float) -> str:
    return name if weight == 1 else f"{weight:g} {name}".replace("e-0", "e-")
