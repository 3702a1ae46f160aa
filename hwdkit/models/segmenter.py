"""A segmentation network: a timm backbone, a head, perhaps an auxiliary head, and their input contract.

`NetworkSpec` is everything needed to rebuild one; it travels in the metadata of every checkpoint.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import timm
import torch.distributed as dist
from torch import Tensor, nn

from hwdkit.distributed import GlooSyncBatchNorm
from hwdkit.errors import RecipeError
from hwdkit.models.aspp import ASPPHead
from hwdkit.models.backbone import create_backbone, default_contract, feature_maps, stage_channels
from hwdkit.models.contract import InputContract
from hwdkit.models.deeplabv3 import DeepLabV3Head
from hwdkit.models.fcn import FCNHead
from hwdkit.models.network import Network
from hwdkit.models.pspnet import PSPHead
from hwdkit.models.segformer import SegFormerHead
from hwdkit.models.upernet import UPerNetHead
from hwdkit.types import SegOutput

HEADS = {
    "deeplabv3": DeepLabV3Head,
    "aspp": ASPPHead,
    "pspnet": PSPHead,
    "fcn": FCNHead,
    "upernet": UPerNetHead,
    "segformer": SegFormerHead,
}
"""To add a head: a file with an nn.Module that turns the stages into (logits, embedding), and a line here.

