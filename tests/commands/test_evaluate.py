"""What `hwdkit evaluate` measures, writes and refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import Pair, hwdkit

from hwdkit.checkpoints.files import load_model, save_model
from hwdkit.commands import evaluate
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.index import load_index
from hwdkit.engine.evaluate import Protocol, predict
from hwdkit.engine.networks import load_network
from hwdkit.metrics import ConfusionMatrix


def measured(pair: Pair, *more: object) -> dict[str, Any]:
    done = hwdkit(
        "evaluate", "-c", pair.student, "--data-root", pair.data, "--gpus", 0, *more, "--json", "-q"
    )
    assert done.code == 0, done.err
    return done.document


def test_the_result_names_what_was_measured(pair: Pair) -> None:
    result = measured(pair)
    assert result["checkpoint"] == str(pair.student / "student.safetensors")
    assert len(result["checkpoint_sha256"]) == 64
    assert (result["dataset"], result["split"]) == ("scenes", "val")
    assert (result["images"], result["images_in_split"]) == (4, 4)
    assert result["protocol"]["mode"] == "whole"
    assert sum(row["share"] for row in result["per_class"]) == pytest.approx(1)
    assert measured(pair, "--workers", 0) == result
    by_file = hwdkit(
        "evaluate",
        "-c",
        pair.student / "student.safetensors",
        "--data-root",
        pair.data,
        "--gpus",
        0,
        "--json",
    )
    assert by_file.document == result


def test_masks_hold_the_prediction_and_overlays_the_image(pair: Pair, tmp_path: Path) -> None:
    folders = ["--save-masks", tmp_path / "new" / "masks", "--save-overlays", tmp_path / "overlays"]
    result = measured(pair, *folders)
    loaded = load_network(pair.student)
    dataset = SegmentationDataset(load_index(pair.data / "scenes"), "val")
    matrix = ConfusionMatrix(12, torch.device("cpu"))
    model = loaded.model.eval()
    for i in range(len(dataset)):
        image, label = dataset.read(i)
        name = Path(dataset.name(i)).with_suffix(".png").name
        with torch.no_grad():
            expected = predict(model, image, Protocol())
        with Image.open(tmp_path / "new" / "masks" / name) as mask:
            assert mask.mode == "P"
            assert mask.getpalette()[:36] == [value for colour in dataset.index.palette for value in colour]
            written = torch.from_numpy(np.array(mask)).long()
        assert torch.equal(written, expected)
        matrix.update(label.long(), written)
        with Image.open(tmp_path / "overlays" / name) as overlay:
            assert (overlay.mode, overlay.size) == ("RGB", tuple(image.shape[:0:-1]))
    assert len(list((tmp_path / "overlays").iterdir())) == 4
    assert matrix.miou() == pytest.approx(result["miou"], abs=1e-12)


def test_a_limit_is_told(pair: Pair) -> None:
    result = measured(pair, "--limit", 3)
    assert (result["images"], result["images_in_split"]) == (3, 4)
    shown = hwdkit(
        "evaluate", "-c", pair.student, "--data-root", pair.data, "--gpus", 0, "--limit", 3, "--flip"
    )
    assert "scenes val, 3 of 4 images; whole, scales 1, flip; absent classes: present" in shown.out
    assert measured(pair, "--limit", 99)["images"] == 4


def test_the_protocol_of_the_command_line_is_the_one_used(pair: Pair) -> None:
    whole = measured(pair)
    window = ["--mode", "slide", "--window", 64, 64, "--stride", 48, 48]
    slide = measured(pair, *window)
    assert slide["protocol"] | {"window": [64, 64], "stride": [48, 48], "mode": "slide"} == slide["protocol"]
    one_window = measured(pair, "--mode", "slide", "--window", 4096, 4096)
    assert one_window["per_class"] == whole["per_class"]
    scaled = measured(pair, "--scales", "0.5,1.0", "--flip")
    assert scaled["protocol"]["scales"] == [0.5, 1.0]
    assert scaled["protocol"]["flip"] is True
    paper = measured(pair, "--absent", "paper")
    assert paper["miou"] <= whole["miou"]


def test_another_dataset_must_have_the_same_classes(pair: Pair, tmp_path: Path) -> None:
    state, description = load_model(pair.student / "student.safetensors")
    save_model(tmp_path / "cityscapes.safetensors", state, {**description, "dataset": "cityscapes"})
    line = ["evaluate", "-c", tmp_path / "cityscapes.safetensors", "--data-root", pair.data, "--gpus", 0]
    missing = hwdkit(*line)
    assert missing.code == 4
    assert "prepare-data cityscapes" in missing.err
    assert hwdkit(*line, "--dataset", "scenes", "--json").document["dataset"] == "scenes"
    kitti = hwdkit(*line, "--dataset", "kitti")
    assert kitti.code == 2
    assert "'ade20k', 'camvid', 'cityscapes', 'scenes'" in kitti.err


def test_the_gate_lets_equality_pass_and_stops_nan() -> None:
    assert evaluate.check_gate({"miou": 0.7}, 0.7) is None
    assert evaluate.check_gate({"miou": 0.0}, None) is None
    assert "0.6900 is below" in str(evaluate.check_gate({"miou": 0.69}, 0.7))
    assert evaluate.check_gate({"miou": float("nan")}, 0.0) is not None
