"""Reading and writing model files: safetensors with a description inside, atomic, and nothing executed.

Training states (optimizer, step) are plain tensors and numbers that load with `weights_only=True`.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as decode_safetensors
from safetensors.torch import save as encode_safetensors
from torch import Tensor

from hwdkit.checkpoints import damage, first_bytes, foreign_json
from hwdkit.errors import CheckpointError, EnvironmentFailure, UsageError

METADATA_KEY = "hwdkit"
DIGEST_KEY = "tensors_sha256"
"""Checksum of the tensors, within the description: of two keys in a header the order is left to chance."""


class UnsafePickle(CheckpointError):
    """A pickle that would run code, or holds objects besides tensors and plain values."""


class Published(NamedTuple):
    """A file from outside: its state dict, and what it holds besides; {} where that is all."""

    weights: dict[str, Tensor]
    beside: dict[str, Any]


@contextmanager
def replacing(path: Path, *, new: bool = False) -> Iterator[Path]:
    """Give an empty temporary file beside `path`; on success it takes its place, on failure nothing changes.

    Args:
        path: where to; missing folders are made.
        new: never overwrite: whatever got this name in the meantime stays.

    Raises:
        EnvironmentFailure: the disk is full or the folder cannot be written, which is found out at once.
        UsageError: with `new`, the name is taken.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    missing = [folder for folder in path.parents if not os.path.lexists(folder)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if not new:
            temporary.replace(path)
            return
        try:
            os.link(temporary, path)  # fails where a rename would overwrite
        except OSError:  # the name is taken, or the file system has no links
            if os.path.lexists(path):
                raise UsageError(f"{path} exists by now; nothing is overwritten, name a new file") from None
            temporary.replace(path)
    except OSError as error:
        raise write_failure(path, error) from error
    finally:
        with suppress(OSError):  # nothing to remove, or no folder that could hold it
            temporary.unlink()
        with suppress(OSError):  # not empty: all went well
            for folder in missing:
                folder.rmdir()


def write_file(path: Path, content: bytes) -> Path:
    """Write a whole file, as `replacing` does, and hand its path back.

    Raises:
        EnvironmentFailure: it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def write_failure(path: Path, error: OSError) -> EnvironmentFailure:
    """What to tell the user when writing `path` failed; the old file is still there."""
    hint = "check the folder and its permissions"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = "free some space and try again, a training run with --resume; complete files are untouched"
    return EnvironmentFailure(f"cannot write: {error.strerror or error}", where=str(path), hint=hint)


def save_model(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write weights and their description as one safetensors file, atomically.

    Args:
        path: target; an existing file is replaced only when the new one is complete.
        state: name -> tensor; moved to the CPU, non-contiguous and shared ones are copied.
        metadata: JSON-able description, kept under one key of the file's header, with a checksum of the
            tensors that every reading checks.

    Raises:
        EnvironmentFailure: the disk is full or not writable.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    described = {**metadata, DIGEST_KEY: damage.tensors_digest(tensors)}
    data = encode_safetensors(tensors, {METADATA_KEY: json.dumps(described, sort_keys=True)})
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def load_model(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file written by `save_model`: its tensors (on the CPU) and its description.

    Raises:
        CheckpointError: missing, damaged, or a safetensors file without hwdkit's description.
    """
    state = read_state_dict(path)
    metadata = read_metadata(path)
    if not metadata:
        raise CheckpointError(
            "holds weights but no description of the network",
            where=str(path),
            hint="use a student.safetensors or teacher.safetensors written by hwdkit",
        )
    return state, metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """The description in a safetensors file's header, without reading the weights; {} if it has none.

    It is what `save_model` was given: the checksum of the tensors is left out.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY, "{}")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"not a readable safetensors file: {error}", where=str(path)) from error
    metadata = _understood(text, path)
    metadata.pop(DIGEST_KEY, None)
    return metadata


def _understood(text: str, path: Path) -> dict[str, Any]:
    try:
        metadata = foreign_json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"its description cannot be understood: {error}", where=str(path)) from error
    if not isinstance(metadata, dict):
        raise CheckpointError("its description is not a JSON object", where=str(path))
    return metadata


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a flat name -> tensor mapping; raises as `read_published`."""
    return read_published(path).weights


def read_published(path: Path) -> Published:
    """Read a state dict from .safetensors or a PyTorch file, and what is beside it; never executes a pickle.

    Raises:
        CheckpointError: missing, truncated, other tensors than `save_model` has written, a web page or
            git-lfs pointer saved under this name, a pickle that holds more than tensors, or no state dict.
    """
    if not path.is_file():
        raise CheckpointError(
            "no such checkpoint",
            where=str(path),
            hint="name a .safetensors file, or the run directory that holds it",
        )
    head = first_bytes.of_checkpoint(path)
    if path.suffix == ".safetensors" or first_bytes.are_safetensors(head):
        return Published(_safetensors(path), {})
    state = _unpickled(path)
    beside: dict[str, Any] = {}
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            beside |= {name: value for name, value in state.items() if name != key}
            state = state[key]
    if not isinstance(state, dict) or not all(map(_is_plain, state, state.values())):
        raise CheckpointError("holds no state dict (a flat mapping of names to tensors)", where=str(path))
    return Published(state, beside)


def _safetensors(path: Path) -> dict[str, Tensor]:
    data = path.read_bytes()
    try:
        tensors = dict(decode_safetensors(data))
    except SafetensorError as error:
        raise CheckpointError(f"damaged or truncated safetensors file: {error}", where=str(path)) from error
    # Of the bytes just read: the file may be replaced meanwhile, as best.safetensors is during training.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    description = _understood((header.get("__metadata__") or {}).get(METADATA_KEY, "{}"), path)
    if DIGEST_KEY in description and description[DIGEST_KEY] != damage.tensors_digest(tensors):
        raise CheckpointError(
            "is damaged: its tensors are not those that were saved",
            where=str(path),
            hint="copy it again from where it came, or use another checkpoint",
        )
    return tensors


def _is_plain(name: object, value: object) -> bool:
    """Whether an entry is a name and a dense tensor whose numbers are all in the file.

    A pickle can also hold sparse, quantised and complex ones, and one number stretched to any shape.
    """
    if not isinstance(name, str) or not isinstance(value, Tensor):
        return False
    dense = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    if not dense or value.is_complex():
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def load_tensors(path: Path) -> Any:
    """Read a training state written by `save_tensors`.

    Raises:
        UnsafePickle: as `_unpickled`.
        CheckpointError: the file is damaged; says what a new run can start from.
    """
    damage.require_sound_archive(path)
    try:
        return _unpickled(path)
    except UnsafePickle:
        raise
    except CheckpointError as error:  # what torch reads of an archive and Python's zipfile does not
        raise damage.damaged_state(path) from error


def _unpickled(path: Path) -> Any:
    """torch.load restricted to tensors and plain containers.

    Raises:
        UnsafePickle: the pickle asks for code to be run, or holds more than tensors and plain values.
        CheckpointError: the file is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warnings about old pickles
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # damaged files fail in a dozen ways: IndexError, struct.error, AssertionError
        refused = isinstance(error, UnpicklingError)
        if refused and first_bytes.are_a_pickle(first_bytes.read(path)):
            raise UnsafePickle(
                "refused: this pickle would run code or holds more than tensors",
                where=str(path),
                hint="ask its author for a plain state dict or a safetensors file",
            ) from error
        what = type(error).__name__ if refused else f"{type(error).__name__} {error}".partition("\n")[0]
        raise CheckpointError(f"damaged, cut short, or not a checkpoint ({what})", where=str(path)) from error


def save_tensors(path: Path, value: Any) -> None:
    """torch.save, atomically; `value` must consist of tensors, numbers, strings and plain containers."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def file_digest(path: Path) -> str:
    """sha256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
