"""The deployed network computes what the network computes, at sizes that it was not traced with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hwdkit.engine.networks import Loaded
from hwdkit.errors import CheckpointError
from hwdkit.export import files, verify
from hwdkit.export.deployed import Axis, Deployed, Form, MatrixPool2d, trace
from hwdkit.models.contract import InputContract
from hwdkit.models.segmenter import HEADS, NetworkSpec, build

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32]}
ALL: frozenset[Axis] = frozenset({"batch", "height", "width"})


def network(backbone: str = "resnet18", head: str = "pspnet", stride: int = 8, classes: int = 5) -> Loaded:
    """An untrained network whose logits spread, with a contract in which every part matters."""
    torch.manual_seed(3)
    options = SMALL if backbone == "resnet18" else {}
    contract = InputContract("bgr", 255, (104.0, 117.0, 123.0), (58.0, 57.0, 56.0), align_corners=False)
    model = build(NetworkSpec(backbone, classes, options, stride, head, 8, input=contract)).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
    names, colours = tuple(map(str, range(classes))), ((0, 0, 0),) * classes
    return Loaded(model, Path(__file__), names, colours, {"dataset": "none"})


def pictures(count: int = 2) -> list[Tensor]:
    return [verify.generated_picture((50 + 30 * i, 70)) for i in range(count)]


def exported(loaded: Loaded, form: Form, path: Path) -> files.Exported:
    files.write_onnx(path, trace(loaded, form), files.description(loaded, form), form=form, opset=18)
    return files.open_exported(path, "onnx")


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.one_of(st.none(), st.integers(1, 7)), st.one_of(st.none(), st.integers(1, 7))),
)
def test_pooling_by_matrices_is_adaptive_pooling(
    size: tuple[int, int], bins: tuple[int | None, int | None]
) -> None:
    torch.manual_seed(0)
    map_ = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(MatrixPool2d(bins)(map_), nn.AdaptiveAvgPool2d(bins)(map_))


def test_making_a_deployed_network_leaves_the_original_as_it_is() -> None:
    model = network().model.train()
    Deployed(model, Form(dynamic=ALL))
    assert model.training
    assert model.head.training
    assert any(isinstance(module, nn.AdaptiveAvgPool2d) for module in model.head.modules())


@pytest.mark.slow
def test_a_file_with_open_axes_agrees_at_sizes_that_divide_nothing(tmp_path: Path) -> None:
    loaded, form = network(), Form((64, 48), ALL)
    run = exported(loaded, form, tmp_path / "a.onnx")
    for shape in [(1, 64, 48), (1, 96, 136), (3, 75, 101)]:
        found = verify.agreement(loaded.model, run, pictures(3), form=form, shape=shape)
        assert found.max_difference < 1e-4, shape
        assert found.other_class < 1e-3


@pytest.mark.parametrize(("classes", "dtype"), [(256, torch.uint8), (257, torch.int32)])
def test_class_ids_are_as_wide_as_they_need_to_be(classes: int, dtype: torch.dtype) -> None:
    deployed = Deployed(network(head="fcn", classes=classes).model, Form(output="classes", baked=True))
    with torch.no_grad():
        assert deployed(pictures(1)[0][None]).dtype == dtype


def test_a_file_that_differs_is_refused_and_nan_differs() -> None:
    model = network(head="fcn").model
    form = Form((64, 48))

    def shifted(by: float) -> files.Exported:
        def run(pixels: Tensor) -> Tensor:
            logits = model.forward_normalised(pixels).logits.clone()
            logits[0, 2, 1, 1] += by
            return logits

        return run

    def found(by: float) -> list[verify.Agreement]:
        return [verify.agreement(model, shifted(by), pictures(), form=form, shape=(1, 64, 48))]

    assert found(0)[0].max_difference == 0
    assert found(0.25)[0].max_difference == pytest.approx(0.25)
    verify.require_agreement(found(0.25), tolerance=0.3, form=form)
    for by in (0.25, float("nan")):
        with pytest.raises(CheckpointError, match="differs from the network"):
            verify.require_agreement(found(by), tolerance=0.2, form=form)


def test_another_class_counts_by_how_much_the_network_preferred_its_own() -> None:
    model = network(head="fcn").model
    form = Form((64, 48), output="classes", baked=True)

    def third(image: Tensor) -> Tensor:
        return torch.full((1, 64, 48), 2, dtype=torch.uint8)

    shown = pictures(1)
    found = verify.agreement(model, third, shown, form=form, shape=(1, 64, 48))
    with torch.no_grad():
        image = verify.resized(shown[0], (64, 48))[None]
        logits = model.upsample(model(image).logits, (64, 48))
    assert found.max_difference == pytest.approx(float((logits.amax(1) - logits[:, 2]).max()))
    assert found.other_class == pytest.approx(float((logits.argmax(1) != 2).double().mean()))


def test_windows_that_shift_with_the_image_are_refused_at_once_and_say_what_to_do() -> None:
    class Shifting(nn.Module):
        always_partition = True

    loaded = network(head="fcn")
    loaded.model.backbone.add_module("block", Shifting())
    with pytest.raises(CheckpointError, match=r"cannot be left open[\s\S]*--input HxW"):
        trace(loaded, Form(dynamic=frozenset({"width"})))


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [frozenset(), ALL], ids=["static", "dynamic"])
@pytest.mark.parametrize(
    ("backbone", "head", "stride"),
    [
        *(("resnet18", head, 8) for head in HEADS),
        ("mobilenetv2_100", "deeplabv3", 8),
        ("efficientnet_lite0", "fcn", 8),
        ("convnext_atto", "pspnet", 16),
        ("pvt_v2_b0", "segformer", 32),
    ],
)
def test_network_exports(
    backbone: str, head: str, stride: int, dynamic: frozenset[Axis], tmp_path: Path
) -> None:
    loaded, form = network(backbone, head, stride), Form((64, 96), dynamic, "full", True)
    run = exported(loaded, form, tmp_path / "a.onnx")
    for shape in form.shapes():
        found = verify.agreement(loaded.model, run, pictures(), form=form, shape=shape)
        # Wrong files are off by hundredths; of EfficientNet float32 itself is off by 0.0009 here.
        assert found.max_difference < 4e-3, shape


@pytest.mark.parametrize("kind", ["onnx", "torch-export"])
def test_a_file_that_cannot_be_opened_is_a_checkpoints_fault(tmp_path: Path, kind: files.Format) -> None:
    (tmp_path / "a").write_bytes(b"neither")
    with pytest.raises(CheckpointError, match="the exported file cannot be opened"):
        files.open_exported(tmp_path / "a", kind)


@pytest.mark.slow
def test_swin_exports_at_one_size(tmp_path: Path) -> None:
    loaded, form = network("swin_tiny_patch4_window7_224", "fcn", 32), Form((64, 96))
    run = exported(loaded, form, tmp_path / "a.onnx")
    assert verify.agreement(loaded.model, run, pictures(), form=form, shape=(1, 64, 96)).max_difference < 1e-3
    with pytest.raises(CheckpointError, match="shifted windows"):
        trace(loaded, Form((64, 96), frozenset({"height"})))
