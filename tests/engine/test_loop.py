"""The training loop: it learns, it can stop anywhere and go on as if nothing had happened, it never lies."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hwdkit.checkpoints.files import load_tensors, save_tensors
from hwdkit.distributed import Ranks
from hwdkit.engine.loop import Hooks, Plan, Training, fit
from hwdkit.engine.objectives import Objective, Teach, frozen_teacher
from hwdkit.engine.optim import EMA, optimizer, poly_schedule
from hwdkit.errors import DivergedError
from hwdkit.losses import CWD, HWD, CrossEntropy, Loss
from hwdkit.models.segmenter import Segmenter
from hwdkit.types import Batch, SegOutput

ONE = Ranks(0, 1, torch.device("cpu"))
PLAN = Plan(
    iterations=6,
    schedule=poly_schedule(lr=0.02, power=0.9, iterations=6, warmup=2),
    seed=3,
    log_every=1,
    evaluate_every=100,
    save_every=100,
)
SPEEDS = ("step_ms", "images_per_s")


@dataclass
class Diary:
    """Hooks that write down what happened; `stop_at` is the step after which to leave."""

    stop_at: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    evaluated: list[int] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)

    def hooks(self, run: Training) -> Hooks:
        return Hooks(
            log=self.rows.append,
            evaluate=self.evaluated.append,
            save=lambda: self.saved.append(run.step),
            stop=lambda: run.step == self.stop_at,
        )

    def exact(self) -> list[dict[str, float]]:
        return [{key: value for key, value in row.items() if key not in SPEEDS} for row in self.rows]


@dataclass(frozen=True)
class Case:
    """One way to train."""

    name: str
    optimizer: str = "sgd"
    accumulate: int = 1
    ema: float | None = None
    amp: torch.dtype | None = None
    clip: float | None = None
    distil: bool = False


@pytest.fixture
def make(network: Callable[..., Segmenter]) -> Callable[[Case], tuple[Training, Teach | None]]:
    def build(case: Case) -> tuple[Training, Teach | None]:
        student = network(seed=1)
        losses: dict[str, Loss] = {"ce": CrossEntropy()}
        teach = None
        if case.distil:
            losses["hwd"] = HWD(area_correction="paper")
            teacher = network(seed=2, head_channels=12, aux=False)
            teach = frozen_teacher(teacher, taps=(), amp=case.amp)
        objective = Objective(student, losses, {"ce": 1.0, "hwd": 3.0})
        steps = optimizer(objective.named_parameters(), name=case.optimizer, lr=0.02, weight_decay=1e-3)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        return Training(objective, steps, scaler, EMA(student, case.ema) if case.ema else None), teach

    return build


@pytest.fixture
def stream(batch: Callable[..., Batch]) -> Callable[..., Iterator[Sequence[Batch]]]:
    def batches(*, start: int = 0, accumulate: int = 1, fixed: bool = False) -> Iterator[Sequence[Batch]]:
        step = start
        while True:
            seed = 0 if fixed else step
            yield [batch(10 * seed + micro) for micro in range(accumulate)]
            step += 1

    return batches


def train(
    run: Training, batches: Iterator[Sequence[Batch]], teach: Teach | None = None, **changes: Any
) -> Diary:
    diary = Diary(stop_at=changes.pop("stop_at", 0))
    fit(run, batches, teach, plan=replace(PLAN, **changes), hooks=diary.hooks(run), ranks=ONE)
    return diary


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Every leaf of a training state by its path."""
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return {prefix: value}
    return {k: v for key, child in items for k, v in flat(child, f"{prefix}/{key}").items()}


def assert_identical(ours: Any, theirs: Any) -> None:
    a, b = flat(ours), flat(theirs)
    assert a.keys() == b.keys()
    for key in a:
        same = torch.equal(a[key], b[key]) if isinstance(a[key], Tensor) else a[key] == b[key]
        assert same, key


@pytest.mark.parametrize("distil", [False, True])
def test_the_loss_falls_on_a_fixed_batch(make: Any, stream: Any, distil: bool) -> None:
    run, teach = make(Case("adamw", optimizer="adamw", distil=distil))
    diary = train(run, stream(fixed=True), teach, iterations=50, log_every=5, schedule=lambda _: 0.02)
    first, last = diary.rows[0], diary.rows[-1]
    assert last["loss"] < 0.75 * first["loss"]
    for term in first.keys() & {"loss_ce", "loss_hwd"}:
        assert last[term] < first[term]


def test_every_row_has_finite_terms_that_sum_to_the_loss(make: Any, stream: Any) -> None:
    run, teach = make(Case("hwd", distil=True, accumulate=3))
    for row in train(run, stream(accumulate=3), teach, log_every=2).rows:
        assert row.keys() == {"step", "lr", "loss", "loss_ce", "loss_hwd", *SPEEDS}
        assert all(math.isfinite(value) for value in row.values())
        assert row["loss"] == pytest.approx(row["loss_ce"] + row["loss_hwd"])
        assert row["loss_hwd"] > 0


