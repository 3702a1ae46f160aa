"""hwdkit predict on a film: each frame as an image, and a film of what the network sees; nothing is kept."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from fractions import Fraction
from typing import Any

import numpy as np

from hwdkit.checkpoints.files import replacing
from hwdkit.commands.predict.images import MediaFile
from hwdkit.commands.predict.prediction import Prediction
from hwdkit.commands.predict.progress import progress
from hwdkit.commands.predict.video import Film, Recorder, opened, recording
from hwdkit.errors import DataError
from hwdkit.report.render import printable

log = logging.getLogger("hwdkit")


def predict_film(prediction: Prediction, file: MediaFile, name: str) -> None:
    """Segment a film frame by frame and write the films that are asked for, each complete or not at all.

    Raises:
        DataError: it cannot be read to its end, has no frame, or its pictures cannot be encoded.
        EnvironmentFailure: PyAV is missing.
    """
    options = prediction.options
    files = {view: f"{view}/{name}" for view in ("overlays", *["side-by-side"] * options.side_by_side)}
    with opened(file.path) as film, ExitStack() as stack:
        recorders = {
            view: stack.enter_context(recording(stack.enter_context(replacing(options.out / path)), film))
            for view, path in files.items()
        }
        row = _each_frame(film, name, recorders, prediction)
    prediction.films.append({"film": str(file.path), **files, **row})


def _each_frame(
    film: Film, name: str, recorders: dict[str, Recorder], prediction: Prediction
) -> dict[str, Any]:
    counts = np.zeros_like(prediction.pixels)
    began = time.monotonic()
    done, size, last = 0, (0, 0), Fraction(0)
    with progress(film.path.name, film.frames, "frames") as advance:
        for pixels, seconds in film.read():
            mask = prediction.mask(pixels)
            for view, recorder in recorders.items():
                recorder.write(prediction.view(view, pixels, mask), seconds)
            done, size, last = done + 1, (pixels.shape[0], pixels.shape[1]), seconds
            if prediction.options.frame_masks:
                prediction.write(f"{name}/{done:06}.png", prediction.class_maps(mask))
            counts += prediction.count(mask)
            advance(done)
    if not done:
        raise DataError("has no frame that can be decoded", where=str(film.path))
    speed = done / max(time.monotonic() - began, 1e-9)
    log.info("%s: %d frames, %.2f frames/s", printable(film.path.name), done, speed)
    return {
        "frames": done,
        "height": size[0],
        "width": size[1],
        "rate": float(film.rate),
        "seconds": float(last + 1 / film.rate),
        "encoder": next(iter(recorders.values())).encoder,
        "frames_per_s": round(speed, 2),
        "shares": prediction.shares(counts),
    }
