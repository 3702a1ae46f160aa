"""torchvision's DeepLabV3 on ResNet-50 and ResNet-101 under hwdkit's names: the architecture is the same.

Its rates at stride 8, its widths and its auxiliary head are ours; it resizes with `align_corners` false, and
has no dropout before the classifier, which matters in training only. Its FCN and LR-ASPP are not offered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hwdkit.checkpoints.cirkd import (
    BIASED,
    NORM,
    WEIGHT,
    Converted,
    block_rows,
    channels,
    renamed,
    resnet_blocks,
    without_module,
)

INPUT: dict[str, Any] = {
    "channel_order": "rgb",
    "range": 1,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "align_corners": False,
}


def network(weights: Mapping[str, Tensor]) -> Converted:
    """Rename a `deeplabv3_resnet50` or `deeplabv3_resnet101`; the auxiliary head may be missing.

    Raises:
        CheckpointError: a tensor is missing or has no place; lists torchvision's names.
    """
    given = without_module(weights)
    deep = any(key.startswith("backbone.layer3.6.") for key in given)
    name = "resnet101" if deep else "resnet50"
    aux = any(key.startswith("aux_classifier.") for key in given)
    rows = [("backbone.conv1", "backbone.conv1", WEIGHT), ("backbone.bn1", "backbone.bn1", NORM)]
    rows += resnet_blocks(name, "backbone.", "backbone.")
    for i in range(4):
        rows += block_rows(f"classifier.0.convs.{i}", f"head.branches.{i}")
    rows += block_rows("classifier.0.convs.4", "head.pool", first=1, our_first=1)
    rows += block_rows("classifier.0.project", "head.project")
    rows += block_rows("classifier", "head.block", first=1)
    rows.append(("classifier.4", "head.classifier", BIASED))
    if aux:
        rows += block_rows("aux_classifier", "aux_head.block")
        rows.append(("aux_classifier.4", "aux_head.classifier", BIASED))
    state = renamed(given, rows, what=f"deeplabv3_{name} of torchvision")
    facts = {
        "backbone": name,
        "backbone_options": {},
        "output_stride": 8,
        "head": "deeplabv3",
        "head_channels": channels(given, "classifier.1.weight"),
        "aux": aux,
        "classes": channels(given, "classifier.4.weight"),
        "input": dict(INPUT),
    }
    return Converted(facts, state)
