"""The functions behind `hwdkit recipes`."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hwdkit.commands.recipes import contents, copying, listing
from hwdkit.errors import EnvironmentFailure, RecipeError, UsageError
from hwdkit.recipe import available, load, loads_resolved
from hwdkit.recipe.json_schema import json_schema
from hwdkit.recipe.losses import LOSS_OPTIONS


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HWDKIT_RECIPES", raising=False)


def test_the_list_says_what_a_recipe_trains():
    row = next(row for row in listing.list_recipes() if row["name"] == "ade20k-pspr18-hwd")
    assert (row["dataset"], row["network"], row["losses"]) == ("ade20k", "pspnet-resnet18", "ce + 3 hwd")
    assert row["summary"]
    assert row["error"] is None


def test_a_broken_recipe_does_not_hide_the_others():
    Path("recipes").mkdir()
    Path("recipes/mine.yaml").write_text("a: 1\nb: 2\n")
    rows = {row["name"]: row for row in listing.list_recipes()}
    assert rows["mine"]["error"].startswith("recipes/mine.yaml:1: ")
    assert rows["scenes-r10-hwd"]["error"] is None
    assert {tuple(row) for row in map(sorted, rows.values())} == {tuple(sorted(rows["mine"]))}


def test_the_list_is_sorted_by_dataset_then_by_name():
    Path("recipes").mkdir()
    Path("recipes/mine.yaml").write_text("base: ade20k-r18-hwd\n")
    places = [(row["dataset"], row["name"]) for row in listing.list_recipes()]
    assert ("ade20k", "mine") in places
    assert places == sorted(places)


def test_the_list_can_be_narrowed_to_a_dataset_and_a_method():
    rows = listing.list_recipes()
    names = {row["name"] for row in listing.only(rows, dataset="camvid")}
    assert {"camvid-mbv2-hwd", "camvid-r50-teacher"} <= names
    assert all(name.startswith("camvid-") for name in names)
    assert [row["name"] for row in listing.only(rows, dataset="camvid", method="hwd")] == ["camvid-mbv2-hwd"]
    assert listing.only(rows, dataset="scenes", method="pi-ho") == []  # a method, though not for scenes
    assert listing.only(rows) == rows


def test_an_unknown_method_names_the_known_ones():
    with pytest.raises(UsageError, match=r"Did you mean 'cirkd'\?") as caught:
        listing.only(listing.list_recipes(), method="cirdk")
    assert "baseline, cirkd, cirkd-official, cwd," in caught.value.hint


def test_an_unknown_dataset_names_the_known_ones_and_exits_2():
    from typer.testing import CliRunner

    from hwdkit.cli import program

    refused = CliRunner().invoke(program, ["recipes", "list", "--dataset", "kitti"])
    assert refused.exit_code == 2
    assert all(name in refused.output for name in ("ade20k", "camvid", "cityscapes", "scenes"))


def test_the_table_spells_weights_as_recipes_do():
    (row,) = listing.only(listing.list_recipes(), dataset="ade20k", method="mgd")[1:2]
    assert row["losses"] == "ce + 2e-5 mgd"


def test_the_list_has_the_published_number_and_where_there_is_none_the_measured_one():
    rows = {row["name"]: row for row in listing.list_recipes()}
    assert (rows["ade20k-r18-hwd"]["miou"], rows["ade20k-r18-hwd"]["measured"]) == (33.85, None)
    assert rows["scenes-r10-hwd"]["miou"] is None
    assert rows["scenes-r10-hwd"]["measured"] == {"miou": 48.39, "std": 0.55, "seeds": 3}
    assert [Path(file).name for file in rows["ade20k-r18-hwd"]["files"]] == ["ade20k-r18.yaml", "hwd.yaml"]
    table = listing.render([rows["ade20k-r18-hwd"], rows["scenes-r10-hwd"]])
    assert [cells[2].text for cells in table.rows] == ["33.85", "48.39*"]


def test_show_prints_what_is_known_and_both_files():
    text = contents.show("ade20k-r18-hwd")
    assert "# Command:  hwdkit distill --recipe ade20k-r18-hwd\n" in text
    assert "# mIoU:     33.85 (HWD, Table II); not measured here\n" in text
    assert "a finished run of ade20k-r101-teacher" in text
    assert "--- # " in text
    assert "students/ade20k-r18.yaml\n" in text
    assert "# CD / (N_c + 1), as printed above Eq. 6" in text  # of the method
    assert "measured here: 48.39 ± 0.55, 3 seeds" in contents.show("scenes-r10-hwd")
    teacher = contents.show("cityscapes-r101-teacher")
    assert "# Command:  hwdkit train-teacher --recipe cityscapes-r101-teacher\n" in teacher
    assert "finished run" not in teacher
    assert contents.show("hwd").startswith("# HWD as the paper prints it")  # a part is its file


def test_show_resolved_spells_out_everything():
    resolved = contents.show("scenes-r10-hwd", resolved=True, overrides=["seed=9"])
    assert loads_resolved(resolved) == load("scenes-r10-hwd", overrides=["seed=9"])
    data = contents.of_recipe("scenes-r10-hwd")
    assert data["recipe"]["data"]["crop"] == [96, 96]
    assert data["command"] == "hwdkit distill --recipe scenes-r10-hwd"
    with pytest.raises(RecipeError, match="--resolved"):
        contents.show("scenes-r10-hwd", overrides=["seed=9"])


def test_validate_reports_every_fault_of_every_file():
    Path("a.yaml").write_text("base: scenes-r10-hwd\nseeed: 1\ntrain: {amp: maybe}\n")
    Path("b.yaml").write_text("base: scenes-r10-hwd\n")
    Path("c.yaml").write_text("a: [\n")
    with pytest.raises(RecipeError) as caught:
        contents.validate(["a.yaml", "b.yaml", "c.yaml", "no-such-recipe"])
    text = str(caught.value)
    assert "a.yaml:2: unknown key 'seeed'" in text
    assert "a.yaml:3: train.amp" in text
    assert "c.yaml:2: not valid YAML" in text
    assert "unknown recipe 'no-such-recipe'" in text
    assert "3 not valid, 1 valid" in text
    assert contents.validate(["b.yaml"]) == [{"name": "b", "path": "b.yaml"}]


def test_validate_takes_a_folder_for_the_recipes_in_it():
    with pytest.raises(RecipeError, match="no recipes in this folder"):
        contents.validate(["."])
    copying.copy("scenes-r10-hwd", Path("mine"))
    assert [row["name"] for row in contents.validate(["mine"])] == ["scenes-r10-hwd"]


def test_validate_checks_the_parts_of_a_folder_where_they_lie():
    for kind in ("students", "methods", "datasets"):
        Path("my", kind).mkdir(parents=True)
    Path("my/datasets/small.yaml").write_text("base: scenes\ndata: {crop: [64, 64]}\n")
    Path("my/students/small-r4.yaml").write_text("base: [small, scenes-r10]\nmethods: [hwd, strong]\n")
    Path("my/methods/strong.yaml").write_text("base: cwd\nlosses: {cwd: {weight: 9}}\n")
    names = [row["name"] for row in contents.validate(["my"])]
    assert names == ["small-r4-hwd", "small-r4-strong"]
    Path("my/methods/strong.yaml").write_text("base: cwd\nlosses: {cwd: {wieght: 9}}\n")
    with pytest.raises(RecipeError, match=r"^my/methods/strong\.yaml:2: unknown key 'losses\.cwd\.wieght'"):
        contents.validate(["my"])
    Path("my/students/small-r4.yaml").write_text("base: scenes-r10\nmethods: [hdw]\n")
    with pytest.raises(
        RecipeError, match=r"small-r4\.yaml:2: methods: unknown method 'hdw'\. Did you mean 'hwd'"
    ):
        contents.validate(["my/students/small-r4.yaml"])


def test_a_copy_is_a_leaf_on_its_parts_and_loads_to_the_same_recipe_under_its_new_name():
    assert copying.copy("ade20k-r18-hwd", Path("mine/my-hwd.yaml")) == [Path("mine/my-hwd.yaml")]
    assert Path("mine/my-hwd.yaml").read_text().endswith("\nbase: [ade20k-r18, hwd]\n")
    same = load("ade20k-r18-hwd").model_copy(update={"name": "my-hwd"})
    assert load("mine/my-hwd.yaml") == same
    assert copying.copy("ade20k-r18-hwd", Path("other.yaml"), resolved=True) == [Path("other.yaml")]
    assert load("./other.yaml") == same.model_copy(update={"name": "other"})


@pytest.mark.parametrize("name", available())
def test_every_recipe_can_be_copied_and_is_the_same_at_its_new_place(name: str):
    (path,) = copying.copy(name, Path("mine"))
    assert load(path) == load(name)


def test_copy_never_overwrites_but_shares_equal_bases():
    Path("recipes").mkdir()
    Path("recipes/_fast.yaml").write_text("base: scenes-r10-hwd\ntrain: {iterations: 10}\n")
    Path("recipes/a.yaml").write_text("base: _fast\n")
    Path("recipes/b.yaml").write_text("base: _fast.yaml\n")
    Path("recipes/c.yaml").write_text("base: _fast.yaml\n")
    assert copying.copy("a", Path("mine")) == [Path("mine/a.yaml"), Path("mine/_fast.yaml")]
    copying.copy("b", Path("mine"))
    with pytest.raises(RecipeError, match="exists already"):
        copying.copy("a", Path("mine"))
    Path("mine/_fast.yaml").write_text("seed: 1\n")
    with pytest.raises(RecipeError, match=r"_fast\.yaml: exists already"):
        copying.copy("c", Path("mine"))
    assert not Path("mine/c.yaml").exists()


def test_a_copy_that_does_not_fit_on_the_disk_is_the_machines_failure(monkeypatch: pytest.MonkeyPatch):
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EnvironmentFailure, match=r"mine/scenes-r10-hwd\.yaml: cannot write: No space left"):
        copying.copy("scenes-r10-hwd", Path("mine"))


def test_a_recipe_whose_base_is_a_path_elsewhere_is_copied_resolved_only():
    Path("deep").mkdir()
    Path("deep/bottom.yaml").write_text("base: scenes-r10-hwd\n")
    Path("a.yaml").write_text("base: deep/bottom.yaml\n")
    with pytest.raises(RecipeError, match="--resolved"):
        copying.copy("./a.yaml", Path("b.yaml"))
    copying.copy("./a.yaml", Path("b.yaml"), resolved=True)
    assert load("./b.yaml").losses == load("scenes-r10-hwd").losses


def test_the_schema_knows_bases_and_every_loss_by_name():
    schema = json_schema()
    assert {"base", "methods", "tuned"} <= schema["properties"].keys()
    assert "required" not in schema
    assert set(schema["properties"]["losses"]["properties"]) == set(LOSS_OPTIONS)
    for name, options in LOSS_OPTIONS.items():
        assert schema["$defs"][options.__name__]["properties"]["loss"]["const"] == name
