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
        CheckpointError: it cannot be read, is empty, cut short or no archive, or a part has changed.
    """
    what = _damage(path)
    if what:
        raise damaged_state(path, what)


def damaged_state(path: Path, what: str) -> CheckpointError:
    """The error for a training state that cannot be continued; says what a new run can start from."""
    best = path.with_name("best.safetensors")
    return CheckpointError(
        f"is damaged: {what}",
        where=str(path),
        hint=f"begin a new run with the best weights of this one: --init-from {best}"
        if best.is_file()
        else f"there is no {best} to begin a new run with (--init-from): start anew with another --out",
    )


def _damage(path: Path) -> str:
    """What is wrong with a training state; nothing if all is well."""
    try:
        head = first_bytes.read(path)
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not head:
        return "the file is empty"
    try:
        if not zipfile.is_zipfile(path):
            bare = first_bytes.are_a_pickle(head) and not head.startswith(b"PK")
            return "" if bare else "it is cut short, or no training state"
        with zipfile.ZipFile(path) as archive:
            if any(part.external_attr & FOLDER for part in archive.infolist()):
                return "its list of parts is not the one that was saved"
            changed = archive.testzip()
    except MemoryError:
        raise
    except Exception:  # a damaged archive fails in many ways: BadZipFile, zlib.error, RuntimeError
        return "its parts cannot be found"
    return "" if changed is None else "its bytes are not those that were saved"
