"""hwdkit recipes list | show | validate | copy | schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hwdkit.cli.old_options import DatasetName, Json, Set, app
from hwdkit.terminal import exits

recipes_app = typer.Typer(
    help="List, show, validate and copy recipes.",
    no_args_is_help=True,
    epilog="Example:  hwdkit recipes list --dataset cityscapes",
)
app.add_typer(recipes_app, name="recipes")


@recipes_app.command("list", epilog="Example:  hwdkit recipes list --dataset ade20k")
def recipes_list(
    dataset: Annotated[DatasetName | None, typer.Option(help="Only recipes for this dataset.")] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help="Only recipes whose names end in -METHOD, such as cirkd."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the recipes that can be named: weights of their losses, published mIoU (* = measured here)."""
    from hwdkit.commands import recipes as command

    rows = command.only(command.list_recipes(), dataset=dataset, method=method)
    exits.print_result({"recipes": rows}, as_json, lambda: command.render_list(rows))


@recipes_app.command("show", epilog="Example:  hwdkit recipes show ade20k-r18-hwd --resolved")
def recipes_show(
    name: Annotated[str, typer.Argument(help="A recipe's name or path.")],
    resolved: Annotated[
        bool, typer.Option("--resolved", help="With all parts and defaults written out.")
    ] = False,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Print a recipe's files, what it needs and what is known of it."""
    from hwdkit.commands import recipes as command

    if as_json:
        exits.print_result(command.show_data(name, overrides=set_ or []), True, str)
    else:
        exits.print_result({}, False, lambda: command.show(name, resolved=resolved, overrides=set_ or []))


@recipes_app.command("validate", epilog="Example:  hwdkit recipes validate my/*.yaml")
def recipes_validate(
    names: Annotated[list[str], typer.Argument(help="Recipes' names or paths.")], as_json: Json = False
) -> None:
    """Check recipes completely; exit 3 with every error."""
    from hwdkit.commands import recipes as command

    valid = command.validate(names)
    exits.print_result(
        {"valid": valid}, as_json, lambda: f"{len(valid)} recipe{'s are' if len(valid) != 1 else ' is'} valid"
    )


@recipes_app.command(
    "copy", epilog="Example:  hwdkit recipes copy ade20k-r18-hwd my/ade20k-mine.yaml --resolved"
)
def recipes_copy(
    name: Annotated[str, typer.Argument(help="A recipe's name or path.")],
    destination: Annotated[Path, typer.Argument(help="A folder, or a new file.")],
    resolved: Annotated[
        bool, typer.Option("--resolved", help="One file with everything written out.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy a recipe, to change it; nothing is overwritten."""
    from hwdkit.commands import recipes as command

    written = [str(path) for path in command.copy(name, destination, resolved=resolved)]
    exits.print_result({"written": written}, as_json, lambda: "\n".join(written))


@recipes_app.command("schema", epilog="Example:  hwdkit recipes schema > recipe.schema.json")
def recipes_schema(
    as_json: Annotated[bool, typer.Option("--json", hidden=True, help="It is JSON anyway.")] = False,
) -> None:
    """Print the JSON Schema of recipes, for editors."""
    from hwdkit.recipe.json_schema import json_schema

    schema = json.dumps(json_schema(), indent=2)
    exits.print_result({}, False, lambda: schema)
