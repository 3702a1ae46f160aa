"""What `hwdkit profile` counts and shows."""

from __future__ import annotations

import pytest
from tiny_runs import Pair, hwdkit

from hwdkit.engine.networks import load_network


def test_a_recipe_is_profiled_with_the_teacher_of_its_teacher_recipe() -> None:
    done = hwdkit("profile", "-r", "scenes-r10-hwd", "--input", "64x96", "--input", "32x32", "--json")
    rows = done.document["profiles"]
    assert [(row["network"].split()[0], row["height"], row["width"]) for row in rows] == [
        ("student", 64, 96),
        ("student", 32, 32),
        ("teacher", 64, 96),
        ("teacher", 32, 32),
    ]
    assert rows[0]["params"] == rows[1]["params"] < rows[2]["params"]
    assert rows[0]["params_deployed"] < rows[0]["params"]
    assert rows[0]["macs"]["true"] > rows[1]["macs"]["true"] > 0
    assert rows[0]["latency"] is None


def test_one_role_one_counter_and_overrides() -> None:
    line = ["profile", "-r", "scenes-r10-hwd", "--input", "64x64", "--role", "student"]
    shown = hwdkit(*line, "--counter", "paper")
    head, _, row, *_ = shown.out.splitlines()
    assert head.split("  ")[-1].strip() == "GMACs paper"
    assert "thop" not in head
    assert row.split()[:3] == ["student", "deeplabv3", "resnet18"]
    plain = hwdkit(*line, "--json").document["profiles"][0]["params"]
    small = hwdkit(*line, "--json", "--set", "student.head_channels=8").document["profiles"][0]["params"]
    more = hwdkit(*line, "--json", "--classes", 50).document["profiles"][0]["params"]
    assert small < plain < more


def test_the_papers_counter_finds_the_papers_number() -> None:
    line = ["profile", "-r", "ade20k-r18-hwd", "--role", "student", "--counter", "paper", "--json"]
    stem = "student.backbone_options={stem_type: deep, stem_width: 64}"
    row = hwdkit(*line, "--set", stem).document["profiles"][0]
    assert row["params"] == pytest.approx(13.6e6, rel=0.01)
    assert row["macs"]["paper"] == pytest.approx(86.0e9, rel=0.01)


def test_a_checkpoint_is_profiled_and_timed(pair: Pair) -> None:
    line = ["profile", "-c", pair.student, "--input", "64x64", "--gpus", 0]
    row = hwdkit(*line, "--json").document["profiles"][0]
    assert row["network"] == "scenes-r10-hwd"
    assert row["params"] == sum(p.numel() for p in load_network(pair.student).model.parameters())
    timing = ["--latency", "--warmup", 0, "--iters", 2]
    timed = hwdkit(*line, *timing, "--batch", 2, "--json").document["profiles"][0]
    assert timed["latency"]["median_ms"] > 0
    shown = hwdkit(*line, *timing)
    assert "median ms" in shown.out
    assert "GMACs = 1e9 multiply-adds" in shown.out


def test_a_role_that_the_recipe_lacks_is_refused() -> None:
    refused = hwdkit("profile", "-r", "scenes-r18-teacher", "--role", "student")
    assert refused.code == 3
    assert "recipe scenes-r18-teacher has no student" in refused.err
