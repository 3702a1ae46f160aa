"""--dry-run: what would meet what, what is still missing, and not a trace left behind."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import STUDENT, TEACHER, Outcome, Pair, hwdkit

LOSSES = (
    *("--set", "losses.mimic={tap: embedding}", "--set", "losses.at={tap: stage4, teacher_tap: stage3}"),
    *("--set", "losses.holistic={weight: 0.001}", "--set", "losses.hwd.schedule={warmup: 0.1, decay: 0.25}"),
    *("--set", "losses.cirkd_memory={pixel_queue: 100, region_queue: 10}"),
)


def dry(*more: object) -> Outcome:
    return hwdkit("distill", *STUDENT, "--dry-run", *more)


@pytest.fixture(scope="module")
def shown(pair: Pair) -> dict[str, Any]:
    """The document for a student with every kind of loss."""
    return dry("--data-root", pair.data, "--teacher", pair.teacher, "--json", *LOSSES).document


def loss(document: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (entry for entry in document["losses"] if entry["name"] == name)
    return dict(found)


def test_a_run_that_could_start_exits_0_and_leaves_nothing(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = dry("--data-root", pair.data, "--teacher", pair.teacher, "--out", "new")
    assert (outcome.code, outcome.err) == (0, "")
    assert list(tmp_path.iterdir()) == []
    assert "missing" not in outcome.out
    for word in ("student", "teacher", "hwd", "12x4x4", "scenes, 12 classes", "crops of 32x32"):
        assert word in outcome.out


def test_every_loss_says_which_maps_meet_and_how_large_they_are(shown: dict[str, Any]) -> None:
    assert [entry["name"] for entry in shown["losses"]][:2] == ["ce", "hwd"]
    assert loss(shown, "ce")["maps"] == []
    (met,) = loss(shown, "mimic")["maps"]
    assert (met["tap"], met["student"], met["teacher"], met["resized"]) == (
        *("embedding", [8, 4, 4], [8, 4, 4]),
        False,
    )
    (met,) = loss(shown, "at")["maps"]
    assert (met["tap"], met["teacher_tap"], met["student"][0], met["teacher"][0]) == (
        *("stage4", "stage3"),
        *(32, 24),
    )
    assert loss(shown, "hwd")["schedule"] == {"warmup": 0.1, "decay": 0.25}


def test_a_teacher_of_another_stride_is_shown_resized_and_of_other_channels_projected(pair: Pair) -> None:
    changes = ("--set", "student.output_stride=16", "--set", "student.head_channels=6")
    where = ("--data-root", pair.data, "--teacher", pair.teacher)
    (met,) = loss(dry(*where, *LOSSES, *changes, "--json").document, "mimic")["maps"]
    assert (met["student"], met["teacher"], met["resized"]) == ([6, 2, 2], [8, 4, 4], True)
    text = " ".join(dry(*where, *LOSSES, *changes).out.split())
    assert "teacher resized, student" in text
    assert "projected" in text


def test_queues_and_critics_are_counted(shown: dict[str, Any]) -> None:
    memory = loss(shown, "cirkd_memory")
    sizes = {state["name"]: state for state in memory["state"]}
    assert sizes["pixel_queue"]["shape"] == [12, 100, 8]
    assert sizes["pixel_queue"]["mib"] == pytest.approx(math.prod((12, 100, 8)) * 4 / 2**20, abs=0.01)
    assert memory["parameters"] > 0
    critic = loss(shown, "holistic")
    assert critic["critic_parameters"] > 3_000_000
    assert (critic["parameters"], critic["state"]) == (0, [])


def test_what_is_missing_is_listed_after_the_table_and_sets_the_exit_code(tmp_path: Path) -> None:
    outcome = dry("--data-root", tmp_path)
    assert outcome.code == 4
    assert "prepare-data scenes" in outcome.err
    for word in ("12x4x4", "no finished run of scenes-r18-teacher", "not trained yet: scenes-r18-teacher"):
        assert word in outcome.out
    document = dry("--data-root", tmp_path, "--json").document
    assert [lack["exit_code"] for lack in document["missing"]] == [4, 5]
    assert (document["status"], document["exit_code"]) == ("error", 4)
    assert document["networks"]["teacher"]["parameters"] > document["networks"]["student"]["parameters"]


def test_a_batch_that_cannot_be_shared_and_a_used_folder_are_found_without_training(pair: Pair) -> None:
    where = ("--data-root", pair.data, "--teacher", pair.teacher, "--gpus", 0)
    outcome = dry(*where, "--ranks", 3)
    assert outcome.code == 3
    assert "batch_size" in outcome.err
    assert dry(*where, "--out", pair.student).code == 3


def test_a_named_teacher_that_does_not_exist_ends_at_once(pair: Pair, tmp_path: Path) -> None:
    outcome = dry("--data-root", pair.data, "--teacher", tmp_path / "none.safetensors")
    assert outcome.code == 5
    assert outcome.out == ""


def test_losses_that_do_not_fit_are_refused(pair: Pair) -> None:
    where = ("--data-root", pair.data, "--teacher", pair.teacher)
    outcome = dry(*where, "--set", "student.head_channels=6", "--set", "losses.mimic={projector: none}")
    assert outcome.code == 3
    assert "losses.mimic: projector: none needs equal channels; student 6, teacher 8" in outcome.err


def test_a_teachers_own_training_is_shown_without_distillation(pair: Pair) -> None:
    outcome = hwdkit("train-teacher", *TEACHER, "--dry-run", "--data-root", pair.data, "--json")
    assert outcome.code == 0
    assert list(outcome.document["networks"]) == ["teacher"]
    assert [entry["name"] for entry in outcome.document["losses"]] == ["ce"]


def test_the_run_that_auto_resume_would_continue_can_be_looked_at(pair: Pair) -> None:
    where = ("--data-root", pair.data, "--teacher", pair.teacher)
    assert dry(*where, "--out", pair.student, "--auto-resume").code == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--set", "student.pretrained=/nowhere.safetensors"), 5, "`pretrained` of resnet18"),
        (("--init-from", "/nowhere"), 5, "/nowhere"),
        (("--set", "train.amp=fp16", "--gpus", 0), 6, "fp16 needs a GPU"),
        (("--set", "train.accumulate=2"), 3, "a batch of 1 image per process"),
        (("--set", "losses.type.loss=cwd"), 3, "a loss cannot be named type"),
    ],
)
def test_what_would_stop_the_run_later_is_found_now(
    pair: Pair, options: tuple[object, ...], code: int, said: str
) -> None:
    outcome = dry("--data-root", pair.data, "--teacher", pair.teacher, *options)
    assert outcome.code == code
    assert said in outcome.err


def test_a_teacher_of_other_classes_is_refused_before_the_data_is_there(pair: Pair, tmp_path: Path) -> None:
    outcome = hwdkit(
        *("distill", "-r", "camvid-mbv2-cwd", "--dry-run", "--data-root", tmp_path, "--teacher", pair.teacher)
    )
    assert outcome.code == 5
    assert "checkpoint has 12 classes, camvid is counted with 11" in outcome.err


def test_dry_run_and_resume_exclude_each_other(pair: Pair) -> None:
    outcome = hwdkit("distill", "--resume", pair.student, "--dry-run")
    assert outcome.code == 2
    assert "--dry-run" in outcome.err
