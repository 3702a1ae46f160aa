"""The JSON Schema of recipe files and their parts, for editors."""

from __future__ import annotations

from typing import Any

from hwdkit.recipe.complaints import LOSS_OPTIONS
from hwdkit.recipe.schema import Recipe


def json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe file, for editors.

    Nothing is required in it, since a base may supply any key; `base`, and the keys of parts, are allowed.
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
    whole["properties"]["methods"] = {
        "description": "of a student: the methods that `recipes list` shows with it",
        "type": "array",
        "items": name,
    }
    # Under its own name an entry needs no `loss` key; under another name it does.
    entries = {
        loss: {"anyOf": [{"$ref": f"#/$defs/{options.__name__}"}, {"type": "null"}]}
        for loss, options in LOSS_OPTIONS.items()
    }
    named = {"required": ["loss"], "oneOf": whole["properties"]["losses"]["additionalProperties"]["oneOf"]}
    whole["properties"]["losses"] = {"type": "object", "properties": entries, "additionalProperties": named}
    whole["properties"]["tuned"] = {
        "description": "of a dataset or a student: options for losses; recipes with these losses use them",
        "type": "object",
        "properties": entries,
        "additionalProperties": False,
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}
