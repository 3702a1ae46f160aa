"""What all tests share: one thread each, lest parallel workers fight over the cores; the log as it was."""

import logging
import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def log_as_imported() -> Iterator[None]:
    """A command sets up the log of its process; the next test gets it as it was before."""
    logger = logging.getLogger("hwdkit")
    before = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])
