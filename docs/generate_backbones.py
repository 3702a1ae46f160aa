"""The tables in backbones.md.

They take about two minutes on one free core. Every backbone of BACKBONES is tried at every stride under every
head, with random weights: what it is made of and costs is counted without numbers, and two small images go
forward and backward once.
tests/models/test_backbones_page.py compares some of the rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hwdkit.errors import RecipeError
from hwdkit.models.backbone import create_backbone, feature_maps, stage_channels
from hwdkit.models.segmenter import HEADS

CLASSES = 150
SIZE = (512, 512)
TRAINED_ON = (2, 3, 64, 96)
STRIDES = (8, 16, 32)

BACKBONES = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "mobilenetv2_100", "mobilenetv3_large_100"),
    *("mobilenetv4_conv_small", "mobilenetv4_conv_medium", "efficientnet_b0", "tf_efficientnet_lite0"),
    *("mnasnet_100", "lcnet_100", "regnetx_008", "regnety_008", "mobileone_s0", "mobileone_s1", "repvgg_a0"),
    *("convnext_atto", "convnext_tiny", "convnextv2_atto", "inception_next_atto", "mobilevit_s"),
    *("mobilevitv2_100", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "pvt_v2_b0", "pvt_v2_b2"),
    *("twins_pcpvt_small", "twins_svt_small", "mvitv2_tiny", "davit_tiny", "focalnet_tiny_srf"),
    *("nextvit_small", "tiny_vit_5m_224", "caformer_s18", "poolformer_s12", "mambaout_femto"),
    *("efficientvit_b0", "fastvit_t8", "repvit_m0_9", "edgenext_small", "swiftformer_s", "starnet_s1"),
    *("fasternet_t0", "ghostnet_100", "repghostnet_100", "hgnetv2_b0", "hrnet_w18", "hrnet_w18_small"),
    *("densenet121", "rdnet_tiny", "dla34", "vgg16", "efficientvit_m0", "shvit_s1", "levit_128", "csatv2"),
    *("vit_tiny_patch16_224", "xcit_tiny_12_p16_224", "maxvit_tiny_tf_224", "coatnet_0_rw_224"),
    *("hiera_tiny_224", "gcvit_xxtiny", "efficientformerv2_s0", "coat_lite_tiny"),
)


class Findings(NamedTuple):
    """What was found out about one backbone.

    Attributes:
        refusal: why it has no stride at all, else "".
        sides: what an image's sides are padded to multiples of.
        channels: of its maps, shallow to deep.
        parameters: "alone" and of each head -> count.
        macs: stride -> "alone" and each head -> multiply-adds of one image of SIZE.
        trains: "yes", or what is wrong with the backward pass.
    """

    refusal: str = ""
    sides: int = 1
    channels: tuple[int, ...] = ()
    parameters: dict[str, int] | None = None
    macs: dict[int, dict[str, int]] | None = None
    trains: str = ""


def examine(name: str) -> Findings:
    """Try a backbone at every stride."""
    macs, parameters, built = {}, {}, None
    for stride in STRIDES:
        try:
            with torch.device("meta"):
                built = create_backbone(name, {}, stride).eval()
        except RecipeError as error:
            refusal = error.message
            continue
        macs[stride], parameters = _costs(built, stride)
    if built is None or not macs:
        return Findings(refusal=refusal.partition(": ")[2].partition(" (")[0])
    channels = tuple(stage_channels(built).values())
    sides: int = built.side_multiple  # type: ignore[assignment]
    return Findings("", sides, channels, parameters, macs, _trains(name, min(macs)))


def _costs(backbone: nn.Module, stride: int) -> tuple[dict[str, int], dict[str, int]]:
    """Multiply-adds and parameters of a backbone without storage, and of each head on its maps."""
    with torch.device("meta"):
        macs, stages = _macs(backbone, torch.empty(1, 3, *SIZE))
        kept = [SIZE[0] // stages[place].shape[2] for place in (0, -1)]
        assert kept == [4, stride], f"timm announces strides 4 to {stride} and keeps {kept}"
        macs_of, parameters_of = {"alone": macs}, {"alone": _parameters(backbone)}
        for name, head in _heads(backbone, stride):
            macs_of[name] = _macs(head.eval(), stages)[0]
            parameters_of[name] = _parameters(head)
    return macs_of, parameters_of


def _heads(backbone: nn.Module, stride: int) -> Iterator[tuple[str, nn.Module]]:
    channels = tuple(stage_channels(backbone).values())
    return ((name, head(channels, CLASSES, output_stride=stride)) for name, head in HEADS.items())


def _macs(module: nn.Module, given: Tensor | list[Tensor]) -> tuple[int, list[Tensor]]:
    """Count as `hwdkit profile` does in its column "true", a backbone or a head."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        result = feature_maps(module, given) if isinstance(given, Tensor) else list(module(given))
    return counter.get_total_flops() // 2, result


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _trains(name: str, stride: int) -> str:
    """Run the backbone and all heads on its maps once forward and once backward."""
    torch.manual_seed(0)
    backbone = create_backbone(name, {}, stride).train()
    stages = feature_maps(backbone, torch.randn(TRAINED_ON))
    total = torch.zeros(())
    heads = dict(_heads(backbone, stride))
    for head in heads.values():
        total = total + head(stages)[0].square().mean()
    total.backward()  # type: ignore[no-untyped-call]
    modules = nn.ModuleDict({"backbone": backbone, **heads})
    without = sum(p.grad is None for p in modules.parameters())
    if not all(p.grad is None or p.grad.isfinite().all() for p in modules.parameters()):
        return "no: gradients are not finite"
    return f"{without} parameters get no gradient" if without else "yes"


