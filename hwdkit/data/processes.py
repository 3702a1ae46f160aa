"""The loader processes behind the streams: how they start, pass errors on, and end.

Which samples they load, and in which order, is `stream.py`.
"""

from __future__ import annotations

import atexit
import multiprocessing
import signal
import weakref
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

from hwdkit.data.parallel import cores
from hwdkit.errors import HwdkitError

PARENTS_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Item = TypeVar("Item")


def as_is(item: Item) -> Item:
    """Collate nothing: the datasets of `stream.py` return what is to be passed on."""
    return item


def loader_options(workers: int) -> dict[str, Any]:
    """Return the DataLoader options that all streams share.

    Args:
        workers: loader processes, of which no more than one a core are started; 0 = decode in this one.
    """
    return {
        "num_workers": min(workers, cores()),
        "worker_init_fn": _leave_signals_to_the_parent,
        # A loader draws a seed for its workers. From the global generator, an evaluation would shift dropout.
        "generator": torch.Generator(),
    }


def started(loader: DataLoader[Item]) -> Iterator[Item]:
    """Start the loader's processes so that they ignore Ctrl-C and SIGTERM, which every process receives.

    Only the training process responds, perhaps by finishing its step and saving; a loader process that died
    first would turn that into a crash. The signals are blocked before the processes are forked, so from their
    first instruction. Dropping the returned iterator ends them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS_SIGNALS)
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def raised(item: Item | HwdkitError) -> Item:
    """Raise what a loader process returned as an error, and pass everything else on.

    torch would re-raise it with the worker's traceback pasted into the message; a user's mistake is one line.
    """
    if isinstance(item, HwdkitError):
        raise item
    return item


Stream = Generator[Item, None, None]
_live: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()


def close_at_exit(stream: Stream[Item]) -> Stream[Item]:
    """Close a stream that is still open when Python ends.

    Otherwise multiprocessing's own exit handler would send its processes a SIGTERM, which they ignore, and
    wait for them.
    """
    _live.add(stream)
    return stream


@atexit.register
def _close_streams() -> None:
    for stream in list(_live):
        stream.close()
    for process in multiprocessing.active_children():
        if process.daemon:  # one that is stuck would hold the exit up for ever: only this signal reaches it
            process.kill()


def _leave_signals_to_the_parent(_worker: int) -> None:
    # Once more for start methods whose processes do not inherit the mask (forkserver).
    for number in PARENTS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
