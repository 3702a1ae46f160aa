"""The five networks of the papers equal the authors' own, from c4 to the logits, in float64.

The outputs in golden/arch_reference.npz come from the released HWD code with weights filled by a formula;
here the same formula fills our networks under the authors' key names.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from hwdkit.models.segmenter import NetworkSpec, Segmenter, build

GOLDEN = Path(__file__).parent.parent / "golden"
KEYS: dict[str, dict[str, list[int]]] = json.loads((GOLDEN / "arch_keys.json").read_text())
DEEP_STEM = {"stem_type": "deep", "stem_width": 64}
SPECS = {
    "deeplabv3_resnet18": NetworkSpec("resnet18", 19, DEEP_STEM),
    "deeplabv3_resnet101": NetworkSpec("resnet101", 19, DEEP_STEM),
    "psp_resnet18": NetworkSpec("resnet18", 19, DEEP_STEM, head="pspnet"),
    "deeplabv3_mobilenetv2": NetworkSpec("mobilenetv2_100", 19, aux=False),
    "psp_mobilenetv2": NetworkSpec("mobilenetv2_100", 19, head="pspnet", aux=False),
}
RENAMED = [
    (r"pretrained\.conv1\.", "backbone.conv1.0."),
    (r"pretrained\.bn1\.", "backbone.conv1.1."),
    (r"pretrained\.conv2\.", "backbone.conv1.3."),
    (r"pretrained\.bn2\.", "backbone.conv1.4."),
    (r"pretrained\.conv3\.", "backbone.conv1.6."),
    (r"pretrained\.bn3\.", "backbone.bn1."),
    (r"pretrained\.(layer\d)", r"backbone.\1"),
    (r"head\.aspp\.b0\.", "head.branches.0."),
    (r"head\.aspp\.b([123])\.block\.", r"head.branches.\1."),
    (r"head\.aspp\.b4\.gap\.", "head.pool."),
    (r"head\.aspp\.project\.", "head.project."),
    (r"head\.block\.4\.", "head.classifier."),
    (r"auxlayer\.block\.4\.", "aux_head.classifier."),
    (r"auxlayer\.", "aux_head."),
]
MOBILE_BLOCKS = [f"{stage}.{block}" for stage, n in enumerate((1, 2, 3, 4, 3, 3, 1)) for block in range(n)]
MOBILE_LAYERS = ("conv_pw", "bn1", None, "conv_dw", "bn2", None, "conv_pwl", "bn3")
MOBILE_FIRST = ("conv_dw", "bn1", None, "conv_pw", "bn2")


def ours(key: str) -> str:
    """Translate a key of the released HWD and CIRKD checkpoints."""
    if found := re.match(r"pretrained\.net\.features\.0\.(\d)\.(.*)", key):
        return f"backbone.{('conv_stem', 'bn1')[int(found[1])]}.{found[2]}"
    if found := re.match(r"pretrained\.net\.features\.(\d+)\.conv\.(\d)\.(.*)", key):
        feature, layer = int(found[1]), int(found[2])
        name = (MOBILE_FIRST if feature == 1 else MOBILE_LAYERS)[layer]
        return f"backbone.blocks.{MOBILE_BLOCKS[feature - 1]}.{name}.{found[3]}"
    if found := re.match(r"head\.psp\.conv(\d)\.(\d)\.(.*)", key):
        return f"head.bins.{int(found[1]) - 1}.{int(found[2]) + 1}.{found[3]}"
    for pattern, replacement in RENAMED:
        if re.match(pattern, key):
            return re.sub(f"^{pattern}", replacement, key)
    return key


def filled(key: str, shape: list[int], index: int) -> torch.Tensor:
    """Draw the tensor at this place of the sorted key list."""
    z = np.random.RandomState(5000 + index).standard_normal(tuple(shape))
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if key.endswith("running_var"):
        z = 1 + 0.5 * np.abs(z)
    elif key.endswith(("running_mean", "bias")):
        z = 0.1 * z
    elif len(shape) == 4:
        z = z * np.sqrt(2 / np.prod(shape[1:]))
    else:
        z = 1 + 0.1 * z
    return torch.from_numpy(z)


def official(name: str) -> Segmenter:
    network = build(SPECS[name]).double()
    weights = {ours(k): filled(k, KEYS[name][k], i) for i, k in enumerate(sorted(KEYS[name]))}
    network.load_state_dict(weights, strict=True)
    return network.eval()


@pytest.mark.parametrize("name", SPECS)
def test_network_equals_the_released_one(name: str) -> None:
    reference = np.load(GOLDEN / "arch_reference.npz")
    pixels = torch.from_numpy(np.random.RandomState(42).standard_normal((1, 3, 65, 97)) * 50)
    with torch.no_grad():
        out = official(name).forward_normalised(pixels, ("stage4", "embedding"), aux=True)
    got = {
        "c4_first8": out.taps["stage4"][:, :8],
        "feat_first16": out.taps["embedding"][:, :16],
        "logits": out.logits,
    }
    if out.aux is not None:
        got["aux_logits"] = out.aux
    recorded = [k.removeprefix(f"{name}__") for k in reference.files if k.startswith(f"{name}__")]
    assert sorted(recorded) == sorted(got)
    for what, value in got.items():
        expected = torch.from_numpy(reference[f"{name}__{what}"])
        relative = (value - expected).abs().max() / expected.abs().max()
        assert relative < 1e-9, what
