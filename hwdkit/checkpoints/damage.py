"""Whether a file still holds what was written: checksums of a model's tensors and of a training state.

How such files are written and read is in files.py.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hwdkit.checkpoints import first_bytes
from hwdkit.errors import CheckpointError

FOLDER = 0x10
"""The bit of a zip's part by which torch takes it for a folder, without content; no checksum covers it."""


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes of tensors, as hex; their order does not matter."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        # NumPy has no bfloat16, and a scalar no view of its bytes: hence flat, as bytes; nothing is copied.
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def require_sound_archive(path: Path) -> None:
    """Compare a training state, which is a zip archive, with the CRC-32 of each of its parts.

    torch does not: it would take flipped bytes for weights. Old bare pickles have no checksums and pass.

    Raises:
        CheckpointError: it cannot be read, is cut short or no archive, or a part has changed.
    """
    try:
        first = first_bytes.read(path)[:1]
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if first == b"\x80" and not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            folders = any(part.external_attr & FOLDER for part in archive.infolist())
            sound = not folders and archive.testzip() is None
    except MemoryError:
        raise
    except Exception:  # a damaged archive fails in many ways: BadZipFile, OSError, zlib.error, RuntimeError
        sound = False
    if not sound:
        raise damaged_state(path)


def damaged_state(path: Path) -> CheckpointError:
    """The error for a training state that cannot be continued; says what a new run can start from."""
    best = path.with_name("best.safetensors")
    return CheckpointError(
        "is damaged: it is not the training state that was saved",
        where=str(path),
        hint=f"begin a new run with the best weights of this one: --init-from {best}"
        if best.is_file()
        else f"start again with another --out; there is no {best} for --init-from",
    )
