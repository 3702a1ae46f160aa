"""Post-training int8 of an ONNX file by onnxruntime, and what it costs and saves, measured.

Static quantisation in the QDQ form, weights per output channel, activations calibrated on pictures.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hwdkit.checkpoints.files import METADATA_KEY
from hwdkit.errors import CheckpointError, HwdkitError
from hwdkit.export.deployed import Form, first_line
from hwdkit.export.files import Exported
from hwdkit.export.silence import silence
from hwdkit.export.verify import as_input, resized
from hwdkit.measure.latency import timed
from hwdkit.metrics import ConfusionMatrix
from hwdkit.models.segmenter import Segmenter

QUANTISED = ("Conv", "Gemm", "MatMul", "Add", "Concat", "MaxPool", "Resize")
"""Where the time goes, and what lies between. Normalisation, softmax and the like stay float32."""


def quantise(source: Path, target: Path, batches: Iterator[Tensor], *, metadata: dict[str, Any]) -> None:
    """Write an ONNX file again in int8, calibrated on batches of its inputs.

    Raises:
        CheckpointError: onnxruntime cannot quantise this network.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    feeds = ({"image": batch.numpy()} for batch in batches)
    with silence():
        try:
            quantize_static(
                str(source),
                str(target),
                SimpleNamespace(get_next=lambda: next(feeds, None)),
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
                f"onnxruntime cannot quantise it ({first_line(error)})", hint="leave out --int8"
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
def miou(
    exported: Exported,
    pairs: Iterable[tuple[int, Tensor, Tensor]],
    model: Segmenter,
    form: Form,
    *,
    advance: Callable[[int], None] = lambda done: None,
) -> float:
    """mIoU of a file, 0..1, over the classes that occur, at the labels' own size.

    Args:
        pairs: index, image (3, H, W) uint8, label (H, W).
        model: knows the input contract and how logits are resized.
        form: of the file; see `to_batches` for the size that is fed.
        advance: called with the number of images done.
    """
    matrix = ConfusionMatrix(model.spec.classes)
    for done, (_, image, label) in enumerate(pairs, start=1):
        (batch,) = to_batches([image], model, form)
        answer = exported(batch)
        if form.output == "classes":
            resized_classes = F.interpolate(answer[:, None].float(), tuple(label.shape), mode="nearest")
            prediction = resized_classes[0, 0].long()
        else:
            prediction = model.upsample(answer, label.shape)[0].argmax(0)
        matrix.update(label, prediction)
        advance(done)
    return matrix.miou()


def latency_ms(files: dict[str, Exported], batch: Tensor, *, repeats: int = 20) -> dict[str, float]:
    """Median wall-clock milliseconds of a pass of each file; the files take turns, so that load hits all."""
    times: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(3 + repeats):
        for name, exported in files.items():
            times[name].append(timed(partial(exported, batch), batch.device))
    return {name: statistics.median(runs[3:]) for name, runs in times.items()}
