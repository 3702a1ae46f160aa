"""The options of every loss as a recipe spells them, torch-free so that a typo fails in milliseconds.

Each class mirrors one constructor in `hwdkit.losses` (a test compares names and defaults) and adds what
belongs to the recipe alone: the weight and its schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self, Union

from pydantic import Field, model_validator

from hwdkit.recipe.section import Section

Tap = Literal["logits", "embedding", "stage1", "stage2", "stage3", "stage4"]
Projector = Literal["auto", "none", "linear", "linear_bn_relu"]


class Schedule(Section):
    """How the weight of a loss changes over training; by default it is constant."""

    warmup: float = Field(0.0, ge=0, le=1, description="share of the run in which it rises from 0, linearly")
    decay: float = Field(0.0, ge=0, le=1, description="share at the end in which it falls to 0, linearly")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup {self.warmup} and decay {self.decay} are more than the whole run")
        return self


class LossOptions(Section):
    """What every loss entry of a recipe has; `loss` defaults to the entry's own name."""

    loss: str
    weight: float = Field(1.0, ge=0, description="factor of this term; 0 leaves it out")
    schedule: Schedule = Field(Schedule.model_validate({}), description="linear rise and fall of the weight")

    def constructor_options(self) -> dict[str, object]:
        """The keyword arguments of the loss's constructor."""
        return self.model_dump(exclude=set(LossOptions.model_fields))


class FeatureOptions(LossOptions):
    """What every loss has that compares one map of each network."""

    tap: Tap = Field("embedding", description="the map that is compared")
    teacher_tap: Tap | None = Field(None, description="the teacher's map, if another one; null = the same")


class CrossEntropy(LossOptions):
    """Task loss on logits up-sampled to the label's size, plus the auxiliary head's."""

    loss: Literal["ce"] = "ce"
    aux_weight: float = Field(0.4, ge=0, description="share of the auxiliary head")


class KD(LossOptions):
    """Per-pixel KL over classes (Hinton et al.; "PI" in SKD)."""

    loss: Literal["kd"] = "kd"
    temperature: float = Field(1.0, gt=0, description="tau of the softmax over classes")
    reduction: Literal["pixel", "element", "batch_sum"] = Field(
        "pixel", description="as in CIRKD and HWD, in IFVD and CWD, in SKD; each with another weight"
    )


class CWD(FeatureOptions):
    """Channel-wise distillation (Shu et al., ICCV 2021)."""

    loss: Literal["cwd"] = "cwd"
    tap: Tap = Field("logits", description="the map that is compared")
    temperature: float = Field(4.0, gt=0, description="tau of the softmax over positions")
    normalise: Literal["channel", "spatial", "channel_mean", "none"] = Field(
        "channel", description="softmax over positions, over channels, mean of a channel, or the raw map"
    )
    divergence: Literal["kl", "bhattacharyya", "l2"] = Field("kl", description="metrics of Table 3")
    projector: Projector = Field("auto", description="of the student's channels; auto: where they differ")
    official_divisor: bool = Field(
        False, description="divide by the student's channels before the projector, as CIRKD's code does"
    )


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


class Pairwise(FeatureOptions):
    """Pair-wise affinity of pooled positions (SKD, Liu et al., CVPR 2019; "PA")."""

    loss: Literal["pairwise"] = "pairwise"
    kernel: int = Field(2, ge=1, description="side of the max-pooling; CIRKD and HWD")
    scale: float | None = Field(
        None, gt=0, le=1, description="kernel = int(scale * size) instead; SKD's code: 0.5"
    )
    detach_norm: bool = Field(False, description="no gradient through the norm, as in SKD's code")


class Holistic(LossOptions):
    """Adversarial distillation of the whole score map (SKD, Liu et al., CVPR 2019; "HO")."""

    loss: Literal["holistic"] = "holistic"
    adversary: Literal["hinge", "wgan_gp"] = Field(
        "hinge", description="hinge: HWD, CIRKD; wgan_gp: SKD, IFVD, CWD"
    )
    critic_weight: float = Field(0.1, gt=0, description="factor of the critic's own loss")
    gradient_penalty: float = Field(10.0, ge=0, description="wgan_gp only")
    preprocess: Literal["batch_norm", "tanh", "scale"] = Field(
        "batch_norm", description="of the critic's input; every code's default is batch_norm"
    )
    critic_optimizer: Literal["adam", "sgd"] = Field("adam", description="sgd: SKD's code")
    critic_lr: float = Field(4e-4, gt=0, description="its learning rate")
    critic_betas: tuple[float, float] = Field((0.9, 0.99), description="adam only")
    critic_momentum: float = Field(0.9, ge=0, lt=1, description="sgd only")
    critic_weight_decay: float = Field(0.0, ge=0, description="of the critic")
    critic_power: float = Field(0.9, ge=0, description="poly decay of that; 0 = constant (CIRKD)")


