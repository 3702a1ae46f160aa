"""The reader of MATLAB files: what it reads, what it steps over, and that nothing hostile gets through."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_trees import (
    coco_stuff_mat,
    ids,
    mat_cell,
    mat_element,
    mat_file,
    mat_matrix,
    mat_struct,
    sbd_mat,
)

from hwdkit.data import matlab
from hwdkit.data.decode import decode_label
from hwdkit.data.matlab import read_matrix
from hwdkit.errors import DataError

LABEL = np.arange(12, dtype=np.uint8).reshape(3, 4)


def read(data: bytes, *names: str) -> np.ndarray:
    return read_matrix(data, names or ("S",), where="labels/a.mat")


def refusal(data: bytes, *names: str) -> str:
    with pytest.raises(DataError) as caught:
        read(data, *names)
    assert caught.value.exit_code == 4
    assert str(caught.value).startswith("labels/a.mat: ")
    return str(caught.value)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_a_matrix_comes_back_row_by_row(kind: str, compress: bool, order: str) -> None:
    data = mat_file(mat_matrix("S", LABEL.astype(kind), order), order=order, compress=compress)
    found = read(data)
    assert np.array_equal(found, LABEL)
    assert found.dtype == np.dtype(kind)
    assert found.dtype.isnative
    assert found.flags.c_contiguous


def test_a_matrix_may_be_stored_in_a_narrower_type_than_it_has() -> None:
    assert np.array_equal(read(mat_file(mat_matrix("S", LABEL.astype("f8"), stored="u1"))), LABEL)


def test_a_matrix_of_few_bytes_is_a_small_element() -> None:
    assert read(mat_file(mat_matrix("S", np.array([[7, 9]], dtype=np.uint8)))).tolist() == [[7, 9]]


def test_the_label_is_found_among_other_variables_and_fields() -> None:
    assert np.array_equal(read(coco_stuff_mat(LABEL)), LABEL)
    assert np.array_equal(read(sbd_mat(LABEL), "S", "GTcls.Segmentation"), LABEL)


def test_variables_that_are_not_wanted_may_be_anything() -> None:
    function = mat_element(14, mat_element(6, struct.pack("<II", 17, 0)) + b"whatever it is..")
    assert np.array_equal(read(mat_file(function, mat_cell("x", 2), mat_matrix("S", LABEL))), LABEL)
    # The name that is not there is told after all were looked at.
    assert "no variable S or T.x" in refusal(mat_file(function, mat_cell("x", 2)), "S", "T.x")


def test_a_name_behind_many_dimensions_is_still_seen() -> None:
    many = mat_matrix("X", np.zeros((1,) * 32, dtype=np.uint8))
    assert np.array_equal(read(mat_file(many, mat_matrix("S", LABEL))), LABEL)


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        (mat_cell("S", 2), "S is not a matrix of real numbers"),
        (mat_matrix("S", LABEL, flags=0x08), "S is not a matrix of real numbers"),
        (mat_matrix("S", LABEL[None]), r"S has shape (1, 3, 4)"),
        (mat_matrix("S", LABEL[:0]), r"S has shape (0, 4)"),
        (mat_struct("S", {"a": LABEL}), "S is not a matrix"),
    ],
)
def test_something_else_of_that_name_is_refused(variable: bytes, words: str) -> None:
    assert words in refusal(mat_file(variable))


def test_a_struct_without_the_field_or_with_many_elements_is_refused() -> None:
    assert "GTcls has no field Segmentation" in refusal(
        mat_file(mat_struct("GTcls", {"Boundaries": LABEL})), "GTcls.Segmentation"
    )
    two = mat_struct("GTcls", {"Segmentation": LABEL}, shape=(1, 2))
    assert "GTcls is not a 1x1 struct" in refusal(mat_file(two), "GTcls.Segmentation")
    assert "GTcls is not a 1x1 struct" in refusal(mat_file(mat_matrix("GTcls", LABEL)), "GTcls.a")
    empty = mat_struct("GTcls", {"Segmentation": mat_element(14, b"")})
    assert "cannot be read as a MATLAB file" in refusal(mat_file(empty), "GTcls.Segmentation")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes are less than a header"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "HDF5, version 7.3; save it again in MATLAB with -v7"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512), "HDF5, version 7.3"),
        (b"x" * 200, "a MATLAB 5.0 MAT-file was expected"),
        (mat_file()[:124] + b"\0\2IM", "version 0x0200; 0x0100 was expected"),
        (mat_file(), "no variable S"),
    ],
)
def test_what_is_no_mat_file_of_version_5_is_named_as_what_it_is(data: bytes, words: str) -> None:
    assert words in refusal(data)


def test_a_file_that_claims_too_much_is_refused_without_unpacking_it(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = mat_matrix("S", np.zeros((1000, 1000), dtype=np.uint8))
    assert read(mat_file(variable)).size == 1_000_000
    monkeypatch.setattr(matlab, "MAX_BYTES", 999_999)
    assert "at most 999999 are read" in refusal(mat_file(variable))


def test_more_or_less_compressed_data_than_claimed_is_refused() -> None:
    variable = mat_matrix("S", np.zeros((100, 100), dtype=np.uint8))
    long = variable + bytes(1 << 20)
    for packed in (
        *(zlib.compress(wrong) for wrong in (long, variable[:-500], variable[:20])),
        zlib.compress(variable)[:-2],  # all the numbers, and half a checksum
    ):
        data = mat_file() + struct.pack("<II", 15, len(packed)) + packed
        assert "cannot be read as a MATLAB file" in refusal(data)


def test_an_element_that_reaches_beyond_the_file_is_named() -> None:
    for data in (mat_file(mat_matrix("S", LABEL))[:-8], mat_file(mat_cell("x", 2), compress=False)[:-8]):
        assert "longer than what is left" in refusal(data)


def test_a_negative_or_overflowing_shape_is_refused() -> None:
    good = mat_file(mat_matrix("S", LABEL), compress=False)
    shape = struct.pack("<ii", *LABEL.shape)
    for sides in ((-3, -4), (2**31 - 1, 2**31 - 1), (4, 4), (0, 4)):
        assert good.count(shape) == 1
        assert "cannot be read" in refusal(good.replace(shape, struct.pack("<ii", *sides)))


SAMPLES = {
    "compressed": coco_stuff_mat(ids(0, 1, 182)),
    "plain": mat_file(mat_cell("a", 2), mat_matrix("S", ids(0, 1, 182)), compress=False),
    "struct": mat_file(
        mat_struct("GTcls", {"Boundaries": mat_cell("", 2), "Segmentation": ids(0, 5)}), compress=False
    ),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_truncation_is_a_data_error_or_reads_the_same(name: str) -> None:
    data = SAMPLES[name]
    whole = decode_label(data, where="a.mat")
    for length in range(len(data)):
        try:
            found = decode_label(data[:length], where="a.mat")
        except DataError:
            continue
        assert np.array_equal(found, whole)  # cut in what follows the label


@pytest.mark.parametrize("name", SAMPLES)
@settings(deadline=None, derandomize=True, max_examples=150)
@given(flips=st.lists(st.tuples(st.integers(0, 2**16), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bits_are_a_data_error_or_a_label(name: str, flips: list[tuple[int, int]]) -> None:
    data = bytearray(SAMPLES[name])
    for place, mask in flips:
        data[place % len(data)] ^= mask
    try:
        found = decode_label(bytes(data), where="a.mat")
    except DataError:
        return
    assert found.ndim == 2
    assert found.dtype in (np.uint8, np.int32)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(junk=st.binary(max_size=300), compress=st.booleans())
def test_junk_behind_a_good_header_is_a_data_error(junk: bytes, compress: bool) -> None:
    data = mat_file(junk) if compress else mat_file() + junk
    with pytest.raises(DataError):
        decode_label(data, where="a.mat")


def test_a_damaged_checksum_is_noticed() -> None:
    data = bytearray(mat_file(mat_matrix("S", ids(0, 1, 2))))
    data[-1] ^= 1
    assert "cannot be read as a MATLAB file" in refusal(bytes(data))


@pytest.mark.parametrize(
    ("values", "dtype"), [([[0, 182]], np.uint8), ([[0.0, 182.0]], np.uint8), ([[300, -1]], np.int32)]
)
def test_labels_are_ids_of_8_bits_where_they_fit(values: list[list[float]], dtype: type) -> None:
    found = decode_label(mat_file(mat_matrix("S", np.array(values))), where="a.mat")
    assert found.dtype == dtype
    assert found.tolist() == values


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf"), -1e300, 2.0**40])
def test_numbers_that_are_no_ids_are_refused(value: float) -> None:
    with pytest.raises(DataError, match="not class ids"):
        decode_label(mat_file(mat_matrix("S", np.array([[1.0, value]]))), where="a.mat")


def test_a_name_that_ends_in_mat_is_read_as_such() -> None:
    with pytest.raises(DataError, match=r"a.mat: cannot be read as a MATLAB file"):
        decode_label(b"<html>404</html>", where="a.mat")
    with pytest.raises(DataError, match="HDF5"):
        decode_label(b"MATLAB 7.3 MAT-file".ljust(600), where="a")
