"""Several processes from one command, through torch.distributed's own elastic launcher.

Under torchrun or Slurm nothing is launched: each process is already a worker. A worker's error becomes the
command's: its message is printed once and its exit code kept, which torchrun itself would turn into 1.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwdkit.data.parallel import cores
from hwdkit.errors import EnvironmentFailure, HwdkitError

log = logging.getLogger("hwdkit")

ERRORS = "HWDKIT_WORKER_ERRORS"
"""Environment variable: the folder where workers of `launch` leave the error that ended them."""

TIME_TO_SAVE = "300"
"""Seconds that workers get after SIGTERM or Ctrl-C to finish their step and save, before they are killed."""


class WorkerFailed(HwdkitError):
    """What ended the workers of `launch`: the error of the first that failed.

    Args:
        exit_code, kind: the worker's.
        printed: whether the worker has written its JSON document.
    """

    def __init__(
        self,
        message: str,
        *,
        where: str = "",
        hint: str = "",
        exit_code: int,
        kind: str,
        printed: bool = False,
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.exit_code, self.kind, self.printed = exit_code, kind, printed


@dataclass(frozen=True)
class Launch:
    """How many processes, and where they meet.

    Attributes:
        gpus: "auto" (all visible), a number, or "0" for the CPU.
        ranks: processes on this machine; None = one per GPU, or one on the CPU.
        nnodes: N or MIN:MAX.
        rdzv_endpoint: HOST:PORT where the nodes meet; None = this machine, a free port.
        rdzv_id: name of the job, the same on all nodes.
        max_restarts: how often a failed group is started again.
    """

    gpus: str = "auto"
    ranks: int | None = None
    nnodes: str = "1"
    rdzv_endpoint: str | None = None
    rdzv_id: str = "hwdkit"
    max_restarts: int = 0

    @property
    def cpu(self) -> bool:
        return self.gpus == "0"

    def processes(self) -> int:
        """Processes to run on this machine.

        Raises:
            EnvironmentFailure: more GPUs are asked for than there are.
        """
        import torch

        visible = torch.cuda.device_count()
        if self.gpus == "auto":
            gpus = visible
        else:
            gpus = int(self.gpus)
            if gpus > visible:
                count = {0: "no GPU is", 1: "1 GPU is"}.get(visible, f"{visible} GPUs are")
                raise EnvironmentFailure(
                    f"--gpus {gpus}, but {count} visible",
                    hint="use --gpus auto, or --gpus 0 for the CPU",
                )
        return self.ranks or max(gpus, 1)


def is_worker() -> bool:
    """Whether torchrun, Slurm or `launch` has started this process as one of several."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return True
    # SLURM_NTASKS alone is the shell of an allocation (salloc), which srun has not multiplied yet.
    return "SLURM_PROCID" in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1"


def speaks() -> bool:
    """Whether this process prints results: of several only the first does."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def launch_again(plan: Launch, more: Sequence[str] = ()) -> None:
    """Run this very command line, with `more` options, in several processes; see `launch`."""
    launch(plan, [*sys.argv[1:], *more])


def launch(plan: Launch, arguments: Sequence[str]) -> None:
    """Run `hwdkit ARGUMENTS` in several processes and wait for them.

    Raises:
        WorkerFailed: a worker failed, or all were stopped.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    least, _, most = plan.nnodes.partition(":")
    count = plan.processes()
    config = LaunchConfig(
        min_nodes=int(least),
        max_nodes=int(most or least),
        nproc_per_node=count,
        run_id=plan.rdzv_id,
        rdzv_backend="c10d",
        rdzv_endpoint=plan.rdzv_endpoint or "localhost:0",
        max_restarts=plan.max_restarts,
        monitor_interval=0.1,
    )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", TIME_TO_SAVE)
    # It logs every worker that it ends; what the user must know is in the worker's own error.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    nodes = "" if plan.nnodes == "1" else f", {plan.nnodes} machines"
    log.info("starting %d processes on this machine%s", count, nodes)
    with tempfile.TemporaryDirectory(prefix="hwdkit-") as folder:
        os.environ[ERRORS] = folder
        try:
            elastic_launch(config, sys.executable)("-m", "hwdkit", *arguments)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            # A killed worker reports nothing; the others were only stopped because of it.
            reported = first_error() if failure.exitcode >= 0 else None
            raise reported or _unexplained(rank, failure.exitcode) from None
        except SignalException as error:
            # The agent has passed the signal on and waited.
            raise first_error() or _stopped(error.sigval) from None
        finally:
            del os.environ[ERRORS]


def report_error(error: HwdkitError, *, printed: bool) -> bool:
    """Leave a worker's error to the process that launched it.

    Args:
        error: what ends this worker.
        printed: whether this worker has written its JSON document already.

    Returns:
        False when no launcher collects errors: the worker must print it itself.
    """
    folder = os.environ.get(ERRORS)
    if not (folder and is_worker()):
        return False
    record = {**error.details(), "exit_code": error.exit_code, "printed": printed, "time": time.time()}
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    path = Path(folder, f"{int(attempt):04}-{os.environ['RANK']}.json")
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record))
    temporary.replace(path)
    return True


def echoes_another(error: Exception, patience: float = 3.0) -> bool:
    """Whether a worker's unexpected error only follows from another worker's failure.

    Args:
        error: what ends this worker.
        patience: seconds to wait for the other worker's report.
    """
    lost = re.search("gloo|nccl|connection|socket", f"{type(error).__name__} {error}", re.IGNORECASE)
    if not (lost and os.environ.get(ERRORS) and is_worker()):
        return False
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if first_error():
            return True
        time.sleep(0.05)
    return False


def first_error() -> WorkerFailed | None:
    """The earliest error that a worker of the last attempt reported, if any."""
    paths = sorted(Path(os.environ[ERRORS]).glob("*.json"))
    if not paths:
        return None
    last = paths[-1].name.partition("-")[0]
    records: list[dict[str, Any]] = [
        json.loads(path.read_text()) for path in paths if path.name.startswith(f"{last}-")
    ]
    record = min(records, key=lambda one: one.pop("time"))
    return WorkerFailed(**{**record, "printed": any(one["printed"] for one in records)})


def _unexplained(rank: int, code: int) -> WorkerFailed:
    """A worker that ended without a HwdkitError: a bug, or a signal."""
    if code >= 0:
        message, hint = f"process {rank} ended with exit code {code}", "its traceback is above"
        return WorkerFailed(message, hint=hint, exit_code=code, kind="internal")
    name = signal.Signals(-code).name
    memory = "often the machine's memory ran out: lower train.batch_size, data.workers or --ranks"
    return WorkerFailed(
        f"process {rank} was killed by {name}",
        hint=memory if name == "SIGKILL" else "",
        exit_code=128 - code,
        kind="killed",
    )


def _stopped(number: int) -> WorkerFailed:
    return WorkerFailed(
        f"stopped by {signal.Signals(number).name} before the processes could save",
        hint="an earlier checkpoint, if there is one, is untouched",
        exit_code=128 + number,
        kind="cancelled" if number == signal.SIGINT else "killed",
    )
