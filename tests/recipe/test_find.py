"""From a name to a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hwdkit.errors import RecipeError
from hwdkit.recipe import available, find
from hwdkit.recipe.find import shipped


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An empty working directory with recipes/, and a folder named by HWDKIT_RECIPES."""
    here, extra = tmp_path / "here" / "recipes", tmp_path / "extra"
    here.mkdir(parents=True)
    extra.mkdir()
    monkeypatch.chdir(here.parent)
    monkeypatch.setenv("HWDKIT_RECIPES", f"{extra}{os.pathsep}{tmp_path / 'absent'}")
    return here, extra


def test_the_working_directory_wins_over_the_environment_and_both_over_the_package(folders):
    here, extra = folders
    name = "scenes-r10-hwd.yaml"
    assert find("scenes-r10-hwd") == shipped() / name
    (extra / name).touch()
    assert find("scenes-r10-hwd") == extra / name
    (here / name).touch()
    assert find("scenes-r10-hwd") == Path("recipes") / name
    assert [p for p in available() if p.name == name] == [Path("recipes") / name]


def test_a_path_is_never_looked_up_by_name(folders):
    (folders[0] / "mine.yaml").touch()
    assert find("mine") == Path("recipes/mine.yaml")
    assert find("recipes/mine.yaml") == Path("recipes/mine.yaml")
    with pytest.raises(RecipeError, match=r"^mine\.yaml: no such recipe file\. Did you mean 'mine'\?"):
        find("mine.yaml")
    with pytest.raises(RecipeError, match="is a folder"):
        find("./recipes")


def test_an_unknown_name_suggests_the_closest_and_the_list(folders):
    with pytest.raises(RecipeError) as caught:
        find("ade20k-r18-hdw")
    assert str(caught.value) == (
        "unknown recipe 'ade20k-r18-hdw'. Did you mean 'ade20k-r18-hwd'?\n  See: hwdkit recipes list"
    )
    assert caught.value.exit_code == 3


def test_bases_are_not_listed(folders):
    assert available()
    assert not [path for path in available() if path.name.startswith("_")]
