"""From each dataset's own layout on disk to a trained and evaluated network, through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_runs import SMALL, hwdkit
from tiny_trees import TREES

from hwdkit.datasets.table import DATASETS

RECIPE = f"""
data: {{dataset: NAME, crop: [32, 32], workers: 0}}
student: {{backbone: resnet18, backbone_options: {SMALL}, head_channels: 8}}
train: {{iterations: 10, batch_size: 2, log_every: 5}}
"""


@pytest.mark.parametrize("name", sorted(DATASETS.keys() - {"scenes"}))  # which most tests of commands use
def test_a_dataset_as_it_is_downloaded_can_be_prepared_cached_trained_on_and_evaluated(
    name: str, tmp_path: Path
) -> None:
    TREES[name](tmp_path / "downloaded")
    where = ("--data-root", tmp_path / "data", "--quiet")
    source = ("--source", tmp_path / "downloaded")
    refused = hwdkit("prepare-data", name, *source, *where)
    assert refused.code == 4
    assert "published" in refused.err
    prepared = hwdkit("prepare-data", name, *source, *where, "--allow-partial", "--cache", "--json")
    assert prepared.code == 0, prepared.err
    assert prepared.document["partial"] is True
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("NAME", name))
    run = ("--recipe", tmp_path / "tiny.yaml", "--out", tmp_path / "run", "--gpus", 0, "--json")
    trained = hwdkit("distill", *run, *where)
    assert trained.code == 0, trained.err
    evaluated = hwdkit("evaluate", "--checkpoint", tmp_path / "run", "--gpus", 0, "--json", *where)
    assert evaluated.code == 0, evaluated.err
    assert 0 <= evaluated.document["miou"] <= 1
