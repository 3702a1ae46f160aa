"""What a file is, from its first bytes: a checkpoint, or what people save under a checkpoint's name."""

from __future__ import annotations

from pathlib import Path

from hwdkit.errors import CheckpointError


def read(path: Path) -> bytes:
    """As many as tell."""
    with path.open("rb") as file:
        return file.read(512)


def are_a_pickle(head: bytes) -> bool:
    """PyTorch's zip archive, or a bare pickle of protocol 2 or later."""
    return head.startswith((b"PK", b"\x80"))


def are_safetensors(head: bytes) -> bool:
    """A little-endian header length of 8 bytes, then JSON."""
    return len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100 * 2**20


def of_checkpoint(path: Path) -> bytes:
    """The first bytes of what may be a checkpoint.

    Raises:
        CheckpointError: an empty file, a web page or a git-lfs pointer.
    """
    head = read(path)
    text = head.lstrip().lower()
    if not head:
        raise CheckpointError("the file is empty", where=str(path), hint="download it again")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(
            "this is a web page, not a checkpoint",
            where=str(path),
            hint="the download link led to a page; fetch the file itself",
        )
    if text.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            "this is a git-lfs pointer, not the checkpoint", where=str(path), hint="run: git lfs pull"
        )
    return head
