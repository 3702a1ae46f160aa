"""torchvision's DeepLabV3 and FCN on ResNet-50 and ResNet-101 under hwdkit's names: the same architectures.

Their rates at stride 8, widths and auxiliary head are hwdkit's; they resize with `align_corners` false, and
DeepLabV3 has no dropout before the classifier, which matters in training only. LR-ASPP is not offered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hwdkit.checkpoints.renaming import (
    BIASED,
    Converted,
    Rows,
    block_rows,
    described,
    has,
    plain_stem,
    renamed,
    resnet_blocks,
    resnet_name,
    without_module,
)
from hwdkit.errors import CheckpointError

INPUT: dict[str, Any] = {
    "channel_order": "rgb",
    "range": 1,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "align_corners": False,
}


def network(weights: Mapping[str, Tensor]) -> Converted:
    """Rename a `deeplabv3_resnet50|101` or `fcn_resnet50|101`; the auxiliary head may be missing.

    Raises:
        CheckpointError: a tensor is missing or has no place; lists torchvision's names.
    """
    weights = without_module(weights)
    name = resnet_name(weights, "backbone.")
    if name == "resnet18":  # what is neither of the deep ones
        raise CheckpointError(
            "its backbone is no ResNet-50 or ResNet-101 of torchvision",
            hint="importable from torchvision: DeepLabV3 and FCN on these two",
        )
    fcn = "classifier.0.weight" in weights
    head = "fcn" if fcn else "deeplabv3"
    rows = [*plain_stem("backbone.", "backbone.")]
    rows += resnet_blocks(name, "backbone.", "backbone.", stem_channels=64)
    rows += block_rows("classifier", "head.block") if fcn else _deeplabv3()
    rows.append(("classifier.4", "head.classifier", BIASED))
    if has(weights, "aux_classifier."):
        rows += block_rows("aux_classifier", "aux_head.block")
        rows.append(("aux_classifier.4", "aux_head.classifier", BIASED))
    state = renamed(weights, rows, what=f"{head}_{name} of torchvision")
    return Converted(described(state, backbone=name, head=head, input=INPUT), state)


def _deeplabv3() -> Rows:
    for i in range(4):
        yield from block_rows(f"classifier.0.convs.{i}", f"head.branches.{i}")
    yield from block_rows("classifier.0.convs.4", "head.pool", first=1, target_first=1)
    yield from block_rows("classifier.0.project", "head.project")
    yield from block_rows("classifier", "head.block", first=1)
