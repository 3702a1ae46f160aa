"""The canonical text of a recipe: complete, reloadable, and what the digest is taken of."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hwdkit.recipe import Recipe, available, digest, dump, load, loads_resolved

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TRICKY = [
    "off",
    "yes",
    "1e-4",
    "010",
    "1:30",
    "null",
    "~",
    "2024-01-01",
    ".5",
    "0x1f",
    "<<",
    "=",
    "-",
    ".inf",
]
SCALARS = st.none() | st.booleans() | st.integers() | FLOATS | WORDS | st.sampled_from(TRICKY)
OPTIONS = st.dictionaries(
    st.text("abcxyz_", min_size=1, max_size=5),
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)
    ),
    max_size=4,
)


def recipe_with(**changes: Any) -> Recipe:
    values = {"name": "x", "data": {"dataset": "scenes"}, "student": {"backbone": "resnet18"}}
    return Recipe.model_validate({**values, **changes})


def test_every_shipped_recipe_survives_its_own_text():
    for path in available():
        recipe = load(path)
        assert loads_resolved(dump(recipe)) == recipe, path
        assert digest(loads_resolved(dump(recipe))) == digest(recipe)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(options=OPTIONS, summary=WORDS, weight=st.floats(0, 1e30), mu=FLOATS)
def test_any_option_survives_the_text_with_its_type(options, summary, weight, mu):
    losses = {"hwd": {"weight": weight, "mu": mu}}
    student = {"backbone": "r", "backbone_options": options}
    recipe = recipe_with(student=student, summary=summary, losses=losses, teacher={"recipe": "t"})
    again = loads_resolved(dump(recipe))
    assert again == recipe
    assert repr(again) == repr(recipe)  # equality alone would let 1 pass for 1.0, or true


def test_the_text_spells_out_every_default():
    written = yaml.safe_load(dump(recipe_with()))
    assert set(written) == set(Recipe.model_fields)
    assert written["train"]["batch_size"] == 8
    constant = {"warmup": 0.0, "decay": 0.0}
    assert written["losses"] == {"ce": {"loss": "ce", "weight": 1.0, "schedule": constant, "aux_weight": 0.4}}


def test_a_yaml_1_1_reader_sees_the_same_values():
    recipe = recipe_with(optimizer={"lr": 1e-5, "weight_decay": 1e-7}, train={"amp": "off"})
    written = yaml.safe_load(dump(recipe))
    assert written == {**recipe.model_dump(), **{k: written[k] for k in ("data", "optimizer", "evaluate")}}
    assert written["optimizer"]["lr"] == 1e-5
    assert written["train"]["amp"] == "off"


def test_the_digest_changes_with_any_value_and_with_nothing_else():
    assert digest(recipe_with()) == digest(recipe_with(seed=0))
    assert digest(recipe_with()) != digest(recipe_with(seed=1))
    assert len(digest(recipe_with())) == 64
