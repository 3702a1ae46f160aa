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
    file = "teachers/scenes-r18-teacher.yaml"
    assert find("scenes-r18-teacher") == (shipped() / file,)
    (extra / "scenes-r18-teacher.yaml").touch()
    assert find("scenes-r18-teacher") == (extra / "scenes-r18-teacher.yaml",)
    (here / "teachers").mkdir()
    (here / file).touch()
    assert find("scenes-r18-teacher") == (Path("recipes") / file,)
    assert available().count("scenes-r18-teacher") == 1


def test_a_name_is_a_file_or_else_the_longest_student_and_a_method(folders):
    here, _ = folders
    assert find("scenes-r10-hwd-released") == (
        shipped() / "students" / "scenes-r10.yaml",
        shipped() / "methods" / "hwd-released.yaml",
    )
    (here / "students").mkdir()
    (here / "students" / "scenes-r10-hwd.yaml").write_text(
        "base: scenes-r10\n"
    )  # longer, and its method is one
    (here / "methods").mkdir()
    (here / "methods" / "released.yaml").touch()
    assert find("scenes-r10-hwd-released") == (
        Path("recipes/students/scenes-r10-hwd.yaml"),
        Path("recipes/methods/released.yaml"),
    )
    (here / "scenes-r10-hwd-released.yaml").touch()
    assert find("scenes-r10-hwd-released") == (Path("recipes/scenes-r10-hwd-released.yaml"),)


def test_a_student_is_listed_with_its_methods_or_with_all(folders):
    here, _ = folders
    (here / "students").mkdir()
    (here / "methods").mkdir()
    (here / "methods" / "mine.yaml").touch()
    (here / "students" / "scenes-tiny.yaml").write_text("methods: [mine, cwd]\n")
    names = [name for name in available() if name.startswith("scenes-tiny-")]
    assert names == ["scenes-tiny-cwd", "scenes-tiny-mine"]
    assert find("scenes-tiny-pkd")[1] == shipped() / "methods" / "pkd.yaml"  # nameable all the same
    (here / "students" / "scenes-tiny.yaml").write_text("base: scenes-r10\n")
    assert {"scenes-tiny-mine", "scenes-tiny-hwd", "scenes-tiny-pi-ho"} <= set(available())
    (here / "students" / "scenes-tiny.yaml").write_text("methods: [\n")
    assert "scenes-tiny" in available()
    with pytest.raises(RecipeError, match=r"scenes-tiny\.yaml:2: not valid YAML"):
        find("scenes-tiny")


def test_a_path_is_never_looked_up_by_name(folders):
    (folders[0] / "mine.yaml").touch()
    assert find("mine") == find("recipes/mine.yaml") == (Path("recipes/mine.yaml"),)
    with pytest.raises(RecipeError, match=r"^mine\.yaml: no such recipe file\. Did you mean 'mine'\?"):
        find("mine.yaml")
    with pytest.raises(RecipeError, match="is a folder"):
        find("./recipes")


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("ade20k-r18-hdw", "ade20k-r18-hwd"),
        ("ade20k-r18-hwdd", "ade20k-r18-hwd"),
        ("ade20k-r81-hwd", "ade20k-r18-hwd"),
        ("ade20k-r81-hwd-released", "ade20k-r18-hwd-released"),
        ("cityscapes-r18-skd-oficial", "cityscapes-r18-skd-official"),
        ("cityscapes-r101-techer", "cityscapes-r101-teacher"),
    ],
)
def test_an_unknown_name_suggests_the_closest_and_the_list(folders, typo, meant):
    with pytest.raises(RecipeError) as caught:
        find(typo)
    assert (
        str(caught.value) == f"unknown recipe {typo!r}. Did you mean {meant!r}?\n  See: hwdkit recipes list"
    )
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("ade20k-r18", "is a student; put a method behind it, as in ade20k-r18-baseline"),
        ("hwd", "is a method; put a student before it, as in ade20k-mbv2-hwd"),
        ("ade20k-r18-xyzzy", "ade20k-r18 is a student, but 'xyzzy' is not a method"),
        ("ade20k-r18-_pa", "'_pa' is not a method"),
        ("published", "unknown recipe 'published'"),
    ],
)
def test_half_a_name_says_what_the_other_half_may_be(folders, name, complaint):
    with pytest.raises(RecipeError) as caught:
        find(name)
    assert complaint in str(caught.value)


def test_bases_and_published_numbers_are_not_listed(folders):
    assert available()
    assert not [name for name in available() if name.startswith("_") or name == "published"]
