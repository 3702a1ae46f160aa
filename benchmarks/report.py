"""What the per-class report costs an image beside the forward pass that it needs, and beside the plain way.

The plain way is written here from the description of the papers' evaluation: all logits stretched to the
image, argmax, three histograms; and, since nobody has published code for TD and NTD, a loop over the classes.
Pieces are interleaved, so that a busy machine slows all alike. Memory is what torch's allocator hands out
beyond what is there before. Both ways must agree, or nothing is printed.

    python benchmarks/report.py --out benchmarks/results/MACHINE-COMMIT-report.json
    python benchmarks/report.py --quick      # a small image, to see that everything runs
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from measurement import begin, circumstances, keep, milliseconds, parser, random_batch
from plain import histograms
from torch import Tensor

from hwdkit.kernels.bilinear_argmax import upsampled_argmax
from hwdkit.losses.labels import small_label
from hwdkit.measure.divergence import Divergence, Measure, image_sums
from hwdkit.measure.memory import MIB, peak_bytes
from hwdkit.metrics import ConfusionMatrix
from hwdkit.models.segmenter import NetworkSpec, build

STUDENTS = 3
"""A report usually compares the baseline, another method and the student with one teacher."""

Piece = Callable[[], Any]


def main() -> None:
    arguments = parse()
    begin(arguments)
    result = circumstances(arguments)
    result["figures"] = [measured(classes, arguments) for classes in arguments.classes]
    print(json.dumps(result, indent=2))
    keep(result, arguments.out)


@torch.no_grad()
def measured(classes: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Median milliseconds and peak memory of every piece, and the ratios that matter."""
    device = torch.device(arguments.device)
    pieces = pieces_of(classes, arguments)
    times: dict[str, list[float]] = {name: [] for name in pieces}
    for turn in range(arguments.rounds + 1):
        for name, work in pieces.items():
            if name == "forward" and turn > arguments.forwards:
                continue
            spent = milliseconds(work, device)
            if turn:  # the first is warm-up
                times[name].append(spent)
    median = {name: statistics.median(values) for name, values in times.items()}
    memory = {name: round(peak_bytes(work, device) / MIB, 1) for name, work in pieces.items()}
    each = median["metric"] + median["divergence, one student"]
    return {
        "classes": classes,
        "median_ms": {name: round(value, 1) for name, value in median.items()},
        "peak_mib": memory,
        "metric_plain_over_ours": round(median["metric, plain"] / median["metric"], 2),
        "divergence_plain_over_ours": round(
            median["divergence, plain, one student"] / median["divergence, one student"], 2
        ),
        "three_students_over_one": round(
            median[f"divergence, {STUDENTS} students"] / median["divergence, one student"], 2
        ),
        "figures_over_forward": round(each / median["forward"], 3),
    }


def pieces_of(classes: int, arguments: argparse.Namespace) -> dict[str, Piece]:
    """The forward pass of one student, and what follows it, on one image."""
    device = torch.device(arguments.device)
    batch = random_batch(1, tuple(arguments.image), classes, device)
    label = batch.label[0]
    model = build(NetworkSpec(arguments.backbone, classes, aux=False)).to(device).eval()
    logits = model(batch.image).logits.float()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(STUDENTS + 1, *logits.shape[1:], generator=generator).to(device)
    noise = 3 * F.avg_pool2d(noise, 5, 1, 2) + logits  # smooth, as logits are
    teacher, students = noise[0], {str(i): noise[i] for i in range(1, STUDENTS + 1)}
    one = {"1": students["1"]}
    corners = model.contract.align_corners
    require_agreement(one["1"], teacher, label, corners)
    return {
        "forward": lambda: model(batch.image),
        "metric": lambda: metric(one["1"], label, corners),
        "metric, plain": lambda: plain_metric(one["1"], label, corners),
        "divergence, one student": lambda: divergence(one, teacher, label),
        f"divergence, {STUDENTS} students": lambda: divergence(students, teacher, label),
        "divergence, plain, one student": lambda: plain_divergence(one["1"], teacher, label),
    }


def metric(logits: Tensor, label: Tensor, corners: bool) -> ConfusionMatrix:
    matrix = ConfusionMatrix(len(logits), logits.device)
    size = (label.shape[0], label.shape[1])
    matrix.update(label, upsampled_argmax(logits, size, align_corners=corners))
    return matrix


def plain_metric(logits: Tensor, label: Tensor, corners: bool) -> tuple[Tensor, Tensor]:
    """(intersection, union) of every class by histograms of the stretched logits' argmax."""
    stretched = F.interpolate(logits[None], label.shape, mode="bilinear", align_corners=corners)
    return histograms(stretched[0].argmax(0), label, len(logits))


def divergence(students: dict[str, Tensor], teacher: Tensor, label: Tensor) -> dict[str, Divergence]:
    found = {name: Divergence(len(teacher), device=teacher.device) for name in students}
    for name, sums in image_sums(students, teacher, label, Measure()).items():
        found[name].update(sums)
    return found


def plain_divergence(student: Tensor, teacher: Tensor, label: Tensor) -> list[tuple[float, float]]:
    """(TD, NTD) of every class, one class after the other."""
    small = small_label(label[None], (student.shape[1], student.shape[2]))[0].flatten()
    counted = small < len(student)
    found = []
    for c in range(len(student)):
        p_s, p_t = ((one[c].double().flatten() / 4.0).softmax(0) for one in (student, teacher))
        squared = (p_t - p_s) ** 2
        found.append((float(squared[small == c].mean()), float(squared[(small != c) & counted].mean())))
    return found


def require_agreement(student: Tensor, teacher: Tensor, label: Tensor, corners: bool) -> None:
    """Both ways compute the same, but for single pixels where two classes are equal up to rounding."""
    intersection, union = plain_metric(student, label, corners)
    expected = (intersection / union).double()
    torch.testing.assert_close(
        metric(student, label, corners).iou(), expected, rtol=1e-3, atol=0, equal_nan=True
    )
    ours = divergence({"s": student}, teacher, label)["s"].classes()
    for (td, ntd), row in zip(plain_divergence(student, teacher, label), ours, strict=True):
        assert row.ntd is not None
        assert abs(row.ntd - ntd) <= 1e-9 * ntd
        assert row.td is None or abs(row.td - td) <= 1e-9 * td


def parse() -> argparse.Namespace:
    options = parser(__doc__, rounds=7, quick="128 x 256 pixels, 5 classes, 2 rounds")
    options.add_argument("--image", type=int, nargs=2, default=[1024, 2048], metavar=("H", "W"))
    options.add_argument("--classes", type=int, nargs="+", default=[19, 150])
    options.add_argument("--backbone", default="resnet18", help="of a DeepLabV3 at output stride 8")
    options.add_argument("--forwards", type=int, default=2, help="rounds that hold a forward pass")
    arguments = options.parse_args()
    if arguments.quick:
        arguments.image, arguments.classes, arguments.rounds = [128, 256], [5], 2
    return arguments


if __name__ == "__main__":
    main()
