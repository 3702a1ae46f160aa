"""One function over many files on all cores: what checking and generating a dataset share. Free of torch."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from hwdkit.errors import EnvironmentFailure

Progress = Callable[[str, int, int], None]
"""Called with the name of the job, how many tasks are done, and of how many."""

FEW = 200
"""Below this many items, starting processes costs more than it saves."""

Task = TypeVar("Task")
Result = TypeVar("Result")


def on_all_cores(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    workers: int | None = None,
    doing: str = "",
    progress: Progress | None = None,
) -> list[Result]:
    """Apply a function to every task, in processes when there are many.

    Args:
        work: must be picklable when there are `FEW` tasks or more.
        tasks: its arguments.
        workers: processes; None = one a core. 0 and 1 stay in this process.
        doing: name of the job, for `progress`.
        progress: called now and then, and at the end.

    Returns:
        The results in the order of the tasks.

    Raises:
        EnvironmentFailure: a process was killed, most likely because memory ran out.
    """
    results: list[Result] = []
    for result in _results(work, tasks, cores() if workers is None else workers):
        results.append(result)
        if progress is not None and (len(results) % 16 == 0 or len(results) == len(tasks)):
            progress(doing, len(results), len(tasks))
    return results


def cores() -> int:
    """Count the cores that this process may use; a container is often allowed fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _results(work: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    if len(tasks) < FEW or workers <= 1:
        yield from map(work, tasks)
        return
    # spawn: a fork would copy whatever threads and devices the caller has open.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupts)
    try:
        yield from pool.map(work, tasks, chunksize=min(32, -(-len(tasks) // workers)))
    except BrokenProcessPool as error:
        raise EnvironmentFailure("a worker process was killed", hint="Try again with --workers 1.") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    # Ctrl-C reaches every process of the terminal; the parent alone answers it, without a page of tracebacks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
