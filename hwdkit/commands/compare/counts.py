"""What each network gets right in each image: counted once, and kept beside the report for the next time."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hwdkit import __version__
from hwdkit.checkpoints.files import write_file
from hwdkit.commands.compare.runs import Checkpoint
from hwdkit.engine.evaluate import predict
from hwdkit.engine.networks import load_network
from hwdkit.engine.opened import Images
from hwdkit.measure.bootstrap import Counts
from hwdkit.measure.comparison import Setting
from hwdkit.metrics import confusion
from hwdkit.models.segmenter import Segmenter
from hwdkit.recipe.protocol import Protocol
from hwdkit.terminal import console
from hwdkit.terminal.memory import explained_memory

log = logging.getLogger("hwdkit")

MEMORY_HINT = "compare on the CPU (--gpus 0)"


def counted(
    network: Checkpoint,
    images: Images,
    setting: Setting,
    *,
    device: torch.device,
    folder: Path | None,
    position: str,
) -> Counts:
    """Counts of one network, from an earlier comparison or by evaluating it; then it leaves the memory.

    `folder` is where counts are kept, or None; `position` which of how many networks it is, for the log.
    """
    file = None if folder is None else folder / f"{_key(network, setting)}.npy"
    if file and (counts := read_counts(file, (setting.images, 3, len(setting.classes)))) is not None:
        log.info("network %s: %s, counts of an earlier comparison", position, network.argument)
        return counts
    model = load_network(network.loaded.path).model
    began = time.monotonic()
    with (
        explained_memory(MEMORY_HINT),
        console.progress(f"network {position}", setting.images) as advance,
    ):
        counts = image_counts(
            model.to(device), images.pairs(), setting.protocol, images=setting.images, advance=advance
        )
    log.info("network %s: %s, %.0f s", position, network.argument, time.monotonic() - began)
    if file:
        buffer = io.BytesIO()
        np.save(buffer, counts, allow_pickle=False)
        write_file(file, buffer.getvalue())
    return counts


@torch.no_grad()
def image_counts(
    model: Segmenter,
    pairs: Iterable[tuple[int, Tensor, Tensor]],
    protocol: Protocol,
    *,
    images: int,
    advance: Callable[[int], None],
) -> Counts:
    """Count what a network gets right in every image, which it sees as in `hwdkit evaluate`.

    Args:
        model: on its device; put into eval mode.
        pairs: (index, image (3, H, W) uint8, label (H, W)), each index of 0 .. images - 1 once.
        advance: called with the number of images done.
    """
    model.eval()
    device = next(model.parameters()).device
    counts = np.zeros((images, 3, model.spec.classes), dtype=np.int64)
    for done, (index, image, label) in enumerate(pairs, start=1):
        prediction = predict(model, image.to(device, non_blocking=True), protocol)
        matrix = confusion(label.to(device, non_blocking=True), prediction, model.spec.classes)
        counts[index] = torch.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)]).cpu().numpy()
        advance(done)
    return counts


def _key(network: Checkpoint, setting: Setting) -> str:
    """Everything that the counts depend on; the rule for absent classes comes after counting."""
    protocol = setting.protocol.model_dump(exclude={"absent"})
    facts = [network.digest, setting.fingerprint, setting.split, setting.images, protocol, __version__]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def read_counts(path: Path, shape: tuple[int, int, int]) -> Counts | None:
    """Counts that were kept; None if there are none, or they are not what they should be."""
    if not path.is_file():
        return None
    try:
        counts = np.load(path, allow_pickle=False)
        whole = isinstance(counts, np.ndarray) and counts.shape == shape and counts.dtype == np.int64
        intersection, labelled, predicted = counts.transpose(1, 0, 2) if whole else (np.array([-1]),) * 3
        if (intersection >= 0).all() and (intersection <= np.minimum(labelled, predicted)).all():
            return np.asarray(counts, dtype=np.int64)
    except (OSError, ValueError, EOFError) as error:
        log.debug("%s: %s", path, error)
    log.warning("%s holds no counts: evaluating again", path)
    return None
