"""What happens at `hwdkit recipes list | show | validate | copy | schema`: data or text for the CLI to print.

No torch: an editor or a pre-commit hook may call these on every save.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hwdkit.errors import EnvironmentFailure, HwdkitError, RecipeError, UsageError
from hwdkit.recipe.complaints import LOSS_OPTIONS
from hwdkit.recipe.find import available, did_you_mean, find, listed
from hwdkit.recipe.load import base_files, dump, load, shown
from hwdkit.recipe.schema import Network, Recipe
from hwdkit.report.table import Column, Table
from hwdkit.terminal import paths


def list_recipes() -> list[dict[str, Any]]:
    """One row a recipe that can be named: name, dataset, network, losses, summary, path, error.

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
    columns = [Column(each, left=True, whole=each == "recipe") for each in ("recipe", "losses", "summary")]
    cells = []
    for row in rows:
        about = f"not valid: {row['error']}" if row.get("error") else row["summary"]
        cells.append((row["name"], row["losses"], about))
    return Table(columns, cells)


def show(name_or_path: str, *, resolved: bool = False, overrides: Sequence[str] = ()) -> str:
    """A recipe's own text with its comments, or with `resolved` everything that it amounts to.

    Raises:
        RecipeError: not found or not valid; or overrides without `resolved`, which nothing would show.
    """
    if resolved:
        return dump(load(name_or_path, overrides=overrides))
    if overrides:
        raise RecipeError("--set changes the resolved recipe only", hint="Add --resolved.")
    return find(name_or_path).read_text(encoding="utf-8")


def show_data(name_or_path: str, *, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The resolved recipe as JSON types."""
    return load(name_or_path, overrides=overrides).model_dump(mode="json")


def validate(paths: Iterable[str]) -> list[dict[str, str]]:
    """Load every recipe; a folder stands for the recipes in it.

    Returns:
        name and path of each, all valid.

    Raises:
        RecipeError: every fault of every file, one a line.
    """
    valid, faults, broken = [], [], 0
    for wanted in paths:
        folder = Path(wanted)
        inside = listed(folder) if folder.is_dir() else [wanted]
        if not inside:
            faults.append(f"{wanted}: no recipes in this folder")
        for one in inside:
            try:
                recipe = load(one)
            except RecipeError as error:
                faults.append(str(error))
                broken += 1
            else:
                valid.append({"name": recipe.name, "path": shown(find(one))})
    if faults:
        raise RecipeError("\n".join(faults), hint=f"{broken} not valid, {len(valid)} valid." if valid else "")
    return valid


def copy(name_or_path: str, dest: Path, *, resolved: bool = False) -> list[Path]:
    """Copy a recipe so that the copy loads by itself: with its bases beside it, or resolved into one file.

    Args:
        dest: the new file (.yaml), or a folder that keeps the name.

    Returns:
        The files written, the recipe first.

    Raises:
        RecipeError: a file exists already with other content, or a base does not lie beside the recipe.
        UsageError: a file is in the way of the folder, or the name cannot be.
        EnvironmentFailure: the folder cannot be written, or is full.
    """
    source = find(name_or_path)
    target = dest if dest.suffix in {".yaml", ".yml"} else dest / source.name
    if resolved:
        recipe = load(source).model_copy(update={"name": target.stem})
        contents = {target: dump(recipe).encode()}
    else:
        load(source)  # a recipe that does not load is not worth copying
        contents = {target: source.read_bytes()}
        for base in _all_bases(source):
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


def schema() -> dict[str, Any]:
    """JSON Schema of a recipe file, for editors.

    Nothing is required in it, since a base may supply any key, and `base` is allowed.
    """
    whole = Recipe.model_json_schema()
    definitions = whole["$defs"]
    for section in (whole, *definitions.values()):
        section.pop("required", None)
    name = {"type": "string"}
    whole["properties"]["base"] = {
        "description": "a file or recipe that this one builds on, or a list of them",
        "anyOf": [name, {"type": "array", "items": name}],
    }
    # Under its own name an entry needs no `loss` key; under another name it does.
    entries = {
        loss: {"anyOf": [{"$ref": f"#/$defs/{options.__name__}"}, {"type": "null"}]}
        for loss, options in LOSS_OPTIONS.items()
    }
    named = {"required": ["loss"], "oneOf": whole["properties"]["losses"]["additionalProperties"]["oneOf"]}
    whole["properties"]["losses"] = {"type": "object", "properties": entries, "additionalProperties": named}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}


def _all_bases(source: Path) -> list[Path]:
    """Every base file under a recipe, nearest first."""
    found: list[Path] = []
    for base in base_files(source):
        if base.parent.resolve() != source.parent.resolve():
            raise RecipeError(
                f"its base {shown(base)} lies in another folder",
                where=shown(source),
                hint="Copy with --resolved.",
            )
        found += [base, *_all_bases(base)]
    return list(dict.fromkeys(found))


def _row(path: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"name": path.stem, "path": shown(path)}
    try:
        recipe = load(path)
    except HwdkitError as error:
        blank = {"dataset": "", "network": "", "losses": "", "summary": ""}
        return {**row, **blank, "error": str(error).splitlines()[0]}
    network = recipe.student or recipe.teacher
    assert network is not None  # the schema wants something to train
    return {
        **row,
        "dataset": recipe.data.dataset,
        "network": _network(network),
        "losses": " + ".join(_term(name, loss.weight) for name, loss in recipe.losses.items() if loss.weight),
        "summary": recipe.summary,
        "error": None,
    }


def _network(network: Network) -> str:
    backbone = (network.backbone or "").partition(".")[0]  # without the tag of its weights
    return f"{network.head}-{backbone}"


def _term(name: str, weight: float) -> str:
    return name if weight == 1 else f"{weight:g} {name}".replace("e-0", "e-")