class IFV(FeatureOptions):
    """Intra-class feature variation (IFVD, Wang et al., ECCV 2020)."""

    loss: Literal["ifv"] = "ifv"


class CirkdMinibatch(FeatureOptions):
    """Cross-image relations within a batch (CIRKD, Yang et al., CVPR 2022)."""

    loss: Literal["cirkd_minibatch"] = "cirkd_minibatch"
    temperature: float = Field(0.1, gt=0, description="tau of the softmax over similarities")
    pool: int = Field(1, ge=1, description="side of an average pooling before; 1 = none")


class CirkdMemory(FeatureOptions):
    """Cross-image relations to queues of pixels and regions (CIRKD, Yang et al., CVPR 2022)."""

    loss: Literal["cirkd_memory"] = "cirkd_memory"
    temperature: float = Field(0.1, gt=0, description="tau of the softmax over similarities")
    pixel_weight: float = Field(0.1, ge=0, description="share of pixel-to-pixel")
    region_weight: float = Field(0.1, ge=0, description="share of pixel-to-region")
    pixel_queue: int = Field(20_000, ge=1, description="pixels remembered per class")
    region_queue: int = Field(2_000, ge=1, description="regions remembered per class")
    pixels_per_class: int = Field(16, ge=1, description="pixels stored per class and image")
    pixel_negatives: int = Field(4096, ge=1, description="pixels contrasted with, divided over classes")
    region_negatives: int = Field(1024, ge=1, description="regions contrasted with, divided over classes")
    official_enqueue: bool = Field(
        False, description="as in the published code, an error: pixels of the whole image, not of their class"
    )


class DIST(LossOptions):
    """Relations between and within classes by correlation (DIST, Huang et al., NeurIPS 2022)."""

    loss: Literal["dist"] = "dist"
    beta: float = Field(1.0, ge=0, description="weight of the inter-class relation")
    gamma: float = Field(1.0, ge=0, description="weight of the intra-class relation")
    softmax: bool = Field(True, description="over classes first; officially true, in HWD's tables false")
    aux_weight: float = Field(0.0, ge=0, description="share of the auxiliary heads; official 0.4")


class MGD(FeatureOptions):
    """Masked generation of the teacher's map (MGD, Yang et al., ECCV 2022)."""

    loss: Literal["mgd"] = "mgd"
    mask_ratio: float = Field(0.75, ge=0, lt=1, description="share of positions that are masked")


class Mimic(FeatureOptions):
    """Distance between features (FitNet, Romero et al., ICLR 2015; "MIMIC")."""

    loss: Literal["mimic"] = "mimic"
    distance: Literal["mse", "l1"] = Field("mse", description="mean squared or mean absolute difference")
    projector: Projector = Field("auto", description="of the student's channels; auto: where they differ")


class AT(FeatureOptions):
    """Attention transfer (Zagoruyko and Komodakis, ICLR 2017)."""

    loss: Literal["at"] = "at"
    power: float = Field(2.0, gt=0, description="p of the sum over channels of |F|**p")


class Local(FeatureOptions):
    """Similarity of each position to its eight neighbours (Xie et al. 2018; "LOCAL")."""

    loss: Literal["local"] = "local"
    tap: Tap = Field("logits", description="the map that is compared")
    distance: Literal["mse", "l1"] = Field("mse", description="mean squared or mean absolute difference")


class AfDCD(FeatureOptions):
    """Augmentation-free dense contrastive distillation (Fan et al., NeurIPS 2023)."""

    loss: Literal["af_dcd"] = "af_dcd"
    tap: Tap = Field("stage4", description="the map that is compared")
    feature_weight: float = Field(2e-6, ge=0, description="share of the masked reconstruction")
    contrast_weight: float = Field(0.005, ge=0, description="share of the contrast")
    mask: Literal["random", "centre"] = Field("random", description="which positions are masked")
    mask_ratio: float = Field(0.75, ge=0, lt=1, description="share of positions; random only")
    pool: int = Field(4, ge=1, description="side of the max-pooling before contrasting")
    patch: int = Field(4, ge=1, description="side of the patches that negatives come from")
    groups: int = Field(16, ge=1, description="groups of channels that the teacher's are cut into")
    temperature: float = Field(0.07, gt=0, description="tau of the contrast")


class PKD(FeatureOptions):
    """Correlation of features by channel (PKD, Cao et al., NeurIPS 2022)."""

    loss: Literal["pkd"] = "pkd"
    projector: Projector = Field("auto", description="of the student's channels; auto: where they differ")


LOSS_OPTIONS: dict[str, type[LossOptions]] = {
    options.model_fields["loss"].default: options
    for options in list(globals().values())
    if isinstance(options, type)
    and issubclass(options, LossOptions)
    and not options.model_fields["loss"].is_required()
}
"""The classes above that name a loss, by that name."""

if TYPE_CHECKING:
    AnyLoss = LossOptions
else:
    AnyLoss = Annotated[Union[tuple(LOSS_OPTIONS.values())], Field(discriminator="loss")]  # noqa: UP007
