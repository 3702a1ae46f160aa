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
from hwdkit.commands.predict.prediction import Prediction, beside
from hwdkit.commands.predict.progress import progress
from hwdkit.commands.predict.video import Film, Recorder, opened, recording
from hwdkit.errors import DataError
from hwdkit.measure.overlay import Pixels, overlay
from hwdkit.report.render import printable

log = logging.getLogger("hwdkit")


def predict_film(file: MediaFile, name: str, prediction: Prediction) -> None:
    """Segment a film frame by frame and write the films that are asked for, each complete or not at all.

    Args:
        file: the film.
        name: of the films below overlays/ and side-by-side/, and of the folder of class maps below masks/.
        prediction: the network at work.

    Raises:
        DataError: it cannot be read to its end, has no frame, or its pictures cannot be encoded.
        EnvironmentFailure: PyAV is missing.
    """
    options = prediction.options
    folders = ["overlays", *(["side-by-side"] if options.side_by_side else [])]
    with opened(file.path) as film, ExitStack() as stack:
        recorders = {
            folder: stack.enter_context(
                recording(stack.enter_context(replacing(options.out / folder / name)), film)
            )
            for folder in folders
        }
        row = _each_frame(film, name, recorders, prediction)
    written = {folder: f"{folder}/{name}" for folder in folders}
    prediction.tally.films.append({"film": str(file.path), **written, **row})


def _each_frame(
    film: Film, name: str, recorders: dict[str, Recorder], prediction: Prediction
) -> dict[str, Any]:
    counts = np.zeros(len(prediction.loaded.classes), dtype=np.int64)
    began = time.monotonic()
    done, size, last = 0, (0, 0), Fraction(0)
    with progress(film.path.name, film.frames, "frames") as advance:
        for pixels, seconds in film.read():
            mask = prediction.mask(pixels)
            for folder, recorder in recorders.items():
                recorder.write(_picture(folder, pixels, mask, prediction), seconds)
            done, size, last = done + 1, (pixels.shape[0], pixels.shape[1]), seconds
            if prediction.options.frame_masks:
                prediction.write(f"{name}/{done:06}.png", list(prediction.class_maps(mask)))
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


def _picture(folder: str, pixels: Pixels, mask: Pixels, prediction: Prediction) -> Pixels:
    if folder == "side-by-side":
        return beside(pixels, mask, prediction.loaded)
    return overlay(pixels, mask, prediction.loaded.palette)
