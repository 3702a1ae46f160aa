"""What all tests share: one thread each, so that parallel workers do not fight over the cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
