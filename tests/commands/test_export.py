"""What `hwdkit export` writes, checks and refuses."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from tiny_runs import Outcome, Pair, hwdkit

import hwdkit as hwdkit_package
from hwdkit.checkpoints.files import file_digest, load_model, save_model
from hwdkit.data.index import load_index
from hwdkit.engine.networks import description, load_network
from hwdkit.models.segmenter import NetworkSpec, build

SIZE = ["--input", "64x48"]


def export(pair: Pair, *arguments: object) -> Outcome:
    own = () if "-c" in arguments else ("-c", pair.student)
    root = () if "--data-root" in arguments else ("--data-root", pair.data)
    return hwdkit("export", *arguments, *own, *root, "-q")


def succeeded(pair: Pair, *arguments: object) -> dict[str, Any]:
    done = export(pair, *arguments, "--json")
    assert done.code == 0, done.err
    assert done.err == ""
    return done.document


def val_image(pair: Pair) -> np.ndarray[Any, np.dtype[np.uint8]]:
    index = load_index(pair.data / "scenes")
    with Image.open(index.root / index.splits["val"][0].image) as image:
        return np.array(image)


@dataclass(frozen=True)
class Edge:
    """An exported file, the checkpoint that it is of, and the command's document."""

    path: Path
    checkpoint: Path
    result: dict[str, Any]


