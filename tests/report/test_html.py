"""The page is whole, safe and needs nothing from outside."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hwdkit.measure import overlay
from hwdkit.measure.types import ClassDivergence, ClassRow, Example, ModelSummary, PerClassReport
from hwdkit.report.html.page import per_class_page
from hwdkit.report.render import number
from hwdkit.types import Role

HOSTILE = "<script>alert(1)</script>\"'"


def summary(name: str, role: Role, miou: float) -> ModelSummary:
    return ModelSummary(name, role, f"runs/{name}.safetensors", 13_610_000, None, miou, 0.7, 0.9)


@pytest.fixture
def report() -> PerClassReport:
    models = (
        summary("R101", "teacher", 0.7),
        summary("plain", "baseline", 0.5),
        summary("hwd", "student", 0.6),
    )
    names = ("road", "wall", HOSTILE, "sky", "car", "rider", "absent one")
    rows = []
    for index, name in enumerate(names):
        iou = {model.name: model.miou - 0.01 * index for model in models}
        rows.append(
            ClassRow(
                name, (10 * index, 90, 200), 1 / 7, iou, 1e-6, 1e-8, 100.0 / (index + 1), 0.5 + index / 5
            )
        )
    rows[-1] = ClassRow("absent one", (1, 2, 3), 0.0, {model.name: math.nan for model in models})
    dice = np.random.default_rng(0)
    label = dice.integers(0, 7, (24, 32), dtype=np.uint8)
    label[:4] = 255
    maps = {model.name: dice.integers(0, 7, (24, 32), dtype=np.uint8) for model in models}
    image = dice.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    example = Example(f"val/{HOSTILE}", 24, 32, image, label, maps, 0.85)
    return PerClassReport(
        "scenes",
        "val",
        500,
        4.0,
        "activation",
        "present",
        ("hwd", "R101"),
        models,
        tuple(rows),
        (example,),
        (HOSTILE,),
    )


class Outline(HTMLParser):
    """Collects start tags, so that tests need not know the template's spacing."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_page_requests_nothing(report: PerClassReport) -> None:
    page = per_class_page(report)
    assert not re.search(r"https?://|@import|//cdn", page)
    outline = Outline(page)
    assert not outline.of("link")
    for tag, attributes in outline.tags:
        inside = ("data:", "#") if tag == "a" else ("data:",)
        for key in ("src", "href", "srcset", "data"):
            assert (attributes.get(key) or "data:").startswith(inside)


def test_hostile_names_stay_text(report: PerClassReport) -> None:
    page = per_class_page(report)
    assert len(Outline(page).of("script")) == 1
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_hostile_model_names_stay_text(report: PerClassReport) -> None:
    models = (*report.models, summary(HOSTILE, "compare", 0.4))
    assert len(Outline(per_class_page(replace(report, models=models))).of("script")) == 1


def test_the_policy_admits_the_page_s_own_script(report: PerClassReport) -> None:
    page = per_class_page(report)
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script.group(1).encode()).digest()).decode()
    policy = next(tag["content"] for tag in Outline(page).of("meta") if "http-equiv" in tag)
    assert policy
    assert f"'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_every_class_and_model_is_on_the_page(report: PerClassReport) -> None:
    page = per_class_page(report)
    for name in ("road", "wall", "sky", "absent one", "R101", "plain", "hwd", "runs/hwd.safetensors"):
        assert name in page


def test_every_column_is_sorted_by_a_button(report: PerClassReport) -> None:
    outline = Outline(per_class_page(report))
    heads = [tag for tag in outline.of("th") if tag.get("scope") == "col"]
    buttons = [tag for tag in outline.of("button") if "data-label" in tag]
    assert len(heads) == len(buttons) == 1 + 1 + len(report.models) + 7
    assert all(head["aria-sort"] == "none" for head in heads)


def test_every_picture_has_words(report: PerClassReport) -> None:
    outline = Outline(per_class_page(report))
    assert len(outline.of("img")) == 1 + len(report.models) + 1  # label, predictions, disagreement
    assert all(tag.get("alt") for tag in outline.of("img"))
    assert all(tag.get("aria-label") or tag.get("aria-hidden") for tag in outline.of("svg"))


def test_no_number_reads_nan(report: PerClassReport) -> None:
    assert not re.search(r"\bnan\b|\binf\b", per_class_page(report))


def test_page_is_written_without_baseline_divergence_or_examples(report: PerClassReport) -> None:
    rows = tuple(replace(row, td=None, ntd=None, ratio=None, weight=None) for row in report.rows[:1])
    page = per_class_page(replace(report, models=report.models[::2], rows=rows, examples=()))
    assert "hwd reaches 60.0 % mIoU, 10.0 points below R101." in page
    assert "Mean HWD weight" not in page


