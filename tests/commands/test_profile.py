"""What `hwdkit profile` counts and shows."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import Pair, hwdkit

from hwdkit.engine.networks import load_network


def test_a_recipe_is_profiled_with_the_teacher_of_its_teacher_recipe() -> None:
    done = hwdkit(
        "profile",
        "-r",
        "scenes-r10-hwd",
        "--input",
        "64x96",
        "--input",
        "32x32",
        "--json",
        "--counter",
        "torch",
    )
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


STEM = ["--set", "student.backbone=resnet18"]
STEM += ["--set", "student.backbone_options={stem_type: deep, stem_width: 64}"]
PRINTED = [
    # HWD, Table II, 512x512: 150 classes, cut after one decimal
    ("ade20k-r101-teacher", [], "512x512", 384.7, "cut"),
    ("ade20k-r18-hwd", STEM, "512x512", 86.0, "cut"),
    ("ade20k-mbv2-hwd", [], "512x512", 22.6, "cut"),
    ("ade20k-pspr18-hwd", STEM, "512x512", 67.6, "cut"),
    # Table III, Cityscapes, 1024x2048: 19 classes, rounded
    ("cityscapes-r101-teacher", [], "1024x2048", 2371.7, "rounded"),
    ("cityscapes-r18-hwd", STEM, "1024x2048", 572.0, "rounded"),
    # Table III, COCO-Stuff, 512x512: 182 classes, cut
    ("coco-r101-teacher", [], "512x512", 384.7, "cut"),
]


@pytest.mark.parametrize(
    ("recipe", "more", "size", "gmacs", "how"),
    [pytest.param(*row, marks=pytest.mark.slow) if "r101" in row[0] else row for row in PRINTED],
)
def test_the_papers_counter_finds_the_printed_number(
    recipe: str, more: list[str], size: str, gmacs: float, how: str
) -> None:
    role = "teacher" if "teacher" in recipe else "student"
    line = ["profile", "-r", recipe, "--role", role, "--counter", "paper", "--input", size, "--json", *more]
    macs = hwdkit(*line).document["profiles"][0]["macs"]
    assert (macs["paper"] // 10**8 / 10 if how == "cut" else round(macs["paper"] / 1e9, 1)) == gmacs
    assert macs["thop"] is None  # the slowest counter runs when it is asked for


@pytest.mark.parametrize(
    ("recipe", "more", "millions"),
    [("ade20k-r18-hwd", STEM, 13.6), ("ade20k-mbv2-hwd", [], 3.2), ("ade20k-pspr18-hwd", STEM, 12.9)],
)
def test_the_papers_parameters_are_those_of_19_classes(recipe: str, more: list[str], millions: float) -> None:
    line = ["profile", "-r", recipe, "--role", "student", "--classes", 19, "--input", "32x32", *more]
    row = hwdkit(*line, "--counter", "torch", "--json").document["profiles"][0]
    assert round(row["params"] / 1e6, 1) == millions


def test_a_network_is_described_on_the_command_line() -> None:
    line = ["profile", "--backbone", "resnet18", "--classes", 7, "--input", "64x64", "--counter", "torch"]
    rows = [
        hwdkit(*line, "--json", *more).document["profiles"][0]
        for more in ([], ["--output-stride", 16], ["--head", "fcn"], ["--no-aux"])
    ]
    strided, coarse, fcn, alone = rows
    assert strided["network"] == "deeplabv3 resnet18"
    assert strided["role"] == "network"
    assert coarse["macs"]["true"] < strided["macs"]["true"]
    assert coarse["params"] == strided["params"]
    assert fcn["network"] == "fcn resnet18"
    assert alone["params"] == alone["params_deployed"] == strided["params_deployed"] < strided["params"]


TINY = ["--classes", 3, "--input", "32x32", "--counter", "paper", "--json"]


def test_a_shortlist_is_every_backbone_under_every_head_against_one_budget() -> None:
    named = ["--backbone", "lcnet_050", "--backbone", "ghostnet_050", "--head", "fcn", "--head", "segformer"]
    done = hwdkit("profile", *named, *TINY, "--output-stride", 32, "--max-params", "500K")
    rows = done.document["profiles"]
    names = [f"{head} {name}" for name in ("lcnet_050", "ghostnet_050") for head in ("fcn", "segformer")]
    assert [row["network"] for row in rows] == names
    assert [verdict["network"] for verdict in done.document["budgets"]] == names
    fits = [row["params_deployed"] <= 500_000 for row in rows]
    assert [verdict["met"] for verdict in done.document["budgets"]] == fits
    assert len(set(fits)) == 2
    assert done.code == 9


def test_of_several_recipes_the_students_are_shown_and_bound(pair: Pair) -> None:
    line = ["-r", "scenes-r10-hwd", "-r", "scenes-r18-teacher", "-c", pair.student]
    done = hwdkit("profile", *line, *TINY, "--max-params", "1G")
    rows = done.document["profiles"]
    assert [row["role"] for row in rows] == ["student", "teacher", "network"]
    assert [row["network"].split()[0] for row in rows] == [*line[1:4:2], str(pair.student)]
    assert len(done.document["budgets"]) == 3
    both = hwdkit("profile", *line[:4], *TINY, "--role", "teacher").document["profiles"]
    assert [row["network"].split()[:2] for row in both] == [[name, "teacher"] for name in line[1:4:2]]


@pytest.mark.parametrize(
    ("line", "code", "complaint"),
    [
        ([], 2, "give --recipe"),
        (["-r", "scenes-r10-hwd", "--backbone", "resnet18"], 2, "--backbone needs --classes"),
        (["-r", "scenes-r10-hwd", "-r", "scenes-r10-kd", "--train-step"], 2, "measures one --recipe"),
        (["--backbone", "resnet18", "--classes", 70_000], 2, "--classes"),
        (["-r", "scenes-r10-hwd", "--input", "512x²"], 2, "--input: '512x²' is not HEIGHTxWIDTH"),
        (["-r", "scenes-r10-hwd", "--input", "512x" + "9" * 20], 2, "is not HEIGHTxWIDTH"),
        (["-r", "scenes-r10-hwd", "--latency", "--threads", 10**8], 2, "--threads"),
        (["-r", "scenes-r10-hwd", "--batch", 2], 2, "--batch belongs to --latency"),
        (["-r", "scenes-r10-hwd", "--warmup", 0], 2, "--warmup belongs to --latency"),
        (["-r", "scenes-r10-hwd", "--iters", 2], 2, "--iters belongs to --latency"),
        (["-r", "scenes-r10-hwd", "--threads", 2], 2, "--threads belongs to --latency"),
        (["-r", "scenes-r10-hwd", "--dtype", "bf16"], 2, "--dtype belongs to --latency"),
        (["-r", "scenes-r10-hwd", "--train-step", "--dtype", "bf16"], 2, "--set train.amp"),
        (["--backbone", "resnet18"], 2, "--backbone needs --classes"),
        (["--backbone", "resnet18", "--classes", 3, "--head", "unet"], 2, "--head"),
        (["--backbone", "resnet18", "--classes", 3, "--output-stride", 4], 2, "--output-stride: 4"),
        (["--backbone", "resnet81", "--classes", 3], 3, "no backbone 'resnet81'"),
        (["--backbone", "resnet18", "--classes", 3, "--train-step"], 2, "--train-step belongs"),
        (["-r", "scenes-r10-hwd", "--head", "fcn"], 2, "--head belongs to --backbone"),
        (["-r", "scenes-r10-hwd", "--latency", "--dtype", "int8"], 2, "'--dtype': 'int8' is not one of"),
        (["-c", "runs/none", "--classes", 3], 2, "--classes means nothing with --checkpoint"),
        (["-c", "runs/none", "--role", "student"], 2, "--role belongs to --recipe"),
        (["-c", "runs/none"], 5, "runs/none"),
        (["-r", "scenes-r10-hwd", "--max-params", "many"], 2, "--max-params: 'many'"),
    ],
)
def test_what_cannot_be_meant_is_refused(line: list[object], code: int, complaint: str) -> None:
    refused = hwdkit("profile", *line)
    assert refused.code == code
    assert complaint in refused.err
    assert refused.out == ""


def test_dtype_and_threads_are_those_asked_for_and_given_back() -> None:
    before = torch.get_num_threads()
    line = ["profile", "--backbone", "resnet18", "--classes", 3, "--input", "64x64", "--counter", "torch"]
    timing = ["--latency", "--iters", 1, "--warmup", 0, "--dtype", "bf16", "--threads", before + 1]
    shown = hwdkit(*line, *timing, "--gpus", 0)
    assert shown.code == 0
    assert f"Time of the deployed network, bf16, batch 1, cpu ({before + 1} threads)." in shown.out
    assert torch.get_num_threads() == before


def test_a_checkpoint_is_profiled_and_timed(pair: Pair) -> None:
    line = ["profile", "-c", pair.student, "--input", "64x64", "--gpus", 0]
    row = hwdkit(*line, "--json").document["profiles"][0]
    assert row["network"] == "scenes-r10-hwd"
    assert row["params"] == sum(p.numel() for p in load_network(pair.student).model.parameters())
    timing = ["--latency", "--warmup", 0, "--iters", 2]
    timed = hwdkit(*line, *timing, "--batch", 2, "--json").document["profiles"][0]
    assert timed["latency"]["median_ms"] > 0
    assert timed["latency"]["images_per_s"] == pytest.approx(2000 / timed["latency"]["median_ms"])
    assert timed["peak_memory_mib"] > timed["params_deployed"] * 4 / 2**20
    shown = hwdkit(*line, *timing)
    assert "median ms" in shown.out
    assert "images/s" in shown.out
    assert "GMACs = 1e9 multiply-adds" in shown.out


def test_a_role_that_the_recipe_lacks_is_refused() -> None:
    refused = hwdkit("profile", "-r", "scenes-r18-teacher", "--role", "student")
    assert refused.code == 3
    assert "recipe scenes-r18-teacher has no student" in refused.err
