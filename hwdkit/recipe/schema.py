"""What a recipe may say, as frozen pydantic models with unknown keys forbidden.

No torch here, and no file access: `load.py` reads YAML into these, `engine/build.py` turns them into objects.
"""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from hwdkit.errors import RecipeError
from hwdkit.recipe.losses import AnyLoss
from hwdkit.recipe.protocol import Protocol
from hwdkit.recipe.section import Section

PAPER_SCALES = tuple(round(0.5 + k / 10, 1) for k in range(16))
"""0.5, 0.6 ... 2.0: the discrete scales of the HWD and CIRKD training code."""

RESUMABLE = {"data.workers", "train.log_every", "train.evaluate_every", "train.save_every"}
"""Keys that a resumed run may change: they move no weight."""

SAME_SCORES = (RESUMABLE | {"summary"}) - {"train.evaluate_every"}
"""Keys that change no weight and no score: validating more often finds another best."""


class Data(Section):
    """Which dataset, and how a training crop is cut from it."""

    dataset: str = Field(description="a prepared dataset in the data root: a known one, or your own")
    train_split: str = Field("train", description="split to train on")
    val_split: str = Field("val", description="split to evaluate on during training")
    crop: tuple[int, int] = Field((512, 512), description="height, width of a training crop, pixels")
    scales: tuple[float, ...] = Field(PAPER_SCALES, min_length=1, description="one at random per sample")
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    photometric: bool = Field(False, description="also distort colours, as mmsegmentation does")
    workers: int = Field(4, ge=0, description="loader processes per rank; changes speed only")

    @field_validator("dataset")
    @classmethod
    def _dataset_can_be_a_folder(cls, dataset: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", dataset):
            raise ValueError(
                "must be the name of a folder in the data root: letters, digits, '.', '_' and '-' only"
            )
        return dataset

    @field_validator("crop")
    @classmethod
    def _crop_is_positive(cls, crop: tuple[int, int]) -> tuple[int, int]:
        if min(crop) < 32:
            raise ValueError("a crop needs at least 32 pixels a side")
        return crop

    @field_validator("scales")
    @classmethod
    def _scales_are_positive(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0.1 <= s <= 10 for s in scales):
            raise ValueError("scales must lie within 0.1 and 10")
        return scales


class Input(Section):
    """How a network wants its pixels: channel order, value range, mean and std in that range."""

    channel_order: Literal["rgb", "bgr"] = Field("rgb", description="batches are RGB; bgr swaps them")
    range: Literal[1, 255] = Field(1, description="value of a white pixel before mean and std")
    mean: tuple[float, float, float] = Field((0.485, 0.456, 0.406), description="in that order and range")
    std: tuple[float, float, float] = Field((0.229, 0.224, 0.225), description="in that order and range")


class Network(Section):
    """A segmentation network: a timm backbone and a head."""

    backbone: str = Field(description="name of a timm model that supports features_only")
    backbone_options: dict[str, Any] = Field({}, description="passed to timm.create_model")
    output_stride: Literal[8, 16, 32] = Field(
        8, description="image size over that of the deepest map; 8 in the papers, 32 for transformers"
    )
    head: Literal["deeplabv3", "aspp", "pspnet", "fcn", "upernet", "segformer"] = Field(
        "deeplabv3", description="what turns features into logits"
    )
    head_channels: int | None = Field(None, ge=1, description="default: the papers' width for this backbone")
    aux: bool = Field(True, description="auxiliary FCN head on the second-last stage")
    pretrained: bool | str = Field(False, description="true: timm's ImageNet weights; or a local file")
    align_corners: bool = Field(True, description="of every bilinear resize; true in the papers' code")
    input: Input | None = Field(None, description="default: that of the backbone in timm")

    @field_validator("backbone_options", mode="before")
    @classmethod
    def _null_drops_what_a_base_sets(cls, options: Any) -> Any:
        return {} if options is None else options


class Teacher(Network):
    """The teacher: a network to train (train-teacher), or where a trained one lies (distill)."""

    backbone: str | None = None  # type: ignore[assignment]  # optional here: a trained teacher describes itself
    recipe: str | None = Field(None, description="recipe that trains it; its newest finished run is used")
    checkpoint: str | None = Field(None, description="a teacher.safetensors; wins over `recipe`")

    @model_validator(mode="after")
    def _names_one_source(self) -> Self:
        trained = self.recipe is not None or self.checkpoint is not None
        if (self.backbone is not None) == trained:
            raise ValueError(
                "needs either `backbone` (to train it) or `recipe`/`checkpoint` (trained already)"
            )
        return self


class Optimizer(Section):
    name: Literal["sgd", "adamw"] = Field("sgd", description="over all parameters, projectors included")
    lr: float = Field(0.01, gt=0, description="of the first step after warm-up; never scaled automatically")
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd only")
    betas: tuple[float, float] = Field((0.9, 0.999), description="adamw only")
    head_lr: float = Field(
        1.0, gt=0, description="factor of lr for all but the backbone: heads and parameters of losses"
    )
    weight_decay: float = Field(1e-4, ge=0, description="on every parameter, unless decay_norms is false")
    decay_norms: bool = Field(
        True,
        description="weight decay also on norms, biases and position embeddings, as in the papers",
    )
    power: float = Field(0.9, ge=0, description="poly decay: lr * (1 - step/iterations) ** power")
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")


class Train(Section):
    iterations: int = Field(40_000, ge=1, description="optimizer steps")
    batch_size: int = Field(8, ge=1, description="global: divided over ranks and accumulation")
    accumulate: int = Field(1, ge=1, description="micro-batches per step")
    amp: Literal["off", "bf16", "fp16"] = Field(
        "off", description="autocast type; losses are always float32; fp16 needs a GPU"
    )
    channels_last: bool = Field(
        False, description="memory format; much faster for depthwise networks on CPUs"
    )
    compile: bool = Field(
        False,
        description="torch.compile of both networks in training: minutes at the start; needs a C++ compiler",
    )
    kernels: Literal["torch", "triton"] = Field(
        "torch",
        description="triton: cross-entropy, CWD and HWD as fused kernels on a GPU, the same numbers; no GPU "
        "has timed them yet",
    )
    clip_grad_norm: float | None = Field(None, gt=0, description="largest norm of all gradients together")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of an averaged copy of the weights")
    deterministic: Literal["off", "warn", "strict"] = Field(
        "off", description="torch's deterministic algorithms; a CPU is bit-identical without them"
    )
    log_every: int = Field(50, ge=1, description="steps between log lines")
    evaluate_every: int = Field(4000, ge=1, description="steps between validations; the last step has one")
    keep_evaluated: bool = Field(
        False, description="keep the network of every validation: checkpoints/step-N.safetensors"
    )
    save_every: int = Field(1000, ge=1, description="steps between training states; the last step has one")

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of accumulate {self.accumulate}"
            )
        return self


