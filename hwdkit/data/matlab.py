"""One matrix out of a MATLAB 5.0 MAT-file, by name: what the labels of COCO-Stuff 10k and of SBD are kept in.

After MathWorks' description of the format. Cells, strings, sparse and complex numbers are stepped over, never
decoded. Files come from the internet: every size is checked before it is believed. That is why scipy does not
read them: a few flipped bits, or deeply nested cells, end its `loadmat` with a segmentation fault (1.17.1).
Free of torch.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwdkit.errors import DataError

HEADER = 128
"""Bytes before the first variable: a text, an unused offset, a version, the byte order."""

MAX_BYTES = 1 << 28
"""What one variable may unpack to; a label of 16 bits and 100 million pixels is still below."""

GLANCE = 4096
"""Bytes of a compressed variable that are unpacked to learn its name."""

STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""miINT8 and so on: how the format numbers the types that numbers are stored in."""

INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
STRUCT_CLASS = 2
NUMERIC_CLASSES = range(6, 16)  # mxDOUBLE_CLASS to mxUINT64_CLASS
COMPLEX = 0x08
NAME_LENGTH = 64  # MATLAB allows 63 characters


class _Element(NamedTuple):
    """One data element: what kind, its bytes, and where the next one starts."""

    kind: int
    data: memoryview
    end: int


class _Array(NamedTuple):
    """The head of a matrix or struct, and what follows it."""

    kind: int
    is_complex: bool
    shape: tuple[int, ...]
    name: str
    rest: memoryview


def is_matlab(data: bytes) -> bool:
    """Say whether this is a MAT-file of any version that says so itself."""
    return data.startswith((b"MATLAB ", b"\x89HDF\r\n\x1a\n"))


def read_matrix(data: bytes, names: Sequence[str], *, where: str) -> npt.NDArray[Any]:
    """Read a real, full, two-dimensional matrix.

    Args:
        data: the file's content.
        names: variables that may hold it, `S`, or a field of a 1x1 struct, `GTcls.Segmentation`. The first
            variable in the file that has one of these names counts.
        where: what to call the file in an error.

    Returns:
        (rows, columns) in the type that it is stored in, which may be narrower than the one it had in MATLAB.

    Raises:
        DataError: not a MAT-file of version 5, damaged, none of the names in it, or something else under it.
    """
    fields = {name.split(".")[0]: name.split(".")[1:] for name in names}
    try:
        order = _byte_order(data)
        for array in _variables(memoryview(data)[HEADER:], order, set(fields)):
            for field in fields[array.name]:
                array = _field(array, field, order)
            return _numbers(array, order)
    except _DamagedError as damage:
        raise DataError(f"cannot be read as a MATLAB file ({damage})", where=where) from damage
    listed = " or ".join(names)
    raise DataError(f"MATLAB file has no variable {listed}; labels were expected there", where=where)


class _DamagedError(Exception):
    """What is wrong with the bytes; becomes a DataError with the file's name."""


def _byte_order(data: bytes) -> str:
    if data.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise _DamagedError("it is HDF5, version 7.3; save it again in MATLAB with -v7")
    if len(data) < HEADER:
        raise _DamagedError(f"{len(data)} bytes are less than a header")
    mark = bytes(data[126:128])
    if mark not in (b"IM", b"MI"):
        raise _DamagedError("no byte order in its header; a MATLAB 5.0 MAT-file was expected")
    order = "<" if mark == b"IM" else ">"
    (version,) = struct.unpack_from(order + "H", data, 124)
    if version != 0x0100:
        raise _DamagedError(f"version {version:#06x}; 0x0100 was expected")
    return order


def _variables(data: memoryview, order: str, names: set[str]) -> Iterator[_Array]:
    """Yield the variables with these names, one unpacked at a time; the others are stepped over."""
    start = 0
    while start < len(data):
        element = _element(data, start, order)
        start = element.end
        if element.kind == COMPRESSED:
            glance, unpacker = _begin(element.data)
            # Its end may lie beyond the glance: enough is there for the name, which comes first.
            if _array(glance[8:], order).name in names:
                content = _unpacked(glance, unpacker, order)
                yield _array(_expect(content, 0, order, MATRIX).data, order)
        elif element.kind == MATRIX:
            array = _array(element.data, order)
            if array.name in names:
                yield array
        # Anything else at the top is legal and holds no variable.


def _begin(packed: memoryview) -> tuple[memoryview, Any]:
    unpacker = zlib.decompressobj()
    try:
        return memoryview(unpacker.decompress(packed, GLANCE)), unpacker
    except zlib.error as error:
        raise _DamagedError(str(error)) from error