def with_students(report: PerClassReport, **changes: Any) -> PerClassReport:
    """The same report with the baseline's divergence and everybody's confusion matrix."""
    rows = tuple(
        replace(row, divergences={"plain": ClassDivergence(2e-6, 1e-8, 200.0, 123.4, 0.25, images=3)})
        for row in report.rows
    )
    size = range(len(rows))
    counts = tuple(tuple(7 if r == c else int(c == r + 1) for c in size) for r in size)
    confusions = {model.name: counts for model in report.models}
    return replace(report, rows=rows, confusions=confusions, **changes)


def test_every_student_has_its_divergence_and_its_mean(report: PerClassReport) -> None:
    assert "Every student against" not in per_class_page(report)
    page = per_class_page(with_students(report))
    assert "Every student against" in page
    assert page.count("<td>123.4</td>") == 1  # the last row
    assert page.count(">123.4</td>") == 1 + len(report.rows)


def test_the_last_row_holds_the_means_of_the_columns(report: PerClassReport) -> None:
    page = per_class_page(report)
    foot = re.search(r"<tfoot>.*?</tfoot>", page, re.S)
    assert foot
    cells = re.findall(r"<td>(.*?)</td>", foot[0])
    ratios = [row.ratio for row in report.rows if row.ratio is not None]
    assert cells[1:6] == ["70.00", "50.00", "60.00", "+10.00", "+10.00"]
    assert cells[6:8] == ["1.00e-06", "1.00e-08"]
    assert cells[8:10] == [number(sum(ratios) / len(ratios), 4), "–"]


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        ({}, "(t − s)²</code>", "KL"),
        ({"divergence": "kl"}, "t ln(t / s) − t + s</code>", "(t − s)²"),
        ({"divergence_on": "logits"}, "student&#39;s logit in the class&#39;s channel", "τ ="),
    ],
)
def test_the_definition_is_that_of_the_divergence_that_was_measured(
    report: PerClassReport, changes: dict[str, Any], said: str, unsaid: str
) -> None:
    page = per_class_page(replace(report, **changes))
    assert said in page
    assert unsaid not in page


def test_confusions_are_shown_where_the_report_has_them(report: PerClassReport) -> None:
    assert 'id="matrix"' not in per_class_page(report)
    outline = Outline(per_class_page(with_students(report)))
    assert len(outline.of("image")) == len(report.models)
    assert [tag.get("type") for tag in outline.of("script")] == ["application/json", None]


def test_lead_states_the_closed_part_of_the_gap(report: PerClassReport) -> None:
    assert "10.0 points above plain: 50 % of the gap is closed." in per_class_page(report)


def test_disagreement_names_who_is_right_and_skips_ignored_pixels() -> None:
    label = np.array([[0, 0, 0, 0, 255]], dtype=np.uint8)
    student = np.array([[0, 0, 1, 1, 1]], dtype=np.uint8)
    teacher = np.array([[0, 1, 0, 2, 2]], dtype=np.uint8)
    expected = [
        [overlay.AGREE, overlay.STUDENT_RIGHT, overlay.TEACHER_RIGHT, overlay.BOTH_WRONG, overlay.AGREE]
    ]
    assert overlay.disagreement(label, student, teacher).tolist() == expected


def test_a_mask_keeps_its_colours_and_hides_unlabelled_pixels() -> None:
    mask = np.array([[0, 1, 255]], dtype=np.uint8)
    decoded = Image.open(BytesIO(overlay.mask_png(mask, [(1, 2, 3), (4, 5, 6)]))).convert("RGBA")
    assert [decoded.getpixel((x, 0)) for x in range(2)] == [(1, 2, 3, 255), (4, 5, 6, 255)]
    assert decoded.getpixel((2, 0))[3] == 0  # type: ignore[index]


def test_overlay_shows_the_image_where_there_is_no_class() -> None:
    image = np.full((1, 2, 3), 100, dtype=np.uint8)
    mixed = overlay.overlay(image, np.array([[0, 255]], dtype=np.uint8), [(200, 0, 0)], opacity=0.5)
    assert mixed.tolist() == [[[150, 50, 50], [100, 100, 100]]]


def test_shrinking_a_class_map_invents_no_class() -> None:
    mask = np.zeros((50, 100), dtype=np.uint8)
    mask[:, 50:] = 200
    small = overlay.shrink(mask, 10)
    assert small.shape == (5, 10)
    assert set(small.ravel().tolist()) == {0, 200}