class Recipe(Section):
    """One run, completely: data, networks, losses, optimisation."""

    name: str = Field("", description="default: the name of the file without its ending")
    summary: str = Field("", description="one line for `hwdkit recipes list`")
    seed: int = Field(0, ge=0, description="of weights, data order, augmentation and dropout")
    data: Data
    student: Network | None = None
    teacher: Teacher | None = None
    losses: dict[str, AnyLoss] = Field(default_factory=dict, validate_default=True)
    optimizer: Optimizer = Optimizer.model_validate({})
    train: Train = Train.model_validate({})
    evaluate: Protocol = Protocol()

    @field_validator("name")
    @classmethod
    def _name_can_be_a_folder(cls, name: str) -> str:
        if name.startswith(".") or "/" in name or "\\" in name:
            raise ValueError("becomes the name of a folder: no slash, no leading dot")
        return name

    @field_validator("losses", mode="before")
    @classmethod
    def _entry_names_its_loss(cls, losses: Any) -> Any:
        """`hwd: {...}` means `hwd: {loss: hwd, ...}`; CE is there unless a recipe weights it 0."""
        if not isinstance(losses, dict):
            return losses
        strange = [name for name in losses if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", str(name))]
        if strange:
            raise ValueError(f"{strange[0]!r} cannot name a loss: letters, digits, _ and - can")
        named = {"ce": {}, **losses}
        return {
            name: {"loss": name, **(options or {})} if isinstance(options, dict | None) else options
            for name, options in named.items()
        }

    @model_validator(mode="after")
    def _has_something_to_train(self) -> Self:
        distilled = sorted(name for name, loss in self.losses.items() if loss.loss != "ce")
        if self.student is None and (self.teacher is None or self.teacher.backbone is None):
            raise ValueError("needs a `student` to distil, or a `teacher` with a backbone to train")
        if distilled and self.student is not None and self.teacher is None:
            raise ValueError(f"losses {', '.join(distilled)} need a `teacher`")
        if distilled and self.student is None:
            raise ValueError(
                f"losses {', '.join(distilled)} need a `student`; a teacher is trained with ce alone"
            )
        return self

    @property
    def trains(self) -> Literal["student", "teacher"]:
        """Which of its networks this recipe trains."""
        return "teacher" if self.student is None else "student"

    @property
    def network(self) -> Network:
        """The network that this recipe trains."""
        section = self.student or self.teacher
        assert section is not None
        return section

    def student_taught(self, *, by: str | None = None) -> Self:
        """The recipe as distill reads it.

        Args:
            by: checkpoint or run directory of a trained teacher, which becomes the recipe's one source of a
                teacher; None leaves the recipe's own.

        Raises:
            RecipeError: there is no student, or nobody learns from a teacher.
        """
        if self.student is None:
            raise RecipeError(f"recipe {self.name} has no student to train", hint="use: hwdkit train-teacher")
        if by is None:
            return self
        if self.teacher is None:
            raise RecipeError(
                f"recipe {self.name} has no teacher: none of its losses learns from one",
                hint="leave out --teacher, or choose a recipe that distils",
            )
        trained = self.teacher.model_copy(update={"checkpoint": by, "backbone": None})
        return self.model_copy(update={"teacher": trained})

    def teacher_alone(self) -> Self:
        """The recipe as train-teacher reads it: nobody teaches the teacher.

        Raises:
            RecipeError: it describes no teacher to train.
        """
        if self.teacher is None or self.teacher.backbone is None:
            raise RecipeError(f"recipe {self.name} has no teacher to train", hint="use: hwdkit distill")
        alone = {name: loss for name, loss in self.losses.items() if loss.loss == "ce"}
        return self.model_copy(update={"losses": alone, "student": None})
