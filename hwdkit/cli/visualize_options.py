"""Options that several figures of hwdkit visualize share. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Student = Annotated[
    Path | None,
    typer.Option("--student", help="Checkpoint or run.", show_default="the last --compare"),
]
Teacher = Annotated[Path | None, typer.Option("--teacher", help="Checkpoint or run.")]
Baseline = Annotated[
    Path | None, typer.Option("--baseline", help="The student trained alone: checkpoint or run.")
]
Compare = Annotated[
    list[str] | None,
    typer.Option("--compare", metavar="NAME=CHECKPOINT", help="One more network; may be repeated."),
]
Split = Annotated[str, typer.Option("--split", help="Which split of the dataset.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Look at the first N images only.")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Loader processes.")]
Images = Annotated[
    list[str] | None,
    typer.Option("--images", metavar="INDEX|NAME,…", help="Which images. May be repeated."),
]
Classes = Annotated[
    list[str] | None, typer.Option("--classes", metavar="NAME,…", help="Which classes. May be repeated.")
]
Tau = Annotated[float, typer.Option("--tau", min=1e-3, help="Temperature of the activation maps.")]
Longest = Annotated[int, typer.Option("--longest", min=64, max=1024, help="Longer side of a panel, pixels.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of the sample and of t-SNE.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="A .png, .svg or .pdf.", show_default="the figure's name"),
]
Form = Annotated[
    str | None, typer.Option("--format", help="png | svg | pdf", show_default="as --out ends, or png")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the figure if it exists.")]
