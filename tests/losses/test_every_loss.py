"""What holds for every entry of LOSSES, whatever it computes. A new loss is tested here by its table line."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from torch import Tensor, nn

from hwdkit.losses import LOSSES
from hwdkit.types import IGNORE, SegOutput

STUDENT_CHANNELS, TEACHER_CHANNELS = 16, 32
FACTS = ("classes", "student_channels", "teacher_channels", "align_corners")
every_loss = pytest.mark.parametrize("name", LOSSES)
STUDENT_OF_ITSELF_IS_PERFECT = (
    *("kd", "cwd", "hwd", "pairwise", "ifv", "cirkd_minibatch", "mimic", "at", "local", "pkd"),
)


def make(name: str, *, classes: int = 5, equal: bool = False, **options: object) -> nn.Module:
    """The loss as build makes it: told what it asks for about the networks. The same weights each time."""
    wanted = inspect.signature(LOSSES[name]).parameters
    tap = options.get("tap", wanted["tap"].default if "tap" in wanted else "logits")
    channels = (classes, classes) if tap == "logits" else (STUDENT_CHANNELS, TEACHER_CHANNELS)
    facts = {
        "classes": classes,
        "student_channels": channels[0],
        "teacher_channels": channels[0] if equal else channels[1],
    }
    torch.manual_seed(0)
    return LOSSES[name](**{key: value for key, value in facts.items() if key in wanted}, **options)


def value_of(loss: nn.Module, student: SegOutput, teacher: SegOutput | None, label: Tensor) -> Tensor:
    """The loss at its first step, with the same dice and the same memory whenever it is asked."""
    torch.manual_seed(1)
    result: Tensor = copy.deepcopy(loss)(student, teacher, label)
    return result


def labels(n: int = 2, classes: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, classes, (n, 32, 40), generator=generator)
    label[:, :3] = IGNORE
    return label


def output(
    loss: nn.Module,
    seed: int,
    *,
    n: int = 2,
    classes: int = 5,
    scale: float = 1.0,
    dtype: str = "float32",
    channels: int = STUDENT_CHANNELS,
) -> SegOutput:
    """A random network output with every tap that the loss asks for; all of it wants gradients."""
    generator = torch.Generator().manual_seed(seed)

    def random(channels: int) -> Tensor:
        map_ = scale * torch.randn(n, channels, 8, 10, generator=generator, dtype=torch.float64)
        return map_.to(getattr(torch, dtype)).requires_grad_()

    taps = loss.taps
    assert isinstance(taps, tuple)
    return SegOutput(random(classes), random(classes), {name: random(channels) for name in taps})


def both(loss: nn.Module, **how: object) -> tuple[SegOutput, SegOutput]:
    """A student's and a teacher's output."""
    student = output(loss, 1, **how)  # type: ignore[arg-type]
    return student, output(loss, 2, channels=TEACHER_CHANNELS, **how)  # type: ignore[arg-type]


def tensors(out: SegOutput) -> list[Tensor]:
    assert out.aux is not None
    return [out.logits, out.aux, *out.taps.values()]


def gradients(out: SegOutput) -> list[Tensor]:
    return [tensor.grad for tensor in tensors(out) if tensor.grad is not None]


@every_loss
def test_options_are_keyword_only_and_optional_but_for_what_the_networks_decide(name: str) -> None:
    options = list(inspect.signature(LOSSES[name].__init__).parameters.values())[1:]
    assert {option.kind for option in options} <= {inspect.Parameter.KEYWORD_ONLY}
    required = {option.name for option in options if option.default is inspect.Parameter.empty}
    assert required <= set(FACTS)


@every_loss
def test_module_names_its_taps(name: str) -> None:
    loss = make(name)
    assert isinstance(loss, nn.Module)
    assert isinstance(loss.taps, tuple)
    assert all(isinstance(tap, str) for tap in loss.taps)


@every_loss
def test_gradient_reaches_the_student_and_never_the_teacher(name: str) -> None:
    loss = make(name)
    student, teacher = both(loss)
    value = value_of(loss, student, teacher, labels())
    assert value.shape == ()
    assert value.isfinite()
    value.backward()
    found = gradients(student)
    assert found
    assert all(gradient.isfinite().all() and gradient.any() for gradient in found)
    assert gradients(teacher) == []


@every_loss
def test_label_without_a_counted_pixel_gives_a_finite_loss(name: str) -> None:
    loss = make(name)
    student, teacher = both(loss)
    value = value_of(loss, student, teacher, torch.full_like(labels(), IGNORE))
    assert value.isfinite()
    value.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(student))


@every_loss
@pytest.mark.parametrize(("n", "classes"), [(1, 5), (2, 1), (1, 1), (2, 2)])
def test_one_image_or_one_class_is_enough(name: str, n: int, classes: int) -> None:
    loss = make(name, classes=classes)
    student, teacher = both(loss, n=n, classes=classes)
    value = value_of(loss, student, teacher, labels(n, classes))
    assert value.isfinite()
    value.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(student))


@every_loss
def test_class_absent_from_the_labels_does_no_harm(name: str) -> None:
    loss = make(name)
    student, teacher = both(loss)
    value = value_of(loss, student, teacher, torch.full_like(labels(), 3))
    assert value.isfinite()
    value.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(student))


@every_loss
def test_student_that_equals_the_teacher_is_finite(name: str) -> None:
    loss = make(name, equal=True)
    student = output(loss, 1)
    value = value_of(loss, student, student, labels())
    assert value.isfinite()
    value.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(student))


@pytest.mark.parametrize("name", STUDENT_OF_ITSELF_IS_PERFECT)
def test_student_that_equals_the_teacher_has_nothing_to_learn(name: str) -> None:
    loss = make(name, equal=True).double()
    student, teacher = output(loss, 1, dtype="float64"), output(loss, 1, dtype="float64")
    value = value_of(loss, student, teacher, labels())
    assert value.item() == pytest.approx(0, abs=1e-12)
    value.backward()
    assert gradients(student)
    assert all(gradient.abs().max() < 1e-12 for gradient in gradients(student))


@every_loss
@pytest.mark.parametrize("scale", [1e3, 3e3, 1e4])
def test_huge_logits_stay_finite(name: str, scale: float) -> None:
    loss = make(name)
    student, teacher = both(loss, scale=scale)
    value = value_of(loss, student, teacher, labels())
    assert value.isfinite()
    value.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(student))


@every_loss
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_inputs_are_compared_in_float32(name: str, dtype: str) -> None:
    loss = make(name)
    half = both(loss, dtype=dtype)
    full = [
        SegOutput(out.logits.float(), out.aux.float(), {key: tap.float() for key, tap in out.taps.items()})
        for out in half
        if out.aux is not None
    ]
    value = value_of(loss, *half, labels())
    assert value.dtype == torch.float32
    assert torch.equal(value, value_of(loss, *full, labels()))
    value.backward()
    assert all(gradient.dtype == getattr(torch, dtype) for gradient in gradients(half[0]))


@every_loss
def test_autocast_changes_neither_value_nor_gradient(name: str) -> None:
    loss = make(name)
    plain, teacher = both(loss)
    cast = output(loss, 1)
    expected = value_of(loss, plain, teacher, labels())
    with torch.autocast("cpu", torch.bfloat16):
        value = value_of(loss, cast, teacher, labels())
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    expected.backward()
    value.backward()
    for ours, theirs in zip(gradients(cast), gradients(plain), strict=True):
        assert torch.equal(ours, theirs)


@every_loss
@pytest.mark.parametrize("label", [labels(), torch.full_like(labels(), IGNORE)], ids=["labelled", "ignored"])
def test_every_trained_parameter_gets_a_gradient(name: str, label: Tensor) -> None:
    """DistributedDataParallel waits for all of them."""
    loss = make(name)
    loss(*both(loss), label).backward()
    trained = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained)


@every_loss
def test_maps_of_zeros_stay_finite(name: str) -> None:
    loss = make(name)
    student, teacher = both(loss, scale=0.0)
    value = value_of(loss, student, teacher, labels())
    assert value.isfinite()
    value.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(student))


@every_loss
def test_the_same_dice_give_the_same_value(name: str) -> None:
    loss = make(name)
    assert torch.equal(value_of(loss, *both(loss), labels()), value_of(loss, *both(loss), labels()))


@every_loss
def test_inputs_are_left_alone(name: str) -> None:
    loss = make(name)
    (student, teacher), label = both(loss), labels()
    before = [tensor.detach().clone() for tensor in (*tensors(student), *tensors(teacher), label)]
    value_of(loss, student, teacher, label).backward()
    after = (*tensors(student), *tensors(teacher), label)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["kd", "cwd"])
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperature_that_is_no_positive_number_is_refused(name: str, temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        make(name, temperature=temperature)


def test_unknown_reduction_of_kd_is_refused() -> None:
    with pytest.raises(ValueError, match="pixel, element or batch_sum"):
        LOSSES["kd"](reduction="mean")


@pytest.mark.parametrize("aux_weight", [-0.1, float("nan"), float("inf")])
def test_negative_auxiliary_weight_is_refused(aux_weight: float) -> None:
    with pytest.raises(ValueError, match="aux_weight"):
        LOSSES["ce"](aux_weight=aux_weight)


def test_auxiliary_head_adds_its_weighted_cross_entropy() -> None:
    loss = LOSSES["ce"](aux_weight=0.25)
    out, label = output(loss, 1, dtype="float64"), labels()
    main, aux = SegOutput(out.logits, None, {}), SegOutput(out.aux, None, {})
    expected = loss(main, None, label) + 0.25 * loss(aux, None, label)
    torch.testing.assert_close(loss(out, None, label), expected)


def test_cross_entropy_of_ignored_pixels_alone_is_zero_with_zero_gradient() -> None:
    loss = LOSSES["ce"]()
    student = output(loss, 1)
    value = value_of(loss, student, None, torch.full_like(labels(), IGNORE))
    value.backward()
    assert value.item() == 0
    assert all(not gradient.any() for gradient in gradients(student))


def test_kd_does_not_see_a_constant_added_to_all_classes_of_a_pixel() -> None:
    loss = make("kd", temperature=2.0)
    student, teacher = output(loss, 1, dtype="float64"), output(loss, 2, dtype="float64")
    shift = torch.randn(2, 1, 8, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    moved = student._replace(logits=student.logits + 10 * shift)
    torch.testing.assert_close(loss(moved, teacher, labels()), loss(student, teacher, labels()))
