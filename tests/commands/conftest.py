"""A tiny trained pair of networks, shared by the tests of all commands that read checkpoints."""

from __future__ import annotations

import pytest
from tiny_runs import Pair, trained_pair


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return trained_pair(tmp_path_factory.getbasetemp() / "tiny-runs")
