"""What all figures of hwdkit visualize do: open networks, show progress, choose images, write a file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Group
from rich.text import Text

from hwdkit.checkpoints.files import write_file
from hwdkit.commands.visualize import Figure
from hwdkit.data.dataset import SegmentationDataset
from hwdkit.engine.opened import Opened, open_networks
from hwdkit.errors import DataError
from hwdkit.report.render import printable
from hwdkit.report.table import Table
from hwdkit.terminal import console
from hwdkit.terminal.command import Result
from hwdkit.terminal.memory import explained_memory
from hwdkit.terminal.options import Networks
from hwdkit.types import NamedPath

log = logging.getLogger("hwdkit")

MEMORY_HINT = "fewer networks at once, or the CPU (--gpus 0)"


def written(
    options: Figure,
    drawing: tuple[dict[str, Any], bytes],
    render: Callable[[dict[str, Any]], tuple[Table, str]],
) -> Result:
    """Write a figure.

    Args:
        drawing: the numbers behind it, and the encoded figure itself.
        render: makes a table of these numbers, and what is said of it before the figure's path.
    """
    document, content = drawing
    document["figure"] = path = str(write_file(options.path, content))

    def page() -> Group:
        table, caption = render(document)
        return Group(table, Text(f"{caption}{printable(path)}"))

    return Result(document, page)


def opened(
    options: Networks, named: Sequence[NamedPath] = (), *, limit: int | None = None, workers: int = 0
) -> Opened:
    """Load the networks that the options name, or others, and the dataset that they were trained for."""
    with explained_memory(MEMORY_HINT):
        result = open_networks(
            named or options.named(),
            data_root=options.data_root,
            split=options.split,
            limit=limit,
            workers=workers,
            cpu=options.cpu(),
        )
    total, available = result.images.total, len(result.images.dataset)
    if total < available:
        log.info("only the first %d of %d images", total, available)
    return result


@contextmanager
def working(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar; running out of memory says so."""
    with explained_memory(MEMORY_HINT), console.progress(title, total) as advance:
        yield advance


def chosen_images(texts: Iterable[str], dataset: SegmentationDataset) -> list[int]:
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
            matches = [int(word)] if int(word) < len(names) else []
        else:
            matches = [i for i, name in enumerate(names) if _is_called(name, word)]
        if not matches:
            raise DataError(
                f"--images: split {dataset.split} has no image {word!r}",
                hint=f"there are 0 to {len(names) - 1}: {names[0]} … {names[-1]}",
            )
        if len(matches) > 1:
            raise DataError(
                f"--images: {word!r} is the name of {len(matches)} images",
                hint=f"write more of it: {names[matches[0]]}, {names[matches[1]]}",
            )
        chosen += matches
    return list(dict.fromkeys(chosen))


def _is_called(name: str, word: str) -> bool:
    """Whether `word` is the path, or an end of it, with or without the suffix."""
    stem = name.rpartition(".")[0]
    return any(whole == word or whole.endswith(f"/{word}") for whole in (name, stem))
