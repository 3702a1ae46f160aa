"""What a user's own data may look like in Python, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from hwdkit.data.iterables import Reader
from hwdkit.errors import DataError

IMAGE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
LABEL = np.arange(20).reshape(4, 5) % 3
READER = Reader(classes=3, normalises=True)


@pytest.mark.parametrize(
    "image",
    [IMAGE, Image.fromarray(IMAGE), torch.from_numpy(IMAGE).permute(2, 0, 1)],
    ids=["numpy", "PIL", "torch"],
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.int64])
def test_images_and_labels_come_as_arrays_pictures_or_tensors(image: object, kind: type) -> None:
    batch = READER.batch((image, LABEL.astype(kind)), name="item 0")
    assert torch.equal(batch.image, torch.from_numpy(IMAGE).permute(2, 0, 1)[None])
    assert torch.equal(batch.label, torch.from_numpy(LABEL.astype(np.uint8))[None])


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (IMAGE[..., 0], LABEL, r"item 0: the image has shape \(4, 5\)"),
        (np.moveaxis(IMAGE, -1, 0), LABEL, r"arrays of numpy are \(H, W, 3\)"),
        (IMAGE, LABEL + 0.5, "item 0: the label is torch.float64; it must hold integers"),
        (IMAGE, LABEL > 0, "item 0: the label is torch.bool"),
        (IMAGE, np.full_like(LABEL, 65535, dtype=np.uint16), "the label holds 65535"),
    ],
)
def test_data_of_another_kind_is_refused_by_name(image: object, label: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        READER.batch((image, label), name="item 0")
