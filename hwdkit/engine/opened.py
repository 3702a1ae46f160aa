"""Trained networks on their device, and the images of their dataset: what most commands begin with."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hwdkit.checkpoints.files import file_digest
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.data.index import DatasetIndex, load_index
from hwdkit.data.stream import eval_pairs
from hwdkit.engine.networks import Loaded, load_network, require_classes
from hwdkit.errors import UsageError
from hwdkit.models.segmenter import Segmenter
from hwdkit.types import NamedPath, Role


@dataclass(frozen=True)
class NamedNetwork:
    """A trained network among others: on its device, in eval mode.

    Attributes:
        checkpoint: path of its file.
        digest: sha256 of that file.
    """

    name: str
    role: Role
    model: Segmenter
    checkpoint: str
    digest: str


@dataclass(frozen=True)
class Images:
    """The first `total` images of a split, with their labels."""

    dataset: SegmentationDataset
    total: int
    workers: int = 0

    @property
    def index(self) -> DatasetIndex:
        return self.dataset.index

    def share(self, *, rank: int = 0, world: int = 1) -> int:
        """How many of them one of several processes sees."""
        return len(range(rank, self.total, world))

    def pairs(self, *, rank: int = 0, world: int = 1) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(index, image (3, H, W) uint8, label (H, W)) of a process's share, on the CPU."""
        pairs = eval_pairs(self.dataset, rank=rank, world=world, workers=self.workers)
        return itertools.islice(pairs, self.share(rank=rank, world=world))

    def notes(self) -> list[str]:
        """What a reader of numbers about these images must know."""
        notes = []
        if self.total < len(self.dataset):
            notes.append(f"Only the first {self.total} of {len(self.dataset)} images were evaluated.")
        if self.index.partial:
            notes.append("The dataset is partial: these numbers are not comparable with published ones.")
        return notes


@dataclass(frozen=True)
class Opened:
    """Networks of one dataset, and the images that they are shown."""

    networks: tuple[NamedNetwork, ...]
    images: Images
    device: torch.device

    def of_role(self, role: Role, *, needed_for: str) -> NamedNetwork:
        """The network of a role.

        Raises:
            UsageError: there is none.
        """
        network = next((network for network in self.networks if network.role == role), None)
        if network is None:
            alternative = " or a --compare" if role == "student" else ""
            raise UsageError(f"{needed_for} needs --{role}{alternative}")
        return network

    def pairs(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(index, image (3, H, W) uint8, label (H, W)) of all images, on the device."""
        for index, image, label in self.images.pairs():
            yield index, image.to(self.device), label.to(self.device)

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) uint8 and label (H, W) int64 of one index, on the device."""
        image, label = self.images.dataset.read(index)
        return image.to(self.device), label.to(self.device).long()

    def facts(self) -> dict[str, Any]:
        """Where results come from: JSON-able."""
        index = self.images.index
        return {
            "dataset": index.name,
            "split": self.images.dataset.split,
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


def one_device(*, cpu: bool) -> torch.device:
    """The GPU if there is one, unless the CPU is asked for."""
    return torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")


def open_images(
    *networks: Loaded,
    data_root: Path,
    split: str,
    dataset: str | None = None,
    limit: int | None = None,
    workers: int = 0,
) -> Images:
    """Open a split of the dataset that networks were trained for.

    Args:
        networks: of one dataset; that of the last is opened.
        data_root: folder of the prepared datasets.
        split: of the dataset.
        dataset: another dataset with the same classes.
        limit: look at the first images only; None is all.
        workers: processes that read.

    Raises:
        CheckpointError, DataError: the dataset is missing, or a network has other classes.
    """
    index = load_index(data_root / (dataset or str(networks[-1].metadata["dataset"])))
    for network in networks:
        require_classes(network, index)
    opened = SegmentationDataset(index, split)
    return Images(opened, min(len(opened), limit or len(opened)), workers)


def open_networks(
    paths: Sequence[NamedPath],
    *,
    data_root: Path,
    split: str,
    limit: int | None = None,
    workers: int = 0,
    cpu: bool = False,
) -> Opened:
    """Load networks, and open the dataset that they were trained for.

    Args:
        paths: at least one, of a checkpoint or a run directory.
        data_root, split, limit, workers: see `open_images`.
        cpu: do not use a GPU.

    Raises:
        CheckpointError, DataError: a network or the dataset is missing, or they do not fit.
    """
    loaded = [load_network(path) for _, _, path in paths]
    images = open_images(*loaded, data_root=data_root, split=split, limit=limit, workers=workers)
    device = one_device(cpu=cpu)
    networks = tuple(
        NamedNetwork(name, role, net.model.to(device).eval(), str(net.path), file_digest(net.path))
        for (name, role, _), net in zip(paths, loaded, strict=True)
    )
    return Opened(networks, images, device)
