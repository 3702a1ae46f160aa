"""The options of every loss as a recipe spells them, torch-free so that a typo fails in milliseconds.

Each class mirrors one constructor in `hwdkit.losses` (a test compares names and defaults) and adds what
belongs to the recipe alone: the weight.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class LossOptions(BaseModel):
    """What every loss entry of a recipe has.

    Attributes:
        loss: which loss of `hwdkit.losses.LOSSES`; defaults to the entry's own name.
        weight: factor of this term in the total.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    loss: str
    weight: float = Field(1.0, ge=0)

    def constructor_options(self) -> dict[str, object]:
        """The keyword arguments of the loss's constructor."""
        return self.model_dump(exclude={"loss", "weight"})


class CrossEntropy(LossOptions):
    """Task loss on logits up-sampled to the label's size, plus the auxiliary head's."""

    loss: Literal["ce"] = "ce"
    aux_weight: float = Field(0.4, ge=0)


class KD(LossOptions):
    """Per-pixel KL over classes (Hinton et al.; "PI" in SKD)."""

    loss: Literal["kd"] = "kd"
    temperature: float = Field(1.0, gt=0)
    reduction: Literal["pixel", "element", "batch_sum"] = "pixel"


class CWD(LossOptions):
    """Channel-wise distillation (Shu et al., ICCV 2021)."""

    loss: Literal["cwd"] = "cwd"
    temperature: float = Field(4.0, gt=0)


class HWD(LossOptions):
    """Holistic weighted distillation (Sun et al., ICME 2023)."""

    loss: Literal["hwd"] = "hwd"
    temperature: float = Field(4.0, gt=0)
    mu: float = 0.0
    sigma: float = Field(1.0, gt=0)
    beta: float = Field(0.1, gt=0, lt=1)
    divergence: Literal["mse", "l1", "smooth_l1", "kl"] = "mse"
    divergence_on: Literal["activation", "logits"] = "activation"
    area_correction: Literal["none", "paper", "sqrt", "square"] = "none"
    smoothing: Literal["effective_number", "softmax"] = "effective_number"
    softmax_temperature: float = Field(3.0, gt=0)
    normalise: bool = True


AnyLoss = Annotated[CrossEntropy | KD | CWD | HWD, Field(discriminator="loss")]
