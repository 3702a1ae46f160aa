"""The recipes that come with hwdkit, and the option classes against the losses they configure."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest
import yaml

from hwdkit.recipe import available, digest, load
from hwdkit.recipe.find import files_of, methods_of, shipped
from hwdkit.recipe.losses import HWD, LOSS_OPTIONS, LossOptions
from hwdkit.recipe.published import published

GOLDEN: dict[str, str] = json.loads(
    (Path(__file__).parents[1] / "golden" / "recipe_digests.json").read_text()
)
"""Digest of every recipe as it was when each had a file of its own."""
NAMES = available()
NAME = re.compile(r"(?P<dataset>[a-z0-9]+)-(?P<network>[a-z0-9]+)-(?P<method>[a-z][a-z-]*)$")
CRITIC = {"critic_weight": 0.1, "critic_lr": 4e-4, "critic_power": 0.9, "preprocess": "batch_norm"}
HINGE = {"weight": 0.001, "adversary": "hinge", "critic_optimizer": "adam", **CRITIC}
WGAN = {
    "weight": 0.001,
    "adversary": "wgan_gp",
    "gradient_penalty": 10.0,
    "critic_optimizer": "adam",
    "critic_betas": (0.9, 0.99),
    **CRITIC,
}
PI = {"weight": 10.0, "temperature": 1.0, "reduction": "element"}
KD = {"weight": 1.0, "temperature": 1.0, "reduction": "pixel"}
CW_S = {"loss": "cwd", "weight": 3.0, "temperature": 4.0, "tap": "logits", "projector": "auto"}
CW_F = {"loss": "cwd", "weight": 50.0, "temperature": 4.0, "tap": "embedding", "projector": "linear"}
PA = {"weight": 0.5, "scale": 0.5, "detach_norm": True, "tap": "embedding"}
# The papers' compositions with the weights of their code, or of the tables that cite them.
PUBLISHED = {
    "skd": {"kd": KD, "pairwise": {"weight": 10.0, "kernel": 2, "scale": None}, "holistic": HINGE},
    "skd-official": {
        "kd": {"weight": 10.0, "temperature": 1.0, "reduction": "batch_sum"},
        "pairwise": PA,
        "holistic": {
            **WGAN,
            "weight": 0.1,
            "critic_optimizer": "sgd",
            "critic_momentum": 0.9,
            "critic_weight_decay": 5e-4,
        },
    },
    "ifvd": {"kd": KD, "ifv": {"weight": 20.0, "tap": "embedding"}, "holistic": HINGE},
    "ifvd-official": {"kd": PI, "ifv": {"weight": 200.0, "tap": "embedding"}, "holistic": WGAN},
    "cwd": {"cwd": CW_S},
    "cwd-official": {"kd": PI, "cwd": CW_S, "holistic": WGAN},
    "pi-ho": {"kd": PI, "holistic": WGAN},
    "pi-ho-pa": {"kd": PI, "holistic": WGAN, "pairwise": PA},
    "pi-ho-ifv": {"kd": PI, "holistic": WGAN, "ifv": {"weight": 200.0}},
    "cws-cwf": {"cwd": CW_S, "cwd_feature": CW_F},
    "pi-ho-cwf": {"kd": PI, "holistic": WGAN, "cwd_feature": CW_F},
    "pi-ho-cws-cwf": {"kd": PI, "holistic": WGAN, "cwd": CW_S, "cwd_feature": CW_F},
    "cirkd": {
        "kd": KD,
        "cirkd_minibatch": {"weight": 1.0, "temperature": 0.1, "pool": 1},
        "cirkd_memory": {"pixel_weight": 0.1, "region_weight": 0.1, "official_enqueue": False},
    },
    "cirkd-official": {
        "kd": KD,
        "cirkd_minibatch": {"weight": 1.0, "temperature": 0.1, "pool": 1},
        "cirkd_memory": {"pixel_weight": 0.1, "region_weight": 0.1, "official_enqueue": True},
    },
    "dist": {"dist": {"weight": 1.0, "beta": 1.0, "gamma": 1.0, "softmax": False, "aux_weight": 0.0}},
    "dist-official": {"dist": {"weight": 1.0, "softmax": True, "aux_weight": 0.4}},
    "mgd": {"mgd": {"weight": 2e-5, "tap": "embedding", "mask_ratio": 0.75}},
    "mgd-official": {"mgd": {"weight": 2e-5, "tap": "stage4", "mask_ratio": 0.75}, "cwd": CW_S},
    "mimic": {"kd": KD, "mimic": {"weight": 10.0, "distance": "mse", "projector": "linear"}},
    "at": {"kd": KD, "at": {"weight": 10_000.0, "power": 2.0, "tap": "embedding"}},
    "af-dcd": {
        "kd": KD,
        "af_dcd": {"weight": 1.0, "tap": "stage4", "feature_weight": 4e-6, "contrast_weight": 0.005},
    },
}
# The networks decide these, so a recipe has no word for them.
SET_BY_BUILD = {"align_corners", "classes", "micro_batches", "student_channels", "teacher_channels"}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_recipe_is_what_it_was_before_it_was_composed(name):
    assert digest(load(name)) == GOLDEN[name]


def test_every_recipe_of_before_is_listed():
    assert GOLDEN.keys() <= set(NAMES)


@pytest.mark.parametrize("student", files_of("students"))
def test_a_student_takes_every_method(student):
    for method in files_of("methods"):
        recipe = load(f"{student}-{method}")
        assert recipe.name == f"{student}-{method}"
        assert recipe.summary
        assert (recipe.teacher is None) == (set(recipe.losses) == {"ce"}) == (method == "baseline")


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_is_what_its_name_says(name):
    recipe = load(name)
    parts = NAME.match(name)
    assert parts
    assert recipe.name == name
    assert recipe.data.dataset.startswith(parts["dataset"])  # coco is coco-stuff-164k-182
    assert recipe.summary
    assert all(loss.weight > 0 for loss in recipe.losses.values())
    assert (recipe.student is None) == (parts["method"] == "teacher")


@pytest.mark.parametrize("name", NAMES)
def test_hardware_and_runtime_of_a_shipped_recipe_are_known(name):
    known = published(name)
    assert known.hardware
    assert known.runtime
    assert known.miou is None or (20 < known.miou < 80 and known.source)


def test_published_yaml_speaks_of_names_that_there_are():
    entries = yaml.safe_load((shipped() / "published.yaml").read_text())
    assert entries.keys() <= {*NAMES, *files_of("students"), *files_of("methods")}


@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_named_by_a_recipe_has_the_same_dataset_and_stride(name):
    recipe = load(name)
    if recipe.teacher is None or recipe.teacher.recipe is None:
        return
    teacher = load(recipe.teacher.recipe)
    assert recipe.student is not None
    assert teacher.teacher is not None
    assert teacher.data.dataset == recipe.data.dataset
    assert teacher.teacher.output_stride == recipe.student.output_stride


def test_every_loss_has_a_method():
    recipes = [load(f"camvid-mbv2-{method}") for method in files_of("methods")]
    assert {loss.loss for recipe in recipes for loss in recipe.losses.values()} == set(LOSS_OPTIONS)


@pytest.mark.parametrize(
    "student", ["ade20k-r18", "ade20k-mbv2", "ade20k-pspr18", "cityscapes-r18", "coco-r18"]
)
def test_every_column_of_the_papers_tables_has_a_recipe_and_its_number(student):
    columns = ("baseline", "skd", "ifvd", "cwd", "cirkd", "dist", "mgd", "hwd", "hwd-released")
    assert set(columns) <= methods_of(files_of("students")[student]).keys()
    assert all(published(f"{student}-{method}").miou for method in columns)


@pytest.mark.parametrize("method", PUBLISHED)
def test_a_published_method_carries_its_published_weights(method):
    losses = load(f"cityscapes-r18-{method}").losses
    found = {
        name: {key: getattr(losses[name], key) for key in options}
        for name, options in PUBLISHED[method].items()
    }
    assert found == PUBLISHED[method]


def test_official_variants_train_as_their_authors_did():
    def schedule(method: str) -> tuple[object, ...]:
        recipe = load(f"cityscapes-r18-{method}-official")
        crop, batch = recipe.data.crop, recipe.train.batch_size
        return crop, batch, recipe.train.iterations, recipe.optimizer.lr, recipe.optimizer.weight_decay

    single = ((512, 512), 8, 40_000, 0.01, 5e-4)
    assert (schedule("skd"), schedule("ifvd"), schedule("cwd")) == (single, single, single)
    assert schedule("cirkd") == ((512, 1024), 16, 40_000, 0.02, 1e-4)
    assert schedule("dist") == ((512, 1024), 16, 40_000, 0.02, 5e-4)
    scales = load("cityscapes-r18-skd-official").data.scales
    assert (scales[0], scales[-1], len(scales)) == (0.5, 1.6, 12)
    assert load("cityscapes-r18-cwd-official").data.scales == (1.0,)


def test_printed_and_released_hwd_differ_only_in_the_area_correction():
    for student in files_of("students"):
        printed, released = (load(f"{student}-{method}").losses["hwd"] for method in ("hwd", "hwd-released"))
        assert isinstance(printed, HWD)
        assert printed.area_correction == "paper"
        assert printed.model_copy(update={"area_correction": "none"}) == released


@pytest.mark.parametrize(
    ("name", "mu"), [("ade20k-r18-hwd", 0.0), ("cityscapes-r18-hwd", 1.0), ("coco-r18-hwd", 0.1)]
)
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

    signature = inspect.signature(LOSSES[name]).parameters
    parameters = {key: value for key, value in signature.items() if key not in SET_BY_BUILD}
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in signature.values())
    options = {
        key: field.default
        for key, field in LOSS_OPTIONS[name].model_fields.items()
        if key not in LossOptions.model_fields
    }
    assert options == {key: parameter.default for key, parameter in parameters.items()}
