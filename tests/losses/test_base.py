"""What every loss takes and refuses: plain logits beside networks' outputs, and a factor in front."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hwdkit.losses import CWD, HWD, KD, LOSSES, CrossEntropy, Holistic, Loss, Mimic
from hwdkit.types import IGNORE, SegOutput

CLASSES = 5


def logits(seed: int, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size or (2, CLASSES, 8, 10), generator=generator, dtype=torch.float64).to(dtype)


def labels() -> Tensor:
    label = torch.randint(CLASSES, (2, 32, 40), generator=torch.Generator().manual_seed(3))
    label[:, :3] = IGNORE
    return label


def made(name: str) -> Loss:
    """A loss of the table; those on maps compare logits here."""
    known = inspect.signature(LOSSES[name]).parameters
    facts = {"classes": CLASSES, "student_channels": CLASSES, "teacher_channels": CLASSES, "tap": "logits"}
    facts |= {"groups": CLASSES, "pixel_queue": 50, "region_queue": 20}
    torch.manual_seed(0)
    return LOSSES[name](**{key: value for key, value in facts.items() if key in known})


def once(loss: Loss, *arguments: Any) -> Tensor:
    """The loss at its first step, with the same dice whenever it is asked."""
    torch.manual_seed(1)
    return copy.deepcopy(loss)(*arguments)


@pytest.mark.parametrize("name", LOSSES)
def test_plain_logits_are_a_network_output_without_more(name: str) -> None:
    loss, (student, teacher) = made(name), (logits(1), logits(2))
    outputs = SegOutput(student, None, {}), SegOutput(teacher, None, {})
    assert torch.equal(once(loss, student, teacher, labels()), once(loss, *outputs, labels()))


@pytest.mark.parametrize("name", LOSSES)
def test_a_factor_multiplies_the_value_and_leaves_the_loss_alone(name: str) -> None:
    loss = made(name)
    arguments = logits(1), logits(2), labels()
    value, tripled = once(loss, *arguments), 3.0 * loss
    assert torch.equal(once(tripled, *arguments), 3.0 * value)
    assert torch.equal(once(loss * 3, *arguments), 3.0 * value)
    assert torch.equal(once(loss, *arguments), value)
    assert (2 * tripled).factor == 6
    assert (loss.factor, tripled.factor) == (1, 3)
    assert loss.state_dict().keys() == tripled.state_dict().keys()
    assert all(a is not b for a, b in zip(loss.parameters(), tripled.parameters(), strict=True))


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf")])
def test_a_factor_that_is_no_weight_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="0 or a positive number"):
        factor * HWD()
    with pytest.raises(TypeError):
        "3" * HWD()


@pytest.mark.parametrize("size", [(15, 19), (4, 5)])
def test_a_plain_teacher_is_resized_to_the_student_and_gets_no_gradient(size: tuple[int, int]) -> None:
    student, teacher = logits(1).requires_grad_(), logits(2, 2, CLASSES, *size).requires_grad_()
    same = F.interpolate(teacher.detach(), (8, 10), mode="bilinear", align_corners=True)
    value = HWD()(student, teacher, labels())
    assert torch.equal(value, HWD()(student, same, labels()))
    value.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.any()


def test_cross_entropy_needs_no_teacher() -> None:
    maps, label = logits(1), labels()
    up = F.interpolate(maps, label.shape[1:], mode="bilinear", align_corners=True)
    expected = F.cross_entropy(up, label, ignore_index=IGNORE)
    torch.testing.assert_close(CrossEntropy()(maps, None, label), expected)
    torch.testing.assert_close(CrossEntropy()(maps, label=label.to(torch.uint8)), expected)


def test_a_loss_on_intermediate_maps_says_what_to_pass() -> None:
    loss = Mimic(student_channels=8, teacher_channels=8, tap="stage4")
    with pytest.raises(TypeError, match=r"SegOutput\(logits, None, \{'stage4': map\}\)"):
        loss(logits(1), logits(2), labels())
    plain = SegOutput(logits(1), None, {})
    with pytest.raises(TypeError, match="Mimic compares intermediate maps"):
        loss(plain._replace(taps={"stage4": logits(1, 2, 8, 8, 10)}), plain, labels())


@pytest.mark.parametrize("name", ["hwd", "kd", "dist", "holistic", "cwd", "ce"])
@pytest.mark.parametrize(
    ("label", "words"),
    [
        (labels()[0], r"\(N, H, W\)"),
        (labels()[:1], "with the logits' N"),
        (labels()[:, None], r"\(N, H, W\)"),
        (labels().float(), "class indices"),
        (labels() > 2, "class indices"),
        (labels().masked_fill(labels() == 2, CLASSES), "has class 5, but the logits have 5 channels: 0 to 4"),
        (labels().masked_fill(labels() == 2, -1), "has class -1"),
        (None, "label is missing"),
    ],
    ids=["one image", "too few", "with channels", "floats", "booleans", "too large", "negative", "none"],
)
def test_a_label_that_does_not_belong_to_the_logits_is_refused(
    name: str, label: Tensor | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        made(name)(logits(1), logits(2), label)


@pytest.mark.parametrize("name", ["hwd", "kd", "dist", "holistic", "cwd"])
@pytest.mark.parametrize("size", [(2, 4, 8, 10), (2, 1, 8, 10), (1, 5, 8, 10)])
def test_a_teacher_of_other_classes_or_images_is_refused(name: str, size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="teacher"):
        made(name)(logits(1), logits(2, *size), labels())


@pytest.mark.parametrize(
    "loss", [Holistic(classes=7), CWD(student_channels=7, teacher_channels=7)], ids=["holistic", "cwd"]
)
def test_maps_of_other_channels_than_the_loss_was_made_for_are_refused(loss: Loss) -> None:
    with pytest.raises(ValueError, match="made for 7"):
        loss(logits(1), logits(2), labels())


def test_a_comparison_without_a_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="KD needs a teacher"):
        KD()(logits(1), None, labels())
    with pytest.raises(ValueError, match=r"must be \(N, C, h, w\)"):
        KD()(logits(1), logits(2)[0], labels())
    with pytest.raises(ValueError, match=r"must be \(N, C, h, w\)"):
        KD()(logits(1)[0], logits(2), labels())


def test_the_smallest_loss_has_the_defaults_and_needs_no_constructor() -> None:
    class Smallest(Loss):
        def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
            return (student.logits - teacher.logits).square().mean()

    loss = Smallest()
    assert list(inspect.signature(Smallest).parameters) == []
    assert (loss.taps, loss.teacher_taps, loss.tap_pairs, loss.factor) == ((), (), (), 1)
    assert (loss.reads_logits, loss.reads_teacher) == (True, True)
    assert (loss.reads_aux, loss.reads_teacher_aux, loss.critic, loss.paper) == (False, False, None, "")
    student = logits(1).requires_grad_()
    (2 * loss)(student, logits(2), labels()).backward()
    torch.testing.assert_close(student.grad, 4 * (student.detach() - logits(2)) / student.numel())


def test_the_teachers_maps_have_the_students_names_unless_said_otherwise() -> None:
    class Two(Loss):
        taps = ("stage3", "stage4")

    class Other(Two):
        teacher_taps = ("stage2", "embedding")

    assert Two().tap_pairs == (("stage3", "stage3"), ("stage4", "stage4"))
    assert Other().tap_pairs == (("stage3", "stage2"), ("stage4", "embedding"))
