"""What a loss sees of the two networks, weights that change, critics; all of it survives a resume."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwdkit.checkpoints.files import load_tensors, save_tensors
from hwdkit.distributed import Ranks
from hwdkit.engine import build
from hwdkit.engine.loop import Hooks, Plan, Training, fit
from hwdkit.engine.objectives import Objective, frozen_teacher, ramp
from hwdkit.engine.optim import poly_schedule
from hwdkit.errors import RecipeError
from hwdkit.losses import Holistic, Loss
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe.load import loads_resolved
from hwdkit.types import Batch, SegOutput

ONE = Ranks(0, 1, torch.device("cpu"))
PLAN = Plan(
    iterations=4,
    schedule=poly_schedule(lr=0.02, power=0.9, iterations=4),
    seed=3,
    log_every=1,
    evaluate_every=100,
    save_every=100,
)
TINY = (
    "backbone: resnet18, backbone_options: {layers: [1, 1, 1, 1], channels: [8, 8, 8, 8]}, head_channels: 8"
)
EVERYTHING = """
  kd: {}
  mimic: {tap: stage4}
  cwd: {tap: embedding, projector: linear_bn_relu}
  mgd: {weight: 1.0e-3}
  cirkd_memory: {pixel_queue: 40, region_queue: 8, pixel_negatives: 30, region_negatives: 10}
  holistic: {weight: 0.01}
