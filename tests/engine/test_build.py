"""From recipe to objects, and from a checkpoint file alone back to the network."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hwdkit.checkpoints.files import save_model
from hwdkit.data.index import DatasetIndex
from hwdkit.distributed import Ranks
from hwdkit.engine import build, networks
from hwdkit.engine.objectives import frozen_teacher
from hwdkit.errors import CheckpointError, EnvironmentFailure, RecipeError
from hwdkit.models.contract import InputContract
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe.load import loads_resolved
from hwdkit.recipe.schema import Recipe
from hwdkit.types import Batch

ONE = Ranks(0, 1, torch.device("cpu"))
NETWORK = """
  backbone: resnet18
  backbone_options: {layers: [1, 1, 1, 1], channels: [8, 8, 8, 8], stem_type: deep, stem_width: 8}
  head_channels: 8
"""
INDEX = DatasetIndex(
    name="scenes",
    classes=("road", "car", "sky"),
    palette=((1, 2, 3), (4, 5, 6), (7, 8, 9)),
    label_map=None,
    splits={},
    root=Path(),
    statistics={},
    fingerprint="abc",
)


def recipe(more: str = "", *, student: str = "") -> Recipe:
    text = f"name: tiny\ndata: {{dataset: scenes}}\nstudent:{NETWORK}{student}\n{more}"
    return loads_resolved(text)


def written(path: Path, model: Segmenter, index: DatasetIndex = INDEX) -> Path:
    metadata = networks.description(model, index, role="student", step=3, metrics={"miou": 0.5})
    save_model(path, model.state_dict(), metadata)
    return path


def test_a_network_comes_back_from_its_file_alone_with_identical_outputs(
    tmp_path: Path, batch: Callable[..., Batch]
) -> None:
    section = recipe(
        student="  align_corners: false\n  output_stride: 16\n  head: pspnet\n"
        "  input: {channel_order: bgr, range: 255, mean: [104, 117, 123], std: [1, 1, 1]}"
    ).student
    assert section is not None
    model = build.network(section, 3)
    model(batch(0).image)  # batch-norm statistics other than the initial ones
    loaded = networks.load_network(written(tmp_path / "any-name.safetensors", model))
    image = batch(1).image
    with torch.no_grad():
        ours, theirs = model.eval()(image, ("stage2", "embedding")), loaded.model.eval()(image, ("stage2",))
    assert torch.equal(ours.logits, theirs.logits)
    assert torch.equal(ours.taps["stage2"], theirs.taps["stage2"])
    assert loaded.model.spec == model.spec
    assert loaded.model.contract == InputContract("bgr", 255, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0), False)
    assert loaded.classes == INDEX.classes
    assert loaded.palette == INDEX.palette
    assert loaded.metadata["step"] == 3
    assert loaded.metadata["dataset_fingerprint"] == "abc"


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_run_directory_stands_for_its_network(tmp_path: Path, role: str) -> None:
    section = recipe().student
    assert section is not None
    written(tmp_path / f"{role}.safetensors", build.network(section, 3))
    assert networks.load_network(tmp_path).path == tmp_path / f"{role}.safetensors"


def _hint_for(folder: Path) -> str:
    with pytest.raises(CheckpointError, match=r"no student\.safetensors") as caught:
        networks.load_network(folder)
    return caught.value.hint


def _run(path: Path, status: str = "finished") -> Path:
    """The files by which a run is known, without a network that could be built."""
    path.mkdir(parents=True)
    (path / "recipe.yaml").touch()
    (path / "run.json").write_text(f'{{"status": "{status}"}}')
    if status == "finished":
        (path / "student.safetensors").touch()
    return path


def test_a_run_directory_without_a_network_says_how_to_get_one(tmp_path: Path) -> None:
    assert "--resume" not in _hint_for(tmp_path)
    stopped = _run(tmp_path / "runs" / "stopped", "running")
    assert f"--resume {stopped}" in _hint_for(stopped)


def test_a_folder_of_runs_names_its_newest_finished_one(tmp_path: Path) -> None:
    stopped = _run(tmp_path / "z-stopped", "interrupted")
    assert f"--resume {stopped}" in _hint_for(tmp_path)
    newer, older = _run(tmp_path / "newer"), _run(tmp_path / "older")
    os.utime(older / "student.safetensors", (1, 1))
    assert _hint_for(tmp_path) == f"its newest finished run: {newer}"
    (newer / "run.json").write_text("[1")
    assert _hint_for(tmp_path) == f"its newest finished run: {older}"
    found = networks.runs_below(tmp_path)
    assert (found.finished, found.unfinished) == ((older,), (newer, stopped))
    assert networks.runs_below(tmp_path / "nothing") == ((), ())


@pytest.mark.parametrize(
    "change",
    [
        {"network": None},
        {"network": {"backbone": "resnet18"}},
        {"network": {"backbone": 5, "classes": 3}},
        {"network": {"backbone": "no-such-backbone", "classes": 3}},
        {"network": {"backbone": "resnet18", "classes": 3, "backbone_options": [1]}},
        {"network": {"backbone": "resnet18", "classes": 3, "backbone_options": {"checkpoint_path": "x"}}},
        {"network": {"backbone": "resnet18", "classes": 3, "head_channels": -1}},
        {"network": {"backbone": "resnet18", "classes": 10**12}},
        {"network": {"backbone": "resnet18", "classes": 3, "input": {"mean": ["a", "b", "c"]}}},
        {"network": {"backbone": "resnet18", "classes": 3, "input": {"mean": [float("nan"), 0, 0]}}},
        {"classes": 3},
        {"classes": ["one too few", "two"]},
        {"palette": [[1]]},
        {"palette": [[1, 2, 3]]},
        {"palette": [[float("inf")] * 3] * 3},
        {"network": {"backbone": "resnet18", "classes": 3, "output_stride": 8.0}},
        {"network": {"backbone": "resnet18", "classes": 3, "input": {"align_corners": "no"}}},
        {"dataset": None},
        {"dataset": "../elsewhere"},
    ],
)
def test_a_description_that_makes_no_sense_is_a_checkpoint_error(
    tmp_path: Path, network: Callable[..., Segmenter], change: dict[str, Any]
) -> None:
    model = network(classes=3)
    metadata = networks.description(model, INDEX, role="student", step=0, metrics={})
    save_model(tmp_path / "m.safetensors", model.state_dict(), {**metadata, **change})
    with pytest.raises(CheckpointError, match="is invalid"):
        networks.load_network(tmp_path / "m.safetensors")


def test_weights_load_strictly_and_every_kind_of_problem_is_listed(network: Callable[..., Segmenter]) -> None:
    state = network(classes=5).state_dict()
    state["surplus"] = torch.zeros(1)
    del state["aux_head.classifier.bias"]
    with pytest.raises(CheckpointError) as caught:
        networks.load_weights(network(classes=3), state, where="x.safetensors")
    message = str(caught.value)
    assert "x.safetensors" in message
    assert "missing aux_head.classifier.bias" in message
    assert "unexpected surplus" in message
    assert "head.classifier.weight is (5, 8, 1, 1), the network needs (3, 8, 1, 1)" in message


def test_a_long_list_of_problems_is_cut_and_counted(network: Callable[..., Segmenter]) -> None:
    with pytest.raises(CheckpointError, match=r"and \d+ more"):
        networks.load_weights(network(), {}, where="x")


def test_a_refused_checkpoint_changes_no_weight(network: Callable[..., Segmenter]) -> None:
    model = network(seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = network(seed=2).state_dict()
    del state["head.classifier.bias"]
    with pytest.raises(CheckpointError):
        networks.load_weights(model, state, where="x")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_checkpoint_for_other_classes_is_refused_naming_both(
    tmp_path: Path, network: Callable[..., Segmenter]
) -> None:
    loaded = networks.load_network(written(tmp_path / "m.safetensors", network(classes=3)))
    networks.require_classes(loaded, INDEX)
    more = replace(INDEX, name="ade20k", classes=("a",) * 150)
    with pytest.raises(CheckpointError, match="3 classes, dataset ade20k has 150") as caught:
        networks.require_classes(loaded, more)
    assert "trained on scenes" in caught.value.hint
    renamed = replace(INDEX, classes=("road", "truck", "sky"))
    with pytest.raises(CheckpointError, match="'car' against 'truck'"):
        networks.require_classes(loaded, renamed)


def test_a_bgr_teacher_and_an_rgb_student_share_a_batch_and_see_their_own_pixels(
    tmp_path: Path, network: Callable[..., Segmenter], batch: Callable[..., Batch]
) -> None:
    caffe = InputContract("bgr", 255, (104.0, 117.0, 123.0), (1.0, 2.0, 3.0))
    teacher = network(seed=1, classes=3, input=caffe)
    loaded = networks.load_network(written(tmp_path / "teacher.safetensors", teacher)).model
    student = network(seed=2, classes=3)
    seen: dict[str, torch.Tensor] = {}
    loaded.backbone.register_forward_pre_hook(lambda _, given: seen.__setitem__("teacher", given[0]))
    student.backbone.register_forward_pre_hook(lambda _, given: seen.__setitem__("student", given[0]))
    image = batch(0).image
    frozen_teacher(loaded, taps=(), amp=None)(image)
    student(image)
    red, green, blue = image.float().unbind(1)
    expected = torch.stack([blue - 104, (green - 117) / 2, (red - 123) / 3], 1)
    torch.testing.assert_close(seen["teacher"], expected)
    rgb = torch.stack(
        [(red / 255 - 0.485) / 0.229, (green / 255 - 0.456) / 0.224, (blue / 255 - 0.406) / 0.225], 1
    )
    torch.testing.assert_close(seen["student"], rgb, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("align_corners", [True, False])
def test_the_recipes_align_corners_reaches_network_loss_and_hints(
    align_corners: bool, batch: Callable[..., Batch]
) -> None:
    given = recipe(student=f"  align_corners: {str(align_corners).lower()}\n  aux: false")
    assert given.student is not None
    model = build.network(given.student, 5).eval()
    assert model.head.align_corners is align_corners
    goal = build.objective(given, model)
    images, label = batch(0)
    logits = model(images).logits
    up = F.interpolate(logits, label.shape[-2:], mode="bilinear", align_corners=align_corners)
    expected = F.cross_entropy(up, label, ignore_index=255)
    torch.testing.assert_close(goal(Batch(images, label), None)["ce"], expected)
    large = torch.rand(2, 5, 9, 9)
    resized = F.interpolate(large, logits.shape[-2:], mode="bilinear", align_corners=align_corners)
    assert torch.equal(goal._resized(large, logits), resized)


def test_losses_of_weight_zero_are_left_out_and_weights_multiply(batch: Callable[..., Batch]) -> None:
    losses = "teacher: {checkpoint: t.safetensors}\nlosses: {ce: {weight: 0.5}, cwd: {weight: 0}}"
    half, whole = recipe(losses), recipe()
    assert half.student is not None
    model = build.network(half.student, 5).eval()
    terms = build.objective(half, model)(batch(0), None)
    assert list(terms) == ["ce"]
    assert terms["ce"].item() == pytest.approx(
        0.5 * build.objective(whole, model)(batch(0), None)["ce"].item()
    )


def test_a_recipe_without_any_loss_trains_nothing_and_says_so() -> None:
    given = recipe("losses: {ce: {weight: 0}}")
    assert given.student is not None
    with pytest.raises(RecipeError, match="nothing to train"):
        build.objective(given, build.network(given.student, 3))


def test_the_optimizer_sees_the_student_and_never_the_teacher(network: Callable[..., Segmenter]) -> None:
    given = recipe()
    student = network()
    training = build.training(given, student, ONE)
    optimised = {id(p) for group in training.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in student.parameters()}


def test_the_recipes_head_lr_spares_the_backbone_alone(network: Callable[..., Segmenter]) -> None:
    run = build.training(recipe("optimizer: {lr: 0.01, head_lr: 10, decay_norms: false}"), network(), ONE)
    known = {id(p): name for name, p in run.objective.named_parameters()}
    rates: dict[bool, set[float]] = {True: set(), False: set()}
    for group in run.optimizer.param_groups:
        for parameter in group["params"]:
            rates[known[id(parameter)].startswith("student.backbone.")].add(group["lr"])
    assert rates == {True: {0.01}, False: {0.1}}


@pytest.mark.parametrize("losses", ["ce: {aux_weight: 0}", "ce: {weight: 0}, kd: {}"])
def test_an_auxiliary_head_that_no_loss_reads_is_not_trained(losses: str) -> None:
    """DistributedDataParallel stops at a parameter that never gets a gradient."""
    given = recipe(f"teacher: {{checkpoint: t.safetensors}}\nlosses: {{{losses}}}")
    assert given.student is not None
    student = build.network(given.student, 3)
    training = build.training(given, student, ONE)
    assert student.aux_head is not None
    optimised = {id(p) for group in training.optimizer.param_groups for p in group["params"]}
    assert not optimised & {id(p) for p in student.aux_head.parameters()}


def test_strict_determinism_is_refused_on_a_gpu(network: Callable[..., Segmenter]) -> None:
    on_gpu = Ranks(0, 1, torch.device("cuda"))
    with pytest.raises(EnvironmentFailure, match="strict cannot be kept on a GPU"):
        build.training(recipe("train: {deterministic: strict}"), network(), on_gpu)


def test_fp16_needs_a_gpu(network: Callable[..., Segmenter]) -> None:
    with pytest.raises(EnvironmentFailure, match="fp16") as caught:
        build.training(recipe("train: {amp: fp16}"), network(), ONE)
    assert "bf16" in caught.value.hint


def test_channels_last_is_refused_where_torch_would_crash(network: Callable[..., Segmenter]) -> None:
    given = recipe("train: {channels_last: true}")
    with pytest.raises(EnvironmentFailure, match="channels_last"):
        build.training(given, network(), ONE)
    wide = network(backbone_options={"layers": [1, 1, 1, 1], "channels": [16, 16, 16, 16]})
    training = build.training(given, wide, ONE)
    weights = (p for p in training.objective.student.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1)
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_a_recipes_evaluation_protocol_is_checked_before_training() -> None:
    with pytest.raises(RecipeError, match="stride"):
        recipe("evaluate: {mode: slide, window: [256, 256]}")
    assert recipe().evaluate.absent == "present"


def test_what_no_loss_reaches_is_frozen_before_processes_wait_for_its_gradient() -> None:
    """HRNet has fusion layers that feed only maps which `features_only` does not hand out."""
    text = (
        "name: tiny\ndata: {dataset: scenes}\n"
        "student: {backbone: hrnet_w18_small, output_stride: 32, head_channels: 8, aux: false}\n"
    )
    wanted = loads_resolved(text)
    assert wanted.student is not None
    run = build.training(wanted, build.network(wanted.student, 3), Ranks(0, 1, torch.device("cpu")))
    student = run.objective.student
    frozen = [name for name, parameter in student.named_parameters() if not parameter.requires_grad]
    assert frozen
    image = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    student(image).logits.sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in student.parameters())
