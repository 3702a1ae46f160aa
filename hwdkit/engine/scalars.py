"""The rows of metrics.jsonl as TensorBoard scalars, where tensorboard is installed."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hwdkit.checkpoints.files import write_failure

log = logging.getLogger("hwdkit")

FOLDER = "tensorboard"
VALIDATION = ("miou", "macc", "pixel_accuracy")


class Scalars:
    """Writes RUN/tensorboard; does nothing where tensorboard is missing or cannot be used.

    Args:
        run_dir: the run's folder.
        step: the run continues after this one; what an earlier process wrote beyond it is withdrawn.
        rows: of the steps so far, written when no earlier process has done so.
    """

    def __init__(self, run_dir: Path, *, step: int = 0, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.path = run_dir / FOLDER
        self.writer: Any = None
        if importlib.util.find_spec("tensorboard") is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except Exception as error:  # its protobuf fails in many ways, and no run should fail for it
            log.warning(
                "no TensorBoard scalars: tensorboard cannot be loaded (%s)", str(error) or repr(error)
            )
            return
        begun = any(self.path.glob("events.out.tfevents.*"))
        try:
            self.writer = SummaryWriter(str(self.path), purge_step=step + 1)
        except OSError as error:
            raise write_failure(self.path, error) from error
        for row in () if begun else rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one row; it is on the disk when this returns, so that a killed run loses none it has saved.

        Raises:
            EnvironmentFailure: the disk is full.
        """
        if self.writer is None:
            return
        try:
            for key, value in row.items():
                if key != "step" and isinstance(value, int | float):
                    self.writer.add_scalar(_tag(key), value, int(row["step"]))
            self.writer.flush()
        except OSError as error:
            raise write_failure(self.path, error) from error

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def _tag(key: str) -> str:
    """TensorBoard groups by what stands before a slash."""
    if key in VALIDATION:
        return f"val/{key}"
    group, underscore, term = key.partition("_")
    if group in ("loss", "critic"):
        return f"{group}/{term if underscore else 'total'}"
    return key
