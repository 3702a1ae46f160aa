"""How images are shown to a network, and that every pixel is counted once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.distributed import Ranks
from hwdkit.engine.evaluate import _starts, evaluate, image_logits, predict
from hwdkit.errors import RecipeError
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe.protocol import Protocol
from hwdkit.types import Batch

ONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def model(network: Callable[..., Segmenter], batch: Callable[..., Batch]) -> Iterator[Segmenter]:
    """Untrained, but with batch-norm statistics and a bias that make its answers vary over an image."""
    model = network(aux=False)
    with torch.no_grad():
        for seed in range(5):
            model(batch(seed, 4).image)
        model.eval()
        model.head.classifier.bias -= model(batch(9, 4, size=48).image).logits.mean((0, 2, 3))
        yield model


@pytest.fixture
def image(batch: Callable[..., Batch]) -> Tensor:
    return batch(9, 1, size=48).image[0, :, :, :40]


def test_a_whole_image_is_one_forward_pass_and_an_argmax(model: Segmenter, image: Tensor) -> None:
    low = model(image[None]).logits
    expected = F.interpolate(low, (48, 40), mode="bilinear", align_corners=True)[0]
    assert torch.equal(image_logits(model, image, Protocol()), expected)
    prediction = predict(model, image, Protocol())
    assert torch.equal(prediction, expected.argmax(0))
    assert len(prediction.unique()) > 1


def test_align_corners_false_is_honoured(network: Callable[..., Segmenter], image: Tensor) -> None:
    from hwdkit.models.contract import InputContract

    model = network(aux=False, input=InputContract(align_corners=False)).eval()
    with torch.no_grad():
        low = model(image[None]).logits
        expected = F.interpolate(low, (48, 40), mode="bilinear", align_corners=False)[0]
        assert torch.equal(image_logits(model, image, Protocol()), expected)
        assert not torch.equal(expected, F.interpolate(low, (48, 40), mode="bilinear", align_corners=True)[0])


@pytest.mark.parametrize("window", [(48, 40), (64, 64), (512, 512)])
def test_a_window_as_large_as_the_image_is_the_whole_image(
    model: Segmenter, image: Tensor, window: tuple[int, int]
) -> None:
    slide = Protocol(mode="slide", window=window, stride=(32, 32))
    assert torch.equal(image_logits(model, image, slide), image_logits(model, image, Protocol()))


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300))
def test_windows_cover_every_pixel_and_stay_inside(length: int, window: int, stride: int) -> None:
    window, stride = min(window, length), min(stride, window)
    starts = _starts(length, window, stride)
    covered = torch.zeros(length, dtype=torch.bool)
    for start in starts:
        assert 0 <= start <= length - window
        covered[start : start + window] = True
    assert covered.all()
    assert starts == sorted(set(starts))
    assert starts[-1] == length - window


def test_the_last_window_is_shifted_inside() -> None:
    assert _starts(100, 40, 30) == [0, 30, 60]
    assert _starts(101, 40, 30) == [0, 30, 60, 61]
    assert _starts(40, 40, 30) == [0]


def test_overlapping_windows_are_averaged_by_how_many_see_a_pixel(model: Segmenter, image: Tensor) -> None:
    slide = Protocol(mode="slide", window=(32, 32), stride=(16, 16))
    total, count = torch.zeros(5, 48, 40), torch.zeros(48, 40)
    for top in (0, 16):
        for left in (0, 8):
            low = model(image[None, :, top : top + 32, left : left + 32]).logits
            total[:, top : top + 32, left : left + 32] += model.upsample(low, (32, 32))[0]
            count[top : top + 32, left : left + 32] += 1
    torch.testing.assert_close(image_logits(model, image, slide), total / count)


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_scales_and_flips_are_averaged_over_logits(model: Segmenter, image: Tensor, mode: Any) -> None:
    views = []
    for size in ((48, 40), (72, 60)):
        scaled = F.interpolate(image[None].float(), size, mode="bilinear", align_corners=False)
        for shown in (scaled, scaled.flip(-1)):
            logits = model(shown).logits
            # A window's logits are stretched to the window first; an unsplit image needs one stretch only.
            logits = model.upsample(logits, size) if mode == "slide" else logits
            logits = model.upsample(logits if shown is scaled else logits.flip(-1), (48, 40))
            views.append(logits[0])
    protocol = Protocol(mode=mode, window=(96, 96), stride=(64, 64), scales=(1.0, 1.5), flip=True)
    torch.testing.assert_close(image_logits(model, image, protocol), sum(views), rtol=1e-4, atol=1e-4)


def test_a_flipped_view_lets_mirrored_images_have_mirrored_answers(model: Segmenter, image: Tensor) -> None:
    protocol = Protocol(flip=True)
    there, back = image_logits(model, image, protocol), image_logits(model, image.flip(-1), protocol)
    torch.testing.assert_close(there, back.flip(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "slide", "window": (256, 256)},  # the default stride is larger: gaps would be 0/0
        {"mode": "slide", "stride": (0, 16)},
        {"mode": "slide", "window": (0, 0), "stride": (0, 0)},
        {"scales": ()},
        {"scales": (1.0, -1.0)},
    ],
)
def test_a_protocol_that_cannot_see_every_pixel_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        Protocol(**options)


def test_the_window_does_not_matter_where_nothing_slides() -> None:
    Protocol(mode="whole", window=(16, 16))


def test_counts_are_those_of_a_loop_over_pixels(model: Segmenter, batch: Callable[..., Batch]) -> None:
    images, labels = batch(3, 3)
    result = evaluate(model, zip(range(3), images, labels, strict=True), Protocol(), ranks=ONE)
    hits, labelled, predicted = [0] * 5, [0] * 5, [0] * 5
    for one, label in zip(images, labels, strict=True):
        guess = predict(model, one, Protocol())
        for truth, said in zip(label.flatten().tolist(), guess.flatten().tolist(), strict=True):
            if truth != 255:
                hits[truth] += truth == said
                labelled[truth] += 1
                predicted[said] += 1
    iou = [
        h / (a + p - h) if a + p - h else math.nan for h, a, p in zip(hits, labelled, predicted, strict=True)
    ]
    assert result.iou == pytest.approx(iou, nan_ok=True)
    assert result.images == 3
    assert result.pixel_accuracy == pytest.approx(sum(hits) / sum(labelled))
    assert result.share == pytest.approx([a / sum(labelled) for a in labelled])


def test_absent_classes_are_left_out_or_count_as_zero(model: Segmenter, image: Tensor) -> None:
    with torch.no_grad():
        model.head.classifier.weight.zero_()
        model.head.classifier.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]))  # always class 1
    label = torch.full((48, 40), 1)
    label[:12] = 2
    label[12:24] = 255

    def scores(absent: Any) -> dict[str, Any]:
        result = evaluate(model, [(0, image, label)], Protocol(absent=absent), ranks=ONE)
        return result.to_dict(("a", "b", "c", "d", "e"))

    present, paper = scores("present"), scores("paper")
    assert present["miou"] == pytest.approx((24 / 36 + 0) / 2)
    assert paper["miou"] == pytest.approx((24 / 36 + 0) / 5)
    assert present["absent_classes"] == ["a", "d", "e"]
    assert present["per_class"][0]["iou"] is None
    assert present["macc"] == pytest.approx(0.5)
    assert present["protocol"]["absent"] == "present"
    assert paper["protocol"]["absent"] == "paper"


def test_the_result_names_its_whole_protocol_and_is_json(model: Segmenter, image: Tensor) -> None:
    protocol = Protocol(mode="slide", window=(32, 32), stride=(16, 16), scales=(0.75, 1.0), flip=True)
    result = evaluate(model, [(0, image, torch.zeros(48, 40).long())], protocol, ranks=ONE)
    document = json.loads(json.dumps(result.to_dict(tuple("abcde"))))
    assert document["protocol"] == {
        "mode": "slide", "window": [32, 32], "stride": [16, 16],
        "scales": [0.75, 1.0], "flip": True, "absent": "present",
    }  # fmt: skip


def test_every_image_is_handed_on_with_its_class_map(model: Segmenter, batch: Callable[..., Batch]) -> None:
    images, labels = batch(3, 2)
    seen: dict[int, Tensor] = {}
    evaluate(
        model, zip((4, 7), images, labels, strict=True), Protocol(), ranks=ONE, on_image=seen.__setitem__
    )
    assert list(seen) == [4, 7]
    assert torch.equal(seen[7], predict(model, images[1], Protocol()))


def test_evaluation_is_in_eval_mode_and_moves_nothing(
    network: Callable[..., Segmenter], batch: Callable[..., Batch]
) -> None:
    model = network().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images, labels = batch(0, 2)
    evaluate(model, zip(range(2), images, labels, strict=True), Protocol(), ranks=ONE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
