"""A network that trains in milliseconds, and random batches for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hwdkit.models.contract import InputContract
from hwdkit.models.segmenter import NetworkSpec, Segmenter, build
from hwdkit.types import Batch

CLASSES = 5
BACKBONE = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_type": "deep", "stem_width": 8}


def make_network(seed: int = 0, **changes: Any) -> Segmenter:
    values: dict[str, Any] = {
        "backbone": "resnet18",
        "classes": CLASSES,
        "backbone_options": BACKBONE,
        "head_channels": 8,
        "input": InputContract(),
    }
    torch.manual_seed(seed)
    return build(NetworkSpec(**{**values, **changes}))


def make_batch(seed: int, images: int = 2, *, size: int = 32) -> Batch:
    """Blocky random labels with a random share of ignored pixels, and images that depend on them."""
    dice = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, CLASSES, (images, 4, 4), generator=dice)
    blocks[torch.rand(blocks.shape, generator=dice) < 0.15] = 255
    label = blocks.repeat_interleave(size // 4, 1).repeat_interleave(size // 4, 2)
    noise = torch.randint(0, 60, (images, 3, size, size), generator=dice)
    image = (label[:, None] * torch.tensor([13, 29, 37]).view(1, 3, 1, 1) % 190 + noise).to(torch.uint8)
    return Batch(image, label)


@pytest.fixture
def network() -> Callable[..., Segmenter]:
    return make_network


@pytest.fixture
def batch() -> Callable[..., Batch]:
    return make_batch
