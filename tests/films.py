"""A tiny film for tests, made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def film(
    path: Path,
    *,
    frames: int = 4,
    size: tuple[int, int] = (48, 64),
    rotation: float | None = None,
    times: Sequence[int] | None = None,
) -> Path:
    """Height x width pixels without symmetry, 10 frames/s, or shown at `times` (in tenths of a second)."""
    rng = np.random.default_rng(3)
    blocks = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 4_000_000
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for i in range(frames):
            picture = np.roll(blocks, i, axis=1).repeat(8, 0).repeat(8, 1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = times[i] if times else i, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