CASES = [
    Case("sgd"),
    Case("adamw and an average", optimizer="adamw", ema=0.9),
    Case("distillation, accumulated", accumulate=2, ema=0.99, distil=True),
    Case("everything", optimizer="adamw", accumulate=2, ema=0.9, amp=torch.bfloat16, clip=1.0, distil=True),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_run_stopped_at_any_step_and_resumed_is_bit_identical(
    case: Case, make: Any, stream: Any, tmp_path: Path
) -> None:
    """Dropout is active, and the state goes through a file as a real resume's does."""
    changes: dict[str, Any] = {"amp": case.amp, "clip_grad_norm": case.clip}
    whole, teach = make(case)
    expected = train(whole, stream(accumulate=case.accumulate), teach, **changes)
    for stop_at in (1, 2, 5):
        first, teach = make(case)
        before = train(first, stream(accumulate=case.accumulate), teach, stop_at=stop_at, **changes)
        assert before.saved == [stop_at]
        save_tensors(tmp_path / "last.pt", first.state_dict())
        torch.rand(7)  # whatever else drew random numbers in between
        second, teach = make(case)
        second.load_state_dict(load_tensors(tmp_path / "last.pt"))
        after = train(second, stream(start=stop_at, accumulate=case.accumulate), teach, **changes)
        assert before.exact() + after.exact() == expected.exact()
        assert_identical(second.state_dict(), whole.state_dict())


def test_dropout_is_active_and_differs_from_step_to_step_and_seed_to_seed(make: Any, stream: Any) -> None:
    def losses(**changes: Any) -> list[float]:
        run, _ = make(Case("sgd"))
        return [row["loss"] for row in train(run, stream(fixed=True), schedule=lambda _: 0.0, **changes).rows]

    same, other = losses(), losses(seed=4)
    assert same == losses()
    assert len(set(same)) == len(same)  # lr 0: nothing but dropout changes
    assert set(same).isdisjoint(other)


def test_the_largest_seed_that_a_recipe_may_name_can_be_used(make: Any, stream: Any) -> None:
    run, _ = make(Case("sgd"))
    train(run, stream(), iterations=1, seed=2**40)
    assert run.step == 1


class _Breaks(Loss):
    """A loss that is NaN from its n-th call on."""

    reads_teacher = False

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def forward(self, student: SegOutput, teacher: SegOutput | None, label: Tensor) -> Tensor:
        self.left -= 1
        return student.logits.mean() * (math.nan if self.left <= 0 else 1.0)


def test_a_diverged_run_names_the_term_and_saves_nothing_after(make: Any, stream: Any) -> None:
    run, _ = make(Case("sgd"))
    run.objective = Objective(
        run.objective.student, {"ce": CrossEntropy(), "odd": _Breaks(4)}, {"ce": 1, "odd": 1}
    )
    diary = Diary()
    plan = replace(PLAN, log_every=100, save_every=2, evaluate_every=3)
    with pytest.raises(DivergedError, match="loss odd became non-finite") as caught:
        fit(run, stream(), None, plan=plan, hooks=diary.hooks(run), ranks=ONE)
    assert caught.value.exit_code == 7
    assert "ce" not in caught.value.message.replace("became", "")
    assert diary.saved == [2]
    assert diary.evaluated == [3]


class _BreaksBackward(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return value.mean()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient.new_full((2, 5, 4, 4), math.nan)


class _NaNGradient(Loss):
    reads_teacher = False

    def forward(self, student: SegOutput, teacher: SegOutput | None, label: Tensor) -> Tensor:
        result: Tensor = _BreaksBackward.apply(student.logits)
        return result


@pytest.mark.parametrize("changes", [{"save_every": 1}, {"evaluate_every": 1}])
def test_weights_that_a_finite_loss_has_ruined_are_not_saved_or_called_best(
    make: Any, stream: Any, changes: dict[str, int]
) -> None:
    run, _ = make(Case("sgd"))
    run.objective = Objective(run.objective.student, {"odd": _NaNGradient()}, {"odd": 1})
    diary = Diary()
    with pytest.raises(DivergedError, match="weights became non-finite at step 1"):
        fit(run, stream(), None, plan=replace(PLAN, **changes), hooks=diary.hooks(run), ranks=ONE)
    assert diary.saved == diary.evaluated == []


def test_ruined_batch_norm_statistics_are_found_before_they_are_saved(make: Any, stream: Any) -> None:
    run, _ = make(Case("sgd"))
    next(m for m in run.objective.modules() if isinstance(m, nn.BatchNorm2d)).running_var.fill_(math.inf)
    diary = Diary()
    with pytest.raises(DivergedError, match="running_var"):
        fit(run, stream(), None, plan=replace(PLAN, save_every=1), hooks=diary.hooks(run), ranks=ONE)
    assert diary.saved == []


def test_log_evaluation_and_saving_come_when_planned_and_at_the_end(make: Any, stream: Any) -> None:
    run, _ = make(Case("sgd"))
    diary = train(run, stream(), iterations=7, log_every=4, evaluate_every=3, save_every=5)
    assert [row["step"] for row in diary.rows] == [3, 4, 5, 6, 7]
    assert diary.evaluated == [3, 6, 7]
    assert diary.saved == [5, 7]


def test_the_row_of_a_step_holds_the_rate_that_this_step_used(make: Any, stream: Any) -> None:
    run, _ = make(Case("sgd"))
    rates = [row["lr"] for row in train(run, stream()).rows]
    assert rates == [PLAN.schedule(step) for step in range(6)]


def test_a_finished_run_takes_no_further_step(make: Any, stream: Any) -> None:
    run, _ = make(Case("sgd"))
    train(run, stream(), iterations=2)
    before = copy.deepcopy(run.state_dict())
    assert fit(run, stream(), None, plan=replace(PLAN, iterations=2), hooks=Diary().hooks(run), ranks=ONE)
    assert_identical(run.state_dict(), before)


def test_two_micro_batches_give_the_gradient_of_one_batch(make: Any, batch: Callable[..., Batch]) -> None:
    """Batch norm aside (its statistics are kept), with as many counted pixels in both halves."""
    images, label = batch(0, 4)
    label = label.where(label != 255, torch.tensor(0))
    whole = [Batch(images, label)]
    halves = [Batch(images[:2], label[:2]), Batch(images[2:], label[2:])]
    gradients = []
    for batches in (whole, halves):
        run, teach = make(Case("sgd", distil=True))
        for module in run.objective.modules():
            if isinstance(module, nn.BatchNorm2d | nn.Dropout):
                module.train = lambda mode=True, module=module: module  # type: ignore[method-assign, misc]
                module.training = False
        train(run, iter([batches]), teach, iterations=1, schedule=lambda _: 1.0)
        gradients.append({name: p.detach() for name, p in run.objective.named_parameters()})
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_the_gradient_norm_is_clipped_before_the_step(make: Any, stream: Any) -> None:
    moved = []
    for clip in (None, 1e-3):
        run, _ = make(Case("sgd"))
        run.optimizer = torch.optim.SGD(run.objective.parameters(), lr=1.0)
        before = torch.cat([p.detach().flatten().clone() for p in run.objective.parameters()])
        train(run, stream(), iterations=1, schedule=lambda _: 1.0, clip_grad_norm=clip)
        after = torch.cat([p.detach().flatten() for p in run.objective.parameters()])
        moved.append((after - before).norm().item())
    assert moved[0] > 0.01
    assert moved[1] == pytest.approx(1e-3, rel=1e-2)


def test_bf16_autocast_trains_float32_weights(make: Any, stream: Any) -> None:
    plain, teach = make(Case("plain", distil=True))
    exact = train(plain, stream(), teach)
    run, teach = make(Case("bf16", distil=True, amp=torch.bfloat16))
    rough = train(run, stream(), teach, amp=torch.bfloat16)
    assert {p.dtype for p in run.objective.parameters()} == {torch.float32}
    assert rough.rows[0]["loss_ce"] == pytest.approx(exact.rows[0]["loss_ce"], rel=0.05)
    assert rough.rows[0]["loss_ce"] != exact.rows[0]["loss_ce"]


def test_the_teacher_is_out_of_reach(make: Any, network: Any, stream: Any) -> None:
    run, _ = make(Case("hwd", distil=True, ema=0.9))
    teacher = network(seed=2, aux=False)
    teach = frozen_teacher(teacher, taps=(), amp=None)
    before = copy.deepcopy(teacher.state_dict())
    train(run, stream(), teach)
    run.objective.train()
    assert not any(module.training for module in teacher.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert_identical(dict(teacher.state_dict()), dict(before))
    owned = {id(t) for t in [*run.objective.parameters(), *run.objective.buffers()]}
    assert owned.isdisjoint(id(t) for t in [*teacher.parameters(), *teacher.buffers()])
    expected = {f"student.{name}" for name in run.objective.student.state_dict()}
    assert set(run.objective.state_dict()) == expected


def test_the_teachers_answer_follows_its_image_and_carries_no_graph(network: Any, batch: Any) -> None:
    teacher = network(seed=2)
    teach = frozen_teacher(teacher, taps=("stage4",), amp=None)
    output = teach(batch(0).image)
    assert torch.equal(output.logits, teach(batch(0).image).logits)  # no dropout
    assert not torch.equal(output.logits, teach(batch(1).image).logits)
    assert not output.logits.requires_grad
    assert not output.logits.is_inference()  # could not be saved for the student's backward
    assert output.aux is None
    assert list(output.taps) == ["stage4"]


def test_a_teacher_of_another_stride_is_resized_to_the_student(make: Any, network: Any, batch: Any) -> None:
    run, _ = make(Case("hwd", distil=True))
    teach = frozen_teacher(network(seed=2, output_stride=16, aux=False), taps=(), amp=None)
    assert teach(batch(0).image).logits.shape[-1] == 2
    both = {"hwd": HWD(), "cwd": CWD(student_channels=5, teacher_channels=5)}
    goal = Objective(run.objective.student, both, {"hwd": 1.0, "cwd": 1.0})
    terms = goal(batch(0), teach(batch(0).image))
    assert terms["hwd"].isfinite()
    assert terms["cwd"].isfinite()