def works(name: str, found: Findings) -> str:
    """The row of the first table: what a backbone is and what its networks weigh."""
    assert found.parameters
    assert found.macs
    alone = found.parameters["alone"]
    weights = [f"{(alone + found.parameters[head]) / 1e6:.1f}" for head in HEADS]
    sides = "any" if found.sides == 1 else f"padded to {found.sides}"
    cells = (f"`{name}`", ", ".join(map(str, found.macs)), sides, " ".join(map(str, found.channels)))
    return _row(*cells, f"{alone / 1e6:.1f}", *weights, found.trains)


def costs(name: str, found: Findings) -> Iterator[str]:
    """The rows of the second table, one a stride."""
    assert found.macs
    for stride, macs in found.macs.items():
        totals = [f"{(macs['alone'] + macs[head]) / 1e9:.1f}" for head in HEADS]
        yield _row(f"`{name}`", str(stride), f"{macs['alone'] / 1e9:.1f}", *totals)


def refused(name: str, found: Findings) -> str:
    """The row of the third table."""
    return _row(f"`{name}`", found.refusal)


def tables(everything: dict[str, Findings]) -> str:
    """All three tables."""
    usable = {name: found for name, found in everything.items() if not found.refusal}
    heads = [f"`{head}`" for head in HEADS]
    first = _header("backbone", "strides", "image sides", "channels of the maps", "alone", *heads, "trains")
    second = _header("backbone", "stride", "alone", *heads)
    blocks = (
        f"### What works: parameters in millions, {CLASSES} classes",
        "\n".join([first, *(works(name, found) for name, found in usable.items())]),
        f"### Multiply-adds of one image of {SIZE[0]}x{SIZE[1]} in G, {CLASSES} classes",
        "\n".join([second, *(row for name, found in usable.items() for row in costs(name, found))]),
        "### What does not",
        "\n".join(
            [_header("backbone", "why"), *(refused(n, f) for n, f in everything.items() if n not in usable)]
        ),
    )
    return "\n\n".join(blocks)


def _header(*cells: str) -> str:
    return f"{_row(*cells)}\n|{'---|' * len(cells)}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def blocks() -> dict[str, str]:
    """The page's one block; tells stderr how far it is."""
    everything = {}
    for name in BACKBONES:
        everything[name] = examine(name)
        print(name, everything[name].refusal or everything[name].trains, file=sys.stderr, flush=True)
    return {"backbones": tables(everything)}
