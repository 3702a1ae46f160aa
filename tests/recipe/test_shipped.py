"""The recipes that come with hwdkit, and the option classes against the losses they configure."""

from __future__ import annotations

import inspect
import re

import pytest

from hwdkit.recipe import load
from hwdkit.recipe.find import listed, shipped
from hwdkit.recipe.load import differences
from hwdkit.recipe.losses import HWD, LOSS_OPTIONS, LossOptions

PATHS = listed(shipped())
NAME = re.compile(
    r"(?P<dataset>ade20k|cityscapes|camvid|coco|scenes|voc)-(?P<network>[a-z0-9]+)-(?P<method>[a-z][a-z-]*)$"
)
# Where a recipe's name does not say the dataset's in full.
DATASETS = {"coco": "coco-stuff-164k-182", "voc": "voc-aug"}
# The losses beside cross entropy, by the last part of a recipe's name.
METHODS = {
    "teacher": set(),
    "baseline": set(),
    "kd": {"kd"},
    "cwd": {"cwd"},
    "hwd": {"hwd"},
    "hwd-released": {"hwd"},
    "skd": {"kd", "pairwise", "holistic"},
    "ifvd": {"kd", "ifv", "holistic"},
    "cirkd": {"kd", "cirkd_minibatch", "cirkd_memory"},
    "dist": {"dist"},
    "mgd": {"mgd"},
    "mimic": {"kd", "mimic"},
    "at": {"kd", "at"},
    "local": {"local"},
    "af-dcd": {"kd", "af_dcd"},
    "pkd": {"pkd"},
    "plain": {"kd", "pkd"},
    "pi-ho": {"kd", "holistic"},
    "pi-ho-pa": {"kd", "holistic", "pairwise"},
    "pi-ho-ifv": {"kd", "holistic", "ifv"},
    "cws-cwf": {"cwd", "cwd_feature"},
    "pi-ho-cwf": {"kd", "holistic", "cwd_feature"},
    "pi-ho-cws-cwf": {"kd", "holistic", "cwd", "cwd_feature"},
    "skd-official": {"kd", "pairwise", "holistic"},
    "ifvd-official": {"kd", "ifv", "holistic"},
    "cwd-official": {"kd", "holistic", "cwd"},
    "cirkd-official": {"kd", "cirkd_minibatch", "cirkd_memory"},
    "dist-official": {"dist"},
    "mgd-official": {"mgd", "cwd"},
}
# What the authors' own code says otherwise than the recipe without -official, losses aside.
OFFICIAL = {
    "skd": {"data.scales", "optimizer.weight_decay"},
    "ifvd": {"data.scales", "data.flip", "optimizer.weight_decay"},
    "cwd": {"data.scales", "data.flip", "optimizer.weight_decay"},
    "cirkd": {"data.crop", "optimizer.lr", "train.batch_size"},
    "dist": {"data.crop", "optimizer.lr", "optimizer.weight_decay", "train.batch_size"},
    "mgd": set(),
}
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


def test_there_are_recipes():
    assert len(PATHS) >= 90


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_shipped_recipe_loads_and_is_what_its_name_says(path):
    recipe = load(path)
    parts = NAME.match(path.stem)
    assert parts
    assert recipe.name == path.stem
    assert recipe.data.dataset == DATASETS.get(parts["dataset"], parts["dataset"])
    assert recipe.summary
    assert {name for name in recipe.losses if name != "ce"} == METHODS[parts["method"]]
    assert all(loss.weight > 0 for loss in recipe.losses.values())
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


def test_camvid_has_a_recipe_with_every_loss():
    recipes = [load(path) for path in PATHS if path.stem.startswith("camvid-")]
    assert {loss.loss for recipe in recipes for loss in recipe.losses.values()} == set(LOSS_OPTIONS)


@pytest.mark.parametrize(
    "student", ["ade20k-r18", "ade20k-mbv2", "ade20k-pspr18", "cityscapes-r18", "coco-r18"]
)
def test_every_column_of_the_papers_tables_has_a_recipe(student):
    columns = ("baseline", "skd", "ifvd", "cwd", "cirkd", "dist", "mgd", "hwd", "hwd-released")
    assert {f"{student}-{method}" for method in columns} <= {path.stem for path in PATHS}


@pytest.mark.parametrize("method", PUBLISHED)
def test_a_published_method_carries_its_published_weights(method):
    losses = load(f"cityscapes-r18-{method}").losses
    found = {
        name: {key: getattr(losses[name], key) for key in options}
        for name, options in PUBLISHED[method].items()
    }
    assert found == PUBLISHED[method]


@pytest.mark.parametrize("method", OFFICIAL)
def test_an_official_variant_differs_from_the_plain_one_only_where_intended(method):
    plain, official = load(f"cityscapes-r18-{method}"), load(f"cityscapes-r18-{method}-official")
    changed = {key for key in differences(plain, official) if not key.startswith("losses.")}
    assert changed == OFFICIAL[method] | {"name", "summary"}


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
    for path in PATHS:
        if not path.stem.endswith("-hwd"):
            continue
        printed, released = load(path).losses["hwd"], load(f"{path.stem}-released").losses["hwd"]
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
