"""List, show, validate and copy recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hwdkit.terminal.command import Result, command, options, subcommands
from hwdkit.terminal.options import KnownDataset, Set

group = subcommands("recipes", about=__doc__, example="hwdkit recipes list --dataset cityscapes")


@options
class OfRecipe:
    """The argument of show and copy."""

    name: Annotated[str, typer.Argument(help="A recipe's name or path.")]


@command(group=group, example="hwdkit recipes list --dataset ade20k")
class List:
    """List all recipes with the weights of their losses and the published mIoU (* = measured here)."""

    dataset: Annotated[KnownDataset | None, typer.Option(help="Only recipes for this dataset.")] = None
    method: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help="Only recipes whose names end in -METHOD, such as cirkd."),
    ] = None

    def run(self) -> Result:
        from hwdkit.commands.recipes import listing

        rows = listing.only(listing.list_recipes(), dataset=self.dataset, method=self.method)
        return Result({"recipes": rows}, lambda: listing.render(rows))


@command(group=group, example="hwdkit recipes show ade20k-r18-hwd --resolved")
class Show(OfRecipe):
    """Print a recipe's files, what it needs and its published numbers."""

    resolved: Annotated[bool, typer.Option("--resolved", help="With all parts and defaults written out.")] = (
        False
    )
    overrides: Set = None

    def run(self) -> Result:
        from hwdkit.commands.recipes import contents

        part, overrides = contents.part(self.name), self.overrides or []
        data = contents.of_part(part) if part else contents.of_recipe(self.name, overrides=overrides)
        return Result(data, lambda: contents.show(self.name, resolved=self.resolved, overrides=overrides))


@command(group=group, example="hwdkit recipes validate my/*.yaml")
class Validate:
    """Check recipes completely; exit 3 with every error."""

    names: Annotated[list[str], typer.Argument(help="Recipes' names or paths.")]

    def run(self) -> Result:
        from hwdkit.commands.recipes import contents

        valid = contents.validate(self.names)
        return Result(
            {"valid": valid}, lambda: f"{len(valid)} recipe{'s are' if len(valid) != 1 else ' is'} valid"
        )


@command(group=group, example="hwdkit recipes copy ade20k-r18-hwd my/ade20k-mine.yaml --resolved")
class Copy(OfRecipe):
    """Copy a recipe, to change it; nothing is overwritten."""

    destination: Annotated[Path, typer.Argument(help="A folder, or a new file.")]
    resolved: Annotated[bool, typer.Option("--resolved", help="One file with everything written out.")] = (
        False
    )

    def run(self) -> Result:
        from hwdkit.commands.recipes import copying

        written = [str(path) for path in copying.copy(self.name, self.destination, resolved=self.resolved)]
        return Result({"written": written}, lambda: "\n".join(written))


@command(group=group, example="hwdkit recipes schema > recipe.schema.json")
class Schema:
    """Print the JSON Schema of recipes, for editors."""

    def run(self) -> None:
        from hwdkit.recipe.json_schema import json_schema
        from hwdkit.terminal import console

        # It is the document itself, with --json or without.
        console.write(json.dumps(json_schema(), indent=2) + "\n")
