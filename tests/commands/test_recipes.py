"""The functions behind `hwdkit recipes`."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hwdkit.commands import recipes
from hwdkit.errors import EnvironmentFailure, RecipeError, UsageError
from hwdkit.recipe import load, loads_resolved
from hwdkit.recipe.losses import LOSS_OPTIONS


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HWDKIT_RECIPES", raising=False)


def test_the_list_says_what_a_recipe_trains():
    row = next(row for row in recipes.list_recipes() if row["name"] == "ade20k-pspr18-hwd")
    assert (row["dataset"], row["network"], row["losses"]) == ("ade20k", "pspnet-resnet18", "ce + 3 hwd")
    assert row["summary"]
    assert row["error"] is None


def test_a_broken_recipe_does_not_hide_the_others():
    Path("recipes").mkdir()
    Path("recipes/mine.yaml").write_text("a: 1\nb: 2\n")
    rows = {row["name"]: row for row in recipes.list_recipes()}
    assert rows["mine"]["error"].startswith("recipes/mine.yaml:1: ")
    assert rows["scenes-r10-hwd"]["error"] is None
    assert {tuple(row) for row in map(sorted, rows.values())} == {tuple(sorted(rows["mine"]))}


def test_the_list_is_sorted_by_dataset_then_by_name():
    Path("recipes").mkdir()
    Path("recipes/mine.yaml").write_text("base: ade20k-r18-hwd\n")
    places = [(row["dataset"], row["name"]) for row in recipes.list_recipes()]
    assert ("ade20k", "mine") in places
    assert places == sorted(places)


def test_the_list_can_be_narrowed_to_a_dataset_and_a_method():
    rows = recipes.list_recipes()
    names = {row["name"] for row in recipes.only(rows, dataset="camvid")}
    assert {"camvid-mbv2-hwd", "camvid-r50-teacher"} <= names
    assert all(name.startswith("camvid-") for name in names)
    assert [row["name"] for row in recipes.only(rows, dataset="camvid", method="hwd")] == ["camvid-mbv2-hwd"]
    assert recipes.only(rows, dataset="scenes", method="pi-ho") == []  # a method, though not for scenes
    assert recipes.only(rows) == rows


def test_an_unknown_method_names_the_known_ones():
    with pytest.raises(UsageError, match=r"Did you mean 'cirkd'\?") as caught:
        recipes.only(recipes.list_recipes(), method="cirdk")
    assert "baseline, cirkd, cirkd-official, cwd," in caught.value.hint


def test_an_unknown_dataset_names_the_known_ones_and_exits_2():
    from typer.testing import CliRunner

    from hwdkit.cli import program

    refused = CliRunner().invoke(program, ["recipes", "list", "--dataset", "kitti"])
    assert refused.exit_code == 2
    assert all(name in refused.output for name in ("ade20k", "camvid", "cityscapes", "scenes"))


def test_the_table_spells_weights_as_recipes_do():
    (row,) = recipes.only(recipes.list_recipes(), dataset="ade20k", method="mgd")[1:2]
    assert row["losses"] == "ce + 2e-5 mgd"


def test_show_keeps_the_comments_and_resolved_spells_out_everything():
    assert recipes.show("scenes-r10-hwd").startswith("# ")
    resolved = recipes.show("scenes-r10-hwd", resolved=True, overrides=["seed=9"])
    assert loads_resolved(resolved) == load("scenes-r10-hwd", overrides=["seed=9"])
    assert recipes.show_data("scenes-r10-hwd")["data"]["crop"] == [96, 96]
    with pytest.raises(RecipeError, match="--resolved"):
        recipes.show("scenes-r10-hwd", overrides=["seed=9"])


def test_validate_reports_every_fault_of_every_file():
    Path("a.yaml").write_text("base: scenes-r10-hwd\nseeed: 1\ntrain: {amp: maybe}\n")
    Path("b.yaml").write_text("base: scenes-r10-hwd\n")
    Path("c.yaml").write_text("a: [\n")
    with pytest.raises(RecipeError) as caught:
        recipes.validate(["a.yaml", "b.yaml", "c.yaml", "no-such-recipe"])
    text = str(caught.value)
    assert "a.yaml:2: unknown key 'seeed'" in text
    assert "a.yaml:3: train.amp" in text
    assert "c.yaml:2: not valid YAML" in text
    assert "unknown recipe 'no-such-recipe'" in text
    assert "3 not valid, 1 valid" in text
    assert recipes.validate(["b.yaml"]) == [{"name": "b", "path": "b.yaml"}]


def test_validate_takes_a_folder_for_the_recipes_in_it():
    with pytest.raises(RecipeError, match="no recipes in this folder"):
        recipes.validate(["."])
    recipes.copy("scenes-r10-hwd", Path("mine"))
    assert [row["name"] for row in recipes.validate(["mine"])] == ["scenes-r10-hwd"]


def test_a_copy_loads_to_the_same_recipe_under_its_new_name():
    written = recipes.copy("ade20k-r18-hwd", Path("mine/my-hwd.yaml"))
    names = [path.name for path in written]
    assert names == ["my-hwd.yaml", "_ade20k-r18.yaml", "_ade20k.yaml", "_paper.yaml", "_hwd.yaml"]
    same = load("ade20k-r18-hwd").model_copy(update={"name": "my-hwd"})
    assert load("mine/my-hwd.yaml") == same
    assert recipes.copy("ade20k-r18-hwd", Path("other.yaml"), resolved=True) == [Path("other.yaml")]
    assert load("./other.yaml") == same.model_copy(update={"name": "other"})


def test_copy_never_overwrites_but_shares_equal_bases():
    recipes.copy("ade20k-r18-hwd", Path("mine"))
    recipes.copy("ade20k-r18-cwd", Path("mine"))
    with pytest.raises(RecipeError, match="exists already"):
        recipes.copy("ade20k-r18-hwd", Path("mine"))
    Path("mine/_paper.yaml").write_text("seed: 1\n")
    with pytest.raises(RecipeError, match=r"_paper\.yaml: exists already"):
        recipes.copy("ade20k-r18-baseline", Path("mine"))
    assert not Path("mine/ade20k-r18-baseline.yaml").exists()


def test_a_copy_that_does_not_fit_on_the_disk_is_the_machines_failure(monkeypatch: pytest.MonkeyPatch):
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EnvironmentFailure, match=r"mine/scenes-r10-hwd\.yaml: cannot write: No space left"):
        recipes.copy("scenes-r10-hwd", Path("mine"))


def test_a_recipe_whose_base_lies_elsewhere_is_copied_resolved_only():
    Path("a.yaml").write_text("base: scenes-r10-hwd\n")
    with pytest.raises(RecipeError, match="--resolved"):
        recipes.copy("./a.yaml", Path("b.yaml"))
    recipes.copy("./a.yaml", Path("b.yaml"), resolved=True)
    assert load("./b.yaml").losses == load("scenes-r10-hwd").losses


def test_the_schema_knows_bases_and_every_loss_by_name():
    schema = recipes.schema()
    assert "base" in schema["properties"]
    assert "required" not in schema
    assert set(schema["properties"]["losses"]["properties"]) == set(LOSS_OPTIONS)
    for name, options in LOSS_OPTIONS.items():
        assert schema["$defs"][options.__name__]["properties"]["loss"]["const"] == name
