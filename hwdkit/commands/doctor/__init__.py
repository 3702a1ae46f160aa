"""hwdkit doctor: whether this machine is fit for a run."""

from __future__ import annotations

from hwdkit.terminal import paths
from hwdkit.terminal.command import Result, command
from hwdkit.terminal.options import DATA, DataRoot


@command(example="hwdkit doctor --data-root /datasets")
class Doctor:
    """Check versions, extras, devices, limits, data and recipes; exit 6 with a problem, say what to type."""

    data_root: DataRoot = DATA

    def __post_init__(self) -> None:
        paths.require_possible("--data-root", self.data_root)

    def run(self) -> Result:
        from hwdkit.commands.doctor import diagnosis

        result = diagnosis.run(self)
        return Result(result, lambda: diagnosis.render(result), diagnosis.verdict(result))
