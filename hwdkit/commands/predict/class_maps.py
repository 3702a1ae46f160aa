"""A network's class maps of a user's own images and films, without labels or a dataset.

One image is in memory at a time. What becomes of one is `prediction.py`, of a film `film.py`.
"""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.text import Text

from hwdkit.checkpoints.files import file_digest
from hwdkit.commands.predict import Predict, video
from hwdkit.commands.predict.film import predict_film
from hwdkit.commands.predict.images import MediaFile, find_images, output_names
from hwdkit.commands.predict.prediction import Prediction
from hwdkit.commands.predict.progress import progress
from hwdkit.engine.networks import load_network
from hwdkit.engine.opened import one_device
from hwdkit.errors import CheckpointError, DataError, OutOfMemory, UsageError
from hwdkit.report.render import percent, printable
from hwdkit.report.table import Column, Table
from hwdkit.terminal import paths
from hwdkit.terminal.memory import explained_memory

MEMORY_HINT = "predict in windows (--slide 512x512), or on the CPU (--gpus 0)"


def run(options: Predict, *, cpu: bool, rows: bool = False) -> tuple[dict[str, Any], DataError | None]:
    """Segment images and films and write what is asked for into a folder.

    Returns:
        JSON-able: the paths, shares of the classes, files that could not be read, and with `rows` one row an
        image; and the DataError (exit 4) to raise when a file could not be read.

    Raises:
        UsageError, DataError, CheckpointError, EnvironmentFailure: before anything is written.
        OutOfMemory: naming the image; those before it are written.
    """
    paths.require_empty("--out", options.out)
    files = find_images(options.images)
    names = output_names(files)
    _require_effect(files, options)
    if any(file.is_film for file in files):
        video.require_av()
    loaded = load_network(options.checkpoint)
    if len(loaded.classes) > 256:
        raise CheckpointError(
            f"has {len(loaded.classes)} classes; a palette PNG holds 256", where=str(loaded.path)
        )
    with explained_memory(MEMORY_HINT):
        loaded.model.to(one_device(cpu=cpu)).eval()
    prediction = Prediction(loaded, options, rows=rows)
    named = list(zip(files, names, strict=True))
    images = [(file, name) for file, name in named if not file.is_film]
    with progress("predict", len(images), "images") as advance:
        for done, (file, name) in enumerate(images):
            advance(done)
            _predict(prediction, file, name)
    for file, name in named:
        if file.is_film:  # each has a bar of its own
            _predict(prediction, file, name)
    return _result(prediction, len(files)), _failure(prediction, files)


def _predict(prediction: Prediction, file: MediaFile, name: str) -> None:
    """Segment one file; one that cannot be read is noted, and stops no other."""
    try:
        with explained_memory(MEMORY_HINT):
            if file.is_film:
                predict_film(prediction, file, name)
            else:
                prediction.image(file, name)
    except OutOfMemory as error:
        error.where = str(file.path)
        raise
    except DataError as error:
        prediction.unreadable.append({"image": str(file.path), "reason": error.message})


def _require_effect(files: list[MediaFile], options: Predict) -> None:
    """Refuse an option that would do nothing: films are all or none of the sources."""
    films = [file.is_film for file in files]
    if options.frame_masks and not any(films):
        raise UsageError("--frame-masks is for films; no film is named")
    if options.ids and all(films) and not options.frame_masks:
        raise UsageError("--ids: films have ids for each frame: add --frame-masks")


def _result(prediction: Prediction, files: int) -> dict[str, Any]:
    loaded, options, protocol = prediction.loaded, prediction.options, prediction.protocol
    slide = {"window": list(protocol.window), "stride": list(protocol.stride)} if options.window else {}
    total = max(1, int(prediction.pixels.sum()))
    return {
        "checkpoint": str(loaded.path),
        "checkpoint_sha256": file_digest(loaded.path),
        "out": str(options.out),
        "protocol": {"mode": protocol.mode, **slide, "scales": list(protocol.scales), "flip": protocol.flip},
        "found": files,
        "images": prediction.written,
        "classes": [
            {
                "index": c,
                "name": name,
                "colour": list(loaded.palette[c]),
                "share": int(prediction.pixels[c]) / total,
            }
            for c, name in enumerate(loaded.classes)
        ],
        "per_image": prediction.images,
        "films": prediction.films,
        "unreadable": prediction.unreadable,
    }


def _failure(prediction: Prediction, files: list[MediaFile]) -> DataError | None:
    unreadable = prediction.unreadable
    if not unreadable:
        return None
    written = prediction.written + len(prediction.films)
    rest = (
        f"the other {written} {'is' if written == 1 else 'are'} written" if written else "nothing is written"
    )
    kind = "files" if any(file.is_film for file in files) else "images"
    listed = "\n".join(f"  {row['image']}: {row['reason']}" for row in unreadable)
    return DataError(f"{len(unreadable)} of {len(files)} {kind} could not be read, {rest}:\n{listed}")


def render(result: dict[str, Any]) -> Group:
    """The classes that occur, and where the masks are, for the terminal."""
    table = Table(
        [Column("index"), Column("class", left=True), "share %"],
        (
            (str(row["index"]), row["name"], percent(row["share"]))
            for row in sorted(result["classes"], key=lambda row: -row["share"])
            if row["share"]
        ),
    )
    protocol = result["protocol"]
    how = f"slide {protocol['window'][0]}x{protocol['window'][1]}" if "window" in protocol else "whole"
    how += f", scales {', '.join(f'{scale:g}' for scale in protocol['scales'])}" * (
        protocol["scales"] != [1.0]
    )
    how += ", flip" * protocol["flip"]
    films = [
        f"{film['film']}: {film['frames']} frames, {film['frames_per_s']:.2f} frames/s: {film['overlays']}"
        for film in result["films"]
    ]
    written = result["images"] + len(films)
    of = "" if written == result["found"] else f" of {result['found']}"
    kind = "file" if films else "image"
    counted = f"{written}{of} {kind}{'s' if result['found'] != 1 else ''}"
    lines = [*map(printable, films), f"{counted}, {how}: {printable(result['out'])}"]
    return Group(table, *map(Text, lines))