def _unpacked(glance: memoryview, unpacker: Any, order: str) -> memoryview:
    """Unpack the rest, no further than the variable claims to reach, and check its checksum."""
    _, size, _ = _tag(glance, 0, order)
    if size > MAX_BYTES:
        raise _DamagedError(f"a variable of {size} bytes; at most {MAX_BYTES} are read")
    missing = 8 + size - len(glance)
    try:
        rest = unpacker.decompress(unpacker.unconsumed_tail, missing) if missing > 0 else b""
        padding = unpacker.decompress(unpacker.unconsumed_tail, 8)
    except zlib.error as error:
        raise _DamagedError(str(error)) from error
    if len(padding) >= 8 or not unpacker.eof:
        raise _DamagedError("a compressed variable is not as long as it says")
    return memoryview(bytes(glance) + rest)


def _tag(data: memoryview, start: int, order: str) -> tuple[int, int, int]:
    """Read an element's tag: kind, bytes of content, and where the content starts."""
    if start + 8 > len(data):
        raise _DamagedError("it ends within a tag")
    kind, size = struct.unpack_from(order + "II", data, start)
    if kind >> 16:  # a small element: size and kind share one word, the content is in the other
        return kind & 0xFFFF, kind >> 16, start + 4
    return kind, size, start + 8


def _element(data: memoryview, start: int, order: str) -> _Element:
    kind, size, content = _tag(data, start, order)
    is_small = content == start + 4
    if (is_small and size > 4) or content + size > len(data):
        raise _DamagedError(f"an element of {size} bytes is longer than what is left")
    end = start + 8 if is_small else content + size
    if kind != COMPRESSED:
        end += -end % 8 if not is_small else 0
    # The last element of some writers lacks its padding.
    return _Element(kind, data[content : content + size], min(end, len(data)))


def _expect(data: memoryview, start: int, order: str, kind: int) -> _Element:
    element = _element(data, start, order)
    if element.kind != kind:
        raise _DamagedError(f"an element of type {element.kind} where {kind} was expected")
    return element


def _array(data: memoryview, order: str) -> _Array:
    """Read flags, shape and name of an array."""
    flags = _expect(data, 0, order, UINT32)
    if flags.data and flags.data[0 if order == "<" else 3] > max(NUMERIC_CLASSES):
        # Objects and function handles, laid out differently: nameless here, and so never read.
        return _Array(0, False, (), "", data[flags.end :])
    shape = _expect(data, flags.end, order, INT32)
    name = _expect(data, shape.end, order, INT8)
    if len(flags.data) != 8 or len(shape.data) % 4 or not 8 <= len(shape.data) <= 128:
        raise _DamagedError("an array without flags or shape")
    if len(name.data) > NAME_LENGTH:
        raise _DamagedError(f"a name of {len(name.data)} characters")
    (word,) = struct.unpack_from(order + "I", flags.data)
    sides = struct.unpack(f"{order}{len(shape.data) // 4}i", shape.data)
    if min(sides) < 0:
        raise _DamagedError(f"a shape of {sides}")
    text = bytes(name.data).decode("latin-1")
    return _Array(word & 0xFF, bool(word >> 8 & COMPLEX), sides, text, data[name.end :])


def _field(array: _Array, field: str, order: str) -> _Array:
    """Find a field of a 1x1 struct; the fields before it are stepped over."""
    if array.kind != STRUCT_CLASS or math.prod(array.shape) != 1:
        raise _DamagedError(f"{array.name} is not a 1x1 struct")
    width = _expect(array.rest, 0, order, INT32)
    names = _expect(array.rest, width.end, order, INT8)
    if len(width.data) != 4:
        raise _DamagedError(f"the fields of {array.name} have no length")
    (length,) = struct.unpack_from(order + "i", width.data)
    if not 1 <= length <= NAME_LENGTH or len(names.data) % length:
        raise _DamagedError(f"the fields of {array.name} have names of {length} bytes")
    start = names.end
    for first in range(0, len(names.data), length):
        element = _expect(array.rest, start, order, MATRIX)
        start = element.end
        name = bytes(names.data[first : first + length]).split(b"\0")[0].decode("latin-1")
        if name == field:
            # A field's array is nameless in the file; errors want the whole path.
            return _array(element.data, order)._replace(name=f"{array.name}.{field}")
    raise _DamagedError(f"{array.name} has no field {field}")


def _numbers(array: _Array, order: str) -> npt.NDArray[Any]:
    if array.kind not in NUMERIC_CLASSES or array.is_complex:
        raise _DamagedError(f"{array.name} is not a matrix of real numbers")
    if len(array.shape) != 2 or 0 in array.shape:
        raise _DamagedError(f"{array.name} has shape {array.shape}; rows and columns were expected")
    values = _element(array.rest, 0, order)
    if values.kind not in STORED:
        raise _DamagedError(f"{array.name} is stored as type {values.kind}")
    stored = np.dtype(order + STORED[values.kind])
    if len(values.data) != math.prod(array.shape) * stored.itemsize:
        raise _DamagedError(f"{array.name} holds {len(values.data)} bytes, too few or many for {array.shape}")
    # MATLAB writes columns first.
    matrix = np.frombuffer(values.data, stored).reshape(array.shape, order="F")
    return np.ascontiguousarray(matrix, dtype=stored.newbyteorder("="))
