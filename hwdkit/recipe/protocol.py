"""How a network is evaluated: a section of a recipe, and part of every result. No torch here."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from hwdkit.errors import RecipeError
from hwdkit.recipe.section import Section

Absent = Literal["present", "paper"]
"""Which classes mIoU averages over: those in labels or predictions, or all with absent ones as 0."""


class Protocol(Section):
    """How images are shown to the network and how its answers are averaged.

    Logits, not probabilities, are combined over scales and flips, as the papers' code does.
    """

    mode: Literal["whole", "slide"] = Field(default="whole", description="native size, or windows of it")
    window: tuple[int, int] = Field(default=(512, 512), description="height, width; slide only")
    stride: tuple[int, int] = Field(default=(341, 341), description="height, width; slide only")
    scales: tuple[float, ...] = Field(default=(1.0,), description="logits are averaged over these")
    flip: bool = Field(default=False, description="average with the mirrored image")
    absent: Absent = Field(
        default="present",
        description="mIoU over classes present in label or prediction, or over all (absent = 0)",
    )

    @model_validator(mode="after")
    def _can_be_evaluated(self) -> Self:
        if not self.scales or min(self.scales) <= 0:
            raise RecipeError(
                f"scales must be positive and at least one, not {self.scales}", where="evaluate"
            )
        if self.mode == "slide" and (min(self.stride) < 1 or min(self.window) < 1):
            raise RecipeError("window and stride must be positive", where="evaluate")
        if self.mode == "slide" and (self.stride[0] > self.window[0] or self.stride[1] > self.window[1]):
            raise RecipeError(
                f"a stride of {self.stride} steps over pixels that no window of {self.window} sees",
                where="evaluate",
                hint="choose a stride no larger than the window, usually two thirds of it",
            )
        return self
