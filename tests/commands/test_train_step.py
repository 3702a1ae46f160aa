"""`hwdkit profile --train-step`: the step that training takes, and its parts."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny_runs import STUDENT, TEACHER, Pair, hwdkit

from hwdkit.commands.profile import train_step
from hwdkit.commands.profile.train_step import random_batches
from hwdkit.distributed import Ranks
from hwdkit.engine import build, describe
from hwdkit.engine.loop import Training
from hwdkit.engine.objectives import Teach
from hwdkit.measure import train_step as report
from hwdkit.measure.memory import MIB
from hwdkit.recipe.load import load
from hwdkit.recipe.schema import Recipe
from hwdkit.types import Batch

CPU = torch.device("cpu")
STEP = ["--train-step", "--counter", "torch", "--gpus", 0, "--warmup", 0, "--iters", 1, "--json"]


def parts(step: dict) -> list[tuple[str, str]]:  # type: ignore[type-arg]
    return [(part["kind"], part["name"]) for part in step["parts"]]


def test_a_step_of_distillation_has_a_row_for_each_of_its_parts() -> None:
    done = hwdkit("profile", *STUDENT, "--role", "student", *STEP)
    step = done.document["train_step"]
    assert parts(step) == [
        ("teacher", "forward"),
        ("student", "forward"),
        ("loss", "ce"),
        ("loss", "hwd"),
        ("student", "backward"),
        ("optimizer", "step"),
    ]
    assert (step["height"], step["width"], step["batch"], step["micro_batches"]) == (32, 32, 2, 1)
    assert step["images_per_s"] == pytest.approx(2000 / step["median_ms"])
    for part in step["parts"]:
        assert part["share"] == pytest.approx(part["median_ms"] / step["median_ms"])
    assert 0 < step["held_mib"] < step["peak_mib"]
    assert [row["height"] for row in done.document["profiles"]] == [32]  # the recipe's crop, not 512x512
    assert done.err == ""


def test_a_critic_has_a_row_of_its_own_and_micro_batches_are_added_up() -> None:
    small = [text.replace("scenes-r10-hwd", "scenes-r10-skd") for text in STUDENT]
    line = ["profile", *small, "--role", "student", "--set", "train.accumulate=2", "--batch", 4]
    step = hwdkit(*line, *STEP).document["train_step"]
    assert (step["batch"], step["micro_batches"]) == (4, 2)
    assert parts(step)[-2:] == [("optimizer", "step"), ("critic", "holistic")]


def test_a_recipe_without_losses_is_measured_as_it_would_train_its_teacher() -> None:
    line = ["profile", *TEACHER, *STEP[:-1], "--input", "32x64"]
    step = hwdkit(*line, "--json").document["train_step"]
    assert (step["role"], step["height"], step["width"]) == ("teacher", 32, 64)
    assert ("teacher", "forward") not in parts(step)
    page = Console(width=200, file=io.StringIO(), record=True)
    page.print(train_step.render(step))
    shown = page.export_text()
    assert "one step of train-teacher scenes-r18-teacher: 2 images of 32x64" in shown
    assert "teacher backward" in shown
    assert "live between steps" in shown


def test_a_teacher_that_only_a_file_describes_is_read_from_it(pair: Pair, tmp_path: Path) -> None:
    known = ["--set", f"teacher.checkpoint={pair.teacher}", "--set", "teacher.recipe=null"]
    line = ["profile", *STUDENT, *known, *STEP]
    found = hwdkit(*line).document
    assert [row["role"] for row in found["profiles"]] == ["student", "teacher"]
    assert parts(found["train_step"])[0] == ("teacher", "forward")
    refused = hwdkit(*line, "--classes", 3)
    assert refused.code == 5
    assert "is counted with 3" in refused.err
    gone = hwdkit("profile", *STUDENT, "--set", f"teacher.checkpoint={tmp_path / 'no'}", *STEP)
    assert gone.code == 5


@pytest.mark.parametrize(
    ("more", "code", "complaint"),
    [
        (["--batch", 1], 3, "a batch of 1 image"),
        (["--set", "train.amp=fp16"], 6, "fp16 needs a GPU"),
        (["--input", "32x32", "--input", "64x64"], 2, "one --input"),
        (["--set", "train.accumulate=2", "--batch", 3], 3, "not a multiple of accumulate"),
        (["--role", "teacher"], 3, "no teacher to train"),
    ],
)
def test_a_step_that_cannot_be_taken_is_refused(more: list[object], code: int, complaint: str) -> None:
    refused = hwdkit("profile", *STUDENT, *STEP, *more)
    assert refused.code == code
    assert complaint in refused.err


def pieces(*overrides: str) -> tuple[Recipe, Training, Teach, torch.nn.Module, list[Batch]]:
    small = "{layers: [1, 1, 1, 1], channels: [8, 16, 24, 32]}"
    tiny = [f"student.backbone_options={small}", "student.head_channels=8", "data.crop=[32, 32]"]
    recipe = load("scenes-r10-hwd", overrides=[*tiny, "train.batch_size=2", *overrides])
    assert recipe.student is not None
    teacher = describe.bare(recipe.student, 5)
    training = build.training(recipe, describe.bare(recipe.student, 5), Ranks(0, 1, CPU), teacher)
    teach = build.teach(recipe.train, teacher, training.objective, Ranks(0, 1, CPU))
    return recipe, training, teach, teacher, random_batches(recipe, 5, CPU)


def test_the_parts_together_give_the_gradients_of_the_whole_step() -> None:
    recipe, training, teach, _, batches = pieces("student.head=fcn")
    goal, batch = training.objective, Batch(batches[0].image, batches[0].label.long())
    rehearsal = report._Rehearsal(training, batches, teach, build.plan(recipe))
    works = {f"{kind} {name}": work for kind, name, _, work in rehearsal.parts()}
    torch.manual_seed(0)  # of dropout
    for name in ("teacher forward", "student forward", "loss ce", "loss hwd", "student backward"):
        works[name]()
    found = {name: p.grad for name, p in goal.named_parameters() if p.grad is not None}
    goal.zero_grad()
    torch.manual_seed(0)
    torch.stack(list(goal(batch, teach(batch.image)).values())).sum().backward()
    expected = {name: p.grad for name, p in goal.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_measuring_moves_no_weight_and_counts_what_lives_between_steps() -> None:
    recipe, training, teach, teacher, batches = pieces("train.ema=0.9", "optimizer.name=sgd")
    before = [p.clone() for p in training.objective.parameters()]
    step = report.measure_train_step(
        training, batches, plan=build.plan(recipe), teach=teach, teacher=teacher, warmup=0, repeats=1
    )
    for now, then in zip(training.objective.parameters(), before, strict=True):
        assert torch.equal(now, then)

    def size(network: torch.nn.Module) -> int:
        return sum(t.nbytes for t in itertools.chain(network.parameters(), network.buffers()))

    momentum = sum(p.nbytes for p in training.objective.parameters() if p.requires_grad)
    held = size(training.objective) + size(teacher) + momentum
    held += sum(t.nbytes for t in training.objective.student.state_dict().values())  # the average
    held += sum(batch.image.nbytes + batch.label.nbytes for batch in batches)
    assert step.held_mib * MIB == pytest.approx(held, rel=0.01)


def test_a_larger_batch_holds_more_at_its_peak_and_no_more_between_steps() -> None:
    steps = []
    for count in (2, 8):
        recipe, training, teach, teacher, batches = pieces(f"train.batch_size={count}", "data.crop=[64, 64]")
        steps.append(
            report.measure_train_step(
                training, batches, plan=build.plan(recipe), teach=teach, teacher=teacher, warmup=0, repeats=1
            )
        )
    small, large = steps
    six_more = 6 * 4 * 64 * 64  # images and labels, uint8
    assert (large.held_mib - small.held_mib) * MIB == pytest.approx(six_more)
    working = [step.peak_mib - step.held_mib for step in steps]
    assert working[1] == pytest.approx(4 * working[0], rel=0.15)


def test_random_labels_come_in_blocks_of_every_class() -> None:
    recipe = load("scenes-r10-hwd", overrides=["data.crop=[64, 96]", "train.accumulate=2"])
    first, second = random_batches(recipe, 5, CPU)
    assert first.image.shape == (4, 3, 64, 96)
    assert first.label.shape == (4, 64, 96)
    assert not torch.equal(first.image, second.image)
    assert first.label.unique().tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(first.label[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2), first.label)