@pytest.fixture(scope="module")
def edge(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Edge:
    """A PSPNet (its bins depend on the size) as uint8 RGB in, class ids out, with every axis open."""
    folder = tmp_path_factory.mktemp("edge")
    torch.manual_seed(1)
    options = {"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32]}
    model = build(NetworkSpec("resnet18", 12, options, 8, "pspnet", 8)).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
    told = description(model, load_index(pair.data / "scenes"), role="student")
    save_model(folder / "student.safetensors", model.state_dict(), told)
    path = folder / "new" / "student.onnx"
    line = [*SIZE, "--bake-preprocessing", "--output", "classes", "--dynamic", "batch,height,width"]
    result = succeeded(pair, "-c", folder / "student.safetensors", "-o", path, *line)
    return Edge(path, folder / "student.safetensors", result)


def test_the_file_gives_the_class_ids_of_the_network(pair: Pair, edge: Edge) -> None:
    image = val_image(pair)[:50, :70].transpose(2, 0, 1)[None].copy()
    session = onnxruntime.InferenceSession(str(edge.path), providers=["CPUExecutionProvider"])
    (classes,) = session.run(None, {"image": image})
    model = load_network(edge.checkpoint).model.eval()
    with torch.no_grad():
        logits = model.upsample(model(torch.from_numpy(image)).logits, (50, 70))
    assert classes.dtype == np.uint8
    assert classes.shape == (1, 50, 70)
    assert len(np.unique(classes)) > 2
    assert np.mean(classes == logits.argmax(1).numpy()) > 0.999


def test_the_graph_has_named_axes_no_batch_norm_and_no_auxiliary_head(edge: Edge) -> None:
    model = onnx.load(str(edge.path))
    (given,), (made,) = model.graph.input, model.graph.output
    dims = [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim]
    assert (given.name, made.name, dims) == ("image", "classes", ["batch", 3, "height", "width"])
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert not any("aux" in tensor.name for tensor in model.graph.initializer)


def test_the_file_says_what_it_is(edge: Edge) -> None:
    session = onnxruntime.InferenceSession(str(edge.path), providers=["CPUExecutionProvider"])
    told = json.loads(session.get_modelmeta().custom_metadata_map["hwdkit"])
    loaded = load_network(edge.checkpoint)
    assert told["classes"] == list(loaded.classes)
    assert told["palette"] == [list(colour) for colour in loaded.palette]
    assert told["input_contract"] == loaded.model.contract.to_dict()
    assert told["dataset"] == "scenes"
    assert told["checkpoint_sha256"] == file_digest(edge.checkpoint)
    assert told["form"]["dynamic"] == ["batch", "height", "width"]
    assert told["form"]["baked"] is True


def test_the_document_says_what_was_verified_where(edge: Edge) -> None:
    path, result = edge.path, edge.result
    assert result["out"] == str(path)
    assert result["bytes"] == path.stat().st_size
    assert list(path.parent.iterdir()) == [path]
    assert result["verified"]["on"] == "scenes val"
    shapes = [at["shape"] for at in result["verified"]["shapes"]]
    assert shapes == [[1, 3, 64, 48], [2, 3, 83, 63]]
    assert all(at["max_difference"] <= 1e-3 for at in result["verified"]["shapes"])


def test_an_existing_file_is_never_replaced(pair: Pair, edge: Edge) -> None:
    before = edge.path.read_bytes()
    done = export(pair, "-o", edge.path)
    assert (done.code, edge.path.read_bytes()) == (2, before)
    assert "exists; nothing is overwritten, name a new file" in done.err


def test_no_path_of_the_machine_gets_into_a_file(edge: Edge) -> None:
    content = edge.path.read_bytes()
    for path in (
        Path(hwdkit_package.__file__).parents[1],
        Path(torch.__file__).parent,
        edge.checkpoint.parent,
    ):
        assert str(path).encode() not in content, path


def test_torch_export_takes_normalised_pixels_and_needs_no_dataset(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "student.pt2"
    done = export(pair, "-o", path, *SIZE, "--data-root", tmp_path / "none")
    assert done.code == 0, done.err
    assert "verified on a generated picture" in done.out
    assert "in: image float32, normalised (1, 3, 64, 48)   out: logits" in done.out
    extra = {"hwdkit": ""}
    assert str(Path(torch.__file__).parent).encode() not in path.read_bytes()
    program = torch.export.load(path, extra_files=extra)
    model = load_network(pair.student).model.eval()
    image = torch.from_numpy(val_image(pair)[:64, :48].transpose(2, 0, 1)[None].copy())
    with torch.no_grad():
        expected = model(image).logits
        torch.testing.assert_close(program.module()(model.contract.normalise(image)), expected)
    assert json.loads(extra["hwdkit"])["form"]["baked"] is False


def test_a_file_that_is_not_verified_does_not_appear(pair: Pair, tmp_path: Path) -> None:
    state, told = load_model(pair.student / "student.safetensors")
    bias = next(name for name in state if name.startswith("head.") and state[name].shape == (12,))
    save_model(tmp_path / "nan.safetensors", {**state, bias: state[bias] * float("nan")}, told)
    image = tmp_path / "a.png"
    Image.fromarray(val_image(pair)).save(image)
    line = ["-c", tmp_path / "nan.safetensors", *SIZE, "--format", "torch-export", "--images", image]
    done = export(pair, *line, "-o", tmp_path / "out.pt2")
    assert done.code == 5
    assert "differs from the network by nan" in done.err
    assert "Nothing was written" in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"nan.safetensors", "a.png"}


@pytest.mark.slow
def test_int8_is_measured_beside_fp32_and_kept_when_it_misses_the_gate(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "student.onnx"
    line = [*SIZE, "--int8", "--calibration", 4, "--limit", 2, "--max-miou-drop", -100, "--json"]
    done = export(pair, "-o", path, *line)
    assert done.code == 9, done.err
    assert "more than --max-miou-drop -100; the file is kept" in done.err
    found = done.document["int8"]
    assert done.document["error"]["kind"] == "gate"
    assert (found["images"], found["images_in_split"], found["fed_at"]) == (2, 4, "64x48")
    assert found["calibration"] == {"on": "scenes train", "images": 4}
    assert found["miou_drop_points"] == pytest.approx(100 * (found["fp32"]["miou"] - found["int8"]["miou"]))
    assert found["int8"]["bytes"] == path.stat().st_size
    assert found["int8"]["latency_ms"] > 0
    assert list(tmp_path.iterdir()) == [path]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    told = json.loads(session.get_modelmeta().custom_metadata_map["hwdkit"])
    assert told["int8"] == found["calibration"]
    assert b"QuantizeLinear" in path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "tflite"], "'--format': 'tflite' is not one of 'onnx', 'torch-export'"),
        (["--dynamic", "batch,depth"], "--dynamic: 'depth' is not one of batch, height, width"),
        (["--output", "mask"], "'--output': 'mask' is not one of"),
        (["--input", "8x8"], "--input: '8x8' is not HEIGHTxWIDTH"),
        (["--format", "torch-export", "--int8"], "it needs --format onnx"),
        (["--format", "torch-export"], "a.onnx does not end in .pt2"),
        (["--opset", 11], "Invalid value for '--opset'"),
    ],
)
def test_a_line_that_cannot_be_meant_is_refused(
    pair: Pair, tmp_path: Path, arguments: list[object], message: str
) -> None:
    done = export(pair, "-o", tmp_path / "a.onnx", *arguments)
    assert done.code == 2
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_the_pip_command_is_told(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    done = export(pair, "-o", tmp_path / "a.onnx")
    assert done.code == 6
    assert "needs onnxscript" in done.err
    assert "pip install 'hwdkit[onnx]'" in done.err


def test_int8_without_its_dataset_fails_before_any_work(pair: Pair, tmp_path: Path) -> None:
    done = export(pair, "-o", tmp_path / "a.onnx", "--int8", "--data-root", tmp_path / "none")
    assert done.code == 4
    assert "--int8 measures mIoU on the checkpoint's dataset" in done.err
    assert "prepare-data" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.pth", "does not end in .onnx"),
        ("a.pt2 --format onnx", "a.pt2 does not end in .onnx"),
        ("a.pt2 --int8", "it needs --format onnx"),
        (f"{'a' * 300}.onnx", "File name too long"),
        ("file/a.onnx", "is a file, not a folder"),
    ],
)
def test_an_output_that_cannot_be_is_told_before_anything_is_read(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "file").touch()
    done = hwdkit("export", "-c", tmp_path / "no network", "-o", *f"{tmp_path}/{name}".split())
    assert done.code == 2
    assert message in done.err


def test_an_image_beyond_all_memory_is_no_bug(pair: Pair, tmp_path: Path) -> None:
    line = ["-o", tmp_path / "new" / "a.onnx", "--input", "99999x99999", "--data-root", tmp_path]
    for more in ([], ["--no-verify"]):
        done = export(pair, *line, *more)
        assert done.code == 8, done.err
        assert "give a smaller --input" in done.err
    assert list(tmp_path.iterdir()) == []
