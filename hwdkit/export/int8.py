"""Post-training int8 of an ONNX file by onnxruntime, and what it costs and saves, measured.

Static quantisation in the QDQ form, weights per output channel, activations calibrated on pictures.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hwdkit.checkpoints.files import METADATA_KEY
from hwdkit.errors import CheckpointError, HwdkitError
from hwdkit.export.deployed import Form, first_line
from hwdkit.export.files import Exported
from hwdkit.export.silence import silence
from hwdkit.export.verify import as_input, resized
from hwdkit.metrics import ConfusionMatrix
from hwdkit.models.segmenter import Segmenter

QUANTISED = ("Conv", "Gemm", "MatMul", "Add", "Concat", "MaxPool", "Resize")
"""Where the time goes, and what lies between. Normalisation, softmax and the like stay float32."""


class _Pictures:
    """onnxruntime's reader of calibration data: one batch after another, then None."""

    def __init__(self, batches: Iterator[Tensor]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch.numpy()}


def quantise(source: Path, target: Path, batches: Iterator[Tensor], *, metadata: dict[str, Any]) -> None:
    """Write the int8 twin of an ONNX file.

    Args:
        source: the float32 file.
        target: where to.
        batches: what to calibrate on, as the file wants its input.
        metadata: the description that the new file carries.

    Raises:
        CheckpointError: onnxruntime cannot quantise this network.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with silence():
        try:
            quantize_static(
                str(source),
                str(target),
                _Pictures(batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except (HwdkitError, OSError, MemoryError):  # a picture, the disk
            raise
        except Exception as error:  # onnxruntime's own types share no base class
            raise CheckpointError(
                f"onnxruntime cannot make 8 bits of it ({first_line(error)})", hint="leave out --int8"
            ) from error
        model = onnx.load(str(target))
        onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})
        onnx.save(model, str(target))


def to_batches(pictures: Iterable[Tensor], model: Segmenter, form: Form) -> Iterator[Tensor]:
    """Each picture as a file of this form wants it: at its own size if the file takes any, else resized."""
    for picture in pictures:
        fitted = picture if form.any_size else resized(picture, form.size)
        yield as_input(fitted[None], model, form)


@torch.no_grad()
def miou(exported: Exported, pairs: Iterable[tuple[Tensor, Tensor]], model: Segmenter, form: Form) -> float:
    """mIoU of a file, 0..1, over the classes that occur, at the labels' own size.

    Args:
        exported: the file.
        pairs: image (3, H, W) uint8, label (H, W).
        model: knows the input contract and how logits are resized.
        form: of the file; see `to_batches` for the size that is fed.
    """
    matrix = ConfusionMatrix(model.spec.classes)
    for image, label in pairs:
        (batch,) = to_batches([image], model, form)
        answer = exported(batch)
        if form.output == "classes":
            resize = torch.nn.functional.interpolate(
                answer[:, None].float(), tuple(label.shape), mode="nearest"
            )
            prediction = resize[0, 0].long()
        else:
            prediction = model.upsample(answer, label.shape)[0].argmax(0)
        matrix.update(label, prediction)
    return matrix.miou()


def latency_ms(files: dict[str, Exported], batch: Tensor, *, repeats: int = 20) -> dict[str, float]:
    """Median wall-clock milliseconds of a pass of each file; the files take turns, so that load hits all."""
    times: dict[str, list[float]] = {name: [] for name in files}
    for name in files:
        for _ in range(3):
            files[name](batch)
    for _ in range(repeats):
        for name, exported in files.items():
            start = time.perf_counter()
            exported(batch)
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(found) for name, found in times.items()}
