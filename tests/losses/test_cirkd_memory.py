"""CIRKD's relations to pixels and regions of earlier images. The queues are in test_cirkd_queues.py."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from golden_inputs import LABEL, arrays, student, teacher
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.losses.cirkd_memory import CirkdMemory, Draws, contrast
from hwdkit.losses.labels import class_ids, small_label
from hwdkit.types import IGNORE, SegOutput

quickly = settings(deadline=None, derandomize=True, max_examples=15)
SMALL = {"classes": 4, "student_channels": 3, "teacher_channels": 5, "pixel_queue": 7, "region_queue": 3}
SMALL |= {"pixels_per_class": 3, "pixel_negatives": 8, "region_negatives": 8}


def random(seed: int, *size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def embedding(map_: Tensor) -> SegOutput:
    return SegOutput(map_.new_zeros(len(map_), 1, 1, 1), None, {"embedding": map_})


def recorded_draws(perms: Tensor, ids: Tensor) -> Draws:
    """What the official code drew: for each image and class a permutation of its pixels, then slots."""
    numbers = iter(perms.tolist())

    def permutation(length: int) -> Tensor:
        return torch.tensor([next(numbers) for _ in range(length)], dtype=torch.int64)

    orders = []
    for image in ids:
        pixels = [(image == k).nonzero()[:, 0] for k in range(7)]
        drawn = [of_class[permutation(len(of_class))] for of_class in pixels]
        orders.append(torch.cat([*drawn, (image == 7).nonzero()[:, 0]]))
    return Draws(torch.stack(orders), permutation(20)[:5], permutation(6)[:3])


def recorded_loss(golden: dict[str, Tensor]) -> CirkdMemory:
    loss = CirkdMemory(
        classes=7,
        student_channels=6,
        teacher_channels=8,
        pixel_queue=20,
        region_queue=6,
        pixel_negatives=30,
        region_negatives=15,
        official_enqueue=True,
    ).double()
    names = {
        "0.weight": "proj0_weight",
        "1.weight": "bn_weight",
        "1.bias": "bn_bias",
        "3.weight": "proj3_weight",
    }
    state = {f"projector.{ours}": golden[theirs] for ours, theirs in names.items()}
    state |= {name: golden[f"{name}_before"] for name in ("pixel_queue", "region_queue")}
    loss.load_state_dict(loss.state_dict() | state)
    return loss


def test_three_steps_with_memory_are_those_of_the_official_code() -> None:
    golden = arrays("cirkd_memory")
    loss = recorded_loss(golden)
    assert (loss.pixel_lent, loss.region_lent) == (5, 3)
    ids = class_ids(small_label(LABEL, (9, 11)), 7)
    for step in (1, 2, 3):
        feature = student().taps["embedding"]
        draws = recorded_draws(golden[f"perms_step{step}"], ids)
        values = loss.relations(feature, teacher().taps["embedding"], ids, draws)
        for kind, value in zip(("pixel", "region"), values, strict=True):
            assert value.item() == pytest.approx(golden[f"{kind}_loss_step{step}"].item(), rel=1e-8)
            (gradient,) = torch.autograd.grad(value, feature, retain_graph=True)
            torch.testing.assert_close(gradient, golden[f"grad_{kind}_step{step}"], rtol=1e-7, atol=1e-12)
            queue, pointer = getattr(loss, f"{kind}_queue"), getattr(loss, f"{kind}_pointer")
            torch.testing.assert_close(queue, golden[f"{kind}_queue_after{step}"], rtol=0, atol=1e-12)
            assert torch.equal(pointer, golden[f"{kind}_pointer_after{step}"])


def small(seed: int = 0, **options: Any) -> CirkdMemory:
    torch.manual_seed(seed)
    return CirkdMemory(**{**SMALL, **options}).double()


def scene(seed: int, *, images: int = 2) -> tuple[SegOutput, SegOutput, Tensor]:
    label = torch.randint(0, 5, (images, 16, 16), generator=torch.Generator().manual_seed(seed))
    label[label == 4] = IGNORE
    ours = random(seed, images, 3, 4, 4).requires_grad_()
    return embedding(ours), embedding(random(seed + 100, images, 5, 4, 4)), label


def steps(loss: CirkdMemory, numbers: range) -> Iterator[float]:
    for number in numbers:
        torch.manual_seed(number)  # the loop's seed, different on every rank
        yield loss(*scene(number)).item()


@quickly
@given(seed=st.integers(0, 2**16))
def test_keys_of_a_class_are_its_own_pixels(seed: int) -> None:
    loss = small(pixel_queue=50)
    label = torch.randint(0, 6, (2, 4, 4), generator=torch.Generator().manual_seed(seed))
    # A teacher whose feature names the class; only classes 0 to 3 exist, the others are ignored.
    theirs = torch.eye(6, 5, dtype=torch.float64)[label].permute(0, 3, 1, 2)
    loss(embedding(random(seed, 2, 3, 4, 4)), embedding(theirs), label)
    for k in range(4):
        found = sum(min(3, int((image == k).sum())) for image in label)
        assert loss.pixel_pointer[k] == found
        assert (loss.pixel_queue[k, :found] == torch.eye(5)[k]).all()
        assert not (loss.pixel_queue[k, found:] == torch.eye(5)[k]).all(-1).any()


def test_official_enqueue_stores_pixels_of_other_classes() -> None:
    label = torch.tensor([[[0, 0], [1, 1]]])
    theirs = embedding(torch.eye(2, 5, dtype=torch.float64)[label].permute(0, 3, 1, 2))
    stored = {}
    for official in (False, True):
        loss = small(official_enqueue=official)
        loss(embedding(random(1, 1, 3, 2, 2)), theirs, label)
        stored[official] = loss.pixel_queue[1, :2].argmax(-1).tolist()
    assert stored == {False: [1, 1], True: [0, 0]}


def test_resumed_training_continues_bit_by_bit() -> None:
    straight, stopped = small(), small()
    expected = list(steps(straight, range(6)))
    assert list(steps(stopped, range(3))) == expected[:3]
    resumed = small(seed=7)
    list(steps(resumed, range(20, 22)))  # what it drew and stored so far must not matter
    resumed.load_state_dict(stopped.state_dict())
    assert list(steps(resumed, range(3, 6))) == expected[3:]
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_draws_change_from_step_to_step_and_from_seed_to_seed() -> None:
    drawn = [small(seed) for seed in (0, 1)]
    first, second, other = drawn[0].draw(1, 30).order, drawn[0].draw(1, 30).order, drawn[1].draw(1, 30).order
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.sort().values.tolist() == [list(range(30))]


def test_draws_neither_follow_nor_move_the_global_generator() -> None:
    values = []
    for seed in (1, 2):
        loss = small()
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        values.append(loss(*scene(1)).item())
        assert torch.equal(torch.get_rng_state(), before)
    assert values[0] == values[1]


def test_evaluation_mode_changes_no_state() -> None:
    loss = small().eval()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    assert loss(*scene(1)).item() == loss(*scene(1)).item()
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


def test_present_batch_can_be_among_its_own_negatives() -> None:
    """With a queue that it fills, the negatives do not depend on what was there before."""
    filled = []
    for seed in (1, 2):
        loss = small(pixel_queue=1, pixels_per_class=1, region_queue=1)
        with torch.no_grad():
            for queue in (loss.pixel_queue, loss.region_queue):
                queue.copy_(random(seed, *queue.shape))
        label = torch.arange(4).view(1, 2, 2)
        filled.append(loss(embedding(random(1, 1, 3, 2, 2)), embedding(random(2, 1, 5, 2, 2)), label).item())
    assert filled[0] == filled[1]


def test_backward_may_come_after_the_next_step() -> None:
    gradients = []
    for late in (False, True):
        loss, out = small(), scene(1)
        value = loss(*out)
        if late:
            loss(*scene(2))
        value.backward()
        gradients.append(out[0].taps["embedding"].grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_batch_without_a_counted_pixel_gives_zero_and_zero_gradients_and_is_not_remembered() -> None:
    loss, (ours, theirs, label) = small(), scene(1)
    before = {
        name: value.clone() for name, value in loss.named_buffers() if name.endswith(("queue", "pointer"))
    }
    value = loss(ours, theirs, torch.full_like(label, IGNORE))
    value.backward()
    assert value.item() == 0
    for tensor in (ours.taps["embedding"], *loss.parameters()):
        assert tensor.grad is not None
        assert not tensor.grad.any()
    assert len(before) == 4
    assert all(torch.equal(value, loss.get_buffer(name)) for name, value in before.items())


def test_anchors_that_do_not_count_get_no_gradient_and_do_not_change_the_mean() -> None:
    student_anchors, teacher_anchors, negatives = (
        random(1, 6, 3).requires_grad_(),
        random(2, 6, 3),
        random(3, 9, 3),
    )
    counted = torch.tensor([True, False, True, True, False, False])
    value = contrast((student_anchors, teacher_anchors), negatives, counted, temperature=0.5)
    (gradient,) = torch.autograd.grad(value, student_anchors)
    assert gradient.any(1).tolist() == counted.tolist()
    alone = (student_anchors[counted], teacher_anchors[counted])
    torch.testing.assert_close(value, contrast(alone, negatives, counted[counted], temperature=0.5))


def test_classes_beyond_the_last_are_ignored() -> None:
    ours, theirs, label = scene(1)
    expected = small()(ours, theirs, label)
    for outside in (4, 17, -1):
        assert torch.equal(small()(ours, theirs, label.where(label != IGNORE, outside)), expected)


@pytest.mark.parametrize("kind", ["pixel", "region"])
def test_relation_of_weight_zero_has_no_queue(kind: str) -> None:
    other = "region" if kind == "pixel" else "pixel"
    loss = small(**{f"{kind}_weight": 0.0, f"{other}_weight": 0.3})
    assert {name for name, _ in loss.named_buffers() if "queue" in name} == {f"{other}_queue"}
    loss(*scene(1)).backward()
    assert all(parameter.grad is not None for parameter in loss.parameters())


def test_loss_is_the_weighted_sum_of_both_relations() -> None:
    value = small(pixel_weight=0.3, region_weight=0.7)(*scene(1))
    loss, (ours, theirs, label) = small(), scene(1)
    ids = class_ids(small_label(label, (4, 4)), 4)
    pixel, region = loss.relations(ours.taps["embedding"], theirs.taps["embedding"], ids, loss.draw(2, 16))
    torch.testing.assert_close(value, 0.3 * pixel + 0.7 * region)


def test_queues_begin_with_noise_of_length_one() -> None:
    loss = small()
    for queue in (loss.pixel_queue, loss.region_queue):
        torch.testing.assert_close(
            queue.norm(dim=-1), torch.ones(queue.shape[:2]).double(), rtol=1e-6, atol=0
        )
    assert loss.pixel_queue.shape == (4, 7, 5)
    assert loss.region_queue.shape == (4, 3, 5)


@pytest.mark.parametrize("kind", ["pixel", "region"])
@pytest.mark.parametrize(("negatives", "lent"), [(4096, 4), (30, 4), (11, 3), (8, 3), (3, 1), (1, 1)])
def test_every_class_lends_its_share_of_the_negatives(kind: str, negatives: int, lent: int) -> None:
    drawn = small(**{f"{kind}_queue": 4, f"{kind}_negatives": negatives}).draw(1, 4)
    assert len(drawn.pixel_slots if kind == "pixel" else drawn.region_slots) == lent


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize(("images", "classes"), [(1, 4), (2, 1)])
def test_memory_stays_finite(scale: float, images: int, classes: int) -> None:
    loss = small(classes=classes).float()
    ours, theirs, label = scene(1, images=images)
    map_ = (scale * ours.taps["embedding"]).detach().float().requires_grad_()
    value = loss(embedding(map_), embedding(scale * theirs.taps["embedding"].float()), label)
    value.backward()
    assert value.isfinite()
    for tensor in (map_, *loss.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    assert all(buffer.isfinite().all() for buffer in loss.buffers())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[({"temperature": value}, "temperature") for value in (0.0, -1.0, math.inf, math.nan)],
        *[({name: value}, name) for name in SMALL for value in (0, -1, 1.5)],
        *[
            ({f"{kind}_weight": v}, f"{kind}_weight")
            for kind in ("pixel", "region")
            for v in (-0.1, math.nan)
        ],
        ({"pixel_weight": 0, "region_weight": 0}, "both 0"),
        ({"pixels_per_class": 8}, "do not fit"),
        ({"tap": "logits", "teacher_tap": "embedding"}, "logits"),
    ],
)
def test_memory_refuses_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
