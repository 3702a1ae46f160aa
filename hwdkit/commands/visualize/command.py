"""What the figures of hwdkit visualize share: the networks, the images, and how a figure is written."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hwdkit.checkpoints.files import file_digest, replacing
from hwdkit.commands.visualize.arguments import FigureFile, Given
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.index import load_index
from hwdkit.data.stream import eval_pairs
from hwdkit.engine.networks import load_network, require_classes
from hwdkit.engine.opened import Network
from hwdkit.errors import DataError, UsageError
from hwdkit.terminal import console
from hwdkit.terminal.memory import explained_memory
from hwdkit.types import Role

log = logging.getLogger("hwdkit")

MEMORY_HINT = "fewer networks at once, or the CPU (--gpus 0)"


@dataclass(frozen=True)
class Opened:
    """Loaded networks on their device, and the split that they are shown."""

    networks: tuple[Network, ...]
    dataset: SegmentationDataset
    device: torch.device
    total: int
    workers: int

    def of_role(self, role: Role, *, needed_for: str) -> Network:
        """The network of a role.

        Raises:
            UsageError: there is none.
        """
        found = next((network for network in self.networks if network.role == role), None)
        if found is None:
            alternative = " or a --compare" if role == "student" else ""
            raise UsageError(f"{needed_for} needs --{role}{alternative}")
        return found

    def pairs(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(index, image (3, H, W) uint8, label (H, W)) of the first `total` images, on the device."""
        for index, image, label in itertools.islice(
            eval_pairs(self.dataset, workers=self.workers), self.total
        ):
            yield index, image.to(self.device), label.to(self.device)

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) uint8 and label (H, W) int64 of one index, on the device."""
        image, label = self.dataset.read(index)
        return image.to(self.device), label.to(self.device).long()

    def facts(self) -> dict[str, Any]:
        """What every result says of where it comes from."""
        index = self.dataset.index
        return {
            "dataset": index.name,
            "split": self.dataset.split,
            "dataset_fingerprint": index.fingerprint,
            "networks": [
                {
                    "name": network.name,
                    "role": network.role,
                    "checkpoint": network.checkpoint,
                    "checkpoint_sha256": network.digest,
                }
                for network in self.networks
            ],
        }


def named(given: Given) -> list[tuple[str, Role, Path]]:
    """Name, role and checkpoint of every network in the order of the figures, the student last.

    Without --student, the last --compare is the student, under its own name.
    """
    student = {"student": given.student} if given.student else {}
    methods = {**given.compare, **student}
    networks: list[tuple[str, Role, Path]] = []
    if given.teacher:
        networks.append(("teacher", "teacher", given.teacher))
    if given.baseline:
        networks.append(("baseline", "baseline", given.baseline))
    for place, (name, path) in enumerate(methods.items(), 1):
        networks.append((name, "student" if place == len(methods) else "compare", path))
    return networks


def opened(given: Given) -> Opened:
    """Load the networks and the dataset that they were trained for.

    Raises:
        UsageError: no network is named.
        CheckpointError, DataError: a network or the dataset is missing, or they do not fit.
    """
    wanted = named(given)
    if not wanted:
        raise UsageError("no network", hint="name one: --student, --teacher, --baseline or --compare NAME=…")
    loaded = [(name, role, load_network(path)) for name, role, path in wanted]
    index = load_index(given.data_root / str(loaded[-1][2].metadata["dataset"]))
    for _, _, network in loaded:
        require_classes(network, index)
    dataset = SegmentationDataset(index, given.split)
    device = torch.device("cuda" if torch.cuda.is_available() and not given.cpu else "cpu")
    total = min(len(dataset), given.limit or len(dataset))
    if total < len(dataset):
        log.info("only the first %d of %d images", total, len(dataset))
    with explained_memory(MEMORY_HINT):
        networks = tuple(
            Network(name, role, net.model.to(device).eval(), str(net.path), file_digest(net.path))
            for name, role, net in loaded
        )
    return Opened(networks, dataset, device, total, given.workers)


@contextmanager
def working(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar; running out of memory is told as such."""
    with explained_memory(MEMORY_HINT), console.progress(title, total) as advance:
        yield advance


def write_figure(figure: FigureFile, content: bytes) -> str:
    """Write an encoded figure when it is complete.

    Returns:
        The path, for the result.
    """
    with replacing(figure.path) as temporary:
        temporary.write_bytes(content)
    return str(figure.path)


def chosen_images(texts: tuple[str, ...], dataset: SegmentationDataset) -> list[int]:
    """The images that --images names: by index, or by name with or without folder and suffix.

    A number without leading zeros is an index. Nothing named is no image.

    Raises:
        DataError: there is no such image, or several of that name.
    """
    words = [word.strip() for text in texts for word in text.split(",")]
    names = [dataset.name(i) for i in range(len(dataset))]
    chosen = []
    for word in words:
        if word.isascii() and word.isdecimal() and str(int(word)) == word:
            found = [int(word)] if int(word) < len(names) else []
        else:
            found = [i for i, name in enumerate(names) if _is_called(name, word)]
        if not found:
            raise DataError(
                f"--images: split {dataset.split} has no image {word!r}",
                hint=f"there are 0 to {len(names) - 1}: {names[0]} … {names[-1]}",
            )
        if len(found) > 1:
            raise DataError(
                f"--images: {word!r} is the name of {len(found)} images",
                hint=f"write more of it: {names[found[0]]}, {names[found[1]]}",
            )
        chosen += found
    return list(dict.fromkeys(chosen))


def _is_called(name: str, word: str) -> bool:
    """Whether `word` is the path, or an end of it, with or without the suffix."""
    stem = name.rpartition(".")[0]
    return any(whole == word or whole.endswith(f"/{word}") for whole in (name, stem))
