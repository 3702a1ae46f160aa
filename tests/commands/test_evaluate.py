"""What `hwdkit evaluate` measures, writes and refuses."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import Pair, environment, hwdkit

from hwdkit.checkpoints.files import load_model, save_model
from hwdkit.commands.evaluate import scores as evaluate
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.index import load_index, save_index
from hwdkit.engine.evaluate import predict
from hwdkit.engine.networks import load_network
from hwdkit.metrics import ConfusionMatrix
from hwdkit.recipe.protocol import Protocol


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
    assert kitti.code == 4
    assert "unknown dataset 'kitti'" in kitti.err
    assert "cityscapes, coco-stuff-10k" in kitti.err


def relabelled(pair: Pair, root: Path, raw_of: list[int], *, blank: bool = False) -> Path:
    """A data root with the pair's dataset, whose labels store class c as raw_of[c], or nothing but 255."""
    index = load_index(pair.data / "scenes")
    files = root / "files"
    known = np.array([*raw_of, *[0] * (255 - len(raw_of)), 255], dtype=np.uint16)
    for image, label, *_ in index.splits["val"]:
        ids = np.array(Image.open(index.root / label))
        written = known[np.full_like(ids, 255) if blank else ids]
        for path in (image, label):
            (files / path).parent.mkdir(parents=True, exist_ok=True)
        (files / image).write_bytes((index.root / image).read_bytes())
        Image.fromarray(written if written.max() > 255 else written.astype(np.uint8)).save(files / label)
    # Every class has a second id, above the one to write.
    label_map = {255: 255, **{raw: c for c, raw in enumerate(raw_of)}, **{900 + c: c for c in range(12)}}
    splits = {"val": index.splits["val"]}
    save_index(dataclasses.replace(index, root=files, splits=splits, label_map=label_map), root / "scenes")
    return root


@pytest.mark.parametrize("raw_of", [[7 * c + 2 for c in range(12)], [300 + c for c in range(12)]])
def test_predictions_hold_the_ids_of_the_dataset(pair: Pair, tmp_path: Path, raw_of: list[int]) -> None:
    root = relabelled(pair, tmp_path / "data", raw_of)
    masks, predictions = tmp_path / "masks", tmp_path / "new" / "predictions"
    line = ["evaluate", "-c", pair.student, "--data-root", root, "--gpus", 0, "--save-masks", masks]
    done = hwdkit(*line, "--save-predictions", predictions, "--json", "-q")
    assert done.code == 0, done.err
    assert done.document["miou"] == measured(pair)["miou"]
    images = [Path(of.image) for of in load_index(root / "scenes").splits["val"]]
    assert {path.name for path in predictions.iterdir()} == {image.stem + ".png" for image in images}
    for path in predictions.iterdir():
        with Image.open(path) as written, Image.open(masks / path.name) as mask:
            assert written.mode == ("L" if max(raw_of) < 256 else "I;16")
            assert np.array_equal(np.array(written), np.array(raw_of)[np.array(mask)])


def test_predictions_go_into_an_empty_folder_only(pair: Pair, tmp_path: Path) -> None:
    line = ["evaluate", "-c", pair.student, "--data-root", pair.data, "--gpus", 0, "--limit", 1]
    folder = tmp_path / "predictions"
    folder.mkdir()
    assert hwdkit(*line, "--save-predictions", folder, "-q").code == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(before) == 1
    again = hwdkit(*line, "--save-predictions", folder, "-q")
    assert again.code == 2
    assert f"{folder} is not an empty folder" in again.err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    file = tmp_path / "file"
    file.touch()
    assert hwdkit(*line, "--save-predictions", file, "--ranks", 2).code == 2


def test_a_split_without_labels_can_be_predicted_and_is_not_scored(pair: Pair, tmp_path: Path) -> None:
    root = relabelled(pair, tmp_path / "data", list(range(12)), blank=True)
    line = ["evaluate", "-c", pair.student, "--data-root", root, "--gpus", 0]
    done = hwdkit(*line, "--save-predictions", tmp_path / "test")
    assert done.code == 0, done.err
    assert len(list((tmp_path / "test").iterdir())) == 4
    assert "Nothing to score: no pixel of these images is labelled" in done.out
    assert hwdkit(*line, "--json").document["pixel_accuracy"] is None


@pytest.mark.distributed
def test_of_several_processes_each_writes_its_own_predictions(pair: Pair, tmp_path: Path) -> None:
    line = ["evaluate", "-c", pair.student, "--data-root", pair.data, "--gpus", 0, "-q", "--save-predictions"]
    assert hwdkit(*line, tmp_path / "one").code == 0
    command = [sys.executable, "-m", "hwdkit", *map(str, line), str(tmp_path / "two"), "--ranks", "2"]
    subprocess.run(command, check=True, env=environment(), cwd=tmp_path, timeout=120)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in ("one", "two")
    )
    assert len(one) == 4
    assert one == two


def test_images_that_share_a_name_keep_their_folders() -> None:
    assert evaluate._file_names(["train/a.jpg", "train/b.png"]) == ["a.png", "b.png"]
    assert evaluate._file_names(["x/a.jpg", "y/a.jpg"]) == ["x/a.png", "y/a.png"]
    assert evaluate._file_names(["/x/a.jpg", "../y/a.jpg"]) == ["x/a.png", "y/a.png"]
    assert evaluate._file_names(["p/a.jpg", "p/a.png"]) == ["p/a.jpg.png", "p/a.png.png"]


def test_the_gate_lets_equality_pass_and_stops_nan() -> None:
    assert evaluate.gate({"miou": 0.7}, 0.7) is None
    assert evaluate.gate({"miou": 0.0}, None) is None
    assert "0.6900 is below" in str(evaluate.gate({"miou": 0.69}, 0.7))
    assert evaluate.gate({"miou": float("nan")}, 0.0) is not None
