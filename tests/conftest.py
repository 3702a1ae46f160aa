"""What all tests share: one thread each, lest parallel workers fight over the cores; the log as it was."""

import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def log_as_imported() -> None:
    """A command sets up the log of its process; every test begins with one that nobody has touched."""
    logger = logging.getLogger("hwdkit")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.INFO)
