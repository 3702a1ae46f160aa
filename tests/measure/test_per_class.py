"""The per-class report: IoU against class maps, who is compared with whom, the kept examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from hwdkit.engine.opened import NamedNetwork
from hwdkit.measure.divergence import Divergence, Measure, image_sums
from hwdkit.measure.per_class import Subject, per_class
from hwdkit.measure.types import ClassDivergence, PerClassReport
from hwdkit.metrics import ConfusionMatrix
from hwdkit.models.contract import InputContract
from hwdkit.models.segmenter import NetworkSpec, Segmenter, build
from hwdkit.report.saved import report_from_dict
from hwdkit.types import IGNORE

CLASSES = 5


class Split:
    """Three networks, synthetic images, and what the report should say about them."""

    def __init__(self, strides: dict[str, int]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (5, 3, 48, 40), dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(0, CLASSES - 1, (5, 48, 40), generator=generator)
        self.labels[:, :6] = IGNORE
        self.networks = {name: network(seed, stride) for seed, (name, stride) in enumerate(strides.items())}

    def report(self, **options: object) -> PerClassReport:
        roles = {
            name: name if name in ("teacher", "student", "baseline") else "compare" for name in self.networks
        }
        entrants = tuple(
            NamedNetwork(name, roles[name], model, f"{name}.safetensors", name)  # type: ignore[arg-type]
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


def network(seed: int, stride: int, *, align_corners: bool = True) -> Segmenter:
    torch.manual_seed(seed)
    model = build(
        NetworkSpec(
            "resnet18",
            CLASSES,
            {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
            output_stride=stride,
            head="fcn",
            head_channels=8,
            aux=False,
            input=InputContract(align_corners=align_corners),
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


def expected_divergence(split: Split, name: str, measure: Measure) -> list[ClassDivergence]:
    """From forward passes over single images, as the report makes them."""
    divergence = Divergence(CLASSES)
    with torch.no_grad():
        for _, image, label in split.pairs():
            student, teacher = (split.networks[one].eval()(image[None]).logits for one in (name, "teacher"))
            if teacher.shape != student.shape:
                teacher = split.networks[name].upsample(teacher, student.shape[-2:])
            sums = image_sums({name: student[0]}, teacher[0], label, measure)
            divergence.update(sums[name])
    return divergence.classes()


def test_every_student_is_compared_with_the_teacher_at_its_own_resolution() -> None:
    measure = Measure("kl", temperature=2.0)
    split = Split({"teacher": 8, "baseline": 16, "other": 8, "student": 8, "corners": 16})
    split.networks["corners"] = network(9, 16, align_corners=False)
    report = split.report(examples=0, measure=measure)
    learners = ["baseline", "other", "student", "corners"]
    assert report.students() == learners
    assert (report.divergence, report.divergence_on) == (measure.kind, measure.on)
    assert report.temperature == measure.temperature
    for name in learners:
        found = [row.divergences[name] for row in report.rows]
        assert found == expected_divergence(split, name, measure)
        assert found == [report.divergence_of(row, name) for row in report.rows]
    assert len({report.rows[0].divergences[name].td for name in learners}) == 4
    for row in report.rows:
        own = row.divergences["student"]
        assert (row.td, row.ntd, row.ratio, row.weight) == (own.td, own.ntd, own.ratio, own.weight)
        assert (row.image_ratio, row.ratio_images) == (own.image_ratio, own.images)


def test_one_forward_pass_a_network_and_image_gives_all_figures(split: Split) -> None:
    passes = dict.fromkeys(split.networks, 0)

    def count(name: str) -> Callable[..., None]:
        def seen(_: object, inputs: tuple[Tensor, ...], output: object) -> None:
            passes[name] += inputs[0].shape[-2:] == (48, 40)  # multiply-adds are counted at another size

        return seen

    hooks = [model.register_forward_hook(count(name)) for name, model in split.networks.items()]
    split.report(examples=3)
    for hook in hooks:
        hook.remove()
    assert passes == dict.fromkeys(split.networks, len(split.images))


def test_mean_of_a_divergence_is_over_the_classes_that_have_it(report: PerClassReport) -> None:
    mean = report.mean_divergence("baseline")
    rows = [row.divergences["baseline"] for row in report.rows]
    assert mean.td == pytest.approx(sum(row.td or 0.0 for row in rows) / (CLASSES - 1))
    assert mean.ntd == pytest.approx(sum(row.ntd or 0.0 for row in rows) / CLASSES)
    ratios = [row.ratio for row in rows if row.ratio is not None]
    assert mean.ratio == pytest.approx(sum(ratios) / len(ratios))
    assert mean.weight == pytest.approx(1)
    assert report.mean_divergence("nobody") == ClassDivergence()


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
    assert report_from_dict(report.to_dict()).to_dict() == report.to_dict()


def test_mode_of_the_networks_does_not_change_the_report(split: Split, report: PerClassReport) -> None:
    for model in split.networks.values():
        model.train()
    assert split.report(examples=3).to_dict() == report.to_dict()


def test_teacher_may_have_a_coarser_output_stride() -> None:
    report = Split({"teacher": 32, "student": 8}).report(examples=1)
    numbers = [value for row in report.rows[:-1] for value in (row.td, row.ntd, row.ratio, row.weight)]
    assert all(value is not None and math.isfinite(value) and value >= 0 for value in numbers)


def test_student_that_equals_the_teacher_has_no_divergence_and_even_weights() -> None:
    split = Split({"teacher": 8, "student": 8})
    split.networks["student"].load_state_dict(split.networks["teacher"].state_dict())
    report = split.report(examples=2)
    for row in report.rows:
        assert (row.td, row.ntd, row.ratio) == (0.0 if row.share else None, 0.0, None)
        assert row.weight == pytest.approx(1)
    assert [example.disagreement for example in report.examples] == [0.0, 0.0]
