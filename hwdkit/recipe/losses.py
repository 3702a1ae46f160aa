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
    weight: float = Field(1.0, ge=0, description="factor of this term; 0 leaves it out")

    def constructor_options(self) -> dict[str, object]:
        """The keyword arguments of the loss's constructor."""
        return self.model_dump(exclude={"loss", "weight"})


class CrossEntropy(LossOptions):
    """Task loss on logits up-sampled to the label's size, plus the auxiliary head's."""

    loss: Literal["ce"] = "ce"
    aux_weight: float = Field(0.4, ge=0, description="share of the auxiliary head")


class KD(LossOptions):
    """Per-pixel KL over classes (Hinton et al.; "PI" in SKD)."""

    loss: Literal["kd"] = "kd"
    temperature: float = Field(1.0, gt=0, description="tau of the softmax over classes")
    reduction: Literal["pixel", "element", "batch_sum"] = Field(
        "pixel", description="CIRKD and HWD, IFVD and CWD, SKD; each has its own weight"
    )


class CWD(LossOptions):
    """Channel-wise distillation (Shu et al., ICCV 2021)."""

    loss: Literal["cwd"] = "cwd"
    temperature: float = Field(4.0, gt=0, description="tau of the softmax over positions")


class HWD(LossOptions):
    """Holistic weighted distillation (Sun et al., ICME 2023)."""

    loss: Literal["hwd"] = "hwd"
    temperature: float = Field(4.0, gt=0, description="tau of the softmax over positions, Eq. 2")
    mu: float = Field(0.0, description="mean of the normalised divergences, Eq. 6; large = CWD")
    sigma: float = Field(1.0, gt=0, description="their standard deviation, Eq. 6")
    beta: float = Field(0.1, gt=0, lt=1, description="smoothing, Eq. 7")
    divergence: Literal["mse", "l1", "smooth_l1", "kl"] = Field("mse", description="distance in Eq. 5")
    divergence_on: Literal["activation", "logits"] = Field(
        "activation", description="what Eq. 5 compares; kl needs activation"
    )
    area_correction: Literal["none", "paper", "sqrt", "square"] = Field(
        "none", description="divide by 1, N_c + 1, its root or its square"
    )
    smoothing: Literal["effective_number", "softmax"] = Field(
        "effective_number", description="Eq. 7, or its ablation"
    )
    softmax_temperature: float = Field(3.0, gt=0, description="tau' of smoothing: softmax")
    normalise: bool = Field(True, description="false skips Eq. 6, mu and sigma included")


AnyLoss = Annotated[CrossEntropy | KD | CWD | HWD, Field(discriminator="loss")]
