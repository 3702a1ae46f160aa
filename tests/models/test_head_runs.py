"""Networks with logits of stride 4 on the command line: trained, distilled either way, and what follows."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import hwdkit

RECIPE = """
base: _scenes.yaml
data: {crop: [64, 64], workers: 0}
train: {iterations: 2, batch_size: 2, log_every: 1}
optimizer: {warmup: 0}
"""
CONVNEXT = """{backbone: convnext_atto, backbone_options: {depths: [1, 1, 1, 1], dims: [8, 16, 24, 40]},
  output_stride: 32, head: upernet, head_channels: 12, align_corners: false, aux: AUX}"""
RESNET = """{backbone: resnet18, backbone_options: {layers: [1, 1, 1, 1], channels: [8, 16, 24, 32]},
  output_stride: 8, head: deeplabv3, head_channels: 8, aux: AUX}"""
PVT = """{backbone: pvt_v2_b0, output_stride: 32, head: segformer, head_channels: 10, align_corners: false,
  aux: AUX, backbone_options: {depths: [1, 1, 1, 1], embed_dims: [8, 16, 24, 32], num_heads: [1, 2, 4, 8]}}"""
LOSSES = """
losses:
  hwd: {weight: 3.0}
  cwd: {weight: 3.0}
  mimic: {tap: stage4, projector: linear}
  mimic_embedding: {loss: mimic, tap: embedding, projector: linear}
  dist: {aux_weight: AUX_WEIGHT}
"""
TERMS = {"ce", "hwd", "cwd", "mimic", "mimic_embedding", "dist"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    made = hwdkit("prepare-data", "scenes", "--train", 4, "--val", 2, "--data-root", folder / "data", "-q")
    assert made.code == 0, made.err
    return folder


def written(root: Path, name: str, text: str, *, aux: bool) -> Path:
    path = root / f"{name}.yaml"
    path.write_text(
        (RECIPE + text).replace("AUX_WEIGHT", "0.4" if aux else "0").replace("AUX", str(aux).lower())
    )
    return path


def teacher(root: Path, network: str, name: str, *, aux: bool) -> Path:
    recipe = written(root, name, f"teacher: {network}", aux=aux)
    trained = hwdkit(
        *("train-teacher", "--recipe", recipe, "--set", "train.iterations=1", "--out", root / name),
        *("--data-root", root / "data", "--gpus", 0, "-q"),
    )
    assert trained.code == 0, trained.err
    return root / name


def distilled(root: Path, networks: tuple[str, str], name: str, *, aux: bool) -> tuple[Path, dict[str, Any]]:
    """Train the first network, plan and run its distillation into the second; where it lies, and the plan."""
    taught = teacher(root, networks[0], f"teacher-{name}", aux=aux)
    text = f"student: {networks[1]}\nteacher: {{recipe: any}}\n{LOSSES}"
    recipe = written(root, f"student-{name}", text, aux=aux)
    options = ("--recipe", recipe, "--teacher", taught, "--data-root", root / "data")
    planned = hwdkit("distill", *options, "--dry-run", "--json")
    assert planned.code == 0, planned.err
    trained = hwdkit("distill", *options, "--out", root / name, "--gpus", 0, "-q")
    assert trained.code == 0, trained.err
    return root / name, {loss["name"]: loss["maps"] for loss in planned.document["losses"]}


def check(run: Path, data: Path) -> None:
    """Every term of every step is a number, and the commands that follow take the network."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert steps
    for line in steps:
        terms = {key.removeprefix("loss_"): value for key, value in line.items() if key.startswith("loss_")}
        assert set(terms) == TERMS
        assert all(math.isfinite(value) and value > 0 for value in terms.values())
    of_run = ("--checkpoint", run, "--data-root", data, "--json", "--quiet")
    evaluated = hwdkit("evaluate", *of_run)
    assert evaluated.code == 0, evaluated.err
    assert evaluated.document["images"] == 2
    assert math.isclose(evaluated.document["miou"], lines[-1]["miou"], abs_tol=1e-6)


@pytest.mark.parametrize("aux", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["aux", "no-aux"])
def test_student_of_stride_8_learns_from_logits_of_stride_4(root: Path, aux: bool) -> None:
    run, maps = distilled(root, (CONVNEXT, RESNET), f"upernet-deeplabv3-{aux}", aux=aux)
    sizes = {
        name: (met[0]["student"], met[0]["teacher"], met[0]["resized"]) for name, met in maps.items() if met
    }
    assert sizes["cwd"] == sizes["hwd"] == sizes["dist"] == ([12, 8, 8], [12, 16, 16], True)
    assert sizes["mimic"] == ([32, 8, 8], [40, 2, 2], True)
    assert sizes["mimic_embedding"] == ([8, 8, 8], [12, 16, 16], True)
    check(run, root / "data")


@pytest.mark.parametrize("aux", [pytest.param(True, marks=pytest.mark.slow), False], ids=["aux", "no-aux"])
def test_student_with_logits_of_stride_4_learns_from_stride_8(root: Path, aux: bool) -> None:
    run, maps = distilled(root, (RESNET, PVT), f"deeplabv3-segformer-{aux}", aux=aux)
    sizes = {
        name: (met[0]["student"], met[0]["teacher"], met[0]["resized"]) for name, met in maps.items() if met
    }
    assert sizes["cwd"] == sizes["hwd"] == sizes["dist"] == ([12, 16, 16], [12, 8, 8], True)
    assert sizes["mimic"] == ([32, 2, 2], [32, 8, 8], True)
    assert sizes["mimic_embedding"] == ([10, 16, 16], [8, 8, 8], True)
    check(run, root / "data")


def test_backbone_that_cannot_be_dilated_is_refused_with_the_line_to_write(root: Path) -> None:
    recipe = written(
        root, "swin", "teacher: {backbone: swin_tiny_patch4_window7_224, head: upernet}", aux=True
    )
    refused = hwdkit("train-teacher", "--recipe", recipe, "--data-root", root / "data", "--dry-run")
    assert refused.code == 3
    assert "swin_tiny_patch4_window7_224 has no output_stride 8" in refused.err
    assert "set output_stride: 32" in refused.err


def test_one_image_at_a_time_cannot_train_upernet(root: Path) -> None:
    recipe = written(root, "single", f"teacher: {CONVNEXT}", aux=True)
    options = ("--recipe", recipe, "--set", "train.batch_size=1", "--data-root", root / "data")
    refused = hwdkit("train-teacher", *options, "--out", root / "single", "--gpus", 0, "-q")
    assert refused.code == 3
    assert "cannot train the pooling branch of upernet" in refused.err
    assert "head fcn or segformer" in refused.err
