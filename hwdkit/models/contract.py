"""What a network wants its pixels to look like, and how to get there from uint8 RGB.

The contract belongs to the weights, not to the dataset: a BGR/0-255 teacher and an RGB/0-1 student share a
batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class InputContract:
    """Channel order, value range and normalisation that a network was trained with.

    Attributes:
        channel_order: "rgb" or "bgr".
        range: 1 or 255, the value of a white pixel before mean and std are applied.
        mean: per channel, in the named order and range.
        std: per channel, in the named order and range; positive.
        align_corners: convention of every bilinear resize inside the network and of its logits.
    """

    channel_order: str = "rgb"
    range: int = 1
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    align_corners: bool = True

    def __post_init__(self) -> None:
        if self.channel_order not in ("rgb", "bgr"):
            raise ValueError(f"channel_order is 'rgb' or 'bgr', not {self.channel_order!r}")
        if self.range not in (1, 255):
            raise ValueError(f"range is 1 or 255, not {self.range!r}")
        if not isinstance(self.align_corners, bool):
            raise ValueError(f"align_corners is true or false, not {self.align_corners!r}")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError("mean and std have three values each")
        if not all(
            isinstance(value, int | float) and math.isfinite(value) for value in (*self.mean, *self.std)
        ):
            raise ValueError(f"mean and std are finite numbers, not {self.mean} and {self.std}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, not {self.std}")

    def pixel_statistics(self) -> tuple[Tensor, Tensor]:
        """Express mean and std in 0..255, so that one subtraction and one division do, whatever the range.

        Returns:
            Two (3, 1, 1) float32 tensors in this contract's channel order.
        """
        scale = 255 / self.range
        mean, std = (torch.tensor(v, dtype=torch.float64) * scale for v in (self.mean, self.std))
        return mean.float().view(3, 1, 1), std.float().view(3, 1, 1)

    def normalise(self, image: Tensor, statistics: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Turn RGB pixels into what the network was trained on.

        Args:
            image: (N, 3, H, W) RGB, uint8, or floating point with values 0..255 (an image that was resized).
            statistics: `pixel_statistics()` already on the image's device; saves a blocking copy per call.

        Returns:
            (N, 3, H, W) in the statistics' dtype (float32 by default), in the contract's channel order.
        """
        if statistics is None:
            mean, std = (s.to(image.device) for s in self.pixel_statistics())
        else:
            mean, std = statistics
        if self.channel_order == "bgr":
            image = image.flip(1)
        return (image - mean) / std

    def to_dict(self) -> dict[str, Any]:
        """Return the contract as JSON-ready values; `from_dict` is the inverse."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InputContract:
        """Rebuild a contract from `to_dict`.

        Raises:
            ValueError: an unknown key, or a value out of range.
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown keys in an input contract: {', '.join(unknown)}")
        typed: dict[str, Any] = {k: tuple(v) if k in ("mean", "std") else v for k, v in values.items()}
        return cls(**typed)