"""


def training(
    network: Callable[..., Segmenter], losses: str, *, teacher: Segmenter | None = None
) -> tuple[Training, Any]:
    """A student that is taught by a network of other widths and another stride."""
    teacher = network(seed=2, head_channels=12, output_stride=16) if teacher is None else teacher
    entries = losses if losses.startswith("\n") else f"\n  {losses}"
    recipe = loads_resolved(
        f"name: tiny\ndata: {{dataset: scenes}}\nstudent: {{{TINY}}}\n"
        f"teacher: {{checkpoint: none}}\nlosses:{entries}"
    )
    torch.manual_seed(recipe.seed)
    run = build.training(recipe, network(seed=1), ONE, teacher)
    goal = run.objective
    return run, frozen_teacher(teacher, taps=goal.teacher_taps, amp=None, aux=goal.reads_teacher_aux)


def batches(batch: Callable[..., Batch], *, start: int = 0, micro: int = 1) -> Iterator[Sequence[Batch]]:
    return ([batch(10 * step + i) for i in range(micro)] for step in itertools.count(start))


def trained(run: Training, stream: Iterator[Sequence[Batch]], teach: Any, stop_at: int = 0) -> list[Any]:
    rows: list[dict[str, float]] = []
    hooks = Hooks(
        log=rows.append,
        evaluate=lambda _: None,
        save=lambda: None,
        stop=lambda: run.step == stop_at,
    )
    fit(run, stream, teach, plan=PLAN, hooks=hooks, ranks=ONE)
    return [
        {key: value for key, value in row.items() if "_ms" not in key and "_s" not in key} for row in rows
    ]


class Spy(Loss):
    """A loss that only remembers what it was shown."""

    def __init__(self, taps: tuple[str, ...], teacher_taps: tuple[str, ...] | None = None) -> None:
        super().__init__()
        self.taps = taps
        if teacher_taps is not None:
            self.teacher_taps = teacher_taps

    def forward(self, student: SegOutput, teacher: SegOutput, label: Tensor) -> Tensor:
        self.seen = student, teacher
        return student.logits.mean()


def shown(network: Callable[..., Segmenter], batch: Callable[..., Batch], *spies: Spy) -> SegOutput:
    """Let the spies see a student of stride 8 and a teacher of stride 16; what the teacher said."""
    goal = Objective(
        network(seed=1),
        {str(i): spy for i, spy in enumerate(spies)},
        {str(i): 1.0 for i in range(len(spies))},
    )
    teacher = network(seed=2, head_channels=12, output_stride=16)
    hints = frozen_teacher(teacher, taps=goal.teacher_taps, amp=None)(batch(0).image)
    goal(batch(0), hints)
    return hints


def test_a_loss_sees_the_teachers_map_at_the_students_size_and_under_the_students_name(
    network: Any, batch: Any
) -> None:
    spy = Spy(("stage2", "embedding"), ("stage4", "embedding"))
    hints = shown(network, batch, spy)
    student, teacher = spy.seen
    assert hints.taps["stage4"].shape[-2:] == (2, 2)
    assert teacher.taps.keys() == student.taps.keys() == {"stage2", "embedding"}
    expected = F.interpolate(
        hints.taps["stage4"], student.taps["stage2"].shape[-2:], mode="bilinear", align_corners=True
    )
    assert torch.equal(teacher.taps["stage2"], expected)
    assert teacher.logits.shape == student.logits.shape
    assert teacher.taps["embedding"].shape[1:] == (12, *student.taps["embedding"].shape[2:])


def test_two_losses_may_pair_one_map_of_the_student_with_two_of_the_teacher(network: Any, batch: Any) -> None:
    same, other = Spy(("stage3",)), Spy(("stage3",), ("embedding",))
    hints = shown(network, batch, same, other)
    assert set(hints.taps) == {"stage3", "embedding"}
    assert same.seen[1].taps["stage3"].shape[1] == 8
    assert other.seen[1].taps["stage3"].shape[1] == 12
    assert same.seen[1].taps["stage3"].shape[2:] == other.seen[1].taps["stage3"].shape[2:]


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.floats(0, 0.5), st.floats(0, 0.5), st.integers(1, 200))
def test_a_scheduled_weight_rises_then_stays_then_falls(warmup: float, decay: float, steps: int) -> None:
    at = ramp(warmup=warmup, decay=decay)
    factors = [at(step / steps) for step in range(steps)]
    assert all(0 <= factor <= 1 for factor in factors)
    flat = [f for step, f in enumerate(factors) if warmup <= step / steps <= 1 - decay]
    assert all(factor == 1 for factor in flat)
    rising = [f for step, f in enumerate(factors) if step / steps < warmup]
    falling = [f for step, f in enumerate(factors) if step / steps > 1 - decay]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)


def test_a_weight_follows_its_schedule_through_training(network: Any, batch: Any) -> None:
    def logged(schedule: str) -> list[float]:
        run, teach = training(network, f"kd: {{weight: 2.0, schedule: {schedule}}}")
        for group in run.optimizer.param_groups:
            group["params"] = []  # nothing moves: the weight alone changes the term
        return [row["loss_kd"] for row in trained(run, ([batch(0)] for _ in itertools.count()), teach)]

    plain, rising = logged("{}"), logged("{warmup: 1.0}")
    # Dropout differs from step to step, and is the same in both runs.
    assert rising == pytest.approx([value * step / 4 for step, value in enumerate(plain)])
    assert logged("{decay: 0.5}") == pytest.approx([*plain[:3], plain[3] / 2])


@pytest.mark.parametrize(
    ("losses", "complaint"),
    [
        (
            "mimic: {projector: none}",
            "losses.mimic: projector: none needs equal channels; student 8, teacher 12",
        ),
        (
            "a: {loss: mimic, tap: logits, teacher_tap: embedding}",
            "losses.a: logits can be compared with logits",
        ),
        ("dist: {aux_weight: 0.4}", "losses.dist: aux_weight compares auxiliary heads; the teacher has none"),
    ],
)
def test_losses_that_do_not_fit_the_networks_are_refused_by_name(
    network: Any, losses: str, complaint: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        training(network, losses, teacher=network(seed=2, head_channels=12, aux=False))
    assert complaint in str(caught.value)


def test_a_map_that_a_network_does_not_have_is_refused_with_those_it_has(network: Any) -> None:
    teacher = network(seed=2)
    teacher.tap_channels = {"stage3": 8, "stage4": 8, "embedding": 8}
    with pytest.raises(RecipeError, match=r"losses.mimic: unknown tap stage1; resnet18 has stage3, stage4"):
        training(network, "mimic: {tap: stage4, teacher_tap: stage1}", teacher=teacher)


def test_projectors_and_generators_are_trained_by_the_students_optimizer(network: Any, batch: Any) -> None:
    run, teach = training(network, EVERYTHING)
    optimised = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    own = {name: p for name, p in run.objective.losses.named_parameters() if ".critic." not in name}
    assert len(own) >= 10
    assert {id(p) for p in own.values()} <= optimised
    before = {name: p.detach().clone() for name, p in own.items()}
    trained(run, batches(batch), teach)
    assert all(not torch.equal(before[name], p) for name, p in own.items())


def test_a_critic_is_trained_beside_and_by_itself(network: Any, batch: Any) -> None:
    run, teach = training(network, EVERYTHING)
    critic = run.objective.losses["holistic"].critic
    optimised = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert not optimised & {id(p) for p in critic.parameters()}
    before = [p.detach().clone() for p in critic.parameters()]
    rows = trained(run, batches(batch), teach)
    assert all(row.keys() >= {"loss_holistic", "critic_holistic"} for row in rows)
    for row in rows:
        terms = [value for name, value in row.items() if name.startswith("loss_")]
        assert row["loss"] == pytest.approx(sum(terms))  # the critic's loss is nobody else's
    moved = [not torch.equal(old, new) for old, new in zip(before, critic.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2


@pytest.mark.parametrize("micro", [1, 2])
def test_queues_critics_and_projectors_survive_a_resume_bit_exactly(
    network: Any, batch: Any, tmp_path: Path, micro: int
) -> None:
    whole, teach = training(network, EVERYTHING)
    expected = trained(whole, batches(batch, micro=micro), teach)
    for stop_at in (1, 3):
        first, teach = training(network, EVERYTHING)
        before = trained(first, batches(batch, micro=micro), teach, stop_at)
        save_tensors(tmp_path / "last.pt", first.state_dict())
        torch.rand(7)
        second, teach = training(network, EVERYTHING)
        second.load_state_dict(load_tensors(tmp_path / "last.pt"))
        after = trained(second, batches(batch, start=stop_at, micro=micro), teach)
        assert before + after == expected
        mine, theirs = second.objective.state_dict(), whole.objective.state_dict()
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            if isinstance(value, Tensor):
                assert torch.equal(value, theirs[name]), name


def test_the_students_own_weights_are_all_that_is_exported(network: Any) -> None:
    run, _ = training(network, EVERYTHING)
    assert run.objective.student.state_dict().keys() == network().state_dict().keys()


def test_a_classifier_that_no_loss_reads_is_not_trained(network: Any) -> None:
    """DistributedDataParallel stops at a parameter that never gets a gradient."""
    run, _ = training(network, "\n  ce: {weight: 0}\n  at: {tap: stage4}")
    student = run.objective.student
    frozen = {name for name, p in student.named_parameters() if not p.requires_grad}
    assert all(name in frozen for name, _ in student.named_parameters() if not name.startswith("backbone."))
    assert not any(name.startswith("backbone.") for name in frozen)


def test_the_teachers_auxiliary_head_runs_only_where_a_loss_reads_it(network: Any, batch: Any) -> None:
    with_aux, teach_aux = training(network, "dist: {aux_weight: 0.4}", teacher=network(seed=2))
    without, teach = training(network, "dist: {}", teacher=network(seed=2))
    image = batch(0).image
    assert teach_aux(image).aux is not None
    assert teach(image).aux is None
    rows = [trained(run, batches(batch), t) for run, t in ((with_aux, teach_aux), (without, teach))]
    assert rows[0][0]["loss_dist"] > rows[1][0]["loss_dist"]


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("pvt_v2_b0", {"depths": [1, 1, 1, 1]}),
        (
            "swin_tiny_patch4_window7_224",
            {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2},
        ),
    ],
)
def test_a_transformer_teaches_a_convolutional_student(
    network: Any, batch: Any, backbone: str, options: dict[str, Any]
) -> None:
    """Other family, other channels, four times the stride: the teacher's maps come to the student's."""
    teacher = network(
        seed=2, backbone=backbone, backbone_options=options, output_stride=32, head_channels=12, aux=False
    )
    run, teach = training(network, EVERYTHING, teacher=teacher)
    assert teach(batch(0).image).taps["stage4"].shape[1:] != (8, 4, 4)
    rows = trained(run, batches(batch), teach)
    assert len(rows) == 4
    assert all(row["loss_mimic"] > 0 for row in rows)


def test_the_batch_sum_is_that_of_the_whole_step_however_it_is_cut(network: Any, batch: Any) -> None:
    image, label = batch(0, 4)
    halves = [Batch(image[:2], label[:2]), Batch(image[2:], label[2:])]
    values = {}
    for cut, micro in ((1, [Batch(image, label)]), (2, halves)):
        run, teach = training(
            network, f"kd: {{reduction: batch_sum}}\ntrain: {{batch_size: 4, accumulate: {cut}}}"
        )
        goal = run.objective.eval()
        terms = [goal(part, teach(part.image))["kd"] for part in micro]
        values[cut] = torch.stack(terms).mean().item()
    assert values[2] == pytest.approx(values[1], rel=1e-5)


def test_a_broken_critic_is_named(network: Any, batch: Any) -> None:
    from hwdkit.errors import DivergedError

    run, teach = training(network, "holistic: {}")
    run.objective.losses["holistic"].critic_weight = float("nan")
    with pytest.raises(DivergedError, match=r"critic holistic became non-finite at or before step 1"):
        trained(run, batches(batch), teach)


def test_a_factor_adds_no_key_to_an_objective(network: Callable[..., Segmenter]) -> None:
    """A run that was saved with weights in its recipe goes on with factors."""
    student = network(seed=1)
    plain = Objective(student, {"holistic": Holistic(classes=5)}, {"holistic": 3.0})
    factored = Objective(student, {"holistic": 3.0 * Holistic(classes=5)})
    assert plain.state_dict().keys() == factored.state_dict().keys()
    assert factored.weights == {"holistic": 1.0}
