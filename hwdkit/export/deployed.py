"""The network as it is deployed: no auxiliary head, evaluation mode, one tensor in and one out.

How such a module becomes a file is `files.py`.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from hwdkit.engine.networks import Loaded
from hwdkit.errors import CheckpointError
from hwdkit.export.silence import silence
from hwdkit.models.backbone import feature_maps
from hwdkit.models.segmenter import Segmenter

Axis = Literal["batch", "height", "width"]
AXES: dict[Axis, int] = {"batch": 0, "height": 2, "width": 3}


@dataclass(frozen=True)
class Form:
    """What goes into an exported network and what comes out.

    Attributes:
        size: (H, W) of the image in pixels; of a dynamic axis, the value that it is traced with.
        dynamic: axes that the file leaves open; the batch is 1 unless it is one of them.
        output: "logits" at the network's own stride, "full" logits at the image's size, or "classes".
        baked: the input is uint8 RGB and the normalisation is inside; otherwise float32, normalised already.
    """

    size: tuple[int, int] = (512, 512)
    dynamic: frozenset[Axis] = frozenset()
    output: Literal["logits", "full", "classes"] = "logits"
    baked: bool = False

    @property
    def any_size(self) -> bool:
        """Whether height and width are both open."""
        return {"height", "width"} <= self.dynamic

    def shapes(self) -> list[tuple[int, int, int]]:
        """(N, H, W) to verify at: the traced size and, if an axis is open, one that no stride divides."""
        first = (1, *self.size)
        if not self.dynamic:
            return [first]
        height, width = (
            side * 5 // 4 + 3 if axis in self.dynamic else side
            for axis, side in zip(("height", "width"), self.size, strict=True)
        )
        return [first, (2 if "batch" in self.dynamic else 1, height, width)]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            **dataclasses.asdict(self),
            "size": list(self.size),
            "dynamic": [axis for axis in AXES if axis in self.dynamic],
        }


class Deployed(nn.Module):
    """(N, 3, H, W) in, the form's output out; a copy, so that the network it is made of stays as it is.

    Args:
        model: a Segmenter.
        form: see `Form`.
    """

    def __init__(self, model: Segmenter, form: Form) -> None:
        super().__init__()
        self.form = form
        self.contract = model.contract
        self.classes = model.spec.classes
        self.backbone = copy.deepcopy(model.backbone)
        self.head = copy.deepcopy(model.head)
        mean, std = model.contract.pixel_statistics()
        self.register_buffer("pixel_mean", mean)
        self.register_buffer("pixel_std", std)
        if form.dynamic & {"height", "width"}:
            _pool_by_matrices(self.head)
            _pool_by_matrices(self.backbone)
        self.cpu().eval()

    def forward(self, image: Tensor) -> Tensor:
        """Map pixels, uint8 or normalised as the form says, to logits or class ids."""
        pixels = image
        if self.form.baked:
            pixels = self.contract.normalise(
                image, (self.get_buffer("pixel_mean"), self.get_buffer("pixel_std"))
            )
        # Not Segmenter.forward_normalised: its check of the batch fixes the batch's size in the trace.
        logits = cast(Tensor, self.head(feature_maps(self.backbone, pixels))[0])
        if self.form.output == "logits":
            return logits
        full = F.interpolate(
            logits, image.shape[-2:], mode="bilinear", align_corners=self.contract.align_corners
        )
        if self.form.output == "full":
            return full
        return full.argmax(1).to(torch.uint8 if self.classes <= 256 else torch.int32)


class MatrixPool2d(nn.Module):
    """Adaptive average pooling as two matrix products, which is the same for maps of every size.

    Bin i of S averages the rows floor(i L / S) to ceil((i + 1) L / S) - 1 of L, as `nn.AdaptiveAvgPool2d`
    does. That one becomes an ONNX graph with the bins of the traced size, which computes something else at
    other sizes.
    """

    def __init__(self, bins: tuple[int | None, int | None]) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, map_: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, *bins); None keeps an axis as it is."""
        rows, columns = self.bins
        if rows is not None:
            map_ = _averages(rows, map_.shape[-2], map_) @ map_
        if columns is not None:
            map_ = map_ @ _averages(columns, map_.shape[-1], map_).T
        return map_


def _averages(bins: int, length: int, like: Tensor) -> Tensor:
    """(bins, length): each row averages the positions of one bin."""
    position = torch.arange(length, device=like.device)[None]
    i = torch.arange(bins, device=like.device)[:, None]
    start, end = i * length // bins, ((i + 1) * length + bins - 1) // bins
    inside = ((position >= start) & (position < end)).to(like.dtype)
    return inside / (end - start).to(like.dtype)


def _pool_by_matrices(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.AdaptiveAvgPool2d):
            size = child.output_size
            rows, columns = size if isinstance(size, tuple) else (size, size)
            if (rows, columns) != (1, 1):  # a mean over everything is one at every size
                setattr(module, name, MatrixPool2d((rows, columns)))
        else:
            _pool_by_matrices(child)


def trace(loaded: Loaded, form: Form) -> ExportedProgram:
    """Record the deployed network as a graph.

    Raises:
        CheckpointError: it cannot be recorded; says what can be tried.
    """
    network = Deployed(loaded.model, form)
    where, name = str(loaded.path), loaded.model.spec.backbone
    if form.dynamic & {"height", "width"} and _shifts_windows(network.backbone):
        raise CheckpointError(
            f"{name} cuts the image into shifted windows: its height and width cannot be left open",
            where=where,
            hint=STATIC,
        )
    dtype = torch.uint8 if form.baked else torch.float32
    # A batch of 1 would be taken for a constant.
    example = torch.zeros(2 if "batch" in form.dynamic else 1, 3, *form.size, dtype=dtype)
    axes = {index: Dim.DYNAMIC if axis in form.dynamic else Dim.STATIC for axis, index in AXES.items()}
    try:
        with torch.no_grad(), silence():
            program = torch.export.export(network, (example,), dynamic_shapes=(axes,))
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # torch.export has dozens of ways to say that it cannot
        raise untraceable(error, form, where=where) from error
    _forget_source(program)
    return program


STATIC = "export one size: leave out --dynamic and give --input HxW"


def first_line(error: Exception) -> str:
    """The type of somebody else's error and the first thing it says; the rest can be pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def untraceable(error: Exception, form: Form, *, where: str) -> CheckpointError:
    """What to tell the user when torch or onnxscript could not export a network."""
    first = first_line(error)
    if form.dynamic:
        axes = ", ".join(axis for axis in AXES if axis in form.dynamic)
        return CheckpointError(
            f"cannot be exported with {axes} left open ({first})", where=where, hint=STATIC
        )
    return CheckpointError(f"cannot be exported ({first})", where=where)


def _forget_source(program: ExportedProgram) -> None:
    """Drop where in the source each operator came from: paths of this machine, which both formats keep."""
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def _shifts_windows(backbone: nn.Module) -> bool:
    """Whether timm's Swin: torch.export does not come to an end on its masks of unknown size."""
    return any(hasattr(module, "always_partition") for module in backbone.modules())
