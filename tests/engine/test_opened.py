"""Networks by option, and the images that they are shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import Pair

from hwdkit.engine.networks import load_network
from hwdkit.engine.opened import open_images, open_networks
from hwdkit.errors import UsageError
from hwdkit.terminal.options import Networks


def test_the_student_comes_last_and_without_one_the_last_comparison_is_it() -> None:
    teacher, cwd, hwd, alone = Path("t"), Path("c"), Path("h"), Path("b")
    compare = ["cwd=c", "hwd=h"]
    assert Networks(teacher=teacher, baseline=alone, compare=compare).named() == [
        ("teacher", "teacher", teacher),
        ("baseline", "baseline", alone),
        ("cwd", "compare", cwd),
        ("hwd", "student", hwd),
    ]
    mine = Networks(student=Path("s"), compare=compare)
    assert [(name, role) for name, role, _ in mine.named(student="mine")] == [
        ("cwd", "compare"),
        ("hwd", "compare"),
        ("mine", "student"),
    ]
    assert Networks(teacher=teacher).named() == [("teacher", "teacher", teacher)]
    assert Networks().named() == []


def test_processes_share_the_first_images_without_overlap(pair: Pair) -> None:
    images = open_images(load_network(pair.student), data_root=pair.data, split="val", limit=3)
    assert images.total == 3
    parts = [[i for i, _, _ in images.pairs(rank=rank, world=2)] for rank in range(2)]
    assert parts == [[0, 2], [1]]
    assert [images.share(rank=rank, world=2) for rank in range(2)] == [2, 1]
    assert images.notes()[0] == f"Only the first 3 of {len(images.dataset)} images were evaluated."


def test_networks_are_found_by_role(pair: Pair) -> None:
    options = Networks(student=pair.student, teacher=pair.teacher)
    opened = open_networks(options.named(), data_root=pair.data, split="val", cpu=True)
    assert opened.of_role("student", needed_for="this").digest != opened.networks[0].digest
    assert not any(network.model.training for network in opened.networks)
    assert opened.images.total == len(opened.images.dataset)
    with pytest.raises(UsageError, match="this needs --baseline"):
        opened.of_role("baseline", needed_for="this")
