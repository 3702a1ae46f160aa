"""Several files as one recipe: summaries, `tuned`, teachers, and bases of other days."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hwdkit.errors import RecipeError
from hwdkit.recipe import load, loads_resolved
from hwdkit.recipe.load import dump
from hwdkit.recipe.published import published

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a file below ./recipes, a folder of the search path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HWDKIT_RECIPES", raising=False)

    def _write(path: str, text: str) -> None:
        file = tmp_path / "recipes" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return _write


def hwd(name: str, *overrides: str) -> object:
    return load(name, overrides=overrides).losses["hwd"]


def test_tuned_options_are_over_the_methods_and_under_all_that_a_recipe_says_itself(write: Write):
    assert hwd("coco-r18-hwd").mu == 0.1
    assert hwd("coco-r18-hwd", "losses.hwd.mu=0.7").mu == 0.7
    write("a.yaml", "base: coco-r18-hwd\nlosses: {hwd: {mu: 0.5}}\n")
    write("b.yaml", "base: [a, cwd]\nlosses: {hwd: {beta: 0.2}}\n")  # not tuned a second time
    assert hwd("a").mu == hwd("b").mu == 0.5
    write("methods/mine.yaml", "base: hwd\nlosses: {hwd: {mu: 0.9}}\n")
    assert hwd("coco-r18-mine").mu == 0.1


def test_tuned_options_reach_a_loss_that_a_recipe_adds_itself(write: Write):
    write("a.yaml", "base: coco-r18-cwd\nlosses: {hwd: {weight: 2.0}}\n")
    assert (hwd("a").mu, hwd("a").weight) == (0.1, 2.0)
    assert hwd("coco-r18-cwd", "losses.hwd.weight=2").mu == 0.1
    assert list(load("a").losses) == ["ce", "cwd", "hwd"]
    assert "hwd" not in load("coco-r18-cwd").losses


def test_a_students_tuned_options_win_over_its_datasets(write: Write):
    write("students/mine.yaml", "base: coco-r18\ntuned: {hwd: {mu: 0.3}, mgd: {weight: 1e-5}}\n")
    assert hwd("mine-hwd").mu == 0.3
    assert load("mine-mgd").losses["mgd"].weight == 1e-5
    assert "mgd" not in load("mine-hwd").losses


@pytest.mark.parametrize(
    ("tuned", "complaint"),
    [
        (
            "tuned:\n  hwdd: {mu: 0}",
            "recipes/students/x.yaml:3: tuned.hwdd: unknown loss. Did you mean 'hwd'?",
        ),
        ("tuned: 3", "recipes/students/x.yaml:2: tuned: must be a mapping of losses to their options"),
        (
            "tuned:\n  hwd:\n    muu: 0",
            "recipes/students/x.yaml:4: unknown key 'losses.hwd.muu'. Did you mean 'mu'?",
        ),
    ],
)
def test_a_fault_in_tuned_names_its_line(write: Write, tuned: str, complaint: str):
    write("students/x.yaml", f"base: scenes-r10\n{tuned}\n")
    with pytest.raises(RecipeError) as caught:
        load("x-hwd")
    assert str(caught.value) == complaint


def test_keys_of_parts_are_unknown_in_a_recipe_that_stands_alone(write: Write):
    for key in ("tuned: {hwd: {mu: 0}}", "methods: [hwd]"):
        with pytest.raises(RecipeError, match=f"unknown key '{key.partition(':')[0]}'"):
            loads_resolved(dump(load("scenes-r10-hwd")) + f"{key}\n")
    write("a.yaml", "base: scenes-r10-hwd\nmethods: [hwd]\n")
    with pytest.raises(RecipeError, match=r"a\.yaml:2: unknown key 'methods'"):
        load("a")


def test_summaries_of_several_bases_are_joined_unless_the_recipe_has_its_own(write: Write):
    write("a.yaml", "base: [scenes-r10, _cwf]\n")
    write("b.yaml", "base: [scenes-r10, pi-ho, cwd]\n")
    write("c.yaml", "base: [scenes-r10, pi-ho, cwd]\nsummary: mine\n")
    student = load("scenes-r10-hwd").summary.removesuffix(", HWD as printed")
    assert [load(name).summary for name in "abc"] == [student, f"{student}, PI + HO, CWD on logits", "mine"]


def test_a_teacher_comes_with_the_student_where_a_loss_needs_one(write: Write):
    assert load("scenes-r10-baseline").teacher is None
    write("a.yaml", "base: scenes-r10-baseline\nlosses: {kd: }\n")
    write("b.yaml", "base: scenes-r10\nlosses: {kd: {weight: 0}}\n")
    for name in ("a", "b"):
        teacher = load(name).teacher
        assert teacher is not None
        assert teacher.recipe == "scenes-r18-teacher"


@pytest.mark.parametrize(
    ("bases", "name"),
    [
        ("[_ade20k-r18.yaml, _cwd.yaml]", "ade20k-r18-cwd"),
        ("[_camvid-mbv2.yaml, _pi-ho.yaml, _cwf.yaml]", "camvid-mbv2-pi-ho-cwf"),
        ("[ade20k-r18, hwd]", "ade20k-r18-hwd"),
        ("ade20k-r18-hwd", "ade20k-r18-hwd"),
        ("ade20k-r18-hwd.yaml", "ade20k-r18-hwd"),
        ("_scenes-r10.yaml", "scenes-r10-baseline"),
    ],
)
def test_a_base_is_a_file_of_old_a_part_or_a_recipe(write: Write, bases: str, name: str):
    write("mine.yaml", f"base: {bases}\n")
    same = {"name": "", "summary": ""}
    assert load("mine").model_copy(update=same) == load(name).model_copy(update=same)


def test_the_old_base_of_hwd_says_nothing_of_the_area(write: Write):
    write("mine.yaml", "base: [_ade20k-r18.yaml, _hwd.yaml]\n")
    assert load("mine").losses == load("ade20k-r18-hwd-released").losses


def test_a_folder_of_ones_own_has_students_methods_datasets_teachers_and_numbers(write: Write):
    write("datasets/mine.yaml", "base: scenes\ndata: {dataset: mine}\ntuned: {hwd: {mu: 0.4}}\n")
    write("teachers/mine-teacher.yaml", "base: [mine, scenes-r18-teacher]\ndata: {dataset: mine}\n")
    write("students/mine-r10.yaml", "base: [scenes-r10, mine]\nteacher: {recipe: mine-teacher}\n")
    write("methods/both.yaml", "base: [hwd, pkd]\nsummary: HWD and PKD\n")
    write("published.yaml", "mine-r10: {hardware: a laptop}\nmine-r10-both: {miou: 12.5, source: a friend}\n")
    recipe = load("mine-r10-both")
    assert (recipe.data.dataset, hwd("mine-r10-both").mu) == ("mine", 0.4)
    assert recipe.teacher is not None
    assert recipe.teacher.recipe == load("mine-teacher").name == "mine-teacher"
    known = published("mine-r10-both")
    assert (known.miou, known.source, known.hardware) == (12.5, "a friend", "a laptop")
    assert published("no-such-recipe") == published("scenes-r10-plain").model_validate({})


def test_published_numbers_do_not_follow_a_name_to_another_file(write: Write):
    assert published("ade20k-r18-hwd").miou == 33.85
    write("ade20k-r18-hwd.yaml", "base: [ade20k-r18, hwd]\nseed: 3\n")
    assert published("ade20k-r18-hwd").miou is None


def test_a_fault_in_published_yaml_names_its_line(write: Write):
    write("published.yaml", "x:\n  moiu: 3\n")
    write("x.yaml", "base: scenes-r10-hwd\n")
    with pytest.raises(RecipeError, match=r"^recipes/published\.yaml:2: x\.moiu: extra inputs"):
        published("x")
