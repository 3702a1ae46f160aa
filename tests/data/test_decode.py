"""Files become pixels, and label ids classes: an id that is none is found whatever the types are."""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from hwdkit.data.decode import LabelLookup, decode_label
from hwdkit.errors import DataError
from hwdkit.types import IGNORE


def ids(*values: int, dtype: npt.DTypeLike = np.uint8) -> npt.NDArray[np.uint8]:
    return np.array(values, dtype).reshape(1, -1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_every_known_id_is_mapped(dtype: npt.DTypeLike) -> None:
    lookup = LabelLookup({7: 0, 8: 1, 0: IGNORE, -1: IGNORE, 255: 2}, classes=3)
    mapped = lookup(ids(7, 8, 0, 255, 7, dtype=dtype), where="x.png")
    assert mapped.dtype == np.uint8
    assert mapped.tolist() == [[0, 1, IGNORE, 2, 0]]


@pytest.mark.parametrize(
    ("stray", "dtype"), [(1, np.uint8), (254, np.uint8), (1, np.int32), (300, np.int32), (-1, np.int32)]
)
def test_an_unknown_id_is_named_with_its_pixels(stray: int, dtype: npt.DTypeLike) -> None:
    lookup = LabelLookup({7: 0, 8: 1, 0: IGNORE}, classes=2)
    with pytest.raises(DataError, match=rf"unknown label id {stray} on 2 pixels"):
        lookup(ids(7, stray, 8, stray, dtype=dtype), where="x.png")


def test_where_every_byte_is_a_class_no_byte_is_left_to_mark_the_unknown() -> None:
    everything = {raw: raw for raw in range(256)}
    everyone = ids(*range(256))
    assert np.array_equal(LabelLookup(everything, classes=255)(everyone, where="x.png"), everyone)
    two_names = everything | {
        5: 6,
        300: 5,
    }  # all classes are taken, and the last one by an id that is no byte
    with pytest.raises(DataError, match="unknown label id 7 on 1 pixel"):
        LabelLookup({raw: c for raw, c in two_names.items() if raw != 7} | {301: 7}, classes=255)(
            everyone, where="x.png"
        )


def test_a_large_image_is_no_reason_to_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(file, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # 1200 are more, and less than twice as many
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_label(file.getvalue(), where="x.png").shape == (30, 40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(DataError, match="exceeds limit"):
        decode_label(file.getvalue(), where="x.png")
