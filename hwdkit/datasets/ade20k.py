"""ADE20K, scene-parsing benchmark edition (ADEChallengeData2016): 150 classes of things and stuff.

The class table is `tables/ade20k.csv`.
"""

from __future__ import annotations

from pathlib import Path

from hwdkit.datasets.layout import Layout, SplitFiles, files_in, rows_of
from hwdkit.types import IGNORE

TABLE = rows_of("ade20k")
"""Class names (the first of each row of the benchmark's objectInfo150 list) and colours, in class order."""


def list_files(root: Path) -> dict[str, SplitFiles]:
    """Find the images and annotations of both splits below the ADEChallengeData2016 folder."""
    folders = {"train": "training", "val": "validation"}
    return {
        split: SplitFiles(
            files_in(root, f"images/{folder}", ".jpg"), files_in(root, f"annotations/{folder}", ".png")
        )
        for split, folder in folders.items()
    }


ADE20K = Layout(
    name="ade20k",
    classes=tuple(row["name"] for row in TABLE),
    palette=tuple((int(row["red"]), int(row["green"]), int(row["blue"])) for row in TABLE),
    # 0 is "other objects": it belongs to no class and the benchmark does not score it.
    label_map={0: IGNORE, **{raw: raw - 1 for raw in range(1, 151)}},
    published={"train": 20210, "val": 2000},
    inner_folders=("ADEChallengeData2016",),
    must_have=("images/training", "annotations/training", "images/validation", "annotations/validation"),
    expected=(
        "ADEChallengeData2016/images/{training,validation}/*.jpg\n"
        "ADEChallengeData2016/annotations/{training,validation}/*.png"
    ),
    how_to_get=(
        "Download ADEChallengeData2016.zip (about 1 GB) from the MIT Scene Parsing Benchmark, "
        "http://sceneparsing.csail.mit.edu, and unpack it."
    ),
    licence="Images: non-commercial research and education (ADE20K terms). Annotations: BSD 3-clause.",
    list_files=list_files,
)
