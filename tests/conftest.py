"""What all tests share: one thread each, lest parallel workers fight over the cores; the log as it was.

Where there is no GPU, Triton's kernels are interpreted.
"""

import logging
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from downloads import ade20k as ade20k
from downloads import camvid as camvid
from downloads import cityscapes as cityscapes
from tiny_runs import Pair, trained_pair

torch.set_num_threads(1)
if not torch.cuda.is_available():
    # Triton reads it once, when it is first imported: its kernels are interpreted.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def log_as_imported() -> None:
    """A command sets up the log of its process; every test begins with one that nobody has touched."""
    logger = logging.getLogger("hwdkit")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.INFO)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A tiny trained teacher and student; whoever changes a folder copies it first."""
    return trained_pair(tmp_path_factory.getbasetemp() / "tiny-runs")
