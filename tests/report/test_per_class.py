"""The per-class report: TD and NTD against plain loops, IoU against class maps, the kept examples."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from hwdkit.losses import HWD
from hwdkit.metrics import ConfusionMatrix
from hwdkit.models.segmenter import NetworkSpec, Segmenter, build
from hwdkit.report.per_class import Divergence, Entrant, Subject, per_class
from hwdkit.report.types import PerClassReport
from hwdkit.types import IGNORE

CLASSES = 5
CPU = torch.device("cpu")
TAU = 4.0


def batch(seed: int, n: int = 3, *, absent: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of student and teacher, and a label with ignored pixels and without one class."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 3 * torch.randn(2, n, CLASSES, 3, 4, generator=generator)
    label = torch.randint(0, CLASSES, (n, 12, 16), generator=generator)
    label[label == absent] = IGNORE
    return student, teacher, label


def naive(student: Tensor, teacher: Tensor, label: Tensor) -> list[tuple[float, float]]:
    """(TD, NTD) of every class, position by position, in Python's own float64."""
    small = label[:, ::4, ::4].flatten(1).tolist()
    sums = [[0.0, 0.0] for _ in range(CLASSES)]
    counts = [[0, 0] for _ in range(CLASSES)]
    for n in range(len(label)):
        for c in range(CLASSES):
            maps = [(z[n, c].double().flatten() / TAU).softmax(0).tolist() for z in (student, teacher)]
            for position, named in enumerate(small[n]):
                if named == IGNORE:
                    continue
                other = int(named != c)
                sums[c][other] += (maps[0][position] - maps[1][position]) ** 2
                counts[c][other] += 1
    return [
        tuple(s / k if k else math.nan for s, k in zip(*row, strict=True))  # type: ignore[misc]
        for row in zip(sums, counts, strict=True)
    ]


def divergence_of(*batches: tuple[Tensor, Tensor, Tensor]) -> Divergence:
    divergence = Divergence(CLASSES, temperature=TAU, device=CPU)
    for one in batches:
        divergence.update(*one)
    return divergence


def test_divergences_are_those_of_a_plain_loop() -> None:
    one = batch(0)
    found = divergence_of(one)
    td, ntd = zip(*naive(*one), strict=True)
    assert found.td().tolist() == pytest.approx(td, rel=1e-12, nan_ok=True)
    assert found.ntd().tolist() == pytest.approx(ntd, rel=1e-9)
    ratio = [t / o for t, o in zip(td, ntd, strict=True)]
    assert (found.td() / found.ntd()).tolist() == pytest.approx(ratio, rel=1e-9, nan_ok=True)


def test_divergences_of_a_split_are_means_over_its_pixels_and_not_over_its_images() -> None:
    first, second = batch(1, 1), batch(2, 2, absent=0)
    together = tuple(torch.cat(pair) for pair in zip(first, second, strict=True))
    assert divergence_of(first, second).td().tolist() == pytest.approx(
        [td for td, _ in naive(*together)], rel=1e-12
    )


def test_mean_weight_is_that_of_plain_hwd_over_the_images() -> None:
    first, second = batch(3, 1), batch(4, 2)
    weights = [HWD(temperature=TAU).channel_weights(*one) for one in (first, second)]
    expected = torch.cat(weights).double().mean(0)
    torch.testing.assert_close(divergence_of(first, second).mean_weight(), expected)
    assert expected.sum().item() == pytest.approx(CLASSES, rel=1e-6)


def test_ignored_pixels_count_nowhere() -> None:
    """Swapping the student's logits among ignored positions leaves all other activations as they are."""
    student, teacher, label = batch(5, 1)
    label[:, 4:8] = IGNORE
    swapped = student.clone()
    swapped[:, :, 1] = student[:, :, 1].flip(-1)
    before, after = divergence_of((student, teacher, label)), divergence_of((swapped, teacher, label))
    torch.testing.assert_close(before.td(), after.td(), equal_nan=True)
    torch.testing.assert_close(before.ntd(), after.ntd())


def test_class_without_a_pixel_has_no_target_divergence() -> None:
    found = divergence_of(batch(6, absent=2))
    assert found.td().isnan().tolist() == [False, False, True, False, False]
    assert not found.ntd().isnan().any()


