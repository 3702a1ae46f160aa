"""The recipes that come with hwdkit, and the option classes against the losses they configure."""

from __future__ import annotations

import inspect
import re

import pytest

from hwdkit.recipe import load
from hwdkit.recipe.complaints import LOSS_OPTIONS
from hwdkit.recipe.find import listed, shipped
from hwdkit.recipe.losses import HWD, LossOptions

PATHS = listed(shipped())
NAME = re.compile(
    r"(?P<dataset>ade20k|cityscapes|camvid|scenes)-(?P<network>[a-z0-9]+)-(?P<method>[a-z][a-z-]*)$"
)
# The network decides these, so a recipe has no word for them.
SET_BY_BUILD = {"ce": {"align_corners"}}


def test_there_are_recipes():
    assert len(PATHS) >= 30


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_shipped_recipe_loads_and_is_what_its_name_says(path):
    recipe = load(path)
    parts = NAME.match(path.stem)
    assert parts
    assert recipe.name == path.stem
    assert recipe.data.dataset == parts["dataset"]
    assert recipe.summary
    distilled = {name for name in recipe.losses if name != "ce"}
    expected = {"teacher": set(), "baseline": set(), "hwd-released": {"hwd"}}
    assert distilled == expected.get(parts["method"], {parts["method"]})
    assert (recipe.student is None) == (parts["method"] == "teacher")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_shipped_recipe_opens_with_what_a_reader_needs(path):
    header = path.read_text().partition("\nbase:")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    for label in ("Command:", "Needs:", "Hardware:", "Runtime:", "mIoU:"):
        assert f"# {label}" in header
    command = "train-teacher" if path.stem.endswith("-teacher") else "distill"
    assert f"hwdkit {command} --recipe {path.stem}\n" in header


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_teacher_named_by_a_recipe_has_the_same_dataset_and_stride(path):
    recipe = load(path)
    if recipe.teacher is None or recipe.teacher.recipe is None:
        return
    teacher = load(recipe.teacher.recipe)
    assert recipe.student is not None
    assert teacher.teacher is not None
    assert teacher.data.dataset == recipe.data.dataset
    assert teacher.teacher.output_stride == recipe.student.output_stride


def test_printed_and_released_hwd_differ_only_in_the_area_correction():
    for path in PATHS:
        if not path.stem.endswith("-hwd"):
            continue
        printed, released = load(path).losses["hwd"], load(f"{path.stem}-released").losses["hwd"]
        assert isinstance(printed, HWD)
        assert printed.area_correction == "paper"
        assert printed.model_copy(update={"area_correction": "none"}) == released


@pytest.mark.parametrize(("name", "mu"), [("ade20k-r18-hwd", 0.0), ("cityscapes-r18-hwd", 1.0)])
def test_the_papers_recipes_carry_the_papers_numbers(name, mu):
    recipe = load(name)
    hwd = recipe.losses["hwd"]
    assert isinstance(hwd, HWD)
    assert (hwd.weight, hwd.temperature, hwd.mu, hwd.sigma, hwd.beta) == (3.0, 4.0, mu, 1.0, 0.1)
    assert (hwd.divergence, hwd.divergence_on, hwd.smoothing) == ("mse", "activation", "effective_number")
    assert (recipe.train.iterations, recipe.train.batch_size, recipe.data.crop) == (40_000, 8, (512, 512))
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.momentum) == ("sgd", 0.01, 0.9)
    assert (optimizer.weight_decay, optimizer.power) == (1e-4, 0.9)
    assert recipe.evaluate.absent == "paper"


def test_every_loss_has_its_options_and_the_other_way_round():
    from hwdkit.losses import LOSSES

    assert set(LOSS_OPTIONS) == set(LOSSES)


@pytest.mark.parametrize("name", sorted(LOSS_OPTIONS))
def test_the_options_of_a_loss_are_its_constructors_keywords(name):
    from hwdkit.losses import LOSSES

    parameters = dict(inspect.signature(LOSSES[name]).parameters)
    for build_only in SET_BY_BUILD.get(name, ()):
        del parameters[build_only]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())
    options = {
        key: field.default
        for key, field in LOSS_OPTIONS[name].model_fields.items()
        if key not in LossOptions.model_fields
    }
    assert options == {key: parameter.default for key, parameter in parameters.items()}
