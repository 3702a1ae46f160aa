"""Several processes from one command, through torch.distributed's own elastic launcher.

Under torchrun or Slurm nothing is launched: each process is already a worker. A worker's exit code becomes
the command's, which torchrun itself would turn into 1.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from hwdkit.errors import EnvironmentFailure

log = logging.getLogger("hwdkit")


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
            wanted = visible
        else:
            wanted = int(self.gpus)
            if wanted > visible:
                raise EnvironmentFailure(
                    f"--gpus {wanted}, but {visible} GPU{'s are' if visible != 1 else ' is'} visible",
                    hint="use --gpus auto, or --gpus 0 for the CPU",
                )
        return self.ranks or max(wanted, 1)


def is_worker() -> bool:
    """Whether torchrun, Slurm or `launch` has started this process as one of several."""
    return ("RANK" in os.environ and "WORLD_SIZE" in os.environ) or int(
        os.environ.get("SLURM_NTASKS", "1")
    ) > 1


def launch(plan: Launch, arguments: Sequence[str]) -> int:
    """Run `hwdkit ARGUMENTS` in several processes and wait for them.

    Returns:
        The exit code of the first worker that failed, or 0.
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
    )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    log.info("launching %d processes on this machine, %s node(s)", count, plan.nnodes)
    try:
        elastic_launch(config, sys.executable)("-m", "hwdkit", *arguments)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code >= 0 else 128 - code
    except SignalException as error:
        # The agent has passed the signal on and waited: the workers have saved.
        return 130 if error.sigval == signal.SIGINT else 75
    return 0