class Split:
    """Three networks, synthetic images, and what the report should say about them."""

    def __init__(self, strides: dict[str, int]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (5, 3, 48, 40), dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(0, CLASSES - 1, (5, 48, 40), generator=generator)
        self.labels[:, :6] = IGNORE
        self.networks = {name: network(seed, stride) for seed, (name, stride) in enumerate(strides.items())}

    def report(self, **options: object) -> PerClassReport:
        entrants = tuple(
            Entrant(name, name, model, f"{name}.safetensors", name)  # type: ignore[arg-type]
            for name, model in self.networks.items()
        )
        subject = Subject(
            dataset="noise",
            split="val",
            fingerprint="0",
            classes=tuple("abcde"),
            palette=tuple((c, c, c) for c in range(CLASSES)),
            image_name=lambda index: f"image {index}",
        )
        return per_class(entrants, self.pairs(), subject, **options)  # type: ignore[arg-type]

    def pairs(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        for index, (image, label) in enumerate(zip(self.images, self.labels, strict=True)):
            yield index, image, label

    @torch.no_grad()
    def maps(self, name: str) -> Tensor:
        model = self.networks[name].eval()
        return model.upsample(model(self.images).logits, (48, 40)).argmax(1)

    def disagreement(self) -> list[float]:
        differing = (self.maps("student") != self.maps("teacher")) & (self.labels != IGNORE)
        return (differing.sum((1, 2)) / (self.labels != IGNORE).sum((1, 2))).tolist()


def network(seed: int, stride: int) -> Segmenter:
    torch.manual_seed(seed)
    options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    model = build(
        NetworkSpec(
            "resnet18", CLASSES, options, output_stride=stride, head="fcn", head_channels=8, aux=False
        )
    )
    torch.nn.init.normal_(model.head.classifier.weight, std=3.0)  # type: ignore[union-attr, arg-type]
    return model


@pytest.fixture(scope="module")
def split() -> Split:
    return Split({"teacher": 8, "student": 8, "baseline": 8})


@pytest.fixture(scope="module")
def report(split: Split) -> PerClassReport:
    return split.report(examples=3)


def test_iou_is_that_of_the_class_maps(split: Split, report: PerClassReport) -> None:
    for name in split.networks:
        matrix = ConfusionMatrix(CLASSES)
        matrix.update(split.labels, split.maps(name))
        found = [row.iou[name] for row in report.rows]
        assert found == pytest.approx(matrix.iou().tolist(), nan_ok=True)
        summary = report.model(name)
        assert summary is not None
        assert summary.miou == pytest.approx(matrix.miou())
        assert summary.macc == pytest.approx(matrix.macc())
        assert summary.pixel_accuracy == pytest.approx(matrix.pixel_accuracy())
    assert [row.share for row in report.rows] == pytest.approx(matrix.share().tolist())


def test_networks_are_told_apart(split: Split) -> None:
    """Otherwise the comparisons above would hold for any mix-up of names."""
    maps = [split.maps(name) for name in split.networks]
    assert not torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[1], maps[2])
    assert all(len(one.unique()) > 1 for one in maps)


def test_divergence_compares_student_with_teacher(split: Split, report: PerClassReport) -> None:
    divergence = Divergence(CLASSES, temperature=TAU, device=CPU)
    with torch.no_grad():
        logits = [split.networks[name].eval()(split.images).logits for name in ("student", "teacher")]
    divergence.update(*logits, split.labels)
    assert [row.ntd for row in report.rows] == pytest.approx(divergence.ntd().tolist(), rel=1e-4)
    assert [row.td for row in report.rows[:4]] == pytest.approx(divergence.td().tolist()[:4], rel=1e-4)
    assert [row.weight for row in report.rows] == pytest.approx(
        divergence.mean_weight().tolist(), rel=1e-3, abs=1e-4
    )
    for row in report.rows[:4]:
        assert row.td is not None
        assert row.ntd is not None
        assert row.ratio == pytest.approx(row.td / row.ntd)


def test_class_absent_from_the_labels_has_none_for_td_and_ratio(report: PerClassReport) -> None:
    absent = report.rows[CLASSES - 1]
    assert (absent.share, absent.td, absent.ratio) == (0.0, None, None)
    assert absent.ntd is not None
    assert all(row.td is not None for row in report.rows[:-1])


def test_examples_are_those_that_differ_most_in_that_order(split: Split, report: PerClassReport) -> None:
    expected = sorted(split.disagreement(), reverse=True)[:3]
    assert len(set(split.disagreement())) == 5
    assert [example.disagreement for example in report.examples] == pytest.approx(expected)
    for example in report.examples:
        index = int(example.name.removeprefix("image "))
        assert example.disagreement == pytest.approx(split.disagreement()[index])
        assert torch.equal(torch.from_numpy(example.image), split.images[index].permute(1, 2, 0))
        assert torch.equal(torch.from_numpy(example.label).long(), split.labels[index])
        for name in split.networks:
            assert torch.equal(torch.from_numpy(example.predictions[name]).long(), split.maps(name)[index])


@pytest.mark.parametrize(("asked", "kept"), [(0, 0), (1, 1), (5, 5), (9, 5)])
def test_no_more_examples_are_kept_than_asked_for(split: Split, asked: int, kept: int) -> None:
    assert len(split.report(examples=asked).examples) == kept


def test_report_names_the_pair_the_images_and_the_progress(split: Split) -> None:
    told: list[int] = []
    report = split.report(absent="paper", notes=("a note.",), advance=told.append)
    assert told == [1, 2, 3, 4, 5]
    assert (report.dataset, report.split, report.images) == ("noise", "val", 5)
    assert report.pair == ("student", "teacher")
    assert report.notes == ("a note.",)
    assert [(model.name, model.role) for model in report.models] == [
        ("teacher", "teacher"),
        ("student", "student"),
        ("baseline", "baseline"),
    ]
    assert report.absent == "paper"
    assert PerClassReport.from_dict(report.to_dict()).to_dict() == report.to_dict()


def test_mode_of_the_networks_does_not_change_the_report(split: Split, report: PerClassReport) -> None:
    for model in split.networks.values():
        model.train()
    assert split.report(examples=3).to_dict() == report.to_dict()


@pytest.mark.parametrize("strides", [(16, 8), (8, 16), (32, 8)])
def test_teacher_may_have_another_output_stride(strides: tuple[int, int]) -> None:
    teacher, student = strides
    report = Split({"teacher": teacher, "student": student, "baseline": 8}).report(examples=1)
    numbers = [value for row in report.rows[:-1] for value in (row.td, row.ntd, row.ratio, row.weight)]
    assert all(value is not None and math.isfinite(value) and value >= 0 for value in numbers)


def test_student_that_equals_the_teacher_has_no_divergence_and_even_weights() -> None:
    split = Split({"teacher": 8, "student": 8})
    split.networks["student"].load_state_dict(split.networks["teacher"].state_dict())
    report = split.report(examples=2)
    for row in report.rows:
        assert (row.td, row.ntd, row.ratio) == (0.0 if row.share else None, 0.0, None)
        assert row.weight == 1
    assert [example.disagreement for example in report.examples] == [0.0, 0.0]