All have the same arguments: `in_channels` of the backbone's maps, shallow to deep, of which most heads read
the deepest alone; `classes`, C of the logits; `channels`, None for the head's own width; `output_stride` and
`align_corners`, which some heads do not need.
"""

LARGEST = 65_535
"""No class count or head width is larger; a checkpoint that says so is damaged or means harm."""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST


@dataclass(frozen=True)
class NetworkSpec:
    """Everything needed to rebuild a network, apart from its weights.

    Attributes:
        backbone: a timm model name.
        classes: C of the logits.
        backbone_options: passed to `timm.create_model`.
        output_stride: 8, 16 or 32, of the deepest map; a backbone that cannot be dilated has 32 only.
        head: a key of HEADS.
        head_channels: width of the head and of the "embedding" tap; None = the papers' width.
        aux: whether an auxiliary FCN head on "stage3" is trained along.
        input: None = what timm says of the backbone; `build` fills it in.
    """

    backbone: str
    classes: int
    backbone_options: dict[str, Any] = field(default_factory=dict)
    output_stride: int = 8
    head: str = "deeplabv3"
    head_channels: int | None = None
    aux: bool = True
    input: InputContract | None = None

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise ValueError(f"head is one of {', '.join(HEADS)}, not {self.head!r}")
        if not isinstance(self.backbone, str) or not isinstance(self.backbone_options, dict):
            raise ValueError("backbone is a timm model name, backbone_options a mapping")
        if not _is_count(self.output_stride) or self.output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is 8, 16 or 32, not {self.output_stride!r}")
        if not _is_count(self.classes):
            raise ValueError(f"classes must be a number from 1 to {LARGEST}, not {self.classes!r}")
        if self.head_channels is not None and not _is_count(self.head_channels):
            raise ValueError(
                f"head_channels must be a number from 1 to {LARGEST}, not {self.head_channels!r}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON-ready values; `from_dict` is the inverse."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["backbone_options"] = {
            k: list(v) if isinstance(v, tuple) else v for k, v in self.backbone_options.items()
        }
        values["input"] = self.input.to_dict() if self.input else None
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkSpec:
        """Rebuild a spec from `to_dict`.

        Raises:
            ValueError: a key is unknown or missing, or a value is out of range.
        """
        unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
        missing = sorted({"backbone", "classes"} - set(values))
        if unknown or missing:
            raise ValueError(f"a network spec has unknown keys {unknown} and lacks {missing}")
        contract = values.get("input")
        return cls(**{**values, "input": InputContract.from_dict(contract) if contract else None})


class Segmenter(Network):
    """Segment uint8 RGB images; normalisation is the network's own business.

    Use `build`. Attributes beside those of `Network`: `spec` (its `input` filled in), `backbone`, `head`,
    `aux_head` (or None).

    Args:
        spec: what to build on top of the backbone.
        backbone: from `create_backbone`.
        contract: how the pixels are normalised.
    """

    contract: InputContract

    def __init__(self, spec: NetworkSpec, backbone: nn.Module, contract: InputContract) -> None:
        super().__init__()
        self.spec = dataclasses.replace(spec, input=contract)
        self.contract = contract
        self.name, self.classes, self.align_corners = spec.backbone, spec.classes, contract.align_corners
        channels = stage_channels(backbone)
        if spec.aux and "stage3" not in channels:
            raise RecipeError(f"backbone {spec.backbone} has one stage only: set `aux: false`")
        self.backbone = backbone
        self.head = HEADS[spec.head](
            tuple(channels.values()),
            spec.classes,
            channels=spec.head_channels,
            output_stride=spec.output_stride,
            align_corners=contract.align_corners,
        )
        self.tap_channels: dict[str, int] = {**channels, "embedding": self.head.channels}  # type: ignore[dict-item]
        self.aux_head = FCNHead((channels["stage3"],), spec.classes) if spec.aux else None
        # Buffers, so that they are on the device already: a tensor made in forward would block the host.
        mean, std = contract.pixel_statistics()
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    @property
    def has_aux(self) -> bool:
        return self.aux_head is not None

    def forward(self, image: Tensor, taps: Sequence[str] = (), *, aux: bool | None = None) -> SegOutput:
        """Segment a batch.

        Args:
            image: (N, 3, H, W) RGB, uint8, or floating point with values 0..255.
            taps: which intermediate maps to hand out; keys of `tap_channels`.
            aux: whether to run the auxiliary head, if there is one. None: in training mode only.

        Returns:
            Logits (N, C, h, w), auxiliary logits or None, and the named taps. "embedding" is the classifier's
            input, after dropout. The head decides h and w: those of the deepest map, or with `upernet` and
            `segformer` of the shallowest; the auxiliary logits have those of "stage3".

        Raises:
            ValueError: an unknown tap.
            RecipeError: training with one image where batch norm needs two.
        """
        statistics = (self.get_buffer("pixel_mean"), self.get_buffer("pixel_std"))
        return self.forward_normalised(self.contract.normalise(image, statistics), taps, aux=aux)

    def forward_normalised(
        self, pixels: Tensor, taps: Sequence[str] = (), *, aux: bool | None = None
    ) -> SegOutput:
        """Do what `forward` does, from pixels (N, 3, H, W) that obey the input contract already."""
        self.check_taps(taps)
        self.check_batch(len(pixels))
        stages = feature_maps(self.backbone, pixels)
        maps = dict(zip(self.tap_channels, stages, strict=False))
        logits, maps["embedding"] = self.head(stages)
        aux = self.training if aux is None else aux
        aux_logits = self.aux_head(stages[:-1])[0] if self.aux_head is not None and aux else None
        return SegOutput(logits, aux_logits, {name: maps[name] for name in taps})

    def check_batch(self, images: int) -> None:
        """Raise a RecipeError if so few images cannot be trained on: batch norm of a pooled map needs two."""
        if images > 1 or not self.head.training or not self.head.pools_globally:
            return
        synced = any(isinstance(m, nn.SyncBatchNorm | GlooSyncBatchNorm) for m in self.head.modules())
        if not (synced and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            raise RecipeError(
                f"a batch of 1 image per process cannot train the pooling branch of {self.spec.head} "
                "(batch norm of one value)",
                hint="use batch_size >= 2 per rank and accumulation step, or head fcn or segformer",
            )


def build(spec: NetworkSpec, *, pretrained: bool | Mapping[str, Tensor] = False) -> Segmenter:
    """Build the network that a spec describes.

    Args:
        spec: the network.
        pretrained: True: timm's ImageNet weights for the backbone (downloaded); a mapping: a timm
            classifier's state dict, read by the caller; False: PyTorch's and timm's random initialisation.

    Returns:
        The network in training mode, on the CPU, with `spec.input` filled in.

    Raises:
        RecipeError, CheckpointError, EnvironmentFailure: as `create_backbone`.
    """
    backbone = create_backbone(
        spec.backbone, spec.backbone_options, spec.output_stride, pretrained=pretrained
    )
    return Segmenter(spec, backbone, spec.input or default_contract(spec.backbone))


def convert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Share batch-norm statistics between ranks, keeping timm's fused activations.

    torch's own converter drops the activation inside timm's BatchNormAct2d without a word.
    """
    converted: nn.Module = timm.layers.convert_sync_batchnorm(module)
    return converted
