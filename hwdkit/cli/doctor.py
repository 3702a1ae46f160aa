"""hwdkit doctor: what to look at before a run, and when one fails."""

from __future__ import annotations

from hwdkit.cli.old_options import DATA, DataRoot, Json, app
from hwdkit.terminal import exits, paths


@app.command(epilog="Example:  hwdkit doctor --data-root /datasets")
def doctor(data_root: DataRoot = DATA, as_json: Json = False) -> None:
    """Check versions, extras, devices, limits, data and recipes; exit 6 with a problem, say what to type."""
    paths.require_possible("--data-root", data_root)

    from hwdkit.commands.doctor import command
    from hwdkit.terminal import console

    console.set_up_logging(quiet=True)
    result = command.run(data_root)
    failure = command.verdict(result)
    exits.print_result(result, as_json, lambda: command.render(result), error=failure)
    if failure:
        raise failure
