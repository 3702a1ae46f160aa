"""A comparison: what is put together, what is said of it, and how names from outside come through."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from test_bootstrap import random_counts

from hwdkit.commands.compare.counts import image_counts
from hwdkit.engine.evaluate import predict
from hwdkit.measure.bootstrap import Interval, scores
from hwdkit.measure.comparison import Comparison, Costs, Difference, Member, Method, Setting, compare
from hwdkit.metrics import ConfusionMatrix
from hwdkit.models.segmenter import NetworkSpec, build
from hwdkit.recipe.protocol import Protocol
from hwdkit.report import comparison as formats
from hwdkit.report.comparison import comparison_page
from hwdkit.report.plots.compare import intervals
from hwdkit.report.verdicts import closing_notes, said, sentence

CLASSES = ("road", "sky", "tree")


def member(seed: int, **costs: Any) -> Member:
    counts = random_counts(20, 3, seed=seed)
    counts[:, 1] = random_counts(20, 3, seed=0)[:, 1]  # one set of labels
    counts[:, 0] = np.minimum(counts[:, 0], counts[:, 1])
    return Member(f"runs/{seed}", f"digest-{seed}", seed, counts, Costs(**costs))


def method(name: str, *seeds: int, role: str = "student", **costs: Any) -> Method:
    return Method(name, role, 13_600_000, 86.0, tuple(member(seed, **costs) for seed in seeds))


def setting(**options: Any) -> Setting:
    facts: dict[str, Any] = {
        "dataset": "streets",
        "split": "val",
        "fingerprint": "f",
        "classes": CLASSES,
        "images": 20,
        "images_in_split": 20,
        "protocol": Protocol(),
        "resamples": 200,
        "seed": 0,
        "confidence": 95.0,
    }
    return Setting(**(facts | options))


def compared(*methods: Method, all_pairs: bool = False, **options: Any) -> Comparison:
    return compare(methods, setting(**options), all_pairs=all_pairs)


def pairs_of(comparison: Comparison) -> list[tuple[str, str]]:
    return [(each.method, each.against) for each in comparison.differences]


BASE = method("base", 1, role="baseline")


def test_counts_add_up_to_the_confusion_matrix_of_each_image() -> None:
    torch.manual_seed(0)
    options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    spec = NetworkSpec("resnet18", 3, options, output_stride=32, head="fcn", head_channels=8, aux=False)
    model = build(spec)
    images = torch.randint(0, 256, (4, 3, 40, 32), dtype=torch.uint8)
    labels = torch.randint(0, 4, (4, 40, 32))
    labels[labels == 3] = 255
    told: list[int] = []
    pairs = [(i, images[i], labels[i]) for i in (2, 0, 3, 1)]
    counts = image_counts(model, pairs, Protocol(), images=4, advance=told.append)
    assert told == [1, 2, 3, 4]
    assert not model.training
    for i in range(4):
        matrix = ConfusionMatrix(3)
        with torch.no_grad():
            matrix.update(labels[i], predict(model, images[i], Protocol()))
        np.testing.assert_array_equal(counts[i, 0], matrix.matrix.diagonal())
        np.testing.assert_array_equal(counts[i, 1], matrix.matrix.sum(1))
        np.testing.assert_array_equal(counts[i, 2], matrix.matrix.sum(0))


def test_methods_are_compared_with_the_baseline_wherever_it_stands() -> None:
    comparison = compared(method("a", 2), BASE, method("b", 3))
    assert pairs_of(comparison) == [("a", "base"), ("b", "base")]


def test_all_pairs_are_the_later_minus_the_earlier_and_always_minus_the_baseline() -> None:
    comparison = compared(method("a", 2), BASE, method("b", 3), all_pairs=True)
    assert pairs_of(comparison) == [("a", "base"), ("b", "a"), ("b", "base")]


def test_without_baseline_nothing_is_compared_and_it_is_said() -> None:
    comparison = compared(method("a", 2), method("b", 3))
    assert comparison.differences == ()
    assert "--baseline" in " ".join(closing_notes(comparison, per_class=False))


def test_order_of_methods_and_of_seeds_changes_no_number() -> None:
    there = compared(BASE, method("a", 2, 3, 4), method("b", 5, 6))
    back = compared(method("b", 6, 5), method("a", 4, 2, 3), BASE)
    numbers = {(d.method, d.against): (d.miou, d.per_class) for d in there.differences}
    assert numbers == {(d.method, d.against): (d.miou, d.per_class) for d in back.differences}
    assert there.draws["a"].std[0] == back.draws["a"].std[0]


def test_seeds_are_reported_as_mean_and_deviation() -> None:
    group = method("a", 2, 3, 4)
    values = [scores(each.counts.sum(0), "present")[0] for each in group.members]
    row = compared(BASE, group).to_dict()["methods"][1]
    assert row["miou"] == pytest.approx(np.mean(values))
    assert row["miou_std"] == pytest.approx(np.std(values, ddof=1))
    assert [seed["miou"] for seed in row["seeds"]] == values
    assert [seed["seed"] for seed in row["seeds"]] == [2, 3, 4]


def test_several_seeds_make_an_interval_wider_than_their_images_alone() -> None:
    group, other = method("a", 2, 3, 4), method("b", 5, 6, 7)
    (with_seeds,) = compared(group, dataclasses.replace(other, role="baseline")).differences
    alone = [dataclasses.replace(each, members=each.members[:1]) for each in (group, other)]
    (images_only,) = compared(alone[0], dataclasses.replace(alone[1], role="baseline")).differences
    assert with_seeds.miou.high - with_seeds.miou.low > images_only.miou.high - images_only.miou.low


def better(by: int) -> Method:
    """A method that gets more pixels right than `BASE`, in every image."""
    counts = BASE.members[0].counts.copy()
    counts[:, 2] = np.maximum(counts[:, 0], counts[:, 2] - by)
    return Method("better", "student", 1, 1.0, (Member("b", "better", 0, counts, Costs()),))


def test_a_difference_is_called_noise_or_more_than_noise() -> None:
    comparison = compared(BASE, method("other", 1000), better(40))
    noise, more = (sentence(each) for each in comparison.differences)
    assert re.fullmatch(
        r"other − base: [+−]\d\.\d\d \[−\d\.\d\d, \+\d\.\d\d\]: within noise on .*, one seed each\.",
        noise,
    )
    assert re.match(
        r"better − base: \+[\d.]+ \[\+[\d.]+, \+[\d.]+\]: more than the noise of these 20 im", more
    )
    assert more.endswith("how seeds differ is unknown.")


def test_words_name_the_seeds() -> None:
    comparison = compared(method("base", 1, 2, 3, role="baseline"), method("a", 4, 5, 6), method("b", 7))
    a, b = (sentence(each) for each in comparison.differences)
    assert "these 20 images and 3 seeds each" in a
    assert "these 20 images and 1 against 3 seeds" in b


def test_a_single_seed_against_several_is_told_to_leave_its_own_spread_unknown() -> None:
    group = dataclasses.replace(method("base", 1), role="baseline")
    twin = dataclasses.replace(BASE.members[0], digest="other", counts=BASE.members[0].counts)
    group = dataclasses.replace(group, members=(BASE.members[0], twin))  # two seeds that do not differ
    (found,) = compared(group, better(40)).differences
    assert found.seeds == (1, 2)
    assert found.miou.beyond_noise
    assert sentence(found).endswith("how seeds of better differ is unknown.")


def only(images: int, *methods: Method) -> Comparison:
    """A comparison on the first images alone."""
    cut = [
        dataclasses.replace(
            m, members=tuple(dataclasses.replace(e, counts=e.counts[:images]) for e in m.members)
        )
        for m in methods
    ]
    return compared(*cut, images=images)


def test_few_images_are_no_ground_for_a_claim() -> None:
    one, few, some = (only(images, BASE, better(40)) for images in (1, 9, 12))
    assert re.search(r"\+[\d.]+: of one labelled image, which tells nothing of others\.$", verdict(one))
    assert "too few images with labels (9) to tell it from noise" in verdict(few)
    assert "more than the noise of these 12 images" in verdict(some)
    assert any("12 images with labels are few" in note for note in closing_notes(some, per_class=False))
    row = json.loads(formats.comparison_json(one))["differences"][0]
    assert (row["low"], row["high"], row["beyond_noise"], row["images"]) == (None, None, False, 1)
    assert intervals(one).startswith(b"\x89PNG")


def verdict(comparison: Comparison) -> str:
    return sentence(comparison.differences[0])


def test_class_of_one_image_has_no_star() -> None:
    rare, best = BASE, better(40)
    counts = [each.members[0].counts.copy() for each in (rare, best)]
    for each in counts:
        each[1:, :, 2] = 0
    methods = [
        dataclasses.replace(m, members=(dataclasses.replace(m.members[0], counts=own),))
        for m, own in zip((rare, best), counts, strict=True)
    ]
    (found,) = compared(*methods).differences
    assert [interval.images for interval in found.per_class] == [20, 20, 1]
    assert found.per_class[2].delta > 0
    assert [interval.beyond_noise for interval in found.per_class] == [True, True, False]
    assert re.search(r"tree +\d+\.\d\d +1 .* – *\n", shown(compared(*methods), per_class=True))


def test_an_end_that_is_not_zero_does_not_look_like_it() -> None:
    interval = Interval(0.004, 0.00001, 0.009, 200)
    said = sentence(Difference("a", "base", (3, 3), False, interval, ()))
    assert "[+0.001, +0.900]: more than the noise" in said
    interval = Interval(-0.004, -0.009, 0.0000004, 200)
    said = sentence(Difference("a", "base", (3, 3), False, interval, ()))
    assert "[−0.90000, +0.00004]: within noise" in said
    assert "[0.00, +0.90]" in sentence(
        Difference("a", "base", (3, 3), False, Interval(0.004, 0.0, 0.009, 200), ())
    )


def test_too_few_resamples_for_the_confidence_are_told() -> None:
    plain, many = (compared(BASE, better(40), confidence=c) for c in (99.9, 95.0))
    assert any(
        note.startswith("200 resamples are few for 99.9 %: 0.1 lie")
        for note in closing_notes(plain, per_class=False)
    )
    assert not any("resamples are few" in note for note in closing_notes(many, per_class=False))


def test_one_seed_is_told_to_know_images_alone() -> None:
    plain = " ".join(closing_notes(compared(BASE, method("a", 2)), per_class=False))
    assert "of one seed" in plain
    groups = compared(method("base", 1, 2, 3, role="baseline"), method("a", 4, 5, 6))
    assert "of one seed" not in " ".join(closing_notes(groups, per_class=False))


def test_many_differences_are_told_to_find_some_by_chance() -> None:
    four = [method(name, 2 + place) for place, name in enumerate("abcd")]
    notes = closing_notes(compared(*four, all_pairs=True, confidence=90.0), per_class=True)
    assert any(note.startswith("6 differences") and "10 in 100" in note for note in notes)
    assert any(note.startswith("*:") for note in notes)


def test_one_network_under_two_names_is_called_so() -> None:
    comparison = compared(BASE, dataclasses.replace(BASE, name="again", role="student"))
    (difference,) = comparison.differences
    assert (difference.miou.delta, difference.miou.low, difference.miou.high) == (0, 0, 0)
    assert "the same networks under two names" in sentence(difference)


def test_images_without_labels_are_nothing_to_compare() -> None:
    empty = [
        dataclasses.replace(m, members=(dataclasses.replace(m.members[0], counts=0 * m.members[0].counts),))
        for m in (BASE, method("a", 2))
    ]
    comparison = compared(*empty)
    assert "nothing to compare" in sentence(comparison.differences[0])
    assert json.loads(formats.comparison_json(comparison))["methods"][0]["miou"] is None
    assert math.isnan(comparison.share[0])
    assert intervals(comparison).startswith(b"\x89PNG")


def test_costs_are_means_over_the_runs_and_unknown_if_one_is() -> None:
    known = method("a", 2, 3, step_seconds=0.5, hours=2.0)
    assert known.cost("step_seconds") == 0.5
    assert known.cost("memory_mib") is None
    half = dataclasses.replace(known, members=(known.members[0], member(9)))
    assert half.cost("step_seconds") is None
    row = compared(BASE, known).to_dict()["methods"][1]
    assert row["miou_per_hour"] == pytest.approx(row["miou"] / 2)


def shown(comparison: Comparison, *, width: int = 200, per_class: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(comparison_page(comparison, per_class=per_class))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_page_shows_the_papers_table_and_what_is_unknown() -> None:
    text = shown(compared(BASE, method("a", 2, 3, step_seconds=0.5)))
    assert re.search(r"base +1 +13\.60 +86\.00 +\d+\.\d\d +– +–", text)
    assert re.search(r"a +2 +13\.60 +86\.00 +\d+\.\d\d ± \d+\.\d\d +[+−]\d+\.\d\d +\[.*, .*\]", text)
    assert re.search(r"a +0\.500 +unknown +unknown +unknown", text)


def test_numbers_stay_whole_in_a_narrow_terminal() -> None:
    name = "a-method-of-a-very-long-name-indeed"
    comparison = compared(BASE, method(name, 2, 3))
    found = comparison.differences[0].miou
    text = shown(comparison, width=64)
    assert f"{100 * found.delta:+.2f}".replace("-", "−") in text
    assert "…" not in text


def test_classes_have_a_table_for_each_difference_with_stars() -> None:
    text = shown(compared(BASE, method("a", 2), better(40)), per_class=True)
    assert "\na − base\n" in text
    better_part = text[text.index("\nbetter − base\n") : text.index("a − base: ")]
    assert better_part.count("] *") == 3
    assert all(name in better_part for name in CLASSES)


def test_csv_has_a_line_for_each_method_and_class() -> None:
    comparison = compared(BASE, method("a", 2))
    rows = list(csv.DictReader(io.StringIO(formats.comparison_csv(comparison, per_class=True))))
    assert [(row["method"], row["class"]) for row in rows] == [
        (name, of) for name in ("base", "a") for of in ("", *CLASSES)
    ]
    found = comparison.differences[0]
    assert float(rows[4]["low"]) == found.miou.low
    assert float(rows[6]["delta"]) == found.per_class[1].delta
    assert (rows[0]["against"], rows[0]["delta"], rows[4]["against"]) == ("", "", "base")
    short = formats.comparison_csv(comparison, per_class=False).splitlines()
    assert len(short) == 3


def test_json_says_what_the_tables_say() -> None:
    comparison = compared(BASE, method("a", 2), notes=("Only a test.",))
    document = json.loads(formats.comparison_json(comparison))
    (difference,) = document["differences"]
    assert document["verdicts"] == [sentence(comparison.differences[0])]
    assert document["notes"][-1] == "Only a test."
    assert document["baseline"] == "base"
    assert difference["delta"] == comparison.differences[0].miou.delta
    assert difference["beyond_noise"] is comparison.differences[0].miou.beyond_noise
    assert [row["name"] for row in difference["per_class"]] == list(CLASSES)
    assert document["methods"][0]["miou_std"] is None


HOSTILE = "a|b & c_d % \\input{x} <b>\x1b[31m\n[red]$^~#{}"


def test_hostile_names_steer_no_format() -> None:
    names = (HOSTILE, *CLASSES[1:])
    comparison = compared(BASE, method(HOSTILE, 2), classes=names, dataset=HOSTILE, notes=(HOSTILE,))
    page = shown(comparison, per_class=True, width=400)
    latex = formats.comparison_latex(comparison, per_class=True)
    markdown = formats.comparison_markdown(comparison, per_class=True)
    for text in (page, latex, markdown, "".join(said(comparison, per_class=True))):
        assert "\x1b" not in text
    assert "[red]" in page  # no markup
    body = [line for line in latex.splitlines() if not line.startswith("%")]
    rows = [line for line in body if line.startswith(r"a\textbar{}b")]
    assert len(rows) == 3
    assert all(r"\& c\_d \% \textbackslash{}input\{x\}" in row for row in rows)
    assert all(re.sub(r"\\[&%$#_{}]", "", row).count("%") == 0 for row in rows)
    table = [line for line in markdown.splitlines() if line.startswith(r"| a\|b")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {8, 6}
    assert "<b>" not in markdown
    assert len(list(csv.reader(io.StringIO(formats.comparison_csv(comparison, per_class=True))))) == 9


def test_latex_rows_have_as_many_cells_as_the_table_has_columns() -> None:
    text = formats.comparison_latex(compared(BASE, method("a", 2)), per_class=True)
    for columns, body in re.findall(r"\\begin\{tabular\}\{(l r*|lr+)\}(.*?)\\end", text, flags=re.DOTALL):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert rows
        assert {line.count(" & ") for line in rows} == {len(columns) - 1}


def test_figure_draws_every_difference_and_repeats_its_bytes() -> None:
    comparison = compared(BASE, method("a", 2), better(40))
    one = intervals(comparison)
    assert one.startswith(b"\x89PNG")
    assert one == intervals(comparison)
    assert intervals(compared(BASE, method("a", 2))) != one
